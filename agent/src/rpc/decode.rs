//! Requests whose payload is no message of the method's type.
//!
//! ttrpc decodes a request before it calls a method, and answers UNKNOWN when it cannot. It is the request that is at
//! fault: here that becomes INVALID_ARGUMENT, for every method, by a wrapper around each. Nothing else is touched.

use std::collections::HashMap;

use async_trait::async_trait;
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::proto::{Request, Response};

use super::status::Failure;

struct Checked {
    method: String,
    inner: Box<dyn MethodHandler + Send + Sync>,
}

#[async_trait]
impl MethodHandler for Checked {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        match self.inner.handler(context, request).await {
            // A method's own refusals are responses; what comes as an error is the generated code's, which only
            // decodes and encodes, and an answer of ours can always be encoded.
            Err(ttrpc::Error::Others(text)) => {
                let failure =
                    Failure::invalid(format!("the request of {} cannot be read: {text}", self.method));
                Ok(ttrpc::Error::from(failure).into())
            }
            other => other,
        }
    }
}

/// The same services, with requests that cannot be read refused as what they are.
pub(super) fn checked(services: HashMap<String, Service>) -> HashMap<String, Service> {
    let wrap = |(method, inner): (String, Box<dyn MethodHandler + Send + Sync>)| {
        let checked: Box<dyn MethodHandler + Send + Sync> =
            Box::new(Checked { method: method.clone(), inner });
        (method, checked)
    };
    services
        .into_iter()
        .map(|(name, service)| {
            let methods = service.methods.into_iter().map(wrap).collect();
            (name, Service { methods, streams: service.streams })
        })
        .collect()
}
