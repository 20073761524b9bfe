//! Storages of the pod and of its containers: shared by those that bind them, counted, and taken back.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{CreateSandboxRequest, Storage};
use tests::{Code, Guest, expect_code, storage_at};

/// Where a pod's volumes are.
const VOLUMES: &str = "/run/kata-containers/sandbox";

fn sandbox(storages: Vec<Storage>) -> CreateSandboxRequest {
    CreateSandboxRequest { sandbox_id: "pod".into(), hostname: "pod".into(), storages, ..Default::default() }
}

#[tokio::test]
async fn volumes_of_the_pod_are_shared_and_outlive_a_container() -> Result<()> {
    let guest = Guest::boot().await?;
    let (local, memory) = (format!("{VOLUMES}/local/cache"), format!("{VOLUMES}/ephemeral/fast"));
    let request = sandbox(vec![
        storage_at("local", "local", "local", &["mode=0777"], &local),
        storage_at("ephemeral", "tmpfs", "tmpfs", &["size=1m", "mode=1777"], &memory),
        storage_at("blk", "/dev/vda", "erofs", &["ro"], &format!("{VOLUMES}/volumes/disk")),
    ]);
    guest.api().create_sandbox(AgentClient::call(), &request).await?;
    let with_volumes = |id: &str| {
        guest
            .container(id)
            .mount("/cache", "bind", &local, &["rbind", "rw"])
            .mount("/fast", "bind", &memory, &["rbind", "rw"])
            .mount("/disk", "bind", &format!("{VOLUMES}/volumes/disk"), &["rbind", "ro"])
    };
    let first = with_volumes("first").run().await?;
    first.sh("echo from the first > /cache/file; echo in memory > /fast/file").await?;
    first.remove().await?;
    let second = with_volumes("second").run().await?;
    assert_eq!(second.sh("cat /cache/file /fast/file").await?, "from the first\nin memory");
    assert_eq!(second.sh("stat -c %a /cache /fast").await?, "777\n1777");
    // The size holds from the start.
    let full = second.exec(["dd", "if=/dev/zero", "of=/fast/big", "bs=64k", "count=64"]).run().await?;
    let words = String::from_utf8_lossy(&full.stderr).into_owned();
    assert!(full.status != 0 && words.contains("No space left"), "{full:?}");
    assert_eq!(second.sh("test -x /disk/bin/sh && echo a disk").await?, "a disk");
    let refused = second.exec(["touch", "/disk/x"]).run().await?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn a_sandbox_whose_storage_fails_is_not_made_and_can_be_asked_for_again() -> Result<()> {
    let guest = Guest::builder().cmdline(&["agent.hotplug_timeout=1"]).boot().await?;
    let good = storage_at("ephemeral", "tmpfs", "tmpfs", &[], &format!("{VOLUMES}/ephemeral/good"));
    let cases = [
        (storage_at("blk", "/dev/vdz", "ext4", &[], &format!("{VOLUMES}/x")), Code::DEADLINE_EXCEEDED),
        (storage_at("blk", "/dev/vda", "ext4", &["ro"], &format!("{VOLUMES}/x")), Code::INVALID_ARGUMENT),
        (
            storage_at("local", "local", "local", &["mode=rwx"], &format!("{VOLUMES}/x")),
            Code::INVALID_ARGUMENT,
        ),
        (storage_at("nosuchdriver", "", "", &[], &format!("{VOLUMES}/x")), Code::UNIMPLEMENTED),
        (storage_at("local", "local", "local", &[], "../x"), Code::INVALID_ARGUMENT),
    ];
    for (bad, code) in cases {
        let request = sandbox(vec![good.clone(), bad]);
        expect_code(guest.api().create_sandbox(AgentClient::call(), &request).await, code);
        expect_code(guest.container("c1").try_create().await, Code::FAILED_PRECONDITION);
    }
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let mounts = inspector.snapshot().await?.mounts;
    assert!(!mounts.iter().any(|point| point.starts_with(VOLUMES)), "{mounts:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_failed_create_had_mounted_is_released() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    guest.container("warm").run().await?.remove().await?;
    let before = inspector.snapshot().await?;
    let volume = "/run/kata-containers/volume";
    // Its own image and overlay come first, then a volume of it, then the one that fails.
    let broken = guest.container("broken").request(|request| {
        request.storages.push(storage_at("ephemeral", "tmpfs", "tmpfs", &[], volume));
        let bad = storage_at("ephemeral", "tmpfs", "tmpfs", &["flavour=sweet"], "/run/kata-containers/x");
        request.storages.push(bad);
    });
    for _ in 0..3 {
        expect_code(broken.try_create().await, Code::INVALID_ARGUMENT);
        assert_eq!(inspector.settled(&before).await?, before);
    }
    // A volume that another container still uses stays.
    let user = guest
        .container("user")
        .request(|request| request.storages.push(storage_at("ephemeral", "tmpfs", "tmpfs", &[], volume)))
        .mount("/volume", "bind", volume, &["rbind", "rw"])
        .run()
        .await?;
    user.sh("echo kept > /volume/file").await?;
    expect_code(broken.try_create().await, Code::INVALID_ARGUMENT);
    assert_eq!(inspector.sh(&format!("cat /guest{volume}/file")).await?, "kept");
    user.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
