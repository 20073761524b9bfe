//! The old names of what `pith` does now. They work for one version, with a note.

use std::process::ExitCode;

use clap::Subcommand;
use pith::{attach, exec, logs, look, run};

use super::global::Global;

/// Commands for pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Now `pith run`.
    Run(Box<run::RunArgs>),
    /// Now `pith attach`.
    Attach(attach::AttachArgs),
    /// Now `pith ps`.
    Ps(look::PsArgs),
    /// Now `pith exec`.
    Exec(exec::ExecArgs),
    /// Now `pith logs`.
    Logs(logs::LogsArgs),
    /// Now `pith console`.
    Console(exec::ConsoleArgs),
    /// Now `pith stop`.
    Stop(look::StopArgs),
    /// Now `pith timings`.
    Timings(look::TimingsArgs),
    /// Now `pith image`.
    Image(::pith::images::ImageArgs),
}

impl Command {
    fn verb(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Attach(_) => "attach",
            Self::Ps(_) => "ps",
            Self::Exec(_) => "exec",
            Self::Logs(_) => "logs",
            Self::Console(_) => "console",
            Self::Stop(_) => "stop",
            Self::Timings(_) => "timings",
            Self::Image(_) => "image",
        }
    }

    /// Says the new name, and runs the command. It sees to signals itself.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let verb = self.verb();
        eprintln!(
            "image-builder: `image-builder {verb}` is `pith {verb}` now; the old name goes with version 0.3"
        );
        let global = &global.of_pith();
        match self {
            // Nothing was kept of a pod that had ended.
            Self::Run(args) => args.without_a_trace().execute(global).await,
            Self::Attach(args) => args.execute().await,
            Self::Ps(args) => args.execute(global),
            Self::Exec(args) => args.execute(global).await,
            Self::Logs(args) => args.execute(global).await,
            Self::Console(args) => args.execute().await,
            Self::Stop(args) => args.execute(global).await,
            Self::Timings(args) => args.execute(global).await,
            Self::Image(args) => args.execute(global),
        }
    }
}
