//! A policy decides about calls: the one that is baked in from the first call on, and the one that SetPolicy sends. What
//! is refused has not happened.

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protobuf::MessageField;
use protocols::agent::*;
use protocols::health::CheckRequest;
use protocols::oci;
use tests::{Code, Exec, Guest, GuestBuilder, Running, expect_code};

/// Where the policy of the boot is.
const FILE: &str = "/etc/kata-opa/default-policy.rego";

/// All that a pod's life takes, and looking at the guest from a container.
const LIFE: &str = "package agent_policy
import rego.v1
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default CreateContainerRequest := true
default StartContainerRequest := true
default RemoveContainerRequest := true
default SignalProcessRequest := true
default WaitProcessRequest := true
default ReadStreamRequest := true
default SetPolicyRequest := true
default GuestDetailsRequest := true
";

fn guest() -> GuestBuilder {
    Guest::builder().flavour("policy")
}

async fn set(guest: &Guest, policy: &str) -> ttrpc::Result<()> {
    let request = SetPolicyRequest { policy: policy.into(), ..SetPolicyRequest::default() };
    guest.api().set_policy(AgentClient::call(), &request).await.map(drop)
}

fn exec(container: &tests::Container, args: &[&str]) -> Exec {
    container.exec(args.iter().copied())
}

