//! Masked and read-only paths hold for files and for directories, against root with every capability.

use anyhow::Result;
use tests::Code;

use crate::{in_guest, with_image};

#[tokio::test]
async fn masked_files_are_empty_and_masked_directories_too() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let image = "mkdir -p secret/deep && echo hidden >secret/deep/file && echo hidden >secret.txt";
        let one = with_image(guest, &inspector, "one", image).await?;
        let open = guest.container("open").linux(|linux| linux.MaskedPaths.clear()).run().await?;
        let masked =
            ["/proc/cmdline", "/proc/irq", "/proc/sys/kernel", "/sys/kernel", "/secret", "/secret.txt"];
        let one = one.linux(|linux| {
            linux.MaskedPaths = masked.map(str::to_owned).to_vec();
            linux.MaskedPaths.extend(["/no/such/path".to_owned(), "/etc/passwd/below-a-file".to_owned()]);
        });
        let one = one.run().await?;
        for file in ["/proc/cmdline", "/secret.txt"] {
            assert_eq!(one.sh(&format!("cat {file}")).await?, "", "{file}");
        }
        for directory in ["/proc/irq", "/proc/sys/kernel", "/sys/kernel", "/secret"] {
            assert_eq!(one.sh(&format!("ls -A {directory}")).await?, "", "{directory}");
            let written = one.exec(["touch", &format!("{directory}/x")]).run().await?;
            assert!(
                String::from_utf8_lossy(&written.stderr).contains("Read-only"),
                "{directory}: {written:?}"
            );
        }
        // They are not empty by themselves.
        assert_ne!(open.sh("cat /proc/cmdline").await?, "");
        for directory in ["/proc/irq", "/proc/sys/kernel", "/sys/kernel"] {
            assert_ne!(open.sh(&format!("ls -A {directory}")).await?, "", "{directory}");
        }
        // The device that covers a file is the real one, and a write to it goes nowhere.
        assert_eq!(one.sh("stat -c '%t:%T' /secret.txt").await?, "1:3");
        one.sh("echo x >/secret.txt; test ! -e /no").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn masks_that_shims_send_hold() -> Result<()> {
    in_guest(async |guest| {
        // What containerd masks; which of them exist depends on the kernel.
        let masked = [
            "/proc/asound",
            "/proc/acpi",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
            "/sys/devices/system/cpu/cpu0/thermal_throttle",
        ];
        let one = guest
            .container("one")
            .linux(|linux| linux.MaskedPaths = masked.map(str::to_owned).to_vec())
            .run()
            .await?;
        let list = masked.join(" ");
        let leaks = "for path in LIST; do
            test -d $path && test -n \"$(ls -A $path)\" && echo $path
            test -f $path && echo $path
            test -c $path && test -n \"$(head -c1 $path)\" && echo $path
            done; true";
        assert_eq!(one.sh(&leaks.replace("LIST", &list)).await?, "");
        let present =
            one.sh(&format!("for path in {list}; do test -e $path && echo $path; done; true")).await?;
        assert!(present.lines().any(|path| path == "/proc/interrupts"), "{present}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn readonly_paths_cannot_be_written_and_can_be_read() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let one =
            with_image(guest, &inspector, "one", "mkdir tree && echo read >tree/file && echo read >file")
                .await?;
        let one = one
            .privileged()
            .mount("/tree/sub", "tmpfs", "tmpfs", &[])
            .linux(|linux| {
                linux.ReadonlyPaths =
                    ["/proc/sys", "/proc/irq", "/tree", "/file", "/no/such"].map(str::to_owned).to_vec();
            })
            .run()
            .await?;
        assert_eq!(one.sh("cat /tree/file /file /proc/sys/kernel/ostype").await?, "read\nread\nLinux");
        for target in ["/tree/file", "/tree/new", "/tree/sub/new", "/file", "/proc/sys/kernel/hostname"] {
            let tried = one.exec(["sh", "-c", &format!("echo x >{target}")]).run().await?;
            let text = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert_ne!(tried.status, 0, "{target}");
            assert!(text.contains("Read-only file system"), "{target}: {text}");
        }
        // Nothing but the listed paths.
        one.sh("echo x >/beside && mkdir /new").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn paths_that_climb_are_refused() -> Result<()> {
    in_guest(async |guest| {
        for path in ["/proc/../etc", ""] {
            let masked = guest.container("c1").linux(|linux| linux.MaskedPaths = vec![path.into()]);
            tests::expect_code(masked.try_create().await, Code::INVALID_ARGUMENT);
            let readonly = guest.container("c1").linux(|linux| linux.ReadonlyPaths = vec![path.into()]);
            tests::expect_code(readonly.try_create().await, Code::INVALID_ARGUMENT);
        }
        Ok(())
    })
    .await
}
