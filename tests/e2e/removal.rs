//! The end comes, and in time: whatever a container waits for, however many processes or cgroups it has, and while it comes
//! the agent answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use machine::vm::AgentClient;
use protocols::agent::{CopyFileRequest, CreateSandboxRequest, DestroySandboxRequest, KernelModule};
use protocols::oci;
use serde_json::json;
use tests::{Code, ContainerBuilder, Guest, Inspector, VOLUMES, expect_code, storage, storage_at, until};
use tokio::task::JoinHandle;

use crate::console::Console;

/// Within this the agent promises to have removed a container (docs/architecture/bounds.md).
const CONTAINER: Duration = Duration::from_secs(45);
/// Within this it promises to have destroyed the pod.
const POD: Duration = Duration::from_secs(35);
/// How long the machine may take to go off then: file systems are written back for 10 s, and guests are slow beside compilers.
const OFF: Duration = Duration::from_secs(300);

/// What comes late waits for ten minutes.
const PATIENT: [&str; 2] = ["agent.cdi_timeout=600", "agent.hotplug_timeout=600"];

async fn patient() -> Result<Guest> {
    let guest = Guest::builder().cmdline(&PATIENT).boot().await?;
    guest.sandbox().await?;
    Ok(guest)
}

/// A container that needs a CDI device which nobody describes.
fn undescribed(builder: ContainerBuilder) -> ContainerBuilder {
    builder.spec(|spec| drop(spec.Annotations.insert("cdi.k8s.io/plugin".into(), "acme.com/none=0".into())))
}

/// A container whose disk is never plugged in.
fn unplugged(builder: ContainerBuilder) -> ContainerBuilder {
    builder.request(|request| request.storages.push(storage("blk", "1f/1f", "ext4", &[], "never")))
}

