//! The body of a request, read piece by piece as it comes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::chunked::{Chunked, Step};
use super::head::Framing;
use super::reader::{CHUNK, Reader};

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client has hung up, or the connection broke.
    #[error("the request's body ended too early")]
    Ended(#[source] Option<std::io::Error>),
    /// Its chunks are malformed.
    #[error(transparent)]
    Chunks(#[from] super::chunked::ChunkError),
    /// Nothing came for too long.
    #[error("nothing of the request's body came for {} s", .0.as_secs())]
    Idle(Duration),
    /// It is larger than the caller wants.
    #[error("the request's body has more than {0} bytes")]
    TooLarge(usize),
}

impl BodyError {
    /// The status of an answer that says so.
    pub fn status(&self) -> u16 {
        match self {
            BodyError::Ended(_) | BodyError::Chunks(_) => 400,
            BodyError::Idle(_) => 408,
            BodyError::TooLarge(_) => 413,
        }
    }
}

/// How far a body was read.
#[derive(Debug)]
pub(super) enum Progress {
    Length(u64),
    Chunked(Chunked),
    /// Read to its end.
    Done,
    /// What follows in the connection is not understood.
    Broken,
}

impl Progress {
    fn of(framing: Framing) -> Progress {
        match framing {
            Framing::Length(0) => Progress::Done,
            Framing::Length(length) => Progress::Length(length),
            Framing::Chunked => Progress::Chunked(Chunked::default()),
        }
    }
}

/// The connection's side of a body that was lent out.
pub(super) type Returned = oneshot::Receiver<(Reader, Progress)>;

/// A body. Dropped, it gives the connection back.
#[derive(Debug)]
pub struct Body {
    /// None for a body that no connection brought.
    reader: Option<Reader>,
    /// What a body without a connection still has.
    rest: Bytes,
    progress: Progress,
    back: Option<oneshot::Sender<(Reader, Progress)>>,
    length: Option<u64>,
    idle: Duration,
}

impl Body {
    /// A body that is there already.
    pub fn of(bytes: Bytes) -> Body {
        Body {
            length: Some(bytes.len() as u64),
            rest: bytes,
            reader: None,
            progress: Progress::Done,
            back: None,
            idle: Duration::MAX,
        }
    }

    pub(super) fn lend(reader: Reader, framing: Framing, idle: Duration) -> (Body, Returned) {
        let (back, returned) = oneshot::channel();
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        let body = Body {
            reader: Some(reader),
            rest: Bytes::new(),
            progress: Progress::of(framing),
            back: Some(back),
            length,
            idle,
        };
        (body, returned)
    }

    /// How many bytes the client has announced; none for chunks.
    pub fn announced(&self) -> Option<u64> {
        self.length
    }

    /// Sets how long to wait for the next bytes.
    pub fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// The next piece, never empty and at most 64 KiB; none at the end. Nothing is lost if it is given up.
    ///
    /// # Errors
    /// [`BodyError`]; nothing more will come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(reader) = &mut self.reader else {
            let count = self.rest.len().min(CHUNK);
            return Ok(Some(self.rest.split_to(count)).filter(|piece| !piece.is_empty()));
        };
        loop {
            match take(reader, &mut self.progress) {
                Ok(Step::Data(data)) => return Ok(Some(data)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::More) => {}
                Err(error) => {
                    self.progress = Progress::Broken;
                    return Err(error);
                }
            }
            let read = match tokio::time::timeout(self.idle, reader.fill(CHUNK)).await {
                Ok(read) => read,
                Err(_) => {
                    self.progress = Progress::Broken;
                    return Err(BodyError::Idle(self.idle));
                }
            };
            match read {
                Ok(0) => {
                    self.progress = Progress::Broken;
                    return Err(BodyError::Ended(None));
                }
                Ok(_) => {}
                Err(error) => {
                    self.progress = Progress::Broken;
                    return Err(BodyError::Ended(Some(error)));
                }
            }
        }
    }

    /// Reads ahead what comes, up to a piece, and never ends: the next piece is large then. Nothing is lost if it is given up.
    pub async fn gather(&mut self) -> std::convert::Infallible {
        if let Some(reader) = &mut self.reader {
            // Who asks for the piece hears of an end.
            while reader.buffer.len() < CHUNK && matches!(reader.fill(CHUNK).await, Ok(1..)) {}
        }
        std::future::pending().await
    }

    /// The whole rest, if it has at most `most` bytes.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn collect(&mut self, most: usize) -> Result<Bytes, BodyError> {
        if self.length.is_some_and(|length| length > most as u64) {
            return Err(BodyError::TooLarge(most));
        }
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::from(first);
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > most {
                return Err(BodyError::TooLarge(most));
            }
            all.extend_from_slice(&chunk);
        }
        if all.len() > most { Err(BodyError::TooLarge(most)) } else { Ok(all.freeze()) }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let (Some(reader), Some(back)) = (self.reader.take(), self.back.take()) {
            let progress = std::mem::replace(&mut self.progress, Progress::Broken);
            // The connection may be gone.
            drop(back.send((reader, progress)));
        }
    }
}

/// Takes what has been read.
fn take(reader: &mut Reader, progress: &mut Progress) -> Result<Step, BodyError> {
    let step = match progress {
        Progress::Done => Step::End,
        Progress::Broken => return Err(BodyError::Ended(None)),
        Progress::Length(_) if reader.buffer.is_empty() => Step::More,
        Progress::Length(left) => {
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(reader.buffer.len()).min(CHUNK);
            *left -= count as u64;
            let is_done = *left == 0;
            if is_done {
                *progress = Progress::Done;
            }
            Step::Data(reader.buffer.split_to(count).freeze())
        }
        Progress::Chunked(chunked) => {
            let step = chunked.step(&mut reader.buffer)?;
            if step == Step::End {
                *progress = Progress::Done;
            }
            step
        }
    };
    Ok(step)
}

/// Reads what nobody wanted of a body, up to `most` bytes. Whether the connection can be used again.
pub(super) async fn discard(reader: &mut Reader, progress: &mut Progress, mut most: usize) -> bool {
    loop {
        match take(reader, progress) {
            Ok(Step::End) => return true,
            Ok(Step::Data(data)) => match most.checked_sub(data.len()) {
                Some(left) => most = left,
                None => return false,
            },
            Ok(Step::More) => match reader.fill(CHUNK).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return false,
            },
            Err(_) => return false,
        }
    }
}
