//! Bytes over a vsock by a program that does nothing else: what others are measured against.

use std::io::{self, Read as _, Write as _};

use crate::sys;

/// Bytes that are written at once. Kernels cut larger writes, and some devices lose what was cut.
const CHUNK: usize = 28 << 10;

/// Serves one connection after the other: takes `count` bytes after a `u`, and says so by a byte; sends as many after a `d`.
pub(crate) fn serve(port: &str, count: &str) -> io::Result<()> {
    let port = port.parse().map_err(io::Error::other)?;
    let count: usize = count.parse().map_err(io::Error::other)?;
    let socket = sys::listener(port).map_err(io::Error::other)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut stream = sys::accept(socket).map_err(io::Error::other)?;
        let mut word = [0];
        // Who hangs up is not waited for.
        if stream.read(&mut word)? == 0 {
            continue;
        }
        let mut left = count;
        while left > 0 {
            let most = left.min(if word == *b"u" { buffer.len() } else { CHUNK });
            let moved = match word {
                [b'u'] => stream.read(&mut buffer[..most])?,
                _ => stream.write(&buffer[..most])?,
            };
            if moved == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= moved;
        }
        if word == *b"u" {
            stream.write_all(&word)?;
        }
    }
}
