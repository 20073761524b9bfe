//! What a policy decides and remembers, and that nothing is allowed by mistake.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::{Allowed, Engine, fresh};
use super::*;

fn parse(text: &str) -> Result<Engine, String> {
    Engine::parse(text, fresh())
}

fn engine(rules: &str) -> Engine {
    parse(&format!("package agent_policy\nimport rego.v1\n{rules}")).unwrap()
}

fn allow(engine: &mut Engine, request: &str, input: Value) -> Option<Value> {
    let Allowed { state, ignored } = engine.judge(request, input).unwrap();
    assert_eq!(ignored, None);
    state
}

fn refusal(engine: &mut Engine, request: &str, input: Value) -> String {
    engine.judge(request, input).expect_err("it is allowed")
}

#[test]
fn defaults_and_rules_decide() {
    let mut engine = engine(
        "default WaitProcessRequest := true\ndefault ExecProcessRequest := false\n\
         ExecProcessRequest if input.process.Args[0] == \"/bin/true\"\n",
    );
    let exec = |program: &str| json!({"process": {"Args": [program]}});
    allow(&mut engine, "WaitProcessRequest", json!({}));
    allow(&mut engine, "ExecProcessRequest", exec("/bin/true"));
    assert_eq!(refusal(&mut engine, "ExecProcessRequest", exec("/bin/sh")), "its rule says no");
    // One input does not show through in the next evaluation.
    assert_eq!(refusal(&mut engine, "ExecProcessRequest", json!({})), "its rule says no");
    assert_eq!(refusal(&mut engine, "CopyFileRequest", json!({})), "it has no rule that holds");
}

#[test]
fn what_a_rule_prints_is_the_reason() {
    let mut engine =
        engine("default R := false\nR if {\n print(\"uid is\", input.uid)\n input.uid == 0\n}\n");
    let reason = refusal(&mut engine, "R", json!({"uid": 7}));
    assert!(reason.contains("uid is 7"), "{reason}");
    allow(&mut engine, "R", json!({"uid": 0}));
    // Neither what an allowed call printed nor the call before it.
    let reason = refusal(&mut engine, "R", json!({"uid": 8}));
    assert!(reason.contains("uid is 8") && !reason.contains('7') && !reason.contains("is 0"), "{reason}");
    let reason = refusal(&mut engine, "R", json!({"uid": "é".repeat(5000)}));
    assert!(reason.len() <= 4096 && reason.contains('é'), "{}", reason.len());
}

