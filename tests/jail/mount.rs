//! Mounts: what is bound where, what a mount covers, and that no destination leads out of the root.

use anyhow::{Context as _, Result};
use protocols::agent::Storage;
use tests::{Code, ContainerBuilder, expect_code};

use crate::{STORE, in_guest, status, store, with_image};

/// A tmpfs of the guest, below [`STORE`].
fn tmpfs(name: &str) -> Storage {
    Storage {
        driver: "ephemeral".into(),
        source: "tmpfs".into(),
        fstype: "tmpfs".into(),
        mount_point: format!("{STORE}/{name}"),
        ..Storage::default()
    }
}

#[tokio::test]
async fn files_and_directories_of_the_guest_are_bound() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir -p dir/deep && echo file >file && echo inner >dir/deep/inner").await?;
        let one = guest
            .container("one")
            .mount("/made/for/file", "bind", &format!("{STORE}/file"), &["bind"])
            .mount("/dir", "bind", &format!("{STORE}/dir"), &["rbind", "rw"])
            // As shims write it: the option makes it a bind, whatever the type.
            .mount("/none", "none", &format!("{STORE}/dir"), &["rbind", "ro"])
            .mount("/only/type", "bind", &format!("{STORE}/dir"), &[])
            .run()
            .await?;
        assert_eq!(
            one.sh("cat /made/for/file /dir/deep/inner /only/type/deep/inner").await?,
            "file\ninner\ninner"
        );
        one.sh("echo changed >/made/for/file && echo new >/dir/deep/new").await?;
        let seen = inspector.sh(&format!("cat /guest{STORE}/file /guest{STORE}/dir/deep/new")).await?;
        assert_eq!(seen, "changed\nnew");
        let refused = one.exec(["touch", "/none/x"]).run().await?;
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
        // The directory made on the way is an ordinary one.
        assert_eq!(one.sh("stat -c '%a %u %g' /made /made/for").await?, "755 0 0\n755 0 0");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn rbind_takes_the_mounts_below_along_and_bind_does_not() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir -p dir/sub").await?;
        let source = format!("{STORE}/dir");
        let one = guest
            .container("one")
            .request(|request| request.storages.push(tmpfs("dir/sub")))
            .mount("/bind", "bind", &source, &["bind"])
            .mount("/rbind", "bind", &source, &["rbind"])
            .mount("/ro", "bind", &source, &["rbind", "ro"])
            .mount("/rro", "bind", &source, &["rbind", "rro"])
            .run()
            .await?;
        one.sh("echo below >/rbind/sub/x").await?;
        assert_eq!(
            one.sh("ls -A /bind/sub; cat /rbind/sub/x /ro/sub/x /rro/sub/x").await?,
            "below\nbelow\nbelow"
        );
        // "ro" is the mount's, "rro" is also that of the mounts below (runtime-spec, "Mount options").
        let try_write = async |path: &str| anyhow::Ok(one.exec(["touch", path]).run().await?.status);
        assert_ne!(try_write("/ro/x").await?, 0);
        assert_eq!(try_write("/ro/sub/y").await?, 0);
        assert_ne!(try_write("/rro/x").await?, 0);
        assert_ne!(try_write("/rro/sub/y").await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_file_that_a_mount_covers_keeps_its_content() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "echo cover >cover").await?;
        let one = with_image(guest, &inspector, "one", "mkdir etc && echo kept >etc/kept && echo kept >own")
            .await?;
        let cover = format!("{STORE}/cover");
        let one = one
            .mount("/etc/kept", "bind", &cover, &["bind", "ro"])
            .mount("/own", "bind", &cover, &["bind"])
            // This one is in the image's own read-only layer.
            .mount("/etc/passwd", "bind", &cover, &["bind", "ro"])
            .run()
            .await?;
        assert_eq!(one.sh("cat /etc/kept /own /etc/passwd").await?, "cover\ncover\ncover");
        let upper = format!("/guest{STORE}/one/upper");
        assert_eq!(inspector.sh(&format!("cat {upper}/etc/kept {upper}/own")).await?, "kept\nkept");
        // A truncation would have made a copy.
        inspector.sh(&format!("test ! -e {upper}/etc/passwd")).await?;
        let below = "/guest/proc/1/root/run/kata-containers/one/rootfs/etc/passwd";
        assert!(inspector.sh(&format!("cat {below}")).await?.starts_with("root:x:0:0:"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn links_in_an_image_lead_no_mount_out_of_the_root() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir out src && echo kept >out/file && echo bound >src/file").await?;
        let image = format!(
            "ln -s {STORE}/out absolute && ln -s ../../../../../../..{STORE}/out climbing &&
             ln -s /etc inside && ln -s {STORE}/out/file to-file && ln -s loop loop"
        );
        let before = inspector.sh(&format!("cd /guest{STORE}/out && find . | sort && cat file")).await?;
        let one = with_image(guest, &inspector, "one", &image).await?;
        let (directory, file) = (format!("{STORE}/src"), format!("{STORE}/src/file"));
        let one = one
            .mount("/absolute/a", "bind", &directory, &["bind"])
            .mount("/climbing/b", "tmpfs", "tmpfs", &[])
            .mount("/inside/c", "bind", &file, &["bind"])
            .run()
            .await?;
        let seen =
            one.sh(&format!("cat {STORE}/out/a/file /etc/c; cut -d' ' -f5 /proc/self/mountinfo")).await?;
        for place in [format!("{STORE}/out/a"), format!("{STORE}/out/b"), "/etc/c".into()] {
            assert!(seen.lines().any(|line| line == place), "{place}: {seen}");
        }
        assert!(seen.starts_with("bound\nbound\n"), "{seen}");
        let after = inspector.sh(&format!("cd /guest{STORE}/out && find . | sort && cat file")).await?;
        assert_eq!(after, before, "the guest's directory");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kernel_views_are_not_mounted_through_links() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let image = "mkdir elsewhere && rm -rf proc && ln -s elsewhere proc";
        let one = with_image(guest, &inspector, "one", image).await?;
        let text = expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
        assert!(text.contains("/proc"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mounts_that_cannot_be_made_are_refused_with_their_name() -> Result<()> {
    in_guest(async |guest| {
        let refused = async |code, destination: &str, kind: &str, source: &str, options: &[&str]| {
            let container = guest.container("c1").mount(destination, kind, source, options);
            expect_code(container.try_create().await, code)
        };
        let invalid = Code::INVALID_ARGUMENT;
        let cases: [(&str, &str, &str, &[&str], &str); 9] = [
            ("/x", "bind", "/run/no/such/source", &["bind"], "/run/no/such/source"),
            ("/x", "bind", "relative", &["bind"], "relative"),
            ("/a/../b", "tmpfs", "tmpfs", &[], ".."),
            ("", "tmpfs", "tmpfs", &[], "empty"),
            ("/x", "", "source", &[], "/x"),
            ("/x", "no-such-fs", "source", &[], "no-such-fs"),
            ("/x", "tmpfs", "tmpfs", &["no-such-option"], "no-such-option"),
            ("/x", "tmpfs", "tmpfs", &["size=plenty"], "size=plenty"),
            ("/etc/passwd", "tmpfs", "tmpfs", &[], "/etc/passwd"),
        ];
        for (destination, kind, source, options, named) in cases {
            let text = refused(invalid, destination, kind, source, options).await;
            assert!(text.contains(named), "{named:?} is not in {text:?}");
        }
        let text = refused(Code::UNIMPLEMENTED, "/x", "tmpfs", "tmpfs", &["copy-symlink"]).await;
        assert!(text.contains("copy-symlink"), "{text}");

        // Two dots in a name climb nowhere, a relative destination counts from the root, and the id is free.
        let one = guest.container("c1").mount("/a..b", "tmpfs", "tmpfs", &[]).mount("rel", "tmpfs", "t", &[]);
        let one = one.run().await?;
        assert_eq!(one.sh("grep -c -e ' /a\\.\\.b ' -e ' /rel ' /proc/self/mountinfo").await?, "2");
        Ok(())
    })
    .await
}

/// A privileged container with `/volume` bound from the guest with these options.
fn volume(builder: ContainerBuilder, options: &[&str]) -> ContainerBuilder {
    builder.privileged().mount("/volume", "bind", &format!("{STORE}/volume"), options)
}

#[tokio::test]
async fn mounts_travel_as_their_propagation_says() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        store(&inspector, "mkdir -p volume/shared volume/slave volume/private").await?;
        // For a volume to be the guest's peer the root must not be cut off, as Kubernetes' Bidirectional asks for.
        let shared = volume(guest.container("shared"), &["rbind", "rshared"])
            .linux(|linux| linux.RootfsPropagation = "rshared".into())
            .run()
            .await?;
        let slave = volume(guest.container("slave"), &["rbind", "rslave"]).run().await?;
        let private = volume(guest.container("private"), &["rbind", "rprivate"]).run().await?;
        for (container, name) in [(&shared, "shared"), (&slave, "slave"), (&private, "private")] {
            container.sh(&format!("mount -t tmpfs {name} /volume/{name}")).await.context(name)?;
        }
        let seen = "awk '$5 ~ /volume\\// { print $5 }' /proc/self/mountinfo | sort";
        assert_eq!(shared.sh(seen).await?, "/volume/shared");
        assert_eq!(slave.sh(seen).await?, "/volume/shared\n/volume/slave");
        assert_eq!(private.sh(seen).await?, "/volume/private");
        let guests = inspector.sh("awk '$5 ~ /volume\\// { print $5 }' /guest/proc/1/mountinfo").await?;
        assert_eq!(guests, format!("{STORE}/volume/shared"));
        // The guest has kept its own.
        inspector.sh("test -e /guest/proc/1/root/proc/version -a -e /guest/proc/1/root/dev/null").await?;

        let unbindable = volume(guest.container("unbindable"), &["rbind", "unbindable"]).run().await?;
        let line = unbindable.sh("grep ' /volume ' /proc/self/mountinfo").await?;
        assert!(line.contains(" unbindable "), "{line}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_container_mounts_on_its_root_does_not_show_in_the_guest() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let before = inspector.sh("cut -d' ' -f5 /guest/proc/1/mountinfo | sort").await?;
        let one = guest.container("one").privileged().run().await?;
        one.sh("mkdir /m && mount -t tmpfs tmpfs /m && mount -t tmpfs tmpfs /run && echo x >/run/x").await?;
        let after = inspector.sh("cut -d' ' -f5 /guest/proc/1/mountinfo | sort").await?;
        let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
        // The file system of its layer, its image, and both as its root.
        let own = ["", "/image", "/rootfs"].map(|inner| format!("/run/kata-containers/one{inner}"));
        assert_eq!(new, own);
        let caps = one.sh("cat /proc/self/status").await?;
        // Else it could not have mounted at all.
        assert_ne!(status(&caps, "CapEff"), "0000000000000000");
        Ok(())
    })
    .await
}
