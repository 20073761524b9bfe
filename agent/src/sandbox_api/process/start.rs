//! From what Start asks for to a process in a container.

use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{BoxBuilder, Process, User};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustjail::start::StartError;
use sandbox_api::connect::{Code, Error, Message, too_late};
use tokio::sync::{oneshot, watch};

use super::super::answer;
use super::super::place::place;
use super::super::rooted::Root;
use super::super::sandbox::{Caller, Sandbox};
use super::super::task;
use super::command::{Command, Config, Input, Listening, tidy};
use super::registry::{Commands, Place};
use crate::container::{Apart, Born, ContainerError, ExecRequest, UserNames};
use crate::error::{ErrorKind, Kind as _, chain};
use crate::process::passfd::Ports;

/// What the search for programs begins with, where the container says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The shell that the SDKs ask for, and the one that is there in its place.
const SHELL: (&str, &str) = ("/bin/bash", "/bin/sh");
/// How much sooner than others of its container the kernel takes a command when memory runs out, as envd has it.
const OOM_ADJUST: i32 = 100;
/// How long a start waits behind others of its container.
const QUEUEING: Duration = Duration::from_secs(30);
/// How often it asks meanwhile.
const ASK: Duration = Duration::from_millis(20);
/// How long to wait for a program to execute that its container holds.
const EXECUTING: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// The command.
    pub(super) config: Config,
    /// Rows and columns of its terminal, if it is to have one.
    pub(super) pty: Option<(u16, u16)>,
    /// Whether its input is open.
    pub(super) stdin: bool,
}

impl Asked {
    /// Reads a StartRequest.
    ///
    /// # Errors
    /// `invalid_argument`.
    pub(super) fn parse(message: &Message) -> Result<Asked, Error> {
        let process = message.optional_message("process")?.unwrap_or_default();
        let config = Config {
            cmd: process.string("cmd")?.to_owned(),
            args: process.strings("args")?,
            envs: process.string_map("envs")?,
            cwd: process.optional_string("cwd")?.map(str::to_owned),
            tag: message.optional_string("tag")?.map(str::to_owned),
        };
        if config.cmd.is_empty() {
            return Err(Error::invalid("error starting process '': no command is given"));
        }
        let pty = message.optional_message("pty")?.map(|pty| size(&pty)).transpose()?;
        // What is absent is true, so that old clients have an input.
        let stdin = message.optional_bool("stdin")?.unwrap_or(true);
        Ok(Asked { config, pty, stdin })
    }

    fn input(&self) -> Input {
        match (self.pty, self.stdin) {
            (Some(_), _) => Input::Pty,
            (None, true) => Input::Pipe,
            (None, false) => Input::Closed,
        }
    }
}

/// Rows and columns of a terminal.
///
/// # Errors
/// `invalid_argument` for more than 65535.
pub(super) fn size(pty: &Message) -> Result<(u16, u16), Error> {
    let size = pty.optional_message("size")?.unwrap_or_default();
    let cells = |name: &str| {
        u16::try_from(size.uint32(name)?).map_err(|_| Error::invalid(format!("{name} is more than 65535")))
    };
    Ok((cells("rows")?, cells("cols")?))
}

/// Variables, of which later ones win, in the order in which they came first.
fn merge(groups: &[&[(String, String)]]) -> Vec<String> {
    let mut merged: Vec<(&str, &str)> = Vec::new();
    for (name, value) in groups.iter().flat_map(|group| group.iter()) {
        match merged.iter_mut().find(|(other, _)| *other == name) {
            Some(place) => place.1 = value,
            None => merged.push((name, value)),
        }
    }
    merged.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Where a command begins.
fn directory(caller: &Caller, root: &Root, asked: Option<&str>) -> Result<String, Error> {
    let asked = asked.unwrap_or_default();
    let path = caller.path(asked).map_err(Error::invalid)?;
    match root.find(&path, true) {
        Ok(found) if found.kind() == FileType::Directory => Ok(path),
        // Nobody asked for the home, and an image need not have it.
        _ if asked.is_empty() && caller.workdir.is_none() => Ok("/".to_owned()),
        Ok(_) => Err(Error::invalid(format!("cwd '{path}' is not a directory"))),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::invalid(format!("cwd '{path}' does not exist"))),
        Err(errno) => Err(Error::invalid(format!("cwd '{path}' cannot be entered: {errno}"))),
    }
}

