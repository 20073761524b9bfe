//! `install` and `vm-config` as a user types them: outside of any source tree, with products and their manifest alone.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use products::manifest::Manifest;
use store::layout::Layout;

const CONFIG: &str = "CONFIG_ACPI=y\nCONFIG_PCI=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_MMIO=y\nCONFIG_PVH=y\n\
    CONFIG_VIRTIO_VSOCKETS=y\n";
const BASE: &str = "[hypervisor.qemu]\npath = \"/usr/bin/qemu-system-x86_64\"\n[runtime]\n";

/// A product directory as `pull` leaves it, and a working directory that is in no source tree.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let layout = Layout::new(place.path("out"), Some(place.path("out")));
        fs::create_dir(layout.out()).unwrap();
        let files = [("vmlinuz", "z"), ("vmlinux", "x"), ("initrd.img", "i"), ("config", CONFIG)];
        for (name, text) in files {
            fs::write(layout.out().join(name), text).unwrap();
        }
        Manifest::update(&layout, |manifest| {
            files.iter().try_for_each(|(name, _)| manifest.add_product(&layout, name))
        })
        .unwrap();
        fs::write(place.path("base.toml"), BASE).unwrap();
        fs::create_dir(place.path("stage")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-builder"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn below(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

/// Case H8.
#[test]
fn products_are_enough() {
    let place = Scratch::new();
    let value = place.json(&["--json", "--out", "out", "vm-config", "firecracker"]);
    assert!(value["boot-source"]["kernel_image_path"].as_str().unwrap().ends_with("/out/vmlinux"));
    let text = place.run(&["--out", "out", "vm-config", "cloud-hypervisor"]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("/out/initrd.img"));
    let install =
        ["--json", "--out", "out", "install", "--kata", "--base", "base.toml", "--staging", "stage"];
    let report = place.json(&install);
    assert!(report["written"].as_array().unwrap().len() > 5, "{report}");
    assert!(place.path("stage/opt/pith/vmlinuz").is_file());
    // `run` gets as far as the manifest of a pod, which is read before the products are looked for.
    fs::write(
        place.path("pod.yaml"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: ./i}]}\n",
    )
    .unwrap();
    let missing = place.run(&["--out", "nothing", "run", "-f", "pod.yaml"]);
    let error = String::from_utf8(missing.stderr).unwrap();
    assert!(error.contains("nothing/vmlinux") && !error.contains("kernel-config"), "{error}");
    // A program that is in no source tree finds nothing, until products are where a package has them.
    let program = place.path("usr/bin/image-builder");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_image-builder"), &program).unwrap();
    let run = || {
        let mut command = Command::new(&program);
        command
            .args(["vm-config", "firecracker"])
            .current_dir(place.path("stage"))
            .env("HOME", place.path("home"));
        command.env_remove("XDG_DATA_HOME").env_remove("PITH_OUT").output().unwrap()
    };
    let error = String::from_utf8(run().stderr).unwrap();
    assert!(error.contains("--out"), "{error}");
    fs::create_dir(place.path("usr/lib")).unwrap();
    fs::rename(place.path("out"), place.path("usr/lib/pith")).unwrap();
    let text = String::from_utf8(run().stdout).unwrap();
    assert!(text.contains("/usr/lib/pith/vmlinux"), "{text}");
}

/// Case H6: a removal needs neither products nor Kata's configuration.
#[test]
fn a_removal_needs_nothing_but_the_receipt() {
    let place = Scratch::new();
    let install =
        ["--json", "--out", "out", "install", "--kata", "--base", "base.toml", "--staging", "stage"];
    let dry: Vec<&str> = install.iter().copied().chain(["--dry-run"]).collect();
    let would = place.json(&dry);
    assert_eq!((would["dry_run"].as_bool(), below(&place.path("stage"))), (Some(true), 0));
    assert_eq!(place.json(&install)["written"], would["written"]);
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::remove_file(place.path("base.toml")).unwrap();
    let uninstall = ["--json", "install", "--kata", "--uninstall", "--staging", "stage"];
    let report = place.json(&uninstall);
    assert_eq!(report["removed"].as_array().unwrap().len(), would["written"].as_array().unwrap().len());
    assert_eq!(below(&place.path("stage")), 0);
    let again = place.run(&uninstall);
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(!again.status.success() && error.contains("installed/kata-pith.json"), "{error}");
}

/// A call for the end, while another installation holds the lock.
#[test]
fn a_signal_ends_an_installation_that_waits() {
    let place = Scratch::new();
    fs::create_dir_all(place.path("stage/opt/pith")).unwrap();
    let held = fs::File::open(place.path("stage/opt/pith")).unwrap();
    let _held = Flock::lock(held, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let mut child = place
        .command(&["--out", "out", "install", "--kata", "--base", "base.toml", "--staging", "stage"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its directory for receipts is the last thing that it makes before it wants the lock.
    while !place.path("stage/opt/pith/installed").is_dir() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(130), None), "{output:?}");
    assert_eq!(below(&place.path("stage/opt/pith")), 0, "something was left behind");
    assert_eq!(below(&place.path("stage/opt")), 1, "what was there before is gone");
}
