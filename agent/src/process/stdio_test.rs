//! Streams over real pipes, without processes.

use super::*;
use crate::error::{ErrorKind, Kind as _};
use crate::process::output::QUIET;
use std::time::Duration;

fn alive() -> (watch::Sender<Option<i32>>, watch::Receiver<Option<i32>>) {
    watch::channel(None)
}

async fn read_all(stdio: &Stdio, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let part = stdio.read_stdout(most).await;
        assert!(part.len() <= most);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

#[tokio::test]
async fn all_bytes_arrive_in_order_however_small_the_reads() {
    let (_exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let data: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    let expected = data.clone();
    let writer = std::thread::spawn(move || {
        use std::io::Write as _;
        let [_, stdout, _] = child.0;
        std::fs::File::from(stdout.unwrap()).write_all(&data).unwrap();
    });
    assert!(read_all(&stdio, 1000).await == expected);
    writer.join().unwrap();
}

#[tokio::test]
async fn a_pipe_that_a_grandchild_holds_ends_after_the_process_and_keeps_its_data() {
    let (exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    rustix::io::write(child.0[1].as_ref().unwrap(), b"last words").unwrap();
    exit.send_replace(Some(0));
    assert_eq!(read_all(&stdio, 100).await, b"last words");
}

#[tokio::test]
async fn nobody_reads_and_the_pipe_is_closed_all_the_same() {
    let (exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let [_, stdout, _] = child.0;
    let stdout = stdout.unwrap();
    rustix::io::write(&stdout, b"unread").unwrap();
    exit.send_replace(Some(0));
    let closed = async {
        while rustix::io::write(&stdout, b"").is_ok() && !is_broken(&stdout) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the agent's end stays open");
    assert_eq!(read_all(&stdio, 100).await, b"unread");
}

fn is_broken(fd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::OUT)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&now)).unwrap();
    poll[0].revents().contains(rustix::event::PollFlags::ERR)
}

#[tokio::test]
async fn input_is_written_to_the_end_and_then_closed() {
    let (_exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let data = vec![7u8; 300_000];
    let reader = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let [stdin, _, _] = child.0;
        let mut all = Vec::new();
        std::fs::File::from(stdin.unwrap()).read_to_end(&mut all).unwrap();
        all
    });
    stdio.write(data.clone()).await.unwrap();
    stdio.close_stdin().await;
    assert!(reader.await.unwrap() == data);
    assert!(matches!(stdio.write(vec![1]).await, Err(StreamError::Closed)));
}

#[tokio::test]
async fn a_write_that_nobody_reads_ends_with_the_process() {
    let (exit, watcher) = alive();
    let (ours, _child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let write = stdio.write(vec![0; 1 << 20]);
    let end = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        exit.send_replace(Some(0));
    };
    let (result, ()) = tokio::join!(write, end);
    assert!(matches!(result, Err(StreamError::Closed)));
}

#[tokio::test]
async fn resize_without_a_terminal_is_unavailable() {
    let (_exit, watcher) = alive();
    let (ours, _child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let error = stdio.resize(1, 1).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Busy, "no tty"));
}

#[tokio::test]
async fn a_process_whose_end_will_never_be_known_is_not_watched_for_ever() {
    let (exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    rustix::io::write(child.0[1].as_ref().unwrap(), b"last words").unwrap();
    drop(exit);
    assert_eq!(read_all(&stdio, 100).await, b"last words");
    assert!(matches!(stdio.write(vec![1]).await, Err(StreamError::Closed)));
}

#[tokio::test]
async fn a_process_that_closed_stdin_makes_writes_fail_clearly() {
    let (_exit, watcher) = alive();
    let (ours, child) = pipes(0).unwrap();
    let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
    let [stdin, ..] = child.0;
    drop(stdin);
    for _ in 0..2 {
        let error = stdio.write(vec![1]).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::State, "stdin is closed"));
    }
}

