//! Products built again and compared.

use anyhow::{Context as _, Result};
use products::manifest::Manifest;
use products::verify::{Options, Outcome, Report, verify};
use store::cache::Cache;
use store::digest::Digest;
use store::layout::Layout;
use store::progress::Progress;

use crate::layout;

async fn report(directory: &std::path::Path) -> Result<Report> {
    let cache = Cache::locate(|name| std::env::var_os(name))?;
    Ok(verify(&layout(), directory, Options::default(), &cache, Progress::Silent).await?)
}

#[tokio::test]
async fn every_product_is_what_the_source_tree_makes() -> Result<()> {
    let report = report(layout().out()).await?;
    let wrong: Vec<_> = report.iter().filter(|(_, outcome)| *outcome != Outcome::Same).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in [
        "vmlinuz",
        "vmlinuz-sandbox",
        "agent",
        "initrd.img",
        "disk-minimal-kata.img",
        "disk-minimal-kata-ext4.img",
        "sbom.spdx.json",
    ] {
        assert!(report.iter().any(|(product, _)| product == name), "{name} is not in the manifest");
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_byte_is_found_and_one_whose_digest_was_forged_too() -> Result<()> {
    const AT: usize = 1_000_000;
    let directory = tempfile::tempdir()?;
    let copy = Layout::new(layout().root().to_path_buf(), Some(directory.path().to_path_buf()));
    std::fs::copy(layout().agent(), copy.agent())?;
    let mut bytes = std::fs::read(layout().initrd())?;
    bytes[AT] ^= 1;
    std::fs::write(copy.initrd(), &bytes)?;
    let whole = Manifest::read(&layout());
    let products =
        ["agent", "initrd.img"].map(|name| Some((name.to_owned(), whole.products.get(name)?.clone())));
    let mut manifest = Manifest {
        agent: whole.agent,
        initrd: whole.initrd,
        products: products.into_iter().flatten().collect(),
        ..Manifest::default()
    };
    std::fs::write(copy.manifest(), serde_json::to_vec(&manifest)?)?;
    let outcomes = report(directory.path()).await?;
    assert_eq!(outcomes[0], ("agent".to_owned(), Outcome::Same));
    assert!(matches!(outcomes[1].1, Outcome::Changed { .. }), "{outcomes:?}");

    manifest.products.get_mut("initrd.img").context("the initrd is a product")?.sha256 = Digest::of(&bytes);
    std::fs::write(copy.manifest(), serde_json::to_vec(&manifest)?)?;
    let outcomes = report(directory.path()).await?;
    let size = bytes.len() as u64;
    let expected = Outcome::Different { offset: AT as u64, size, built: size, entry: None };
    assert_eq!(outcomes[1].1, expected);
    Ok(())
}
