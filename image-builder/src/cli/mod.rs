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
mod inspect;
mod kernel;
mod pod;
mod sbom;
mod shell;
mod size;
mod uki;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pith::global::installed_data;
use pith::signals::{interruptible, interruptible_with};
use store::cache::Cache;
use store::layout::Layout;
use store::progress::Progress;

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
    /// Print results as JSON on standard output, and show no progress.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The source tree [default: the working directory or the nearest one above it with kernel-config/kernel.toml; else the
    /// recipes and fragments that are installed with this program].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The directory for products [default: ROOT/out. Without a source tree: `out` in the working directory, and for commands that
    /// build nothing, the products that `pith doctor` finds].
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
            Command::Completions(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Man(args) => args.execute(&global).map(|()| ExitCode::SUCCESS),
            Command::Pod(command) => command.execute(&global).await,
        }
    }
}

impl Global {
    /// The source tree and product directory these options name. Without a source tree: the recipes that came with the package
    /// of this program, if there are any, and `out` in the working directory.
    pub(crate) fn layout(&self) -> anyhow::Result<Layout> {
        let here = std::env::current_dir().context("cannot read the working directory")?;
        let found = match &self.root {
            Some(root) => Ok(root.clone()),
            None => Layout::find_root(&here),
        };
        match found {
            Ok(root) => Ok(Layout::new(root, self.out.clone())),
            Err(no_tree) => self.installed(&here).ok_or_else(|| no_tree.into()),
        }
    }

    /// What came with the package of this program.
    fn installed(&self, here: &Path) -> Option<Layout> {
        let data = installed_data(&std::env::current_exe().ok()?)?;
        let products = pith::global::Global { json: self.json, out: None }.products().ok()?;
        let out = self.out.clone().unwrap_or_else(|| here.join("out"));
        Some(Layout::installed(data, products.out().to_path_buf(), out))
    }

    /// The product directory. One that is named needs no source tree around it.
    pub(crate) fn products(&self) -> anyhow::Result<Layout> {
        match &self.out {
            Some(out) => Ok(Layout::new(self.root.clone().unwrap_or_else(|| out.clone()), Some(out.clone()))),
            None => match self.layout() {
                Ok(layout) if layout.has_source() => Ok(layout),
                Ok(_) => anyhow::bail!("no product directory: name one with --out"),
                Err(error) => Err(error).context("no product directory: name one with --out"),
            },
        }
    }

    /// Products that are there already: those that are named, those of the source tree, or where `pith` finds them.
    fn found(&self) -> anyhow::Result<Layout> {
        match self.products() {
            Ok(layout) => Ok(layout),
            // Nothing is named, and there is no source tree.
            Err(_) => self.of_pith().products(),
        }
    }

    /// These options as the verbs of `pith` take them. Its source tree's products come first here, as they always did.
    fn of_pith(&self) -> pith::global::Global {
        let out = self.out.clone().or_else(|| self.products().ok().map(|layout| layout.out().to_path_buf()));
        pith::global::Global { json: self.json, out }
    }

    /// The cache directory of this user.
    pub(crate) fn cache(&self) -> anyhow::Result<Cache> {
        self.of_pith().cache()
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
        pith::global::Global { json: self.json, out: None }.print(value, words)
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
