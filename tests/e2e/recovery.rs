//! The agent goes on when something of its own breaks.

use anyhow::Result;
use protocols::oci::LinuxNamespace;
use tests::{Container, Guest};

/// Prints the forker's process id, in the guest's own pid namespace.
pub(crate) const FORKER: &str = "grep -l '^/proc/self/exe' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3";

/// A container in the guest's own pid namespace, so that it can signal the forker.
pub(crate) async fn killer(guest: &Guest, id: &str) -> Result<Container> {
    let killer = guest.container(id).privileged().linux(|linux| {
        linux.Namespaces.push(LinuxNamespace {
            Type: "pid".into(),
            Path: "/proc/1/ns/pid".into(),
            ..LinuxNamespace::default()
        });
    });
    killer.run().await
}

#[tokio::test]
async fn a_forker_that_dies_is_replaced() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let killer = killer(&guest, "killer").await?;
    let first = killer.sh(FORKER).await?;
    killer.sh(&format!("kill -9 {first}")).await?;
    assert_eq!(container.sh("echo started by another").await?, "started by another");
    assert_eq!(guest.container("c2").script("exit 8").run().await?.wait().await?, 8);
    let second = killer.sh(FORKER).await?;
    assert_ne!(first, second);
    assert!(guest.vm().console_log().contains("the forker is gone"), "{}", guest.vm().console_log());
    Ok(())
}
