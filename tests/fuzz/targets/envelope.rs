//! Streams of the Connect protocol, and the messages in them.

#![no_main]

use sandbox_api::connect::{Frame, Frames, Message};

/// What a message is asked for.
fn ask(message: &Message) {
    for name in ["process", "input", "watcherId", "a"] {
        drop((message.optional_string(name), message.optional_bool(name), message.uint32(name)));
        drop((message.optional_bytes(name), message.strings(name), message.string_map(name)));
        drop(message.enumeration(name, &[("SIGNAL_UNSPECIFIED", 0), ("SIGNAL_SIGTERM", 15)]));
        if let Ok(Some(inner)) = message.optional_message(name) {
            ask(&inner);
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let mut frames = Frames::new(4096);
    for piece in bytes.chunks(usize::from(*size).max(1)) {
        frames.put(piece);
        loop {
            match frames.take() {
                Ok(Some(Frame::Message(message))) => {
                    if let Ok(message) = Message::parse(&message) {
                        ask(&message);
                    }
                }
                Ok(Some(Frame::End(_))) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
