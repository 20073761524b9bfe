//! Storages that no device backs: `ephemeral`, `local`, `bind`, `overlayfs`; and the group that owns a volume.

use anyhow::Result;
use protocols::agent::{FSGroup, Storage};
use protocols::types::FSGroupChangePolicy;
use tests::{Code, Guest, Port, VOLUMES, expect_code, seen, storage};

use crate::{ext4, q35, user_of};

#[tokio::test]
async fn huge_pages_are_put_aside_and_given_back() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let aside = "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let volume = storage("ephemeral", "nodev", "hugetlbfs", &["pagesize=2M", "size=16777216"], "huge");
    let container = user_of(&guest, "c1", volume.clone()).run().await?;
    assert_eq!(inspector.sh(aside).await?, "8");
    assert_eq!(container.sh("grep ' /vol ' /proc/mounts | cut -d ' ' -f 3").await?, "hugetlbfs");
    let size = container.sh("df -k /vol | tail -n 1 | awk '{ print $2 }'").await?;
    assert_eq!(size, "16384");
    // Its files are memory: they are made with a size, not written.
    container.sh("truncate -s 4M /vol/file && test $(stat -c %s /vol/file) = 4194304").await?;
    let another = storage("ephemeral", "nodev", "hugetlbfs", &["pagesize=2M", "size=4M"], "more");
    let second = user_of(&guest, "c2", another).run().await?;
    assert_eq!(inspector.sh(aside).await?, "10");
    container.remove().await?;
    assert_eq!(inspector.sh(aside).await?, "2");
    second.remove().await?;
    assert_eq!(inspector.sh(aside).await?, "0");

    let refuse = async |options: &[&str], code: Code| {
        let volume = storage("ephemeral", "nodev", "hugetlbfs", options, "bad");
        expect_code(user_of(&guest, "c1", volume).try_create().await.map(drop), code)
    };
    let text = refuse(&["pagesize=2M", "size=64G"], Code::RESOURCE_EXHAUSTED).await;
    assert!(text.contains("of 32768 huge pages"), "{text}");
    refuse(&["pagesize=2M"], Code::INVALID_ARGUMENT).await;
    refuse(&["pagesize=3M", "size=3M"], Code::INVALID_ARGUMENT).await;
    assert_eq!(inspector.sh(aside).await?, "0");
    seen("ephemeral", "storage, hugetlbfs", "memory::huge_pages_are_put_aside_and_given_back")
}

#[tokio::test]
async fn volumes_in_memory() -> Result<()> {
    let guest = Guest::boot().await?;
    let names = ["fast", "plain", "upper", "seen"];
    let [fast, plain, _, seen_at] = names.map(|name| format!("{VOLUMES}/{name}"));
    let create = |name: &str| format!("io.katacontainers.volume.overlayfs.create_directory={VOLUMES}/{name}");
    let overlay = Storage {
        driver_options: vec![create("over/upper"), create("over/work")],
        ..storage(
            "overlayfs",
            "overlay",
            "overlay",
            &[
                &format!("lowerdir={plain}"),
                &format!("upperdir={VOLUMES}/over/upper"),
                &format!("workdir={VOLUMES}/over/work"),
            ],
            "over/all",
        )
    };
    let storages = vec![
        storage("ephemeral", "tmpfs", "tmpfs", &["size=1m", "mode=0770", "fsgid=33"], "fast"),
        storage("local", "local", "local", &["mode=0777"], "plain"),
        storage("bind", &plain, "bind", &["bind", "ro"], "seen"),
        overlay,
    ];
    guest.sandbox_with(storages).await?;
    let container = guest
        .container("c1")
        .mount("/fast", "bind", &fast, &["rbind"])
        .mount("/plain", "bind", &plain, &["rbind"])
        .mount("/seen", "bind", &seen_at, &["rbind"])
        .mount("/over", "bind", &format!("{VOLUMES}/over/all"), &["rbind"])
        .run()
        .await?;
    assert_eq!(container.sh("stat -c '%a %g' /fast").await?, "2770 33");
    container.sh("echo one > /fast/file; echo two > /plain/file; echo three > /over/own").await?;
    assert_eq!(container.sh("cat /fast/file /seen/file /over/file /over/own").await?, "one\ntwo\ntwo\nthree");
    assert_ne!(container.exec(["touch", "/seen/x"]).run().await?.status, 0);
    assert_eq!(container.sh("ls /plain").await?, "file", "the overlay keeps its own");
    let test = "memory::volumes_in_memory";
    for (kind, how) in
        [("ephemeral", "storage, tmpfs"), ("local", "storage"), ("bind", "storage"), ("overlayfs", "storage")]
    {
        seen(kind, how, test)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_of_the_pods_owns_a_volume() -> Result<()> {
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    let directory = tempfile::tempdir()?;
    let disk = ext4(&directory.path().join("disk"), 16)?;
    guest.plug_disk(&Port::ROOT, "hot", &disk, false).await?;
    let volume = |group: u32, policy: FSGroupChangePolicy| Storage {
        fs_group: Some(FSGroup { group_id: group, group_change_policy: policy.into(), ..Default::default() })
            .into(),
        ..storage("blk", Port::ROOT.path, "ext4", &[], "hot")
    };
    let user = |id: &str, storage: Storage| {
        user_of(&guest, id, storage).process(|process| {
            let user = process.User.mut_or_insert_default();
            (user.UID, user.GID) = (1000, 1000);
            user.AdditionalGids = vec![2000];
        })
    };
    let first = user("c1", volume(2000, FSGroupChangePolicy::Always)).run().await?;
    assert_eq!(first.sh("stat -c '%a %g' /vol /vol/greeting").await?, "2775 2000\n664 2000");
    first.sh("echo more >> /vol/greeting; mkdir /vol/new; echo x > /vol/new/file").await?;
    assert_eq!(first.sh("stat -c %g /vol/new /vol/new/file").await?, "2000\n2000");
    first.sh("chmod 600 /vol/new/file").await?;
    first.remove().await?;
    // Its root fits, so nothing is looked at.
    let second = user("c2", volume(2000, FSGroupChangePolicy::OnRootMismatch)).run().await?;
    assert_eq!(second.sh("stat -c %a /vol/new/file").await?, "600");
    second.remove().await?;
    let third = user("c3", volume(2001, FSGroupChangePolicy::OnRootMismatch)).run().await?;
    assert_eq!(third.sh("stat -c '%a %g' /vol/new/file").await?, "660 2001");
    seen(
        "fsGroup",
        "ownership of a volume's files, both policies",
        "memory::a_group_of_the_pods_owns_a_volume",
    )
}
