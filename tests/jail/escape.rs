//! Published ways out of a container, tried in a guest. Each test does what the attack does, and sees that it gets nowhere.

use anyhow::Result;
use protobuf::MessageField;
use protocols::oci;
use tests::{Code, Guest, expect_code};

use crate::{STORE, in_guest, store, with_image};

/// What the runtime's own program is, seen by the inspector.
const PROGRAM: &str = "sha256sum < /guest/proc/1/exe; stat -L -c %Y /guest/proc/1/exe";

#[tokio::test]
async fn cve_2019_5736_the_runtimes_program_is_no_entrypoint() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let before = inspector.sh(PROGRAM).await?;
        let script = "printf '#!/proc/self/exe\\n' > script && chmod 755 script && ln -s /proc/self/exe link";
        let image = with_image(guest, &inspector, "one", script).await?;
        for program in ["/proc/self/exe", "/link", "/proc/1/exe", "/proc/self/root/bin/true"] {
            let text = expect_code(image.clone().args([program]).try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(program), "{text}");
        }
        let one = image.run().await?;
        for program in ["/proc/self/exe", "/link"] {
            let text = expect_code(one.exec([program]).start().await, Code::INVALID_ARGUMENT);
            assert!(text.contains("a link of the kernel's own"), "{text}");
        }
        // The kernel itself follows the link of an interpreter: what runs then is a copy of nothing that it could change.
        let by_script = one.exec(["/script"]).run().await?;
        assert_ne!(by_script.status, 0);
        assert_eq!(inspector.sh(PROGRAM).await?, before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2019_5736_the_runtimes_program_cannot_be_written_from_beside_an_exec() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let before = inspector.sh(PROGRAM).await?;
        let one = guest.container("one").privileged().run().await?;
        // Tries to write to the program of every process that comes, and counts what it tried and what it could.
        let watch = "tried=0; wrote=0; seen=0; while [ ! -e /stop ]; do for p in /proc/[0-9]*; do
              [ ${p#/proc/} -gt 20 ] || continue
              case $(readlink $p/exe) in */busybox) continue ;; ?*) seen=$((seen + 1)) ;; esac
              tried=$((tried + 1)); (: >> $p/exe) 2>/dev/null && readlink $p/exe | grep -q -v busybox && wrote=$((wrote + 1))
            done; done; echo $tried $wrote $seen > /result";
        let watcher = one.exec(["sh", "-c", watch]).start().await?;
        for _ in 0..20 {
            one.exec(["true"]).run().await?;
        }
        one.sh("touch /stop").await?;
        watcher.wait().await?;
        let result = one.sh("cat /result").await?;
        let counts: Vec<u64> = result.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(counts[0] > 0, "nothing was tried: {result}");
        assert_eq!(counts[1], 0, "the runtime's program was written to: {result}");
        assert_eq!(inspector.sh(PROGRAM).await?, before);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2019_19921_a_link_at_proc_or_sys_sends_no_mount_elsewhere() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        for (id, script) in [
            ("proc", "mkdir -p tmp/fake && ln -s /tmp/fake proc"),
            ("sys", "mkdir -p tmp/fake && ln -s /tmp/fake sys"),
        ] {
            let image = with_image(guest, &inspector, id, script).await?;
            let text = expect_code(image.try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(&format!("/{id}")) && text.contains("symbolic links"), "{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2021_30465_a_swapped_directory_sends_no_mount_out_of_the_root() -> Result<()> {
    let guest = Guest::builder().program("/probe", "probe")?.cpus(2).boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    store(&inspector, "mkdir -p volume/dir && ln -s / volume/link && chmod 777 volume").await?;
    let before = inspector.sh("wc -l < /guest/proc/1/mountinfo").await?;
    let volume = format!("{STORE}/volume");
    let racer = guest
        .container("racer")
        .mount("/volume", "bind", &volume, &["rbind"])
        .mount("/probe", "bind", "/probe", &["bind", "ro"])
        .args(["/probe", "--swap", "/volume/dir", "/volume/link", "/volume/times"])
        .run()
        .await?;
    let times = async || -> Result<u64> {
        let read = format!("cat /guest{volume}/times 2>/dev/null || echo 0");
        loop {
            // Empty for the moment between the racer's emptying it and writing it.
            let text = inspector.sh(&read).await?;
            if !text.trim().is_empty() {
                return Ok(text.trim().parse()?);
            }
        }
    };
    while times().await? == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let begun = times().await?;
    let (mut made, mut inside) = (0, 0);
    for round in 0..15 {
        let victim = guest
            .container(&format!("victim{round}"))
            .mount("/volume", "bind", &volume, &["rbind"])
            .mount("/volume/dir/below", "tmpfs", "marked", &["size=64k"]);
        // The name may be gone for a moment, or be a link when it is looked at: that is no way out either.
        let Ok(victim) = victim.try_create().await else { continue };
        victim.start().await?;
        made += 1;
        // Wherever it went, it is one mount and below the container's own root.
        let places = victim
            .sh("sed -n 's/.* \\([^ ]*\\) [^ ]* - tmpfs marked.*/\\1/p; ' /proc/self/mountinfo | wc -l")
            .await?;
        assert_eq!(places, "1", "round {round}");
        inside += 1;
        victim.remove().await?;
    }
    let swaps = times().await? - begun;
    assert!(made > 0 && made == inside, "{made} made, {inside} inside");
    assert!(swaps > 1000, "only {swaps} swaps while {made} containers were made");
    racer.remove().await?;
    assert_eq!(inspector.sh("wc -l < /guest/proc/1/mountinfo").await?, before);
    assert_eq!(inspector.sh("ls -d /guest/proc/1/root/below 2>&1 | grep -c 'No such'").await?, "1");
    Ok(())
}

#[tokio::test]
async fn cve_2022_0492_no_release_agent_is_to_be_had() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        // Neither by the container's root, nor as the root of a user namespace of its own.
        let tries =
            "mkdir -p /tmp/c; mount -t cgroup -o rdma cgroup /tmp/c 2>&1; mount -t cgroup2 none /tmp/c 2>&1
            unshare -U -r -m sh -c 'id -u; mount -t cgroup -o rdma cgroup /tmp/c' 2>&1; true";
        let said = one.sh(tries).await?;
        assert!(said.matches("mount").count() >= 3, "not all was tried: {said}");
        assert_eq!(
            one.sh("grep -c ' /tmp/c ' /proc/self/mountinfo; find /sys /tmp/c -name release_agent")
                .await
                .unwrap_or("0".into()),
            "0"
        );
        // Not even who may mount gets a hierarchy of version 1, with a controller or without: its namespace is not the
        // guest's.
        let mighty = guest.container("mighty").privileged().run().await?;
        let hierarchies = "mkdir -p /tmp/c; for o in rdma none,name=x; do
            mount -t cgroup -o $o cgroup /tmp/c 2>&1 && echo mounted $o; done; true";
        let said = mighty.sh(hierarchies).await?;
        assert!(!said.contains("mounted") && said.lines().count() == 2, "{said}");
        assert_eq!(mighty.sh("find /sys /tmp/c -name release_agent").await?, "");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2024_21626_a_working_directory_through_a_descriptor_is_refused() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let image = with_image(
            guest,
            &inspector,
            "other",
            "ln -s /proc/self/fd/7 work && ln -s /proc/self/fd/9 next",
        )
        .await?;
        let one = with_image(guest, &inspector, "one", "ln -s /proc/self/fd/7 work").await?.run().await?;
        let places = (3..24).map(|number| format!("/proc/self/fd/{number}")).chain(["/work".into()]);
        for place in places {
            let created = image.clone().process(|process| process.Cwd = place.clone()).try_create().await;
            expect_code(created, Code::INVALID_ARGUMENT);
            let executed = one.exec(["ls", ".."]).process(|process| process.Cwd = place.clone());
            expect_code(executed.start().await, Code::INVALID_ARGUMENT);
        }
        // And there is nothing open that could be one.
        let open =
            "ls -l /proc/self/fd | sed -n 's/.* -> //p' | grep -v -e pipe: -e '^/proc/' -e /dev/null; true";
        assert_eq!(one.sh(open).await?, "");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2025_31133_a_mask_is_not_what_the_image_calls_null() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let script = "mkdir -p dev && ln -s /proc/sys/kernel/core_pattern dev/null && echo secret > secret";
        let image = with_image(guest, &inspector, "one", script).await?;
        let one = image
            .spec(|spec| spec.Mounts.retain(|mount| !mount.destination.starts_with("/dev")))
            .linux(|linux| linux.MaskedPaths = vec!["/secret".into(), "/proc/keys".into()])
            .run()
            .await?;
        assert_eq!(
            one.sh("cat /secret /proc/keys | wc -c; stat -c %t:%T /secret /proc/keys").await?,
            "0\n1:3\n1:3"
        );
        assert_eq!(
            one.sh("(echo '|/evil' > /secret) 2>/dev/null; cat /proc/sys/kernel/core_pattern").await?,
            "core"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2025_52565_a_terminal_is_devpts_own() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        // An image whose console is a link: it is covered, not followed.
        let script = "mkdir -p dev && ln -s /proc/sys/kernel/core_pattern dev/console && ln -s /etc/passwd dev/ptmx";
        let image = with_image(guest, &inspector, "one", script).await?.terminal();
        let keep = |spec: &mut oci::Spec| spec.Mounts.retain(|mount| mount.destination != "/dev");
        if let Ok(one) = image.clone().spec(keep).try_create().await {
            one.start().await?;
            assert_eq!(one.sh("cat /proc/sys/kernel/core_pattern; grep -c ' /proc/sys/kernel/core_pattern ' /proc/self/mountinfo || true").await?, "core\n0");
            one.remove().await?;
        }
        // A volume that plays devpts: whatever its ptmx is, it is not opened.
        for (id, make) in [("link", "ln -s /etc/passwd ptmx"), ("device", "mknod ptmx c 5 2"), ("kmsg", "mknod ptmx c 1 11")] {
            store(&inspector, &format!("mkdir -p pts-{id} && cd pts-{id} && {make}")).await?;
            let fake = guest.container(id).terminal().spec(|spec| {
                spec.Mounts.retain(|mount| mount.destination != "/dev/pts");
                spec.Mounts.push(tests::mount("/dev/pts", "bind", &format!("{STORE}/pts-{id}"), &["bind"]));
            });
            let text = expect_code(fake.try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains("needs a devpts"), "{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cve_2025_52881_writes_of_the_runtime_go_to_the_kernels_files() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let files = "self/oom_score_adj self/attr/exec sys/net/ipv4/ip_default_ttl sys/kernel/shmmax";
        let make = format!("mkdir -p fake/self/attr fake/sys/net/ipv4 fake/sys/kernel; for f in {files}; do echo old > fake/$f; done");
        store(&inspector, &make).await?;
        let one = guest
            .container("one")
            .spec(|spec| {
                spec.Mounts.retain(|mount| mount.destination != "/proc");
                spec.Mounts.insert(0, tests::mount("/proc", "bind", &format!("{STORE}/fake"), &["bind"]));
            })
            .linux(|linux| {
                linux.Sysctl.insert("net.ipv4.ip_default_ttl".into(), "77".into());
                linux.MaskedPaths.clear();
                linux.ReadonlyPaths.clear();
            })
            .process(|process| process.OOMScoreAdj = 99)
            .run()
            .await?;
        let fake = inspector.sh(&format!("cd /guest{STORE}/fake && cat {files} | sort | uniq -c | tr -s ' '")).await?;
        assert_eq!(fake.trim(), "4 old");
        // They are in force all the same.
        let real = "grep -l . /guest/proc/[0-9]*/oom_score_adj | xargs grep -l -x 99 | wc -l; cat /guest/proc/1/sys/net/ipv4/ip_default_ttl 2>/dev/null || cat /proc/sys/net/ipv4/ip_default_ttl";
        assert_eq!(inspector.sh(real).await?, "1\n77");
        one.remove().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn keys_of_one_container_are_not_anothers() -> Result<()> {
    let guest = Guest::builder().program("/probe", "probe")?.boot().await?;
    guest.sandbox().await?;
    let with = |id: &str| {
        guest
            .container(id)
            .mount("/probe", "bind", "/probe", &["bind", "ro"])
            .linux(|linux| linux.MaskedPaths.clear())
    };
    let (one, two) = (with("one").run().await?, with("two").run().await?);
    // Each process has a session keyring of its own, which only it may look at.
    let serial = "/probe --call keyctl:0 | grep -o '\"keyring\":\"[^\"]*\"'";
    assert_eq!(one.sh(serial).await?, "\"keyring\":\"keyring;0;0\"");
    let seen = "grep -c _ses: /proc/keys";
    assert_eq!(one.sh(seen).await?, "1");
    assert_eq!(two.sh(seen).await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_processs_environment_is_its_own_until_it_executes() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        let watch = "while [ ! -e /stop ]; do cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -m1 '^PITH\\|^PATH_OF_THE_AGENT'; done >> /seen";
        let watcher = one.exec(["sh", "-c", watch]).start().await?;
        for _ in 0..10 {
            let exec = one.exec(["true"]).process(|process| {
                process.Capabilities = MessageField::some(oci::LinuxCapabilities::default());
            });
            assert_eq!(exec.run().await?.status, 0);
        }
        one.sh("touch /stop").await?;
        watcher.wait().await?;
        assert_eq!(one.sh("cat /seen").await?, "");
        Ok(())
    })
    .await
}
