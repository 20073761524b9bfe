//! `image-builder install` and `vm-config`.

use std::path::PathBuf;

use clap::Args;
use image_builder::deploy::kata::{self, Hypervisor};
use image_builder::deploy::vmm::{self, Vmm};
use image_builder::deploy::{Products, RootKind};
use image_builder::disk::FileSystem;
use image_builder::kernel;
use image_builder::layout::SHIPPED;

use super::Global;

/// `image-builder install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// For the shims of Kata Containers; the only place there is so far.
    #[arg(long, required = true)]
    kata: bool,
    /// The VMM that the shim starts.
    #[arg(long, value_enum, default_value_t)]
    hypervisor: Hypervisor,
    /// The recipe in rootfs/flavour.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    /// What the guest's root is in.
    #[arg(long, value_enum, default_value_t)]
    root_as: RootKind,
    /// What a disk's root is formatted as.
    #[arg(long, value_enum, default_value_t)]
    root_fs: FileSystem,
    /// A word for the kernel's command line, such as agent.log=debug; can be given more than once.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// Where the products go.
    #[arg(long, default_value = "/opt/pith", value_name = "DIR")]
    prefix: PathBuf,
    /// Where the configuration goes.
    #[arg(long, default_value = "/etc/kata-containers/pith", value_name = "DIR")]
    config: PathBuf,
    /// The host's own configuration [default: the first there is of those that Kata Containers looks for].
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Name of the runtime handler and the RuntimeClass.
    #[arg(long, default_value = "kata-pith", value_name = "NAME")]
    name: String,
    /// Write below DIR as if it were /, for packages.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Say what would be written, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove what an installation with the same options wrote.
    #[arg(long, conflicts_with = "dry_run")]
    uninstall: bool,
}

impl InstallArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.products()?;
        let config = self.config.clone();
        let name = self.name.clone();
        let options = kata::Options {
            hypervisor: self.hypervisor,
            flavour: self.flavour,
            root: self.root_as,
            root_fs: self.root_fs,
            kernel_params: self.append,
            prefix: self.prefix,
            config: self.config,
            base: self.base,
            staging: self.staging,
            name: self.name,
        };
        let plan = kata::plan(&Products::of(&layout), &options)?;
        let paths: Vec<PathBuf> = if self.uninstall {
            plan.remove()?
        } else {
            if !self.dry_run {
                plan.install()?;
            }
            plan.files.iter().map(|file| file.path.clone()).collect()
        };
        global.print(&paths, || {
            let mut lines: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            let (config, next) = (config.display(), !self.uninstall && !self.dry_run);
            if next {
                lines.push(format!(
                    "\nNext: put {config}/containerd.toml into containerd's configuration and restart containerd; \
                     kubectl apply -f {config}/runtimeclass.yaml; give pods runtimeClassName: {name}. \
                     The way back: the same command with --uninstall."
                ));
            } else if self.uninstall {
                lines.push("removed; take the handler out of containerd's configuration, too".to_owned());
            }
            lines.join("\n")
        })
    }
}

/// `image-builder vm-config`.
#[derive(Debug, Args)]
pub(crate) struct VmConfigArgs {
    /// Whose configuration.
    #[arg(value_enum)]
    vmm: Vmm,
    /// The kernel's profile.
    #[arg(long, default_value = kernel::SHIPPED, value_name = "NAME")]
    profile: String,
    /// The recipe in rootfs/flavour.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    /// What the guest's root is in.
    #[arg(long, value_enum, default_value_t)]
    root_as: RootKind,
    /// What a disk's root is formatted as.
    #[arg(long, value_enum, default_value_t)]
    root_fs: FileSystem,
    /// Guest memory in MiB.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Guest CPUs.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cpus: u32,
    /// The socket that leads to the guest's vsock.
    #[arg(long, default_value = "pith.vsock", value_name = "PATH")]
    vsock: String,
    /// A word for the kernel's command line; can be given more than once.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
}

impl VmConfigArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.products()?;
        let products = Products::of(&layout);
        let options = vmm::Options {
            profile: self.profile,
            flavour: self.flavour,
            root: self.root_as,
            root_fs: self.root_fs,
            memory_mib: self.memory,
            cpus: self.cpus,
            vsock: self.vsock,
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
