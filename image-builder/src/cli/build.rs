//! `image-builder agent`, `initrd` and `build`.

use clap::Args;
use image_builder::format::compress::Compression;
use image_builder::layout::Layout;
use image_builder::manifest::Manifest;
use image_builder::progress::bytes;
use image_builder::{agent, initrd, kernel};

use super::Global;
use super::kernel::KernelArgs;

/// `image-builder agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {}

impl AgentArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?;
        let part = agent::build(&layout, global.progress()).await?;
        global.print(&part, || products(&Manifest::read(&layout), &["agent"]))
    }
}

/// `image-builder initrd`.
#[derive(Debug, Args)]
pub(crate) struct InitrdArgs {
    /// The recipe in rootfs/flavour.
    #[arg(long, default_value = "minimal", value_name = "NAME")]
    flavour: String,
    /// How to compress it.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Pack it twice and fail if the two differ.
    #[arg(long)]
    check: bool,
}

impl InitrdArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?;
        self.pack(&layout)?;
        let manifest = Manifest::read(&layout);
        global.print(&manifest.initrd, || products(&manifest, &["initrd.img"]))
    }

    fn pack(self, layout: &Layout) -> anyhow::Result<()> {
        let epoch = initrd::epoch(std::env::var_os("SOURCE_DATE_EPOCH"))?;
        let Self { flavour, compression, check } = self;
        let options = initrd::Options { flavour, compression, epoch, twice: check };
        Ok(initrd::pack(layout, &options)?.install(layout)?)
    }
}

/// `image-builder build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    initrd: InitrdArgs,
}

impl BuildArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let (layout, cache, progress) = (global.layout()?, global.cache()?, global.progress());
        let options = self.kernel.options();
        kernel::build(&layout.kernel_config(), &options, &cache, progress).await?.install(&layout)?;
        agent::build(&layout, progress).await?;
        self.initrd.pack(&layout)?;
        let manifest = Manifest::read(&layout);
        global.print(&manifest, || {
            products(&manifest, &manifest.products.keys().map(String::as_str).collect::<Vec<_>>())
        })
    }
}

/// One line per product: name, bytes, digest.
fn products(manifest: &Manifest, names: &[&str]) -> String {
    let line = |name: &&str| {
        let product = manifest.products.get(*name)?;
        let (size, sha256) = (product.size, product.sha256.to_string());
        Some(format!("{name:<12} {size:>12} {:>9}  sha256:{}…", bytes(size), &sha256[..16]))
    };
    names.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}
