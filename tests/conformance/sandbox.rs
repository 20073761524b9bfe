//! CreateSandbox and DestroySandbox.

use std::time::Duration;

use anyhow::{Result, ensure};
use machine::vm::AgentClient;
use protocols::Empty;
use protocols::agent::*;
use tests::Code;

use crate::case::{Case, cases};
use crate::world::{DEADLINE, World, expect};

pub(crate) const CASES: &[Case] = cases! {
    Bare "CreateSandbox" Failure a_sandbox_whose_storage_fails_is_not_made;
    Pod "CreateSandbox" Success a_sandbox_has_a_hostname_dns_and_storages;
    Pod "CreateSandbox" Failure a_second_sandbox_is_refused_and_the_first_goes_on;
    End "DestroySandbox" Success destroying_ends_containers_waiters_and_the_machine;
    DisksEnd "DestroySandbox" Failure destroying_twice_is_unavailable;
};

/// Where the pod's scratch volume is.
pub(crate) const SCRATCH: &str = "/run/kata-containers/sandbox/ephemeral/scratch";

/// A tmpfs of the pod.
pub(crate) fn tmpfs(mount_point: &str, options: &[&str]) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        mount_point: mount_point.into(),
        ..Default::default()
    }
}

fn request() -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: "pod".into(),
        hostname: "pod".into(),
        dns: vec!["nameserver 10.9.8.7".into(), " search example.org ".into()],
        storages: vec![tmpfs(SCRATCH, &["size=1m", "mode=1777"])],
        ..Default::default()
    }
}

/// Makes the sandbox if a case has not done so.
pub(crate) async fn ensure(world: &World) -> Result<()> {
    let bytes = protobuf::Message::write_to_bytes(&request())?;
    match world.send("CreateSandbox", bytes, DEADLINE.as_nanos() as i64).await? {
        Err(refusal) if refusal.code != Code::ALREADY_EXISTS => anyhow::bail!("CreateSandbox: {refusal:?}"),
        _ => Ok(()),
    }
}

async fn a_sandbox_whose_storage_fails_is_not_made(world: &World) -> Result<()> {
    let mut unknown = request();
    unknown.storages.push(Storage { driver: "nosuchdriver".into(), ..tmpfs("/run/kata-containers/x", &[]) });
    let text = world.refused("CreateSandbox", &unknown, Code::UNIMPLEMENTED).await?;
    ensure!(text.contains("nosuchdriver"), "{text}");
    let mut relative = request();
    relative.storages.push(tmpfs("../x", &[]));
    world.refused("CreateSandbox", &relative, Code::INVALID_ARGUMENT).await?;
    let mut absent = request();
    absent.storages.push(Storage {
        driver: "blk".into(),
        source: "/dev/vdz".into(),
        fstype: "ext4".into(),
        mount_point: "/run/kata-containers/x".into(),
        ..Default::default()
    });
    world.refused("CreateSandbox", &absent, Code::DEADLINE_EXCEEDED).await?;
    // There is still none.
    let (code, text) = tests::refusal(world.container().try_create().await);
    ensure!(code == Code::FAILED_PRECONDITION, "{code:?} {text}");
    Ok(())
}

async fn a_sandbox_has_a_hostname_dns_and_storages(world: &World) -> Result<()> {
    world.done("CreateSandbox", &request()).await?;
    let builder = world
        .container()
        .mount("/etc/resolv.conf", "bind", "/run/kata-containers/sandbox/resolv.conf", &["rbind", "ro"])
        .mount("/scratch", "bind", SCRATCH, &["rbind", "rw"]);
    let text = builder.run().await?.sh("hostname; cat /etc/resolv.conf; stat -f -c %T /scratch").await?;
    ensure!(text == "pod\nnameserver 10.9.8.7\nsearch example.org\ntmpfs", "{text}");
    Ok(())
}

async fn a_second_sandbox_is_refused_and_the_first_goes_on(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    world.refused("CreateSandbox", &request(), Code::ALREADY_EXISTS).await?;
    world.refused("CreateSandbox", &CreateSandboxRequest::new(), Code::ALREADY_EXISTS).await?;
    ensure!(world.shared().await?.sh("echo alive").await? == "alive");
    world.is_as_before(&before).await
}

async fn destroying_ends_containers_waiters_and_the_machine(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let wait = tokio::spawn(async move { container.wait().await });
    let request = GetOOMEventRequest::new();
    let pending = world.guest.client().agent.get_oom_event(AgentClient::forever(), &request);
    let destroy = async {
        // The other call is on its way before.
        tokio::task::yield_now().await;
        world.done("DestroySandbox", &DestroySandboxRequest::new()).await
    };
    let (event, destroyed) = tokio::join!(pending, destroy);
    destroyed?;
    ensure!(wait.await?? == 137, "a waiter has another status");
    let (code, text) = tests::refusal(event);
    ensure!(code == Code::INTERNAL, "a watcher of memory is told {code:?} {text}");
    ensure!(world.guest.vm().wait_off(Duration::from_secs(60)).await, "the machine stays on");
    Ok(())
}

async fn destroying_twice_is_unavailable(world: &World) -> Result<()> {
    // Containers to remove keep the first call at work.
    for _ in 0..3 {
        world.container().run().await?;
    }
    let again = async {
        tokio::task::yield_now().await;
        let bytes = Vec::new();
        let answer = world.send("DestroySandbox", bytes, DEADLINE.as_nanos() as i64).await?;
        expect("a second DestroySandbox", answer, Code::UNAVAILABLE)?;
        let request = CreateSandboxRequest::new();
        world.refused("CreateSandbox", &request, Code::UNAVAILABLE).await.map(drop)
    };
    let request = DestroySandboxRequest::new();
    let first = world.ok::<_, Empty>("DestroySandbox", &request);
    let (first, again) = tokio::join!(first, again);
    first?;
    again?;
    ensure!(world.guest.vm().wait_off(Duration::from_secs(60)).await, "the machine stays on");
    Ok(())
}
