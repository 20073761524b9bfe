//! Hooks: of the guest's hook directory, and of a container's own spec.

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::{CopyFileRequest, CreateSandboxRequest};
use protocols::oci;
use serde_json::Value;
use tests::{Code, Guest, Inspector, expect_code};

/// Where the host can put files, and so these tests their hooks.
const HOOKS: &str = "/run/kata-containers/shared/containers/hooks";
/// Each hook adds a line here: its name and what it read.
const LOG: &str = "/run/hooks.log";

/// Puts a script into the guest.
async fn put(guest: &Guest, name: &str, mode: u32, script: &str) -> Result<()> {
    let data = format!("#!/bin/sh\nstate=$(cat)\n{script}\n").into_bytes();
    let request = CopyFileRequest {
        path: format!("{HOOKS}/{name}"),
        file_size: data.len() as i64,
        file_mode: 0o100_000 | mode,
        dir_mode: 0o755,
        data,
        ..Default::default()
    };
    guest.api().copy_file(AgentClient::call(), &request).await.with_context(|| format!("put {name}"))?;
    Ok(())
}

/// A guest with a shell whose sandbox has these hooks.
async fn guest_with(hooks: &[(&str, u32, &str)]) -> Result<Guest> {
    let guest = Guest::builder().flavour("debug").boot().await?;
    for (name, mode, script) in hooks {
        put(&guest, name, *mode, script).await?;
    }
    let request = CreateSandboxRequest {
        sandbox_id: "pod".into(),
        guest_hook_path: HOOKS.into(),
        ..Default::default()
    };
    guest.api().create_sandbox(AgentClient::call(), &request).await.context("CreateSandbox")?;
    Ok(guest)
}

/// What hooks have logged about a container: the hook's name and the state it was told.
async fn logged(inspector: &Inspector, id: &str) -> Result<Vec<(String, Value)>> {
    let log = inspector.sh(&format!("cat /guest{LOG} 2>/dev/null || true")).await?;
    let lines = log.lines().map(|line| {
        let (name, state) = line.split_once(' ').context("a line without a state")?;
        anyhow::Ok((name.to_owned(), serde_json::from_str::<Value>(state).with_context(|| line.to_owned())?))
    });
    let lines = lines.collect::<Result<Vec<_>>>()?;
    Ok(lines.into_iter().filter(|(_, state)| state["id"] == id).collect())
}

async fn wait_for_log(inspector: &Inspector, text: &str) -> Result<()> {
    let look = format!("until grep -q '{text}' /guest{LOG}; do usleep 50000; done");
    inspector.sh(&look).await.map(drop)
}

const TELL: &str = "echo \"${0##*/} $state\" >> /run/hooks.log";

#[tokio::test]
async fn guest_hooks_run_in_order_and_are_told_the_state() -> Result<()> {
    // The first one also looks whether the container has its namespaces, and whether its program has run.
    let look = format!(
        "{TELL}\n\
         pid=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')\n\
         [ $(readlink /proc/$pid/ns/mnt) != $(readlink /proc/self/ns/mnt) ] || exit 0\n\
         [ -e /proc/$pid/root/bin/busybox ] && [ ! -e /proc/$pid/root/mark ] || exit 0\n\
         echo \"before-the-program $state\" >> {LOG}"
    );
    let guest = guest_with(&[
        ("prestart/20-second", 0o755, TELL),
        ("prestart/10-first", 0o755, &look),
        ("prestart/30-not-executable", 0o644, TELL),
        ("poststart/after", 0o755, TELL),
        ("poststop/end", 0o755, TELL),
        ("createRuntime/not-a-guest-hook", 0o755, TELL),
    ])
    .await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").script("touch /mark; sleep 1000").spec(|spec| {
        spec.Annotations.insert("io.example/key".into(), "value".into());
    });
    let container = container.create().await?;
    let names = |log: &[(String, Value)]| log.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let log = logged(&inspector, "c1").await?;
    assert_eq!(names(&log), ["10-first", "before-the-program", "20-second"]);
    let state = &log[0].1;
    assert_eq!(
        (state["ociVersion"].as_str(), state["status"].as_str(), state["bundle"].as_str()),
        (Some("1.2.0"), Some("creating"), Some("/run/kata-containers/c1"))
    );
    assert_eq!(state["annotations"]["io.example/key"], "value");
    let pid = state["pid"].as_i64().context("no pid")?;
    container.start().await?;
    let log = logged(&inspector, "c1").await?;
    assert_eq!(names(&log)[3..], ["after"]);
    assert_eq!((&log[3].1["status"], log[3].1["pid"].as_i64()), (&Value::from("running"), Some(pid)));
    container.remove().await?;
    let log = logged(&inspector, "c1").await?;
    assert_eq!(names(&log)[4..], ["end"]);
    assert_eq!((&log[4].1["status"], log[4].1.get("pid")), (&Value::from("stopped"), None));
    Ok(())
}

