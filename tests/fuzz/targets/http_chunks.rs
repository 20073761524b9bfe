//! Bodies in chunks: however their bytes come, they are the same body.

#![no_main]

use bytes::BytesMut;
use sandbox_api::http::{Chunked, Step};

/// The body, and what is left of the bytes; none for what is no body.
fn decode<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (mut decoder, mut input, mut body) = (Chunked::default(), BytesMut::new(), Vec::new());
    loop {
        match decoder.step(&mut input).ok()? {
            Step::Data(data) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Step::More => input.extend_from_slice(pieces.next()?),
            Step::End => {
                let mut left = input.to_vec();
                pieces.for_each(|piece| left.extend_from_slice(piece));
                return Some((body, left));
            }
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let whole = decode(std::iter::once(bytes));
    assert_eq!(decode(bytes.chunks(usize::from(*size).max(1))), whole);
    if let Some((body, left)) = whole {
        assert!(body.len() + left.len() < bytes.len());
    }
});
