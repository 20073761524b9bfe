//! Hooks that run in the runtime's own namespaces.

use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustjail::plan::HookPlan;
use serde_json::Value;

/// Runs the hooks of one point in their order, with the state on stdin. The first that fails is the error.
pub(crate) fn run(point: &str, hooks: &Option<Vec<Hook>>, state: &Value, bundle: &Path) -> Result<()> {
    for hook in HookPlan::all_of_spec(point, hooks)? {
        run_one(&hook, state, bundle).with_context(|| format!("{point} hook {}", hook.path))?;
    }
    Ok(())
}

fn run_one(hook: &HookPlan, state: &Value, bundle: &Path) -> Result<()> {
    let mut stdin = std::fs::File::from(rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?);
    stdin.write_all(state.to_string().as_bytes())?;
    stdin.rewind()?;
    let mut command = Command::new(&hook.path);
    if let [name, rest @ ..] = hook.args.as_slice() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    // What it says is for whoever runs the container, not part of the container's output.
    let said = std::io::stderr().as_fd().try_clone_to_owned()?;
    let command = command.current_dir(bundle).stdin(stdin).stdout(said);
    let mut child = command.spawn().context("start it")?;
    if let Some(seconds) = hook.timeout
        && !ends_within(&child, seconds)?
    {
        child.kill()?;
        child.wait()?;
        bail!("it took longer than {seconds} s");
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("{status}") }
}

fn ends_within(child: &Child, seconds: u64) -> Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("its pid")?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout))? > 0)
}
