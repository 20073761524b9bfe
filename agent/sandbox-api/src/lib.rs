//! The wire of the sandbox API, as E2B's SDKs speak it: HTTP/1.1 ([`http`]) and, on top of it, the Connect protocol in JSON
//! ([`connect`]). For files: forms as they arrive ([`multipart`]), parts of a file ([`range`]), signatures of addresses
//! ([`signature`]), modes and times as texts ([`mode`], [`time`]), what is packed ([`gzip`]), archives of trees ([`tar`]), bytes
//! in texts ([`base64`]).
//!
//! Knows nothing of containers. What it reads comes from outside, so every part of it that grows has a bound, and what
//! decides of the bytes is pure and fuzzed.

pub mod base64;
pub mod connect;
pub mod gzip;
pub mod http;
pub mod mode;
pub mod multipart;
pub mod range;
mod sha256;
pub mod signature;
pub mod tar;
pub mod time;
