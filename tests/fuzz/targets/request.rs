//! Requests of every method, as protobuf: whatever they are, they are turned into the agent's own types or refused. A container
//! that is not refused has its spec planned.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(spec) = agent::request(bytes) {
        rustjail::outcome::judge(spec.as_bytes());
    }
});
