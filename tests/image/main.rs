//! What image-builder makes: the same bytes when built twice, within its budgets, and bootable in every form.

mod aarch64;
mod bootchart;
mod disks;
mod kernels;
mod recipes;
mod registry;
mod uki;
mod verify;
mod vmm;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use machine::vm::{Machine, Vm, VmConfig};
use products::format::compress::Compression;
use products::initrd::{self, Options};
use products::manifest::Manifest;
use products::recipe;
use store::layout::Layout;

/// Bytes that the products may have (issue: vmlinuz, initrd).
const VMLINUZ_MOST: u64 = 5_000_000;
const INITRD_MOST: u64 = 2_000_000;

fn layout() -> Layout {
    Layout::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."), None)
}

/// The flavour that is packed twice here, as `--check` does it. Of every other one, what is in `out` is the first packing,
/// and the two are compared.
const TWICE: &str = "minimal";

fn options(flavour: &str, compression: Compression) -> Options {
    let twice = flavour == TWICE;
    Options { flavour: flavour.into(), compression, epoch: 0, twice, cache: None }
}

async fn boots(kernel: PathBuf, image: &[u8], machine: Machine) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, image)?;
    let mut config = VmConfig::new(kernel, initrd, directory.path().join("vm"));
    config.machine = machine;
    // The kernel unpacks it, as under KVM and other monitors.
    config.shortcuts = false;
    let vm = Vm::boot(config).await?;
    assert!(!vm.ready().version.is_empty());
    vm.stop().await?;
    Ok(())
}

/// The probe is linked as the agent is.
#[test]
fn static_programs_unwind() -> Result<()> {
    let ended = std::process::Command::new(layout().out().join("probe")).arg("--panic").output()?;
    assert!(ended.status.success(), "{ended:?}");
    Ok(())
}

#[test]
fn products_are_within_their_budgets_and_in_the_manifest() -> Result<()> {
    let layout = layout();
    for (path, most) in [(layout.vmlinuz(), VMLINUZ_MOST), (layout.initrd(), INITRD_MOST)] {
        let size = path.metadata()?.len();
        assert!(size < most, "{} has {size} bytes", path.display());
        println!("{}: {size} bytes", path.display());
    }
    let manifest = Manifest::read(&layout);
    let text = serde_json::to_string(&manifest)?;
    for name in ["vmlinuz", "vmlinux", "initrd.img", "agent"] {
        assert!(text.contains(&format!("\"{name}\"")), "{name} is not in {text}");
    }
    Ok(())
}

#[test]
fn an_initrd_of_every_flavour_packed_again_is_the_one_in_out() -> Result<()> {
    let layout = layout();
    for flavour in recipe::known(&layout) {
        let again = initrd::pack(&layout, &options(&flavour, Compression::Zstd))?;
        let path = layout.flavour_initrd(&flavour);
        let packed =
            std::fs::read(&path).with_context(|| format!("{}: run `make images`", path.display()))?;
        assert!(again.image() == packed, "{} has other bytes than its recipe", path.display());
        println!("{flavour}: {} bytes", packed.len());
    }
    Ok(())
}

#[tokio::test]
async fn every_flavour_boots() -> Result<()> {
    let layout = layout();
    for flavour in recipe::known(&layout) {
        let initrd = std::fs::read(layout.flavour_initrd(&flavour))?;
        boots(layout.vmlinux(), &initrd, Machine::Microvm).await.with_context(|| flavour)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_kernel_that_ships_boots_the_initrd_that_ships_on_a_q35() -> Result<()> {
    let layout = layout();
    boots(layout.vmlinuz(), &std::fs::read(layout.initrd())?, Machine::Q35).await
}

#[tokio::test]
async fn an_initrd_boots_however_it_is_compressed() -> Result<()> {
    let layout = layout();
    for compression in [Compression::Gzip, Compression::Lz4, Compression::Xz, Compression::None] {
        let initrd = initrd::pack(&layout, &options(TWICE, compression))?;
        boots(layout.vmlinux(), initrd.image(), Machine::Microvm).await?;
    }
    Ok(())
}
