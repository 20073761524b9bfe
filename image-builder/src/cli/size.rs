//! `image-builder size`.

use std::path::PathBuf;

use clap::Args;
use products::{inspect, size};
use store::cache;
use store::progress::bytes;

use super::global::Global;

/// `image-builder size`.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// An initrd, a disk, an EROFS or ext4 file system or a unified kernel image [default: OUT/initrd.img].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Draw a treemap into FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How many of the largest files to list.
    #[arg(long, default_value_t = 10, value_name = "N")]
    largest: usize,
}

impl SizeArgs {
    /// Runs the command.
    pub(crate) fn execute(self, global: &Global) -> anyhow::Result<()> {
        let file = match self.file {
            Some(file) => file,
            None => global.found()?.initrd(),
        };
        let inspection = inspect::inspect(&file)?;
        let weight = size::of_entries(&inspection.entries);
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(path) = &self.svg {
            let svg = size::draw(&format!("{name}, its files"), &weight);
            cache::write_atomically(path, svg.as_bytes())?;
        }
        let mut files: Vec<_> = inspection.entries.iter().filter(|entry| entry.size > 0).collect();
        files.sort_by(|a, b| b.size.cmp(&a.size).then(a.path.cmp(&b.path)));
        files.truncate(self.largest);
        let json = serde_json::json!({
            "file": file,
            "kind": inspection.kind,
            "size": inspection.size,
            "content": weight.total(),
            "largest": files,
        });
        global.print(&json, || {
            let mut text = format!(
                "{name}: {}, {}; its files have {}",
                inspection.kind,
                bytes(inspection.size),
                bytes(weight.total())
            );
            for entry in &files {
                text += &format!("\n{:>10}  {}", bytes(entry.size), entry.path);
            }
            text
        })
    }
}
