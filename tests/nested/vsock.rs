//! The kernel's own vsock device, and AF_VSOCK as the way to it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use machine::vm::{AGENT_PORT, DialError, Endpoint, VmError};
use tests::{Guest, Machine, Pods, answered_after_half_close};

fn cid(guest: &Guest) -> Result<u32> {
    match guest.vm().endpoint() {
        Endpoint::Vsock { cid } => Ok(*cid),
        other => bail!("the guest is reached by {other:?}"),
    }
}

#[test]
fn two_pods_at_once_have_an_address_each() -> Result<()> {
    let pods = Pods::new()?;
    for name in ["left", "right"] {
        let manifest = pods.manifest(name, &[("one", &format!("echo I am {name}; sleep 1000"))])?;
        pods.success(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    }
    let mut cids = Vec::new();
    for name in ["left", "right"] {
        let record = std::fs::read(pods.path().join("pods").join(name).join("pod.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        assert_eq!(record["endpoint"]["kind"], "vsock", "{record}");
        cids.push(record["endpoint"]["cid"].as_u64().context("a cid")?);
        assert_eq!(pods.success(&["logs", name, "one"])?, format!("I am {name}\n"));
        assert_eq!(pods.success(&["exec", name, "one", "--", "hostname"])?, format!("{name}\n"));
    }
    assert_ne!(cids[0], cids[1]);
    pods.success(&["stop", "left"])?;
    assert_eq!(pods.success(&["exec", "right", "one", "--", "echo", "still here"])?, "still here\n");
    pods.success(&["stop", "right"])?;
    pods.nothing_is_left()
}

/// `VmConfig` takes no CID, so that of a guest is taken by a second device of another one. What matters is what QEMU says:
/// by these words a boot knows to try again with another CID.
#[tokio::test]
async fn a_taken_address_is_told_by_qemu_in_words_that_a_boot_knows() -> Result<()> {
    let guest = Guest::boot().await?;
    let taken = format!("vhost-vsock-device,guest-cid={}", cid(&guest)?);
    let error = Guest::builder().qemu(&["-device", &taken]).boot().await.err().context("it booted")?;
    let text = format!("{error:#}");
    ensure!(text.contains("Address already in use"), "{text}");
    Ok(())
}

#[tokio::test]
async fn ports_without_a_listener_and_guests_that_are_gone_are_told_apart() -> Result<()> {
    let guest = Guest::boot().await?;
    let (endpoint, cid) = (guest.vm().endpoint().clone(), cid(&guest)?);
    let refused = guest.vm().dial(4321).await.err().context("something listens on 4321")?;
    ensure!(matches!(refused, VmError::Dial(DialError::Refused { port: 4321 })), "{refused:?}");
    let (_stream, port) = guest.vm().dial_from(1024).await?;
    ensure!(port > 1023, "the kernel gives a port of its own: {port}");
    guest.sandbox().await?;
    guest.destroy().await?;
    drop(guest);
    let gone = tokio::time::timeout(Duration::from_secs(60), endpoint.dial(1024)).await?;
    let gone = gone.err().context("nobody is there")?;
    let text = format!("{gone} {:?}", std::error::Error::source(&gone).map(ToString::to_string));
    ensure!(text.contains(&cid.to_string()) && text.contains("No such device"), "{text}");
    Ok(())
}

#[tokio::test]
async fn every_machine_model_takes_the_kernels_vsock() -> Result<()> {
    for machine in [Machine::Q35, Machine::Microvm, Machine::MicrovmAcpi] {
        let guest = Guest::builder().machine(machine).boot().await?;
        assert_eq!(guest.vm().accel(), "kvm");
        cid(&guest)?;
        guest.sandbox().await?;
        assert_eq!(guest.container("c1").run().await?.sh("echo hello").await?, "hello");
    }
    Ok(())
}

/// Case H13 on the real thing: the emulated vsock of other hosts cannot be closed on one side.
#[tokio::test]
async fn a_client_that_shuts_its_side_down_gets_its_answers() -> Result<()> {
    for machine in [Machine::Q35, Machine::Microvm] {
        let guest = Guest::builder().machine(machine).boot().await?;
        for _ in 0..4 {
            answered_after_half_close(guest.vm().dial(AGENT_PORT).await?).await?;
        }
        // The agent has let go of them, and serves others.
        guest.sandbox().await?;
        assert_eq!(guest.container("c1").run().await?.sh("echo hello").await?, "hello");
    }
    Ok(())
}
