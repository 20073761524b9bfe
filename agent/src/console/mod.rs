//! The debug console: a raw terminal byte stream on a vsock port, off unless `agent.debug_console` says so. Its port is the
//! agent's in any case: a container that listened there would be taken for the console. Where it is off, whoever calls is
//! told so.
//!
//! Where the guest has a shell, each connection gets one, on a terminal and in a cgroup of its own; all of it is killed
//! when the connection ends. Where it has none, as in the minimal flavour, a small [`prompt`] answers. Sessions are
//! independent of each other and of the API.

mod prompt;
mod session;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;

pub(crate) use session::Console;

use crate::config::Cid;
use crate::error::chain;
use crate::listen::{self, Watcher};

/// What callers of a console that is off hear.
const OFF: &str = "this guest has no debug console: boot it with agent.debug_console\n";
/// Sessions at once. Each is a shell and what it starts, or a table of the guest's processes.
const SESSIONS: usize = 16;
/// What those beyond hear.
const FULL: &str = "the debug console has too many sessions: end one of them\n";
/// How long they may take to hear it.
const HEARING: Duration = Duration::from_secs(1);
/// Shells, best first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Listens, and then serves consoles, or tells that there are none, for ever in a task of its own.
///
/// # Errors
/// When the port is taken.
pub(crate) fn start(console: Option<Console>, port: u32, watcher: Watcher) -> std::io::Result<()> {
    let connections = listen::vsock(Cid::Any, port, Some(watcher))?;
    match console {
        Some(console) => {
            tracing::info!(port, "debug console listens");
            tokio::spawn(serve(console, connections));
        }
        None => drop(tokio::spawn(refuse(connections))),
    }
    Ok(())
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(connections: impl Stream<Item = std::io::Result<S>>) {
    let mut connections = std::pin::pin!(connections);
    while let Some(connection) = connections.next().await {
        let Ok(stream) = connection else { continue };
        tell(stream, OFF).await;
    }
}

/// Tells a caller why there is no session. One after the other: there is no more to it, and callers who do not listen take
/// nothing.
async fn tell(mut stream: impl AsyncWrite + Unpin, why: &str) {
    let told = tokio::time::timeout(HEARING, stream.write_all(why.as_bytes())).await;
    if let Ok(Err(error)) = told {
        tracing::debug!(%error, "a caller of the debug console has not heard why there is none");
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    console: Console,
    connections: impl Stream<Item = std::io::Result<S>>,
) {
    let mut connections = std::pin::pin!(connections);
    let mut number = 0u64;
    let room = Arc::new(Semaphore::new(SESSIONS));
    while let Some(connection) = connections.next().await {
        let Ok(stream) = connection else { continue };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            tell(stream, FULL).await;
            continue;
        };
        number += 1;
        let console = console.clone();
        tokio::spawn(async move {
            let _place = place;
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn callers_of_a_console_that_is_off_are_told_so_and_hung_up_on() {
        let (near, mut far) = tokio::io::duplex(4096);
        let (deaf, _never_read) = tokio::io::duplex(1);
        let connections =
            futures_util::stream::iter([Ok(deaf), Err(std::io::ErrorKind::Other.into()), Ok(near)]);
        let mut text = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut text), refuse(connections));
        read.unwrap();
        assert!(text.contains("agent.debug_console\n"), "{text}");
    }
}
