//! The agent's two services over one connection.

use std::time::Duration;

use protocols::agent_ttrpc::AgentServiceClient;
use protocols::health_ttrpc::HealthClient;
use tokio::net::UnixStream;
use ttrpc::context::Context;

use super::{AGENT_PORT, Endpoint, VmError};

/// The deadline of an ordinary call; the same that shims use.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// A ttrpc client of the agent. Clones share the connection.
#[derive(Clone)]
pub struct AgentClient {
    /// `grpc.AgentService`.
    pub agent: AgentServiceClient,
    /// `grpc.Health`.
    pub health: HealthClient,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").finish_non_exhaustive()
    }
}

impl AgentClient {
    /// Dials the agent's port.
    ///
    /// # Errors
    /// As [`Endpoint::dial`].
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, VmError> {
        Ok(Self::over(endpoint.dial(AGENT_PORT).await?))
    }

    /// Speaks ttrpc over a connected stream. Must be called inside a tokio runtime.
    pub fn over(stream: UnixStream) -> Self {
        let client = ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream));
        Self { agent: AgentServiceClient::new(client.clone()), health: HealthClient::new(client) }
    }

    /// The context of an ordinary call: a deadline of 60 s.
    pub fn call() -> Context {
        ttrpc::context::with_duration(CALL_DEADLINE)
    }

    /// The context of a call that may block for ever, such as WaitProcess.
    pub fn forever() -> Context {
        ttrpc::context::with_timeout(0)
    }
}
