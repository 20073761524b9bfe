//! `image-builder inspect`.

use std::path::PathBuf;

use clap::Args;
use products::inspect;

use super::global::Global;

/// `image-builder inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// An initrd in any compression, a disk with an MBR or a GPT, an EROFS or ext4 file system, or a unified kernel image.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show only this many levels of directories.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
}

impl InspectArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let inspection = inspect::inspect(&self.file)?;
        global.print(&inspection, || inspect::tree(&inspection, self.depth))
    }
}
