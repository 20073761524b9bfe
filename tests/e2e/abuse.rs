//! One hostile container, or one hostile client, after the other, in one guest. After each the same is asked: does the agent
//! answer, does another container's exec work.
//!
//! A new abuse is a function and a line in the test that it shares a guest with.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use image_builder::vm::AgentClient;
use protocols::health::CheckRequest;
use protocols::oci;
use tests::{Code, Container, Frame, Guest, Inspector, RawClient, expect_code};

/// How long a bound of seconds may take in a guest that is emulated beside compilers.
const SECONDS: Duration = Duration::from_secs(30);

/// Options that cannot be had, or of which two want the same: the boot goes on.
const OPTIONS: [&str; 5] = [
    "agent.log_vport=1024",
    "agent.passfd_listener_port=1024",
    "agent.server_addr=unix:///nowhere/agent.sock",
    "agent.container_pipe_size=2147483647",
    "agent.hotplug_timeout=4294967295",
];

/// A guest with somebody who wants to live, and somebody who looks.
struct Scene {
    guest: Guest,
    neighbour: Container,
    inspector: Inspector,
}

impl Scene {
    async fn boot(options: &[&str]) -> Result<Scene> {
        let guest = Guest::builder().cmdline(options).boot().await?;
        guest.sandbox().await?;
        let inspector = guest.inspector().await?;
        let neighbour = guest.container("neighbour").run().await?;
        neighbour.sh("true").await?;
        Ok(Scene { guest, neighbour, inspector })
    }

    /// Does something, asks the agent for a sign of life all the while, and then asks the rest.
    async fn survives<T>(&self, what: &str, abuse: impl Future<Output = Result<T>>) -> Result<T> {
        let mut abuse = std::pin::pin!(abuse);
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        let result = loop {
            let next = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                self.check().await
            };
            tokio::select! {
                result = &mut abuse => break result,
                waited = next => longest = longest.max(waited?),
            }
        };
        println!("{what}: {} ms, the longest Check {} ms", start.elapsed().as_millis(), longest.as_millis());
        let said =
            self.neighbour.sh("echo lives").await.with_context(|| format!("the neighbour after {what}"))?;
        ensure!(said == "lives", "{what}: {said}");
        result.with_context(|| what.to_owned())
    }

    async fn check(&self) -> Result<Duration> {
        let start = Instant::now();
        self.guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await.context("Check")?;
        Ok(start.elapsed())
    }
}

#[tokio::test]
async fn a_container_harms_nobody_but_itself() -> Result<()> {
    let scene = Scene::boot(&OPTIONS).await?;
    let console = scene.guest.vm().console_log();
    for warned in [
        "agent.log_vport=1024: the port of agent.server_addr",
        "agent.passfd_listener_port=1024: the port of agent.server_addr",
        "agent.server_addr cannot be had",
    ] {
        ensure!(console.contains(warned), "no word of {warned:?}:\n{console}");
    }
    scene.survives("signals", ends_by_signal(&scene)).await?;
    scene.survives("long names", long_names(&scene)).await?;
    scene.survives("no memory", no_memory(&scene)).await?;
    scene.survives("a frozen cgroup", frozen(&scene)).await?;
    scene.survives("a stopped exec", stopped(&scene)).await?;
    scene.survives("the pod's names", names_of_the_pod(&scene)).await?;
    scene.survives("the guest's console", consoles(&scene)).await?;
    let console = scene.guest.vm().console_log();
    ensure!(console.contains("agent.container_pipe_size cannot be had"), "{console}");
    scene.guest.destroy().await
}

async fn ends_by_signal(scene: &Scene) -> Result<()> {
    // Those that have no name, the C library's own two among them.
    for signal in [32, 33, 34, 50, 64] {
        let exec =
            scene.neighbour.exec(["sh", "-c", &format!("kill -{signal} $$; sleep 1000")]).start().await?;
        assert_eq!(exec.wait().await?, 128 + signal, "signal {signal}");
    }
    Ok(())
}

