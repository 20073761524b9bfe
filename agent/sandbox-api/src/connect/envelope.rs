//! The frames of a stream: a byte of flags, four of length, the message. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use serde_json::Value;

/// The flag of the last frame of an answer.
pub const END: u8 = 0x02;
/// The flag of a compressed message.
const COMPRESSED: u8 = 0x01;
/// Bytes of a frame before its message.
const PREFIX: usize = 5;

/// Why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A message is larger than allowed.
    #[error("a message of {0} bytes is larger than allowed")]
    TooLarge(u32),
    /// A message is compressed.
    #[error("compressed messages are not understood: send them with the encoding identity")]
    Compressed,
    /// The stream ended inside of a frame.
    #[error("the stream ended inside of a message")]
    Truncated,
}

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Bytes),
    /// The end that the sender announces.
    End(Bytes),
}

/// Takes frames out of bytes as they come.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    most: usize,
}

impl Frames {
    /// Messages have at most `most` bytes.
    pub fn new(most: usize) -> Frames {
        Frames { buffer: BytesMut::new(), most }
    }

    /// Takes more bytes in.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it has come whole.
    ///
    /// # Errors
    /// [`EnvelopeError`]; nothing that follows can be understood.
    pub fn take(&mut self) -> Result<Option<Frame>, EnvelopeError> {
        let Some((&[flags, a, b, c, d], _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let Some(whole) = usize::try_from(length).ok().filter(|length| *length <= self.most) else {
            return Err(EnvelopeError::TooLarge(length));
        };
        if flags & COMPRESSED != 0 {
            return Err(EnvelopeError::Compressed);
        }
        if self.buffer.len() < PREFIX + whole {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(whole).freeze();
        if self.buffer.is_empty() {
            // A stream that waits holds nothing.
            self.buffer = BytesMut::new();
        }
        Ok(Some(if flags & END == 0 { Frame::Message(message) } else { Frame::End(message) }))
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// [`EnvelopeError::Truncated`] if a frame is not whole.
    pub fn finish(&self) -> Result<(), EnvelopeError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(EnvelopeError::Truncated) }
    }
}

/// A frame with a message of JSON.
pub fn encode(flags: u8, message: &Value) -> Bytes {
    let text = message.to_string();
    let mut frame = Vec::with_capacity(PREFIX + text.len());
    frame.push(flags);
    // An answer is far from 4 GiB: what goes into it has bounds.
    frame.extend_from_slice(&(text.len() as u32).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn frames_come_out_whole_however_they_come() {
        let mut bytes = encode(0, &json!({"a": 1})).to_vec();
        bytes.extend(encode(END, &json!({})));
        for piece in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::new(100), Vec::new());
            for piece in bytes.chunks(piece) {
                frames.put(piece);
                while let Some(frame) = frames.take().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, [Frame::Message(r#"{"a":1}"#.into()), Frame::End("{}".into())]);
            frames.finish().unwrap();
        }
    }

    #[test]
    fn what_is_too_large_is_known_by_its_first_bytes() {
        let mut frames = Frames::new(100);
        frames.put(&[0, 0, 0, 0, 101]);
        assert_eq!(frames.take(), Err(EnvelopeError::TooLarge(101)));
        let mut frames = Frames::new(100);
        frames.put(&[1, 0, 0, 0, 1]);
        assert_eq!(frames.take(), Err(EnvelopeError::Compressed));
        let mut frames = Frames::new(100);
        frames.put(&[0, 0, 0, 0, 1]);
        assert_eq!((frames.take(), frames.finish()), (Ok(None), Err(EnvelopeError::Truncated)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut frames = Frames::new(16);
            frames.put(&bytes);
            while let Ok(Some(_)) = frames.take() {}
        }
    }
}
