//! What is printed for VMMs, read as they read it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::manifest::Manifest;
use store::cache::write_atomically;
use store::layout::Layout;

/// What the kernels that ship have, as far as it counts here.
const KATA: &str = "CONFIG_ACPI=y\nCONFIG_PCI=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_PVH=y\n\
    CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\nCONFIG_VIRTIO_VSOCKETS=y\nCONFIG_DM_VERITY=y\nCONFIG_DM_INIT=y\n";
/// One that finds its devices in one way, and has no PCI.
const SANDBOX: &str = "CONFIG_ACPI=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_PVH=y\nCONFIG_VIRTIO_VSOCKETS=y\n";

/// The kernel for Arm.
const ARM: &str = "CONFIG_DUMMY=y\nCONFIG_PCI=y\nCONFIG_PCI_HOST_GENERIC=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_MMIO=y\n\
    CONFIG_SERIAL_OF_PLATFORM=y\nCONFIG_VIRTIO_VSOCKETS=y\nCONFIG_DM_VERITY=y\nCONFIG_DM_INIT=y\n";

/// Products, among them a kernel of the profile `other` that was built with this configuration.
fn layout(dir: &Path, other: &str) -> Layout {
    let layout = Layout::new(dir.into(), None).for_arch(Arch::X86_64);
    let names = [
        "vmlinux",
        "vmlinux-sandbox",
        "vmlinux-other",
        "vmlinux-aarch64",
        "Image-aarch64",
        "initrd.img",
        "initrd-aarch64.img",
    ];
    let configs =
        [("config", KATA), ("config-sandbox", SANDBOX), ("config-other", other), ("config-aarch64", ARM)];
    let files = names.iter().map(|name| (*name, *name)).chain(configs);
    for (name, text) in files.clone() {
        write_atomically(&layout.out().join(name), text.as_bytes()).unwrap();
    }
    Manifest::update(&layout, |manifest| {
        files.clone().try_for_each(|(name, _)| manifest.add_product(&layout, name))
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
        enable_pci: false,
        append: vec!["agent.log=debug".into()],
    }
}

fn with_pci(profile: &str) -> Options {
    Options { enable_pci: true, ..options(profile, RootKind::Initrd) }
}

fn words(value: &Value) -> String {
    value["boot-source"]["boot_args"].as_str().unwrap().to_owned()
}

#[test]
fn firecracker_gets_absolute_paths() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    let value = firecracker(&Products::of(&layout), &options("sandbox", RootKind::Initrd)).unwrap();
    let boot = &value["boot-source"];
    let path = |name: &str| layout.out().join(name).canonicalize().unwrap().display().to_string();
    assert_eq!(boot["kernel_image_path"], path("vmlinux-sandbox"));
    assert_eq!(boot["initrd_path"], path("initrd.img"));
    assert_eq!(value["machine-config"]["mem_size_mib"], 256);
    assert_eq!(value["vsock"]["uds_path"], "/run/it's/vsock");
}

/// Case H14: what is left out of the console are messages about announcements that no word takes back.
#[test]
fn firecracker_boots_quietly_whatever_the_kernel_reads() {
    let quiet = "console=ttyS0 quiet reboot=k panic=-1 agent.log=debug";
    let mmio = "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_VSOCKETS=y\n";
    for (config, pci, expected) in [
        // One way to find devices, and no PCI to be missed.
        (SANDBOX.to_owned(), false, quiet),
        (format!("{mmio}CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n"), false, quiet),
        // Both ways.
        (
            format!("{SANDBOX}CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n"),
            false,
            "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 agent.log=debug",
        ),
        // PCI that Firecracker does not have.
        (KATA.to_owned(), false, "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 pci=off agent.log=debug"),
        (
            format!("{SANDBOX}CONFIG_PCI=y\nCONFIG_VIRTIO_PCI=y\n"),
            false,
            "console=ttyS0 quiet loglevel=3 reboot=k panic=-1 pci=off agent.log=debug",
        ),
        // PCI that it has.
        (KATA.to_owned(), true, quiet),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), &config);
        let options = Options { enable_pci: pci, ..options("other", RootKind::Initrd) };
        assert_eq!(words(&firecracker(&Products::of(&layout), &options).unwrap()), expected, "{config}");
    }
}

