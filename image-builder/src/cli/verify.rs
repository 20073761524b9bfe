//! `image-builder verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use products::verify::{self, Outcome};
use store::progress::bytes;

use super::global::Global;

/// `image-builder verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The directory with the products and their manifest.json [default: OUT].
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Also compile kernels again, even those in the cache.
    #[arg(long)]
    rebuild: bool,
}

impl VerifyArgs {
    /// Runs the command; 1 when a product is not what the source tree makes.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let layout = global.layout()?;
        let directory = self.directory.unwrap_or_else(|| layout.out().to_path_buf());
        let options = verify::Options { rebuild: self.rebuild };
        let report =
            verify::verify(&layout, &directory, options, &global.cache()?, global.progress()).await?;
        let good = report.iter().all(|(_, outcome)| *outcome == Outcome::Same);
        let json: Vec<_> = report
            .iter()
            .map(|(name, outcome)| serde_json::json!({ "product": name, "result": outcome }))
            .collect();
        global.print(&json, || {
            report.iter().map(|(name, outcome)| line(name, outcome)).collect::<Vec<_>>().join("\n")
        })?;
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn line(name: &str, outcome: &Outcome) -> String {
    let text = match outcome {
        Outcome::Same => "the same".to_owned(),
        Outcome::Different { offset, size, built, entry } => {
            let entry = entry.as_ref().map(|path| format!("; {path} in it differs")).unwrap_or_default();
            let sizes = match size == built {
                true => bytes(*size),
                false => format!("{} here, {} built", bytes(*size), bytes(*built)),
            };
            format!("DIFFERENT from byte {offset} on ({sizes}){entry}")
        }
        Outcome::Changed { expected, found } => {
            format!("CHANGED since it was made: sha256 {found}, but its manifest says {expected}")
        }
        Outcome::Unexplained => {
            "NOT COMPARED: the manifest does not say how it is built; remove it, or build it anew".to_owned()
        }
    };
    format!("{name:<26} {text}")
}
