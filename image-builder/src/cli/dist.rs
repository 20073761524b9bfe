//! `image-builder dist`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use image_builder::dist::Release;
use products::{agent, daemon, initrd};
use store::progress::bytes;

use super::global::Global;

/// `image-builder dist`.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Who answers for the Debian package.
    #[arg(long, value_name = "NAME <ADDRESS>")]
    maintainer: String,
    /// Pack the programs in DIR instead of building them: image-builder, pith and vhost-device-vsock. They must be static.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Add this file to the release, beside the archives. It can be repeated.
    #[arg(long = "add", value_name = "FILE")]
    others: Vec<PathBuf>,
    /// The directory for the files of the release.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

impl DistArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?;
        let epoch = initrd::epoch(std::env::var_os("SOURCE_DATE_EPOCH"))?;
        let built = tempfile::tempdir().context("cannot make a directory for the programs")?;
        let (programs, daemon) = match &self.programs {
            Some(directory) => {
                let programs = agent::TOOLS.map(|name| directory.join(name)).to_vec();
                let daemon = directory.join(daemon::NAME);
                programs.iter().chain([&daemon]).try_for_each(|program| agent::check_static(program))?;
                (programs, daemon)
            }
            None => (
                agent::build_tools(&layout, built.path(), global.progress()).await?,
                daemon::build(&layout, built.path(), global.progress()).await?,
            ),
        };
        let step = global.progress().step("pack the release", None);
        let version = env!("CARGO_PKG_VERSION");
        let release = Release {
            version,
            epoch,
            maintainer: &self.maintainer,
            layout: &layout,
            programs: &programs,
            daemon: &daemon,
            others: &self.others,
        };
        let names = release.write(&self.output).await?;
        let mut sizes = Vec::new();
        for name in &names {
            let path = self.output.join(name);
            let size =
                std::fs::metadata(&path).with_context(|| format!("cannot inspect {}", path.display()))?;
            sizes.push((name, size.len()));
        }
        step.done(&format!("{} files in {}", names.len(), self.output.display()));
        let value: Vec<_> =
            sizes.iter().map(|(name, size)| serde_json::json!({"name": name, "size": size})).collect();
        global.print(&value, || {
            let line = |(name, size): &(&String, u64)| format!("{name:<32} {size:>12} {:>9}", bytes(*size));
            sizes.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }
}
