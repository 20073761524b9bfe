//! What `vm-config` prints, on a machine that announces its devices as Firecracker does.

use anyhow::{Context as _, Result};
use products::deploy::vmm::{self, Options};
use products::deploy::{Products, RootKind};
use products::disk::FileSystem;
use products::kernel;
use store::layout::SHIPPED;
use tests::{Guest, Machine};

use crate::layout;

/// What Firecracker appends by itself: the place of a device that its ACPI tables name, too, and `pci=off`. This is the place of
/// the first device of QEMU's microvm.
const APPENDED: [&str; 2] = ["pci=off", "virtio_mmio.device=512@0xfeb02e00:47"];

/// The kernel's messages on the console of a guest that got ready.
async fn noise(words: &[&str]) -> Result<Vec<String>> {
    let guest =
        Guest::builder().machine(Machine::MicrovmAcpi).cmdline(words).cmdline(&APPENDED).boot().await?;
    let console = guest.vm().console_log();
    guest.sandbox().await?;
    guest.destroy().await?;
    Ok(console.lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect())
}

/// Case H14. The stand-in is QEMU's microvm with ACPI: devices in the DSDT and on the command line, and no PCI.
#[tokio::test]
async fn devices_that_are_announced_twice_make_no_noise_under_firecracker() -> Result<()> {
    let layout = layout();
    let options = Options {
        profile: kernel::SHIPPED.into(),
        flavour: SHIPPED.into(),
        root: RootKind::Initrd,
        root_fs: FileSystem::Erofs,
        memory_mib: 256,
        cpus: 1,
        vsock: "vsock".into(),
        enable_pci: false,
        append: Vec::new(),
    };
    let printed = vmm::firecracker(&Products::of(&layout), &options)?;
    let words = printed["boot-source"]["boot_args"].as_str().context("no words")?;
    let quiet = noise(&words.split(' ').collect::<Vec<_>>()).await?;
    assert_eq!(quiet, Vec::<String>::new());
    let loud = noise(&["quiet"]).await?;
    assert!(loud.iter().any(|line| line.contains("error -16")), "no device was announced twice: {loud:?}");
    Ok(())
}
