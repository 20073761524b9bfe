//! Bodies in chunks (RFC 9112, section 7.1). Pure: bytes in, pieces of the body out.

use bytes::{Buf as _, Bytes, BytesMut};

/// Most bytes of a line that tells a chunk's size, with its extensions.
const MOST_LINE: usize = 256;
/// Most bytes of the fields after the last chunk. They are read, and mean nothing.
const MOST_TRAILER: usize = 8 * 1024;

/// Bytes that are not chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the request's body are malformed")]
pub struct ChunkError;

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of the body, never empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body has ended; what follows is the next request.
    End,
}

/// Where a decoder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked(State);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// The line's end after a chunk.
    Gap,
    /// Lines after the last chunk; so many bytes of them were read.
    Trailer(usize),
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Chunked(State::Size)
    }
}

impl Chunked {
    /// Takes what it can from the beginning of `input`.
    ///
    /// # Errors
    /// [`ChunkError`]; nothing that follows can be understood.
    pub fn step(&mut self, input: &mut BytesMut) -> Result<Step, ChunkError> {
        loop {
            match self.0 {
                State::Size => {
                    let Some(line) = line(input, MOST_LINE)? else { return Ok(Step::More) };
                    let size = size(&line)?;
                    self.0 = if size == 0 { State::Trailer(0) } else { State::Data(size) };
                }
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let left = left - count as u64;
                    self.0 = if left == 0 { State::Gap } else { State::Data(left) };
                    return Ok(Step::Data(input.split_to(count).freeze()));
                }
                State::Gap => match input[..] {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.0 = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(ChunkError),
                },
                State::Trailer(read) => {
                    let Some(line) = line(input, MOST_TRAILER - read)? else { return Ok(Step::More) };
                    self.0 = match line.len() {
                        0 => State::End,
                        count => State::Trailer(read + count + 2),
                    };
                    if matches!(self.0, State::Trailer(read) if read >= MOST_TRAILER) {
                        return Err(ChunkError);
                    }
                }
                State::End => return Ok(Step::End),
            }
        }
    }
}

/// Takes a line; none if its end has not come yet.
fn line(input: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, ChunkError> {
    match input.windows(2).take(most).position(|pair| pair == b"\r\n") {
        Some(at) => {
            let line = input.split_to(at);
            input.advance(2);
            Ok(Some(line))
        }
        None if input.len() > most => Err(ChunkError),
        None => Ok(None),
    }
}

/// The size of a chunk. Extensions mean nothing; a line's end inside of them would be read differently by others.
fn size(line: &[u8]) -> Result<u64, ChunkError> {
    let (digits, extension) = line.split_at(line.iter().position(|byte| *byte == b';').unwrap_or(line.len()));
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || extension.contains(&b'\n') || extension.contains(&b'\r') {
        return Err(ChunkError);
    }
    digits.iter().try_fold(0u64, |size, byte| {
        char::from(*byte).to_digit(16).map(|digit| size * 16 + u64::from(digit)).ok_or(ChunkError)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces of `piece` bytes; gives the body and what is left.
    fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>), ChunkError> {
        let (mut decoder, mut input, mut body) = (Chunked::default(), BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(piece.max(1));
        loop {
            match decoder.step(&mut input)? {
                Step::Data(data) => body.extend(&data),
                Step::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return Err(ChunkError),
                },
                Step::End => {
                    let mut left = input.to_vec();
                    left.extend(pieces.flatten());
                    return Ok((body, left));
                }
            }
        }
    }

    #[test]
    fn chunks_are_joined_however_they_come() {
        let text = b"5\r\nhello\r\n6;a=b\r\n world\r\n00\r\nTrailer: x\r\n\r\nGET /";
        for piece in 1..text.len() {
            assert_eq!(decode(text, piece).unwrap(), (b"hello world".to_vec(), b"GET /".to_vec()), "{piece}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wrong in [
            "x\r\n",
            "\r\n",
            "-1\r\na\r\n",
            "0x1\r\na\r\n",
            "1\r\nab\r\n",
            "1\na\n",
            "1000000000000000\r\n",
            "1 1\r\n",
        ] {
            assert_eq!(decode(wrong.as_bytes(), 1), Err(ChunkError), "{wrong:?}");
        }
    }

    #[test]
    fn lines_have_bounds() {
        let long = format!("1;{}", "a".repeat(MOST_LINE));
        assert_eq!(decode(long.as_bytes(), 1000), Err(ChunkError));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MOST_TRAILER / 6 + 1));
        assert_eq!(decode(trailers.as_bytes(), 1000), Err(ChunkError));
        let trailer = format!("0\r\n{}", "a".repeat(MOST_TRAILER + 1));
        assert_eq!(decode(trailer.as_bytes(), 7), Err(ChunkError));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_pieces_do_not_matter(bytes in prop::collection::vec(prop_oneof![
            any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'0'),
        ], 0..200), piece in 1usize..50) {
            prop_assert_eq!(decode(&bytes, piece), decode(&bytes, 1000));
        }
    }
}
