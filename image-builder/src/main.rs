//! The `image-builder` program: parses its arguments, runs one command, turns the outcome into an exit status.
//!
//! Promises: an error is printed with its whole chain of causes, and nothing is left behind when Ctrl-C or SIGTERM
//! ends a command. Must never hold logic of its own: commands live in `cli`, work lives in the library.

mod cli;

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use store::text;

/// How long work that was interrupted may take to clear up behind itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long a reader of standard error may take: the program ends without him after that.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::Cli::parse().execute()) {
        Ok(code) => code,
        Err(error) => {
            tell(format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    // A thread may stand in a write to a pipe that nobody reads; it is not waited for.
    runtime.shutdown_timeout(GRACE);
    code
}

/// Prints an error. What it quotes may come from anywhere.
fn tell(error: String) {
    let (done, told) = mpsc::channel();
    let print = move || {
        eprintln!("image-builder: {}", text::lines(&error));
        done.send(()).ok();
    };
    if std::thread::Builder::new().spawn(print).is_ok() {
        told.recv_timeout(PATIENCE).ok();
    }
}
