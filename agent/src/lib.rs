//! The guest agent: PID 1 of a VM that is a pod.
//!
//! ARCHITECTURE.md tells how the modules hang together. [`main`] is the whole interface; the tests drive the agent
//! over its socket, as shims do.

mod boot;
mod cancel;
mod companion;
pub mod config;
mod console;
mod container;
mod device;
pub mod error;
mod files;
pub mod guest;
mod heap;
mod listen;
pub mod network;
pub mod observe;
mod patience;
mod pod;
#[cfg(feature = "policy")]
mod policy;
mod process;
mod reserve;
mod rpc;
#[cfg(feature = "sandbox-api")]
mod sandbox_api;
mod storage;
mod sys;
mod undo;

#[cfg(any(test, fuzzing))]
pub use files::fuzz::copies;
#[cfg(any(test, fuzzing))]
pub use rpc::fuzz::{frames, request};

use std::process::ExitCode;

const HELP: &str = "\
agent: the guest half of a container in a VM

usage: agent             run; as PID 1 boot the guest first
       agent --version   print versions
       agent --help      print this

Settings come from the kernel command line (agent.log=debug, agent.server_addr=..., ...) when it is PID 1.
Otherwise only KATA_AGENT_SERVER_ADDR counts: vsock://-1:1024 (default) or unix:///PATH.
";

/// Runs what the arguments ask for.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == companion::PROGRAM) {
        return companion::main(arguments);
    }
    match arguments.next().as_deref().and_then(|argument| argument.to_str()) {
        Some(rustjail::start::FORKER_ARGUMENT) => rustjail::child::forker(),
        #[cfg(feature = "policy")]
        Some(policy::worker::ARGUMENT) if !init::is_pid1() => policy::worker::main(),
        Some("--version" | "-v") => {
            println!("agent version {} (api version: {})", guest::details::VERSION, rpc::API_VERSION);
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        // The kernel hands PID 1 the words of its command line that it does not know itself.
        Some(other) if !init::is_pid1() => {
            eprintln!("agent: unknown argument {other:?}\n\n{HELP}");
            ExitCode::from(2)
        }
        _ => boot::run(),
    }
}
