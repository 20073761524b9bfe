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
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;

pub(crate) use session::Console;

use crate::config::Cid;
use crate::error::chain;
use crate::listen::{self, Watcher};

/// What callers of a console that is off hear.
const OFF: &str = "this guest has no debug console: boot it with agent.debug_console\n";
/// How long they may take to hear it.
const HEARING: Duration = Duration::from_secs(1);
/// Most sessions at once.
const SESSIONS: usize = 16;
/// What a caller hears who is one too many.
const FULL: &str = "this guest's debug console has too many sessions: end one of them\n";
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
            let session = move |stream, number| run(console.clone(), stream, number);
            tokio::spawn(serve(session, connections));
        }
        None => drop(tokio::spawn(refuse(connections))),
    }
    Ok(())
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(connections: impl Stream<Item = std::io::Result<S>>) {
    let mut connections = std::pin::pin!(connections);
    while let Some(connection) = connections.next().await {
        let Ok(mut stream) = connection else { continue };
        // One after the other: there is no more to it, and callers who do not listen take nothing.
        tell(&mut stream, OFF).await;
    }
}

async fn tell(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    let told = tokio::time::timeout(HEARING, stream.write_all(text.as_bytes())).await;
    if let Ok(Err(error)) = told {
        tracing::debug!(%error, "a caller of the debug console has not heard why there is none");
    }
}

/// Has each connection be a session, up to [`SESSIONS`] at once.
async fn serve<S, F>(session: impl Fn(S, u64) -> F, connections: impl Stream<Item = std::io::Result<S>>)
where
    S: AsyncWrite + Unpin,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = std::pin::pin!(connections);
    let (mut number, mut sessions) = (0u64, JoinSet::new());
    while let Some(connection) = connections.next().await {
        let Ok(mut stream) = connection else { continue };
        // Those that have ended.
        while sessions.try_join_next().is_some() {}
        if sessions.len() >= SESSIONS {
            tell(&mut stream, FULL).await;
            continue;
        }
        number += 1;
        sessions.spawn(session(stream, number));
    }
    // Without a listener those that are open go on.
    sessions.detach_all();
}

async fn run<S: AsyncRead + AsyncWrite + Send + 'static>(console: Console, stream: S, number: u64) {
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

    #[tokio::test]
    async fn sessions_have_a_bound_and_an_ended_one_makes_room() {
        let end = std::sync::Arc::new(tokio::sync::Notify::new());
        let (add, connections) = tokio::sync::mpsc::unbounded_channel();
        let connections =
            futures_util::stream::unfold(connections, |mut all| async { Some((all.recv().await?, all)) });
        let session = {
            let end = std::sync::Arc::clone(&end);
            move |mut stream: tokio::io::DuplexStream, number: u64| {
                let end = std::sync::Arc::clone(&end);
                async move {
                    stream.write_all(format!("session {number}\n").as_bytes()).await.unwrap();
                    end.notified().await;
                }
            }
        };
        let serving = tokio::spawn(serve(session, connections));
        let call = || {
            let (near, far) = tokio::io::duplex(4096);
            add.send(Ok(near)).unwrap();
            far
        };
        let mut open = Vec::new();
        for number in 1..=SESSIONS {
            let mut far = call();
            let mut said = vec![0; format!("session {number}\n").len()];
            far.read_exact(&mut said).await.unwrap();
            open.push(far);
        }
        let mut text = String::new();
        call().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, FULL);
        end.notify_one();
        let mut ended = Vec::new();
        for far in &mut open {
            ended.push(far.read_u8());
        }
        drop(futures_util::future::select_all(ended.into_iter().map(Box::pin)).await);
        let mut far = call();
        let mut said = [0; 7];
        far.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"session");
        serving.abort();
    }
}
