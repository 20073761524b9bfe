//! `image-builder disk`.

use std::path::PathBuf;

use clap::Args;
use products::disk::{self, FileSystem, Form};
use products::manifest::Manifest;
use products::recipe::Choice;
use products::{initrd, recipe};

use super::build::{ChoiceArgs, build_agent, print_made, products};
use super::global::{ArchArgs, Global};

/// `image-builder disk`.
#[derive(Debug, Args)]
pub(crate) struct DiskArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    arch: ArchArgs,
    /// The layout of the disk.
    #[arg(long, value_enum, default_value_t)]
    form: Form,
    /// The file system of its root.
    #[arg(long, value_enum, default_value_t)]
    root_fs: FileSystem,
    /// Pack it twice, and fail if the two results differ.
    #[arg(long)]
    check: bool,
    /// Write it to FILE instead of the product directory, and its words for the kernel's command line to a file beside
    /// it.
    #[arg(short, long, value_name = "FILE", conflicts_with = "all")]
    output: Option<PathBuf>,
    /// Pack every flavour in every form, and also in Kata's form with ext4.
    #[arg(long, conflicts_with_all = ["flavour", "recipe", "form", "root_fs"])]
    all: bool,
}

impl DiskArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.layout()?.for_arch(self.arch.arch);
        let epoch = initrd::epoch(std::env::var_os("SOURCE_DATE_EPOCH"))?;
        let (flavours, forms) = match self.all {
            true => (recipe::known(&layout).into_iter().map(Choice::from).collect(), disk::MADE.to_vec()),
            false => (vec![self.choice.choice()], vec![(self.form, self.root_fs)]),
        };
        let (mut names, mut parts) = (Vec::new(), Vec::new());
        for flavour in flavours {
            build_agent(&layout, &flavour, global.progress()).await?;
            for &(form, root_fs) in &forms {
                let flavour = flavour.clone();
                let options = disk::Options { flavour, form, root_fs, epoch, twice: self.check };
                let disk = disk::pack(&layout, &options)?;
                parts.push(disk.part().clone());
                match &self.output {
                    Some(path) => {
                        names.extend(disk.write(path)?.iter().map(|path| path.display().to_string()))
                    }
                    None => names.push(disk.install(&layout)?),
                }
            }
        }
        print_made(global, &parts, || match self.output {
            Some(_) => names.join("\n"),
            None => products(&Manifest::read(&layout), &names),
        })
    }
}
