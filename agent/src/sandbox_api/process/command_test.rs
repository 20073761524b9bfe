//! Commands that are shells of this host, each with a directory in place of its cgroup.

use super::*;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio as Std;

use futures_util::FutureExt as _;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustjail::cgroup::CgroupPath;

use super::super::registry::{Commands, Selector};
use crate::process::stdio::{Stdio, pipes};

/// A shell whose streams are the command's, in a directory that stands for its cgroup: it dies when somebody writes to the file
/// `cgroup.kill` there.
fn born(dir: &Path, name: &str, script: &str, streams_end: &watch::Receiver<Option<i32>>) -> Born {
    std::fs::create_dir_all(dir.join("c1")).unwrap();
    let container = Arc::new(Cgroup::open(dir, &CgroupPath::parse("c1", "").unwrap()).unwrap());
    let cgroup = Arc::new(container.nest(name).unwrap());
    let kill = dir.join("c1").join(name).join("cgroup.kill");
    std::fs::write(&kill, "").unwrap();
    let (ours, childs) = pipes(0).unwrap();
    let [input, output, errors] =
        childs.borrow().map(|fd| Std::from(fd.unwrap().try_clone_to_owned().unwrap()));
    let mut shell = std::process::Command::new("/bin/sh");
    let mut child = shell.args(["-c", script]).stdin(input).stdout(output).stderr(errors).spawn().unwrap();
    drop((shell, childs));
    let pid = child.id() as i32;
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    assert!(rustjail::pidfd_signal(pidfd.as_fd(), 0).is_ok());
    let (told, exit) = watch::channel(None);
    std::thread::spawn(move || {
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code().unwrap_or(137);
            }
            if std::fs::read_to_string(&kill).is_ok_and(|text| text == "1") {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // As the directory of a cgroup would, it can be removed once nobody is in it.
        std::fs::remove_file(&kill).unwrap();
        told.send_replace(Some(status));
    });
    let stdio = Stdio::of_pipes(ours, streams_end).unwrap();
    let process = Arc::new(Process::new(name.into(), pid, pidfd, exit, stdio));
    process.release_at_exit();
    let executed = tokio::spawn(async { Ok(()) });
    Born { process, pid, cause: Cause::default(), cgroup, container, executed }
}

/// Starts a script as a command.
fn start(commands: &Arc<Commands>, dir: &Path, name: &str, script: &str) -> Arc<Command> {
    let (streams_end, streams) = watch::channel(None);
    let born = born(dir, name, script, &streams);
    let config = Config { cmd: "sh".into(), tag: Some(name.into()), ..Config::default() };
    let (command, running) = Command::new(born, "c1", config, Input::Pipe, commands.held());
    let command = Arc::new(command);
    commands.run(Arc::clone(&command), running, streams_end, Box::new(|| ()));
    command
}

/// All that comes until the end.
async fn all(listening: &Listening) -> (String, Taken<End>) {
    let mut text = String::new();
    loop {
        match listening.next().await {
            Taken::Piece(piece) => text.push_str(std::str::from_utf8(&piece.bytes).unwrap()),
            other => return (text, other),
        }
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn output_without_a_listener_and_the_exit_code_are_kept() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "echo out; exit 7");
    until(|| !command.is_running()).await;
    let tag = Selector::Tag("a".into());
    assert_eq!(commands.find("c1", &tag).err().unwrap().code, Code::NotFound);
    let kept = commands.find_kept("c1", &tag).unwrap();
    assert_eq!(
        all(&kept.listen().unwrap()).await,
        ("out\n".into(), Taken::End(End::Exited { code: 7, is_oom: false }))
    );
    assert_eq!(
        all(&kept.listen().unwrap()).await,
        (String::new(), Taken::End(End::Exited { code: 7, is_oom: false }))
    );
    assert!(commands.find_kept("c2", &tag).is_err(), "it is another container's");
    assert_eq!(commands.held().load(Ordering::Relaxed), 0);
    until(|| !dir.path().join("c1/a").exists()).await;
}

#[tokio::test(start_paused = true)]
async fn an_ended_command_is_forgotten_after_a_while() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "exit 0");
    let selector = Selector::Pid(command.pid);
    drop(all(&command.listen().unwrap()).await);
    assert!(commands.find_kept("c1", &selector).is_ok());
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(commands.find_kept("c1", &selector).is_ok());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let error = commands.find_kept("c1", &selector).err().unwrap();
    assert_eq!(error.message, format!("process with pid {} not found", command.pid));
}