#[tokio::test]
async fn a_write_that_was_read_is_written_though_its_reader_has_ended() {
    // The order of the runtime's tasks decides, so often enough for each of them.
    for _ in 0..200 {
        let (exit, watcher) = alive();
        let (ours, child) = pipes(0).unwrap();
        let stdio = Stdio::of_pipes(ours, &watcher).unwrap();
        let process = async {
            let stdin = reader(child.0[0].as_ref().unwrap().try_clone().unwrap()).unwrap();
            let mut line = [0; 16];
            let count = loop {
                match stdin.try_read(&mut line) {
                    Ok(count) => break count,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            exit.send_replace(Some(5));
            count
        };
        let (written, read) = tokio::join!(stdio.write(b"line\n".to_vec()), process);
        assert_eq!(read, 5);
        written.unwrap();
    }
}

#[tokio::test]
async fn any_pipe_size_that_is_asked_for_becomes_one_that_is_possible() {
    // runtime-rs sends agent.container_pipe_size=1 unless told otherwise.
    for asked in [1_usize, 5000, 70_000, 1 << 20] {
        let (ours, _child) = pipes(asked).unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(ours.stdout.as_ref().unwrap()).unwrap();
        // Of whatever size the pages are.
        assert_eq!(size, asked.next_power_of_two().max(rustix::param::page_size()), "{asked}");
    }
    for (asked, had) in [(0, 0), (1, 1), (1 << 20, 1 << 20), (i32::MAX as u32, 0)] {
        assert_eq!(possible_size(asked), had);
    }
}

/// An ended process that has written so much to stdout, and nobody has read it.
fn left(unread: &Arc<Unread>, bytes: usize) -> Stdio {
    let (exit, watcher) = alive();
    let (ours, child) = pipes(1 << 20).unwrap();
    let stdio = Stdio::start(Ends::Pipes(ours), Claimed::default(), &watcher, unread).unwrap();
    let stdout = child.0[1].as_ref().unwrap();
    assert_eq!(rustix::io::write(stdout, &vec![7; bytes]).unwrap(), bytes);
    exit.send_replace(Some(0));
    stdio
}

#[tokio::test]
async fn what_ended_processes_left_has_a_bound_and_the_oldest_goes_first() {
    const BYTES: usize = 120_000;
    let unread = Arc::new(Unread::default());
    let mut processes = Vec::new();
    for _ in 0..100 {
        processes.push(left(&unread, BYTES));
        // As they would come: each has been taken in before the next.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(QUIET * 2).await;
    let mut kept = Vec::new();
    for stdio in &processes {
        kept.push(read_all(stdio, 1 << 20).await.len());
    }
    let total: usize = kept.iter().sum();
    assert!(total <= 4 << 20, "{total} bytes are held");
    assert!(total > 3 << 20, "only {total} bytes are kept");
    assert_eq!(kept[0], 0, "the oldest is held");
    assert_eq!(kept[99], BYTES, "the newest is not");
    assert!(kept.is_sorted(), "{kept:?}");
    // And room comes back.
    assert_eq!(read_all(&left(&unread, BYTES), 1 << 20).await.len(), BYTES);
}

#[tokio::test]
async fn living_processes_that_nobody_reads_hold_less_the_more_they_are() {
    let unread = Arc::new(Unread::default());
    let mut all = Vec::new();
    for _ in 0..200 {
        let (exit, watcher) = alive();
        let (ours, child) = pipes(1 << 20).unwrap();
        let stdio = Stdio::start(Ends::Pipes(ours), Claimed::default(), &watcher, &unread).unwrap();
        rustix::io::write(child.0[1].as_ref().unwrap(), &[7; 200_000]).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        all.push((exit, child, stdio));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let held: usize = all
        .iter()
        .map(|(_, _, stdio)| match &stdio.stdout {
            Outlet::Calls(output) => output.held().bytes.len(),
            Outlet::Passed(_) => 0,
        })
        .sum();
    assert!(held < 20 << 20, "{held} bytes are held");
    // Nothing is lost.
    for (exit, child, stdio) in all {
        drop(child);
        assert_eq!(read_all(&stdio, 1 << 20).await.len(), 200_000);
        drop(exit);
    }
}
