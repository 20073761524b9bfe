//! Serves the API.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use protocols::{agent_ttrpc, health_ttrpc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::api::Api;
use super::connection::{self, Services};
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
}

/// The API, as it is served.
pub(crate) struct Serving(AbortHandle);

impl Serving {
    /// Takes no further connections. Those that there are go on.
    pub(crate) fn stop_listening(&self) {
        self.0.abort();
    }
}

/// Starts to serve at `address`, or, where that cannot be had, where the API usually is: an option that is wrong must not cost
/// the pod its guest. Accepts calls when this returns; gives the address, too.
///
/// # Errors
/// When there is no server at either.
pub(crate) fn serve_somewhere(
    api: &Arc<Api>,
    address: ServerAddr,
) -> Result<(Serving, ServerAddr), ServeError> {
    let usual = Config::default().server_addr;
    match serve(api, &address) {
        Ok(serving) => Ok((serving, address)),
        // Only a guest can count on a vsock.
        Err(error) if init::is_pid1() && address != usual => {
            tracing::warn!(error = %chain(&error), instead = %usual, "agent.server_addr cannot be had");
            Ok((serve(api, &usual)?, usual))
        }
        Err(error) => Err(error),
    }
}

fn serve(api: &Arc<Api>, address: &ServerAddr) -> Result<Serving, ServeError> {
    let failed = |source| ServeError::Listen { address: address.to_string(), source };
    let service = agent_ttrpc::create_agent_service(Arc::new(Service::new(Arc::clone(api))));
    #[cfg(feature = "policy")]
    let service = super::policy::gated(service, &api.policy);
    let mut services = health_ttrpc::create_health(Arc::new(HealthService));
    services.extend(service);
    let (services, trimmer) = (Arc::new(services), api.tools.trimmer.clone());
    match address {
        ServerAddr::Vsock { cid, port } => {
            let connections = listen::vsock(*cid, *port, Some(api.clock.watcher()));
            Ok(accept(connections.map_err(failed)?, services, trimmer))
        }
        ServerAddr::Unix(path) => Ok(accept(listen::unix(path).map_err(failed)?, services, trimmer)),
    }
}

/// Serves each connection in a task of its own.
pub(super) fn accept<S>(
    connections: impl Stream<Item = io::Result<S>> + Send + 'static,
    services: Arc<Services>,
    trimmer: Trimmer,
) -> Serving
where
    S: AsyncRead + AsyncWrite + AsFd + Send + Sync + Unpin + 'static,
{
    let accepting = tokio::spawn(async move {
        let mut connections = std::pin::pin!(connections);
        while let Some(connection) = connections.next().await {
            match connection {
                Ok(stream) => {
                    tokio::spawn(connection::serve(stream, Arc::clone(&services), trimmer.clone()));
                }
                Err(error) => tracing::error!(%error, "cannot accept a connection"),
            }
        }
    });
    Serving(accepting.abort_handle())
}