/// Begins to create a container, and lets the agent get as far as it can.
async fn begin(builder: ContainerBuilder) -> Result<JoinHandle<ttrpc::Result<()>>> {
    let create = tokio::spawn(async move { builder.try_create().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(!create.is_finished(), "it does not wait: {:?}", create.await?);
    Ok(create)
}

#[tokio::test]
async fn a_removal_gives_up_what_a_create_waits_for() -> Result<()> {
    let guest = patient().await?;
    let inspector = guest.inspector().await?;
    // Their connection has descriptors in the agent.
    let checks = guest.checks().await?;
    let before = inspector.snapshot().await?;
    let give_up = async {
        for builder in [undescribed(guest.container("c1")), unplugged(guest.container("c1"))] {
            let create = begin(builder).await?;
            let began = Instant::now();
            guest.container("c1").made().remove().await.context("remove it")?;
            ensure!(began.elapsed() < CONTAINER, "it took {:?}", began.elapsed());
            expect_code(create.await?, Code::CANCELLED);
            assert_eq!(inspector.settled(&before).await?, before);
        }
        Ok(())
    };
    checks.during("creates that wait", give_up).await?;
    // The id is free.
    assert_eq!(guest.container("c1").script("exit 4").run().await?.wait().await?, 4);
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_pod_gives_up_all_that_waits() -> Result<()> {
    let guest = patient().await?;
    guest.container("alive").run().await?;
    let first = begin(undescribed(guest.container("c1"))).await?;
    let second = begin(unplugged(guest.container("c2"))).await?;
    ends_in_time(&guest).await?;
    for create in [first, second] {
        given_up("a create", create).await?;
    }
    Ok(())
}

/// Makes 30,000 files in a directory that is empty.
const FILL: &str =
    "for d in $(seq 1 30); do mkdir $d; (cd $d; seq 1 1000 | xargs touch); done; find . -type f | wc -l";

#[tokio::test]
async fn calls_are_answered_while_a_large_volume_goes() -> Result<()> {
    let guest = Guest::builder().memory(768).boot().await?;
    guest.sandbox_with(vec![storage("ephemeral", "tmpfs", "tmpfs", &["size=300m"], "v")]).await?;
    let filler =
        guest.container("filler").mount("/v", "bind", &format!("{VOLUMES}/v"), &["rbind"]).run().await?;
    assert_eq!(filler.sh(&format!("cd /v; {FILL}")).await?.trim(), "30000");
    filler.remove().await?;
    let checks = guest.checks().await?;
    let began = Instant::now();
    let ((), longest) = checks.until_the_end("the end of the pod", destroyed(&guest)).await?;
    let whole = began.elapsed();
    // One that had to wait for the files waited for nearly all of it.
    ensure!(longest < whole * 3 / 4, "a Check waited for {longest:?} of {whole:?}");
    Ok(())
}

/// DestroySandbox is answered; the machine may still be on.
async fn destroyed(guest: &Guest) -> Result<()> {
    let destroyed = guest.api().destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await;
    destroyed.map(drop).context("DestroySandbox")
}

/// Destroys the pod in time, and waits for the machine to go off.
async fn ends_in_time(guest: &Guest) -> Result<()> {
    let began = Instant::now();
    guest.checks().await?.until_the_end("the end of the pod", destroyed(guest)).await?;
    ensure!(began.elapsed() < POD, "it took {:?}", began.elapsed());
    ensure!(guest.vm().wait_off(OFF).await, "the machine stays on");
    Ok(())
}

/// Has what was asked for end with the pod: by its answer, or by the end of the connection, whatever comes first.
async fn given_up(what: &str, call: JoinHandle<ttrpc::Result<()>>) -> Result<()> {
    match call.await? {
        Ok(()) => bail!("{what} was done in a pod that is no more"),
        Err(ttrpc::Error::RpcStatus(status)) => {
            ensure!(status.code() == Code::CANCELLED, "{what}: {status:?}");
        }
        Err(other) => println!("{what}: {other}"),
    }
    Ok(())
}

/// Hooks that a container's spec has. This one hangs, with a child that has left it.
fn hanging(builder: ContainerBuilder, put: impl FnOnce(&mut oci::Hooks, oci::Hook)) -> ContainerBuilder {
    let hook = oci::Hook {
        Path: "/bin/sh".into(),
        Args: ["sh", "-c", "setsid sleep 1000 & sleep 1000"].map(String::from).to_vec(),
        Env: vec!["PATH=/bin".into()],
        Timeout: 900,
        ..oci::Hook::default()
    };
    let mut hooks = oci::Hooks::default();
    put(&mut hooks, hook);
    builder.spec(|spec| spec.Hooks = Some(hooks).into())
}

#[tokio::test]
async fn a_removal_and_the_end_of_the_pod_give_up_hooks_that_hang() -> Result<()> {
    let guest = Guest::builder().flavour("debug").boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    // Their connection has descriptors in the agent.
    let checks = guest.checks().await?;
    let before = inspector.snapshot().await?;
    let container = || guest.container("c1");
    let prestart = || hanging(container(), |hooks, hook| hooks.Prestart.push(hook));
    let runtime = || hanging(container(), |hooks, hook| hooks.CreateRuntime.push(hook));
    let give_up = async {
        for builder in [prestart(), runtime()] {
            let create = begin(builder).await?;
            until("the hook runs", async || {
                Ok(inspector.snapshot().await?.cgroups.iter().any(|cgroup| is_of_a_hook(cgroup)))
            })
            .await?;
            let began = Instant::now();
            container().made().remove().await.context("remove it")?;
            ensure!(began.elapsed() < CONTAINER, "it took {:?}", began.elapsed());
            expect_code(create.await?, Code::CANCELLED);
            // Neither the hook nor what it has started.
            assert_eq!(inspector.settled(&before).await?, before);
        }
        Ok(())
    };
    checks.during("hooks that hang", give_up).await?;
    let create = begin(runtime()).await?;
    ends_in_time(&guest).await?;
    given_up("a create", create).await
}

/// Helper programs have a cgroup each.
fn is_of_a_hook(cgroup: &str) -> bool {
    cgroup.contains("helper-")
}

/// Has the disk `/dev/vdb` answer nothing any more.
async fn stall(guest: &Guest, inspector: &Inspector) -> Result<()> {
    let one = json!({ "device": "disk1", "bps": 1, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0 });
    guest.vm().qmp("block_set_io_throttle", one).await.context("throttle the disk")?;
    // The first request passes, and those after it wait for as many seconds as it has bytes.
    inspector.sh("mknod /vdb b $(tr : ' ' < /sys/block/vdb/dev) && dd if=/vdb of=/dev/null bs=4096 count=1 skip=1000").await?;
    Ok(())
}

#[tokio::test]
async fn a_storage_that_hangs_keeps_neither_containers_nor_the_pod() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    std::fs::File::create(&disk)?.set_len(64 << 20)?;
    let guest = Guest::builder().disk(&disk).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let alive = guest.container("alive").run().await?;
    stall(&guest, &inspector).await?;
    let user = |id: &str| {
        let stuck = storage("blk", "/dev/vdb", "ext4", &[], "stuck");
        guest.container(id).request(|request| request.storages.push(stuck))
    };
    let checks = guest.checks().await?;
    let give_up = async {
        // The kernel does not come back to the first, which mounts. The second waits for what comes of that.
        let first = begin(user("c1")).await?;
        let second = begin(user("c2")).await?;
        assert_eq!(alive.sh("echo lives").await?, "lives");
        for (id, create) in [("c2", second), ("c1", first)] {
            let began = Instant::now();
            guest.container(id).made().remove().await.with_context(|| format!("remove {id}"))?;
            ensure!(began.elapsed() < CONTAINER, "{id} took {:?}", began.elapsed());
            expect_code(create.await?, Code::CANCELLED);
        }
        // Their ids are free.
        assert_eq!(guest.container("c1").script("exit 4").run().await?.wait().await?, 4);
        Ok(())
    };
    checks.during("a storage that hangs", give_up).await?;
    let third = begin(user("c3")).await?;
    ends_in_time(&guest).await?;
    given_up("a create", third).await
}

#[tokio::test]
async fn the_end_of_the_pod_gives_up_copies_into_a_file_system_that_hangs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = crate::volumes::disk(&directory, "ext4", &[], 32, 32)?;
    let guest = Guest::builder().disk(&disk).boot().await?;
    let shared = "/run/kata-containers/shared/containers";
    guest.sandbox_with(vec![storage_at("blk", "/dev/vdb", "ext4", &[], shared)]).await?;
    let inspector = guest.inspector().await?;
    inspector.sh(&format!("fsfreeze --freeze /guest{shared}")).await?;
    let mut copies = Vec::new();
    // More than are written at once.
    for number in 0..40 {
        let (client, request) = (
            guest.client().clone(),
            CopyFileRequest {
                path: format!("{shared}/c1/{number}"),
                file_size: 1,
                file_mode: 0o100_644,
                dir_mode: 0o755,
                data: vec![7],
                ..CopyFileRequest::default()
            },
        );
        copies.push(tokio::spawn(async move {
            client.agent.copy_file(AgentClient::call(), &request).await.map(drop)
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(copies.iter().all(|copy| !copy.is_finished()), "a copy does not wait");
    let checks = guest.checks().await?;
    let others = async {
        assert_eq!(guest.container("c1").script("exit 4").run().await?.wait().await?, 4);
        Ok(())
    };
    checks.during("copies that hang", others).await?;
    ends_in_time(&guest).await?;
    for copy in copies {
        given_up("a copy", copy).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_pod_gives_up_a_module_that_does_not_load() -> Result<()> {
    let guest = Guest::builder().flavour("debug").cmdline(&["agent.debug_console"]).boot().await?;
    let mut console = Console::open(&guest).await?;
    let script = "#!/bin/sh\\necho begun > /run/modprobe.log\\nsleep 1000\\n";
    console
        .run(&format!("mkdir -p /sbin; printf '{script}' > /sbin/modprobe; chmod 755 /sbin/modprobe"))
        .await?;
    let module = KernelModule { name: "late".into(), ..Default::default() };
    let request =
        CreateSandboxRequest { sandbox_id: "pod".into(), kernel_modules: vec![module], ..Default::default() };
    let client = guest.client().clone();
    let create =
        tokio::spawn(
            async move { client.agent.create_sandbox(AgentClient::call(), &request).await.map(drop) },
        );
    console.run("until [ -e /run/modprobe.log ]; do usleep 50000; done").await?;
    ensure!(!create.is_finished(), "it does not wait: {:?}", create.await?);
    ends_in_time(&guest).await?;
    given_up("CreateSandbox", create).await
}
