//! What the kernel counts per user or in total: a container that takes more of it than there used to be leaves enough for
//! the agent and for all other containers.
//!
//! Each thing that is counted is taken by a process of `probe --hoard`, with the rights that Docker gives a container.

use std::time::Duration;

use anyhow::{Result, bail};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use tests::{Container, ContainerBuilder, Guest};

/// What the container's memory pays for, and how many to take: each more than a kernel allows in a guest of this size by
/// itself, and far less than fills the memory.
const CHARGED: [(&str, usize); 12] = [
    ("epoll", 60_000),
    ("inotify", 500),
    ("files", 30_000),
    ("mounts", 1_500),
    ("uts", 1_500),
    ("times", 1_500),
    ("cgroups", 1_500),
    ("pipes", 1_200),
    ("timers", 3_000),
    ("queues", 100),
    ("requests", 12),
    ("groups", 200),
];

/// What no container pays for, and the most that all of them get together.
const BOUNDED: [(&str, usize); 5] =
    [("keys", 62), ("nets", 64), ("ipc", 1_024), ("terminals", 512), ("made-cgroups", 4_096)];

/// What the process says once it has taken all, or was refused.
async fn taken(container: &Container) -> Result<String> {
    for _ in 0..1200 {
        // While it takes them all, there is no process left for this one.
        let text = container.sh("cat /taken 2>/dev/null; true").await.unwrap_or_default();
        if !text.is_empty() {
            return Ok(text);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the process has taken nothing in two minutes")
}

/// A container that takes so many of a kind.
fn hoarder(guest: &Guest, kind: &str, count: usize) -> ContainerBuilder {
    let hoarder = guest.container(kind).args(["/probe", "--hoard", kind, &count.to_string(), "/taken"]);
    hoarder.mount("/probe", "bind", "/probe", &["bind", "ro"])
}

async fn boot() -> Result<Guest> {
    let guest = Guest::builder().memory(192).program("/probe", "probe")?.boot().await?;
    guest.sandbox().await?;
    Ok(guest)
}

/// Others go on: each of these takes some of what was hoarded, as descriptors, watches of epoll, namespaces, keyrings.
async fn others_go_on(guest: &Guest, other: &Container, kind: &str) -> Result<()> {
    assert_eq!(other.sh("echo goes on").await?, "goes on", "{kind}");
    guest.vm().client().await?.health.check(AgentClient::call(), &CheckRequest::new()).await?;
    let new = guest.container(&format!("beside-{kind}")).run().await?;
    assert_eq!(new.sh("echo new").await?, "new", "{kind}");
    new.remove().await?;
    Ok(())
}

#[tokio::test]
async fn what_one_container_takes_of_the_kernel_others_do_not_lack() -> Result<()> {
    let guest = boot().await?;
    let other = guest.container("other").run().await?;
    for (kind, count) in CHARGED {
        let hoarder = hoarder(&guest, kind, count).run().await?;
        let text = taken(&hoarder).await?;
        others_go_on(&guest, &other, kind).await?;
        assert_eq!(text, format!("{count} all"), "{kind}");
        hoarder.remove().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_no_container_pays_for_is_had_in_small_numbers() -> Result<()> {
    let guest = boot().await?;
    let other = guest.container("other").run().await?;
    for (kind, most) in BOUNDED {
        let hoarder = hoarder(&guest, kind, 100_000).run().await?;
        let text = taken(&hoarder).await?;
        others_go_on(&guest, &other, kind).await?;
        let (count, refusal) = text.split_once(' ').unwrap_or_default();
        let count: usize = count.parse()?;
        assert!(count <= most && count * 2 >= most && refusal != "all", "{kind}: {text}");
        hoarder.remove().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_container_that_takes_all_processes_leaves_some_to_the_others() -> Result<()> {
    let guest = boot().await?;
    let inspector = guest.inspector().await?;
    let other = guest.container("other").run().await?;
    let pods: usize = inspector.sh("cat /guest/cgroup/pids.max").await?.parse()?;
    let hoarder = hoarder(&guest, "threads", 100_000).run().await?;
    let text = taken(&hoarder).await?;
    others_go_on(&guest, &other, "threads").await?;
    let count: usize = text.split(' ').next().unwrap_or_default().parse()?;
    assert!((pods / 3..pods / 2).contains(&count), "{text}, of {pods} of the pod");
    let own = inspector.sh("cd /guest/cgroup/test; cat threads/pids.max other/pids.max").await?;
    assert_eq!(own, format!("{0}\n{0}", pods / 2));
    // A program's own limit is none: the kernel counts it for each user in all containers.
    let limits = other.sh("grep -E 'processes|signals|msgqueue' /proc/self/limits").await?;
    assert_eq!(limits.matches("unlimited").count(), 6, "{limits}");
    hoarder.remove().await?;
    Ok(())
}

#[tokio::test]
async fn a_container_may_ask_for_all_processes_of_the_pod() -> Result<()> {
    let guest = boot().await?;
    let inspector = guest.inspector().await?;
    let asks = |id: &str, limit: i64| {
        guest.container(id).resources(|resources| resources.Pids.mut_or_insert_default().Limit = limit)
    };
    for (id, limit, is) in [("many", -1, "max"), ("few", 7, "7")] {
        let container = asks(id, limit).run().await?;
        assert_eq!(inspector.sh(&format!("cat /guest/cgroup/test/{id}/pids.max")).await?, is);
        container.remove().await?;
    }
    Ok(())
}

/// Those for which no process can tell in a moment that it lacks nothing.
#[tokio::test]
async fn the_kernels_own_limits_are_as_the_table_says() -> Result<()> {
    let guest = boot().await?;
    let inspector = guest.inspector().await?;
    for (file, text) in [
        ("net/ipv4/tcp_mem", "2147483647\t2147483647\t2147483647"),
        ("net/ipv4/udp_mem", "2147483647\t2147483647\t2147483647"),
        ("user/max_pid_namespaces", "2147483647"),
        ("kernel/threads-max", "4194304"),
        ("vm/panic_on_oom", "0"),
    ] {
        assert_eq!(inspector.sh(&format!("cat /guest/proc/sys/{file}")).await?, text, "{file}");
    }
    assert_eq!(inspector.sh("cat /guest/proc/1/oom_score_adj").await?, "-999");
    Ok(())
}
