//! Nothing accumulates.

use anyhow::Result;
use tests::Guest;

#[tokio::test]
async fn two_hundred_execs_in_a_row_leak_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").run().await?;
    container.sh("true").await?;
    let before = inspector.snapshot().await?;
    let memory_before = inspector.agent_rss_kib().await?;
    for number in 0..200 {
        // Half of them are never read.
        let exec = container.exec(["sh", "-c", "echo some output; echo more >&2"]).start().await?;
        if number % 2 == 0 {
            assert_eq!(exec.finish().await?.status, 0);
        } else {
            assert_eq!(exec.wait().await?, 0);
        }
    }
    assert_eq!(inspector.settled(&before).await?, before);
    let memory = inspector.agent_rss_kib().await?;
    println!("agent VmRSS: {memory_before} KiB before, {memory} KiB after 200 execs");
    // A page for each exec would be a leak; what the allocator keeps is not.
    assert!(memory < memory_before + 200 * 4 + 1024, "{memory_before} KiB grew to {memory} KiB");
    Ok(())
}

#[tokio::test]
async fn thirty_containers_come_and_go_without_a_trace() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    guest.container("warm").run().await?.remove().await?;
    let before = inspector.snapshot().await?;
    for number in 0..30 {
        let container = guest.container(&format!("c{number}")).script("echo hello; sleep 1000").run().await?;
        container.init().read_until("hello").await?;
        container.remove().await?;
    }
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}

#[tokio::test]
async fn an_agent_at_rest_is_small() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let resident = inspector.agent_rss_kib().await?;
    println!("agent VmRSS at rest: {resident} KiB");
    assert!(resident < 8 * 1024, "{resident} KiB");
    Ok(())
}

#[tokio::test]
async fn closed_consoles_leave_nothing() -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let guest = Guest::builder().cmdline(&["agent.debug_console"]).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    for _ in 0..5 {
        let mut console = guest.vm().dial(1026).await?;
        // Two lines that arrive as one are still two.
        console.write_all(b"nonsense\nrubbish\n").await?;
        let (mut all, mut buffer) = (String::new(), [0; 4096]);
        while !all.contains("\"nonsense\";") || !all.contains("\"rubbish\";") {
            let count = console.read(&mut buffer).await?;
            assert!(count > 0, "the console ended: {all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
