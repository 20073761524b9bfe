//! `image-builder uki`.

use std::path::PathBuf;

use clap::Args;
use products::manifest::Manifest;
use products::{recipe, uki};
use store::layout::SHIPPED;
use store::progress::bytes;

use super::build::{print_made, products};
use super::global::{ArchArgs, Global};

/// `image-builder uki`.
#[derive(Debug, Args)]
pub(crate) struct UkiArgs {
    /// The flavour whose initrd is packed. It becomes out/uki-NAME.efi.
    #[arg(long, default_value = SHIPPED, value_name = "NAME")]
    flavour: String,
    #[command(flatten)]
    arch: ArchArgs,
    /// The whole command line of the kernel.
    #[arg(long, default_value = uki::CMDLINE, value_name = "TEXT")]
    cmdline: String,
    /// A word to add to the command line. Can be repeated.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// The stub to use instead of systemd's.
    #[arg(long, value_name = "FILE")]
    stub: Option<PathBuf>,
    /// Write it to FILE instead of the product directory.
    #[arg(short, long, value_name = "FILE", conflicts_with = "all")]
    output: Option<PathBuf>,
    /// Pack one for every flavour.
    #[arg(long, conflicts_with = "flavour")]
    all: bool,
}

impl UkiArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = if self.all { global.layout()? } else { global.products()? };
        let layout = layout.for_arch(self.arch.arch);
        let words = std::iter::once(self.cmdline).chain(self.append).collect::<Vec<_>>();
        let flavours = if self.all { recipe::known(&layout) } else { vec![self.flavour] };
        let (mut names, mut parts) = (Vec::new(), Vec::new());
        for flavour in flavours {
            let options = uki::Options { flavour, cmdline: words.join(" "), stub: self.stub.clone() };
            let made = uki::pack(&layout, &options)?;
            parts.push(made.part().clone());
            if let Some(path) = &self.output {
                made.write(path)?;
                let size = bytes(made.image().len() as u64);
                return global.print(made.part(), || format!("{} {size}", path.display()));
            }
            names.push(made.install(&layout)?);
        }
        print_made(global, &parts, || products(&Manifest::read(&layout), &names))
    }
}
