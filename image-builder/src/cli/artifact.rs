//! `image-builder artifact`, `push` and `pull`.

use std::path::PathBuf;

use clap::Args;
use image_builder::artifact::{self, Guest, Limits, Reference};
use pods::run::quantity;
use store::progress::bytes;

use super::global::Global;

/// `image-builder artifact`.
#[derive(Debug, Args)]
pub(crate) struct ArtifactArgs {
    /// The directory for the layout. It must be empty or not exist.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// `image-builder push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The target: host[:port]/path:tag.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    transport: Transport,
}

/// `image-builder pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The artifact: host[:port]/path@sha256:…, or with a tag.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// The largest total size of its files, for example 1Gi [default: 16Gi].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    max_size: Option<u64>,
    #[command(flatten)]
    transport: Transport,
}

/// How to speak to the registry.
#[derive(Debug, Clone, Copy, Args)]
struct Transport {
    /// Use http without TLS, also for registries on other hosts.
    #[arg(long)]
    plain_http: bool,
}

impl ArtifactArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.found()?;
        let guest = Guest::pack(&layout)?;
        guest.write_layout(&layout, &self.dir)?;
        report(global, &guest, &self.dir.display().to_string())
    }
}

impl PushArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.found()?;
        let _step = global.progress().step(&format!("push {}", self.reference), None);
        let pushed = artifact::push(&layout, &self.reference, self.transport.plain_http).await?;
        global.print(&pushed, || {
            let (uploaded, present) = (pushed.uploaded, pushed.present);
            format!("{}: {uploaded} blobs uploaded, {present} were there", pushed.reference)
        })
    }
}

impl PullArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.products()?;
        let _step = global.progress().step(&format!("pull {}", self.reference), None);
        let usual = Limits::default();
        let limits = Limits { bytes: self.max_size.unwrap_or(usual.bytes), ..usual };
        let plain_http = self.transport.plain_http;
        let guest = artifact::pull(&self.reference, layout.out(), plain_http, limits).await?;
        report(global, &guest, &layout.out().display().to_string())
    }
}

fn report(global: &Global, guest: &Guest, place: &str) -> anyhow::Result<()> {
    let size: u64 = guest.files().iter().map(|file| file.size).sum();
    let digest = format!("sha256:{}", guest.digest());
    let value = serde_json::json!({"digest": digest, "files": guest.files().len(), "size": size});
    global.print(&value, || format!("{digest}: {} files, {} in {place}", guest.files().len(), bytes(size)))
}
