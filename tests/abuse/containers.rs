//! Containers that end, name, freeze, stop and open what they should not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use protocols::oci;
use tests::{Code, expect_code, storage, until};
use tokio::task::JoinSet;

use crate::scene::Scene;

/// How long a bound of seconds may take in a guest that is emulated beside compilers.
pub(crate) const SECONDS: Duration = Duration::from_secs(30);

pub(crate) async fn ends_by_signal(scene: &Scene) -> Result<()> {
    // Those without a name: the C library's own two, and the real-time signals.
    let mut all = JoinSet::new();
    for signal in 32..=64 {
        let exec = scene.neighbour.exec(["sh", "-c", &format!("kill -{signal} $$; sleep 1000")]);
        all.spawn(async move { anyhow::Ok((signal, exec.start().await?.wait().await?)) });
    }
    while let Some(ended) = all.join_next().await {
        let (signal, status) = ended??;
        ensure!(status == 128 + signal, "signal {signal} is status {status}");
    }
    Ok(())
}

/// More creates than the runtime had threads for all it does, once. Some wait for disks of their own, the others for one that
/// somebody else waits for.
pub(crate) async fn waiting_creates(scene: &Scene) -> Result<()> {
    const CREATES: usize = 80;
    let id = |number: usize| format!("late{number}");
    let mut creates = JoinSet::new();
    for number in 0..CREATES {
        let name = if number % 2 == 0 { id(number) } else { "late".to_owned() };
        let disk = storage("blk", "1f/1f", "ext4", &[], &name);
        let builder = scene.guest.container(&id(number)).request(|request| request.storages.push(disk));
        creates.spawn(async move { builder.try_create().await.map(drop) });
    }
    // To look is an exec, too.
    until("all wait", async || Ok(scene.inspector.agent_threads().await? > CREATES)).await?;
    ensure!(creates.try_join_next().is_none(), "a create does not wait");
    scene.neighbour_lives().await.context("beside them")?;
    ensure!(scene.neighbour.stats().await?.cgroup_stats.pids_stats.current > 0);
    let new = scene.guest.container("prompt").run().await.context("create another beside them")?;
    ensure!(new.sh("echo new").await? == "new");
    new.remove().await.context("remove it beside them")?;
    let mut removals = JoinSet::new();
    for number in 0..CREATES {
        let container = scene.guest.container(&id(number)).made();
        removals.spawn(async move { container.remove().await });
    }
    while let Some(removed) = removals.join_next().await {
        removed??;
    }
    while let Some(created) = creates.join_next().await {
        expect_code(created?, Code::CANCELLED);
    }
    Ok(())
}

pub(crate) async fn long_names(scene: &Scene) -> Result<()> {
    let long = "x".repeat(40_000);
    let text = expect_code(scene.neighbour.exec([long.as_str()]).start().await, Code::INVALID_ARGUMENT);
    ensure!(text.contains("xxx") && text.len() < 10_000, "{} bytes: {:.200}", text.len(), text);
    let created = scene.guest.container("long").args([format!("/{long}")]).try_create().await;
    let text = expect_code(created, Code::INVALID_ARGUMENT);
    ensure!(text.len() < 10_000, "{} bytes", text.len());
    Ok(())
}

/// What a terminal would obey: it is cleared, gets another title, and a line that nobody wrote.
const FORGED: &str = "\u{1b}[2J\u{1b}]0;taken\u{7}\r\n{\"msg\":\"forged\"}";

pub(crate) async fn forged_names(scene: &Scene) -> Result<()> {
    let is_tame = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n');
    let text = expect_code(scene.neighbour.exec([FORGED]).start().await, Code::INVALID_ARGUMENT);
    ensure!(is_tame(&text), "an error has it raw: {text:?}");
    let created = scene.guest.container("forged").args([FORGED, FORGED]).try_create().await;
    let text = expect_code(created, Code::INVALID_ARGUMENT);
    ensure!(is_tame(&text), "an error has it raw: {text:?}");
    // A process that is called so, and ends in a way that the kernel may tell of.
    scene.neighbour.exec(["sh", "-c", "kill -SEGV $$", FORGED]).run().await?;
    let console = scene.guest.vm().console_log();
    let forged =
        console.lines().find(|line| line.contains("\u{1b}]0;") || line.starts_with("{\"msg\":\"forged"));
    ensure!(forged.is_none(), "the console has it raw: {forged:?}");
    Ok(())
}

