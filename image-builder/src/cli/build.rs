//! `image-builder agent`, `initrd` and `build`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use products::format::compress::Compression;
use products::initrd::Initrd;
use products::manifest::Manifest;
use products::recipe::{Choice, Recipe};
use products::{agent, initrd, kernel, recipe};
use serde::Serialize;
use store::cache::Cache;
use store::layout::{Layout, SHIPPED};
use store::product::Product;
use store::progress::{Progress, bytes};

use super::global::{ArchArgs, Global};
use super::kernel::KernelArgs;

/// `image-builder agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    arch: ArchArgs,
}

impl AgentArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?.for_arch(self.arch.arch);
        let part = agent::build(&layout, &BTreeSet::new(), global.progress()).await?;
        let name = Product::Agent(BTreeSet::new()).file_name(layout.arch());
        global.print(&part, || products(&Manifest::read(&layout), &[name]))
    }
}

/// `image-builder program`.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// Packages of the workspace. Each must have a binary of the same name.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    arch: ArchArgs,
}

impl ProgramArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?.for_arch(self.arch.arch);
        for name in &self.names {
            agent::build_program(&layout, name, global.progress()).await?;
        }
        let manifest = Manifest::read(&layout);
        let file = |name: &String| Product::Program(name.clone()).file_name(layout.arch());
        let names: Vec<_> = self.names.iter().map(file).collect();
        let made: Vec<_> = names.iter().filter_map(|name| manifest.products.get(name)).collect();
        global.print(&made, || products(&manifest, &names))
    }
}

/// `image-builder initrd`.
#[derive(Debug, Args)]
pub(crate) struct InitrdArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    arch: ArchArgs,
    /// Write it to FILE instead of the product directory.
    #[arg(short, long, value_name = "FILE", conflicts_with = "all")]
    output: Option<PathBuf>,
    /// Pack every flavour.
    #[arg(long, conflicts_with_all = ["flavour", "recipe"])]
    all: bool,
}

/// Which initrd, and how.
#[derive(Debug, Args)]
struct RecipeArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    /// The compression method.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Pack it twice, and fail if the two results differ.
    #[arg(long)]
    check: bool,
}

/// Which recipe.
#[derive(Debug, Clone, Args)]
pub(super) struct ChoiceArgs {
    /// The flavour: a recipe in rootfs/flavour. `minimal` becomes out/initrd.img, any other out/initrd-NAME.img. A disk becomes
    /// out/disk-NAME-FORM.img.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    /// A recipe of your own, anywhere, instead of a flavour: NAME.toml. docs/recipes.md has its keys.
    #[arg(long, value_name = "FILE", conflicts_with = "flavour")]
    recipe: Option<PathBuf>,
}

impl ChoiceArgs {
    /// What is chosen.
    pub(super) fn choice(&self) -> Choice {
        match &self.recipe {
            Some(path) => Choice::File(path.clone()),
            None => Choice::Flavour(self.flavour.clone()),
        }
    }
}

impl InitrdArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?.for_arch(self.arch.arch);
        if let Some(path) = &self.output {
            let choice = self.recipe.choice.choice();
            build_agent(&layout, &choice, global.progress()).await?;
            let initrd = self.recipe.pack(&layout, choice, global.cache()?)?;
            initrd.write(path)?;
            let size = bytes(initrd.image().len() as u64);
            return global.print(initrd.part(), || format!("{} {size}", path.display()));
        }
        let flavours: Vec<Choice> = match self.all {
            true => recipe::known(&layout).into_iter().map(Choice::from).collect(),
            false => vec![self.recipe.choice.choice()],
        };
        let (mut names, mut parts) = (Vec::new(), Vec::new());
        for flavour in flavours {
            build_agent(&layout, &flavour, global.progress()).await?;
            let initrd = self.recipe.pack(&layout, flavour, global.cache()?)?;
            names.push(initrd.install(&layout)?);
            parts.push(initrd.part().clone());
        }
        print_made(global, &parts, || products(&Manifest::read(&layout), &names))
    }
}

impl RecipeArgs {
    fn pack(&self, layout: &Layout, flavour: Choice, cache: Cache) -> anyhow::Result<Initrd> {
        let epoch = initrd::epoch(std::env::var_os("SOURCE_DATE_EPOCH"))?;
        let options = initrd::Options {
            flavour,
            compression: self.compression,
            epoch,
            twice: self.check,
            cache: Some(cache),
        };
        Ok(initrd::pack(layout, &options)?)
    }
}

/// `image-builder build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    initrd: RecipeArgs,
}

impl BuildArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let (cache, progress) = (global.cache()?, global.progress());
        let layout = global.layout()?;
        let options = self.kernel.options();
        let kernel = kernel::build(&layout.kernel_config(), &options, &cache, progress).await?;
        kernel.install(&layout)?;
        let layout = layout.for_arch(kernel.arch());
        if layout.has_source() {
            agent::build(&layout, &BTreeSet::new(), progress).await?;
        }
        let choice = self.initrd.choice.choice();
        build_agent(&layout, &choice, progress).await?;
        self.initrd.pack(&layout, choice, cache)?.install(&layout)?;
        let manifest = Manifest::read(&layout);
        global.print(&manifest, || products(&manifest, &manifest.products.keys().collect::<Vec<_>>()))
    }
}

/// The agent that ships is built by its own command; a flavour that wants another one gets it here.
pub(super) async fn build_agent(layout: &Layout, flavour: &Choice, progress: Progress) -> anyhow::Result<()> {
    let features = Recipe::load(layout, flavour)?.features();
    if !features.is_empty() && layout.has_source() {
        agent::build(layout, &features, progress).await?;
    }
    Ok(())
}

/// Prints what products were made of: one part, or a list of them.
pub(super) fn print_made<P: Serialize>(
    global: &Global,
    parts: &[P],
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    if let [part] = parts { global.print(part, text) } else { global.print(&parts, text) }
}

/// One line per product: name, bytes, digest.
pub(super) fn products(manifest: &Manifest, names: &[impl AsRef<str>]) -> String {
    let line = |name: &str| {
        let product = manifest.products.get(name)?;
        let (size, sha256) = (product.size, product.sha256.to_string());
        Some(format!("{name:<26} {size:>12} {:>9}  sha256:{}…", bytes(size), &sha256[..16]))
    };
    names.iter().filter_map(|name| line(name.as_ref())).collect::<Vec<_>>().join("\n")
}