#[tokio::test]
async fn a_child_that_holds_the_pipes_delays_the_end_unless_somebody_kills() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "(sleep 1.5; echo late) & echo soon");
    assert_eq!(all(&command.listen().unwrap()).await.0, "soon\nlate\n");
    let command = start(&commands, dir.path(), "b", "sleep 1000 & echo $!; exec sleep 1000");
    let listening = command.listen().unwrap();
    let Taken::Piece(piece) = listening.next().await else { panic!("no output") };
    command.terminate().unwrap();
    let began = std::time::Instant::now();
    assert!(matches!(all(&listening).await.1, Taken::End(_)));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let orphan: i32 = std::str::from_utf8(&piece.bytes).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(orphan).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_kill_goes_to_the_cgroup_and_the_time_can_be_over() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "exec sleep 1000");
    let listening = command.listen().unwrap();
    command.expire().await;
    assert!(command.is_late() && !command.is_running(), "a kill waits for the end");
    assert!(matches!(all(&listening).await.1, Taken::End(_)));
    assert_eq!(command.terminate().unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn input_goes_where_it_can() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "cat; echo end");
    let listening = command.listen().unwrap();
    // More than a pipe holds, so it is read while it is written.
    let large = vec![b'x'; 300_000];
    command.write(large, Input::Pipe).await.unwrap();
    let wrong = command.write(b"x".to_vec(), Input::Pty).await.unwrap_err();
    assert_eq!(
        (wrong.code, wrong.message.as_str()),
        (Code::Internal, "error writing to tty: tty not assigned to process")
    );
    command.close_stdin().await.unwrap();
    command.close_stdin().await.unwrap();
    let closed = command.write(b"x".to_vec(), Input::Pipe).await.unwrap_err();
    assert_eq!(closed.message, "error writing to stdin: stdin not enabled or closed");
    assert_eq!(all(&listening).await.0.len(), 300_000 + 4);
    assert!(command.resize(1, 1).is_err());
}

#[tokio::test]
async fn a_reader_of_stdin_that_is_gone_is_a_broken_pipe() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "exec 0<&-; echo; sleep 1000");
    drop(command.listen().unwrap().next().await);
    let error = command.write(b"x".to_vec(), Input::Pipe).await.unwrap_err();
    assert!(error.message.ends_with("broken pipe"), "{error}");
    command.kill().await.unwrap();
}

#[tokio::test]
async fn commands_have_a_bound() {
    let commands = Arc::<Commands>::default();
    let place = || commands.place().now_or_never().unwrap();
    let places: Vec<_> = std::iter::from_fn(|| place().ok()).collect();
    assert_eq!(places.len(), 1024);
    let error = place().err().unwrap();
    assert_eq!((error.code, error.message.as_str()), (Code::ResourceExhausted, "1024 processes run already"));
    drop(places);
    assert!(place().is_ok());
}

#[tokio::test]
async fn while_commands_are_frozen_none_starts() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let freeze = |name: &str| dir.path().join("c1").join(name).join("cgroup.freeze");
    let orders = |name: &str| std::fs::read_to_string(freeze(name)).unwrap();
    let command = start(&commands, dir.path(), "a", "exec sleep 1000");
    std::fs::write(freeze("a"), "").unwrap();
    assert_eq!(commands.set_frozen(true).await, Ok(1));
    assert_eq!(orders("a"), "1");
    assert!(tokio::time::timeout(Duration::from_millis(50), commands.place()).await.is_err());
    // One that was waited for in vain is frozen as soon as it is there.
    let (late, listening) = (start(&commands, dir.path(), "b", "exec sleep 1000"), commands.place());
    std::fs::write(freeze("b"), "").unwrap();
    assert_eq!(commands.set_frozen(true).await, Ok(2));
    assert_eq!(orders("b"), "1");
    let (place, thawed) = tokio::join!(listening, commands.set_frozen(false));
    assert_eq!((orders("a"), orders("b"), thawed), ("0".into(), "0".into(), Ok(2)));
    // What is being started is there before all are frozen.
    let place = place.unwrap();
    let mut freezing = std::pin::pin!(commands.set_frozen(true));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut freezing).await.is_err());
    drop(place);
    assert_eq!(freezing.await, Ok(2));
    // The last word counts.
    let both = tokio::join!(commands.set_frozen(true), commands.set_frozen(false));
    assert_eq!((both, orders("a")), ((Ok(2), Ok(2)), "0".into()));
    for command in [command, late] {
        // Orders to the cgroup that this test has made would keep it.
        std::fs::remove_file(freeze(command.config.tag.as_deref().unwrap())).unwrap();
        command.kill().await.unwrap();
    }
}

#[tokio::test]
async fn commands_together_hold_little_each_once_they_hold_much() {
    let (dir, commands) = (tempfile::tempdir().unwrap(), Arc::<Commands>::default());
    let command = start(&commands, dir.path(), "a", "sleep 1000");
    assert_eq!(command.room(), ROOM);
    commands.held().fetch_add(HELD, Ordering::Relaxed);
    let piece = Piece { stream: Stream::Out, bytes: "x".into() };
    command.change(|feed| feed.put(piece, ROOM));
    assert_eq!(command.room(), LITTLE_ROOM);
    command.kill().await.unwrap();
}
