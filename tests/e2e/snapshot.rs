//! A guest that is saved and continued elsewhere, twice from one file and both at the same time. QEMU's migration to a file
//! stands in for the snapshots of other monitors: memory, devices and clock sources go on from where they were, the host's
//! time has gone on without them. Where the host's kernel has no vhost-vsock the vsock device is plugged out before and in
//! after, which ends connections as a restore does.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::agent::{GetMetricsRequest, ReseedRandomDevRequest};
use protocols::health::CheckRequest;
use serde_json::Value;
use tests::{Container, Guest, GuestBuilder, Running, Saved, host_now, until};

/// How wrong a clock may be after a restore.
const BOUND: Duration = Duration::from_secs(1);
/// How long the machine lies on its file, at least: what the clock misses.
const AWAY: Duration = Duration::from_secs(5);

/// How many lines of a copy may have numbers of the other copy, before its kernel has seen the new generation id. A count and no
/// time: a host that is busy stops a copy between any two instructions, and the clock steps between two words of a line.
/// docs/snapshots.md names it.
const WINDOW: usize = 50;
/// What the witness keeps in its memory before the number of the last line that it has begun.
const MARK: [u64; 2] = [0x7765_304b_c99e_2ae4, 0xdbb3_570d_11e8_9c66];
/// Most lines of the witness that are read at once.
const LINES: usize = 5000;

/// A line of the witness, a process that writes one every few milliseconds.
#[derive(Debug, Clone)]
struct Line {
    number: u64,
    time: Duration,
    random: BTreeSet<String>,
    /// How often it was told that the clock was set.
    sets: u64,
}

fn machine() -> Result<GuestBuilder> {
    Guest::builder()
        .savable()
        .memory(192)
        .cmdline(&["agent.passfd_listener_port=1027"])
        .program("/probe", "probe")
}

async fn witness(guest: &Guest) -> Result<Container> {
    let witness = guest.container("witness").args(["/probe", "--witness", "/seen"]);
    witness.mount("/probe", "bind", "/probe", &["bind", "ro"]).run().await
}

/// What the witness has written from a line on.
async fn seen(witness: &Container, from: u64) -> Result<Vec<Line>> {
    let text = witness.sh(&format!("awk '$1 >= {from}' /seen | head -n {LINES}")).await?;
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [number, time, random, uuid, sets] = words[..] else { anyhow::bail!("a line is {line:?}") };
            Ok(Line {
                number: number.parse()?,
                time: Duration::from_millis(time.parse()?),
                random: [random, uuid].map(str::to_owned).into(),
                sets: sets.parse()?,
            })
        })
        .collect()
}

fn numbers(lines: &[Line]) -> BTreeSet<&String> {
    lines.iter().flat_map(|line| &line.random).collect()
}

