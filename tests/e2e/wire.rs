//! The service as a whole: what this guest does not have says so, and many calls at once do no harm.

use anyhow::Result;
use image_builder::vm::AgentClient;
use protocols::agent::*;
use protocols::health::CheckRequest;
use tests::{Code, Guest, expect_code};

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
