//! What the agent's layers may name.

use std::collections::BTreeSet;
use std::path::Path;

use protocols::{agent, health};

use crate::source::{Source, identifiers, sources};

/// Files outside `rpc/` that may name a ttrpc server, which they build and run.
const BOOTSTRAP: [&str; 1] = ["agent/src/boot.rs"];

/// Files outside `rpc/` that may name `rpc`: they declare it, or hand it the agent.
const ABOVE_RPC: [&str; 2] = ["agent/src/boot.rs", "agent/src/lib.rs"];

fn below_rpc(source: &Source, except: &[&str]) -> bool {
    !source.path.starts_with("agent/src/rpc")
        && source.path != Path::new("agent/src/rpc.rs")
        && !except.iter().any(|path| source.path == Path::new(path))
}

#[test]
fn the_wire_stays_in_rpc() {
    let wire = ["ttrpc", "protobuf", "protocols"];
    let all = sources("agent/src");
    let found: Vec<String> = all
        .iter()
        .filter(|source| below_rpc(source, &BOOTSTRAP))
        .flat_map(|source| source.uses(&wire))
        .collect();
    assert!(
        found.is_empty(),
        "only agent/src/rpc knows the wire; pass plain types instead:\n{}",
        found.join("\n")
    );
}

#[test]
fn nothing_calls_up_into_rpc() {
    let all = sources("agent/src");
    let found: Vec<String> = all
        .iter()
        .filter(|source| below_rpc(source, &ABOVE_RPC))
        .flat_map(|source| source.uses(&["rpc"]))
        .collect();
    assert!(found.is_empty(), "rpc is the top layer:\n{}", found.join("\n"));
}

/// The generated default of a method answers NOT_FOUND, which a shim takes for a process that is gone.
#[test]
fn every_method_is_overridden() {
    let rpc: String = sources("agent/src/rpc").iter().map(|source| source.code() + "\n").collect();
    for service in
        [agent::file_descriptor(), health::file_descriptor()].iter().flat_map(|file| file.services())
    {
        let name = service.proto().name();
        let block =
            implementation(&rpc, name).unwrap_or_else(|| panic!("agent/src/rpc implements no {name}"));
        let words: Vec<&str> = identifiers(block).collect();
        let overridden: BTreeSet<&str> =
            words.windows(3).filter(|words| words[..2] == ["async", "fn"]).map(|words| words[2]).collect();
        let methods: Vec<String> =
            service.methods().map(|method| snake_case(method.proto().name())).collect();
        assert!(!methods.is_empty());
        let missing: Vec<&String> =
            methods.iter().filter(|name| !overridden.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "the implementation of {name} leaves the defaults of {missing:?}");
    }
}

/// The block of `impl ... <service> for ...`.
fn implementation<'a>(code: &'a str, service: &str) -> Option<&'a str> {
    let (_, after) = code.split_once(&format!("{service} for "))?;
    let start = after.find('{')?;
    let mut depth = 0;
    for (i, c) in after[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&after[start..start + i]);
        }
    }
    None
}

#[test]
fn an_implementation_is_found_whole() {
    let code = "impl B for X { async fn no() {} } impl a::Service for Y { async fn one() { if x {} } fn two() {} } fn no() {}";
    assert_eq!(implementation(code, "Service").unwrap().trim(), "{ async fn one() { if x {} } fn two() {}");
    assert_eq!(implementation(code, "Other"), None);
}

/// The name ttrpc's generator gives to a method: `GetOOMEvent` is `get_oom_event`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let after_small = i > 0 && !letters[i - 1].is_uppercase();
        let before_small = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        if i > 0 && letter.is_uppercase() && (after_small || before_small) {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

#[test]
fn method_names_are_those_of_the_generated_trait() {
    let names = [
        ("Check", "check"),
        ("GetOOMEvent", "get_oom_event"),
        ("AddARPNeighbors", "add_arp_neighbors"),
        ("GetIPTables", "get_ip_tables"),
        ("OnlineCPUMem", "online_cpu_mem"),
        ("TtyWinResize", "tty_win_resize"),
    ];
    for (name, expected) in names {
        assert_eq!(snake_case(name), expected);
    }
}