pub(crate) async fn frozen(scene: &Scene) -> Result<()> {
    // Its own cgroup is not its to freeze, one below is. Once it has handed controllers down, as systemd does, its processes are
    // born there.
    let freeze = "cd /sys/fs/cgroup && mkdir inner pool && echo 0 > inner/cgroup.procs && echo +pids > cgroup.subtree_control && \
        echo 1 > pool/cgroup.freeze && echo frozen && echo 1 > inner/cgroup.freeze; sleep 1000";
    let container = scene.with_own_cgroup("frozen").script(freeze).run().await?;
    container.init().read_until("frozen").await?;
    let cgroup = "/guest/cgroup/test/frozen/inner";
    let is_frozen = format!("grep frozen {cgroup}/cgroup.events");
    until("the container freezes itself", async || Ok(scene.inspector.sh(&is_frozen).await? == "frozen 1"))
        .await?;
    let start = Instant::now();
    let text = expect_code(container.exec(["true"]).start().await, Code::DEADLINE_EXCEEDED);
    ensure!(text.contains("its cgroup is frozen"), "{text}");
    let below = |id: &str| {
        let path = format!("/test/frozen/pool/{id}");
        scene.guest.container(id).linux(|linux| linux.CgroupsPath = path)
    };
    let text = expect_code(below("within").try_create().await, Code::DEADLINE_EXCEEDED);
    ensure!(text.contains("its cgroup is frozen"), "{text}");
    // By way of a process in between.
    let mapping = || oci::LinuxIDMapping { HostID: 100_000, Size: 65536, ..Default::default() };
    let mapped = below("mapped").linux(|linux| {
        linux.Namespaces.push(oci::LinuxNamespace { Type: "user".into(), ..Default::default() });
        linux.UIDMappings.push(mapping());
        linux.GIDMappings.push(mapping());
    });
    let text = expect_code(mapped.try_create().await, Code::DEADLINE_EXCEEDED);
    ensure!(text.contains("its cgroup is frozen"), "{text}");
    ensure!(start.elapsed() < SECONDS * 3, "three refusals took {:?}", start.elapsed());
    // Nothing of them is left in the way.
    scene.inspector.sh(&format!("echo 0 > {cgroup}/cgroup.freeze")).await?;
    ensure!(container.sh("echo thawed").await? == "thawed");
    Ok(container.remove().await?)
}

pub(crate) async fn stopped(scene: &Scene) -> Result<()> {
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
            ensure!(text.contains("stopped"), "{text}");
            return Ok(container.remove().await?);
        }
    }
    anyhow::bail!("the container was never faster")
}

pub(crate) async fn names_of_the_pod(scene: &Scene) -> Result<()> {
    let mark = |verb: &str| {
        let path = "/guest/run/kata-containers";
        format!(
            "mkdir -p {path}/sandbox {path}/shared/containers && {verb} {path}/sandbox/mark {path}/shared/containers/mark"
        )
    };
    scene.inspector.sh(&mark("touch")).await?;
    for id in ["sandbox", "shared"] {
        let container = scene.guest.container(id).run().await?;
        ensure!(container.sh("echo runs").await? == "runs");
        container.remove().await?;
        scene.inspector.sh(&mark("ls")).await.with_context(|| format!("after {id}"))?;
    }
    Ok(())
}

pub(crate) async fn consoles(scene: &Scene) -> Result<()> {
    let look = "cd /dev && mknod c c 5 1 && mknod s c 4 64 && mknod h c 229 0 && for f in c s h; do \
        (echo forged > $f) 2>&1 | grep -o 'not permitted'; done";
    let said = scene.neighbour.sh(look).await?;
    ensure!(said.lines().count() == 3, "{said}");
    Ok(())
}
