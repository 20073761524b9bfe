//! How VMMs without a shim boot the products: a configuration for Firecracker, a command line for Cloud Hypervisor.
//!
//! Written for Firecracker 1.17 and Cloud Hypervisor 54. What a kernel can do is read from the configuration it was built with,
//! which is a product. The agent is reached over the vsock socket that is named: connect, `CONNECT 1024`, then ttrpc
//! (docs/protocol.md).

use serde_json::{Value, json};

use super::{DeployError, Products, RootKind};
use crate::kernel::arch::Arch;
use crate::kernel::config::Config;
use crate::kernel::fragment;
use store::product::{FileSystem, Form, Product};

/// Which VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Vmm {
    /// Firecracker: JSON for `firecracker --config-file`.
    Firecracker,
    /// Cloud Hypervisor: a shell script with its command line.
    CloudHypervisor,
}

/// What the VM shall have.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kernel's profile.
    pub profile: String,
    /// The recipe's name.
    pub flavour: String,
    /// What the root is in.
    pub root: RootKind,
    /// What a disk's root is formatted as.
    pub root_fs: FileSystem,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest CPUs.
    pub cpus: u32,
    /// The socket that leads to the guest's vsock.
    pub vsock: String,
    /// Firecracker runs with `--enable-pci`.
    pub enable_pci: bool,
    /// Words added to the kernel's command line.
    pub append: Vec<String>,
}

struct Files {
    kernel: String,
    initrd: Option<String>,
    disk: Option<String>,
    cmdline: String,
}

/// An option of the kernel's configuration that a VMM cannot do without, and what for.
type Need = (&'static str, &'static str);

const VSOCK: Need = ("CONFIG_VIRTIO_VSOCKETS", "the agent is reached over vsock");
const PVH: Need = ("CONFIG_PVH", "vmlinux is entered directly");
const PCI: Need = ("CONFIG_VIRTIO_PCI", "all its devices are on PCI, so no vsock device would be found");
const ACPI: Need = ("CONFIG_ACPI", "its PCI bus is found in ACPI tables");
const TREE: Need = ("CONFIG_PCI_HOST_GENERIC", "its PCI bus is found in a device tree");
const SERIAL: Need = ("CONFIG_SERIAL_OF_PLATFORM", "its serial port is found in a device tree");
const MMIO: Need = ("CONFIG_VIRTIO_MMIO", "without --enable-pci its devices are virtio-mmio");
const ANNOUNCED: Need = (
    "CONFIG_ACPI or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES",
    "virtio-mmio devices are found in ACPI tables, or else by words of the command line",
);

fn has(config: &Config, symbol: &str) -> bool {
    config.value(symbol) != fragment::Value::No
}

/// Refuses a kernel that would boot and never be reached.
fn admit(
    config: &Config,
    options: &Options,
    vmm: &'static str,
    needs: &[Need],
    way_out: &'static str,
) -> Result<(), DeployError> {
    let lacking = needs.iter().find(|(symbols, _)| !symbols.split(" or ").any(|symbol| has(config, symbol)));
    match lacking {
        None => Ok(()),
        Some((option, why)) => {
            Err(DeployError::Kernel { profile: options.profile.clone(), vmm, option, why, way_out })
        }
    }
}

/// The kernel's configuration. A kernel for another processor than the agent's does not start it, and a guest with too little memory
/// says nothing.
fn config(products: &Products<'_>, options: &Options) -> Result<Config, DeployError> {
    machine::vm::check_memory(options.memory_mib)?;
    options.root.admits(options.root_fs)?;
    let arch = products.layout.arch();
    let is_there = |arch: &Arch| {
        let name = Product::kernel(arch.image(), &options.profile).file_name(*arch);
        products.manifest.products.contains_key(&name)
    };
    if let Some(theirs) = Arch::ALL.into_iter().find(is_there).filter(|theirs| *theirs != arch) {
        return Err(DeployError::Processor { profile: options.profile.clone(), theirs, arch });
    }
    products.kernel(image(arch), &options.profile)?;
    products.kernel_config(&options.profile)
}

