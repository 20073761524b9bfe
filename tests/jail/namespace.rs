//! Namespaces: which are a container's own, which are the pod's, and that an exec joins them all.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use protocols::oci::{LinuxIDMapping, LinuxNamespace};
use tests::{Code, Container, Inspector, expect_code};

use crate::in_guest;

const KINDS: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn list(directory: &str) -> String {
    format!("for kind in {}; do readlink {directory}/$kind; done", KINDS.join(" "))
}

fn parse(text: &str) -> Result<BTreeMap<&'static str, String>> {
    let links: Vec<&str> = text.lines().collect();
    anyhow::ensure!(links.len() == KINDS.len(), "{text:?}");
    Ok(KINDS.into_iter().zip(links.into_iter().map(str::to_owned)).collect())
}

/// Namespaces of an exec in the container.
async fn of(container: &Container) -> Result<BTreeMap<&'static str, String>> {
    parse(&container.sh(&list("/proc/self/ns")).await?)
}

/// Namespaces of the agent.
async fn of_agent(inspector: &Inspector) -> Result<BTreeMap<&'static str, String>> {
    parse(&inspector.sh(&list("/guest/proc/1/ns")).await?)
}

/// Guest's pid of a container's first process.
async fn guest_pid(inspector: &Inspector, id: &str) -> Result<u32> {
    let found = inspector.sh(&format!("grep -l '/{id}$' /guest/proc/[0-9]*/cgroup | cut -d/ -f4")).await?;
    let first = found.lines().filter_map(|pid| pid.parse::<u32>().ok()).min();
    first.with_context(|| format!("no process of {id}"))
}

fn namespace(kind: &str, path: &str) -> LinuxNamespace {
    LinuxNamespace { Type: kind.into(), Path: path.into(), ..LinuxNamespace::default() }
}

