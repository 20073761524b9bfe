//! The agent's two services over one connection.

use std::time::Duration;

use tokio::net::UnixStream;
use ttrpc::context::Context;

use super::endpoint::Endpoint;
use super::error::DialError;
use crate::agent_ttrpc::AgentServiceClient;
use crate::health_ttrpc::HealthClient;

/// vsock port of the agent's ttrpc server.
pub const AGENT_PORT: u32 = 1024;
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
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, DialError> {
        Ok(Self::over(endpoint.dial(AGENT_PORT).await?))
    }

    /// Speaks ttrpc over a connected stream. Must be called inside a tokio runtime.
    pub fn over(stream: UnixStream) -> Self {
        let client = ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream));
        Self { agent: AgentServiceClient::new(client.clone()), health: HealthClient::new(client) }
    }

    /// The context of an ordinary call: a deadline of 60 s.
    pub fn call() -> Context {
        Self::within(CALL_DEADLINE)
    }

    /// The context of a call with a deadline, of which the agent is told too. Zero means none.
    pub fn within(deadline: Duration) -> Context {
        ttrpc::context::with_duration(deadline)
    }

    /// The context of a call that may block for ever, such as WaitProcess.
    pub fn forever() -> Context {
        ttrpc::context::with_timeout(0)
    }
}