/// The form of the kernel that both VMMs boot.
fn image(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "vmlinux",
        Arch::Aarch64 => arch.image(),
    }
}

fn files(
    products: &Products<'_>,
    options: &Options,
    config: &Config,
    words: &[&str],
) -> Result<Files, DeployError> {
    // A VMM is seldom started from the directory that this command was.
    let absolute = |path: std::path::PathBuf| {
        let path = path.canonicalize().map_err(DeployError::io("find", &path))?;
        Ok::<_, DeployError>(path.display().to_string())
    };
    let kernel = absolute(products.kernel(image(products.layout.arch()), &options.profile)?.0)?;
    let mut cmdline: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let (mut initrd, mut disk) = (None, None);
    match options.root {
        RootKind::Initrd => initrd = Some(absolute(products.initrd(&options.flavour)?.0)?),
        RootKind::Disk if !(has(config, "CONFIG_DM_VERITY") && has(config, "CONFIG_DM_INIT")) => {
            return Err(DeployError::Impossible(
                "only a kernel such as that of the profile `kata` checks a disk by its hashes; take that one, or an initrd",
            ));
        }
        RootKind::Disk => {
            let (path, _, part) = products.disk(&options.flavour, Form::Gpt, options.root_fs)?;
            disk = Some(absolute(path)?);
            cmdline.push(part.cmdline.clone());
        }
    }
    cmdline.extend(options.append.iter().cloned());
    Ok(Files { kernel, initrd, disk, cmdline: cmdline.join(" ") })
}

/// The words with which a kernel is quiet under Firecracker.
///
/// Without `--enable-pci` Firecracker says where each device is in its DSDT and, by `virtio_mmio.device=`, on the command line,
/// and it adds `pci=off` behind all words of ours (`src/vmm/src/builder.rs` and `device_manager/mmio.rs`). No word takes either
/// back. So a kernel that reads both finds each device twice (the second time in vain, `error -16`), and one with PCI says that it
/// found no way to it; both are errors, which `quiet` shows, and no harm. They are left out by the next lower level.
///
/// On Arm the devices are in the device tree alone. `pci=off` is there, too, and a kernel with PCI complains that it does not know
/// that word (`drivers/pci/pci.c`).
fn firecracker_words(arch: Arch, config: &Config, enable_pci: bool) -> Vec<&'static str> {
    let mut words = vec!["console=ttyS0", "quiet"];
    let pci = has(config, "CONFIG_PCI");
    if arch == Arch::Aarch64 {
        if !enable_pci && pci {
            words.push("loglevel=3");
        }
        words.push("panic=-1");
        words.extend(no_dummy(arch, config));
        return words;
    }
    let twice = has(config, "CONFIG_ACPI") && has(config, "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES");
    if !enable_pci && (pci || twice) {
        words.push("loglevel=3");
    }
    words.extend(["reboot=k", "panic=-1"]);
    // What Firecracker adds itself since 1.13, and what older ones need.
    if !enable_pci && pci {
        words.push("pci=off");
    }
    words
}

/// Keeps the kernel's dummy driver from making an interface `dummy0`. On x86_64 our kernels have the word themselves; those for Arm
/// cannot add words to a monitor's.
fn no_dummy(arch: Arch, config: &Config) -> Option<&'static str> {
    (arch == Arch::Aarch64 && has(config, "CONFIG_DUMMY")).then_some("dummy.numdummies=0")
}

