//! Command-line types and the dispatch from them to the library.
//!
//! One file per family: `kernel`, `agent`, `initrd` and `build` make products, `artifact` moves them, `run`
//! has everything that talks to a running pod. Must never decide anything that a library user would have to decide again.

mod artifact;
mod bootchart;
mod build;
mod deploy;
mod disk;
mod inspect;
mod kernel;
mod run;
mod sbom;
mod shell;
mod size;
mod uki;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use image_builder::cache::Cache;
use image_builder::layout::Layout;
use image_builder::progress::Progress;
use image_builder::text;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long work may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Builds what a VM boots (kernel, initrd with the agent), and boots it.
#[derive(Debug, Parser)]
#[command(name = "image-builder", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command understands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print results as JSON on standard output; progress becomes silent.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The source tree [default: the nearest directory upwards that has kernel-config/kernel.toml].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where products go [default: ROOT/out].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the guest kernel, or check its configuration.
    #[command(subcommand)]
    Kernel(kernel::Command),
    /// Build the static agent binary.
    Agent(build::AgentArgs),
    /// Build other static programs of the workspace, such as the OCI runner `jail`.
    Program(build::ProgramArgs),
    /// Pack the agent into an initrd.
    Initrd(build::InitrdArgs),
    /// Pack a flavour into a disk, with hashes that the guest checks (dm-verity).
    Disk(disk::DiskArgs),
    /// Put kernel, command line and initrd into one program that EFI firmware starts.
    Uki(uki::UkiArgs),
    /// Build everything: kernel, agent and initrd.
    Build(build::BuildArgs),
    /// Build the products of a directory again and compare them byte for byte; exit status 1 when one differs.
    Verify(verify::VerifyArgs),
    /// Write everything that was built as an OCI image layout.
    Artifact(artifact::ArtifactArgs),
    /// Upload everything that was built to an OCI registry.
    Push(artifact::PushArgs),
    /// Fetch what was pushed into the product directory, verified by digest.
    Pull(artifact::PullArgs),
    /// Show what is in an initrd, a disk or a unified kernel image, with sizes.
    Inspect(inspect::InspectArgs),
    /// Show what takes the room in an initrd, a disk or a unified kernel image, also as a treemap.
    Size(size::SizeArgs),
    /// Boot a guest and show where the time goes, also as a picture.
    Bootchart(bootchart::BootchartArgs),
    /// List what everything that was built is made of (SPDX), in out/sbom.spdx.json.
    Sbom(sbom::SbomArgs),
    /// Install the guest for the shims of Kata Containers, beside their own.
    Install(deploy::InstallArgs),
    /// Print how Firecracker or Cloud Hypervisor boots what was built.
    VmConfig(deploy::VmConfigArgs),
    #[command(flatten)]
    Pod(run::Command),
    /// Print the script that completes commands and options in a shell.
    Completions(shell::CompletionsArgs),
    /// Write manual pages, one for each command.
    Man(shell::ManArgs),
}

