//! `image-builder sbom`.

use clap::Args;
use products::{initrd, sbom};
use store::product::Product;

use super::global::Global;

/// `image-builder sbom`.
#[derive(Debug, Args)]
pub(crate) struct SbomArgs {}

impl SbomArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?;
        let epoch = initrd::epoch(std::env::var_os("SOURCE_DATE_EPOCH"))?;
        let document = sbom::list(&layout, epoch).await?;
        sbom::install(&layout, &document)?;
        let path = layout.product(&Product::Sbom);
        global.print(&document, || format!("{}: {} packages", path.display(), document.len()))
    }
}
