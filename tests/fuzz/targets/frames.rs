//! The bytes of a connection: frames are found whatever the pieces, and who was answered is owed nothing.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::frames(bytes));
