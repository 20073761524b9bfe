//! Generates the messages and the async service traits into `OUT_DIR`, in pure Rust: no `protoc` is run.

use std::io::Write as _;
use std::path::PathBuf;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const PROTOS: [&str; 5] = [
    "protos/agent.proto",
    "protos/csi.proto",
    "protos/health.proto",
    "protos/oci.proto",
    "protos/types.proto",
];

fn main() {
    println!("cargo::rerun-if-changed=protos");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    Codegen::new()
        .out_dir(&out)
        .include("protos")
        .inputs(PROTOS)
        .rust_protobuf()
        // rust-protobuf's own mod.rs has no inner attribute, so the crate can `include!` it; ttrpc's has one.
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(true))
        .customize(Customize { async_all: true, ..Default::default() })
        .run()
        .expect("the .proto files in protos/ are valid");
    let mut module = std::fs::OpenOptions::new()
        .append(true)
        .open(out.join("mod.rs"))
        .expect("rust-protobuf wrote mod.rs");
    writeln!(module, "pub mod agent_ttrpc;\npub mod health_ttrpc;").expect("OUT_DIR is writable");
}
