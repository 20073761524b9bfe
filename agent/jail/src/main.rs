//! `jail run BUNDLE`: a container in the foreground.
//!
//! Owns nothing that outlives the container: no state directory, no daemon. Takes an OCI bundle (a directory with a
//! `config.json`), gives its exit status. Everything that makes the container is rustjail's.

mod config;
mod hook;
mod run;
mod signal;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Exit status when the container could not be run, as container engines have it.
const CANNOT_RUN: u8 = 125;

/// Runs OCI containers with rustjail, without an agent.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a bundle in the foreground. The exit status is the container's, 128 and the number of the signal that killed
    /// it, or 125 if it could not be run.
    Run(Run),
}

/// What is run.
#[derive(Debug, Args)]
struct Run {
    /// Directory with the bundle's config.json.
    bundle: PathBuf,
    /// The container's id; by default the name of the bundle's directory.
    #[arg(long)]
    id: Option<String>,
    /// Where cgroup v2 is mounted.
    #[arg(long, default_value = "/sys/fs/cgroup", value_name = "PATH")]
    cgroup_root: PathBuf,
    /// Move the root onto / instead of pivoting, as an initramfs wants it. Without it this is found out.
    #[arg(long)]
    no_pivot: bool,
}

fn main() -> ExitCode {
    // Before anything else: rustjail makes its processes from a copy of this program.
    if std::env::args().nth(1).as_deref() == Some(rustjail::start::FORKER_ARGUMENT) {
        return rustjail::child::forker();
    }
    let Verb::Run(options) = Cli::parse().verb;
    match run::run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("jail: {error:#}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}