/// Case H18, by what a kernel lacks and not by what its profile is called.
#[test]
fn a_kernel_that_would_find_no_vsock_is_refused_by_name() {
    let no_vsock = KATA.replace("CONFIG_VIRTIO_VSOCKETS=y", "# CONFIG_VIRTIO_VSOCKETS is not set");
    let no_pci = KATA.replace("CONFIG_VIRTIO_PCI=y\n", "");
    let no_mmio = KATA.replace("CONFIG_VIRTIO_MMIO=y\n", "");
    let unannounced = "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_VSOCKETS=y\n";
    for (config, cloud_hypervisor_lacks, firecracker_lacks, with_pci_lacks) in [
        (KATA, None, None, None),
        (&*no_pci, Some("CONFIG_VIRTIO_PCI"), None, Some("CONFIG_VIRTIO_PCI")),
        (SANDBOX, Some("CONFIG_VIRTIO_PCI"), None, Some("CONFIG_VIRTIO_PCI")),
        (
            &*no_vsock,
            Some("CONFIG_VIRTIO_VSOCKETS"),
            Some("CONFIG_VIRTIO_VSOCKETS"),
            Some("CONFIG_VIRTIO_VSOCKETS"),
        ),
        (&*no_mmio, None, Some("CONFIG_VIRTIO_MMIO "), None),
        (unannounced, Some("CONFIG_PVH"), Some("CONFIG_ACPI or"), Some("CONFIG_VIRTIO_PCI")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), config);
        let products = Products::of(&layout);
        let plain = options("other", RootKind::Initrd);
        let check = |result: Result<(), DeployError>, lacks: Option<&str>| match (result, lacks) {
            (Ok(()), None) => {}
            (Err(error), Some(lacks)) => {
                let error = error.to_string();
                assert!(error.contains("\"other\"") && error.contains(lacks), "{error}");
            }
            (result, lacks) => panic!("{result:?}, {lacks:?}: {config}"),
        };
        check(cloud_hypervisor(&products, &plain).map(drop), cloud_hypervisor_lacks);
        check(firecracker(&products, &plain).map(drop), firecracker_lacks);
        check(firecracker(&products, &with_pci("other")).map(drop), with_pci_lacks);
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    std::fs::remove_file(layout.out().join("config")).unwrap();
    let missing = cloud_hypervisor(&Products::of(&layout), &options("kata", RootKind::Initrd));
    assert!(missing.unwrap_err().to_string().ends_with("image-builder kernel build --profile kata"));
    let pci = cloud_hypervisor(&Products::of(&layout), &with_pci("kata"));
    assert!(pci.unwrap_err().to_string().contains("leave --enable-pci out"));
}

/// A program called `cloud-hypervisor` that does what this script says, first on PATH; the printed text is run by a shell.
fn stand_in(dir: &Path, script: &str) -> Command {
    let layout = layout(dir, "");
    let text = cloud_hypervisor(&Products::of(&layout), &options("kata", RootKind::Initrd)).unwrap();
    let program = dir.join("cloud-hypervisor");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(text).env("PATH", format!("{}:{path}", dir.display())).stdin(Stdio::null());
    command
}

#[test]
fn a_shell_reads_the_command_line_as_it_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let output = stand_in(dir.path(), "printf '%s\\n' \"$@\"").output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = words.lines().collect();
    assert!(words.contains(&"cid=3,socket=/run/it's/vsock"), "{words:?}");
    assert!(words.contains(&"console=ttyS0 quiet panic=-1 agent.log=debug"), "{words:?}");
    assert!(words.contains(&"--event-monitor") && words.contains(&"fd=3"), "{words:?}");
    assert!(output.status.success());
}

