//! Calls that are about the guest as a whole.

use anyhow::Result;
use machine::vm::{AgentClient, MAC};
use protobuf::MessageField;
use protocols::agent::{
    ARPNeighbors, AddARPNeighborsRequest, GetMetricsRequest, MemHotplugByProbeRequest, OnlineCPUMemRequest,
    SetGuestDateTimeRequest, UpdateInterfaceRequest, VolumeStatsRequest,
};
use protocols::types;
use tests::{Code, Guest, expect_code};

#[tokio::test]
async fn processors_that_are_there_are_online_and_missing_ones_a_timeout() -> Result<()> {
    let guest = Guest::builder().cpus(2).boot().await?;
    let api = guest.api();
    let online = |nb_cpus| {
        let request = OnlineCPUMemRequest { nb_cpus, cpu_only: true, ..Default::default() };
        async move { api.online_cpu_mem(AgentClient::call(), &request).await }
    };
    online(2).await?;
    online(0).await?;
    let text = expect_code(online(3).await, Code::DEADLINE_EXCEEDED);
    assert!(text.contains("2 of 3"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_clock_is_set_and_nonsense_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let api = guest.api();
    let set = |sec, usec| {
        let request = SetGuestDateTimeRequest { Sec: sec, Usec: usec, ..Default::default() };
        async move { api.set_guest_date_time(AgentClient::call(), &request).await }
    };
    set(2_000_000_000, 5).await?;
    assert!(container.sh("date +%s").await?.starts_with("20000000"));
    expect_code(set(-5, 0).await, Code::INVALID_ARGUMENT);
    expect_code(set(5, 1_000_000).await, Code::INVALID_ARGUMENT);
    Ok(())
}

#[tokio::test]
async fn volumes_tell_how_full_they_are() -> Result<()> {
    let guest = Guest::boot().await?;
    let api = guest.api();
    let ask = |path: &str| {
        let request = VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() };
        async move { api.get_volume_stats(AgentClient::call(), &request).await }
    };
    let stats = ask("/run").await?;
    assert_eq!(stats.usage.len(), 2);
    let bytes = &stats.usage[0];
    assert!(bytes.total > 1 << 20 && bytes.used <= bytes.total, "{bytes:?}");
    expect_code(ask("/no/such/volume").await, Code::NOT_FOUND);
    expect_code(ask("relative").await, Code::INVALID_ARGUMENT);
    Ok(())
}

#[tokio::test]
async fn neighbours_are_in_the_table_when_the_host_says_so() -> Result<()> {
    let guest = Guest::builder().network().boot().await?;
    guest.sandbox().await?;
    let address =
        |text: &str| types::IPAddress { address: text.into(), mask: "24".into(), ..Default::default() };
    let link = types::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        hwAddr: MAC.into(),
        IPAddresses: vec![address("10.0.2.15")],
        ..Default::default()
    };
    let request = UpdateInterfaceRequest { interface: MessageField::some(link), ..Default::default() };
    guest.api().update_interface(AgentClient::call(), &request).await?;
    let api = guest.api();
    let add = |ip: &str, device: &str| {
        let neighbour = types::ARPNeighbor {
            toIPAddress: MessageField::some(address(ip)),
            device: device.into(),
            lladdr: "02:00:00:00:00:99".into(),
            ..Default::default()
        };
        let neighbours = ARPNeighbors { ARPNeighbors: vec![neighbour], ..Default::default() };
        let request =
            AddARPNeighborsRequest { neighbors: MessageField::some(neighbours), ..Default::default() };
        async move { api.add_arp_neighbors(AgentClient::call(), &request).await }
    };
    add("10.0.2.99", "eth0").await?;
    let table = guest.container("c1").run().await?.sh("cat /proc/net/arp").await?;
    assert!(
        table.lines().any(|line| line.contains("10.0.2.99") && line.contains("02:00:00:00:00:99")),
        "{table}"
    );
    expect_code(add("10.0.2.99", "eth7").await, Code::NOT_FOUND);
    expect_code(add("nonsense", "eth0").await, Code::INVALID_ARGUMENT);
    let empty = guest.api().add_arp_neighbors(AgentClient::call(), &AddARPNeighborsRequest::new()).await;
    expect_code(empty, Code::INVALID_ARGUMENT);
    Ok(())
}

#[tokio::test]
async fn a_kernel_without_a_memory_probe_says_so() -> Result<()> {
    let guest = Guest::boot().await?;
    let request = MemHotplugByProbeRequest { memHotplugProbeAddr: vec![1 << 32], ..Default::default() };
    expect_code(guest.api().mem_hotplug_by_probe(AgentClient::call(), &request).await, Code::UNIMPLEMENTED);
    Ok(())
}

#[tokio::test]
async fn metrics_have_the_names_of_dashboards_and_parse() -> Result<()> {
    let guest = Guest::boot().await?;
    let scrape = || async {
        let answer = guest.api().get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await?;
        anyhow::Ok(answer.metrics)
    };
    let value = |text: &str, sample: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in:\n{text}")).parse().expect("a number")
    };
    // Before there is a sandbox, as kata-monitor may ask at any time.
    let first = scrape().await?;
    assert_eq!(value(&first, "kata_agent_scrape_count"), 1.0);
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    container
        .sh("dd if=/dev/vda of=/dev/null bs=4096 count=256 2>/dev/null || cat /bin/busybox >/dev/null")
        .await?;
    let text = scrape().await?;
    assert_eq!(value(&text, "kata_agent_scrape_count"), 2.0);
    assert!(value(&text, "kata_agent_total_rss") > 1e6);
    assert!(value(&text, "kata_agent_proc_status{item=\"vmrss\"}") > 1000.0);
    assert!(value(&text, "kata_agent_io_stat{item=\"rchar\"}") > 0.0);
    assert!(value(&text, "kata_guest_meminfo{item=\"mem_total\"}") > 6.4e7);
    assert!(value(&text, "kata_guest_cpu_time{cpu=\"total\",item=\"system\"}") > 0.0);
    assert!(value(&text, "kata_guest_diskstat{disk=\"vda\",item=\"reads\"}") > 0.0);
    assert!(value(&text, "kata_guest_vm_stat{item=\"nr_free_pages\"}") > 0.0);
    assert!(value(&text, "kata_guest_tasks{item=\"max\"}") > 3.0);
    value(&text, "kata_guest_netdev_stat{interface=\"lo\",item=\"recv_bytes\"}");
    assert_eq!(value(&text, "pith_containers{state=\"running\"}"), 1.0);
    value(&text, "pith_guest_pressure{resource=\"memory\",kind=\"some\",window=\"avg10\"}");
    let room =
        text.lines().find(|line| line.starts_with("kata_guest_filesystem_bytes{") && line.contains("total"));
    let room = room.unwrap_or_else(|| panic!("no file system in:\n{text}"));
    assert!(room.contains("/run/kata-containers/c1/rootfs") && room.contains("overlay"), "{room}");
    Ok(())
}
