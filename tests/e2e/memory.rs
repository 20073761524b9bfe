//! What the host adds to a running guest's memory: swap space, and seed for the random generator.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{AddSwapPathRequest, AddSwapRequest, ReseedRandomDevRequest};
use tempfile::TempDir;
use tests::{Code, Guest, Machine, expect_code};

const SIZE: u64 = 4 << 20;
const PAGE: usize = 4096;

/// A disk with the header of mkswap(8): version 1, the last page's number, and the signature at the end of a page.
fn swap_disk(directory: &TempDir, signature: &[u8]) -> Result<std::path::PathBuf> {
    let mut header = vec![0u8; PAGE];
    header[1024..1028].copy_from_slice(&1u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&(SIZE as u32 / PAGE as u32 - 1).to_le_bytes());
    header[PAGE - signature.len()..].copy_from_slice(signature);
    let path = directory.path().join("swap.raw");
    std::fs::write(&path, &header)?;
    std::fs::OpenOptions::new().write(true).open(&path)?.set_len(SIZE)?;
    Ok(path)
}

fn at(path: &str) -> AddSwapPathRequest {
    AddSwapPathRequest { path: path.into(), ..Default::default() }
}

#[tokio::test]
async fn swap_space_is_added_by_path_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let guest = Guest::builder().disk(&swap_disk(&directory, b"SWAPSPACE2")?).boot().await?;
    let call = AgentClient::call;
    let before =
        expect_code(guest.api().add_swap_path(call(), &at("/dev/vda")).await, Code::INVALID_ARGUMENT);
    assert!(before.contains("/dev/vda") && before.contains("mkswap"), "{before}");
    guest.api().add_swap_path(call(), &at("/dev/vdb")).await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let swaps = container.sh("grep vdb /proc/swaps; grep SwapTotal /proc/meminfo").await?;
    assert!(swaps.contains("vdb") && swaps.contains("4092 kB"), "{swaps}");
    let twice =
        expect_code(guest.api().add_swap_path(call(), &at("/dev/vdb")).await, Code::FAILED_PRECONDITION);
    assert!(twice.contains("in use"), "{twice}");
    assert_eq!(container.sh("grep -c vdb /proc/swaps").await?, "1");
    Ok(())
}

#[tokio::test]
async fn swap_space_is_added_by_pci_path() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = swap_disk(&directory, b"SWAPSPACE2")?;
    let guest = Guest::builder().machine(Machine::Q35).disk(&disk).boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let slot = container.pci_slot("vdb").await?;
    let slot = u32::from_str_radix(&slot, 16)?;
    let request = AddSwapRequest { PCIPath: vec![slot], ..Default::default() };
    guest.api().add_swap(AgentClient::call(), &request).await?;
    assert_eq!(container.sh("grep -c vdb /proc/swaps").await?, "1");
    Ok(())
}

#[tokio::test]
async fn swap_space_that_is_not_there_or_none_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = swap_disk(&directory, b"NOT A SWAP")?;
    let guest = Guest::builder().cmdline(&["agent.hotplug_timeout=1"]).disk(&disk).boot().await?;
    let call = AgentClient::call;
    expect_code(guest.api().add_swap_path(call(), &at("/dev/vdb")).await, Code::INVALID_ARGUMENT);
    for nowhere in ["", "vdb", "/dev/../etc/hosts"] {
        expect_code(guest.api().add_swap_path(call(), &at(nowhere)).await, Code::INVALID_ARGUMENT);
    }
    expect_code(guest.api().add_swap_path(call(), &at("/run/none")).await, Code::NOT_FOUND);
    expect_code(guest.api().add_swap_path(call(), &at("/dev/vdz")).await, Code::DEADLINE_EXCEEDED);
    let request = |slots: &[u32]| AddSwapRequest { PCIPath: slots.to_vec(), ..Default::default() };
    expect_code(guest.api().add_swap(call(), &request(&[])).await, Code::INVALID_ARGUMENT);
    expect_code(guest.api().add_swap(call(), &request(&[99])).await, Code::INVALID_ARGUMENT);
    expect_code(guest.api().add_swap(call(), &request(&[3])).await, Code::DEADLINE_EXCEEDED);
    guest.sandbox().await?;
    assert_eq!(guest.container("c1").run().await?.sh("grep -c /dev /proc/swaps || true").await?, "0");
    Ok(())
}

#[tokio::test]
async fn the_random_generator_takes_a_seed_and_refuses_none() -> Result<()> {
    let guest = Guest::boot().await?;
    let call = AgentClient::call;
    let seed = |bytes: usize| ReseedRandomDevRequest { data: vec![0x5a; bytes], ..Default::default() };
    guest.api().reseed_random_dev(call(), &seed(512)).await?;
    expect_code(guest.api().reseed_random_dev(call(), &seed(0)).await, Code::INVALID_ARGUMENT);
    expect_code(guest.api().reseed_random_dev(call(), &seed(1 << 20)).await, Code::INVALID_ARGUMENT);
    Ok(())
}
