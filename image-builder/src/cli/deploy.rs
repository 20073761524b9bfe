//! `image-builder install` and `vm-config`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use products::deploy::kata::base::{KataVersion, Shim};
use products::deploy::kata::host::Wanted;
use products::deploy::kata::{self, Hypervisor};
use products::deploy::vmm::{self, Vmm};
use products::deploy::{How, Kept, Products, Report, Root, RootKind, install, remove};
use products::disk::FileSystem;
use serde::Serialize;
use store::layout::SHIPPED;

use super::global::{ArchArgs, Global};

/// `image-builder install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// Install for the shims of Kata Containers. This is the only target so far.
    #[arg(long, required = true)]
    kata: bool,
    /// The VMM that the shim starts.
    #[arg(long, value_enum, default_value_t)]
    hypervisor: Hypervisor,
    /// The shim [default: the installed one. If both are installed: the Go shim for Kata Containers 3.x, the Rust shim
    /// for 4.x].
    #[arg(long, value_enum)]
    shim: Option<Shim>,
    /// The version of Kata Containers [default: read from a file VERSION, such as /opt/kata/VERSION].
    #[arg(long, value_name = "VERSION")]
    kata_version: Option<KataVersion>,
    /// The shim's program [default: the first containerd-shim-kata-v2 in the usual places].
    #[arg(long, value_name = "FILE")]
    runtime_path: Option<PathBuf>,
    /// The flavour: a recipe in rootfs/flavour.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    /// The form of the guest's root.
    #[arg(long, value_enum, default_value_t)]
    root_as: RootKind,
    /// The file system of a disk's root.
    #[arg(long, value_enum, default_value_t)]
    root_fs: FileSystem,
    /// A word to add to the kernel's command line, after the host's own, such as agent.log=debug. Can be repeated.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// Let the shim pass seccomp profiles to the guest (disable_guest_seccomp = false).
    #[arg(long)]
    guest_seccomp: bool,
    /// The directory for the products and the receipts of installations.
    #[arg(long, default_value = "/opt/pith", value_name = "DIR")]
    prefix: PathBuf,
    /// The directory for the configuration. Each installation needs its own.
    #[arg(long, default_value = "/etc/kata-containers/pith", value_name = "DIR")]
    config: PathBuf,
    /// The host's own configuration [default: the first one for this VMM in the places where Kata Containers and
    /// kata-deploy put it].
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Look for Kata Containers below DIR, as if DIR were /.
    #[arg(long, value_name = "DIR")]
    host: Option<PathBuf>,
    /// The name of the installation, the runtime handler and the RuntimeClass.
    #[arg(long, default_value = "kata-pith", value_name = "NAME")]
    name: String,
    /// Write below DIR, as if DIR were /. For packages.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also replace or remove files of this installation that were changed later. Files of others are never touched.
    #[arg(long)]
    force: bool,
    /// Remove the installation called NAME, as its receipt below the prefix lists it.
    #[arg(long)]
    uninstall: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    name: &'a str,
    dry_run: bool,
    #[serde(flatten)]
    report: &'a Report,
    notes: &'a [String],
}

