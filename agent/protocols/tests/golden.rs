//! Our encoding of every message against bytes worked out by another implementation from another description.
//!
//! `golden.json` is written by `tests/wire/golden.py`, which knows nothing of our `.proto` files. A message or method
//! that it does not list, or that we do not have, fails here.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protobuf::descriptor::field_descriptor_proto::Type;
use protobuf::reflect::{FileDescriptor, MessageDescriptor};
use protobuf::rt::WireType;
use protobuf::{CodedInputStream, CodedOutputStream, MessageDyn};
use protocols::{agent, agent_ttrpc, csi, health, health_ttrpc, oci, types};
use serde_json::Value;

/// Field numbers that no message of the API has.
const UNKNOWN: [u32; 2] = [2046, 2047];

struct Case {
    name: String,
    json: String,
    bytes: Vec<u8>,
}

struct Golden {
    messages: BTreeMap<String, Vec<Case>>,
    services: Services,
}

/// Service -> method -> input and output.
type Services = BTreeMap<String, BTreeMap<String, [String; 2]>>;

fn golden() -> Golden {
    let document: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let messages = document["messages"].as_object().unwrap().iter().map(|(name, cases)| {
        let cases = cases.as_array().unwrap().iter().map(|case| Case {
            name: format!("{name}, {}", case["case"].as_str().unwrap()),
            json: case["json"].to_string(),
            bytes: from_hex(case["hex"].as_str().unwrap()),
        });
        (name.clone(), cases.collect())
    });
    Golden {
        messages: messages.collect(),
        services: serde_json::from_value(document["services"].clone()).unwrap(),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text:?} is not hex");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn files() -> [&'static FileDescriptor; 5] {
    [
        agent::file_descriptor(),
        csi::file_descriptor(),
        health::file_descriptor(),
        oci::file_descriptor(),
        types::file_descriptor(),
    ]
}

/// Every message by full name, nested ones too, save for the entries of maps: their names are the compiler's.
fn messages() -> BTreeMap<String, MessageDescriptor> {
    fn add(message: MessageDescriptor, to: &mut BTreeMap<String, MessageDescriptor>) {
        if !message.is_map_entry() {
            message.nested_messages().for_each(|nested| add(nested, to));
            to.insert(message.full_name().to_owned(), message);
        }
    }
    let mut messages = BTreeMap::new();
    files().iter().flat_map(|file| file.messages()).for_each(|message| add(message, &mut messages));
    messages
}

/// Calls `check` with every case and the descriptor of its message.
fn for_every_case(mut check: impl FnMut(&MessageDescriptor, &Case)) {
    let messages = messages();
    for (name, cases) in golden().messages {
        let descriptor = messages.get(&name).unwrap_or_else(|| panic!("no .proto file has {name}"));
        cases.iter().for_each(|case| check(descriptor, case));
    }
}

/// Sorts the fields of an encoded message, and of those within, by number.
///
/// The order of fields is free, and rust-protobuf puts members of a oneof last; what Google's encoder writes is sorted.
fn in_number_order(descriptor: &MessageDescriptor, bytes: &[u8]) -> Vec<u8> {
    let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof().unwrap() {
        let (number, wire_type) = (tag >> 3, tag & 7);
        let encoded = encode(|output| {
            output.write_raw_varint32(tag)?;
            if wire_type == WireType::Varint as u32 {
                return output.write_raw_varint64(input.read_raw_varint64()?);
            }
            assert_eq!(wire_type, WireType::LengthDelimited as u32, "the API has no other wire types");
            let mut content = input.read_bytes()?;
            if let Some(inner) = message_of_field(descriptor, number) {
                content = in_number_order(&inner, &content);
            }
            output.write_bytes_no_tag(&content)
        });
        fields.push((number, encoded));
    }
    fields.sort_by_key(|(number, _)| *number);
    fields.into_iter().flat_map(|(_, encoded)| encoded).collect()
}

/// The message type of a field; none for maps, whose entries hold no message with a oneof.
fn message_of_field(descriptor: &MessageDescriptor, number: u32) -> Option<MessageDescriptor> {
    use protobuf::reflect::{RuntimeFieldType, RuntimeType};
    match descriptor.field_by_number(number)?.runtime_field_type() {
        RuntimeFieldType::Singular(RuntimeType::Message(inner)) => Some(inner),
        RuntimeFieldType::Repeated(RuntimeType::Message(inner)) => Some(inner),
        _ => None,
    }
}

fn encode(write: impl FnOnce(&mut CodedOutputStream) -> protobuf::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut output = CodedOutputStream::vec(&mut bytes);
    write(&mut output).unwrap();
    output.flush().unwrap();
    drop(output);
    bytes
}

fn encoded(message: &dyn MessageDyn) -> Vec<u8> {
    let bytes = message.write_to_bytes_dyn().unwrap();
    assert_eq!(message.compute_size_dyn(), bytes.len() as u64);
    bytes
}

