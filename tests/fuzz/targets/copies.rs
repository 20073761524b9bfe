//! Sequences of CopyFile: nothing outside of the tree changes, and only what is whole has a name.

#![no_main]

use fuzz::scratch;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent::copies(bytes, scratch().path()));