#[tokio::test]
async fn exec_is_denied_but_for_one_command() -> Result<()> {
    let guest = guest().boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").run().await?;
    // The inspector executes too; its container may.
    set(
        &guest,
        &format!(
            "{LIFE}
            default ExecProcessRequest := false
            ExecProcessRequest if input.container_id != \"c1\"
            ExecProcessRequest if {{
                print(\"refused:\", concat(\" \", input.process.Args))
                input.process.Args == [\"echo\", \"yes\"]
            }}"
        ),
    )
    .await?;
    assert_eq!(exec(&container, &["echo", "yes"]).run().await?.success()?, "yes");
    let before = inspector.snapshot().await?;
    let refused = exec(&container, &["touch", "/proof"]).id("e1");
    let text = expect_code(refused.start().await, Code::PERMISSION_DENIED);
    assert!(text.starts_with("ExecProcessRequest is blocked by policy: "), "{text}");
    assert!(text.contains("refused: touch /proof"), "{text}");
    assert_eq!(inspector.settled(&before).await?, before);
    // It is not known, and its id is free.
    let running = Running::of(guest.client(), "c1", "e1");
    expect_code(running.wait().await, Code::NOT_FOUND);
    assert_eq!(exec(&container, &["echo", "yes"]).id("e1").run().await?.success()?, "yes");
    let seen = inspector.sh("ls /guest/proc/*/root/proof 2>/dev/null; true").await?;
    assert_eq!(seen, "");
    Ok(())
}

#[tokio::test]
async fn a_refused_create_leaves_nothing_and_a_refused_signal_does_nothing() -> Result<()> {
    let guest = guest().boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let container = guest.container("c1").run().await?;
    let no_signal =
        LIFE.replace("default SignalProcessRequest := true", "default SignalProcessRequest := false");
    let no_create = no_signal.replace(
        "default CreateContainerRequest := true",
        "default CreateContainerRequest := false
         CreateContainerRequest if input.OCI.Process.Args[0] == \"/bin/true\"",
    );
    set(&guest, &format!("{no_create}\ndefault ExecProcessRequest := true")).await?;
    let before = inspector.snapshot().await?;
    let refused = guest.container("c2").args(["/bin/sh"]);
    let text = expect_code(refused.try_create().await, Code::PERMISSION_DENIED);
    assert!(text.starts_with("CreateContainerRequest is blocked by policy: "), "{text}");
    expect_code(container.signal("", 9).await, Code::PERMISSION_DENIED);
    assert_eq!(inspector.settled(&before).await?, before);
    // Its id is free, and the process still lives.
    guest.container("c2").args(["/bin/true"]).run().await?;
    assert_eq!(exec(&container, &["echo", "alive"]).run().await?.success()?, "alive");
    Ok(())
}

#[tokio::test]
async fn a_refused_read_is_an_end() -> Result<()> {
    let guest = guest().boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").script("echo secret; echo secret >&2; sleep 1000").run().await?;
    set(&guest, &LIFE.replace("default ReadStreamRequest := true", "default ReadStreamRequest := false"))
        .await?;
    assert_eq!(container.init().read(100).await?, b"");
    assert_eq!(container.init().read_stderr(100).await?, b"");
    set(&guest, LIFE).await?;
    // Nothing was taken from the stream.
    assert_eq!(container.init().read(100).await?, b"secret\n");
    Ok(())
}

#[tokio::test]
async fn a_policy_may_be_the_last_one() -> Result<()> {
    let guest = guest().boot().await?;
    set(&guest, &LIFE.replace("default SetPolicyRequest := true", "default SetPolicyRequest := false"))
        .await?;
    let text = expect_code(set(&guest, LIFE).await, Code::PERMISSION_DENIED);
    assert!(text.starts_with("SetPolicyRequest is blocked by policy: "), "{text}");
    guest.sandbox().await?;
    expect_code(
        guest.api().get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await,
        Code::PERMISSION_DENIED,
    );
    Ok(())
}

/// Each of these ends the interpreter, or is no policy. The guest lives on under the policy before.
#[tokio::test]
async fn a_policy_that_is_none_changes_nothing() -> Result<()> {
    let guest = guest().boot().await?;
    set(&guest, LIFE).await?;
    for (text, expected) in [
        (format!("{LIFE}\nExecProcessRequest := {{"), "policy:"),
        (LIFE.replace("agent_policy", "other"), "package is other"),
        (String::new(), "package"),
        (format!("{LIFE}\nX := {}1{}", "[".repeat(100_000), "]".repeat(100_000)), ""),
        (format!("{LIFE}\nX := {}1", "1 -\n".repeat(100_000)), ""),
    ] {
        let answer = expect_code(set(&guest, &text).await, Code::INVALID_ARGUMENT);
        assert!(
            answer.starts_with("the policy is not understood: ") && answer.contains(expected),
            "{answer}"
        );
        guest.api().get_guest_details(AgentClient::call(), &GuestDetailsRequest::new()).await?;
        let copy = guest.api().copy_file(AgentClient::call(), &CopyFileRequest::new()).await;
        expect_code(copy, Code::PERMISSION_DENIED);
    }
    Ok(())
}

#[tokio::test]
async fn a_rule_that_ends_its_interpreter_is_a_no_and_no_more() -> Result<()> {
    let guest = guest().boot().await?;
    let deadly = "
        f(x) := f(x)
        AddSwapRequest := f(1)
        ListRoutesRequest if count(numbers.range(1, 1000000000)) == 1
        ListInterfacesRequest if {
            some a in numbers.range(1, 9000)
            some b in numbers.range(1, 9000)
            a + b == 0
        }
        GetMetricsRequest := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/x\", \"value\": 1}]} if {
            not data.pstate.x
        }";
    set(&guest, &format!("{LIFE}{deadly}")).await?;
    let api = guest.api();
    let metrics =
        || async { api.get_metrics(AgentClient::call(), &GetMetricsRequest::new()).await.map(drop) };
    metrics().await?;
    // While the slow one is judged, the agent answers what is not.
    let slow = {
        let api = api.clone();
        tokio::spawn(async move {
            api.list_interfaces(AgentClient::call(), &ListInterfacesRequest::new()).await.map(drop)
        })
    };
    for _ in 0..20 {
        guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await?;
    }
    assert!(!slow.is_finished(), "twenty checks waited for a rule");
    let text = expect_code(slow.await?, Code::PERMISSION_DENIED);
    assert!(text.contains("limit"), "{text}");
    let swap = api.add_swap(AgentClient::call(), &AddSwapRequest::new()).await;
    let text = expect_code(swap, Code::PERMISSION_DENIED);
    assert_eq!(text, "AddSwapRequest is blocked by policy: its interpreter died of it");
    let routes = api.list_routes(AgentClient::call(), &ListRoutesRequest::new()).await;
    expect_code(routes, Code::PERMISSION_DENIED);
    // The state outlived it.
    expect_code(metrics().await, Code::PERMISSION_DENIED);
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_baked_in_counts_from_the_first_call() -> Result<()> {
    let guest = guest().file(FILE, &LIFE.replace("default SetPolicy", "default NoPolicy")).boot().await?;
    expect_code(set(&guest, LIFE).await, Code::PERMISSION_DENIED);
    let exec = ExecProcessRequest {
        process: MessageField::some(oci::Process::default()),
        ..ExecProcessRequest::default()
    };
    let text =
        expect_code(guest.api().exec_process(AgentClient::call(), &exec).await, Code::PERMISSION_DENIED);
    assert_eq!(text, "ExecProcessRequest is blocked by policy: it has no rule that holds");
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    guest.destroy().await
}

#[tokio::test]
async fn a_broken_file_closes_the_guest() -> Result<()> {
    let guest = guest().file(FILE, "package agent_policy\nCreateSandboxRequest := {").boot().await?;
    guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await?;
    for answer in [
        set(&guest, LIFE).await,
        guest.api().create_sandbox(AgentClient::call(), &CreateSandboxRequest::new()).await.map(drop),
    ] {
        let text = expect_code(answer, Code::PERMISSION_DENIED);
        assert!(text.contains("is blocked by policy: the default policy /etc/kata-opa/"), "{text}");
    }
    let console = guest.vm().console_log();
    assert!(console.contains("there is no policy: every call but Health is refused"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_guest_that_judges_says_so() -> Result<()> {
    let guest = guest().boot().await?;
    let details = guest.api().get_guest_details(AgentClient::call(), &GuestDetailsRequest::new()).await?;
    assert_eq!(details.agent_details.extra_features, ["agent-policy", "seccomp"]);
    drop(guest);
    let guest = Guest::boot().await?;
    let details = guest.api().get_guest_details(AgentClient::call(), &GuestDetailsRequest::new()).await?;
    assert!(!details.agent_details.extra_features.contains(&"agent-policy".to_owned()));
    let text = expect_code(set(&guest, LIFE).await, Code::UNIMPLEMENTED);
    assert!(text.contains("feature `policy`"), "{text}");
    Ok(())
}

/// Prints what a judged call costs: `cargo nextest run -P e2e --no-capture -E 'test(what_it_costs)'`.
#[tokio::test]
async fn what_it_costs() -> Result<()> {
    let judged = guest().boot().await?;
    let plain = Guest::boot().await?;
    for (name, guest) in [("policy", &judged), ("minimal", &plain)] {
        guest.sandbox().await?;
        let inspector = guest.inspector().await?;
        guest.container("c1").run().await?;
        let began = std::time::Instant::now();
        for _ in 0..200 {
            let request = StatsContainerRequest { container_id: "c1".into(), ..Default::default() };
            guest.api().stats_container(AgentClient::call(), &request).await.context("stats")?;
        }
        let stats = began.elapsed() / 200;
        let began = std::time::Instant::now();
        for at in 0..10 {
            guest.container(&format!("n{at}")).create().await?;
        }
        let create = began.elapsed() / 10;
        let rss = inspector.agent_rss_kib().await?;
        let worker = "for p in /guest/proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^/proc/self/exe policy' && \
                      sed -n 's/^VmRSS:[^0-9]*//p' $p/status; done; true";
        let worker = inspector.sh(worker).await?;
        println!("{name}: stats {stats:?}, create {create:?}, agent {rss} KiB, worker {worker:?}");
        assert_eq!(worker.is_empty(), name == "minimal", "the worker of {name}");
    }
    Ok(())
}