#[tokio::test]
async fn containers_share_the_pods_namespaces_and_have_the_others_to_themselves() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let (one, two) = (guest.container("one").run().await?, guest.container("two").run().await?);
        let (agent, one, two) = (of_agent(&inspector).await?, of(&one).await?, of(&two).await?);
        for kind in ["mnt", "pid", "cgroup"] {
            assert_ne!(one[kind], two[kind], "{kind} of two containers");
            assert_ne!(one[kind], agent[kind], "{kind} of a container and the agent");
            assert_ne!(two[kind], agent[kind], "{kind} of a container and the agent");
        }
        for kind in ["ipc", "uts"] {
            assert_eq!(one[kind], two[kind], "{kind} of two containers");
            assert_ne!(one[kind], agent[kind], "{kind} of a container and the agent");
        }
        for kind in ["net", "user"] {
            assert_eq!(one[kind], agent[kind], "{kind} of a container and the agent");
            assert_eq!(two[kind], agent[kind], "{kind} of a container and the agent");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn containers_of_a_pod_share_hostname_and_network_and_do_not_see_each_others_processes() -> Result<()> {
    in_guest(async |guest| {
        let (one, two) = (guest.container("one").run().await?, guest.container("two").run().await?);
        // The spec's hostname is the container's id; the pod's counts.
        assert_eq!(one.sh("hostname").await?, "pod");
        assert_eq!(two.sh("hostname").await?, "pod");
        let listener = one.exec(["nc", "-l", "-p", "7000"]).start().await?;
        // 7000, listening.
        let seen = "n=0; until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1B58 .* 0A '; do
            n=$((n+1)); test $n -lt 600 || exit 1; sleep 0.1; done";
        two.sh(seen).await.context("the other container's listener")?;
        // Each sees its own processes only.
        assert_eq!(one.sh("cat /proc/1/comm").await?, "sleep");
        assert!(one.sh("ps -o args").await?.contains("nc -l"));
        assert!(!two.sh("ps -o args").await?.contains("nc -l"), "another container's processes are in sight");
        one.signal(listener.exec_id(), 9).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_network_namespace_with_an_empty_path_is_a_new_one() -> Result<()> {
    in_guest(async |guest| {
        let shared = guest.container("shared").run().await?;
        let own = guest.container("own").linux(|linux| linux.Namespaces.push(namespace("network", "")));
        let own = own.run().await?;
        assert_ne!(of(&own).await?["net"], of(&shared).await?["net"]);
        let devices = own.sh("ls /sys/class/net").await?;
        assert!(devices.split_whitespace().any(|name| name == "lo"), "{devices:?}");
        assert!(!devices.contains("eth0"), "{devices:?}");
        assert_eq!(own.sh("cat /proc/net/route | tail -n +2").await?, "");
        // The pod's loopback is up, a new one is not.
        let up = |text: String| text.contains("<LOOPBACK,UP");
        assert!(up(shared.sh("ip link show lo").await?));
        assert!(!up(own.sh("ip link show lo").await?));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_named_pid_namespace_is_new_and_an_exec_joins_it() -> Result<()> {
    in_guest(async |guest| {
        let named = guest.container("named").linux(|linux| linux.Namespaces.push(namespace("pid", "")));
        let named = named.run().await?;
        assert_eq!(named.sh("cat /proc/1/comm").await?, "sleep");
        let one = named.sh(&list("/proc/1/ns")).await?;
        assert_eq!(named.sh(&list("/proc/self/ns")).await?, one);
        assert_ne!(named.sh("echo $$").await?, "1");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exec_is_in_every_namespace_and_the_cgroup_of_its_container() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let one = guest.container("one").run().await?;
        assert_eq!(one.sh(&list("/proc/self/ns")).await?, one.sh(&list("/proc/1/ns")).await?);
        assert_eq!(one.sh("cat /proc/self/cgroup").await?, "0::/");

        let execed = one.exec(["sleep", "1001"]).start().await?;
        let cgroups = "for p in /guest/proc/[0-9]*; do \
             tr '\\0' ' ' <$p/cmdline | grep -q '^sleep 100[01] ' && cat $p/cgroup; done | sort -u";
        // Both processes, and one line: that of their cgroup, as the inspector sees it from its own.
        let seen = inspector.sh(cgroups).await?;
        assert!(seen.contains("/one"), "{seen:?}");
        assert_eq!(seen.lines().filter(|line| line.contains("/one")).count(), 1, "{seen:?}");
        let count = inspector.sh("grep -l '/one$' /guest/proc/[0-9]*/cgroup | wc -l").await?;
        assert_eq!(count, "2", "first process and exec");
        one.signal(execed.exec_id(), 9).await?;
        assert_eq!(execed.wait().await?, 137);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_named_by_a_path_is_joined() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let own = guest.container("own").linux(|linux| linux.Namespaces.push(namespace("network", "")));
        let own = own.run().await?;
        let pid = guest_pid(&inspector, "own").await?;
        let guest_with = |id: &str, path: &str| {
            let entry = namespace("network", path);
            guest.container(id).linux(|linux| linux.Namespaces.push(entry))
        };
        let joined = guest_with("joined", &format!("/proc/{pid}/ns/net")).run().await?;
        assert_eq!(of(&joined).await?["net"], of(&own).await?["net"]);

        let text = expect_code(guest_with("lost", "/run/no/such").try_create().await, Code::INVALID_ARGUMENT);
        assert!(text.contains("/run/no/such"), "{text}");
        let text =
            expect_code(guest_with("other", "/proc/1/ns/uts").try_create().await, Code::INVALID_ARGUMENT);
        assert!(text.contains("net namespace"), "{text}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn namespaces_that_cannot_be_are_refused() -> Result<()> {
    in_guest(async |guest| {
        let with = |kind: &str| {
            let entry = namespace(kind, "");
            guest.container("c1").linux(|linux| linux.Namespaces.push(entry))
        };
        let twice = expect_code(with("mount").try_create().await, Code::INVALID_ARGUMENT);
        assert!(twice.contains("mnt is listed twice"), "{twice}");
        let unmapped = expect_code(with("user").try_create().await, Code::INVALID_ARGUMENT);
        assert!(unmapped.contains("linux.uidMappings"), "{unmapped}");
        expect_code(with("no-such-kind").try_create().await, Code::INVALID_ARGUMENT);
        // Nothing of the refused ones is left: the id is free.
        guest.container("c1").run().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pods_containers_can_share_one_pid_namespace() -> Result<()> {
    in_guest(async |guest| {
        let with = |id: &str| guest.container(id).request(|request| request.sandbox_pidns = true);
        let one = with("one").args(["sleep", "1111"]).run().await?;
        let two = with("two").args(["sleep", "2222"]).run().await?;
        let apart = guest.container("apart").run().await?;
        assert_eq!(of(&one).await?["pid"], of(&two).await?["pid"]);
        assert_ne!(of(&one).await?["pid"], of(&apart).await?["pid"]);
        assert!(one.sh("ps -o args").await?.contains("sleep 2222"));
        assert_eq!(two.sh("tr '\\0' ' ' </proc/1/cmdline").await?.trim(), "sleep 1111");
        Ok(())
    })
    .await
}

/// `shareProcessNamespace` together with `hostUsers: false`.
#[tokio::test]
async fn a_user_namespace_goes_with_the_pods_processes() -> Result<()> {
    in_guest(async |guest| {
        let with = |id: &str| guest.container(id).request(|request| request.sandbox_pidns = true);
        let first = with("first").args(["sleep", "1234"]).run().await?;
        let range = LinuxIDMapping { HostID: 100_000, ContainerID: 0, Size: 65536, ..Default::default() };
        let second = with("second").linux(|linux| {
            linux.Namespaces.push(namespace("user", ""));
            linux.UIDMappings = vec![range.clone()];
            linux.GIDMappings = vec![range];
        });
        let second = second.run().await?;
        assert_eq!(of(&first).await?["pid"], of(&second).await?["pid"]);
        assert!(second.sh("ps -o args").await?.contains("sleep 1234"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_user_namespace_is_the_containers_and_of_what_is_executed_in_it() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let with = |id: &str| {
            guest.container(id).linux(|linux| {
                linux.Namespaces.push(namespace("user", ""));
                let range =
                    LinuxIDMapping { HostID: 100_000, ContainerID: 0, Size: 65536, ..Default::default() };
                linux.UIDMappings = vec![range.clone()];
                linux.GIDMappings = vec![range];
            })
        };
        let one = with("one").run().await?;
        let (mine, agents) = (of(&one).await?, of_agent(&inspector).await?);
        assert_ne!(mine["user"], agents["user"]);
        assert_eq!(one.sh("tr -s ' ' < /proc/self/uid_map; id -u; id -g").await?.trim(), "0 100000 65536\n0\n0");
        // The guest sees it as somebody else, and what it may do ends at its namespace.
        let pid = guest_pid(&inspector, "one").await?;
        let look = format!("sed -n 's/^Uid:[[:space:]]*\\([0-9]*\\).*/\\1/p' /guest/proc/{pid}/status");
        assert_eq!(inspector.sh(&look).await?, "100000");
        assert_eq!(one.sh("mknod /dev/shm/node c 1 3 2>&1 | grep -c 'not permitted'").await?, "1");
        let devices = one.sh("stat -c '%n %t:%T' /dev/null /dev/tty; echo x > /dev/null; grep -c ' /dev/null ' /proc/self/mountinfo");
        assert_eq!(devices.await?, "/dev/null 1:3\n/dev/tty 5:0\n1");
        let user = one.exec(["id", "-u"]).process(|process| process.User.mut_or_insert_default().UID = 33);
        assert_eq!(user.run().await?.success()?.trim(), "33");
        // The pod's network and queues belong to the guest; what shows them is there all the same, as shims order it.
        let other = guest.container("other").run().await?;
        let links = "ls /sys/class/net; grep -e ' /sys ' -e ' /dev/mqueue ' /proc/mounts | cut -d' ' -f3,4 | tr ' ' '\n' | grep -v '^rw,'";
        assert_eq!(one.sh(links).await?, other.sh(links).await?);
        other.sh("touch /dev/mqueue/queue").await?;
        assert_eq!(one.sh("ls /dev/mqueue").await?, "queue");
        one.remove().await?;
        // A file system that only the guest may mount is refused, and nothing is left of the container.
        let all = with("two").mount("/all", "devtmpfs", "devtmpfs", &[]);
        let text = expect_code(all.try_create().await, Code::INTERNAL);
        assert!(text.contains("mount devtmpfs on /all"), "{text}");
        guest.container("two").run().await?;
        Ok(())
    })
    .await
}
