//! Streams over connections that the host passes: nothing lost, and nobody held up by a host or a process that misbehaves.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::{Code, Container, Guest, expect_code};
use tokio::io::AsyncReadExt as _;

/// Bytes that differ from their neighbours, so that a loss or a swap shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect()
}

/// A guest with a running container.
async fn started() -> Result<(Guest, Container)> {
    let guest = Guest::boot_for_streams().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    Ok((guest, container))
}

#[tokio::test]
async fn all_three_streams_of_an_init_and_of_an_exec_pass() -> Result<()> {
    let guest = Guest::boot_for_streams().await?;
    guest.sandbox().await?;
    let script = "read word; echo got $word; echo oops >&2; readlink /proc/self/fd/1 >&2; sleep 1000";
    let (mut stdin, mut stdout, mut stderr) = (guest.pass().await?, guest.pass().await?, guest.pass().await?);
    let ports = [stdin.port, stdout.port, stderr.port];
    let container = guest.container("c1").script(script).ports(ports).create().await?;
    container.start().await?;
    stdin.write(b"hello\n").await?;
    assert_eq!(stdout.read_until("\n").await?, "got hello\n");
    // A socket could not be opened again by way of /dev/stdout.
    let text = stderr.read_until("pipe:").await?;
    assert!(text.starts_with("oops\n"), "{text}");

    let (mut stdin, mut stdout, mut stderr) = (guest.pass().await?, guest.pass().await?, guest.pass().await?);
    let exec = container.exec(["sh", "-c", "cat; echo and that was all > /dev/stderr; exit 7"]);
    let exec = exec.ports([stdin.port, stdout.port, stderr.port]).start().await?;
    stdin.write(b"some words").await?;
    drop(stdin);
    assert_eq!(exec.wait().await?, 7);
    assert_eq!(stdout.read_to_end().await?, b"some words");
    assert_eq!(stderr.read_to_end().await?, b"and that was all\n");
    Ok(())
}

#[tokio::test]
async fn calls_are_told_at_once_that_a_stream_is_passed() -> Result<()> {
    let (guest, container) = started().await?;
    let (stdin, stdout) = (guest.pass().await?, guest.pass().await?);
    let cat = container.exec(["cat"]).ports([stdin.port, stdout.port, 0]).start().await?;
    let text = expect_code(cat.read(10).await, Code::FAILED_PRECONDITION);
    assert!(text.starts_with("stdout is a connection"), "{text}");
    let text = expect_code(cat.write(b"x").await, Code::FAILED_PRECONDITION);
    assert!(text.starts_with("stdin is a connection"), "{text}");
    // CloseStdin is how runtime-rs ends the input of such a process, whose connection stays open.
    cat.close_stdin().await?;
    assert_eq!(cat.wait().await?, 0);
    Ok(())
}

#[tokio::test]
async fn one_stream_may_pass_and_the_others_be_called_for() -> Result<()> {
    let (guest, container) = started().await?;
    let mut stdout = guest.pass().await?;
    let exec = container.exec(["sh", "-c", "cat; echo err >&2"]).ports([0, stdout.port, 0]).start().await?;
    exec.write(b"by call").await?;
    exec.close_stdin().await?;
    assert_eq!(exec.read_stderr(100).await?, b"err\n");
    assert_eq!(exec.wait().await?, 0);
    assert_eq!(stdout.read_to_end().await?, b"by call");
    Ok(())
}

#[tokio::test]
async fn eight_mebibytes_go_in_and_come_back_the_same() -> Result<()> {
    let (guest, container) = started().await?;
    let (mut stdin, mut stdout) = (guest.pass().await?, guest.pass().await?);
    let cat = container.exec(["cat"]).ports([stdin.port, stdout.port, 0]).start().await?;
    let data = pattern(8 << 20);
    let sent = data.clone();
    let feeder = tokio::spawn(async move { stdin.write(&sent).await });
    let back = stdout.read_to_end().await?;
    feeder.await??;
    assert_eq!(back.len(), data.len());
    assert!(back == data, "the bytes differ");
    assert_eq!(cat.wait().await?, 0);
    Ok(())
}

