//! A guest for the shims of Kata Containers, beside the one they came with.
//!
//! ```text
//! PREFIX/vmlinuz, initrd.img          vmlinux for other VMMs than QEMU; a disk in place of the initrd
//! PREFIX/installed/NAME.json          the receipt: what was written, with digests
//! CONFIG/configuration.toml           a copy of the host's own
//! CONFIG/config.d/10-host-*           copies of the host's own drop-ins
//! CONFIG/config.d/50-pith.toml        what differs: kernel, initrd or image, hashes
//! CONFIG/containerd.toml              a runtime handler for containerd 1.x
//! CONFIG/containerd-v3.toml           the same for containerd 2.x
//! CONFIG/crio.conf                    the same for CRI-O
//! CONFIG/runtimeclass.yaml            for Kubernetes
//! CONFIG/manifest.json                what is in the products
//! ```
//! Both shims read `config.d` beside the configuration they are given, in alphabetical order, and let it override (Kata
//! Containers, `src/runtime/pkg/katautils/config.go` and `src/libs/kata-types/src/config/drop_in.rs`). The host's own file and
//! runtime stay as they are.

pub mod base;
mod handler;
pub mod host;
mod hypervisor;

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use self::base::{KataVersion, Shim};
use self::handler::{Handler, drop_in};
use self::host::{Host, Wanted, usual_program};
pub use self::hypervisor::Hypervisor;
use super::{DeployError, Plan, Products, Root, RootKind};
use store::product::{FileSystem, Form};

/// Since this version runtime-rs calls Cloud Hypervisor `clh`, as the Go shim always did.
const RUST_CLH: KataVersion = KataVersion { major: 3, minor: 30 };
/// Since this version both shims know `kernel_verity_params` (Kata Containers, pull request 12396); a shim before it ignores
/// the key, and boots a disk whose blocks nobody checks.
const VERITY: KataVersion = KataVersion { major: 3, minor: 27 };

/// What to install and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The VMM.
    pub hypervisor: Hypervisor,
    /// The recipe's name.
    pub flavour: String,
    /// What the root is in.
    pub root: RootKind,
    /// What a disk's root is formatted as.
    pub root_fs: FileSystem,
    /// Words for the kernel's command line, after the host's own.
    pub kernel_params: Vec<String>,
    /// Let the shim pass seccomp profiles to the guest.
    pub guest_seccomp: bool,
    /// Where the products go.
    pub prefix: PathBuf,
    /// Where the configuration goes.
    pub config: PathBuf,
    /// What is known of the host's Kata Containers.
    pub wanted: Wanted,
    /// A directory that stands for `/` while files are written, for packages.
    pub staging: Option<PathBuf>,
    /// The name of the runtime handler and of the RuntimeClass.
    pub name: String,
}

/// A planned installation, and what it is based on.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The files.
    pub plan: Plan,
    /// What was found on the host.
    pub host: Host,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// Plans the files.
