//! The root file system: it is `/`, nothing of the guest is behind it, and read-only means read-only.

use std::collections::BTreeSet;

use anyhow::Result;
use tests::{Code, expect_code};

use crate::{in_guest, with_image};

#[tokio::test]
async fn a_container_sees_its_own_mounts_and_no_other() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        let seen = one.sh("cut -d' ' -f5 /proc/self/mountinfo").await?;
        let own = ["/", "/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys", "/sys/fs/cgroup"];
        // Masks and read-only paths are mounts too.
        let covers = ["/proc/", "/sys/firmware"];
        let others = seen.lines().filter(|path| !covers.iter().any(|cover| path.starts_with(cover)));
        assert_eq!(others.collect::<BTreeSet<_>>(), BTreeSet::from(own));
        assert_eq!(seen.lines().filter(|path| *path == "/").count(), 1, "one mount on /: {seen}");
        let root = one.sh("grep ' / / ' /proc/self/mountinfo").await?;
        assert!(root.contains(" - overlay "), "{root}");
        assert_eq!(one.sh("readlink /proc/self/root; readlink /proc/self/cwd").await?, "/\n/");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_of_the_guest_is_in_reach() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        // What must not be seen is really there.
        inspector.sh("test -x /guest/proc/1/root/init && test -d /guest/run/kata-containers").await?;

        let one = guest.container("one").run().await?;
        let expected = one.sh("ls -a /").await?;
        assert!(!expected.lines().any(|name| name == "init"), "{expected}");
        for path in ["/..", "/../../..", "/proc/1/root", "/proc/self/root/..", "/proc/1/cwd", "/dev/../.."] {
            assert_eq!(one.sh(&format!("ls -a {path}/")).await?, expected, "{path}");
        }
        assert_eq!(one.sh("ls -A /run").await?, "");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_way_out_of_a_chroot_ends_at_the_containers_root() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        let expected = one.sh("mkdir -p /cell/bin /cell/inner; touch /marker; ls -a /").await?;
        // A process in a chroot, whose working directory is moved out of it: its ".." knows no bound any more.
        let escape = "cp /bin/busybox /cell/bin/; mkfifo /cell/ready /cell/go
            chroot /cell /bin/busybox sh -c 'cd /inner; echo >/ready; read x </go
                n=0; while [ $n -lt 20 ]; do cd -P ..; n=$((n+1)); done
                /bin/busybox ls -a .; /bin/busybox echo ===
                exec /bin/busybox chroot . /bin/busybox ls -a /' >/tmp/out 2>/dev/null &
            read x </cell/ready; mv /cell/inner /tmp/inner; echo >/cell/go; wait; cat /tmp/out";
        let seen = one.sh(escape).await?;
        let (before, after) = seen.split_once("\n===\n").unwrap_or((&seen, ""));
        // It did get out of its chroot, else this proves nothing.
        assert!(before.lines().any(|name| name == "marker"), "{seen}");
        assert_eq!(before, expected);
        assert_eq!(after, expected);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_read_only_root_takes_no_writes_and_its_volumes_do() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .spec(|spec| spec.Root.mut_or_insert_default().Readonly = true)
            .mount("/volume", "tmpfs", "tmpfs", &["mode=0777"])
            .run()
            .await?;
        for write in ["touch /x", "rm /etc/passwd", "echo x >/etc/passwd", "mkdir /etc/d", "chmod 777 /etc"] {
            let tried = one.exec(["sh", "-c", write]).run().await?;
            let stderr = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert_ne!(tried.status, 0, "{write}");
            assert!(stderr.contains("Read-only file system"), "{write}: {stderr}");
        }
        one.sh("echo x >/volume/x && echo x >/dev/shm/x && echo x >/dev/null && grep -q x /volume/x").await?;
        assert!(one.sh("grep ' / / ' /proc/self/mountinfo").await?.contains(" / / ro"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_read_only_root_goes_with_a_terminal_and_a_missing_mount_point() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .spec(|spec| spec.Root.mut_or_insert_default().Readonly = true)
            .mount("/new/volume", "tmpfs", "tmpfs", &[])
            .process(|process| process.Cwd = "/made/for/it".into())
            .terminal()
            .script("tty; pwd; touch /x || touch /new/volume/x && ls /new/volume")
            .run()
            .await?;
        let output = one.output().await?;
        let text = String::from_utf8(output.stdout)?;
        assert_eq!(output.status, 0, "{text}");
        for line in ["/dev/pts/0", "/made/for/it", "Read-only file system", "x\r\n"] {
            assert!(text.contains(line), "{line:?} in {text:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_root_that_cannot_be_one_is_refused() -> Result<()> {
    in_guest(async |guest| {
        let with = |path: &str| {
            let path = path.to_owned();
            guest.container("c1").spec(|spec| spec.Root.mut_or_insert_default().Path = path)
        };
        for path in ["/", "relative", "", "/run/no/such/root", "/init"] {
            let text = expect_code(with(path).try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(path), "{text}");
        }
        guest.container("c1").run().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn propagation_of_the_root_is_what_the_spec_names() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        for (id, word, is_shared) in
            [("none", "", false), ("private", "rprivate", false), ("shared", "rshared", true)]
        {
            let one = with_image(guest, &inspector, id, "true").await?;
            let one = one.linux(|linux| linux.RootfsPropagation = word.into()).run().await?;
            let line = one.sh("grep ' / / ' /proc/self/mountinfo").await?;
            assert_eq!(line.contains(" shared:"), is_shared, "{word}: {line}");
        }
        let wrong = guest.container("wrong").linux(|linux| linux.RootfsPropagation = "sideways".into());
        assert!(expect_code(wrong.try_create().await, Code::INVALID_ARGUMENT).contains("sideways"));
        Ok(())
    })
    .await
}
