//! Pausing, resuming, and limits that change while a container lives.

use anyhow::Result;
use protocols::oci;
use tests::{Code, Guest, expect_code};

#[tokio::test]
async fn a_paused_container_stands_still_and_goes_on_where_it_was() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").script("while :; do :; done").run().await?;
    expect_code(container.resume().await, Code::FAILED_PRECONDITION);
    container.pause().await?;
    let used = "sed -n 's/^usage_usec //p' /guest/cgroup/test/c1/cpu.stat";
    let before = inspector.sh(used).await?;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(inspector.sh(used).await?, before);
    expect_code(container.pause().await, Code::FAILED_PRECONDITION);
    expect_code(container.exec(["true"]).start().await, Code::FAILED_PRECONDITION);
    container.resume().await?;
    assert_eq!(container.sh("echo goes on").await?, "goes on");
    Ok(())
}

#[tokio::test]
async fn a_paused_container_can_be_killed_and_removed() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let (a, b) = (guest.container("aa").run().await?, guest.container("bb").run().await?);
    a.pause().await?;
    b.pause().await?;
    a.signal("", 9).await?;
    assert_eq!(a.wait().await?, 137);
    b.remove().await?;
    guest.container("bb").run().await?;
    Ok(())
}

#[tokio::test]
async fn limits_change_while_a_container_lives_and_others_stay() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest
        .container("c1")
        .resources(|resources| resources.Memory.mut_or_insert_default().Limit = 32 << 20)
        .run()
        .await?;
    container.update(None).await?;
    let mut resources = oci::LinuxResources::new();
    resources.Memory.mut_or_insert_default().Limit = 64 << 20;
    resources.CPU.mut_or_insert_default().Quota = 30_000;
    resources.CPU.mut_or_insert_default().Period = 100_000;
    container.update(Some(resources)).await?;
    let values = "cd /guest/cgroup/test/c1; cat memory.max cpu.max";
    assert_eq!(inspector.sh(values).await?, "67108864\n30000 100000");
    let mut only_pids = oci::LinuxResources::new();
    only_pids.Pids.mut_or_insert_default().Limit = 9;
    container.update(Some(only_pids)).await?;
    assert_eq!(inspector.sh("cd /guest/cgroup/test/c1; cat memory.max pids.max").await?, "67108864\n9");
    Ok(())
}
