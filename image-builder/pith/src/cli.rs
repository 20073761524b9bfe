//! The command line of `pith`. Calls one function per verb.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::global::Global;
use crate::signals::interruptible;
use crate::{attach, complete, copy, doctor, events, exec, images, life, logs, look, run, stats, vm, volume};

/// Runs containers and pods, each pod in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(
    name = "pith",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an image, or the pod of a manifest, and exit with its status.
    Run(Box<run::RunArgs>),
    /// List pods, or the containers of one pod with their ids.
    Ps(look::PsArgs),
    /// Run another command in a container.
    ///
    /// Signals are passed on to the command. If the command has not ended 5 s after SIGTERM or SIGHUP, or if the guest does
    /// not accept a signal, the signal ends this program.
    Exec(exec::ExecArgs),
    /// Copy files and directories between a container and this host.
    ///
    /// The image needs no program for this. Symbolic links in a tree are copied as links; SRC itself is followed. Modes and
    /// times are kept, except set-user-id and set-group-id bits of files that are copied to this host.
    Cp(Box<copy::CopyArgs>),
    /// Show the output of a container, also after it has ended.
    Logs(logs::LogsArgs),
    /// Connect to the standard input of a container, and show its output.
    ///
    /// Only what the container writes from now on is shown. When the container ends, this program exits with its status. A
    /// signal, or Ctrl-P Ctrl-Q on a terminal, ends only this program.
    Attach(attach::AttachArgs),
    /// Stop pods.
    Stop(look::StopArgs),
    /// Stop a pod if it runs, and start it again with the same arguments.
    Restart(life::RestartArgs),
    /// Wait until pods have ended, and print their exit statuses.
    Wait(life::WaitArgs),
    /// Remove the records and logs of pods that have ended.
    Rm(life::RmArgs),
    /// Freeze the processes of a pod.
    Pause(life::PauseArgs),
    /// Let the processes of a paused pod continue.
    Unpause(life::PauseArgs),
    /// Show the processes of a container.
    Top(life::TopArgs),
    /// Show how much processor, memory, processes and disk containers use.
    Stats(stats::StatsArgs),
    /// Show everything that is known about pods, as JSON.
    Inspect(life::InspectArgs),
    /// Show the events of pods: starts, ends, restarts and more.
    Events(events::EventsArgs),
    /// List the published ports of pods.
    Port(life::PortArgs),
    /// Pull images from registries.
    Pull(images::PullArgs),
    /// List pulled images, and the size of the cache.
    Images(images::ImagesArgs),
    /// Remove pulled images.
    Rmi(images::RmiArgs),
    /// Remove unused images and disks from the cache.
    Prune(images::PruneArgs),
    /// Make the disk of an image, as `run` does, and print its path.
    Image(images::ImageArgs),
    /// List, make, look at and remove volumes with names.
    Volume(volume::VolumeArgs),
    /// Start a guest without a pod.
    ///
    /// It runs in a monitor that is installed on this host. The socket of its agent is printed when the agent answers. The
    /// command ends with the guest; a signal ends both.
    Vm(vm::VmArgs),
    /// Connect to the debug console of a pod's guest. Ctrl-] disconnects.
    Console(exec::ConsoleArgs),
    /// Measure execs in a running pod, and show its sizes and times.
    Timings(look::TimingsArgs),
    /// Show what this host lacks for running pods, and what to type.
    Doctor(doctor::DoctorArgs),
    /// Print a shell script that completes verbs, options, pods, containers and images.
    Completions(complete::CompletionsArgs),
    /// Write manual pages, one for each verb.
    Man(complete::ManArgs),
    /// List what can complete the last word. The completion scripts run this.
    #[command(hide = true)]
    Complete(complete::CompleteArgs),
}

impl Cli {
    /// Understands the arguments of this process.
    ///
    /// # Errors
    /// What is wrong with them, or the help that was asked for.
    pub fn parse_arguments() -> Result<Self, clap::Error> {
        Self::try_parse()
    }

    /// Runs the verb. The future of one that only makes something is dropped on SIGINT or SIGTERM: everything it started and
    /// half wrote goes with it. Others see to signals themselves.
    ///
    /// # Errors
    /// Whatever the verb says.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        let global = &self.global;
        let done = |()| ExitCode::SUCCESS;
        match self.command {
            Command::Run(args) => args.execute(global).await,
            Command::Ps(args) => args.execute(global),
            Command::Exec(args) => args.execute(global).await,
            Command::Cp(args) => args.execute(global).await,
            Command::Logs(args) => args.execute(global).await,
            Command::Attach(args) => args.execute().await,
            Command::Stop(args) => args.execute(global).await,
            Command::Restart(args) => args.execute(global).await,
            Command::Wait(args) => interruptible(args.execute(global)).await,
            Command::Rm(args) => interruptible(args.execute(global)).await,
            Command::Pause(args) => interruptible(args.execute(global, true)).await,
            Command::Unpause(args) => interruptible(args.execute(global, false)).await,
            Command::Top(args) => interruptible(args.execute(global)).await,
            Command::Stats(args) => interruptible(args.execute(global)).await,
            Command::Inspect(args) => args.execute().map(done),
            Command::Events(args) => interruptible(args.execute(global)).await,
            Command::Port(args) => args.execute(global).map(done),
            Command::Pull(args) => interruptible(args.execute(global)).await,
            Command::Images(args) => args.execute(global).map(done),
            Command::Rmi(args) => args.execute(global).map(done),
            Command::Prune(args) => args.execute(global).map(done),
            Command::Image(args) => args.execute(global),
            Command::Volume(args) => args.execute(global).map(done),
            Command::Vm(args) => args.execute(global).await,
            Command::Console(args) => args.execute().await,
            Command::Timings(args) => args.execute(global).await,
            Command::Doctor(args) => args.execute(global),
            Command::Completions(args) => args.execute(global).map(done),
            Command::Man(args) => args.execute(Self::command(), global).map(done),
            Command::Complete(args) => args.execute(Self::command(), global).map(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_list_of_verbs_has_a_line_for_each() {
        let mut cli = Cli::command();
        cli.build();
        let help = cli.render_help().to_string();
        for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.chars().count() <= 80 && !about.contains('\n'), "{}: {about}", verb.get_name());
            assert!(help.lines().any(|line| line.trim().ends_with(&about)), "{}: {help}", verb.get_name());
        }
    }

    #[test]
    fn global_options_stand_apart_in_every_help() {
        let mut cli = Cli::command();
        cli.build();
        for verb in cli.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let help = verb.clone().render_long_help().to_string();
            let (before, global) = help.split_once("Global options:").unwrap_or_else(|| panic!("{help}"));
            assert!(!before.contains("--json") && global.contains("--json"), "{}: {help}", verb.get_name());
        }
    }

    #[test]
    fn options_behind_the_image_are_the_commands() {
        let parse = |words: &[&str]| Cli::try_parse_from(["pith"].iter().chain(words));
        assert!(parse(&["run", "--rm", "-it", "nginx", "sh", "-c", "--rm -x"]).is_ok());
        assert!(parse(&["run", "nginx", "-x", "--json"]).is_ok());
        assert!(parse(&["run", "-f", "pod.yaml"]).is_ok());
        assert!(parse(&["run"]).is_err());
        assert!(parse(&["run", "-f", "pod.yaml", "nginx"]).is_err());
    }
}
