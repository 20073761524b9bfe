//! The agent goes on when something of its own breaks.

use anyhow::Result;
use protocols::oci::LinuxNamespace;
use tests::Guest;

#[tokio::test]
async fn a_forker_that_dies_is_replaced() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    // In the guest's own pid namespace, so that it can signal the forker.
    let killer = guest
        .container("killer")
        .privileged()
        .linux(|linux| {
            linux.Namespaces.push(LinuxNamespace {
                Type: "pid".into(),
                Path: "/proc/1/ns/pid".into(),
                ..LinuxNamespace::default()
            });
        })
        .run()
        .await?;
    let find = "grep -l '^/proc/self/exe' /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3";
    let first = killer.sh(find).await?;
    killer.sh(&format!("kill -9 {first}")).await?;
    assert_eq!(container.sh("echo started by another").await?, "started by another");
    assert_eq!(guest.container("c2").script("exit 8").run().await?.wait().await?, 8);
    let second = killer.sh(find).await?;
    assert_ne!(first, second);
    assert!(guest.vm().console_log().contains("the forker is gone"), "{}", guest.vm().console_log());
    Ok(())
}
