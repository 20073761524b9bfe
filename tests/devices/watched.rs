//! `watchable-bind`: volumes that the host changes while the pod runs.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use protocols::agent::Storage;
use tests::{Code, Container, Guest, VOLUMES, expect_code, seen, storage};

use crate::before;

const SHARED: &str = "/run/kata-containers/shared/containers";

/// Writes a config map as kubelets do: a new directory, and a symlink to it that is replaced in one step.
fn write(root: &Path, stamp: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(root.join(stamp))?;
    std::fs::write(root.join(stamp).join("key"), text)?;
    symlink(stamp, root.join("..tmp"))?;
    std::fs::rename(root.join("..tmp"), root.join("..data"))?;
    if !root.join("key").is_symlink() {
        symlink("..data/key", root.join("key"))?;
    }
    Ok(())
}

fn watched(name: &str) -> Storage {
    storage("watchable-bind", &format!("{SHARED}/watchable/{name}"), "bind", &[], name)
}

/// Waits until a file of a container says something.
async fn becomes(container: &Container, file: &str, text: &str) -> Result<()> {
    let wait = format!(
        "for i in $(seq 200); do test \"$(cat {file})\" = '{text}' && exit; sleep 0.1; done; cat {file}; exit 1"
    );
    container.sh(&wait).await.map(drop)
}

#[tokio::test]
async fn a_config_map_changes_in_a_running_container() -> Result<()> {
    let shared = tempfile::tempdir()?;
    let map = shared.path().join("watchable/map");
    write(&map, "..1", "one")?;
    let single = shared.path().join("watchable/single");
    std::fs::write(&single, "first")?;
    let large = shared.path().join("watchable/large");
    std::fs::create_dir(&large)?;
    for number in 0..20 {
        std::fs::write(large.join(format!("{number}")), "x")?;
    }
    let guest = Guest::builder().share(shared.path(), "kataShared").boot().await?;
    let root =
        Storage { mount_point: SHARED.into(), ..storage("virtio-fs", "kataShared", "virtiofs", &[], "") };
    guest.sandbox_with(vec![root]).await?;
    let (inspector, before) = before(&guest).await?;
    let container = guest
        .container("c1")
        .request(|request| request.storages.extend([watched("map"), watched("single"), watched("large")]))
        .mount("/map", "bind", &format!("{VOLUMES}/map"), &["rbind", "ro"])
        .mount("/single", "bind", &format!("{VOLUMES}/single"), &["bind", "ro"])
        .mount("/large", "bind", &format!("{VOLUMES}/large"), &["rbind", "ro"])
        .run()
        .await?;
    assert_eq!(container.sh("cat /map/key /single; ls /large | wc -l").await?, "onefirst20");
    let kinds = "awk '$5 ~ /^.(map|large)$/ { print $5, $(NF-2) }' /proc/self/mountinfo | sort";
    assert_eq!(container.sh(kinds).await?, "/large virtiofs\n/map tmpfs");
    // A program that waits for events hears of them; on the shared file system it would not.
    let waiting = container.exec(["sh", "-c", "inotifyd - /map:yn | head -n 1"]).start().await?;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    write(&map, "..2", "two")?;
    std::fs::remove_dir_all(map.join("..1"))?;
    std::fs::write(&single, "second")?;
    becomes(&container, "/map/key", "two").await?;
    becomes(&container, "/single", "second").await?;
    assert_eq!(container.sh("ls -a /map | grep '^\\.\\.[0-9]'; readlink /map/..data").await?, "..2\n..2");
    assert_eq!(waiting.wait().await?, 0);
    container.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);

    let outside = Storage { source: "/etc".into(), ..watched("bad") };
    let refused = guest.container("c2").request(|request| request.storages.push(outside)).try_create().await;
    expect_code(refused.map(drop), Code::INVALID_ARGUMENT);
    let test = "watched::a_config_map_changes_in_a_running_container";
    seen("watchable-bind", "storage, a config map and a file that the host changes; a large one bound", test)
}
