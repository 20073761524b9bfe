//! Heads of requests of the sandbox API.

#![no_main]

use sandbox_api::http::{Framing, parse};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((head, length))) = parse(bytes) else { return };
    assert!(length <= bytes.len());
    // What follows a head means nothing to it.
    assert_eq!(parse(&bytes[..length]).as_ref(), Ok(&Some((head.clone(), length))));
    if let Ok(Framing::Chunked) = head.framing() {
        assert!(head.headers.get("content-length").is_none());
    }
    assert!(head.keeps_alive() || !head.is_11 || head.headers.has_word("connection", "close"));
    assert!(head.query.iter().count() <= head.target.len());
});
