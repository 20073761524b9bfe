//! A `config.json`: whatever it is, it is planned or refused.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| rustjail::outcome::judge(text));
