//! Capabilities and no_new_privs: exactly what the spec names, for root and for others.

use anyhow::Result;
use protobuf::MessageField;
use protocols::oci::{LinuxCapabilities, Process};
use tests::{Container, Guest};

use crate::{in_guest, status};

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
/// The harness's set, which is Docker's: bits 0, 1, 3 to 8, 10, 13, 18, 27, 29 and 31.
const DOCKER: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";
const NOBODY: u32 = 65534;

fn sets(text: &str) -> [&str; 5] {
    SETS.map(|name| status(text, name))
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// What `/proc/self/status` says of a first process with this change.
async fn of_init(guest: &Guest, id: &str, change: impl FnOnce(&mut Process)) -> Result<String> {
    let container = guest.container(id).args(["cat", "/proc/self/status"]).process(change).run().await?;
    container.output().await?.success()
}

/// The same of an exec.
async fn of_exec(container: &Container, change: impl FnOnce(&mut Process)) -> Result<String> {
    container.exec(["cat", "/proc/self/status"]).process(change).run().await?.success()
}

fn five(bounding: &[&str], others: &[&str], ambient: &[&str]) -> MessageField<LinuxCapabilities> {
    MessageField::some(LinuxCapabilities {
        Bounding: names(bounding),
        Effective: names(others),
        Permitted: names(others),
        Inheritable: names(others),
        Ambient: names(ambient),
        ..LinuxCapabilities::default()
    })
}

#[tokio::test]
async fn root_has_exactly_the_capabilities_of_its_spec() -> Result<()> {
    in_guest(async |guest| {
        let text = of_init(guest, "usual", |_| {}).await?;
        assert_eq!(sets(&text), [NONE, DOCKER, DOCKER, DOCKER, NONE]);
        let text = of_init(guest, "none", |process| process.Capabilities = five(&[], &[], &[])).await?;
        assert_eq!(sets(&text), [NONE; 5]);
        // No object at all is no capability either, never the agent's.
        let text = of_init(guest, "absent", |process| process.Capabilities = None.into()).await?;
        assert_eq!(sets(&text), [NONE; 5]);
        // CAP_KILL is 5, CAP_SYS_ADMIN is 21; what no kernel knows is left out.
        let some = &["CAP_KILL", "CAP_SYS_ADMIN", "CAP_NO_SUCH_THING"];
        let text = of_init(guest, "some", |process| process.Capabilities = five(some, some, &[])).await?;
        let mask = "0000000000200020";
        assert_eq!(sets(&text), [mask, mask, mask, mask, NONE]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn another_user_has_what_is_ambient_and_nothing_else() -> Result<()> {
    in_guest(async |guest| {
        let nobody = |process: &mut Process| process.User.mut_or_insert_default().UID = NOBODY;
        let text = of_init(guest, "plain", nobody).await?;
        assert_eq!(sets(&text), [NONE, NONE, NONE, DOCKER, NONE]);
        assert_eq!(status(&text, "Uid"), "65534\t65534\t65534\t65534");

        // CAP_CHOWN is 0, CAP_NET_BIND_SERVICE is 10, CAP_SYS_TIME is 25.
        let set = |process: &mut Process| {
            nobody(process);
            process.Capabilities = five(
                &["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                &["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
                &["CAP_NET_BIND_SERVICE"],
            );
        };
        let text = of_init(guest, "ambient", set).await?;
        let (bind, both) = ("0000000000000400", "0000000000000401");
        assert_eq!(sets(&text), [both, bind, bind, both, bind]);

        // Outside the bounding set nothing can be had, whatever the other sets say.
        let beyond = |process: &mut Process| {
            nobody(process);
            process.Capabilities = five(&["CAP_CHOWN"], &["CAP_CHOWN", "CAP_SYS_TIME"], &["CAP_SYS_TIME"]);
        };
        let text = of_init(guest, "beyond", beyond).await?;
        assert_eq!(sets(&text), ["0000000000000001", NONE, NONE, "0000000000000001", NONE]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exec_has_its_own_capabilities_or_its_containers() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        let text = of_exec(&one, |_| {}).await?;
        assert_eq!(sets(&text), [NONE, DOCKER, DOCKER, DOCKER, NONE]);
        let text =
            of_exec(&one, |process| process.Capabilities = five(&["CAP_KILL"], &["CAP_KILL"], &[])).await?;
        let kill = "0000000000000020";
        assert_eq!(sets(&text), [kill, kill, kill, kill, NONE]);
        // A debugger's exec may have more than the container.
        let trace = ["CAP_SYS_PTRACE"];
        let text = of_exec(&one, |process| process.Capabilities = five(&trace, &trace, &[])).await?;
        assert_eq!(status(&text, "CapEff"), "0000000000080000");
        let text = of_exec(&one, |process| process.User.mut_or_insert_default().UID = NOBODY).await?;
        assert_eq!(sets(&text), [NONE, NONE, NONE, DOCKER, NONE]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_new_privileges_is_set_where_it_is_asked_for() -> Result<()> {
    in_guest(async |guest| {
        let set = of_init(guest, "set", |process| process.NoNewPrivileges = true).await?;
        assert_eq!(status(&set, "NoNewPrivs"), "1");
        let unset = of_init(guest, "unset", |process| process.NoNewPrivileges = false).await?;
        assert_eq!(status(&unset, "NoNewPrivs"), "0");
        let one = guest.container("one").run().await?;
        let set = of_exec(&one, |process| process.NoNewPrivileges = true).await?;
        assert_eq!(status(&set, "NoNewPrivs"), "1");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn capabilities_decide_what_root_may_do() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        one.sh("chown 33:33 /tmp && mknod /tmp/null c 1 3").await?;
        for forbidden in
            ["mount -t tmpfs tmpfs /tmp", "hostname x", "date -s 2020-01-01", "ip link set lo down"]
        {
            let tried = one.exec(["sh", "-c", forbidden]).run().await?;
            let text = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(
                ["ermission", "not permitted"].iter().any(|word| text.contains(word)),
                "{forbidden}: {text}"
            );
        }
        assert_eq!(one.sh("hostname").await?, "pod");
        Ok(())
    })
    .await
}
