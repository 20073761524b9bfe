//! The reading half of a connection, with what was read and not used yet.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, ReadHalf};

use super::Io;

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 64 * 1024;
/// Bytes that are read at once while it is not known whether anything will come: an idle connection costs little.
const FEW: usize = 1024;

/// See the module.
pub(super) struct Reader {
    half: ReadHalf<Box<dyn Io>>,
    pub(super) buffer: BytesMut,
}

impl Reader {
    pub(super) fn new(half: ReadHalf<Box<dyn Io>>) -> Reader {
        Reader { half, buffer: BytesMut::new() }
    }

    /// Reads more into the buffer; gives how much, 0 at the end. Nothing is lost if it is given up.
    pub(super) async fn fill(&mut self, most: usize) -> io::Result<usize> {
        self.buffer.reserve(most.min(CHUNK));
        self.half.read_buf(&mut self.buffer).await
    }

    /// As [`Reader::fill`], while nothing is expected.
    pub(super) async fn wait(&mut self) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        self.fill(FEW).await
    }

    /// Gives the half and what was read.
    pub(super) fn into_parts(self) -> (ReadHalf<Box<dyn Io>>, BytesMut) {
        (self.half, self.buffer)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("buffered", &self.buffer.len()).finish()
    }
}
