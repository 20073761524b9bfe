//! The log port: JSON lines for readers that come, go, come back or do not read.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use serde_json::Value;
use tests::Guest;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::recovery::{FORKER, killer};

/// Where runtime-rs reads the log.
const PORT: u32 = 1025;
/// Names a record that nothing but the test causes.
const MARK: &str = "creating a container";

async fn boot(level: &str) -> Result<Guest> {
    let level = format!("agent.log={level}");
    Guest::builder().cmdline(&["agent.log_vport=1025", &level]).boot().await
}

/// A reader of the log.
struct Reader(BufReader<UnixStream>);

impl Reader {
    async fn connect(guest: &Guest) -> Result<Reader> {
        Ok(Reader(BufReader::new(guest.vm().dial(PORT).await?)))
    }

    async fn next(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = tokio::time::timeout(Duration::from_secs(120), self.0.read_line(&mut line)).await;
        ensure!(count.context("no further record came")?? > 0, "the log ended");
        ensure!(line.ends_with('\n'), "half a line: {line:?}");
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line:?}"))
    }

    /// Reads until the record about a container with this id being created, and gives all.
    async fn until_created(&mut self, id: &str) -> Result<Vec<Value>> {
        self.until(|record| record["msg"] == MARK && record["container_id"] == id).await
    }

    async fn until(&mut self, is_last: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let mut records = Vec::new();
        loop {
            let record = self.next().await?;
            let is_it = is_last(&record);
            records.push(record);
            if is_it {
                return Ok(records);
            }
        }
    }
}

fn has(records: &[Value], message: &str) -> bool {
    records.iter().any(|record| record["msg"].as_str().is_some_and(|text| text.contains(message)))
}

/// Makes the agent log at every level, whatever is kept of it.
async fn ping(guest: &Guest, times: usize) -> Result<()> {
    for _ in 0..times {
        guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn records_have_the_shape_that_shims_parse_and_early_ones_are_kept() -> Result<()> {
    let guest = Guest::builder()
        .cmdline(&["agent.log_vport=1025", "agent.log=debug", "agent.hotplug_timeout=soon"])
        .boot()
        .await?;
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    let mut reader = Reader::connect(&guest).await?;
    let records = reader.until_created("c1").await?;
    for record in &records {
        let text = |key: &str| record[key].as_str().with_context(|| format!("{key} in {record}"));
        assert!(["TRCE", "DEBG", "INFO", "WARN", "ERRO", "CRIT"].contains(&text("level")?), "{record}");
        assert_eq!((text("name")?, text("source")?, text("pid")?), ("kata-agent", "agent", "1"));
        // RFC 3339 in UTC with nanoseconds.
        let ts = text("ts")?;
        assert!(ts.len() == 30 && ts.ends_with('Z') && ts.as_bytes()[10] == b'T', "{ts}");
        assert!(!text("msg")?.is_empty() && !text("subsystem")?.is_empty() && !text("version")?.is_empty());
    }
    // From before anybody could connect.
    let warning = records.iter().find(|record| record["level"] == "WARN").context("no warning")?;
    let is_of_the_option =
        warning["msg"].as_str().is_some_and(|text| text.contains("agent.hotplug_timeout=soon"));
    assert!(is_of_the_option, "{warning}");
    // Live ones follow.
    guest.container("c2").run().await?;
    reader.until_created("c2").await?;
    Ok(())
}

#[tokio::test]
async fn the_console_gets_only_the_ready_line_and_errors() -> Result<()> {
    let guest = Guest::builder().cmdline(&["agent.log_vport=1025", "agent.trace=soon"]).boot().await?;
    guest.sandbox().await?;
    killer(&guest, "c1").await?.sh(&format!("kill -9 $({FORKER})")).await?;
    for id in ["c2", "c3"] {
        guest.container(id).run().await?;
    }
    let records = Reader::connect(&guest).await?.until_created("c3").await?;
    let error = "the forker is gone";
    assert!(has(&records, "agent.trace=soon") && has(&records, error));
    let console = guest.vm().console_log();
    assert!(console.contains("agent ready: ") && console.contains(error), "{console}");
    assert!(!console.contains(MARK) && !console.contains("agent.trace=soon: "), "{console}");
    Ok(())
}

#[tokio::test]
async fn readers_come_go_and_come_back_and_several_read_at_once() -> Result<()> {
    let guest = boot("info").await?;
    guest.sandbox().await?;
    let (mut first, mut second) = (Reader::connect(&guest).await?, Reader::connect(&guest).await?);
    guest.container("c1").run().await?;
    let records = first.until_created("c1").await?;
    assert!(has(&records, "creating the sandbox"));
    assert_eq!(second.until_created("c1").await?, records);
    drop(first);
    guest.container("c2").run().await?;
    second.until_created("c2").await?;
    let mut again = Reader::connect(&guest).await?;
    let all = again.until_created("c2").await?;
    assert!(all.starts_with(&records), "what came before is told again");
    Ok(())
}

#[tokio::test]
async fn what_a_reader_sends_does_not_matter() -> Result<()> {
    let guest = boot("info").await?;
    guest.sandbox().await?;
    let mut reader = Reader::connect(&guest).await?;
    reader.0.get_mut().write_all(b"what a reader says does not matter").await?;
    guest.container("c1").run().await?;
    reader.until_created("c1").await?;
    Ok(())
}

#[tokio::test]
async fn gone_readers_leave_nothing_behind() -> Result<()> {
    let guest = boot("info").await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    for _ in 0..40 {
        let mut reader = Reader::connect(&guest).await?;
        reader.next().await?;
    }
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}

#[tokio::test]
async fn the_level_decides_what_is_told() -> Result<()> {
    let guest = boot("warn").await?;
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    let labelled = guest.container("c2").process(|process| process.ApparmorProfile = "strict".into());
    labelled.run().await?;
    let mut reader = Reader::connect(&guest).await?;
    let records = reader.until(|record| record["field"] == "process.apparmorProfile").await?;
    for record in &records {
        assert!(["WARN", "ERRO", "CRIT"].contains(&record["level"].as_str().unwrap_or("")), "{record}");
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_holds_up_nobody() -> Result<()> {
    let guest = boot("trace").await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let mut slow = Reader::connect(&guest).await?;
    slow.next().await?;
    let mut swift = Reader::connect(&guest).await?;
    let counter = tokio::spawn(async move {
        let mut seen = 0u64;
        loop {
            let record = swift.next().await?;
            seen += 1 + record["dropped"].as_u64().unwrap_or(0);
            if record["msg"] == MARK && record["container_id"] == "last" {
                return anyhow::Ok(seen);
            }
        }
    });
    ping(&guest, 6000).await?;
    guest.container("last").run().await?;
    let total = counter.await??;
    println!("{total} records, agent VmRSS {} KiB", inspector.agent_rss_kib().await?);
    assert!(total > 10_000, "{total} records");
    // The slow one has read one line so far.
    let records = slow.until_created("last").await?;
    let dropped: u64 = records.iter().filter_map(|record| record["dropped"].as_u64()).sum();
    let notices = records.iter().filter(|record| !record["dropped"].is_null()).count() as u64;
    println!("the slow reader got {} and missed {dropped}", records.len());
    assert!(dropped > 0, "nothing was dropped");
    assert_eq!(1 + records.len() as u64 - notices + dropped, total, "records are unaccounted for");
    Ok(())
}
