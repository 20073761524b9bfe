//! Mount options: each that a spec names is in force.

use anyhow::Result;
use tests::Container;

use crate::{STORE, in_guest, store, with_image};

/// Exit status and stderr of a script.
async fn try_sh(container: &Container, script: &str) -> Result<(i32, String)> {
    let finished = container.exec(["sh", "-c", script]).run().await?;
    Ok((finished.status, String::from_utf8_lossy(&finished.stderr).into_owned()))
}

#[tokio::test]
async fn size_and_mode_of_a_tmpfs_are_in_force() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .mount("/small", "tmpfs", "tmpfs", &["size=64k", "mode=0750", "uid=33", "gid=5", "nr_inodes=8"])
            .mount("/sticky", "tmpfs", "tmpfs", &["mode=1777", "noswap"])
            .run()
            .await?;
        assert_eq!(one.sh("stat -c '%a %u %g' /small /sticky").await?, "750 33 5\n1777 0 0");
        assert_eq!(one.sh("df -k /small | awk 'END { print $2 }'").await?, "64");
        let (code, text) = try_sh(&one, "dd if=/dev/zero of=/small/big bs=1k count=100").await?;
        assert_ne!(code, 0);
        assert!(text.contains("No space left on device"), "{text}");
        let (code, _) =
            try_sh(&one, "for i in 1 2 3 4 5 6 7 8 9; do touch /small/$i || exit 9; done").await?;
        assert_eq!(code, 9, "nr_inodes");
        Ok(())
    })
    .await
}

/// As `docker run --tmpfs` and others count on: an image's private directory stays private.
#[tokio::test]
async fn a_tmpfs_has_the_mode_of_the_directory_that_it_covers() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let image =
            "mkdir -m 0700 private copied copied-said && mkdir -m 2750 group && mkdir -m 0700 said && \
             ln -s private link && echo kept > copied/file";
        let one = with_image(guest, &inspector, "one", image)
            .await?
            .mount("/link", "tmpfs", "tmpfs", &["nosuid"])
            .mount("/group", "tmpfs", "tmpfs", &["size=64k"])
            .mount("/said", "tmpfs", "tmpfs", &["mode=1755"])
            .mount("/fresh", "tmpfs", "tmpfs", &[])
            .mount("/copied", "tmpfs", "tmpfs", &["tmpcopyup"])
            .mount("/copied-said", "tmpfs", "tmpfs", &["tmpcopyup", "mode=0711"])
            .mount("/copied-fresh", "tmpfs", "tmpfs", &["tmpcopyup"])
            .run()
            .await?;
        let seen =
            one.sh("stat -c '%a' /private /group /said /fresh; grep -c ' /private ' /proc/mounts").await?;
        assert_eq!(seen, "700\n2750\n1755\n1777\n1");
        let seen = one.sh("stat -c '%a' /copied /copied-said /copied-fresh; cat /copied/file").await?;
        assert_eq!(seen, "700\n711\n1777\nkept");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn noexec_stops_programs() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir bound && chmod 777 bound").await?;
        let one = guest
            .container("one")
            .mount("/tmpfs", "tmpfs", "tmpfs", &["noexec"])
            .mount("/bound", "bind", &format!("{STORE}/bound"), &["bind", "noexec"])
            .mount("/may", "tmpfs", "tmpfs", &["noexec", "exec"])
            .run()
            .await?;
        one.sh("for dir in /tmpfs /bound /may; do cp /bin/busybox $dir/; done").await?;
        for dir in ["/tmpfs", "/bound"] {
            let (code, text) = try_sh(&one, &format!("{dir}/busybox true")).await?;
            assert_eq!(code, 126, "{dir}: {text}");
            assert!(text.contains("Permission denied"), "{dir}: {text}");
        }
        assert_eq!(try_sh(&one, "/may/busybox true").await?.0, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nodev_stops_devices() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .mount("/without", "tmpfs", "tmpfs", &["nodev"])
            .mount("/with", "tmpfs", "tmpfs", &["dev"])
            .run()
            .await?;
        one.sh("mknod /without/null c 1 3 && mknod /with/null c 1 3").await?;
        assert_eq!(try_sh(&one, "echo x >/with/null").await?.0, 0);
        let (code, text) = try_sh(&one, "echo x >/without/null").await?;
        assert_ne!(code, 0);
        assert!(text.contains("Permission denied"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nosuid_and_no_new_privileges_stop_set_user_id_programs() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .mount("/without", "tmpfs", "tmpfs", &["nosuid", "mode=0755"])
            .mount("/with", "tmpfs", "tmpfs", &["suid", "mode=0755"])
            .run()
            .await?;
        one.sh("for dir in /without /with; do cp /bin/busybox $dir/ping && chmod 4755 $dir/ping; done")
            .await?;
        // It opens a raw socket, which nobody may and root with CAP_NET_RAW may.
        let ping = async |dir: &str, no_new_privileges: bool| {
            let program = format!("{dir}/ping");
            let exec = one.exec([program.as_str(), "-c", "1", "127.0.0.1"]).process(|process| {
                process.NoNewPrivileges = no_new_privileges;
                process.User.mut_or_insert_default().UID = 65534;
            });
            let finished = exec.run().await?;
            anyhow::Ok((finished.status, String::from_utf8_lossy(&finished.stderr).into_owned()))
        };
        assert_eq!(ping("/with", false).await?, (0, String::new()));
        for (dir, no_new_privileges) in [("/without", false), ("/with", true)] {
            let (code, text) = ping(dir, no_new_privileges).await?;
            assert_ne!(code, 0, "{dir} {no_new_privileges}");
            assert!(text.contains("ermi"), "{dir} {no_new_privileges}: {text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_kernel_lists_every_option_that_was_asked_for() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir bound").await?;
        let one = guest
            .container("one")
            .mount("/a", "tmpfs", "tmpfs", &["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"])
            .mount("/b", "bind", &format!("{STORE}/bound"), &["bind", "ro", "nosuid", "nodev", "noexec"])
            .mount("/c", "tmpfs", "tmpfs", &["ro", "rw", "strictatime", "nosymfollow"])
            .run()
            .await?;
        let options = async |path: &str| {
            let found =
                one.sh(&format!("awk '$5 == \"{path}\" {{ print $6 }}' /proc/self/mountinfo")).await?;
            anyhow::Ok(found)
        };
        assert_eq!(options("/a").await?, "ro,nosuid,nodev,noexec,noatime,nodiratime");
        assert!(options("/b").await?.starts_with("ro,nosuid,nodev,noexec"), "{}", options("/b").await?);
        // No atime word at all is how the kernel shows strictatime.
        assert_eq!(options("/c").await?, "rw,nosymfollow");
        one.sh("test -d /a && ! touch /a/x 2>/dev/null && touch /c/x").await?;
        assert!(options("/proc").await?.starts_with("rw,nosuid,nodev,noexec"));
        assert!(options("/sys").await?.starts_with("ro,nosuid,nodev,noexec"));
        Ok(())
    })
    .await
}