#[tokio::test]
async fn sixty_four_mebibytes_have_arrived_when_the_wait_ends() -> Result<()> {
    let (guest, container) = started().await?;
    let part = pattern(8 << 20);
    container.exec(["sh", "-c", "cat > /part"]).stdin(part.clone()).run().await?.success()?;
    let script = "cat /part /part /part /part /part /part /part /part";
    let mut stdout = guest.pass().await?;
    let began = Instant::now();
    let exec = container.exec(["sh", "-c", script]).ports([0, stdout.port, 0]).start().await?;
    let reader = tokio::spawn(async move { stdout.read_to_end().await });
    assert_eq!(exec.wait().await?, 0);
    let passed = reader.await??;
    println!(
        "stdout over a connection: {:.1} MB/s",
        passed.len() as f64 / 1e6 / began.elapsed().as_secs_f64()
    );
    assert_eq!(passed.len(), 64 << 20);
    assert!(passed.chunks(part.len()).all(|chunk| chunk == part), "the bytes differ");

    let began = Instant::now();
    let called = container.exec(["sh", "-c", script]).run().await?;
    println!("stdout by calls: {:.1} MB/s", called.stdout.len() as f64 / 1e6 / began.elapsed().as_secs_f64());
    assert_eq!((called.status, called.stdout == passed), (0, true));
    Ok(())
}

