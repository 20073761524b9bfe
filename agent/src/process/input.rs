//! The *feeder* of an input: writes what callers hand it, in order and to the end.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, SpecialCodeIndex};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::output::Exit;
use super::stream::StreamError;

/// What a feeder is handed.
pub(super) enum Input {
    Data(Vec<u8>, oneshot::Sender<Result<(), StreamError>>),
    Close,
}

/// Writes what arrives on the channel, until it is closed or the process has ended and nobody reads.
pub(super) async fn feed(
    fd: pipe::Sender,
    mut inputs: mpsc::Receiver<Input>,
    is_terminal: bool,
    mut exit: Exit,
) {
    loop {
        // What was handed in before the end is tried before the end counts: a grandchild may read it.
        let input = tokio::select! {
            biased;
            input = inputs.recv() => input,
            // With its reader gone the pipe is of no use; a terminal lives until the process does.
            () = exit.come() => None,
        };
        match input {
            Some(Input::Data(data, reply)) => {
                // A process may end because of what it has just read. That was written, and the caller is told so.
                let result = tokio::select! {
                    biased;
                    result = write_all(&fd, &data) => result,
                    () = exit.come() => Err(StreamError::Closed),
                };
                let is_closed = matches!(result, Err(StreamError::Closed));
                // The caller may be gone.
                drop(reply.send(result));
                if is_closed {
                    return;
                }
            }
            Some(Input::Close) if is_terminal => type_end_of_file(&fd).await,
            Some(Input::Close) | None => return,
        }
    }
}

/// Writes all of it, however long that takes. A process that has closed its end makes it [`StreamError::Closed`].
pub(super) async fn write_all(fd: &pipe::Sender, mut data: &[u8]) -> Result<(), StreamError> {
    while !data.is_empty() {
        fd.writable().await.map_err(|error| StreamError::io("watch stdin", error))?;
        match fd.try_write(data) {
            Ok(count) => {
                data = &data[count..];
                // No pause after the last byte: whoever gives up on this write meanwhile would take it for unfinished.
                if !data.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                io::ErrorKind::BrokenPipe => return Err(StreamError::Closed),
                _ => return Err(StreamError::io("write to stdin", error)),
            },
        }
    }
    Ok(())
}

/// Types the character that ends the input of a terminal.
pub(super) async fn type_end_of_file(fd: &pipe::Sender) {
    if let Some(character) = end_of_file(fd)
        && let Err(error) = write_all(fd, &[character]).await
    {
        tracing::debug!(%error, "cannot type the end of input");
    }
}

/// The end-of-file character of a terminal in line mode; in raw mode there is none.
fn end_of_file(terminal: impl AsFd) -> Option<u8> {
    let modes = rustix::termios::tcgetattr(terminal).ok()?;
    modes.local_modes.contains(LocalModes::ICANON).then(|| modes.special_codes[SpecialCodeIndex::VEOF])
}
