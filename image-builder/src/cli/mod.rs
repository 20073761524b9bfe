//! Command-line types and the dispatch from them to the library.
//!
//! One file per family: `kernel`, `agent`, `initrd` and `build` make products, `artifact` moves them, `pod` has the
//! old names of what is `pith`'s now. Must never decide anything that a library user would have to decide again.

mod artifact;
mod bootchart;
mod build;
mod deploy;
mod disk;
mod dist;
mod global;
mod inspect;
mod kernel;
mod pod;
mod sbom;
mod shell;
mod size;
mod uki;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use global::Global;
use pith::signals::{interruptible, interruptible_with};

/// Builds what a VM boots (kernel, initrd with the agent), and boots it.
#[derive(Debug, Parser)]
#[command(name = "image-builder", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
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
    /// Pack kernel, command line and initrd into one program that EFI firmware starts (UKI).
    Uki(uki::UkiArgs),
    /// Build everything: kernel, agent and initrd.
    Build(build::BuildArgs),
    /// Build the products of a directory again and compare them byte for byte. If one differs, the exit status is 1.
    Verify(verify::VerifyArgs),
    /// Write all built products as an OCI image layout.
    Artifact(artifact::ArtifactArgs),
    /// Upload all built products to an OCI registry.
    Push(artifact::PushArgs),
    /// Download pushed products into the product directory, and verify their digests.
    Pull(artifact::PullArgs),
    /// List the files in an initrd, a disk or a unified kernel image, with sizes.
    Inspect(inspect::InspectArgs),
    /// Show the largest files in an initrd, a disk or a unified kernel image, or draw a treemap.
    Size(size::SizeArgs),
    /// Boot a guest and show where the time goes, or draw it.
    Bootchart(bootchart::BootchartArgs),
    /// Write the components of all built products to out/sbom.spdx.json (SPDX).
    Sbom(sbom::SbomArgs),
    /// Pack a release: a tarball and a Debian package with programs, products and documents, and their checksums. `make dist`
    /// builds what is in it, and runs this.
    Dist(dist::DistArgs),
    /// Install the guest for the shims of Kata Containers, beside Kata's own guest.
    Install(deploy::InstallArgs),
    /// Print a configuration with which Firecracker or Cloud Hypervisor boots the guest.
    VmConfig(deploy::VmConfigArgs),
    #[command(flatten)]
    Pod(pod::Command),
    /// Print a shell script that completes commands and options.
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
            Command::Dist(args) => interruptible(args.execute(&global)).await,
            Command::Inspect(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Size(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Install(args) => interruptible(args.execute(&global)).await,
            Command::VmConfig(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Completions(args) => args.execute(Self::command(), &global).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => args.execute(Self::command(), &global).map(|()| ExitCode::SUCCESS),
            Command::Pod(command) => command.execute(&global).await,
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
}
