//! Runs the hooks that belong into the container's own namespaces.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Step, fail, refuse};
use crate::plan::{HookPlan, InnerHooks};
use crate::start::message::Failure;

/// The most of a failed hook's words that is passed on, in bytes.
const MOST_WORDS: u64 = 4096;

/// Runs hooks one after the other; the first that fails ends it. `point` is their name in the spec; `pid` is the
/// container's first process, as they see it.
pub(super) fn run(hooks: &[HookPlan], state: &InnerHooks, point: &str, status: &str, pid: i32) -> Step<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let mut told: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&state.state)
        .map_err(|error| fail("tell hooks the state", std::io::Error::from(error)))?;
    told.insert("status".into(), status.into());
    told.insert("pid".into(), pid.into());
    let told = serde_json::Value::Object(told).to_string();
    hooks.iter().try_for_each(|hook| run_one(hook, point, told.as_bytes()))
}

fn run_one(hook: &HookPlan, point: &str, state: &[u8]) -> Step<()> {
    let step = || format!("run the {point} hook {}", hook.path);
    let failed = |reason: String| Failure { step: step(), reason, errno: None, invalid: false };
    let io = |error: std::io::Error| fail(step(), error);
    // Files, not pipes: nobody has to read or write while it runs.
    let memory = |name: &str| -> Step<File> {
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|errno| fail(step(), errno))
    };
    let mut stdin = memory("state")?;
    stdin.write_all(state).and_then(|()| stdin.rewind()).map_err(io)?;
    let mut words = memory("words")?;
    let mut command = Command::new(&hook.path);
    if let [name, rest @ ..] = hook.args.as_slice() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(stdin).stdout(Stdio::null()).stderr(words.try_clone().map_err(io)?);
    let mut child = command.spawn().map_err(|error| refuse(step(), error))?;
    if let Some(seconds) = hook.timeout
        && !ends_within(child.id(), seconds).map_err(|errno| fail(step(), errno))?
    {
        child.kill().and_then(|()| child.wait()).map_err(io)?;
        return Err(failed(format!("it took longer than {seconds} s")));
    }
    let status = child.wait().map_err(io)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    // What it said is for people only.
    if words.rewind().is_ok() {
        drop((&words).take(MOST_WORDS).read_to_string(&mut said));
    }
    let said = said.trim();
    Err(failed(format!("{status}{}{said}", if said.is_empty() { "" } else { ": " })))
}

fn ends_within(pid: u32, seconds: u64) -> rustix::io::Result<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    Ok(poll(&mut ended, Some(&timeout))? > 0)
}
