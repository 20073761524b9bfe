#!/usr/bin/env bash
# ttrpc 0.10.0, ttrpc-codegen 0.7.0 (the Rust crates of containerd's ttrpc, async server)
#
# One would guess that a server which lacks a call says UNIMPLEMENTED, which is the code for that, whatever the reason is. It
# has three answers: a method that its .proto names and its code leaves out is NOT_FOUND, a method that its .proto does not name
# is UNIMPLEMENTED, and a service that it does not have is INVALID_ARGUMENT.
#
# It matters to a client that is newer than the agent it talks to, and goes on without a call if the agent is too old for it. A
# test for UNIMPLEMENTED alone misses two of the three cases. NOT_FOUND and INVALID_ARGUMENT also look like answers of the
# method itself: "no such container", "wrong argument".
#
# Output seen:
#   method without code:  NOT_FOUND: /p.Known/Left is not supported
#   unknown method:       UNIMPLEMENTED: Newer method
#   unknown service:      INVALID_ARGUMENT: p.Other service does not exist
#
# Needs a Rust toolchain (seen with 1.95). Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src server client

cat >Cargo.toml <<'TOML'
[package]
name = "missing"
version = "0.1.0"
edition = "2021"

[dependencies]
async-trait = "=0.1.92"
protobuf = "=3.7.2"
tokio = { version = "=1.54.1", features = ["rt"] }
ttrpc = { version = "=0.10.0", default-features = false, features = ["async", "rustprotobuf"] }

[build-dependencies]
ttrpc-codegen = "=0.7.0"

[workspace]
TOML

# What the server was built from, and the newer version that the client was built from.
cat >server/p.proto <<'PROTO'
syntax = "proto3";
package p;
message Empty {}
service Known { rpc Left(Empty) returns (Empty); }
PROTO
cat >client/p.proto <<'PROTO'
syntax = "proto3";
package p;
message Empty {}
service Known { rpc Left(Empty) returns (Empty); rpc Newer(Empty) returns (Empty); }
service Other { rpc Any(Empty) returns (Empty); }
PROTO

# Inner attributes are taken out, because included files cannot have them.
cat >build.rs <<'RUST'
use ttrpc_codegen::{Codegen, Customize};

fn main() {
    for side in ["server", "client"] {
        let folder = format!("{}/{side}", std::env::var("OUT_DIR").unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let custom = Customize { async_all: true, ..Default::default() };
        let mut generator = Codegen::new();
        generator.out_dir(&folder).include(side).input(format!("{side}/p.proto"));
        generator.rust_protobuf().customize(custom).run().unwrap();
        for name in ["p.rs", "p_ttrpc.rs"] {
            let path = format!("{folder}/{name}");
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("#![") && !line.starts_with("//!")).collect();
            std::fs::write(&path, lines.join("\n")).unwrap();
        }
    }
}
RUST
cat >src/main.rs <<'RUST'
#![allow(warnings)] // of the generated files
use std::sync::Arc;
use ttrpc::{Error, context::Context};

macro_rules! generated {
    ($side:ident) => {
        mod $side {
            pub mod p {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($side), "/p.rs"));
            }
            pub mod p_ttrpc {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($side), "/p_ttrpc.rs"));
            }
        }
    };
}
generated!(server);
generated!(client);

/// Has none of the methods that its service names.
struct Nothing;
impl server::p_ttrpc::Known for Nothing {}

fn show(what: &str, answer: Result<client::p::Empty, Error>) {
    match answer {
        Err(Error::RpcStatus(status)) => println!("{what:<21} {:?}: {}", status.code(), status.message()),
        other => println!("{what:<21} {other:?}"),
    }
}

fn main() {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let address = format!("unix://{}/socket", std::env::args().nth(1).unwrap());
        let service = server::p_ttrpc::create_known(Arc::new(Nothing));
        let mut server = ttrpc::r#async::Server::new().bind(&address).unwrap().register_service(service);
        server.start().await.unwrap();
        let connection = ttrpc::r#async::Client::connect(&address).await.unwrap();
        let known = client::p_ttrpc::KnownClient::new(connection.clone());
        let other = client::p_ttrpc::OtherClient::new(connection);
        let (context, nothing) = (Context::default(), client::p::Empty::new());
        show("method without code:", known.left(context.clone(), &nothing).await);
        show("unknown method:", known.newer(context.clone(), &nothing).await);
        show("unknown service:", other.any(context, &nothing).await);
    });
}
RUST

CARGO_TARGET_DIR=$folder/target cargo build --quiet
target/debug/missing "$folder" | tee seen
grep -q '^method without code: *NOT_FOUND:' seen
grep -q '^unknown method: *UNIMPLEMENTED:' seen
grep -q '^unknown service: *INVALID_ARGUMENT:' seen
