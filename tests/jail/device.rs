//! Device nodes and links below `/dev`.

use anyhow::Result;
use protocols::oci::LinuxDevice;
use tests::{Code, ContainerBuilder, expect_code};

use crate::{in_guest, with_image};

/// Name, `major:minor` in hexadecimal, mode and kind, as `stat` prints them.
const DEFAULT: &str = "\
/dev/null 1:3 666 0 0 character special file
/dev/zero 1:5 666 0 0 character special file
/dev/full 1:7 666 0 0 character special file
/dev/random 1:8 666 0 0 character special file
/dev/urandom 1:9 666 0 0 character special file
/dev/tty 5:0 666 0 0 character special file";
const STAT: &str = "cd /dev && stat -c '%n %t:%T %a %u %g %F' \
    /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty";
const LINKS: &str = "\
/dev/fd -> /proc/self/fd
/dev/stdin -> /proc/self/fd/0
/dev/stdout -> /proc/self/fd/1
/dev/stderr -> /proc/self/fd/2
/dev/ptmx -> pts/ptmx";
const READ_LINKS: &str =
    "for link in fd stdin stdout stderr ptmx; do echo \"/dev/$link -> $(readlink /dev/$link)\"; done";

fn device(path: &str, kind: &str, major: i64, minor: i64, mode: u32, owner: (u32, u32)) -> LinuxDevice {
    LinuxDevice {
        Path: path.into(),
        Type: kind.into(),
        Major: major,
        Minor: minor,
        FileMode: mode,
        UID: owner.0,
        GID: owner.1,
        ..LinuxDevice::default()
    }
}

/// Without the mounts on `/dev` and below.
fn without_dev(builder: ContainerBuilder) -> ContainerBuilder {
    builder.spec(|spec| spec.Mounts.retain(|mount| !mount.destination.starts_with("/dev")))
}

#[tokio::test]
async fn every_container_has_the_default_devices_and_links_and_no_more() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        assert_eq!(one.sh(STAT).await?, DEFAULT);
        assert_eq!(one.sh(READ_LINKS).await?, LINKS);
        let names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
        assert_eq!(one.sh("ls /dev").await?.lines().collect::<Vec<_>>().join(" "), names);
        // They work, for anybody.
        let user = one
            .exec([
                "sh",
                "-c",
                "head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; echo x >/dev/null; cat /dev/null",
            ])
            .process(|process| process.User.mut_or_insert_default().UID = 65534);
        assert_eq!(user.run().await?.success()?, "4\n4");
        let full = one.exec(["sh", "-c", "echo x >/dev/full"]).run().await?;
        assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"), "{full:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn devices_of_the_spec_are_made_as_it_says() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .linux(|linux| {
                linux.Devices = vec![
                    device("/dev/block", "b", 254, 7, 0o640, (33, 5)),
                    device("/dev/deep/char", "c", 10, 229, 0o600, (0, 0)),
                    device("/dev/fifo", "p", 0, 0, 0o622, (33, 33)),
                    device("/elsewhere", "u", 1, 5, 0o444, (0, 0)),
                    // In the place of a default one.
                    device("/dev/null", "c", 1, 3, 0o600, (0, 0)),
                ];
            })
            .run()
            .await?;
        let seen =
            one.sh("stat -c '%n %t:%T %a %u %g %F' /dev/block /dev/deep/char /dev/fifo /elsewhere /dev/null");
        let expected = "\
/dev/block fe:7 640 33 5 block special file
/dev/deep/char a:e5 600 0 0 character special file
/dev/fifo 0:0 622 33 33 fifo
/elsewhere 1:5 444 0 0 character special file
/dev/null 1:3 600 0 0 character special file";
        assert_eq!(seen.await?, expected);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_with_a_dev_of_its_own_keeps_what_is_no_device_of_ours() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let image =
            "mkdir -p dev && echo fake >dev/null && mknod dev/zero c 1 7 && mknod -m 600 dev/full c 1 7 &&
            ln -s /etc/passwd dev/random && echo kept >dev/own && ln -s /proc/self/fd dev/fd &&
            ln -s /elsewhere dev/ptmx";
        let one = without_dev(with_image(guest, &inspector, "one", image).await?);
        let one = one.mount("/dev/pts", "devpts", "devpts", &["ptmxmode=0666", "newinstance"]).run().await?;
        assert_eq!(one.sh(STAT).await?, DEFAULT);
        assert_eq!(one.sh(READ_LINKS).await?, LINKS);
        assert_eq!(one.sh("cat /dev/own").await?, "kept");
        assert!(one.sh("head -n1 /etc/passwd").await?.starts_with("root:x:0:0:"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_without_a_mount_on_dev_has_devices_all_the_same() -> Result<()> {
    in_guest(async |guest| {
        let one = without_dev(guest.container("one")).run().await?;
        assert_eq!(one.sh(STAT).await?, DEFAULT);
        assert_eq!(one.sh("echo x >/dev/null; head -c2 /dev/zero | wc -c").await?, "2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_read_only_dev_holds_its_devices_and_takes_no_new_ones() -> Result<()> {
    in_guest(async |guest| {
        let readonly = |builder: ContainerBuilder| {
            builder.spec(|spec| {
                let dev =
                    spec.Mounts.iter_mut().find(|mount| mount.destination == "/dev").expect("the default");
                dev.options.push("ro".into());
            })
        };
        let one = readonly(guest.container("one")).run().await?;
        assert_eq!(one.sh(STAT).await?, DEFAULT);
        one.sh("echo x >/dev/null && echo x >/dev/shm/x").await?;
        let tried = one.exec(["touch", "/dev/x"]).run().await?;
        assert!(String::from_utf8_lossy(&tried.stderr).contains("Read-only file system"), "{tried:?}");

        let script = "tty; echo through >/dev/console; touch /dev/x";
        let terminal = readonly(guest.container("terminal").terminal()).script(script).run().await?;
        let text = String::from_utf8(terminal.output().await?.stdout)?;
        for line in ["/dev/pts/0", "through", "Read-only file system"] {
            assert!(text.contains(line), "{line:?} is not in {text:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_bound_dev_is_left_as_it_is() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").spec(|spec| {
            spec.Mounts.retain(|mount| !mount.destination.starts_with("/dev"));
            spec.Mounts.push(tests::mount("/dev", "bind", "/dev", &["rbind", "rslave"]));
        });
        let one = one.run().await?;
        // A node that only the guest's own has.
        assert_eq!(one.sh("stat -c %F /dev/vda").await?, "block special file");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn devices_that_cannot_be_are_refused() -> Result<()> {
    in_guest(async |guest| {
        let cases = [
            device("/dev/../etc/x", "c", 1, 3, 0o666, (0, 0)),
            device("/dev/x", "a", 1, 3, 0o666, (0, 0)),
            device("/dev/x", "z", 1, 3, 0o666, (0, 0)),
            device("/dev/x", "c", -1, 3, 0o666, (0, 0)),
            device("", "c", 1, 3, 0o666, (0, 0)),
        ];
        for case in cases {
            let what = case.to_string();
            let one = guest.container("c1").linux(|linux| linux.Devices = vec![case]);
            let (code, text) = tests::refusal(one.try_create().await);
            assert_eq!(code, Code::INVALID_ARGUMENT, "{what}: {text}");
        }
        let twice = guest.container("c1").run().await?;
        expect_code(guest.container("c1").try_create().await, Code::ALREADY_EXISTS);
        assert_eq!(twice.sh("echo alive").await?, "alive");
        Ok(())
    })
    .await
}