async fn long_names(scene: &Scene) -> Result<()> {
    let long = "x".repeat(40_000);
    let text = expect_code(scene.neighbour.exec([long.as_str()]).start().await, Code::INVALID_ARGUMENT);
    assert!(text.contains("xxx") && text.len() < 10_000, "{} bytes: {:.200}", text.len(), text);
    let created = scene.guest.container("long").args([format!("/{long}")]).try_create().await;
    let text = expect_code(created, Code::INVALID_ARGUMENT);
    assert!(text.len() < 10_000, "{} bytes", text.len());
    Ok(())
}

async fn no_memory(scene: &Scene) -> Result<()> {
    let tiny = scene.guest.container("tiny");
    let tiny = tiny.resources(|resources| resources.Memory.mut_or_insert_default().Limit = 4096);
    let text = expect_code(tiny.try_create().await, Code::RESOURCE_EXHAUSTED);
    assert!(text.contains("want of memory") && text.contains("4096 bytes is too low"), "{text}");
    Ok(())
}

async fn frozen(scene: &Scene) -> Result<()> {
    let own_cgroup = scene.guest.container("frozen").privileged().spec(|spec| {
        let mount = spec.Mounts.iter_mut().find(|mount| mount.destination == "/sys/fs/cgroup");
        mount.expect("each has one").options.retain(|option| option != "ro");
    });
    // Its own cgroup is not its to freeze, one below is. Once it has handed controllers down, as systemd does, its processes are
    // born there.
    let freeze = "cd /sys/fs/cgroup && mkdir inner pool && echo 0 > inner/cgroup.procs && echo +pids > cgroup.subtree_control && \
        echo 1 > pool/cgroup.freeze && echo frozen && echo 1 > inner/cgroup.freeze; sleep 1000";
    let container = own_cgroup.script(freeze).run().await?;
    container.init().read_until("frozen").await?;
    let cgroup = "/guest/cgroup/test/frozen/inner";
    let until = Instant::now() + SECONDS;
    while scene.inspector.sh(&format!("grep frozen {cgroup}/cgroup.events")).await? != "frozen 1" {
        ensure!(Instant::now() < until, "the container cannot freeze itself");
    }
    let start = Instant::now();
    let text = expect_code(container.exec(["true"]).start().await, Code::DEADLINE_EXCEEDED);
    assert!(text.contains("its cgroup is frozen"), "{text}");
    let below = |id: &str| {
        let path = format!("/test/frozen/pool/{id}");
        scene.guest.container(id).linux(|linux| linux.CgroupsPath = path)
    };
    let text = expect_code(below("within").try_create().await, Code::DEADLINE_EXCEEDED);
    assert!(text.contains("its cgroup is frozen"), "{text}");
    // By way of a process in between.
    let mapping = || oci::LinuxIDMapping { HostID: 100_000, Size: 65536, ..Default::default() };
    let mapped = below("mapped").linux(|linux| {
        linux.Namespaces.push(oci::LinuxNamespace { Type: "user".into(), ..Default::default() });
        linux.UIDMappings.push(mapping());
        linux.GIDMappings.push(mapping());
    });
    let text = expect_code(mapped.try_create().await, Code::DEADLINE_EXCEEDED);
    assert!(text.contains("its cgroup is frozen"), "{text}");
    ensure!(start.elapsed() < SECONDS * 3, "three refusals took {:?}", start.elapsed());
    // Nothing of them is left in the way.
    scene.inspector.sh(&format!("echo 0 > {cgroup}/cgroup.freeze")).await?;
    assert_eq!(container.sh("echo thawed").await?, "thawed");
    container.remove().await?;
    Ok(())
}

async fn stopped(scene: &Scene) -> Result<()> {
    let hostile = "echo up; while :; do for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || kill -STOP $p; done; done 2>/dev/null";
    let container = scene.guest.container("hostile").script(hostile).run().await?;
    container.init().read_until("up").await?;
    // One that was faster than the container runs, and is stopped then.
    for _ in 0..10 {
        let start = Instant::now();
        let exec = container.exec(["true"]);
        let (started, updated) = tokio::join!(exec.start(), container.update(None));
        updated.context("an update beside it")?;
        ensure!(start.elapsed() < SECONDS, "it took {:?}", start.elapsed());
        if started.is_err() {
            let text = expect_code(started, Code::DEADLINE_EXCEEDED);
            assert!(text.contains("stopped"), "{text}");
            container.remove().await?;
            return Ok(());
        }
    }
    anyhow::bail!("the container was never faster")
}

