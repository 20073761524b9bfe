//! Kernels of other profiles than the one that ships.

use anyhow::Result;
use image_builder::kernel;
use image_builder::manifest::Manifest;
use tests::{Guest, Machine};

use crate::layout;

#[test]
fn the_sandbox_kernel_is_the_smaller_one_and_in_the_manifest() -> Result<()> {
    let size = |profile: &str| anyhow::Ok(layout().kernel_file("vmlinuz", profile).metadata()?.len());
    let (sandbox, kata) = (size("sandbox")?, size(kernel::SHIPPED)?);
    println!("vmlinuz of sandbox: {sandbox} bytes, of kata: {kata} bytes");
    assert!(sandbox < kata);
    let manifest = Manifest::read(&layout());
    assert_eq!(manifest.kernels["sandbox"].profile, "sandbox");
    assert_eq!(manifest.products["vmlinuz-sandbox"].size, sandbox);
    Ok(())
}

#[tokio::test]
async fn the_sandbox_kernel_runs_pods() -> Result<()> {
    let guest = Guest::builder().kernel("sandbox").machine(Machine::Microvm).network().boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("echo $((6 * 7))").await?, "42");
    container.remove().await?;
    guest.destroy().await
}
