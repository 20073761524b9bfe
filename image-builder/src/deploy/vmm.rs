//! How VMMs without a shim boot the products: a configuration for Firecracker, a command line for Cloud Hypervisor.
//!
//! The agent is reached over the vsock socket that is named: connect, `CONNECT 1024`, then ttrpc (docs/protocol.md).

use serde_json::{Value, json};

use super::{DeployError, Products, RootKind};
use crate::disk::{FileSystem, Form};
use crate::kernel::{self, arch::Arch};

/// Which VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Vmm {
    /// Firecracker: JSON for `firecracker --config-file`.
    Firecracker,
    /// Cloud Hypervisor: its command line, for a shell.
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
    /// Words added to the kernel's command line.
    pub append: Vec<String>,
}

struct Files {
    kernel: String,
    initrd: Option<String>,
    disk: Option<String>,
    cmdline: String,
}

fn files(products: &Products<'_>, options: &Options, words: &[&str]) -> Result<Files, DeployError> {
    options.root.admits(options.root_fs)?;
    // A VMM is seldom started from the directory that this command was.
    let absolute = |path: std::path::PathBuf| {
        let path = path.canonicalize().map_err(DeployError::io("find", &path))?;
        Ok::<_, DeployError>(path.display().to_string())
    };
    let of_arm = kernel::product(Arch::Aarch64.image(), &options.profile);
    if products.manifest.products.contains_key(&of_arm) {
        return Err(DeployError::Impossible(
            "this kernel is for 64-bit Arm, and there is no agent for that processor; take another profile",
        ));
    }
    let kernel = absolute(products.kernel("vmlinux", &options.profile)?)?;
    let mut cmdline: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let (mut initrd, mut disk) = (None, None);
    match options.root {
        RootKind::Initrd => initrd = Some(absolute(products.initrd(&options.flavour)?)?),
        RootKind::Disk if options.profile != kernel::SHIPPED => {
            return Err(DeployError::Impossible(
                "only the kernel of the profile `kata` checks a disk by its hashes; take that one, or an initrd",
            ));
        }
        RootKind::Disk => {
            let (path, part) = products.disk(&options.flavour, Form::Gpt, options.root_fs)?;
            disk = Some(absolute(path)?);
            cmdline.push(part.cmdline.clone());
        }
    }
    cmdline.extend(options.append.iter().cloned());
    Ok(Files { kernel, initrd, disk, cmdline: cmdline.join(" ") })
}

/// A configuration for `firecracker --no-api --config-file FILE`.
///
/// # Errors
/// When a product is missing.
pub fn firecracker(products: &Products<'_>, options: &Options) -> Result<Value, DeployError> {
    let words = ["console=ttyS0", "quiet", "reboot=k", "panic=-1", "pci=off"];
    let Files { kernel, initrd, disk, cmdline } = files(products, options, &words)?;
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

/// Cloud Hypervisor's command line, one option per line.
///
/// # Errors
/// When a product is missing.
pub fn cloud_hypervisor(products: &Products<'_>, options: &Options) -> Result<String, DeployError> {
    let Files { kernel, initrd, disk, cmdline } =
        files(products, options, &["console=ttyS0", "quiet", "panic=-1"])?;
    let mut lines = vec!["cloud-hypervisor".to_owned(), format!("--kernel {}", quoted(&kernel))];
    lines.extend(initrd.map(|path| format!("--initramfs {}", quoted(&path))));
    lines.extend(disk.map(|path| format!("--disk {}", quoted(&format!("path={path},readonly=on")))));
    lines.push(format!("--cmdline {}", quoted(&cmdline)));
    lines.push(format!("--cpus boot={}", options.cpus));
    lines.push(format!("--memory size={}M,shared=on", options.memory_mib));
    lines.push(format!("--vsock {}", quoted(&format!("cid=3,socket={}", options.vsock))));
    lines.push("--serial tty --console off".to_owned());
    Ok(lines.join(" \\\n  "))
}

/// A word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::write_atomically;
    use crate::layout::Layout;
    use crate::manifest::Manifest;

    fn layout(dir: &std::path::Path) -> Layout {
        let layout = Layout::new(dir.into(), None);
        let names = ["vmlinux", "vmlinux-sandbox", "vmlinux-aarch64", "Image-aarch64", "initrd.img"];
        for name in names {
            write_atomically(&layout.out().join(name), name.as_bytes()).unwrap();
        }
        Manifest::update(&layout, |manifest| {
            names.iter().try_for_each(|name| manifest.add_product(&layout, name))
        })
        .unwrap();
        layout
    }

    fn options(profile: &str, root: RootKind) -> Options {
        Options {
            profile: profile.into(),
            flavour: "minimal".into(),
            root,
            root_fs: FileSystem::Erofs,
            memory_mib: 256,
            cpus: 2,
            vsock: "/run/it's/vsock".into(),
            append: vec!["agent.log=debug".into()],
        }
    }

    #[test]
    fn firecracker_gets_absolute_paths() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let value = firecracker(&Products::of(&layout), &options("sandbox", RootKind::Initrd)).unwrap();
        let boot = &value["boot-source"];
        let path = |name: &str| layout.out().join(name).canonicalize().unwrap().display().to_string();
        assert_eq!(boot["kernel_image_path"], path("vmlinux-sandbox"));
        assert_eq!(boot["initrd_path"], path("initrd.img"));
        assert!(boot["boot_args"].as_str().unwrap().ends_with("pci=off agent.log=debug"));
        assert_eq!(value["machine-config"]["mem_size_mib"], 256);
        assert_eq!(value["vsock"]["uds_path"], "/run/it's/vsock");
    }

    #[test]
    fn a_shell_reads_the_command_line_as_it_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let text = cloud_hypervisor(&Products::of(&layout), &options("kata", RootKind::Initrd)).unwrap();
        let arguments = text.strip_prefix("cloud-hypervisor ").unwrap();
        let script = format!("printf '%s\\n' {arguments}");
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = words.lines().collect();
        assert!(words.contains(&"cid=3,socket=/run/it's/vsock"), "{words:?}");
        assert!(words.contains(&"console=ttyS0 quiet panic=-1 agent.log=debug"), "{words:?}");
    }

    #[test]
    fn a_kernel_without_an_agent_starts_no_guest() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let refused = firecracker(&Products::of(&layout), &options("aarch64", RootKind::Initrd));
        assert!(refused.unwrap_err().to_string().contains("no agent"));
    }

    #[test]
    fn a_kernel_without_hashes_takes_no_disk() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let refused = firecracker(&Products::of(&layout), &options("sandbox", RootKind::Disk));
        assert!(refused.unwrap_err().to_string().contains("kata"));
        let missing = firecracker(&Products::of(&layout), &options("kata", RootKind::Disk));
        assert!(
            missing.unwrap_err().to_string().ends_with("image-builder disk --flavour minimal --form gpt")
        );
        let ext4 = Options { root_fs: FileSystem::Ext4, ..options("kata", RootKind::Disk) };
        let missing = firecracker(&Products::of(&layout), &ext4).unwrap_err().to_string();
        assert!(missing.ends_with("--form gpt --root-fs ext4"), "{missing}");
    }
}
