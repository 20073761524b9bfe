//! How many requests of one connection are read before their answers have been.
//!
//! The server begins a call for each request that it reads, and keeps what the call answers until the client takes it. So
//! nothing is read from a client that leaves an answer lying, nor from one that is owed too much. What is not read stays in the
//! socket, whose buffer is bounded, and the client waits.

use std::collections::HashMap;

/// Calls of a connection that may run at once. A shim has three for each process of the pod (its end and two outputs), which
/// wait for as long as the process lives.
const CALLS: usize = 1024;
/// Calls among them whose answers may be large. They wait for nothing but the kernel, so those behind them wait for little.
const LARGE: usize = 8;
/// Bytes of requests, after which no more are read. One request has 4 MiB at most.
const BYTES: usize = 16 << 20;

/// Bytes at the beginning of a request's payload that name service and method.
pub(super) const BEGINNING: usize = 96;

/// Methods whose answers can be larger than an error's text. Those that read a process's output are not among them: any
/// number of them may wait at once.
const LARGE_ANSWERS: [&str; 8] = [
    "GetDiagnosticData",
    "GetIPTables",
    "GetMetrics",
    "ListInterfaces",
    "ListRoutes",
    "SetIPTables",
    "StatsContainer",
    "UpdateRoutes",
];

/// What a client is owed.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// By stream id: clients may use one twice.
    owed: HashMap<u32, Owed>,
    all: Owed,
    /// Whether an answer waits for the client to take it.
    is_stuck: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Owed {
    calls: usize,
    large: usize,
    bytes: usize,
}

impl Admission {
    /// A request came, of `length` bytes that begin so.
    pub(super) fn asked(&mut self, stream: u32, length: usize, beginning: &[u8]) {
        // A client that writes it in an unusual way has its calls counted among the large ones.
        let is_large = method(beginning).is_none_or(|method| LARGE_ANSWERS.contains(&method));
        for owed in [self.owed.entry(stream).or_default(), &mut self.all] {
            owed.calls += 1;
            owed.large += usize::from(is_large);
            owed.bytes += length;
        }
    }

    /// An answer has left.
    pub(super) fn answered(&mut self, stream: u32) {
        let Some(owed) = self.owed.get_mut(&stream) else { return };
        owed.calls -= 1;
        self.all.calls -= 1;
        if owed.calls == 0 {
            // What the stream's other requests were is not told apart: all count until the last is answered.
            self.all.large -= owed.large;
            self.all.bytes -= owed.bytes;
            self.owed.remove(&stream);
        }
    }

    /// A write was taken, or has to wait.
    pub(super) fn wrote(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
    }

    /// Whether nothing is owed.
    pub(super) fn is_clear(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether the next request may be read.
    pub(super) fn is_open(&self) -> bool {
        !self.is_stuck && self.all.calls < CALLS && self.all.large < LARGE && self.all.bytes < BYTES
    }
}

/// The method that a request names: `ttrpc.Request` begins with the service (field 1) and the method (field 2), both strings.
fn method(beginning: &[u8]) -> Option<&str> {
    let (_service, rest) = string(beginning, 0x0a)?;
    let (method, _) = string(rest, 0x12)?;
    std::str::from_utf8(method).ok()
}

/// A short string with its field's tag, and what follows.
fn string(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk()?;
    (found == tag && length < 0x80).then(|| rest.split_at_checked(length.into()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message as _;

    fn request(method: &str) -> Vec<u8> {
        let request = ttrpc::proto::Request {
            service: "grpc.AgentService".into(),
            method: method.into(),
            payload: vec![7; 500],
            ..Default::default()
        };
        request.write_to_bytes().unwrap()
    }

    #[test]
    fn the_method_is_read_from_the_beginning() {
        for name in LARGE_ANSWERS.into_iter().chain(["RemoveStaleVirtiofsShareMounts"]) {
            assert_eq!(method(&request(name)[..BEGINNING]), Some(name));
        }
        let whole = request("GetMetrics");
        for length in 0..31 {
            assert_eq!(method(&whole[..length]), None, "{length}");
        }
        assert_eq!(method(&[0x12, 0, 0x0a, 0]), None);
        assert_eq!(method(&[0x0a, 0x80, 0x12, 0]), None);
        assert_eq!(method(&[0x0a, 0, 0x12, 1, 0xff]), None);
    }

    #[test]
    fn each_bound_closes_and_an_answer_opens() {
        let bounds: [(&str, usize, usize); 4] = [
            ("GetMetrics", 100, LARGE),
            ("WaitProcess", 100, CALLS),
            ("WriteStdin", 4 << 20, 4),
            ("", 1, LARGE),
        ];
        for (name, length, most) in bounds {
            let beginning = if name.is_empty() { Vec::new() } else { request(name) };
            let mut admission = Admission::default();
            for stream in 0..most {
                assert!(admission.is_open(), "{name}: closed after {stream}");
                admission.asked(stream as u32, length, &beginning);
            }
            assert!(!admission.is_open(), "{name}: open after {most}");
            admission.answered(0);
            assert!(admission.is_open(), "{name}");
            for stream in 0..most {
                admission.answered(stream as u32);
            }
            assert!(admission.is_clear());
        }
    }

    #[test]
    fn a_stream_that_is_used_twice_counts_twice() {
        let mut admission = Admission::default();
        for _ in 0..LARGE {
            admission.asked(1, 10, &request("GetMetrics"));
        }
        for _ in 1..LARGE {
            admission.answered(1);
            assert!(!admission.is_open() && !admission.is_clear());
        }
        admission.answered(1);
        assert!(admission.is_open() && admission.is_clear());
        admission.answered(1);
        assert!(admission.is_clear());
    }
}