///
/// # Errors
/// When a product or the host's own configuration is missing, or when the two do not fit.
pub fn plan(products: &Products<'_>, options: &Options) -> Result<Planned, DeployError> {
    let Options { hypervisor, flavour, prefix, config, name, .. } = options;
    if *hypervisor == Hypervisor::Firecracker && options.root == RootKind::Initrd {
        return Err(DeployError::Impossible(
            "Kata's shims boot Firecracker from an image only; add --root-as disk",
        ));
    }
    options.root.admits(options.root_fs)?;
    let mut plan = Plan::new(name, prefix, config, Root::new(options.staging.clone()))?;
    let arch = products.layout.arch();
    let kernel = products.kernel(hypervisor.kernel(arch), arch.profile())?;
    let mut table = Table::new();
    let mut take = |plan: &mut Plan, key: &str, (product, digest): (PathBuf, _)| {
        let path = prefix.join(product.file_name().unwrap_or_default());
        table.insert(key.into(), path.display().to_string().into());
        plan.copy(product, digest, path);
    };
    take(&mut plan, "kernel", kernel);
    match options.root {
        RootKind::Initrd => take(&mut plan, "initrd", products.initrd(flavour)?),
        RootKind::Disk => {
            let (disk, digest, _) = products.disk(flavour, Form::Kata, options.root_fs)?;
            take(&mut plan, "image", (disk, digest));
        }
    }
    let host = Host::find(*hypervisor, &options.wanted)?;
    let base = &host.base;
    let section = table_name(*hypervisor, &host)?.to_owned();
    match options.root {
        RootKind::Initrd => {
            table.insert("image".into(), "".into());
            table.insert("kernel_verity_params".into(), "".into());
        }
        RootKind::Disk => {
            checks_disks(&host, &section)?;
            let (_, _, part) = products.disk(flavour, Form::Kata, options.root_fs)?;
            table.insert("initrd".into(), "".into());
            table.insert("rootfs_type".into(), part.file_system.clone().into());
            let params = part.kernel_verity_params.clone().unwrap_or_default();
            table.insert("kernel_verity_params".into(), params.into());
            match base.shim {
                Shim::Go => table.insert("disable_image_nvdimm".into(), true.into()),
                Shim::Rust => table.insert("vm_rootfs_driver".into(), hypervisor.root_driver().into()),
            };
        }
    }
    if !options.kernel_params.is_empty() {
        let own = base.hypervisor(&section).and_then(|table| table.get("kernel_params"));
        let own = own.and_then(Value::as_str).unwrap_or_default().split_whitespace();
        let words: Vec<&str> = own.chain(options.kernel_params.iter().map(String::as_str)).collect();
        table.insert("kernel_params".into(), words.join(" ").into());
    }
    let main = config.join("configuration.toml");
    plan.text(main.clone(), format!("# The host's own, from {}.\n{}", base.path.display(), base.text));
    for base::DropIn { name, text } in &base.drop_ins {
        let path = config.join("config.d").join(format!("10-host-{name}"));
        plan.text(path, format!("# The host's own, from config.d beside {}.\n{text}", base.path.display()));
    }
    plan.text(config.join("config.d/50-pith.toml"), drop_in(&section, table, options.guest_seccomp));
    let handler = Handler { name, program: host.program.as_deref(), configuration: &main };
    // The Go shim is found on the PATH where distributions put it. runtime-rs has the same name, and would not be.
    let usual = usual_program(base.shim);
    let needs_path = base.shim == Shim::Rust || base.path.starts_with(host::KATA);
    let handler = Handler { program: handler.program.or(needs_path.then_some(&*usual)), ..handler };
    plan.text(config.join("containerd.toml"), handler.containerd_v2());
    plan.text(config.join("containerd-v3.toml"), handler.containerd_v3());
    plan.text(config.join("crio.conf"), handler.crio(&usual));
    plan.text(config.join("runtimeclass.yaml"), handler.runtime_class());
    let manifest = products.layout.manifest();
    let (digest, _) =
        store::digest::Digest::of_file(&manifest).map_err(DeployError::io("read", &manifest))?;
    plan.copy(manifest, digest, config.join("manifest.json"));
    let notes = notes(&host, handler.program);
    Ok(Planned { plan, host, notes })
}

fn notes(host: &Host, program: Option<&Path>) -> Vec<String> {
    let Host { base, version, .. } = host;
    let version = version.map_or(String::new(), |version| format!(", version {version}"));
    let mut notes = vec![format!("based on {} ({}{version})", base.path.display(), base.shim)];
    if host.program.is_none() {
        notes.push(match program {
            Some(program) => format!(
                "the shim's program was not found; {} is written down, --runtime-path names another one",
                program.display()
            ),
            None => {
                "the shim's program was not found; containerd will look for it on its PATH, --runtime-path \
                     names one"
                    .into()
            }
        });
    }
    notes
}

/// The name of the VMM's table that the installed version reads.
fn table_name(hypervisor: Hypervisor, host: &Host) -> Result<&str, DeployError> {
    let Host { base, version, .. } = host;
    let wrong = |reason: String| DeployError::BadBase { path: base.path.clone(), reason };
    let name = hypervisor.table(base).ok_or_else(|| wrong(format!("it has no table for {hypervisor}")))?;
    if hypervisor != Hypervisor::CloudHypervisor || base.shim == Shim::Go {
        return Ok(name);
    }
    let both = hypervisor.names().iter().filter(|name| base.hypervisor(name).is_some()).count() > 1;
    match version {
        Some(version) => {
            let read = if *version >= RUST_CLH { "clh" } else { "cloud-hypervisor" };
            if read == name {
                return Ok(name);
            }
            Err(wrong(format!(
                "it has [hypervisor.{name}], but runtime-rs {version} reads [hypervisor.{read}] and would boot Kata's own \
                 guest; name the configuration of that version"
            )))
        }
        None if both && base.hypervisor_name().is_none() => Err(DeployError::Version(format!(
            "{} has two tables for Cloud Hypervisor, and which one counts depends on the version",
            base.path.display()
        ))),
        None => Ok(name),
    }
}

/// Refuses a disk where the shim would not pass its hashes on.
fn checks_disks(host: &Host, section: &str) -> Result<(), DeployError> {
    let Host { base, version, .. } = host;
    let has_key = base.hypervisor(section).is_some_and(|table| table.contains_key("kernel_verity_params"));
    match version {
        Some(version) if *version >= VERITY => Ok(()),
        _ if has_key => Ok(()),
        Some(version) => Err(DeployError::BadBase {
            path: base.path.clone(),
            reason: format!(
                "{} {version} does not know kernel_verity_params, so nobody would check the disk; take the initrd, or \
                 Kata Containers {VERITY} or newer",
                base.shim
            ),
        }),
        None => Err(DeployError::Version(format!(
            "whether {} checks a disk by kernel_verity_params depends on its version (since {VERITY}), and nothing here \
             tells it",
            base.shim
        ))),
    }
}

#[cfg(test)]
mod tests;
