//! The program `pith`: parses its arguments, runs one verb, turns the outcome into an exit status.
//!
//! Promises that an error is printed with its whole chain of causes, as JSON with `--json`, and that nothing is left behind
//! when Ctrl-C or SIGTERM ends a verb. Must never hold logic of its own.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use pith::cli::Cli;
use store::text;

/// How long work that was interrupted may take to clear up behind itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long a reader of standard error may take: the program ends without him after that.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    let cli = match Cli::parse_arguments() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let said = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            // What clap says has its own lines and hints.
            if json {
                tell(&anyhow::anyhow!(said.to_owned()), true);
            } else {
                drop(error.print());
            }
            return ExitCode::from(2);
        }
        Err(help) => {
            drop(help.print());
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&anyhow::Error::from(error).context("cannot start"), json);
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli.execute()) {
        Ok(code) => code,
        Err(error) => {
            tell(&error, json);
            ExitCode::FAILURE
        }
    };
    // A thread may stand in a write to a pipe that nobody reads; it is not waited for.
    runtime.shutdown_timeout(GRACE);
    code
}

/// Prints an error. What it quotes may come from anywhere.
fn tell(error: &anyhow::Error, json: bool) {
    let line = if json {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let value = serde_json::json!({"error": error.to_string(), "causes": causes});
        text::json(&value.to_string()).into_owned()
    } else {
        format!("pith: {}", text::lines(&format!("{error:#}")))
    };
    let (done, told) = mpsc::channel();
    let print = move || {
        eprintln!("{line}");
        done.send(()).ok();
    };
    if std::thread::Builder::new().spawn(print).is_ok() {
        told.recv_timeout(PATIENCE).ok();
    }
}
