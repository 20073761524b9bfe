//! What the fuzzer throws at requests and at the frames that carry them. Exists in tests and under a fuzzer only.

use protobuf::Message;
use protocols::agent as wire;
use protocols::spec;

use super::admission::{Admission, BEGINNING};
use super::incoming::{Incoming, REQUEST};
use super::status::Failure;
use super::{network, validate};

/// Methods whose requests are turned into the agent's own types, in the order of [`request`]'s first byte.
const METHODS: [&str; 9] = [
    "CreateContainer",
    "ExecProcess",
    "CreateSandbox",
    "UpdateContainer",
    "UpdateEphemeralMounts",
    "UpdateInterface",
    "UpdateRoutes",
    "AddARPNeighbors",
    "CopyFile",
];

/// Decodes a request and turns it into what the agent works with. The first byte names the method; of those that are not in
/// the list nothing is turned, so any other value stands for a message of that place in the API's description. Gives the spec
/// of a container that would be made of it, as JSON.
///
/// # Panics
/// When the agent would, or when something that must hold does not.
pub fn request(bytes: &[u8]) -> Option<String> {
    let (&first, payload) = bytes.split_first()?;
    match convert(first, payload)? {
        Ok(spec) => spec,
        Err(failure) => {
            let ttrpc::Error::RpcStatus(status) = failure.into() else {
                panic!("a refusal without a status")
            };
            let is_tame = |c: char| c == '\n' || !c.is_control();
            assert!(!status.message().is_empty() && status.message().chars().all(is_tame), "{status:?}");
            None
        }
    }
}

fn read<M: Message>(payload: &[u8]) -> Option<M> {
    M::parse_from_bytes(payload).ok()
}

fn convert(method: u8, payload: &[u8]) -> Option<Result<Option<String>, Failure>> {
    let result = match METHODS.get(usize::from(method)).copied() {
        Some("CreateContainer") => validate::create(read(payload)?).map(|(_, request)| {
            let again = spec::from_wire(&spec::to_wire(&request.spec));
            assert!(again.is_ok_and(|(again, _)| again == request.spec), "a spec does not survive the wire");
            serde_json::to_string(&request.spec).ok()
        }),
        Some("ExecProcess") => validate::exec(read(payload)?).map(|_| None),
        Some("CreateSandbox") => validate::sandbox(read(payload)?).map(|_| None),
        Some("UpdateContainer") => {
            let request: wire::UpdateContainerRequest = read(payload)?;
            spec::resources_from_wire(&request.resources.into_option()?).map(|_| None).map_err(Failure::from)
        }
        Some("UpdateEphemeralMounts") => {
            let request: wire::UpdateEphemeralMountsRequest = read(payload)?;
            let storages = request.storages.into_iter().map(validate::storage).collect();
            crate::storage::combine(storages).map(|_| None).map_err(Failure::from)
        }
        Some("UpdateInterface") => {
            let request: wire::UpdateInterfaceRequest = read(payload)?;
            network::decode_interface(request.interface.as_ref()?).map(|_| None).map_err(Failure::from)
        }
        Some("UpdateRoutes") => {
            let request: wire::UpdateRoutesRequest = read(payload)?;
            let routes = &request.routes.as_ref()?.Routes;
            let routes: Result<Vec<_>, _> = routes.iter().map(network::decode_route).collect();
            routes.map(|_| None).map_err(Failure::from)
        }
        Some("AddARPNeighbors") => {
            let request: wire::AddARPNeighborsRequest = read(payload)?;
            let neighbours = &request.neighbors.as_ref()?.ARPNeighbors;
            let neighbours: Result<Vec<_>, _> = neighbours.iter().map(network::decode_neighbour).collect();
            neighbours.map(|_| None)
        }
        Some("CopyFile") => {
            let entry = validate::copy(read(payload)?);
            crate::files::fuzz::is_well_placed(&entry);
            Ok(None)
        }
        _ => {
            let messages: Vec<_> = wire::file_descriptor().messages().collect();
            let message = messages.get(usize::from(method) % messages.len())?;
            let message = message.parse_from_bytes(payload).ok()?;
            assert!(message.write_to_bytes_dyn().is_ok(), "what was read cannot be written");
            return None;
        }
    };
    Some(result)
}

