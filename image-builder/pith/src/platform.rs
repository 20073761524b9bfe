//! Which architecture a pod's guest has, and what this host needs to run it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::images::image::{self, Ceiling};
use anyhow::Context;
use pods::run::Pod;
use store::arch::Arch;

use crate::global::Global;
use crate::images::reference_of;

/// The architecture of the guest that runs a pod's images: what they are for, or what is `wanted`.
///
/// # Errors
/// When an image cannot be read, and when two are for different architectures: one guest runs them all.
pub(crate) async fn architecture(
    pod: &Pod,
    base: &Path,
    sources: &BTreeMap<String, String>,
    wanted: Option<Arch>,
    ceiling: Ceiling,
    global: &Global,
) -> anyhow::Result<Arch> {
    if let Some(wanted) = wanted {
        // Whoever makes the disks refuses what is for another.
        return Ok(wanted);
    }
    let mut found: Option<(&str, Arch)> = None;
    let mut done = BTreeSet::new();
    for container in pod.all().filter(|container| done.insert(&container.image)) {
        let (reference, cache) = (reference_of(&container.image, base, sources), global.cache()?);
        let work = move || image::arch_of(&reference, None, &cache, ceiling);
        let arch = tokio::task::spawn_blocking(work).await.context("the look at an image stopped")?;
        let arch = arch.with_context(|| format!("the image of container {}", container.name))?;
        match (found, arch) {
            (Some((other, its)), Some(arch)) if its != arch => anyhow::bail!(
                "{other} is an image for {its}, and {} is one for {arch}: all containers of a pod run in one guest. Take \
                 images of one architecture, or choose it with --platform",
                container.image
            ),
            (None, Some(arch)) => found = Some((&container.image, arch)),
            _ => {}
        }
    }
    Ok(found.map_or(Arch::host(), |(_, arch)| arch))
}

/// What to do about a product that is not there.
pub(crate) fn missing(path: &Path, arch: Arch) -> String {
    let option = if arch == Arch::host() { String::new() } else { format!(" --arch {arch}") };
    let guest = if option.is_empty() { String::new() } else { format!("the guest is for {arch}, and ") };
    format!("{guest}there is no {}; `image-builder build{option}` makes it", path.display())
}