/// The process of a command. Blocks.
fn process(caller: &Caller, asked: &Asked, global: &[(String, String)]) -> Result<Process, Error> {
    let account = &caller.account;
    let root = place(caller).0;
    let cwd = directory(caller, &root, asked.config.cwd.as_deref())?;
    // The container's own is the pattern: capabilities, limits and labels are the same.
    let spec = caller.target.container.spec();
    let mut process = spec.as_ref().and_then(|spec| spec.process().clone()).unwrap_or_default();
    let cmd = match asked.config.cmd.as_str() {
        cmd if cmd == SHELL.0 && root.find(cmd, true).is_err() => SHELL.1,
        cmd => cmd,
    };
    let args = std::iter::once(cmd.to_owned()).chain(asked.config.args.iter().cloned()).collect();
    let own = process.env().clone().unwrap_or_default();
    let own: Vec<(String, String)> = own
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let path = [pair("PATH", PATH)];
    let user = [pair("HOME", &account.home), pair("USER", &account.name), pair("LOGNAME", &account.name)];
    let mut numbers = User::default();
    numbers.set_uid(account.uid).set_gid(account.gid).set_additional_gids(Some(account.groups.clone()));
    let adjust = process.oom_score_adj().unwrap_or_default().saturating_add(OOM_ADJUST).min(1000);
    process
        .set_args(Some(args))
        .set_env(Some(merge(&[&path, &own, &user, global, &asked.config.envs])))
        .set_cwd(cwd.into())
        .set_user(numbers)
        .set_oom_score_adj(Some(adjust))
        .set_terminal(Some(asked.pty.is_some()))
        .set_console_size(asked.pty.and_then(|(rows, columns)| {
            // Nothing is left out that it needs.
            BoxBuilder::default().height(rows).width(columns).build().ok()
        }));
    Ok(process)
}

/// Starts a command, and listens to it. It runs when this returns; what was begun is finished by a task of its own, whatever
/// becomes of the caller.
///
/// # Errors
/// `invalid_argument` for what cannot be started, and others.
pub(super) async fn start(
    sandbox: &Arc<Sandbox>,
    caller: Caller,
    asked: Asked,
    limit: Option<Duration>,
) -> Result<Listening, Error> {
    let began = tokio::time::Instant::now();
    let place = sandbox.commands.place();
    let place = match limit {
        Some(limit) => tokio::time::timeout(limit, place).await.unwrap_or_else(|_| Err(too_late()))?,
        None => place.await?,
    };
    let commands = Arc::clone(&sandbox.commands);
    let global = sandbox.global();
    let task = tokio::spawn(async move {
        let listening = begin(&commands, &place, caller, asked, global).await?;
        if let Some(limit) = limit {
            expire(&listening.command, began + limit);
        }
        Ok(listening)
    });
    task.await.unwrap_or_else(|_| Err(Error::internal("starting the process panicked")))
}

/// Kills a command when its time is over.
fn expire(command: &Arc<Command>, at: tokio::time::Instant) {
    let command = Arc::downgrade(command);
    drop(task::spawn(async move {
        tokio::time::sleep_until(at).await;
        if let Some(command) = command.upgrade().filter(|command| command.is_running()) {
            command.expire().await;
        }
    }));
}