const STATEFUL: &str = "
    R := {\"allowed\": true, \"ops\": ops} if {
        not data.pstate[input.id]
        ops := [{\"op\": \"add\", \"path\": concat(\"/\", [\"/pstate\", input.id]), \"value\": input.value}]
    }
    R := {\"allowed\": true, \"ops\": []} if data.pstate[input.id] == input.value
    default Bad := false
    Bad := {\"allowed\": true, \"ops\": [
        {\"op\": \"add\", \"path\": \"/pstate/half\", \"value\": 1},
        {\"op\": \"remove\", \"path\": \"/pstate/none\"},
    ]}
    No := {\"allowed\": false, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/half\", \"value\": 1}]}
    Scalar := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": \"\", \"value\": 1}]}
    Half if data.pstate.half
";

#[test]
fn the_state_is_kept_between_calls_and_beyond_the_interpreter() {
    let mut first = engine(STATEFUL);
    let input = |id: &str, value: u32| json!({"id": id, "value": value});
    assert_eq!(allow(&mut first, "R", input("a", 1)), Some(json!({"pstate": {"a": 1}})));
    assert_eq!(allow(&mut first, "R", input("a", 1)), None);
    assert_eq!(refusal(&mut first, "R", input("a", 2)), "it has no rule that holds");
    let state = allow(&mut first, "R", input("b", 2)).unwrap();
    let text = format!("package agent_policy\nimport rego.v1\n{STATEFUL}");
    let mut second = Engine::parse(&text, state).unwrap();
    assert_eq!(refusal(&mut second, "R", input("b", 1)), "it has no rule that holds");
    assert_eq!(allow(&mut second, "R", input("b", 2)), None);
}

#[test]
fn a_refused_or_failed_call_changes_no_state() {
    let mut engine = engine(STATEFUL);
    for request in ["Bad", "No", "Scalar"] {
        refusal(&mut engine, request, json!({}));
        assert_eq!(refusal(&mut engine, "Half", json!({})), "it has no rule that holds", "{request}");
    }
}

#[test]
fn answers_that_are_no_decision_are_a_no() {
    for answer in [
        "1",
        "\"true\"",
        "[true]",
        "null",
        "{}",
        "{\"allowed\": 1}",
        "{\"allowed\": true, \"ops\": 1}",
        "{\"allowed\": true, \"ops\": [{\"op\": \"paint\", \"path\": \"/x\"}]}",
        "{true}",
    ] {
        let mut engine = engine(&format!("R := {answer}\n"));
        let reason = refusal(&mut engine, "R", json!({}));
        assert!(reason.starts_with("its rule's answer is "), "{answer}: {reason}");
    }
    // Two values for one rule.
    let mut engine = engine("R := true if input.x\nR := false if input.y\n");
    let reason = refusal(&mut engine, "R", json!({"x": 1, "y": 1}));
    assert!(reason.starts_with("its evaluation failed: "), "{reason}");
    allow(&mut engine, "R", json!({"x": 1}));
}

#[test]
fn lenient_policies_let_refusals_through_but_not_errors() {
    let mut engine = engine(
        "default AllowRequestsFailingPolicy := true\ndefault No := false\nOdd := 1\nTwo := true if input.x\nTwo := false if input.x\n",
    );
    assert!(engine.lenient());
    for (request, reason) in [("No", "its rule says no"), ("Missing", "it has no rule that holds")] {
        let allowed = engine.judge(request, json!({})).unwrap();
        assert_eq!(allowed, Allowed { state: None, ignored: Some(reason.into()) });
    }
    refusal(&mut engine, "Odd", json!({}));
    refusal(&mut engine, "Two", json!({"x": true}));
}

#[test]
fn both_versions_of_the_language_are_understood() {
    let old = "package agent_policy\nimport future.keywords.in\nimport input\ndefault R := false\n\
               R {\n some x in [1, 2]\n input.x == x\n}\n";
    let mut engine = parse(old).unwrap();
    allow(&mut engine, "R", json!({"x": 2}));
    refusal(&mut engine, "R", json!({"x": 3}));
}

/// What generated policies call, beside operators.
#[test]
fn the_functions_that_generated_policies_use_are_there() {
    let mut engine = engine(
        r#"
        R if {
            regex.match("^[0-9a-f]{2,}$", "beef")
            replace("$(cpath)/x", "$(cpath)", "/run") == "/run/x"
            concat("/", ["a", "b"]) == "a/b"
            split("a:b", ":") == ["a", "b"]
            startswith("abc", "a"); endswith("abc", "c"); contains("abc", "b")
            trim_prefix("vfio0", "vfio") == "0"; trim_suffix("x.y", ".y") == "x"
            sprintf("%s-%d", ["a", 1]) == "a-1"
            count([1, 2]) == 2; sum([1, 2]) == 3; max([1, 2]) == 2
            array.concat([1], [2]) == [1, 2]
            object.get({"a": 1}, "b", 2) == 2
            is_null(null); is_string("x")
            to_number("7") == 7; format_int(10, 16) == "a"
            lower("A") == "a"; upper("a") == "A"
            every x in [1, 2] { x > 0 }
            {x | some x in [1, 1]} == {1}
            9223372036854775807 == input.big
        }"#,
    );
    allow(&mut engine, "R", json!({"big": i64::MAX}));
}

#[test]
fn a_text_that_is_no_policy_says_what_is_wrong_and_where() {
    for (text, expected) in [
        ("", "package"),
        ("package agent_policy\nallow := {", "policy:2:"),
        ("package other\nR := true", "its package is other, where agent_policy is expected"),
        ("package agent_policy\nAllowRequestsFailingPolicy := 1", "neither true nor false"),
        ("\0", ""),
    ] {
        let error = parse(text).map(|_| ()).expect_err(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

/// The interpreter looks into a rule when it is asked.
#[test]
fn a_rule_with_a_mistake_is_a_no_and_harms_no_other() {
    for (rule, expected) in [("R := x", "x"), ("R if nosuch(1)", "nosuch"), ("R if 1 / 0 == 1", "")] {
        let mut engine = engine(&format!("{rule}\ndefault Other := true\n"));
        let reason = refusal(&mut engine, "R", json!({}));
        assert!(reason.contains(expected), "{rule}: {reason}");
        allow(&mut engine, "Other", json!({}));
    }
}

#[test]
fn what_generated_policies_have_more_of_than_others_is_taken() {
    // A line that the interpreter's own limits would not take.
    let long = format!("package agent_policy\nR if \"{}\" == input.x", "x".repeat(10_000));
    let long = long.replace("agent_policy", "agent_policy\nimport rego.v1");
    allow(&mut parse(&long).unwrap(), "R", json!({"x": "x".repeat(10_000)}));
    let wide = format!("package agent_policy\nR := \"{}\"", "x".repeat(100_000));
    parse(&wide).map(|_| ()).expect_err("a line of 100 KB");
    let mut rules: String = (0..200).map(|at| format!("r{at} := r{}\n", at + 1)).collect();
    rules.push_str("r200 := true\nR := r0\n");
    let deep = move || drop(allow(&mut engine(&rules), "R", json!({})));
    thread::Builder::new().stack_size(16 << 20).spawn(deep).unwrap().join().unwrap();
    let circle = "A if B\nB if A\n";
    let reason = refusal(&mut engine(circle), "A", json!({}));
    assert!(reason.contains("recursion"), "{reason}");
}

#[test]
fn an_evaluation_ends() {
    let mut engine = engine(
        "R if {\n some a in numbers.range(1, 5000)\n some b in numbers.range(1, 5000)\n \
         some c in numbers.range(1, 5000)\n a + b + c == 0\n}\ndefault Quick := true\n",
    );
    let began = Instant::now();
    let reason = refusal(&mut engine, "R", json!({}));
    assert!(reason.starts_with("its evaluation failed: ") && reason.contains("limit"), "{reason}");
    // Without a limit it would take hours.
    assert!(began.elapsed() < Duration::from_secs(600));
    allow(&mut engine, "Quick", json!({}));
}

/// A worker that is a thread, and dies of an order that says DIES.
fn link() -> io::Result<Link> {
    let (ours, theirs) = UnixStream::pair()?;
    let (inner, outer) = UnixStream::pair()?;
    thread::spawn(move || worker::serve(inner));
    thread::spawn(move || -> io::Result<()> {
        let (mut orders, mut answers) = (BufReader::new(theirs), BufReader::new(outer));
        loop {
            let (mut order, mut answer) = (String::new(), String::new());
            if orders.read_line(&mut order)? == 0 || order.contains("DIES") {
                return Ok(());
            }
            answers.get_mut().write_all(order.as_bytes())?;
            answers.read_line(&mut answer)?;
            orders.get_mut().write_all(answer.as_bytes())?;
        }
    });
    Link::over(ours, None)
}

fn policy(text: Option<&str>) -> (Policy, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("default-policy.rego");
    if let Some(text) = text {
        std::fs::write(&file, text).unwrap();
    }
    (Policy::start_with(&file, link).unwrap(), directory)
}

async fn reason(policy: &Policy, request: &str) -> String {
    match policy.judge(request, json!({})).await {
        Err(error @ PolicyError::Denied { .. }) => {
            assert_eq!(error.kind(), ErrorKind::Denied);
            let text = error.to_string();
            let prefix = format!("{request} is blocked by policy: ");
            text.strip_prefix(&prefix).unwrap_or_else(|| panic!("{text}")).to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_a_file_nothing_is_allowed() {
    let (policy, _directory) = policy(None);
    for request in ["CreateSandboxRequest", "SetPolicyRequest"] {
        let reason = reason(&policy, request).await;
        assert!(reason.contains("default-policy.rego cannot be read"), "{reason}");
    }
}

#[tokio::test]
async fn with_a_broken_file_nothing_is_allowed() {
    for text in ["package agent_policy\nallow := {", "package other", "\u{0}"] {
        let (policy, _directory) = policy(Some(text));
        let reason = reason(&policy, "SetPolicyRequest").await;
        assert!(reason.contains("default-policy.rego is not understood"), "{reason}");
    }
}

#[tokio::test]
async fn a_policy_takes_the_place_of_another_only_if_it_is_understood() {
    let (policy, _directory) = policy(Some("package agent_policy\nA := true\nB := false"));
    assert_eq!(policy.judge("A", json!({})).await, Ok(()));
    let error = policy.set("package agent_policy\nA := {".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("the policy is not understood: "), "{error}");
    assert_eq!(policy.judge("A", json!({})).await, Ok(()));
    assert_eq!(policy.set("package agent_policy\nA := false\nB := true".into()).await, Ok(()));
    assert_eq!(reason(&policy, "A").await, "its rule says no");
    assert_eq!(policy.judge("B", json!({})).await, Ok(()));
}

#[tokio::test]
async fn a_call_that_kills_the_interpreter_is_refused_and_nothing_is_forgotten() {
    let text = format!("package agent_policy\nimport rego.v1\n{STATEFUL_ONCE}");
    let (policy, _directory) = policy(Some(&text));
    assert_eq!(policy.judge("Once", json!({})).await, Ok(()));
    for _ in 0..3 {
        assert_eq!(reason(&policy, "DIES").await, "its interpreter died of it");
        assert_eq!(reason(&policy, "Once").await, "it has no rule that holds");
    }
    let error = policy.set("package agent_policy\nA := \"DIES\"".into()).await.unwrap_err();
    assert_eq!(error, PolicyError::Rego("its interpreter died of it".into()));
    assert_eq!(reason(&policy, "Once").await, "it has no rule that holds");
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_not_answered() {
    let slow = "R if { some a in numbers.range(1, 300); some b in numbers.range(1, 300); a + b == 0 }";
    let (policy, _directory) =
        policy(Some(&format!("package agent_policy\nimport rego.v1\n{slow}\n{STATEFUL_ONCE}")));
    let slow = tokio::spawn({
        let policy = policy.clone();
        async move { policy.judge("R", json!({})).await }
    });
    tokio::task::yield_now().await;
    let lost = tokio::spawn({
        let policy = policy.clone();
        async move { policy.judge("Once", json!({})).await }
    });
    tokio::task::yield_now().await;
    lost.abort();
    assert!(slow.await.unwrap().is_err());
    assert_eq!(policy.judge("Once", json!({})).await, Ok(()), "the lost question was answered");
    assert!(policy.judge("Once", json!({})).await.is_err());
}

const STATEFUL_ONCE: &str = "Once := {\"allowed\": true, \"ops\": [{\"op\": \"add\", \"path\": \"/pstate/once\", \
                             \"value\": 1}]} if not data.pstate.once";

/// The files that ship are policies.
#[test]
fn shipped_policies_are_understood() {
    let all = include_str!("../../../rootfs/overlay/policy/etc/kata-opa/default-policy.rego");
    let mut all = parse(all).unwrap();
    assert!(!all.lenient());
    allow(&mut all, "ExecProcessRequest", json!({}));
    let mut one = parse(include_str!("../../../tests/samples/policy-one-command.rego")).unwrap();
    let exec = |args: Value, uid: u32| json!({"process": {"Args": args, "User": {"UID": uid}}});
    allow(&mut one, "ExecProcessRequest", exec(json!(["/bin/cat", "/proc/uptime"]), 0));
    refusal(&mut one, "ExecProcessRequest", exec(json!(["/bin/cat", "/proc/uptime"]), 1));
    let reason = refusal(&mut one, "ExecProcessRequest", exec(json!(["/bin/sh"]), 0));
    assert!(reason.contains("/bin/sh") && reason.contains("is allowed"), "{reason}");
    let create =
        |args: Value| json!({"container_id": "c1", "OCI": {"Process": {"Args": args, "Terminal": false}}});
    allow(&mut one, "CreateContainerRequest", create(json!(["a"])));
    allow(&mut one, "CreateContainerRequest", create(json!(["a"])));
    refusal(&mut one, "CreateContainerRequest", create(json!(["b"])));
    refusal(&mut one, "SetPolicyRequest", json!({"policy": ""}));
}
