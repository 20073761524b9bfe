//! Serves the API.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use protocols::{agent_ttrpc, health_ttrpc};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use super::api::Api;
use super::decode;
use super::half_closed::Answered;
use super::health::HealthService;
use super::service::Service;
use crate::config::{Config, ServerAddr};
use crate::error::chain;
use crate::heap::Trimmer;
use crate::listen;

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The address cannot be used.
    #[error("listen on {address}")]
    Listen {
        /// Address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server does not start.
    #[error("start the API server")]
    Start(#[source] ttrpc::Error),
}

/// Starts to serve at `address`, or, where that cannot be had, where the API usually is: an option that is wrong must not cost
/// the pod its guest. Accepts calls when this returns; gives the address, too.
///
/// # Errors
/// When there is no server at either.
pub(crate) async fn serve_somewhere(
    api: &Arc<Api>,
    address: ServerAddr,
) -> Result<(Server, ServerAddr), ServeError> {
    let usual = Config::default().server_addr;
    match serve(api, &address).await {
        Ok(server) => Ok((server, address)),
        // Only a guest can count on a vsock.
        Err(error) if init::is_pid1() && address != usual => {
            tracing::warn!(error = %chain(&error), instead = %usual, "agent.server_addr cannot be had");
            Ok((serve(api, &usual).await?, usual))
        }
        Err(error) => Err(error),
    }
}

async fn serve(api: &Arc<Api>, address: &ServerAddr) -> Result<Server, ServeError> {
    let failed = |source| ServeError::Listen { address: address.to_string(), source };
    let trimmer = api.tools.trimmer.clone();
    let listener = match address {
        ServerAddr::Vsock { cid, port } => {
            let connections = listen::vsock(*cid, *port, Some(api.clock.watcher()));
            Listener::new(answered(connections.map_err(failed)?, trimmer))
        }
        ServerAddr::Unix(path) => Listener::new(answered(listen::unix(path).map_err(failed)?, trimmer)),
    };
    let service = agent_ttrpc::create_agent_service(Arc::new(Service::new(Arc::clone(api))));
    #[cfg(feature = "policy")]
    let service = super::policy::gated(service, &api.policy);
    let health = health_ttrpc::create_health(Arc::new(HealthService));
    let mut server = Server::new()
        .add_listener(listener)
        .register_service(decode::checked(service))
        .register_service(decode::checked(health));
    server.start().await.map_err(ServeError::Start)?;
    Ok(server)
}

/// Connections that end when the answers have left, see [`Answered`].
pub(super) fn answered<S: AsFd>(
    connections: impl Stream<Item = io::Result<S>> + Send,
    trimmer: Trimmer,
) -> impl Stream<Item = io::Result<Answered<S>>> + Send {
    connections.map(move |connection| connection.map(|stream| Answered::new(stream, trimmer.clone())))
}
