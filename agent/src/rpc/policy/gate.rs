//! The gate: wraps the handler of each method, so that none is reached unasked.
//!
//! It stands between ttrpc and the generated dispatch and knows the methods from the service's descriptor: a method
//! that is added to the API is behind it without a line of code. Promises that a refused call has no effect: its
//! handler never runs. Must never let a message through that it did not understand.

use std::collections::HashMap;

use async_trait::async_trait;
use protobuf::MessageField;
use protobuf::reflect::MessageDescriptor;
use protocols::agent;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::{Code, Request, Response, Status};

use super::input;
use crate::policy::Policy;
use crate::rpc::status::Failure;

/// COMPAT(kata): `a_refused_read_is_an_end`: shims expect a refused read to look like the stream's end.
const SOFT: &str = "ReadStreamRequest";

/// Puts every method of the AgentService behind the policy. One that the service's description does not have cannot be
/// judged, so it is left out.
pub(in crate::rpc) fn gated(services: HashMap<String, Service>, policy: &Policy) -> HashMap<String, Service> {
    let described = agent::file_descriptor().services().flat_map(|service| {
        let of_service: Vec<_> =
            service.methods().map(|method| (method.proto().name().to_owned(), method.input_type())).collect();
        of_service
    });
    let messages: HashMap<String, MessageDescriptor> = described.collect();
    let gate = |(name, inner): (String, Box<dyn MethodHandler + Send + Sync>)| {
        let message = messages.get(&name)?.clone();
        let gate: Box<dyn MethodHandler + Send + Sync> =
            Box::new(Gate { inner, policy: policy.clone(), message });
        Some((name, gate))
    };
    let gate = |(name, service): (String, Service)| {
        let methods = service.methods.into_iter().filter_map(gate).collect();
        // The API has no streams in the sense of ttrpc, and none may come in past the gate.
        (name, Service { methods, streams: HashMap::new() })
    };
    services.into_iter().map(gate).collect()
}

/// One method's gate.
struct Gate {
    inner: Box<dyn MethodHandler + Send + Sync>,
    policy: Policy,
    message: MessageDescriptor,
}

impl Gate {
    async fn judge(&self, payload: &[u8]) -> Result<(), Failure> {
        let name = self.message.name();
        let input = {
            let message = self.message.parse_from_bytes(payload);
            let message =
                message.map_err(|error| Failure::invalid(format!("{name} is not understood: {error}")))?;
            input::of(&*message)
                .map_err(|reason| Failure::denied(format!("{name} is blocked by policy: {reason}")))?
        };
        Ok(self.policy.judge(name, input).await?)
    }
}

#[async_trait]
impl MethodHandler for Gate {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        match self.judge(&request.payload).await {
            Ok(()) => self.inner.handler(context, request).await,
            Err(_) if self.message.name() == SOFT => Ok(answer(ttrpc::get_status(Code::OK, ""))),
            Err(failure) => match failure.into() {
                ttrpc::Error::RpcStatus(status) => Ok(answer(status)),
                other => Err(other),
            },
        }
    }
}

/// An answer without a message, which is also how an empty message travels.
fn answer(status: Status) -> Response {
    Response { status: MessageField::some(status), ..Response::default() }
}

#[cfg(test)]
mod tests;
