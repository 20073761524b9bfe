//! A writer that knows how much went through it, so that gaps can be filled with zeros.

use std::io::{self, Write};

/// See the module.
pub(crate) struct Counted<W> {
    out: W,
    at: u64,
}

impl<W: Write> Counted<W> {
    /// Nothing is written yet.
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0 }
    }

    /// Zeros up to a multiple of `to` bytes.
    pub(crate) fn align(&mut self, to: u64) -> io::Result<()> {
        self.pad_to(self.at.next_multiple_of(to))
    }

    /// Zeros up to `offset`.
    ///
    /// # Errors
    /// When more is written already.
    pub(crate) fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let gap = offset.checked_sub(self.at).ok_or_else(|| io::Error::other("the layout overlaps"))?;
        io::copy(&mut io::Read::take(io::repeat(0), gap), self)?;
        Ok(())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
