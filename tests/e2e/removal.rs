//! The end comes, and in time: whatever a container waits for, however many processes or cgroups it has, and while it comes
//! the agent answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::agent::DestroySandboxRequest;
use protocols::health::CheckRequest;
use tests::{Code, ContainerBuilder, Guest, VOLUMES, expect_code, storage};

/// Within this the agent promises to have removed a container (ARCHITECTURE.md).
const CONTAINER: Duration = Duration::from_secs(45);
/// Within this it promises to have destroyed the pod.
const POD: Duration = Duration::from_secs(35);

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
async fn begin(builder: ContainerBuilder) -> Result<tokio::task::JoinHandle<ttrpc::Result<()>>> {
    let create = tokio::spawn(async move { builder.try_create().await.map(drop) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(!create.is_finished(), "it does not wait: {:?}", create.await?);
    Ok(create)
}

#[tokio::test]
async fn a_removal_gives_up_what_a_create_waits_for() -> Result<()> {
    let guest = patient().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    for builder in [undescribed(guest.container("c1")), unplugged(guest.container("c1"))] {
        let create = begin(builder).await?;
        let began = Instant::now();
        guest.container("c1").made().remove().await.context("remove it")?;
        ensure!(began.elapsed() < CONTAINER, "it took {:?}", began.elapsed());
        expect_code(create.await?, Code::CANCELLED);
        assert_eq!(inspector.settled(&before).await?, before);
    }
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
    let began = Instant::now();
    guest.destroy().await?;
    ensure!(began.elapsed() < POD, "it took {:?}", began.elapsed());
    for create in [first, second] {
        // The answer, or the end of the connection, whatever comes first.
        ensure!(create.await?.is_err(), "a container was created in a pod that is no more");
    }
    Ok(())
}

/// Makes 30,000 files in a directory that is empty.
const FILL: &str =
    "for d in $(seq 1 30); do mkdir $d; (cd $d; seq 1 1000 | xargs touch); done; find . -type f | wc -l";

/// Does work that keeps the agent busy, and asks it meanwhile whether it lives; no answer may take most of that time.
async fn answers_during(
    guest: &Guest,
    what: &str,
    work: impl Future<Output = Result<()>> + Send + 'static,
) -> Result<()> {
    let began = Instant::now();
    let work = tokio::spawn(work);
    let mut largest = Duration::ZERO;
    while !work.is_finished() {
        let asked = Instant::now();
        if guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await.is_err() {
            break;
        }
        largest = largest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    work.await??;
    let whole = began.elapsed();
    println!("{what} took {whole:?}, the largest wait of a Check was {largest:?}");
    // One that had to wait for the files waited for nearly all of it.
    ensure!(largest < whole * 3 / 4, "{what}: a Check waited for {largest:?} of {whole:?}");
    Ok(())
}

#[tokio::test]
async fn calls_are_answered_while_a_large_volume_goes() -> Result<()> {
    let guest = Guest::builder().memory(768).boot().await?;
    guest.sandbox_with(vec![storage("ephemeral", "tmpfs", "tmpfs", &["size=300m"], "v")]).await?;
    let filler =
        guest.container("filler").mount("/v", "bind", &format!("{VOLUMES}/v"), &["rbind"]).run().await?;
    assert_eq!(filler.sh(&format!("cd /v; {FILL}")).await?.trim(), "30000");
    filler.remove().await?;
    let client = guest.vm().client().await?;
    let destroy = async move {
        let destroyed =
            client.agent.destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await;
        destroyed.map(drop).context("DestroySandbox")
    };
    answers_during(&guest, "the end of the pod", destroy).await
}
