//! The wire of the sandbox API, as E2B's SDKs speak it: HTTP/1.1 ([`http`]) and, on top of it, the Connect protocol in JSON
//! ([`connect`]).
//!
//! Knows nothing of containers. What it reads comes from outside, so every part of it that grows has a bound, and what
//! decides of the bytes is pure and fuzzed.

pub mod connect;
pub mod http;