#[test]
fn every_message_has_golden_cases_and_no_other() {
    let ours: BTreeSet<String> = messages().into_keys().collect();
    let golden: BTreeSet<String> = golden().messages.into_keys().collect();
    assert_eq!(ours, golden, "see tests/wire/golden.py on how to add a message");
}

#[test]
fn values_encode_to_the_golden_bytes() {
    for_every_case(|descriptor, case| {
        let message = protobuf_json_mapping::parse_dyn_from_str(descriptor, &case.json)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", case.name, case.json));
        assert_eq!(in_number_order(descriptor, &encoded(&*message)), case.bytes, "{}", case.name);
    });
}

#[test]
fn golden_bytes_decode_to_the_values() {
    for_every_case(|descriptor, case| {
        let decoded = descriptor.parse_from_bytes(&case.bytes).unwrap();
        assert_eq!(decoded.unknown_fields_dyn().iter().count(), 0, "{}: a field is not known", case.name);
        let expected = protobuf_json_mapping::parse_dyn_from_str(descriptor, &case.json).unwrap();
        assert!(descriptor.eq(&*decoded, &*expected), "{}: {decoded:?} is not {expected:?}", case.name);
        assert_eq!(in_number_order(descriptor, &encoded(&*decoded)), case.bytes, "{}", case.name);
    });
}

/// A newer client may send fields we do not have; they harm nothing and are passed on.
#[test]
fn unknown_fields_are_kept() {
    for_every_case(|descriptor, case| {
        let number = encode(|output| output.write_uint64(UNKNOWN[0], u64::MAX));
        let text = encode(|output| output.write_string(UNKNOWN[1], "from the future"));
        for extra in [number, text] {
            let bytes = [case.bytes.as_slice(), &extra].concat();
            let decoded = descriptor.parse_from_bytes(&bytes).unwrap();
            assert_eq!(in_number_order(descriptor, &encoded(&*decoded)), bytes, "{}", case.name);
        }
    });
}

/// Numbers in a list come packed from proto3 encoders; a decoder has to take them one by one as well.
#[test]
fn unpacked_lists_are_taken() {
    let mut lists = Vec::new();
    for_every_case(|descriptor, case| {
        let Some(field) =
            case.name.split_once(", only ").and_then(|(_, name)| descriptor.field_by_name(name))
        else {
            return;
        };
        if !field.is_repeated() || !matches!(field.proto().type_(), Type::TYPE_UINT32 | Type::TYPE_UINT64) {
            return;
        }
        let mut packed = CodedInputStream::from_bytes(&case.bytes);
        assert_eq!(
            packed.read_raw_tag_or_eof().unwrap().unwrap() >> 3,
            field.proto().number().cast_unsigned()
        );
        let mut numbers = Vec::new();
        packed.read_repeated_packed_uint64_into(&mut numbers).unwrap();
        let unpacked = encode(|output| {
            numbers.iter().try_for_each(|n| output.write_uint64(field.proto().number().cast_unsigned(), *n))
        });
        assert_ne!(unpacked, case.bytes);
        let decoded = descriptor.parse_from_bytes(&unpacked).unwrap();
        assert_eq!(encoded(&*decoded), case.bytes, "{}", case.name);
        lists.push(case.name.clone());
    });
    assert_eq!(lists.len(), 4, "lists of numbers: {lists:?}");
}

#[test]
fn the_services_have_exactly_the_golden_methods() {
    let ours: Services = files()
        .iter()
        .flat_map(|file| file.services().map(|service| (file.package().to_owned(), service)))
        .map(|(package, service)| {
            let methods = service.methods().map(|method| {
                let types = [method.input_type(), method.output_type()].map(|t| t.full_name().to_owned());
                (method.proto().name().to_owned(), types)
            });
            (format!("{package}.{}", service.proto().name()), methods.collect())
        })
        .collect();
    let golden = golden().services;
    assert_eq!(ours, golden);
    assert_eq!(golden["grpc.AgentService"].len(), 42);
    assert_eq!(golden["grpc.Health"].len(), 2);
}

/// What a server registers is what a client has to name in a request.
#[test]
fn a_server_answers_to_the_golden_names() {
    struct Defaults;
    impl agent_ttrpc::AgentService for Defaults {}
    impl health_ttrpc::Health for Defaults {}
    let mut registered = agent_ttrpc::create_agent_service(Arc::new(Defaults));
    registered.extend(health_ttrpc::create_health(Arc::new(Defaults)));
    let ours: BTreeMap<String, BTreeSet<String>> = registered
        .into_iter()
        .map(|(name, service)| {
            assert!(service.streams.is_empty(), "{name} has no streaming methods");
            (name, service.methods.into_keys().collect())
        })
        .collect();
    let golden: BTreeMap<String, BTreeSet<String>> =
        golden().services.into_iter().map(|(name, methods)| (name, methods.into_keys().collect())).collect();
    assert_eq!(ours, golden);
}