/// Calls for the end of the work when it is dropped before the work has ended.
struct CallOff(Arc<AtomicBool>);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl InstallArgs {
    /// Runs the command. When the future is dropped, what was done is taken back; the runtime waits for that before it ends.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let call_off = CallOff(Arc::clone(&stop));
        let layout = if self.uninstall { None } else { Some(global.found()?) };
        let (name, config, dry_run, uninstall) =
            (self.name.clone(), self.config.clone(), self.dry_run, self.uninstall);
        let work = tokio::task::spawn_blocking(move || {
            let stop = || stop.load(Ordering::Relaxed);
            let how = How { force: self.force, dry_run: self.dry_run, stop: &stop };
            match layout {
                None => {
                    let report = remove(&Root::new(self.staging), &self.prefix, &self.name, how)?;
                    anyhow::Ok((report, Vec::new()))
                }
                Some(layout) => {
                    let options = self.options();
                    let planned = kata::plan(&Products::of(&layout), &options)?;
                    Ok((install(&planned.plan, how)?, planned.notes))
                }
            }
        });
        let (report, notes) = work.await.context("the installation ended early")??;
        drop(call_off);
        let outcome = Outcome { name: &name, dry_run, report: &report, notes: &notes };
        global.print(&outcome, || {
            let mut lines = lines(&report, dry_run);
            lines.extend(notes.iter().cloned());
            let config = config.display();
            match (uninstall, dry_run) {
                (_, true) => {}
                (true, false) => {
                    lines.push("removed; take the handler out of the container runtime's configuration, too".into());
                }
                (false, false) => lines.push(format!(
                    "\nNext, for containerd 1.x: put {config}/containerd.toml into /etc/containerd/config.toml. For 2.x: \
                     name {config}/containerd-v3.toml in its imports. For CRI-O: copy {config}/crio.conf to \
                     /etc/crio/crio.conf.d/50-{name}.conf. Restart it; kubectl apply -f {config}/runtimeclass.yaml; give pods \
                     runtimeClassName: {name}. The way back: the same --prefix and --name with --uninstall."
                )),
            }
            lines.join("\n")
        })
    }

    fn options(self) -> kata::Options {
        kata::Options {
            hypervisor: self.hypervisor,
            flavour: self.flavour,
            root: self.root_as,
            root_fs: self.root_fs,
            kernel_params: self.append,
            guest_seccomp: self.guest_seccomp,
            prefix: self.prefix,
            config: self.config,
            wanted: Wanted {
                base: self.base,
                shim: self.shim,
                program: self.runtime_path,
                version: self.kata_version,
                host: Root::new(self.host),
            },
            staging: self.staging,
            name: self.name,
        }
    }
}

/// One line for each file.
fn lines(report: &Report, dry_run: bool) -> Vec<String> {
    let will = |done: &str, would: &str| if dry_run { would.to_owned() } else { done.to_owned() };
    let list = |word: String, paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| format!("{word} {}", path.display())).collect()
    };
    let mut lines = list(will("wrote", "would write"), &report.written);
    lines.extend(list("left as it is:".into(), &report.unchanged));
    lines.extend(list(will("removed", "would remove"), &report.removed));
    let kept =
        |Kept { path, reason }: &Kept| format!("{} {}: {reason}", will("kept", "would keep"), path.display());
    lines.extend(report.kept.iter().map(kept));
    lines
}

/// `image-builder vm-config`.
#[derive(Debug, Args)]
pub(crate) struct VmConfigArgs {
    /// The VMM.
    #[arg(value_enum)]
    vmm: Vmm,
    #[command(flatten)]
    arch: ArchArgs,
    /// The kernel's profile [default: kata for x86_64, aarch64 for aarch64].
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The flavour: a recipe in rootfs/flavour.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    /// The form of the guest's root.
    #[arg(long, value_enum, default_value_t)]
    root_as: RootKind,
    /// The file system of a disk's root.
    #[arg(long, value_enum, default_value_t)]
    root_fs: FileSystem,
    /// Guest memory in MiB, at least 48. Every flavour runs with 128.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Guest CPUs.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// The Unix socket of the guest's vsock device.
    #[arg(long, default_value = "pith.vsock", value_name = "PATH")]
    vsock: String,
    /// Make a configuration for Firecracker with its option --enable-pci. Devices are on PCI then, and the kernel must
    /// support PCI.
    #[arg(long)]
    enable_pci: bool,
    /// A word to add to the kernel's command line. Can be repeated.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
}

impl VmConfigArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let arch = self.arch.arch;
        let layout = global.found()?.for_arch(arch);
        let products = Products::of(&layout);
        let options = vmm::Options {
            profile: self.profile.unwrap_or_else(|| arch.profile().to_owned()),
            flavour: self.flavour,
            root: self.root_as,
            root_fs: self.root_fs,
            memory_mib: self.memory,
            cpus: self.cpus,
            vsock: self.vsock,
            enable_pci: self.enable_pci,
            append: self.append,
        };
        match self.vmm {
            Vmm::Firecracker => {
                let value = vmm::firecracker(&products, &options)?;
                let text = serde_json::to_string_pretty(&value)?;
                global.print(&value, || text)
            }
            Vmm::CloudHypervisor => {
                let text = vmm::cloud_hypervisor(&products, &options)?;
                global.print(&text, || text.clone())
            }
        }
    }
}