/// Case H19, on a stand-in that reports what Cloud Hypervisor reports of a restart, and like it goes on for ever then.
#[test]
fn a_guest_that_starts_again_ends_the_monitor() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo '{' >&3; echo '  \"source\": \"vm\",' >&3; echo '  \"event\": \"booted\"' >&3; echo '}' >&3\n\
        trap 'echo ended; exit 0' TERM\n\
        echo '{ \"source\": \"vm\",' >&3; echo '  \"event\": \"rebooting\"' >&3; echo '}' >&3\n\
        while :; do sleep 0.05; done";
    let output = stand_in(dir.path(), script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ended\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_kernel_for_another_processor_starts_no_guest() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    let refused = firecracker(&Products::of(&layout), &options("aarch64", RootKind::Initrd));
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("is for aarch64, and the guest for x86_64; add --arch aarch64")
    );
    let arm = layout.for_arch(Arch::Aarch64);
    let missing =
        cloud_hypervisor(&Products::of(&arm), &options("sandbox", RootKind::Initrd)).unwrap_err().to_string();
    assert!(
        missing.contains("Image-sandbox")
            && missing.ends_with("image-builder kernel build --profile sandbox"),
        "{missing}"
    );
}

#[test]
fn on_arm_the_kernel_the_serial_port_and_the_initrd_are_others() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "").for_arch(Arch::Aarch64);
    let products = Products::of(&layout);
    let path = |name: &str| layout.out().join(name).canonicalize().unwrap().display().to_string();
    let plain = options("aarch64", RootKind::Initrd);
    let value = firecracker(&products, &plain).unwrap();
    assert_eq!(value["boot-source"]["kernel_image_path"], path("Image-aarch64"));
    assert_eq!(value["boot-source"]["initrd_path"], path("initrd-aarch64.img"));
    assert_eq!(words(&value), "console=ttyS0 quiet loglevel=3 panic=-1 dummy.numdummies=0 agent.log=debug");
    let value = firecracker(&products, &with_pci("aarch64")).unwrap();
    assert_eq!(words(&value), "console=ttyS0 quiet panic=-1 dummy.numdummies=0 agent.log=debug");
    let text = cloud_hypervisor(&products, &plain).unwrap();
    assert!(text.contains(&format!("--kernel '{}'", path("Image-aarch64"))), "{text}");
    assert!(
        text.contains("--cmdline 'console=ttyAMA0 quiet panic=-1 dummy.numdummies=0 agent.log=debug'"),
        "{text}"
    );
    let disk = firecracker(&products, &options("aarch64", RootKind::Disk)).unwrap_err().to_string();
    let option = if Arch::host() == Arch::Aarch64 { "" } else { " --arch aarch64" };
    assert!(disk.ends_with(&format!("image-builder disk --flavour minimal --form gpt{option}")), "{disk}");
}

#[test]
fn a_kernel_without_hashes_takes_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    let refused = firecracker(&Products::of(&layout), &options("sandbox", RootKind::Disk));
    assert!(refused.unwrap_err().to_string().contains("kata"));
    let missing = firecracker(&Products::of(&layout), &options("kata", RootKind::Disk));
    assert!(missing.unwrap_err().to_string().ends_with("image-builder disk --flavour minimal --form gpt"));
    let ext4 = Options { root_fs: FileSystem::Ext4, ..options("kata", RootKind::Disk) };
    let missing = firecracker(&Products::of(&layout), &ext4).unwrap_err().to_string();
    assert!(missing.ends_with("--form gpt --root-fs ext4"), "{missing}");
}

/// Case H16: nothing on the console tells why such a guest ends.
#[test]
fn memory_for_no_guest_is_refused_with_what_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path(), "");
    let products = Products::of(&layout);
    let with = |memory_mib| Options { memory_mib, ..options("kata", RootKind::Initrd) };
    for refused in
        [firecracker(&products, &with(47)).map(drop), cloud_hypervisor(&products, &with(32)).map(drop)]
    {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("48 MiB") && text.contains("128 MiB"), "{text}");
    }
    assert_eq!(firecracker(&products, &with(48)).unwrap()["machine-config"]["mem_size_mib"], 48);
}