/// A copy's lines from the last one that was complete when the machine was saved, which is the first of them, to twenty after
/// the first that has the right time; and the index of that one. `begun` is the number of the last line that was begun then.
async fn from_the_save(witness: &Container, begun: u64, back: Duration) -> Result<(Vec<Line>, usize)> {
    for _ in 0..300 {
        let lines = seen(witness, begun - 1).await?;
        let first = lines.iter().position(|line| line.time + BOUND > back);
        if let Some(first) = first.filter(|first| *first > 0 && lines.len() > first + 20) {
            println!("{:?} were missed", lines[first].time - lines[first - 1].time);
            return Ok((lines, first));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the witness has no right time in 30 s")
}

/// The number of the last line that the witness had begun when the machine was saved, from the memory in the file. The page may
/// be there more than once, from times at which the kernel had it elsewhere.
fn begun(directory: &tempfile::TempDir) -> Result<u64> {
    let file = std::fs::read(directory.path().join("machine"))?;
    let mark: Vec<u8> = MARK.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let found = memchr::memmem::find_iter(&file, &mark).filter_map(|at| {
        let number = file.get(at + mark.len()..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*number))
    });
    let begun = found.max().context("no page of the file has the witness's mark")?;
    ensure!(begun > 10, "only {begun} lines were begun");
    Ok(begun)
}

/// The lines that were begun after the machine was saved.
fn later(lines: &[Line], begun: u64) -> Vec<Line> {
    lines.iter().filter(|line| line.number > begun).cloned().collect()
}

async fn save(guest: Guest, directory: &tempfile::TempDir) -> Result<Saved> {
    let saved = guest.save(&directory.path().join("machine")).await?;
    tokio::time::sleep(AWAY).await;
    Ok(saved)
}

/// How many sockets the agent has.
async fn sockets(inspector: &tests::Inspector) -> Result<usize> {
    Ok(inspector.sh("ls -l /guest/proc/1/fd | grep -c socket:").await?.parse()?)
}

async fn metric(guest: &Guest, line: &str) -> Result<u64> {
    let text = guest.api().get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await?.metrics;
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.with_context(|| format!("no {line} in {text}"))?.parse().context("a number")
}

#[tokio::test]
async fn a_machine_that_is_restored_twice_is_two_machines_with_the_right_time() -> Result<()> {
    let guest = machine()?.qemu(&["-device", "vmgenid,guid=auto"]).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let expected = sockets(&inspector).await?;

    // All that can be open when the machine is saved: streams that the host passed, execs that read from them or from
    // calls, connections without a call and calls without an answer.
    let witness_there = witness(&guest).await?;
    let (mut stdin, mut stdout) = (guest.pass().await?, guest.pass().await?);
    let reader =
        guest.container("reader").script("while read word; do echo $word >> /said; done; sleep 1000");
    let reader = reader.ports([stdin.port, stdout.port, 0]).run().await?;
    stdin.write(b"before\n").await?;
    let passed = guest.pass().await?;
    let waits = reader.exec(["sh", "-c", "cat; echo ended > /ended"]).id("waits").ports([passed.port, 0, 0]);
    waits.start().await?;
    let called = reader.exec(["cat"]).id("called").start().await?;
    called.write(b"one ").await?;
    let idle = [guest.vm().client().await?, guest.vm().client().await?];
    let unanswered = tokio::spawn({
        let witness = witness_there.clone();
        async move { witness.wait().await }
    });
    until("the exec and the reader run", async || {
        Ok(reader.sh("cat /said; pidof cat | wc -w").await? == "before\n2")
    })
    .await?;
    guest.set_clock(host_now()).await?;
    ensure!(witness_there.clock_error().await? < BOUND, "wrong from the beginning");
    // The chip's second is known after the first look at it.
    tokio::time::sleep(Duration::from_secs(3)).await;

    let directory = tempfile::tempdir()?;
    let saved = save(guest, &directory).await?;
    assert!(unanswered.await?.is_err(), "the call goes on");
    assert!(idle[0].health.check(AgentClient::call(), &CheckRequest::new()).await.is_err(), "goes on");
    assert_eq!(stdout.read_to_end().await?, b"");
    let length = std::fs::metadata(directory.path().join("machine"))?.len();
    let begun = begun(&directory)?;

    let back = host_now();
    let (one, other) = (saved.restore().await?, saved.restore().await?);
    let mut all = Vec::new();
    for guest in [&one, &other] {
        let witness = guest.container("witness").made();
        let wrong = witness.clock_error().await?;
        assert!(wrong < BOUND, "wrong by {wrong:?}");
        let (lines, first) = from_the_save(&witness, begun, back).await?;
        println!("{length} bytes; wrong by {wrong:?} at the first call");
        // It looks at its timer before it looks at the clock, so the line after the first right one must know.
        let around = &lines[first - 1..=first + 1];
        assert!(around[2].sets > around[0].sets, "the witness was not told: {around:?}");
        all.push(lines);
        until("the new generation is counted", async || {
            Ok(metric(guest, "pith_guest_restores{sign=\"generation\"}").await? == 1)
        })
        .await?;
        let log = guest.vm().console_log();
        let mut records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_note = |record: &Value| {
            record["msg"].as_str().is_some_and(|text| text.starts_with("the machine goes on from a snapshot"))
        };
        assert!(records.any(|record| is_note(&record)), "{log}");

        // Containers and execs of the API go on, over new connections; what waited for the host has ended.
        let reader = guest.container("reader").made();
        assert_eq!(reader.sh("cat /said").await?, "before");
        // A stdin that the host passed is served by calls now.
        reader.init().write(b"after\n").await?;
        until("the reader goes on", async || Ok(reader.sh("cat /said").await? == "before\nafter")).await?;
        until("the exec has ended", async || Ok(reader.sh("cat /ended; true").await? == "ended")).await?;
        let called = Running::of(guest.client(), "reader", "called");
        called.write(b"two").await?;
        called.close_stdin().await?;
        let finished = called.finish().await?;
        assert_eq!((finished.status, &finished.stdout[..]), (0, &b"one two"[..]));
        let inspector = guest.attached_inspector();
        let mut open = 0;
        let closed = until("old connections are closed", async || {
            open = sockets(&inspector).await?;
            Ok(open == expected)
        });
        closed.await.with_context(|| format!("{open} sockets, not {expected}"))?;
        assert_eq!(guest.container("new").run().await?.sh("echo new").await?, "new");
    }
    let (one_saw, other_saw) = (later(&all[0], begun), later(&all[1], begun));
    assert!(one_saw.len() > 10 && other_saw.len() > 10, "{} and {}", one_saw.len(), other_saw.len());
    // Nothing stops a container between the machine's first instruction and the kernel's look at the generation id.
    let (in_one, in_other) = (numbers(&one_saw), numbers(&other_saw));
    let is_equal =
        |line: &&Line| line.random.iter().any(|number| in_one.contains(number) && in_other.contains(number));
    for saw in [&one_saw, &other_saw] {
        let equal: Vec<&Line> = saw.iter().filter(is_equal).collect();
        let Some(last) = equal.last() else { continue };
        println!("{} lines have numbers of the other copy", equal.len());
        assert!(equal.len() <= WINDOW, "{} lines have numbers of the other copy: {equal:?}", equal.len());
        assert_eq!(last.number, begun + equal.len() as u64, "equal lines after others: {equal:?}");
    }
    one.destroy().await?;
    other.destroy().await
}

#[tokio::test]
async fn a_host_that_pauses_containers_makes_all_right_before_they_go_on() -> Result<()> {
    // Without VMGenID: nothing but the host's calls tells the guest.
    let guest = machine()?.boot().await?;
    guest.sandbox().await?;
    let witness_there = witness(&guest).await?;
    guest.set_clock(host_now()).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    witness_there.pause().await?;
    let directory = tempfile::tempdir()?;
    let saved = save(guest, &directory).await?;
    let begun = begun(&directory)?;

    let mut all = Vec::new();
    for seed in [1, 2] {
        let guest = saved.restore().await?;
        let witness = guest.container("witness").made();
        let back = host_now();
        guest.set_clock(host_now()).await?;
        let request = ReseedRandomDevRequest { data: vec![seed; 32], ..Default::default() };
        guest.api().reseed_random_dev(AgentClient::call(), &request).await?;
        witness.resume().await?;
        let (lines, first) = from_the_save(&witness, begun, back).await?;
        // No line has a time between the save and now.
        assert!(lines[first].time - lines[first - 1].time >= AWAY, "{:?}", &lines[first - 1..=first]);
        assert!(lines[first..].iter().all(|line| line.time + BOUND > back));
        // It looks at its timer before it looks at the clock, so the line after the first right one must know.
        let around = &lines[first - 1..=first + 1];
        assert!(around[2].sets > around[0].sets, "the witness was not told: {around:?}");
        let lines = later(&lines, begun);
        assert_eq!(lines[0].number, begun + 1);
        assert!(
            lines[0].time + BOUND > back,
            "the first line after the save has an old time: {:?}",
            lines[0]
        );
        all.push(lines);
        guest.destroy().await?;
    }
    let equal: Vec<&String> = numbers(&all[0]).intersection(&numbers(&all[1])).copied().collect();
    assert!(equal.is_empty(), "both saw {equal:?}");

    // A host that makes no call but one: the connection is reason enough to look at the clock.
    let guest = saved.restore().await?;
    let witness = guest.container("witness").made();
    witness.resume().await?;
    until("the clock is right again", async || Ok(witness.clock_error().await? < BOUND)).await?;
    assert!(metric(&guest, "pith_guest_clock_steps").await? >= 1);
    Ok(())
}
