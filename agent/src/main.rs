//! Argument dispatch; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent::main()
}
