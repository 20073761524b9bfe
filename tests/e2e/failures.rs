//! What cannot be created is refused with the right code and leaves nothing: no cgroup, mount, process, directory or
//! id.

use anyhow::Result;
use protocols::agent::Storage;
use tests::{Code, ContainerBuilder, Guest, expect_code};

type Change = fn(ContainerBuilder) -> ContainerBuilder;

/// What is wrong, how, and the code and a part of the text of the answer.
const CASES: [(&str, Change, Code, &str); 13] = [
    (
        "the root is missing",
        |c| c.spec(|s| s.Root.mut_or_insert_default().Path = "/run/none".into()),
        Code::INVALID_ARGUMENT,
        "/run/none",
    ),
    (
        "the root is the guest's",
        |c| c.spec(|s| s.Root.mut_or_insert_default().Path = "/".into()),
        Code::INVALID_ARGUMENT,
        "root.path",
    ),
    (
        "a file system is unknown",
        |c| c.mount("/x", "nosuchfs", "none", &[]),
        Code::INVALID_ARGUMENT,
        "nosuchfs",
    ),
    (
        "an option is unknown",
        |c| c.mount("/x", "tmpfs", "tmpfs", &["flavour=sweet"]),
        Code::INVALID_ARGUMENT,
        "flavour=sweet",
    ),
    (
        "a bind has no source",
        |c| c.mount("/x", "bind", "/run/none", &["bind"]),
        Code::INVALID_ARGUMENT,
        "/run/none",
    ),
    ("a destination climbs", |c| c.mount("/../x", "tmpfs", "tmpfs", &[]), Code::INVALID_ARGUMENT, ".."),
    ("the program is missing", |c| c.args(["/bin/none"]), Code::INVALID_ARGUMENT, "/bin/none was not found"),
    (
        "the program is not in PATH",
        |c| c.args(["no-such-program"]),
        Code::INVALID_ARGUMENT,
        "no-such-program",
    ),
    (
        "a namespace is missing",
        |c| {
            c.linux(|l| {
                l.Namespaces.push(protocols::oci::LinuxNamespace {
                    Type: "network".into(),
                    Path: "/run/none".into(),
                    ..Default::default()
                })
            })
        },
        Code::INVALID_ARGUMENT,
        "/run/none",
    ),
    (
        "a driver is unknown",
        |c| {
            c.request(|r| {
                r.storages.push(Storage {
                    driver: "floppy".into(),
                    mount_point: "/run/kata-containers/x".into(),
                    ..Default::default()
                })
            })
        },
        Code::UNIMPLEMENTED,
        "floppy",
    ),
    (
        "a device never comes",
        |c| {
            c.request(|r| {
                r.storages.push(Storage {
                    driver: "blk".into(),
                    source: "/dev/vdz".into(),
                    fstype: "ext4".into(),
                    mount_point: "/run/kata-containers/x".into(),
                    ..Default::default()
                })
            })
        },
        Code::DEADLINE_EXCEEDED,
        "/dev/vdz",
    ),
    (
        "huge pages are of a size that does not exist",
        |c| {
            c.resources(|r| {
                r.HugepageLimits.push(protocols::oci::LinuxHugepageLimit {
                    Pagesize: "64KB".into(),
                    Limit: 65536,
                    ..Default::default()
                })
            })
        },
        Code::INVALID_ARGUMENT,
        "huge pages of 64KB do not exist on this processor and kernel; those that do are",
    ),
    (
        "a sysctl is the guest's",
        |c| c.linux(|l| drop(l.Sysctl.insert("kernel.panic".into(), "1".into()))),
        Code::INVALID_ARGUMENT,
        "kernel.panic",
    ),
];

#[tokio::test]
async fn failed_creates_answer_the_right_code_and_leave_nothing() -> Result<()> {
    let guest = Guest::builder().cmdline(&["agent.hotplug_timeout=1"]).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    // Once, so that what is made once and kept is there before the first look.
    guest.container("warm").run().await?.remove().await?;
    let before = inspector.snapshot().await?;
    for (what, change, code, text) in CASES {
        let answer = expect_code(change(guest.container("broken")).try_create().await, code);
        assert!(answer.contains(text), "{what}: {answer:?} does not name {text:?}");
        assert_eq!(inspector.settled(&before).await?, before, "after a create where {what}");
    }
    assert_eq!(guest.container("broken").script("exit 0").run().await?.wait().await?, 0);
    Ok(())
}

#[tokio::test]
async fn failed_execs_answer_the_right_code_and_leave_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").run().await?;
    container.sh("true").await?;
    let before = inspector.snapshot().await?;
    let exec = |args: &[&str]| container.exec(args.iter().map(|word| (*word).to_owned())).id("same");
    expect_code(exec(&["/bin/none"]).start().await, Code::INVALID_ARGUMENT);
    expect_code(exec(&[]).start().await, Code::INVALID_ARGUMENT);
    expect_code(exec(&["true"]).process(|p| p.Cwd = "/none".into()).start().await, Code::INVALID_ARGUMENT);
    expect_code(exec(&["true"]).process(|p| p.Cwd = "rel".into()).start().await, Code::INVALID_ARGUMENT);
    assert_eq!(inspector.settled(&before).await?, before);
    assert_eq!(exec(&["true"]).run().await?.status, 0);
    Ok(())
}

#[tokio::test]
async fn a_program_the_kernel_cannot_execute_gives_126_and_the_reason_in_the_log() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    container
        .sh("printf '\\177ELFnot' > /bad; printf '#!/bin/none\\n' > /script; chmod 755 /bad /script")
        .await?;
    let bad = container.exec(["/bad"]).run().await?;
    assert_eq!((bad.status, bad.stderr.as_slice()), (126, b"exec /bad: exec format error\n".as_slice()));
    assert_eq!(container.exec(["/script"]).run().await?.status, 127);
    let console = guest.vm().console_log();
    assert!(console.contains("exec /bad"), "{console}");
    Ok(())
}