/// A configuration for `firecracker --no-api --config-file FILE`, with `--enable-pci` if the options say so.
///
/// # Errors
/// When a product is missing, when the kernel would not find Firecracker's devices, or when the memory is too little.
pub fn firecracker(products: &Products<'_>, options: &Options) -> Result<Value, DeployError> {
    let config = config(products, options)?;
    let (arch, way_out) = (products.layout.arch(), "take another --profile");
    if options.enable_pci {
        let needs = [VSOCK, PCI, if arch == Arch::Aarch64 { TREE } else { ACPI }];
        admit(
            &config,
            options,
            "Firecracker --enable-pci",
            &needs,
            "take another --profile, or leave --enable-pci out",
        )?;
    } else {
        let announced = if arch == Arch::Aarch64 { SERIAL } else { ANNOUNCED };
        admit(&config, options, "Firecracker", &[VSOCK, MMIO, announced], way_out)?;
    }
    let words = firecracker_words(arch, &config, options.enable_pci);
    let Files { kernel, initrd, disk, cmdline } = files(products, options, &config, &words)?;
    let mut boot = json!({ "kernel_image_path": kernel, "boot_args": cmdline });
    if let Some(path) = initrd {
        boot["initrd_path"] = path.into();
    }
    // Firecracker adds a root= of its own for a drive that is called the root; ours is behind hashes.
    let drives: Vec<Value> = disk
        .iter()
        .map(|path| json!({ "drive_id": "root", "path_on_host": path, "is_root_device": false, "is_read_only": true }))
        .collect();
    Ok(json!({
        "boot-source": boot,
        "drives": drives,
        "machine-config": { "vcpu_count": options.cpus, "mem_size_mib": options.memory_mib },
        "vsock": { "guest_cid": 3, "uds_path": options.vsock },
    }))
}

/// Cloud Hypervisor's command line for a shell, one option per line, and a reader of its events.
///
/// Whatever restart a guest makes, Cloud Hypervisor boots it again, after a panic too, and no option of it says otherwise. It
/// reports the restart as an event (since version 39), before the guest goes: the reader ends it then, by SIGTERM, and the status
/// is 1.
///
/// # Errors
/// When a product is missing, when the kernel would not find Cloud Hypervisor's devices, or when the memory is too little.
pub fn cloud_hypervisor(products: &Products<'_>, options: &Options) -> Result<String, DeployError> {
    if options.enable_pci {
        return Err(DeployError::Impossible("Cloud Hypervisor always has PCI; leave --enable-pci out"));
    }
    let config = config(products, options)?;
    // A panic without a restart would be a VM that stays and does nothing.
    let arch = products.layout.arch();
    let console = match arch {
        Arch::X86_64 => {
            admit(&config, options, "Cloud Hypervisor", &[VSOCK, PVH, PCI, ACPI], "take --profile kata")?;
            "console=ttyS0"
        }
        Arch::Aarch64 => {
            admit(&config, options, "Cloud Hypervisor", &[VSOCK, PCI, TREE], "take another --profile")?;
            "console=ttyAMA0"
        }
    };
    let mut words = vec![console, "quiet", "panic=-1"];
    words.extend(no_dummy(arch, &config));
    let Files { kernel, initrd, disk, cmdline } = files(products, options, &config, &words)?;
    let mut lines = vec![format!("--kernel {}", quoted(&kernel))];
    lines.extend(initrd.map(|path| format!("--initramfs {}", quoted(&path))));
    lines.extend(disk.map(|path| format!("--disk {}", quoted(&format!("path={path},readonly=on")))));
    lines.push(format!("--cmdline {}", quoted(&cmdline)));
    lines.push(format!("--cpus boot={}", options.cpus));
    lines.push(format!("--memory size={}M,shared=on", options.memory_mib));
    lines.push(format!("--vsock {}", quoted(&format!("cid=3,socket={}", options.vsock))));
    lines.push("--serial tty --console off".to_owned());
    lines.push("--event-monitor fd=3 3>&1".to_owned());
    // The first line of the pipe is the process: `exec` keeps its number. 4 is the terminal, since 1 is the pipe.
    Ok(format!(
        "{{ sh -c 'echo $$ >&3; exec cloud-hypervisor \"$@\" >&4' sh \\\n  {} \\\n  \
         | {{ read -r pid; if grep -Eq '\"event\": *\"rebooting\"'; then kill \"$pid\"; exit 1; fi; }}; }} 4>&1",
        lines.join(" \\\n  ")
    ))
}

/// A word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