async fn names_of_the_pod(scene: &Scene) -> Result<()> {
    let mark = |verb: &str| {
        let path = "/guest/run/kata-containers";
        format!(
            "mkdir -p {path}/sandbox {path}/shared/containers && {verb} {path}/sandbox/mark {path}/shared/containers/mark"
        )
    };
    scene.inspector.sh(&mark("touch")).await?;
    for id in ["sandbox", "shared"] {
        let container = scene.guest.container(id).run().await?;
        assert_eq!(container.sh("echo runs").await?, "runs");
        container.remove().await?;
        scene.inspector.sh(&mark("ls")).await.with_context(|| format!("after {id}"))?;
    }
    Ok(())
}

async fn consoles(scene: &Scene) -> Result<()> {
    let look = "cd /dev && mknod c c 5 1 && mknod s c 4 64 && mknod h c 229 0 && for f in c s h; do \
        (echo forged > $f) 2>&1 | grep -o 'not permitted'; done";
    let said = scene.neighbour.sh(look).await?;
    assert_eq!(said.lines().count(), 3, "{said}");
    Ok(())
}

#[tokio::test]
async fn floods_leave_the_agent_as_small_as_it_was() -> Result<()> {
    let scene = Scene::boot(&[]).await?;
    // Once in small: code that has never run is no part of what is resident.
    let (_, container) = unread_output(&scene, "before", 1).await?;
    container.remove().await?;
    unread_answers(&scene, 1).await?;
    let before = scene.inspector.agent_rss_kib().await?;
    let (flooded, container) = scene.survives("unread output", unread_output(&scene, "talks", 120)).await?;
    println!("agent VmRSS: {before} KiB, {flooded} KiB with unread output");
    ensure!(flooded < before + 9 * 1024, "{before} KiB grew to {flooded} KiB");
    container.remove().await?;
    let flooded = scene.survives("unread answers", unread_answers(&scene, 500)).await?;
    println!("agent VmRSS: {flooded} KiB with unread answers");
    ensure!(flooded < before + 4 * 1024, "{before} KiB grew to {flooded} KiB");
    let mut after = u64::MAX;
    for _ in 0..100 {
        after = scene.inspector.agent_rss_kib().await?;
        if after <= before + 1024 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("agent VmRSS: {after} KiB after all");
    ensure!(after <= before + 1024, "{before} KiB grew to {after} KiB");
    Ok(())
}

/// Output that nobody reads, of processes that nobody waits for.
async fn unread_output(scene: &Scene, id: &str, execs: usize) -> Result<(u64, Container)> {
    let container = scene.guest.container(id).run().await?;
    container.sh("yes | head -c 120000 > /text").await?;
    let mut last = None;
    for _ in 0..execs {
        last = Some(container.exec(["cat", "/text"]).start().await?);
    }
    // The newest is there; it is read after the look.
    let newest = last.context("no exec")?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = scene.inspector.agent_rss_kib().await?;
    assert_eq!(newest.finish().await?.stdout.len(), 120_000);
    Ok((resident, container))
}

/// Requests of a client that reads nothing, and is gone in the end.
async fn unread_answers(scene: &Scene, requests: u32) -> Result<u64> {
    let mut client = RawClient::dial(&scene.guest).await?;
    let all: Vec<u8> = (0..requests)
        .flat_map(|n| Frame::request(2 * n + 1, "grpc.AgentService", "GetMetrics", Vec::new(), 0).bytes())
        .collect();
    client.send(&all).await?;
    let (mut last, mut resident) = (0, scene.inspector.agent_rss_kib().await?);
    while resident > last + 64 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        (last, resident) = (resident, scene.inspector.agent_rss_kib().await?);
    }
    client.vanish().await?;
    Ok(resident)
}
