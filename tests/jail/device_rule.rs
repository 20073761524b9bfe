//! Device rules: which devices a container may open, whatever nodes it has or makes.

use anyhow::Result;
use protocols::oci::{LinuxDevice, LinuxDeviceCgroup};
use tests::{Code, Container, ContainerBuilder, expect_code};

use crate::in_guest;

fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
    LinuxDeviceCgroup {
        Allow: allow,
        Type: kind.into(),
        Major: major,
        Minor: minor,
        Access: access.into(),
        ..LinuxDeviceCgroup::default()
    }
}

/// With a `/dev/kmsg`, and these rules.
fn with_rules(builder: ContainerBuilder, rules: &[LinuxDeviceCgroup]) -> ContainerBuilder {
    let kmsg = LinuxDevice {
        Path: "/dev/kmsg".into(),
        Type: "c".into(),
        Major: 1,
        Minor: 11,
        FileMode: 0o666,
        ..LinuxDevice::default()
    };
    builder
        // Which reading it takes besides.
        .process(|process| {
            let sets = process.Capabilities.mut_or_insert_default();
            for set in [&mut sets.Bounding, &mut sets.Effective, &mut sets.Permitted] {
                set.push("CAP_SYSLOG".into());
            }
        })
        .linux(|linux| linux.Devices.push(kmsg))
        .resources(|resources| resources.Devices.extend_from_slice(rules))
}

/// Whether an open succeeds; what fails must fail with EPERM.
async fn opens(container: &Container, redirection: &str) -> Result<bool> {
    let finished = container.exec(["sh", "-c", &format!(": {redirection}")]).run().await?;
    let text = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert_eq!(finished.status != 0, text.contains("Operation not permitted"), "{redirection}: {text}");
    Ok(finished.status == 0)
}

const READ: &str = "</dev/kmsg";
const WRITE: &str = ">/dev/kmsg";

#[tokio::test]
async fn a_device_that_no_rule_names_cannot_be_opened() -> Result<()> {
    in_guest(async |guest| {
        let one = with_rules(guest.container("one"), &[]).run().await?;
        assert!(!opens(&one, READ).await?);
        assert!(!opens(&one, WRITE).await?);
        // A node is no access: it may be made, not opened.
        one.sh("mknod /tmp/disk b $(tr : ' ' </sys/block/vda/dev) && mknod /tmp/memory c 1 1").await?;
        assert!(!opens(&one, "</tmp/disk").await?);
        assert!(!opens(&one, "</tmp/memory").await?);
        for device in ["null", "zero", "full", "random", "urandom", "ptmx"] {
            assert!(opens(&one, &format!("<>/dev/{device}")).await?, "{device}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rule_allows_what_it_names_and_no_more() -> Result<()> {
    in_guest(async |guest| {
        let read = with_rules(guest.container("read"), &[rule(true, "c", 1, 11, "r")]).run().await?;
        assert!(opens(&read, READ).await?);
        assert!(!opens(&read, WRITE).await?);
        let both = with_rules(guest.container("both"), &[rule(true, "c", 1, 11, "rw")]).run().await?;
        assert!(opens(&both, READ).await?);
        assert!(opens(&both, WRITE).await?);
        // The number of a character device says nothing of the block device with the same.
        let block = with_rules(guest.container("block"), &[rule(true, "b", 1, 11, "rwm")]).run().await?;
        assert!(!opens(&block, READ).await?);
        let any_minor = with_rules(guest.container("minors"), &[rule(true, "c", 1, -1, "rwm")]).run().await?;
        assert!(opens(&any_minor, READ).await?);
        any_minor.sh("mknod /tmp/disk b $(tr : ' ' </sys/block/vda/dev)").await?;
        assert!(!opens(&any_minor, "</tmp/disk").await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_last_rule_that_names_a_device_counts() -> Result<()> {
    in_guest(async |guest| {
        let all = rule(true, "a", -1, -1, "rwm");
        // As containerd begins every list.
        let none = rule(false, "a", -1, -1, "rwm");
        let (deny, allow) = (rule(false, "c", 1, 11, "w"), rule(true, "c", 1, 11, "rwm"));

        let open = with_rules(guest.container("open"), &[none.clone(), all.clone()]).run().await?;
        assert!(opens(&open, READ).await? && opens(&open, WRITE).await?);
        open.sh("mknod /tmp/disk b $(tr : ' ' </sys/block/vda/dev) && head -c1 /tmp/disk | wc -c").await?;

        let less = with_rules(guest.container("less"), &[all.clone(), deny.clone()]).run().await?;
        assert!(opens(&less, READ).await?);
        assert!(!opens(&less, WRITE).await?);

        let more = with_rules(guest.container("more"), &[none.clone(), deny, allow]).run().await?;
        assert!(opens(&more, READ).await? && opens(&more, WRITE).await?);

        let closed = with_rules(guest.container("closed"), &[all, none]).run().await?;
        assert!(!opens(&closed, READ).await?);
        // What no program can do without stays.
        assert!(opens(&closed, "<>/dev/null").await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_containers_rules_are_not_anothers() -> Result<()> {
    in_guest(async |guest| {
        let before = with_rules(guest.container("before"), &[]).run().await?;
        let privileged = with_rules(guest.container("privileged").privileged(), &[]).run().await?;
        let after = with_rules(guest.container("after"), &[]).run().await?;
        assert!(opens(&privileged, READ).await?);
        assert!(!opens(&before, READ).await?);
        assert!(!opens(&after, READ).await?);
        // The privilege is the container's, so also its execs', and ends with it.
        privileged.remove().await?;
        let next = with_rules(guest.container("privileged"), &[]).run().await?;
        assert!(!opens(&next, READ).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn rules_that_make_no_sense_are_refused() -> Result<()> {
    in_guest(async |guest| {
        for wrong in [rule(true, "c", 1, 11, "rwx"), rule(true, "c", -7, 1, "r"), rule(true, "p", 1, 1, "r")]
        {
            let one = with_rules(guest.container("c1"), &[wrong]);
            expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
        }
        guest.container("c1").run().await?;
        Ok(())
    })
    .await
}
