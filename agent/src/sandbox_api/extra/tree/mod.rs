//! `/pith/tree`: a directory with all that is in it, as a tar archive, out and in.
//!
//! ```text
//! curl  'http://…/pith/tree?path=/work' | tar -x
//! tar -c . | curl -T - 'http://…/pith/tree?path=/work'
//! ```
//!
//! A thread works on each, and waits for the client at both ends of a short queue. It ends with the connection.

mod pack;
#[cfg(test)]
mod tests;
mod unpack;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use sandbox_api::http::{BodyError, Head, Request, Response};
use tokio::sync::mpsc;

use self::unpack::{Counts, Owners};
use crate::sandbox_api::failure::{Failure, pass_over};
use crate::sandbox_api::place::place;
use crate::sandbox_api::rooted::{FileError, Owner, Root, Stop};
use crate::sandbox_api::sandbox::Sandbox;
use crate::sandbox_api::storage::Places;
use crate::sandbox_api::task;

/// Pieces between a thread and its connection.
const PIECES: usize = 4;

/// Answers a request for `/pith/tree`.
pub(super) async fn call(sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let answered = match request.head.method.as_str() {
        "GET" => pack(sandbox, &request.head).await,
        "PUT" | "POST" => unpack(sandbox, request).await,
        other => return Response::failure(405, &format!("/pith/tree has no {other}: GET, PUT and POST")),
    };
    answered.unwrap_or_else(|failure| failure.answer())
}

async fn asked(sandbox: &Sandbox, head: &Head) -> Result<(Root, Owner, String), Failure> {
    let caller = sandbox.caller(head, head.query.get("username")).await?;
    let (root, owner) = place(&caller);
    let path = owner.expand(head.query.get("path").unwrap_or_default())?;
    Ok((root, owner, path))
}

async fn pack(sandbox: &Sandbox, head: &Head) -> Result<Response, Failure> {
    let (root, _, path) = asked(sandbox, head).await?;
    let place = sandbox.storage.trees.take().await?;
    let shown = path.clone();
    let top = sandbox.storage.workers.run(move |_| pack::Top::find(&root, &path)).await?;
    let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let (trees, runtime) = (sandbox.storage.trees.clone(), tokio::runtime::Handle::current());
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&is_cut);
    drop(task::blocking(move || {
        let _place = place;
        let send = |piece| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    sent = sender.send(piece) => sent.is_ok(),
                    () = trees.wanted_back() => false,
                }
            })
        };
        if let Err(error) = top.pack(send) {
            tracing::warn!(path = shown, error = %crate::error::chain(&error), "a tree is not sent to its end");
            cut.store(true, Ordering::Release);
        }
        drop(sender);
    }));
    let chunks = stream::poll_fn(move |context| match pieces.poll_recv(context) {
        // The client hears of it by a connection that ends too early.
        Poll::Ready(None) if is_cut.swap(false, Ordering::Acquire) => {
            Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
        }
        piece => piece.map(|piece| piece.map(Ok)),
    });
    Ok(Response::stream("application/x-tar", Box::pin(chunks)))
}

async fn unpack(sandbox: &Sandbox, mut request: Request) -> Result<Response, Failure> {
    let (root, owner, path) = asked(sandbox, &request.head).await?;
    let owners = match request.head.query.get("owners") {
        None | Some("" | "caller") => Owners::Caller,
        Some("archive") => Owners::Archive,
        Some(other) => {
            let text = format!("owners={other}: caller or archive is expected");
            return Err(FileError::Invalid(text).into());
        }
    };
    let encoding = request.head.headers.get("content-encoding").unwrap_or_default();
    if !matches!(encoding, "" | "identity") {
        let text = format!("unsupported content encoding '{encoding}': the archive is to be sent as it is");
        return Err(FileError::Invalid(text).into());
    }
    let place = sandbox.storage.trees.take().await?;
    let (sender, pieces) = mpsc::channel::<Piece>(PIECES);
    let stop = Stop::default();
    let _guard = stop.on_drop();
    let thread = task::blocking(move || {
        let _place = place;
        let mut input = Pieces { pieces, current: Bytes::new(), is_ended: false };
        unpack::unpack(&root, &owner, &path, owners, &mut input, &stop)
    });
    let fed = feed(&mut request, &sandbox.storage.trees, sender).await;
    let unpacked = thread
        .await
        .map_err(|error| FileError::io("unpack", "the archive", io::Error::other(error.to_string())))?;
    fed?;
    if unpacked.is_err() {
        pass_over(&mut request.body).await;
    }
    let Counts { entries, bytes } = unpacked?;
    Ok(Response::json(200, &serde_json::json!({ "entries": entries, "bytes": bytes })))
}

/// Hands the body to the thread, as long as it wants any.
async fn feed(request: &mut Request, trees: &Places, sender: mpsc::Sender<Piece>) -> Result<(), BodyError> {
    while let Some(piece) = trees.piece(&mut request.body).await? {
        if sender.send(Piece::Data(piece)).await.is_err() {
            return Ok(());
        }
    }
    // The thread may have seen the archive's end already.
    drop(sender.send(Piece::End).await);
    Ok(())
}

/// What comes to the thread: that nothing comes any more is not the end.
enum Piece {
    Data(Bytes),
    End,
}

/// The body, as a file.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    is_ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.is_ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.is_ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.current.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