#[tokio::test]
async fn a_terminal_passes_and_outlives_its_stdin() -> Result<()> {
    let (guest, container) = started().await?;
    let (mut stdin, mut stdout) = (guest.pass().await?, guest.pass().await?);
    let shell = container.exec(["sh"]).terminal().ports([stdin.port, stdout.port, 0]).start().await?;
    shell.resize(33, 99).await?;
    stdin.write(b"stty size; tty; echo all $((1 + 2))\n").await?;
    let text = stdout.read_until("all 3\r\n").await?;
    assert!(text.contains("33 99") && text.contains("/dev/pts/"), "{text}");
    stdin.write(b"sleep 1; echo still $((2 + 2)) here\n").await?;
    drop(stdin);
    stdout.read_until("still 4 here").await?;
    container.signal(shell.exec_id(), 9).await?;
    assert_eq!(shell.wait().await?, 137);
    stdout.read_to_end().await?;

    let (mut stdin, mut stdout) = (guest.pass().await?, guest.pass().await?);
    let cat = container.exec(["cat"]).terminal().ports([stdin.port, stdout.port, 0]).start().await?;
    stdin.write(b"words\n").await?;
    stdout.read_until("words\r\nwords\r\n").await?;
    cat.close_stdin().await?;
    assert_eq!(cat.wait().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_slow_host_gets_everything_of_a_process_that_is_gone() -> Result<()> {
    let (guest, container) = started().await?;
    let mut stdout = guest.pass().await?;
    let exec = container.exec(["head", "-c", "1000000", "/dev/zero"]).ports([0, stdout.port, 0]);
    let exec = exec.start().await?;
    let waiter = tokio::spawn(async move { exec.wait().await });
    let (mut all, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match stdout.stream.read(&mut buffer).await? {
            0 => break,
            count => all += count,
        }
    }
    assert_eq!(all, 1_000_000);
    assert_eq!(waiter.await??, 0);
    Ok(())
}

#[tokio::test]
async fn a_host_that_never_reads_blocks_only_that_process() -> Result<()> {
    let (guest, container) = started().await?;
    let inspector = guest.inspector().await?;
    let other = guest.container("c2").run().await?;
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let stdout = guest.pass().await?;
        let exec = container.exec(["yes"]).ports([0, stdout.port, 0]).start().await?;
        stuck.push((exec, stdout));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let resident = inspector.agent_rss_kib().await?;
    println!("agent VmRSS with eight unread floods: {resident} KiB");
    assert!(resident < 10 * 1024, "{resident} KiB");
    assert_eq!(other.sh("echo alive").await?, "alive");
    for (exec, _) in &stuck {
        container.signal(exec.exec_id(), 9).await?;
    }
    for (exec, _) in &stuck {
        assert_eq!(exec.wait().await?, 137);
    }
    // Neither does what is unread hold up a removal.
    container.remove().await?;
    Ok(())
}

#[tokio::test]
async fn a_host_that_hangs_up_stops_no_process() -> Result<()> {
    let (guest, container) = started().await?;
    let (mut stdout, mut stderr) = (guest.pass().await?, guest.pass().await?);
    let script = "echo ready; read go; dd if=/dev/zero bs=1M count=8 2>/dev/null; echo done $? >&2; exit 5";
    let exec = container.exec(["sh", "-c", script]).ports([0, stdout.port, stderr.port]).start().await?;
    // Nothing may be unread here: vhost-device-vsock 0.3 would not tell the guest.
    assert_eq!(stdout.read_until("\n").await?, "ready\n");
    drop(stdout);
    exec.write(b"go\n").await?;
    assert_eq!(stderr.read_to_end().await?, b"done 0\n");
    assert_eq!(exec.wait().await?, 5);
    Ok(())
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_keeps_nobody_waiting() -> Result<()> {
    let (guest, container) = started().await?;
    for script in ["sleep 1000 & echo started", "while :; do echo started; sleep 0.1; done & sleep 0.5"] {
        let mut stdout = guest.pass().await?;
        let exec = container.exec(["sh", "-c", script]).ports([0, stdout.port, 0]).start().await?;
        assert_eq!(exec.wait().await?, 0);
        assert!(stdout.read_until("started\n").await?.starts_with("started\n"));
    }
    Ok(())
}

#[tokio::test]
async fn ports_that_cannot_be_claimed_are_refused_and_nothing_stays() -> Result<()> {
    let (guest, container) = started().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let never = container.exec(["true"]).id("e1").ports([0, 4_000_000, 0]);
    let text = expect_code(never.start().await, Code::FAILED_PRECONDITION);
    assert!(text.contains("port 4000000"), "{text}");
    assert_eq!(container.exec(["true"]).id("e1").run().await?.status, 0);
    let refused = guest.container("c2").ports([4_000_000, 0, 0]);
    expect_code(refused.try_create().await, Code::FAILED_PRECONDITION);
    assert_eq!(inspector.settled(&before).await?, before);
    guest.container("c2").run().await?;

    let mut stdout = guest.pass().await?;
    let first = container.exec(["cat"]).ports([0, stdout.port, 0]).start().await?;
    let second = container.exec(["cat"]).ports([0, stdout.port, 0]);
    expect_code(second.start().await, Code::FAILED_PRECONDITION);
    expect_code(second.ports([9, 0, 9]).start().await, Code::INVALID_ARGUMENT);
    first.write(b"untouched").await?;
    stdout.read_until("untouched").await?;

    // A process that cannot be started takes its connections with it.
    let mut stdout = guest.pass().await?;
    let missing = container.exec(["/no/such/program"]).ports([0, stdout.port, 0]);
    expect_code(missing.start().await, Code::INVALID_ARGUMENT);
    assert_eq!(stdout.read_to_end().await?, b"");
    Ok(())
}

#[tokio::test]
async fn a_guest_that_takes_no_streams_says_so() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let exec = container.exec(["true"]).ports([0, 77, 0]);
    let text = expect_code(exec.start().await, Code::FAILED_PRECONDITION);
    assert!(text.contains("agent.passfd_listener_port"), "{text}");
    Ok(())
}

#[tokio::test]
async fn passed_streams_leave_nothing_behind() -> Result<()> {
    let (guest, container) = started().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    for number in 0..30 {
        let (mut stdin, mut stdout) = (guest.pass().await?, guest.pass().await?);
        let exec = container.exec(["cat"]).ports([stdin.port, stdout.port, 0]).start().await?;
        stdin.write(b"some").await?;
        drop(stdin);
        assert_eq!(exec.wait().await?, 0);
        if number % 2 == 0 {
            assert_eq!(stdout.read_to_end().await?, b"some");
        }
    }
    let mut forgotten = guest.pass().await?;
    let unclaimed = tokio::time::timeout(Duration::from_secs(120), forgotten.read_to_end()).await;
    assert_eq!(unclaimed.context("an unclaimed connection stays open")??, b"");
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
