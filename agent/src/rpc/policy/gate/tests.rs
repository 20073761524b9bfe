//! That no method is reached unasked.

use std::path::Path;
use std::sync::Arc;

use protobuf::Message;
use protocols::agent::{ExecProcessRequest, ReadStreamResponse};
use protocols::agent_ttrpc::{AgentService as Methods, create_agent_service};

use super::*;

/// A service that has no method of its own: whoever reaches one gets the generated default, NOT_FOUND.
struct Nothing;

impl Methods for Nothing {}

async fn methods(rules: &str) -> HashMap<String, Box<dyn MethodHandler + Send + Sync>> {
    let policy = Policy::start_in_threads(Path::new("/nonexistent/default-policy.rego")).unwrap();
    policy.set(format!("package agent_policy\nimport rego.v1\n{rules}")).await.unwrap();
    let services = gated(create_agent_service(Arc::new(Nothing)), &policy);
    services.into_values().flat_map(|service| service.methods).collect()
}

/// The methods as tests/wire/api.txt has them, which was written from the API's description: name, request.
fn described() -> Vec<(String, String)> {
    let api = include_str!("../../../../../tests/wire/api.txt");
    let lines = api.lines().skip_while(|line| *line != "service AgentService").skip(1);
    let methods = lines.map_while(|line| {
        let (method, types) = line.strip_prefix("  ")?.split_once(": ")?;
        Some((method.to_owned(), types.split_once(" -> ")?.0.to_owned()))
    });
    methods.collect()
}

async fn call(
    methods: &HashMap<String, Box<dyn MethodHandler + Send + Sync>>,
    name: &str,
    payload: Vec<u8>,
) -> (Code, String, Vec<u8>) {
    let request = Request { payload, ..Request::default() };
    let response = methods[name].handler(TtrpcContext::default(), request).await.unwrap();
    (response.status.code(), response.status.message.clone(), response.payload)
}

#[tokio::test]
async fn every_method_is_asked_about_under_its_own_name() {
    let described = described();
    assert_eq!(described.len(), 42);
    let none = methods("AllowRequestsFailingPolicy := false\n").await;
    assert_eq!(none.len(), 42);
    for (method, message) in &described {
        let (code, text, payload) = call(&none, method, Vec::new()).await;
        if message == SOFT {
            assert_eq!((code, payload), (Code::OK, Vec::new()), "{method}");
        } else {
            assert_eq!(code, Code::PERMISSION_DENIED, "{method}: {text}");
            let expected = format!("{message} is blocked by policy: it has no rule that holds");
            assert_eq!(text, expected, "{method}");
        }
    }
    // With exactly one rule, exactly the methods with that request are reached.
    for (_, allowed) in &described {
        let one = methods(&format!("{allowed} := true\n")).await;
        for (method, message) in &described {
            let (code, text, _) = call(&one, method, Vec::new()).await;
            let reached = code == Code::NOT_FOUND;
            assert_eq!(reached, message == allowed, "{method} under a policy for {allowed}: {text}");
        }
    }
}

#[tokio::test]
async fn a_rule_sees_the_request_and_a_message_that_is_none_reaches_nobody() {
    let methods = methods("ExecProcessRequest if input.container_id == \"c1\"\n").await;
    let exec = |id: &str| {
        let request = ExecProcessRequest { container_id: id.into(), ..Default::default() };
        request.write_to_bytes().unwrap()
    };
    assert_eq!(call(&methods, "ExecProcess", exec("c1")).await.0, Code::NOT_FOUND);
    assert_eq!(call(&methods, "ExecProcess", exec("c2")).await.0, Code::PERMISSION_DENIED);
    let (code, text, _) = call(&methods, "ExecProcess", vec![0xff]).await;
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
}

#[tokio::test]
async fn a_refused_read_is_an_empty_answer() {
    let methods = methods("default ReadStreamRequest := false\n").await;
    for method in ["ReadStdout", "ReadStderr"] {
        let (code, _, payload) = call(&methods, method, Vec::new()).await;
        assert_eq!(code, Code::OK);
        assert!(ReadStreamResponse::parse_from_bytes(&payload).unwrap().data.is_empty());
    }
    // Nor is the reason of the refusal, or a broken message, anything that a reader could tell.
    assert_eq!(call(&methods, "ReadStdout", vec![0xff]).await.0, Code::OK);
}