/// Passes a client's bytes by in pieces, as a connection does that counts what it owes. The first byte is the pieces' size.
///
/// # Panics
/// When other frames are found than in one piece, or when a client that was answered is owed something.
pub fn frames(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let found = |size: usize| {
        let (mut incoming, mut found) = (Incoming::default(), Vec::new());
        for piece in bytes.chunks(size.max(1)) {
            incoming.space().extend_from_slice(piece);
            while let Some(frame) = incoming.next() {
                found.push((frame.stream, frame.kind, frame.length, frame.payload.map(<[u8]>::to_vec)));
            }
            incoming.rest();
        }
        found
    };
    let whole = found(bytes.len());
    assert_eq!(found(size.into()), whole, "in pieces of {size}");
    let mut admission = Admission::default();
    let requests: Vec<_> = whole.into_iter().filter(|(_, kind, ..)| *kind == REQUEST).collect();
    for (stream, _, length, payload) in &requests {
        let beginning = payload.as_deref().unwrap_or_default();
        admission.asked(*stream, *length, &beginning[..beginning.len().min(BEGINNING)]);
    }
    assert_eq!(admission.is_clear(), requests.is_empty());
    // The other way round, and once more than was asked for.
    for (stream, ..) in requests.iter().rev().chain(requests.first()) {
        admission.answered(*stream);
    }
    assert!(admission.is_clear() && admission.is_open(), "all was answered");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fuzz::kept;
    use std::path::PathBuf;

    /// What fuzzing begins with, below the directory that `FUZZ_SEEDS` names: the golden messages of the API.
    #[test]
    fn seeds() {
        let scratch = tempfile::tempdir().unwrap();
        let out = std::env::var_os("FUZZ_SEEDS").map_or(scratch.path().to_owned(), PathBuf::from);
        let write = |target: &str, name: &str, bytes: &[u8]| {
            std::fs::create_dir_all(out.join(target)).unwrap();
            std::fs::write(out.join(target).join(name), bytes).unwrap();
        };
        let golden = include_str!("../../protocols/tests/golden.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let messages: Vec<String> =
            wire::file_descriptor().messages().map(|message| message.full_name().to_owned()).collect();
        let mut number = 0;
        for (method, types) in golden["services"]["grpc.AgentService"].as_object().unwrap() {
            let name = types[0].as_str().unwrap();
            let first = METHODS.iter().position(|known| known == method);
            let first = first.or_else(|| messages.iter().position(|known| known == name));
            for case in golden["messages"][name].as_array().unwrap() {
                let payload = bytes(case["hex"].as_str().unwrap());
                let first = u8::try_from(first.unwrap_or(255)).unwrap();
                let input = [vec![first], payload.clone()].concat();
                request(&input);
                write("request", &number.to_string(), &input);
                if payload.len() < 2000 {
                    let call = ttrpc::proto::Request {
                        service: "grpc.AgentService".into(),
                        method: method.clone(),
                        payload,
                        ..Default::default()
                    };
                    let call = call.write_to_bytes().unwrap();
                    let mut input = vec![7];
                    for stream in [1, 3, 1] {
                        input.extend(u32::try_from(call.len()).unwrap().to_be_bytes());
                        input.extend(u32::to_be_bytes(stream));
                        input.extend([REQUEST, 0]);
                        input.extend(&call);
                    }
                    frames(&input);
                    write("frames", &number.to_string(), &input);
                }
                number += 1;
            }
        }
        assert!(number > 40, "{number} messages");
    }

    /// What a fuzzer found once, and what it begins with.
    #[test]
    fn regressions_stay_mended() {
        kept("request").iter().for_each(|bytes| drop(request(bytes)));
        kept("frames").iter().for_each(|bytes| frames(bytes));
    }
}
