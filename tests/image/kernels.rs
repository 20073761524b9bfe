//! Kernels of other profiles than the one that ships.

use anyhow::Result;
use products::kernel;
use products::manifest::Manifest;
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

/// Firecracker describes its devices by ACPI, or puts them on PCI; it runs under KVM only, and these machines of QEMU have
/// the same properties.
#[tokio::test]
async fn the_sandbox_kernel_finds_its_devices_by_acpi_and_on_pci() -> Result<()> {
    for machine in [Machine::MicrovmAcpi, Machine::Q35] {
        let guest = Guest::builder().kernel("sandbox").machine(machine).network().boot().await?;
        guest.sandbox().await?;
        let container = guest.container("c1").run().await?;
        assert_eq!(container.sh("ls /sys/class/net").await?, "eth0\nlo");
        container.remove().await?;
        guest.destroy().await?;
    }
    Ok(())
}

/// A restored guest must not repeat its random numbers; the kernel hears of a restore from this device.
#[tokio::test]
async fn kernels_that_ship_know_the_generation_of_their_machine() -> Result<()> {
    for profile in [kernel::SHIPPED, "sandbox"] {
        let device = ["-device", "vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"];
        let mut builder = Guest::builder().machine(Machine::Q35).qemu(&device);
        if profile != kernel::SHIPPED {
            builder = builder.kernel(profile);
        }
        let guest = builder.boot().await?;
        guest.sandbox().await?;
        let container = guest.container("c1").run().await?;
        let drivers = "ls -d /sys/bus/*/drivers/vmgenid/*:00";
        let bound = container.sh(drivers).await?;
        assert!(!bound.is_empty(), "{profile}");
    }
    Ok(())
}