impl Cli {
    /// Runs the command. The future of a build command is dropped on SIGINT or SIGTERM: everything it started and
    /// half wrote goes with it. Pod commands see to signals themselves, since a pod wants to be stopped in order.
    pub(crate) async fn execute(self) -> anyhow::Result<ExitCode> {
        let global = self.global;
        match self.command {
            Command::Kernel(command) => interruptible(command.execute(&global)).await,
            Command::Agent(args) => interruptible(args.execute(&global)).await,
            Command::Program(args) => interruptible(args.execute(&global)).await,
            Command::Initrd(args) => interruptible(args.execute(&global)).await,
            Command::Disk(args) => interruptible(args.execute(&global)).await,
            Command::Uki(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Build(args) => interruptible(args.execute(&global)).await,
            Command::Verify(args) => interruptible_with(args.execute(&global)).await,
            Command::Artifact(args) => interruptible(args.execute(&global)).await,
            Command::Push(args) => interruptible(args.execute(&global)).await,
            Command::Pull(args) => interruptible(args.execute(&global)).await,
            Command::Bootchart(args) => interruptible(args.execute(&global)).await,
            Command::Sbom(args) => interruptible(args.execute(&global)).await,
            Command::Inspect(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Size(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Install(args) => interruptible(args.execute(&global)).await,
            Command::VmConfig(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Completions(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Pod(command) => command.execute(&global).await,
        }
    }
}

impl Global {
    /// The source tree and product directory these options name.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => {
                Layout::find_root(&std::env::current_dir().context("cannot read the working directory")?)?
            }
        };
        Ok(Layout::new(root, self.out.clone()))
    }

    /// The product directory. One that is named needs no source tree around it.
    pub(crate) fn products(&self) -> anyhow::Result<Layout> {
        match &self.out {
            Some(out) => Ok(Layout::new(self.root.clone().unwrap_or_else(|| out.clone()), Some(out.clone()))),
            None => self.layout().context("no product directory: name one with --out"),
        }
    }

    /// The cache directory of this user.
    pub(crate) fn cache(&self) -> anyhow::Result<Cache> {
        let note = |note: &str| eprintln!("image-builder: {}", text::lines(note));
        Ok(Cache::locate(|name| std::env::var_os(name))?.with_notes(note))
    }

    /// How to show progress, given `--json` and where standard error goes.
    pub(crate) fn progress(&self) -> Progress {
        Progress::detect(self.json)
    }

    /// Prints a result: as JSON with `--json`, else as `words`. A closed pipe is not an error of ours.
    pub(crate) fn print<T: serde::Serialize>(
        &self,
        value: &T,
        words: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        // What is printed may quote anything: names in an image, answers of a registry.
        let mut line = if self.json {
            text::json(&serde_json::to_string_pretty(value)?).into_owned()
        } else {
            text::lines(&words()).into_owned()
        };
        line.push('\n');
        match std::io::stdout().lock().write_all(line.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            _ => Ok(()),
        }
    }
}

/// Runs `work` until it ends or a signal asks for the end; then `work` is dropped, which undoes it, and the exit
/// status is the shell's for that signal.
async fn interruptible(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    interruptible_with(async { work.await.map(|()| ExitCode::SUCCESS) }).await
}

/// As [`interruptible`], where the work decides the exit status.
async fn interruptible_with(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let mut asked = End::listen()?;
    // Dropped with this scope, and the task with it.
    let mut insists = tokio::task::JoinSet::new();
    insists.spawn(insist(End::listen()?));
    let number = tokio::select! {
        result = work => return result,
        number = asked.next() => number,
    };
    eprintln!("image-builder: stopped by signal {number}; nothing was left behind");
    Ok(ExitCode::from(128 + number))
}

/// Ends this process when work that is told to stop does not: it may stand in a write to a pipe that nobody reads. What it
/// leaves behind then is tidied up by a later command.
async fn insist(mut asked: End) {
    asked.next().await;
    // A second signal is a word, too.
    drop(tokio::time::timeout(PATIENCE, asked.next()).await);
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
}

/// Signals that ask a command to end.
struct End([Signal; 3]);

impl End {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            _ = hangup.recv() => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn work_that_ends_decides_the_exit_status() {
        assert_eq!(interruptible(async { Ok(()) }).await.unwrap(), ExitCode::SUCCESS);
        let error = interruptible(async { anyhow::bail!("no") }).await.unwrap_err();
        assert_eq!(error.to_string(), "no");
    }

    #[tokio::test]
    async fn a_signal_drops_the_work_and_is_the_exit_status() {
        struct Undo(std::rc::Rc<std::cell::Cell<bool>>);
        impl Drop for Undo {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let undone = std::rc::Rc::new(std::cell::Cell::new(false));
        let undo = Undo(undone.clone());
        let code = interruptible(async move {
            let _undo = undo;
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
            std::future::pending().await
        });
        assert_eq!(code.await.unwrap(), ExitCode::from(143));
        assert!(undone.get());
    }
}
