//! Streams under stress, by calls: floods, early ends, slow and several readers. Nothing is lost, nothing hangs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{Code, Container, Finished, Guest, Running, expect_code, refusal};

/// Bytes that differ from their neighbours, so that a loss or a swap shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect()
}

/// Does something in a pod, and asks the agent meanwhile whether it lives.
async fn checked(work: impl AsyncFnOnce(&Guest) -> Result<()>) -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let checks = guest.checks().await?;
    checks.during("the flood", work(&guest)).await.map(drop)
}

/// The same with a running container.
async fn flood(work: impl AsyncFnOnce(&Guest, Container) -> Result<()>) -> Result<()> {
    checked(async |guest| {
        let container = guest.container("c1").run().await?;
        work(guest, container).await
    })
    .await
}

/// Gives up on what hangs, so that the test says what it was. Beside compilers, a guest takes a minute for what it has to
/// do in some seconds.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    let limited = tokio::time::timeout(Duration::from_secs(300), work).await;
    limited.map_err(|_| anyhow::anyhow!("hangs: {what}"))
}

#[tokio::test]
async fn sixty_four_mebibytes_of_a_process_that_ends_at_once_are_complete() -> Result<()> {
    flood(async |_, container| {
        let part = pattern(8 << 20);
        container.exec(["sh", "-c", "cat > /part"]).stdin(part.clone()).run().await?.success()?;
        let script = "cat /part /part /part /part /part /part /part /part; exit 9";
        let Finished { status, stdout, stderr } = container.exec(["sh", "-c", script]).run().await?;
        assert_eq!((status, stdout.len(), stderr.len()), (9, 64 << 20, 0));
        assert!(stdout.chunks(part.len()).all(|chunk| chunk == part), "the bytes differ");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stdout_and_stderr_flood_independently() -> Result<()> {
    flood(async |_, container| {
        let part = pattern(4 << 20);
        container.exec(["sh", "-c", "cat > /part"]).stdin(part.clone()).run().await?.success()?;
        let exec = container.exec(["sh", "-c", "cat /part & cat /part >&2; wait"]).start().await?;
        // All of one while the other is full, then the other.
        let mut stderr = Vec::new();
        while stderr.len() < part.len() {
            let chunk = soon("stderr while nobody reads stdout", exec.read_stderr(32 * 1024)).await??;
            ensure!(!chunk.is_empty(), "stderr ended after {} bytes", stderr.len());
            stderr.extend(chunk);
        }
        assert!(stderr == part, "stderr differs");
        let finished = exec.finish().await?;
        assert!(
            (finished.status, finished.stderr.len()) == (0, 0) && finished.stdout == part,
            "stdout differs"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn all_byte_values_pass_both_ways_in_odd_pieces() -> Result<()> {
    flood(async |_, container| {
        let cat = container.exec(["cat"]).start().await?;
        let data: Vec<u8> = (0..=255).cycle().take(70_001).collect();
        let writer = cat.clone();
        let sent = data.clone();
        let feeder = tokio::spawn(async move {
            for piece in sent.chunks(997) {
                writer.write(piece).await?;
            }
            writer.close_stdin().await
        });
        let mut back = Vec::new();
        loop {
            let piece = cat.read(13).await?;
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() <= 13);
            back.extend(piece);
        }
        feeder.await??;
        assert!(back == data, "the bytes differ");
        assert_eq!(cat.wait().await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() -> Result<()> {
    flood(async |_, container| {
        let exec = container.exec(["head", "-c", "600000", "/dev/zero"]).start().await?;
        let mut all = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            match exec.read(32 * 1024).await?.len() {
                0 => break,
                count => all += count,
            }
        }
        assert_eq!((all, exec.wait().await?), (600_000, 0));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn several_readers_of_one_stream_share_it_and_all_see_its_end() -> Result<()> {
    flood(async |guest, container| {
        let exec = container.exec(["seq", "1", "40000"]).start().await?;
        let mut readers = Vec::new();
        for _ in 0..5 {
            let reader = exec.over(&guest.vm().client().await?);
            readers.push(tokio::spawn(async move {
                let mut all = Vec::new();
                loop {
                    let piece = reader.read(4096).await?;
                    if piece.is_empty() {
                        return anyhow::Ok(all);
                    }
                    all.extend(piece);
                }
            }));
        }
        let mut bytes = Vec::new();
        for reader in readers {
            bytes.extend(soon("a reader among several", reader).await???);
        }
        let mut expected: Vec<u8> = (1..=40_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        // Who got what is open; that each byte came once is not.
        bytes.sort_unstable();
        expected.sort_unstable();
        assert!(bytes == expected, "{} bytes of {}", bytes.len(), expected.len());
        assert_eq!(exec.wait().await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_that_closes_stdin_makes_writes_fail_and_lives_on() -> Result<()> {
    flood(async |_, container| {
        let script = "exec <&-; echo closed; sleep 1; echo lives; exit 4";
        let exec = container.exec(["sh", "-c", script]).start().await?;
        exec.read_until("closed\n").await?;
        for _ in 0..3 {
            let refused = soon("a write to a closed stdin", exec.write(b"for nobody")).await?;
            let text = expect_code(refused, Code::FAILED_PRECONDITION);
            assert_eq!(text, "stdin is closed");
        }
        soon("closing a closed stdin", exec.close_stdin()).await??;
        let finished = exec.finish().await?;
        assert_eq!((finished.status, finished.stdout.as_slice()), (4, &b"lives\n"[..]));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_write_that_waits_for_a_reader_ends_when_the_process_does() -> Result<()> {
    flood(async |_, container| {
        for end in ["exec <&-; sleep 1000", "exit 3"] {
            let exec = container.exec(["sh", "-c", &format!("sleep 2; {end}")]).start().await?;
            let big = vec![7; 1 << 20];
            let (code, text) = refusal(soon("a write that nobody reads", exec.write(&big)).await?);
            assert_eq!((code, text.as_str()), (Code::FAILED_PRECONDITION, "stdin is closed"), "{end}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stdin_closed_by_the_host_comes_after_what_was_written() -> Result<()> {
    flood(async |_, container| {
        // Nobody reads for a while, so the write is still under way when stdin is closed.
        let exec = container.exec(["sh", "-c", "sleep 1; wc -c"]).start().await?;
        let writer = exec.clone();
        let write = tokio::spawn(async move { writer.write(&vec![1; 300_000]).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        exec.close_stdin().await?;
        exec.close_stdin().await?;
        assert_eq!(write.await??, 300_000);
        expect_code(exec.write(b"late").await, Code::FAILED_PRECONDITION);
        let finished = exec.finish().await?;
        assert_eq!((finished.status, finished.stdout.as_slice()), (0, &b"300000\n"[..]));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn late_data_of_a_grandchild_still_comes_and_the_end_too() -> Result<()> {
    flood(async |_, container| {
        let script = "(sleep 0.2; echo late; sleep 1000) & echo now";
        let finished =
            soon("an exec with a grandchild", container.exec(["sh", "-c", script]).run()).await??;
        assert_eq!((finished.status, finished.stdout.as_slice()), (0, &b"now\nlate\n"[..]));
        Ok(())
    })
    .await
}

/// Reads and waits that were issued, each in a task of its own.
fn issue(process: &Running) -> [tokio::task::JoinHandle<ttrpc::Result<Vec<u8>>>; 3] {
    let [one, two, three] = [process.clone(), process.clone(), process.clone()];
    [
        tokio::spawn(async move { one.read(100).await }),
        tokio::spawn(async move { two.read_stderr(100).await }),
        tokio::spawn(async move { three.wait().await.map(|status| status.to_string().into_bytes()) }),
    ]
}

#[tokio::test]
async fn reads_and_waits_before_the_start_deliver_after_it() -> Result<()> {
    checked(async |guest| {
        let container = guest.container("c1").script("echo out; echo err >&2; exit 6").create().await?;
        let calls = issue(&container.init());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(calls.iter().all(|call| !call.is_finished()), "an answer came before the start");
        container.start().await?;
        let mut answers = Vec::new();
        for call in calls {
            answers.push(soon("a call from before the start", call).await???);
        }
        assert_eq!(answers, [b"out\n".to_vec(), b"err\n".to_vec(), b"6".to_vec()]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_removal_ends_reads_and_waits() -> Result<()> {
    checked(async |guest| {
        for is_started in [true, false] {
            let container = guest.container("c1").create().await?;
            if is_started {
                container.start().await?;
            }
            let calls = issue(&container.init());
            tokio::time::sleep(Duration::from_millis(300)).await;
            container.remove().await?;
            for (call, is_read) in calls.into_iter().zip([true, true, false]) {
                let answer = soon("a call on a removed container", call).await??;
                if is_read {
                    assert_eq!(answer.ok().as_deref(), Some(&b""[..]), "started {is_started}");
                } else {
                    assert_eq!(answer.ok().as_deref(), Some(&b"137"[..]), "started {is_started}");
                }
            }
        }
        Ok(())
    })
    .await
}
