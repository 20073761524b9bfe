//! The `image-builder` program: parses its arguments, runs one command, turns the outcome into an exit status.
//!
//! Promises: an error is printed with its whole chain of causes, and nothing is left behind when Ctrl-C or SIGTERM
//! ends a command. Must never hold logic of its own: commands live in `cli`, work lives in the library.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().execute().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("image-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}