#[tokio::test]
async fn guest_hooks_that_fail_or_hang_are_no_failure_of_the_container() -> Result<()> {
    let only_slow = |script: &str| format!("case $state in *'\"id\":\"slow\"'*) {script} ;; esac");
    let guest = guest_with(&[
        ("prestart/10-fails", 0o755, &only_slow("echo broken thing >&2; exit 3")),
        ("prestart/20-hangs", 0o755, &only_slow(&format!("{TELL}; sleep 1000 & setsid sleep 1000"))),
        ("prestart/30-after", 0o755, TELL),
        ("poststop/10-fails", 0o755, "exit 4"),
    ])
    .await?;
    let inspector = guest.inspector().await?;
    let other = guest.container("other").run().await?;
    let before = inspector.snapshot().await?;
    let slow = guest.container("slow").script("echo runs; sleep 1000");
    let creating = tokio::spawn(async move { slow.create().await });
    wait_for_log(&inspector, "20-hangs").await?;
    // Neither other containers nor other calls wait for it.
    assert_eq!(other.sh("echo still here").await?, "still here");
    guest.container("third").script("exit 7").run().await?.remove().await?;
    assert!(!creating.is_finished(), "the hook did not hang");
    let slow = creating.await??;
    let console = guest.vm().console_log();
    assert!(console.contains("broken thing") && console.contains("status 3"), "{console}");
    assert!(console.contains("20-hangs took longer than 10 s"), "{console}");
    assert_eq!(logged(&inspector, "slow").await?.last().map(|(name, _)| name.as_str()), Some("30-after"));
    slow.start().await?;
    slow.init().read_until("runs").await?;
    slow.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_hook_directory_that_is_not_there_is_no_failure() -> Result<()> {
    let guest = Guest::boot().await?;
    let request = CreateSandboxRequest {
        sandbox_id: "pod".into(),
        guest_hook_path: "/usr/share/oci/hooks".into(),
        ..Default::default()
    };
    guest.api().create_sandbox(AgentClient::call(), &request).await?;
    assert_eq!(guest.container("c1").script("exit 3").run().await?.wait().await?, 3);
    let console = guest.vm().console_log();
    assert!(console.contains("/usr/share/oci/hooks"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_hook_that_hangs_after_the_start_holds_up_nothing_and_ends_with_the_container() -> Result<()> {
    let hang =
        "case $state in *'\"id\":\"c1\"'*) echo \"${0##*/} $state\" >> /run/hooks.log; sleep 1000 ;; esac";
    let guest = guest_with(&[("poststart/hangs", 0o755, hang)]).await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let container = guest.container("c1").create().await?;
    let starting = tokio::spawn({
        let container = container.clone();
        async move { container.start().await }
    });
    wait_for_log(&inspector, "hangs").await?;
    assert_eq!(container.sh("echo executes").await?, "executes");
    assert!(!starting.is_finished(), "the start did not wait for its hook");
    container.remove().await?;
    starting.await??;
    assert_eq!(inspector.settled(&before).await?, before);
    let console = guest.vm().console_log();
    assert!(console.contains("nobody waits for a program"), "{console}");
    Ok(())
}

fn hook(script: &str, timeout: i64) -> oci::Hook {
    oci::Hook {
        Path: "/bin/sh".into(),
        Args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        Env: vec!["PATH=/bin".into(), "WHO=hook".into()],
        Timeout: timeout,
        ..Default::default()
    }
}

#[tokio::test]
async fn hooks_of_a_spec_run_and_a_failure_before_the_start_is_the_containers() -> Result<()> {
    let guest = guest_with(&[("prestart/guest", 0o755, TELL)]).await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let tell = |name: &str| hook(&format!("echo {name}-$WHO $(cat) >> {LOG}"), 0);
    let with = |id: &str, hooks: oci::Hooks| guest.container(id).spec(|spec| spec.Hooks = Some(hooks).into());
    let good = oci::Hooks {
        Prestart: vec![tell("prestart")],
        CreateRuntime: vec![tell("createRuntime")],
        Poststart: vec![hook("exit 9", 0), tell("poststart")],
        Poststop: vec![tell("poststop")],
        ..Default::default()
    };
    with("good", good).run().await?.remove().await?;
    let names: Vec<_> = logged(&inspector, "good").await?.into_iter().map(|(name, _)| name).collect();
    let expected = ["prestart-hook", "guest", "createRuntime-hook", "poststart-hook", "poststop-hook"];
    assert_eq!(names, expected);

    let fails = |hook: oci::Hook| oci::Hooks {
        CreateRuntime: vec![hook],
        Poststop: vec![tell("poststop")],
        ..Default::default()
    };
    let create = |id: &str, hooks| {
        let builder = with(id, hooks);
        async move { builder.try_create().await.map(drop) }
    };
    let text =
        expect_code(create("bad", fails(hook("echo out of luck >&2; exit 5", 0))).await, Code::INTERNAL);
    assert!(text.contains("createRuntime hook /bin/sh") && text.contains("out of luck"), "{text}");
    let names: Vec<_> = logged(&inspector, "bad").await?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["guest", "poststop-hook"]);
    expect_code(create("hangs", fails(hook("sleep 1000", 1))).await, Code::DEADLINE_EXCEEDED);
    let missing = oci::Hook { Path: "/no/such/hook".into(), ..Default::default() };
    let text = expect_code(create("missing", fails(missing)).await, Code::INVALID_ARGUMENT);
    assert!(text.contains("/no/such/hook"), "{text}");
    let inside =
        oci::Hooks { CreateContainer: vec![hook("echo no such luck >&2; exit 6", 0)], ..Default::default() };
    let text = expect_code(create("inside", inside).await, Code::INTERNAL);
    assert!(text.contains("createContainer hook /bin/sh") && text.contains("no such luck"), "{text}");
    let slow = oci::Hooks { CreateContainer: vec![hook("sleep 1000", 1)], ..Default::default() };
    let text = expect_code(create("slow", slow).await, Code::INTERNAL);
    assert!(text.contains("longer than 1 s"), "{text}");
    assert_eq!(inspector.settled(&before).await?, before);
    // Their ids are free again.
    guest.container("bad").run().await?.remove().await?;
    Ok(())
}

#[tokio::test]
async fn hooks_of_the_containers_own_namespaces_run_there() -> Result<()> {
    let guest = guest_with(&[]).await?;
    let inspector = guest.inspector().await?;
    let hook = |path: &str, script: &str| oci::Hook {
        Path: path.into(),
        Args: ["sh", "-c", script].map(String::from).to_vec(),
        Env: vec!["PATH=/bin".into(), "NAME=value".into()],
        ..Default::default()
    };
    // The first one is in the guest's root with the container's mounts around it, the second one in the container's.
    let before = "cat > /run/kata-containers/told; readlink /proc/self/ns/mnt >> /run/kata-containers/told; \
        grep -c ' /run/kata-containers/c1/rootfs/proc ' /proc/self/mountinfo >> /run/kata-containers/told";
    let inside = "cat > /told; echo >> /told; echo $NAME $$ >> /told; id -u >> /told";
    let hooks = oci::Hooks {
        CreateContainer: vec![hook("/bin/sh", before)],
        StartContainer: vec![hook("/bin/sh", inside)],
        ..Default::default()
    };
    let one = guest
        .container("c1")
        .spec(|spec| spec.Hooks = Some(hooks).into())
        .process(|process| process.User.mut_or_insert_default().UID = 0)
        .create()
        .await?;
    let told = inspector.sh("cat /guest/run/kata-containers/told").await?;
    let state: Value = serde_json::from_str(
        told.lines()
            .next()
            .unwrap_or_default()
            .split_inclusive('}')
            .collect::<String>()
            .split("mnt:")
            .next()
            .unwrap_or_default(),
    )?;
    assert_eq!((&state["status"], &state["id"]), (&"creating".into(), &"c1".into()));
    assert!(told.ends_with("\n1"), "{told}");
    assert_eq!(inspector.sh("ls /guest/proc/1/root/told 2>&1 | grep -c 'No such'").await?, "1");
    one.start().await?;
    let told = one.sh("cat /told").await?;
    let lines: Vec<&str> = told.lines().collect();
    let state: Value = serde_json::from_str(lines[0])?;
    assert_eq!((&state["status"], &state["pid"]), (&"created".into(), &1.into()));
    assert!(lines[1].starts_with("value ") && lines[2] == "0", "{told}");
    one.remove().await?;
    // One that fails keeps the program from executing, and the start says so.
    let hooks = oci::Hooks {
        StartContainer: vec![hook("/bin/sh", "echo not today >&2; exit 9")],
        ..Default::default()
    };
    let failing = guest.container("c2").spec(|spec| spec.Hooks = Some(hooks).into()).create().await?;
    let text = expect_code(failing.start().await, Code::INTERNAL);
    assert!(text.contains("startContainer hook /bin/sh") && text.contains("not today"), "{text}");
    assert_eq!(failing.wait().await?, 126);
    failing.remove().await?;
    Ok(())
}
