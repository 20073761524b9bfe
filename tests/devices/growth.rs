//! Processors and memory that come and go.

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::OnlineCPUMemRequest;
use serde_json::{Value, json};
use tests::{Guest, Inspector, seen};

use crate::q35;

async fn online(guest: &Guest, cpus: u32) -> Result<()> {
    let request = OnlineCPUMemRequest { wait: true, nb_cpus: cpus, cpu_only: cpus > 0, ..Default::default() };
    guest.api().online_cpu_mem(AgentClient::call(), &request).await?;
    Ok(())
}

#[tokio::test]
async fn processors_come_and_go() -> Result<()> {
    let guest = q35(Guest::builder().growth(3, 0), &[]).await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("grep -c ^processor /proc/cpuinfo").await?, "1");
    let free = guest.vm().qmp("query-hotpluggable-cpus", Value::Null).await?;
    let free: Vec<&Value> =
        free.as_array().context("a list")?.iter().filter(|cpu| cpu.get("qom-path").is_none()).collect();
    assert_eq!(free.len(), 2);
    for (index, cpu) in free.iter().enumerate() {
        let driver = cpu["type"].as_str().context("a type")?;
        guest.plug(driver, &format!("cpu{index}"), cpu["props"].clone()).await?;
    }
    online(&guest, 3).await?;
    assert_eq!(container.sh("grep -c ^processor /proc/cpuinfo").await?, "3");
    let spread = container.sh("for i in 1 2 3 4 5 6; do (while :; do :; done) & done; sleep 2; kill $(jobs -p); awk '/^cpu[0-9]/ { if ($2 > 20) n++ } END { print n }' /proc/stat").await?;
    assert_eq!(spread, "3", "all of them work");
    guest.unplug("cpu1").await?;
    guest.unplug("cpu0").await?;
    assert_eq!(container.sh("grep -c ^processor /proc/cpuinfo").await?, "1");
    assert_eq!(container.sh("echo still here").await?, "still here");
    seen("CPU", "plugged and unplugged (ACPI), OnlineCPUMem", "growth::processors_come_and_go")
}

async fn total_mib(inspector: &Inspector) -> Result<u64> {
    let kib: u64 =
        inspector.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").await?.parse()?;
    Ok(kib >> 10)
}

/// Waits until the guest's memory is about as large as it should be.
async fn settles(inspector: &Inspector, wanted: u64) -> Result<()> {
    let mut now = 0;
    for _ in 0..200 {
        now = total_mib(inspector).await?;
        if now.abs_diff(wanted) <= 16 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("{now} MiB, {wanted} were to be there")
}

fn backend(id: &str, mib: u64) -> Value {
    json!({ "qom-type": "memory-backend-memfd", "id": id, "share": true, "size": mib << 20 })
}

/// The pod's limit of memory, and all room of a container's writable layer.
async fn pod_mib(inspector: &Inspector) -> Result<(u64, u64)> {
    let limit: u64 = inspector.sh("cat /guest/cgroup/memory.max").await?.parse()?;
    let line = inspector.sh("df -kP / | tail -n 1").await?;
    let room: u64 = line.split_whitespace().nth(1).context("df tells nothing")?.parse()?;
    Ok((limit >> 20, room >> 10))
}

#[tokio::test]
async fn memory_modules_come_and_go() -> Result<()> {
    // A module can be given back if only what can be moved lies there.
    let builder = Guest::builder().growth(0, 2048).cmdline(&["memhp_default_state=online_movable"]);
    let guest = q35(builder, &[]).await?;
    let inspector = guest.inspector().await?;
    let before = total_mib(&inspector).await?;
    let (limit_before, room_before) = pod_mib(&inspector).await?;
    guest.vm().qmp("object-add", backend("m1", 256)).await?;
    guest.plug("pc-dimm", "dimm1", json!({ "memdev": "m1" })).await?;
    online(&guest, 0).await?;
    settles(&inspector, before + 256).await?;
    // The pod's limit follows, and so does the room in the writable layer of a container that was there before.
    let (limit, room) = pod_mib(&inspector).await?;
    assert!((220..=256).contains(&(limit - limit_before)), "{limit_before} to {limit} MiB");
    assert!((110..=128).contains(&(room - room_before)), "{room_before} to {room} MiB");
    inspector.sh("mount -t tmpfs -o size=600m tmpfs /tmp && dd if=/dev/zero of=/tmp/big bs=1M count=560 2>/dev/null && rm /tmp/big").await?;
    guest.unplug("dimm1").await?;
    settles(&inspector, before).await?;
    let mut after = pod_mib(&inspector).await?;
    for _ in 0..100 {
        if after == (limit_before, room_before) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        after = pod_mib(&inspector).await?;
    }
    assert_eq!(after, (limit_before, room_before));
    assert_eq!(inspector.sh("echo still here").await?, "still here");
    seen("memory", "pc-dimm plugged and unplugged (ACPI), OnlineCPUMem", "growth::memory_modules_come_and_go")
}

#[tokio::test]
async fn virtio_memory_grows_and_shrinks() -> Result<()> {
    let object = "memory-backend-memfd,id=vm0,size=512M,share=on";
    let card = "virtio-mem-pci,id=vmem0,memdev=vm0,requested-size=0,addr=0x15";
    let guest =
        q35(Guest::builder().growth(0, 2048).qemu(&["-object", object, "-device", card]), &[]).await?;
    let inspector = guest.inspector().await?;
    let before = total_mib(&inspector).await?;
    for mib in [256, 512, 64, 0] {
        let size =
            json!({ "path": "/machine/peripheral/vmem0", "property": "requested-size", "value": mib << 20 });
        guest.vm().qmp("qom-set", size).await?;
        settles(&inspector, before + mib).await?;
    }
    seen("memory", "virtio-mem grown and shrunk", "growth::virtio_memory_grows_and_shrinks")
}
