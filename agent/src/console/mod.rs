//! The debug console: a raw terminal byte stream on a vsock port, off unless `agent.debug_console` says so.
//!
//! Where the guest has a shell, each connection gets one, on a terminal and in a cgroup of its own; all of it is killed
//! when the connection ends. Where it has none, as in the minimal flavour, a small [`prompt`] answers. Sessions are
//! independent of each other and of the API.

mod prompt;
mod session;

use std::num::NonZeroU32;
use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use session::Console;

use crate::config::Cid;
use crate::error::chain;
use crate::listen::{self, Watcher};

/// Port where shims look for the console.
const PORT: u32 = 1026;
/// Shells, best first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Listens, and then serves consoles for ever in a task of its own.
///
/// # Errors
/// When the port is taken.
pub(crate) fn start(console: Console, port: Option<NonZeroU32>, watcher: Watcher) -> std::io::Result<()> {
    let port = port.map_or(PORT, NonZeroU32::get);
    let connections = listen::vsock(Cid::Any, port, Some(watcher))?;
    tracing::info!(port, "debug console listens");
    tokio::spawn(serve(console, connections));
    Ok(())
}

async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(
    console: Console,
    connections: impl Stream<Item = std::io::Result<S>>,
) {
    let mut connections = std::pin::pin!(connections);
    let mut number = 0u64;
    while let Some(connection) = connections.next().await {
        let Ok(stream) = connection else { continue };
        number += 1;
        let console = console.clone();
        tokio::spawn(async move {
            tracing::warn!(number, "debug console opened");
            let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists());
            let ended = match shell {
                Some(shell) => session::shell(&console, stream, shell, number).await,
                None => session::prompt(&console, stream, number).await,
            };
            match ended {
                Ok(()) => tracing::info!(number, "debug console closed"),
                Err(error) => tracing::warn!(number, error = %chain(&error), "debug console failed"),
            }
        });
    }
}
