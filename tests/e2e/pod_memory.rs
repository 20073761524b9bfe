//! All containers of a pod together stay below the guest's memory, whatever they fill, and one that fills its writable
//! layer fills nobody else's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::{CopyFileRequest, GetOOMEventRequest};
use protocols::health::CheckRequest;
use tests::{Container, Guest};

const SHARED: &str = "/run/kata-containers/shared/containers";
/// Eats memory until it is killed.
const EAT: &str = "x=0123456789abcdef; while :; do x=$x$x; done";
/// Writes until there is no room, and says why it ended.
const FILL: &str = "dd if=/dev/zero of=/full bs=1M 2>&1 | grep -o 'No space left on device'";

async fn check(guest: &Guest) -> Result<()> {
    let client = guest.vm().client().await?;
    client.health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check").map(drop)
}

/// Kilobytes of a container's root: all, and available.
async fn room(container: &Container) -> Result<(u64, u64)> {
    let line = container.sh("df -kP / | tail -n 1").await?;
    let words: Vec<&str> = line.split_whitespace().collect();
    Ok((words[1].parse()?, words[3].parse()?))
}

async fn copy(guest: &Guest, name: &str, data: &[u8]) -> ttrpc::Result<()> {
    let request = CopyFileRequest {
        path: format!("{SHARED}/{name}"),
        file_size: data.len() as i64,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        data: data.to_vec(),
        ..Default::default()
    };
    guest.api().copy_file(AgentClient::call(), &request).await.map(drop)
}

#[tokio::test]
async fn a_full_layer_is_full_for_one_container_only() -> Result<()> {
    let guest = Guest::builder().memory(192).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let (one, other) = (guest.container("one").run().await?, guest.container("other").run().await?);
    let memory: u64 = inspector.sh("cat /guest/cgroup/memory.max").await?.parse()?;
    let (all, _) = room(&one).await?;
    assert!(all.abs_diff(memory / 2 / 1024) <= 8, "{all} KiB of {memory} bytes");
    assert_eq!(one.sh(FILL).await?, "No space left on device");
    assert_eq!(room(&one).await?.1, 0);
    // Others, the agent's own files, and containers to come have what they had.
    assert_eq!(
        other.sh("dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null && echo written").await?,
        "written"
    );
    copy(&guest, "hosts", b"127.0.0.1 localhost\n").await?;
    let new = guest.container("new").run().await?;
    assert_eq!(new.sh("echo x > /file && cat /file").await?, "x");
    one.sh("rm /full && echo y > /file").await?;
    for container in [one, other, new] {
        container.remove().await?;
    }
    let left = inspector.sh("ls /guest/run/kata-containers").await?;
    assert!(!["one", "other", "new"].iter().any(|id| left.lines().any(|line| line == *id)), "{left}");
    Ok(())
}

#[tokio::test]
async fn a_copied_file_that_a_container_fills_does_not_fill_the_agents_files() -> Result<()> {
    let guest = Guest::builder().memory(192).boot().await?;
    guest.sandbox().await?;
    copy(&guest, "hosts", b"127.0.0.1 localhost\n").await?;
    let source = format!("{SHARED}/hosts");
    let one = guest.container("one").mount("/etc/hosts", "bind", &source, &["bind", "rw"]).run().await?;
    let full = "dd if=/dev/zero of=/etc/hosts bs=1M 2>&1 | grep -o 'No space left on device'";
    assert_eq!(one.sh(full).await?, "No space left on device");
    let other = guest.container("other").run().await?;
    assert_eq!(other.sh("echo x > /file && cat /file").await?, "x");
    one.sh("echo 127.0.0.1 localhost > /etc/hosts").await?;
    copy(&guest, "hostname", b"pod\n").await?;
    Ok(())
}

#[tokio::test]
async fn containers_that_fill_all_memory_lose_processes_and_the_agent_goes_on() -> Result<()> {
    let guest = Guest::builder().memory(192).boot().await?;
    guest.sandbox().await?;
    let mut full = Vec::new();
    for id in ["one", "two", "three"] {
        let script = format!(
            "dd if=/dev/zero of=/full bs=1M; dd if=/dev/zero of=/dev/shm/full bs=1M; dd if=/dev/zero of=/tmp/full bs=1M; \
             while :; do ({EAT}); done"
        );
        let tmpfs = guest.container(id).script(&script).mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        full.push(tmpfs.run().await?);
    }
    // Ten kills: by then all is full, and processes eat the rest.
    let api = guest.api();
    for _ in 0..10 {
        let request = GetOOMEventRequest::new();
        let event = api.get_oom_event(AgentClient::forever(), &request);
        let event = tokio::time::timeout(Duration::from_secs(180), event).await??;
        assert!(["one", "two", "three"].contains(&event.container_id.as_str()), "{event:?}");
        check(&guest).await?;
    }
    for container in full {
        container.remove().await?;
    }
    // What they had filled is free.
    let after = guest.container("after").run().await?;
    assert_eq!(
        after.sh("dd if=/dev/zero of=/file bs=1M count=32 2>/dev/null && echo written").await?,
        "written"
    );
    Ok(())
}

#[tokio::test]
async fn a_kill_says_whose_limit_it_was() -> Result<()> {
    let guest = Guest::builder().memory(192).cmdline(&["agent.log=info"]).boot().await?;
    guest.sandbox().await?;
    let unlimited = guest.container("unlimited").script(EAT).run().await?;
    assert_eq!(unlimited.wait().await?, 137);
    let event = guest.api().get_oom_event(AgentClient::call(), &GetOOMEventRequest::new()).await?;
    assert_eq!(event.container_id, "unlimited");
    let limited = guest.container("limited").script(EAT);
    let limited = limited.resources(|resources| resources.Memory.mut_or_insert_default().Limit = 8 << 20);
    assert_eq!(limited.run().await?.wait().await?, 137);
    let event = guest.api().get_oom_event(AgentClient::call(), &GetOOMEventRequest::new()).await?;
    assert_eq!(event.container_id, "limited");
    let log = guest.vm().console_log();
    let line = |id: &str| {
        let id = format!("\"container_id\":\"{id}\"");
        log.lines()
            .find(|line| line.contains("killed for lack of memory") && line.contains(&id))
            .map(str::to_owned)
    };
    let (pods, own) = (line("unlimited").context("no line")?, line("limited").context("no line")?);
    assert!(pods.contains("the limit of the pod"), "{pods}");
    assert!(own.contains("the container's limit"), "{own}");
    Ok(())
}

/// The smallest guests: what the kernel and the agent need must not be what a container has.
#[tokio::test]
async fn a_small_guest_has_room_for_a_container() -> Result<()> {
    for mib in [64, 128, 256] {
        let guest = Guest::builder().memory(mib).boot().await?;
        guest.sandbox().await?;
        let inspector = guest.inspector().await?;
        let limit: u64 = inspector.sh("cat /guest/cgroup/memory.max").await?.parse()?;
        let all = "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p;s/MemAvailable: *\\([0-9]*\\) kB/\\1/p' /guest/proc/meminfo";
        let numbers = inspector.sh(all).await?;
        println!("{mib} MiB: pod {} KiB, MemTotal and MemAvailable {numbers:?}", limit >> 10);
        let total: u64 = numbers.lines().next().context("no MemTotal")?.parse()?;
        assert!(limit < total * 1024 && limit > total * 1024 / 4, "{limit} of {total} KiB");
    }
    Ok(())
}
