//! Control groups: a container's own, with the limits of its spec, seen from inside and from the guest.

use anyhow::Result;
use tests::{Code, Inspector, expect_code};

use crate::in_guest;

const MIB: i64 = 1 << 20;

/// A file of a container's cgroup, as the guest has it.
async fn file(inspector: &Inspector, path: &str) -> Result<String> {
    inspector.sh(&format!("cat /guest/cgroup/{path}")).await
}

#[tokio::test]
async fn limits_of_the_spec_are_those_of_the_cgroup() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let one = guest
            .container("one")
            .resources(|resources| {
                let cpu = resources.CPU.mut_or_insert_default();
                (cpu.Quota, cpu.Period, cpu.Shares) = (50_000, 100_000, 512);
                let memory = resources.Memory.mut_or_insert_default();
                (memory.Limit, memory.Swap, memory.Reservation) = (64 * MIB, 96 * MIB, 32 * MIB);
                resources.Pids.mut_or_insert_default().Limit = 50;
            })
            .run()
            .await?;
        // 512 shares are 1 + (512 - 2) * 9999 / 262142 of the weight; swap is what exceeds the memory.
        let expected = [
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "20"),
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("pids.max", "50"),
        ];
        for (name, value) in expected {
            assert_eq!(file(&inspector, &format!("test/one/{name}")).await?, value, "{name}");
            // The container's own view of it.
            assert_eq!(one.sh(&format!("cat /sys/fs/cgroup/{name}")).await?, value, "{name} inside");
        }
        let swap = "/guest/cgroup/test/one/memory.swap.max";
        let swap =
            inspector.sh(&format!("if test -e {swap}; then cat {swap}; else echo no swap; fi")).await?;
        assert!(swap == "33554432" || swap == "no swap", "{swap}");

        guest.container("free").run().await?;
        for (name, value) in [("cpu.max", "max 100000"), ("memory.max", "max")] {
            assert_eq!(file(&inspector, &format!("test/free/{name}")).await?, value, "{name}");
        }
        // Who asks for no limit of processes has a half of the pod's.
        let pods: u64 = file(&inspector, "pids.max").await?.parse()?;
        assert_eq!(file(&inspector, "test/free/pids.max").await?, (pods / 2).to_string());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_sees_its_own_cgroup_and_cannot_change_it() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").privileged().run().await?;
        assert_eq!(one.sh("cat /proc/self/cgroup").await?, "0::/");
        assert_eq!(one.sh("cat /proc/1/cgroup").await?, "0::/");
        let line = one.sh("grep ' /sys/fs/cgroup ' /proc/self/mountinfo").await?;
        assert!(line.contains(" / /sys/fs/cgroup ro,") && line.contains(" - cgroup2 "), "{line}");
        assert_eq!(one.sh("cd /sys/fs/cgroup && find . -type d").await?, ".");
        // The two processes that look, and the first one.
        assert!(one.sh("cat /sys/fs/cgroup/cgroup.procs").await?.lines().any(|pid| pid == "1"));
        for script in ["mkdir /sys/fs/cgroup/x", "echo max >/sys/fs/cgroup/pids.max"] {
            let tried = one.exec(["sh", "-c", script]).run().await?;
            let text = String::from_utf8_lossy(&tried.stderr).into_owned();
            assert!(text.contains("Read-only file system"), "{script}: {text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_cgroup_is_where_the_spec_says_and_goes_with_the_container() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let cases = [
            ("plain", "/pods/p1/plain", "pods/p1/plain"),
            ("relative", "pods/relative", "pods/relative"),
            ("systemd", "kata.slice:prefix:name", "kata.slice/prefix/name"),
            ("absent", "", "absent"),
        ];
        for (id, spec, path) in cases {
            let one = guest.container(id).linux(|linux| linux.CgroupsPath = spec.into()).run().await?;
            let populated = file(&inspector, &format!("{path}/cgroup.events")).await?;
            assert!(populated.contains("populated 1"), "{id}: {populated}");
            one.remove().await?;
            let top = path.split('/').next().unwrap_or_default();
            inspector.sh(&format!("test ! -e /guest/cgroup/{top}")).await?;
        }
        for path in ["/", "/a/../b", "/cgroup.procs", ".."] {
            let one = guest.container("c1").linux(|linux| linux.CgroupsPath = path.into());
            expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pids_limit_stops_a_fork_bomb() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .resources(|resources| resources.Pids.mut_or_insert_default().Limit = 12)
            .run()
            .await?;
        let bomb = "n=0; while [ $n -lt 40 ]; do sleep 100 & n=$((n+1)); done; echo all of them";
        let tried = one.exec(["sh", "-c", bomb]).run().await?;
        assert_ne!(tried.status, 0);
        assert!(String::from_utf8_lossy(&tried.stderr).contains("can't fork"), "{tried:?}");
        // Others of the pod go on.
        assert_eq!(guest.container("two").run().await?.sh("echo alive").await?, "alive");
        one.remove().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let before = inspector.sh("cd /guest/cgroup && find . -type d | sort").await?;
        let period = guest.container("c1").resources(|resources| {
            let cpu = resources.CPU.mut_or_insert_default();
            (cpu.Quota, cpu.Period) = (1000, 5);
        });
        expect_code(period.try_create().await, Code::INVALID_ARGUMENT);
        let swap = guest.container("c1").resources(|resources| {
            let memory = resources.Memory.mut_or_insert_default();
            (memory.Limit, memory.Swap) = (64 * MIB, 32 * MIB);
        });
        expect_code(swap.try_create().await, Code::INVALID_ARGUMENT);
        let after = inspector.sh("cd /guest/cgroup && find . -type d | sort").await?;
        assert_eq!(after, before, "cgroups are left behind");
        Ok(())
    })
    .await
}
