//! The service as a whole: what this guest does not have says so, and many calls at once do no harm.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::agent::*;
use protocols::health::CheckRequest;
use tests::{Code, Guest, answered_after_half_close, expect_code};
use tokio::net::UnixStream;

#[tokio::test]
async fn what_this_guest_is_built_without_answers_unimplemented() -> Result<()> {
    let guest = Guest::boot().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    let text = expect_code(api.set_policy(call(), &SetPolicyRequest::new()).await, Code::UNIMPLEMENTED);
    assert!(text.contains("feature `policy`"), "{text}");
    let text = expect_code(api.get_ip_tables(call(), &GetIPTablesRequest::new()).await, Code::UNIMPLEMENTED);
    assert!(text.contains("standard"), "{text}");
    Ok(())
}

#[tokio::test]
async fn fifty_waits_and_reads_hold_up_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let blocked: Vec<_> = (0..25)
        .flat_map(|_| {
            let (waits, reads) = (container.init(), container.init());
            [
                tokio::spawn(async move { waits.wait().await.map(drop) }),
                tokio::spawn(async move { reads.read(10).await.map(drop) }),
            ]
        })
        .collect();
    let checks = (0..50).map(|_| {
        let health = guest.client().health.clone();
        tokio::spawn(async move { health.check(AgentClient::call(), &CheckRequest::new()).await.map(drop) })
    });
    for check in checks.collect::<Vec<_>>() {
        check.await??;
    }
    container.signal("", 9).await?;
    for call in blocked {
        call.await??;
    }
    Ok(())
}

/// The agent itself, outside of a guest: the emulated vsock of most hosts for tests cannot be closed on one side. The kernel's own
/// can, and `make nested` does.
#[tokio::test]
async fn a_client_that_has_said_all_gets_its_answers() -> Result<()> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/agent");
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("agent.sock");
    let mut agent = std::process::Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(&program)
        .env("KATA_AGENT_SERVER_ADDR", format!("unix://{}", socket.display()))
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    while !socket.exists() {
        ensure!(agent.try_wait()?.is_none(), "the agent has ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for _ in 0..4 {
        answered_after_half_close(UnixStream::connect(&socket).await?).await?;
    }
    agent.kill()?;
    agent.wait()?;
    Ok(())
}
