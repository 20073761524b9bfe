//! Unified kernel images: the same bytes twice, and a pod on one that firmware started.

use std::path::Path;

use anyhow::{Result, ensure};
use machine::vm::{Machine, Root};
use products::manifest::Manifest;
use products::recipe;
use products::uki::{self, Options};
use tests::Guest;

use crate::layout;

const FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";

#[test]
fn an_image_of_every_flavour_is_the_one_in_out() -> Result<()> {
    let manifest = Manifest::read(&layout());
    for flavour in recipe::known(&layout()) {
        let path = layout().uki(&flavour);
        ensure!(path.is_file(), "{} is missing: run `make images`", path.display());
        let options = Options { flavour: flavour.clone(), cmdline: uki::CMDLINE.into(), stub: None };
        let again = uki::pack(&layout(), &options)?;
        ensure!(again.image() == std::fs::read(&path)?, "{} has other bytes than its parts", path.display());
        assert_eq!(manifest.ukis[&format!("uki-{flavour}.efi")], *again.part());
        println!("{}: {} bytes", path.display(), again.image().len());
    }
    Ok(())
}

#[tokio::test]
async fn firmware_starts_it_and_a_pod_runs() -> Result<()> {
    ensure!(Path::new(FIRMWARE).is_file(), "{FIRMWARE} is missing: run `make setup`");
    let root = Root::Unified { firmware: FIRMWARE.into() };
    let guest =
        Guest::builder().image(&layout().uki("minimal")).root(root).machine(Machine::Q35).boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let cmdline = container.sh("cat /proc/cmdline").await?;
    // The kernel puts its built-in words before those.
    assert!(cmdline.ends_with(uki::CMDLINE), "{cmdline:?} is not the image's own");
    container.remove().await?;
    guest.destroy().await
}