async fn begin(
    commands: &Arc<Commands>,
    place: &Place,
    caller: Caller,
    asked: Asked,
    global: Vec<(String, String)>,
) -> Result<Listening, Error> {
    let (caller, asked) = (Arc::new(caller), Arc::new(asked));
    let prepared = task::blocking({
        let (caller, asked) = (Arc::clone(&caller), Arc::clone(&asked));
        move || process(&caller, &asked, &global)
    });
    let process =
        prepared.await.unwrap_or_else(|_| Err(Error::internal("preparing the process panicked")))?;
    let (streams_end, streams) = watch::channel(None);
    let failed = |error: &ContainerError| {
        let text = format!("error starting process '{}': {}", asked.config.cmd, chain(error));
        Error::new(answer::code(error.kind()), text)
    };
    let born = exec(&caller, place, &process, asked.input() == Input::Closed, &streams).await;
    let mut born = born.map_err(|error| failed(&error))?;
    // Its program may not be what the kernel executes, or have too many arguments.
    if let Ok(Ok(Err(StartError::Failed(failure)))) =
        tokio::time::timeout(EXECUTING, &mut born.executed).await
    {
        drop(streams_end);
        drop(task::spawn(tidy(Arc::clone(&born.cgroup))));
        let text = format!("error starting process '{}': {failure}", asked.config.cmd);
        return Err(Error::invalid(text));
    }
    let (container, input) = (caller.target.id(), asked.input());
    let (command, running) = Command::new(born, container, asked.config.clone(), input, commands.held());
    let command = Arc::new(command);
    let listening = command.listen()?;
    // The container's table keeps ended processes for shims, which know nothing of this one.
    let (container, exec_id) = (caller.target.container.clone(), place.exec_id.clone());
    commands.run(command, running, streams_end, Box::new(move || container.forget(&exec_id)));
    Ok(listening)
}

/// Makes the process, once its container has time for it.
async fn exec(
    caller: &Caller,
    place: &Place,
    process: &Process,
    no_input: bool,
    streams_end: &watch::Receiver<Option<i32>>,
) -> Result<Born, ContainerError> {
    let container = &caller.target.container;
    let until = tokio::time::Instant::now() + QUEUEING;
    loop {
        let (sender, born) = oneshot::channel();
        let request = ExecRequest {
            exec_id: place.exec_id.clone(),
            process: process.clone(),
            user: UserNames::default(),
            ports: Ports::default(),
            apart: Some(Apart { no_input, streams_end: streams_end.clone(), born: sender }),
        };
        match container.exec(Box::new(request)).await {
            Ok(()) => return born.await.map_err(|_| ContainerError::Panicked(container.id().clone())),
            Err(error) if error.kind() == ErrorKind::Busy && tokio::time::Instant::now() < until => {
                tokio::time::sleep(ASK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A code for who asks too much of a listener.
pub(super) fn fell_behind() -> Error {
    Error::new(Code::DataLoss, "this stream fell behind the others of its process, and has missed output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Asked, Error> {
        Asked::parse(&Message::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_asked_is_read_with_its_defaults() {
        let plain =
            asked(r#"{"process":{"cmd":"/bin/bash","args":["-l","-c","x"],"envs":{"A":"1"}},"stdin":false}"#);
        let plain = plain.unwrap();
        assert_eq!(plain.config.args, ["-l", "-c", "x"]);
        assert_eq!(plain.config.envs, [("A".to_owned(), "1".to_owned())]);
        assert_eq!((plain.config.cwd.as_deref(), plain.pty, plain.input()), (None, None, Input::Closed));
        assert_eq!(asked(r#"{"process":{"cmd":"x"}}"#).unwrap().input(), Input::Pipe);
        let pty = asked(
            r#"{"process":{"cmd":"x"},"pty":{"size":{"rows":30,"cols":"111"}},"stdin":false,"tag":"t"}"#,
        );
        let pty = pty.unwrap();
        assert_eq!(
            (pty.pty, pty.input(), pty.config.tag.as_deref()),
            (Some((30, 111)), Input::Pty, Some("t"))
        );
        assert!(asked("{}").is_err());
        assert!(asked(r#"{"process":{"cmd":"x"},"pty":{"size":{"rows":65536}}}"#).is_err());
    }

    #[test]
    fn later_variables_win_and_keep_their_places() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (first, second) =
            ([pair("A", "1"), pair("B", "2")], [pair("B", "3"), pair("C", "4"), pair("A", "5")]);
        assert_eq!(merge(&[&first, &second]), ["A=5", "B=3", "C=4"]);
    }
}
