//! Sysctls: those of the container's or the pod's namespaces, and no others.

use anyhow::Result;
use protocols::oci::LinuxNamespace;
use tests::{Code, ContainerBuilder, expect_code};

use crate::in_guest;

fn with(builder: ContainerBuilder, list: &[(&str, &str)]) -> ContainerBuilder {
    let list: Vec<(String, String)> =
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    builder.linux(|linux| linux.Sysctl.extend(list))
}

#[tokio::test]
async fn sysctls_of_the_pods_namespaces_are_set() -> Result<()> {
    in_guest(async |guest| {
        let list = [
            ("net.ipv4.ip_unprivileged_port_start", "79"),
            ("net/ipv4/conf/lo/forwarding", "1"),
            ("kernel.shmmax", "1234567"),
            ("kernel.msgmax", "4321"),
            ("kernel.sem", "32 64 8 16"),
            ("fs.mqueue.msg_max", "17"),
        ];
        let one = with(guest.container("one"), &list).run().await?;
        let two = guest.container("two").run().await?;
        for (key, value) in list {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            // IPC and network are the pod's, so its other containers have the same.
            for container in [&one, &two] {
                let seen = container.sh(&format!("cat {path}")).await?;
                assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), value, "{key}");
            }
        }
        // The IPC namespace is not the agent's.
        let inspector = guest.inspector().await?;
        assert_eq!(inspector.sh("cat /proc/sys/kernel/shmmax").await?, "1234567");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sysctl_goes_into_the_containers_own_network() -> Result<()> {
    in_guest(async |guest| {
        let own = LinuxNamespace { Type: "network".into(), ..LinuxNamespace::default() };
        let key = "net.ipv4.ip_unprivileged_port_start";
        let one = guest.container("one").linux(|linux| linux.Namespaces.push(own));
        let one = with(one, &[(key, "7")]).run().await?;
        let two = guest.container("two").run().await?;
        let read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(one.sh(read).await?, "7");
        assert_eq!(two.sh(read).await?, "1024");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sysctls_of_the_guest_are_refused() -> Result<()> {
    in_guest(async |guest| {
        let keys = [
            "kernel.panic",
            "kernel/panic",
            "kernel.hostname",
            "kernel.core_pattern",
            "vm.overcommit_memory",
            "fs.file-max",
            "net.../kernel/panic",
            "net/../kernel/panic",
            "",
        ];
        for key in keys {
            let one = with(guest.container("c1"), &[(key, "1")]);
            let text = expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(key), "{text}");
        }
        for (key, value) in [("net.no.such.key", "1"), ("kernel.shmmax", "plenty")] {
            let one = with(guest.container("c1"), &[(key, value)]);
            let text = expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(&key.replace('.', "/")), "{text}");
        }
        guest.container("c1").run().await?;
        Ok(())
    })
    .await
}
