//! Products for several processors, as users ask for them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use products::manifest::Manifest;
use store::arch::Arch;
use store::layout::Layout;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs the program with this tree's recipes and fragments, and a product directory and a cache of its own.
fn run(place: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-builder"));
    command.arg("--root").arg(root()).arg("--out").arg(place.join("out")).args(arguments);
    command.env("PITH_CACHE", place.join("cache")).output().unwrap()
}

/// What a command that failed said.
fn refused(place: &Path, arguments: &[&str]) -> String {
    let output = run(place, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{arguments:?}: {text}");
    text
}

/// The least that is a program for a processor, with bytes of its own.
fn program(arch: Arch) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&arch.elf_machine().to_le_bytes());
    file
}

#[test]
fn a_processor_that_nobody_knows_is_refused_with_those_that_there_are() {
    let place = tempfile::tempdir().unwrap();
    for verb in ["agent", "build", "initrd", "disk", "uki"] {
        let text = refused(place.path(), &[verb, "--arch", "mips"]);
        assert!(text.contains("'mips' for '--arch <ARCH>'") && text.contains("x86_64, aarch64"), "{text}");
    }
    for arguments in [&["program", "jail", "--arch", "mips"][..], &["kernel", "build", "--arch", "mips"]] {
        let text = refused(place.path(), arguments);
        assert!(text.contains("x86_64, aarch64"), "{text}");
    }
}

#[test]
fn a_profile_for_another_processor_is_refused_with_those_that_fit() {
    let place = tempfile::tempdir().unwrap();
    let text = refused(place.path(), &["kernel", "check", "--profile", "kata", "--arch", "aarch64"]);
    let expected = "profile kata is for x86_64, not for aarch64; for aarch64 there are: aarch64";
    assert!(text.contains(expected), "{text}");
    let text = refused(place.path(), &["build", "--profile", "aarch64", "--arch", "x86_64"]);
    assert!(
        text.contains("profile aarch64 is for aarch64, not for x86_64; for x86_64 there are: "),
        "{text}"
    );
    assert!(text.contains("kata, "), "{text}");
}

#[test]
fn there_is_no_unified_kernel_image_for_arm() {
    let place = tempfile::tempdir().unwrap();
    let text = refused(place.path(), &["uki", "--arch", "aarch64"]);
    assert!(text.contains("not for aarch64") && text.contains("boot kernel and initrd"), "{text}");
}

#[test]
fn initrds_and_disks_of_both_are_side_by_side() {
    let place = tempfile::tempdir().unwrap();
    let layout = Layout::new(root().into(), Some(place.path().join("out")));
    fs::create_dir_all(layout.out()).unwrap();
    for arch in Arch::ALL {
        fs::write(layout.for_arch(arch).agent(), program(arch)).unwrap();
        let arch = arch.to_string();
        for verb in [&["initrd"][..], &["disk", "--form", "plain"]] {
            let output = run(place.path(), &[verb, &["--arch", &arch]].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let manifest = Manifest::read(&layout);
    let names: Vec<_> = manifest.products.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "disk-minimal-plain-aarch64.cmdline",
            "disk-minimal-plain-aarch64.img",
            "disk-minimal-plain.cmdline",
            "disk-minimal-plain.img",
            "initrd-aarch64.img",
            "initrd.img"
        ]
    );
    let products = manifest.products.values();
    assert_eq!(
        products.map(|file| file.sha256.to_string()).collect::<std::collections::BTreeSet<_>>().len(),
        6
    );
    assert_eq!(manifest.initrd.as_ref().unwrap().arch, Arch::X86_64);
    assert_eq!(manifest.flavours["minimal-aarch64"].arch, Arch::Aarch64);
    assert_eq!(manifest.disks["disk-minimal-plain-aarch64.img"].arch, Arch::Aarch64);
    let cmdline = layout.out().join("disk-minimal-plain-aarch64.cmdline");
    assert!(fs::read_to_string(cmdline).unwrap().starts_with("root=PARTUUID="));
}

#[test]
fn an_agent_of_another_processor_is_not_packed() {
    let place = tempfile::tempdir().unwrap();
    let layout = Layout::new(root().into(), Some(place.path().join("out"))).for_arch(Arch::Aarch64);
    fs::create_dir_all(layout.out()).unwrap();
    fs::write(layout.agent(), program(Arch::X86_64)).unwrap();
    let text = refused(place.path(), &["initrd", "--arch", "aarch64"]);
    assert!(text.contains("agent-aarch64 is for x86_64, not for aarch64"), "{text}");
    assert!(!layout.initrd().exists());
}
