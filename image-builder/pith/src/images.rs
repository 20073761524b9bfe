//! `pull`, `images`, `rmi`, `prune` and `image`. Also turns an `image:` of a manifest into a disk.
//!
//! Pulled images and disks are in the cache, which has a limit. After something was added, the entries that were unused for
//! longest are removed. Must never remove what a running image needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::images::image::{self, Ceiling, Made, parse_platform};
use anyhow::Context;
use clap::{Args, ValueEnum};
use pods::run::pod::Pull;
use pods::run::{Pod, quantity};
use registry::{Kept, Library, Limits, Reference};
use serde_json::json;
use store::arch::Arch;
use store::cache::Cache;
use store::progress::bytes;

use crate::global::{Global, columns, state};

/// What the cache may hold when nobody says otherwise.
const LIMIT: u64 = 20_000_000_000;
/// The variable that says otherwise.
const LIMIT_VARIABLE: &str = "PITH_CACHE_LIMIT";
/// Work that takes longer than this is shown.
const SHOWN_AFTER: Duration = Duration::from_millis(400);

/// When an image that has a name is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PullPolicy {
    /// Pull each time, to get the newest version.
    Always,
    /// Pull if the image is not in the cache.
    #[default]
    Missing,
    /// Never pull.
    Never,
}

/// How registries are spoken to, and what is taken from them.
#[derive(Debug, Clone, Default, Args)]
pub struct Fetching {
    /// Use http without TLS, also for registries on other hosts.
    #[arg(long)]
    pub plain_http: bool,
    /// The largest total size of the blobs of one image, for example 100Gi [default: 64Gi].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    pub max_size: Option<u64>,
    /// For which processors.
    #[command(flatten)]
    pub platform: PlatformArgs,
}

/// For which processors an image is wanted.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct PlatformArgs {
    /// Take the image for this platform: linux/amd64 or linux/arm64 [default: this host's; where there is none, another
    /// one, whose guest is emulated].
    #[arg(long = "platform", value_name = "OS/ARCH", value_parser = parse_platform)]
    pub arch: Option<Arch>,
}

/// How much an image may become.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Unpacking {
    /// The largest total size of the unpacked files of one image, for example 100Gi [default: 64Gi].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    max_unpacked: Option<u64>,
}

impl Unpacking {
    pub(crate) fn ceiling(&self) -> Ceiling {
        let usual = Ceiling::default();
        Ceiling { bytes: self.max_unpacked.unwrap_or(usual.bytes), ..usual }
    }
}

/// Fetches the image of this name, and shows how far that has come.
async fn fetch(name: &str, fetching: &Fetching, global: &Global) -> anyhow::Result<registry::Pulled> {
    let reference = Reference::of_image(name)?;
    let library = Library::new(&global.cache()?);
    let usual = Limits::default();
    let limits = Limits { bytes: fetching.max_size.unwrap_or(usual.bytes), ..usual };
    let mut step = global.progress().step(&format!("pull {reference}"), None);
    let tell = |moved: registry::Moved| step.say(&bytes(moved.bytes));
    let pulled =
        registry::pull(&reference, &library, fetching.platform.arch, fetching.plain_http, limits, tell)
            .await?;
    step.done(&format!("{}, {} fetched", short(&pulled.digest), bytes(pulled.fetched)));
    Ok(pulled)
}

/// The images of a pod that are not files here: what the manifest says, and where they are now.
pub(crate) async fn resolve(
    pod: &Pod,
    base: &Path,
    policy: Option<PullPolicy>,
    fetching: &Fetching,
    global: &Global,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for container in pod.all() {
        let image = &container.image;
        // What looks like a path is one, and whoever opens it says what is wrong with it.
        let is_path =
            image.starts_with(['/', '.']) || image::is_there(&base.join(image).display().to_string());
        if is_path || found.contains_key(image) {
            continue;
        }
        let policy = policy.unwrap_or_else(|| policy_of(pod, image));
        let source = source(image, policy, fetching, global)
            .await
            .with_context(|| format!("the image {image:?} of container {}", container.name))?;
        found.insert(image.clone(), source);
    }
    Ok(found)
}

/// When the manifest has this image pulled. Of containers that differ, the one counts that asks for the most.
fn policy_of(pod: &Pod, image: &str) -> PullPolicy {
    let wishes = pod.all().filter(|container| container.image == image);
    match wishes.map(|container| container.pull.unwrap_or(Pull::Missing)).max() {
        Some(Pull::Always) => PullPolicy::Always,
        Some(Pull::Missing) | None => PullPolicy::Missing,
        Some(Pull::Never) => PullPolicy::Never,
    }
}

async fn source(
    image: &str,
    policy: PullPolicy,
    fetching: &Fetching,
    global: &Global,
) -> anyhow::Result<String> {
    let library = Library::new(&global.cache()?);
    let arch = fetching.platform.arch;
    let known = library.find_for(image, arch)?;
    let kept = match (known, policy) {
        (Some(kept), PullPolicy::Missing | PullPolicy::Never) => kept,
        (None, PullPolicy::Never) => {
            Reference::of_image(image)?;
            let option = arch.map_or_else(String::new, |arch| format!("--platform linux/{} ", arch.debian()));
            anyhow::bail!(
                "there is no such file, and it was not pulled; `pith pull {option}{image}` fetches it"
            )
        }
        (_, PullPolicy::Always | PullPolicy::Missing) => {
            fetch(image, fetching, global).await?;
            library
                .find_for(image, arch)?
                .with_context(|| format!("{image} was removed while it was pulled; try again"))?
        }
    };
    library.touch(&kept);
    Ok(library.source(&kept))
}

/// What a container's image is called to whoever opens it.
pub(crate) fn reference_of(image: &str, base: &Path, sources: &BTreeMap<String, String>) -> String {
    sources.get(image).cloned().unwrap_or_else(|| base.join(image).display().to_string())
}

/// Makes the disks of a pod's images for an architecture, shows that when it takes long, and makes room for them in the cache.
pub(crate) async fn pack(
    pod: &Pod,
    base: &Path,
    sources: &BTreeMap<String, String>,
    arch: Arch,
    ceiling: Ceiling,
    global: &Global,
) -> anyhow::Result<()> {
    let mut done = std::collections::BTreeSet::new();
    for container in pod.all().filter(|container| done.insert(&container.image)) {
        let reference = reference_of(&container.image, base, sources);
        let made = make(reference, &container.image, arch, ceiling, global).await;
        made.with_context(|| format!("the image of container {}", container.name))?;
    }
    let cache = global.cache()?;
    let limit = limit()?;
    // Making room is for later runs; this one has what it needs.
    let room = move || make_room(&cache, limit, SystemTime::now() - Duration::from_secs(60));
    tokio::task::spawn_blocking(room).await.context("cannot make room in the cache")??;
    Ok(())
}

async fn make(
    reference: String,
    name: &str,
    arch: Arch,
    ceiling: Ceiling,
    global: &Global,
) -> anyhow::Result<image::Image> {
    let cache = global.cache()?;
    let mut work =
        tokio::task::spawn_blocking(move || image::prepare_for(&reference, Some(arch), &cache, ceiling));
    let in_time = tokio::time::timeout(SHOWN_AFTER, &mut work).await;
    let (result, step) = match in_time {
        Ok(result) => (result, None),
        Err(_) => {
            let step = global.progress().step(&format!("pack {name}"), None);
            (work.await, Some(step))
        }
    };
    let image = result.context("the packing stopped")??;
    if let Some(step) = step {
        step.done(&format!("a disk of {}", bytes(image.size)));
    }
    Ok(image)
}

/// What the cache may hold.
pub(crate) fn limit() -> anyhow::Result<u64> {
    match std::env::var(LIMIT_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            quantity::bytes(&text).map_err(|problem| anyhow::anyhow!("{LIMIT_VARIABLE}: {problem}"))
        }
        _ => Ok(LIMIT),
    }
}

/// Something in the cache that can go.
enum Piece {
    Disk(Made),
    Pulled(Kept),
}

/// Removes disks and images that were last used before `before`, the oldest first, until the cache holds at most `limit`
/// bytes. Answers what it removed.
fn make_room(cache: &Cache, limit: u64, before: SystemTime) -> anyhow::Result<Removed> {
    let library = Library::new(cache);
    let disks = image::made(cache);
    let mut total = library.size() + disks.iter().map(|disk| disk.bytes).sum::<u64>();
    let mut removed = Removed::default();
    if total <= limit {
        return Ok(removed);
    }
    let in_use = in_use(&library);
    let mut pieces: Vec<(SystemTime, Piece)> =
        disks.into_iter().map(|disk| (disk.used, Piece::Disk(disk))).collect();
    for kept in library.list()?.into_iter().filter(|kept| !in_use.contains(&kept.digest)) {
        pieces.push((library.used(&kept), Piece::Pulled(kept)));
    }
    pieces.retain(|(used, _)| *used < before);
    pieces.sort_by_key(|(used, _)| *used);
    let halfway = library.clean()?;
    (total, removed.bytes) = (total.saturating_sub(halfway), halfway);
    for (_, piece) in pieces {
        if total <= limit {
            break;
        }
        let freed = match piece {
            Piece::Disk(disk) => {
                image::discard(&disk, cache)?;
                removed.disks += 1;
                disk.bytes
            }
            Piece::Pulled(kept) => {
                removed.images.push(kept.reference.clone());
                library.remove(&kept)?
            }
        };
        (total, removed.bytes) = (total.saturating_sub(freed), removed.bytes + freed);
    }
    Ok(removed)
}

/// The digests of images that pods which run now were started from.
fn in_use(library: &Library) -> std::collections::BTreeSet<String> {
    let pods = state().pods().unwrap_or_default();
    let images = pods.iter().flat_map(|pod| &pod.containers).map(|container| &container.image);
    let all = images.flat_map(|image| library.find_all(image).unwrap_or_default());
    all.map(|kept| kept.digest).collect()
}

/// What was removed from the cache.
#[derive(Debug, Default, serde::Serialize)]
struct Removed {
    images: Vec<String>,
    disks: usize,
    bytes: u64,
}

/// `sha256:` and the first twelve digits.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The images, such as nginx, ghcr.io/owner/name:tag or localhost:5000/name@sha256:DIGEST.
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    fetching: Fetching,
}

impl PullArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// As those of the registry.
    pub async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let mut pulled = Vec::new();
        for image in &self.images {
            pulled.push(fetch(image, &self.fetching, global).await.with_context(|| format!("pull {image}"))?);
        }
        let lines = || {
            let line = |one: &registry::Pulled| format!("{}@{}", one.reference, one.digest);
            pulled.iter().map(line).collect::<Vec<_>>().join("\n")
        };
        global.print(&pulled, lines)
    }
}

/// Arguments of `images`.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Also list the disks that were made from pulled images and from files.
    #[arg(short, long)]
    all: bool,
    /// Print only the names.
    #[arg(short, long, conflicts_with = "all")]
    quiet: bool,
}

impl ImagesArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn execute(self, global: &Global) -> anyhow::Result<()> {
        let cache = global.cache()?;
        let library = Library::new(&cache);
        let (kept, disks, limit) = (library.list()?, image::made(&cache), limit()?);
        let of_disks: u64 = disks.iter().map(|disk| disk.bytes).sum();
        let total = library.size() + of_disks;
        let mut value = json!({
            "images": kept, "cache": {"path": cache.root(), "bytes": total, "pulled": library.size(),
            "disks": of_disks, "limit": limit},
        });
        if self.all {
            value["disks"] = serde_json::to_value(&disks)?;
        }
        global.print(&value, || {
            if self.quiet {
                return kept.iter().map(|one| one.reference.clone()).collect::<Vec<_>>().join("\n");
            }
            let mut rows = vec![["IMAGE", "DIGEST", "PLATFORM", "SIZE", "PULLED"].map(str::to_owned)];
            let platform = |arch: Option<Arch>| arch.map_or_else(String::new, |arch| arch.platform());
            let digest = |text: &str| text.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            rows.extend(kept.iter().map(|one| {
                let Kept { reference, bytes: size, pulled, arch, .. } = one;
                [reference.clone(), digest(&one.digest), platform(*arch), bytes(*size), ago(*pulled)]
            }));
            let mut text = columns(&rows);
            if self.all {
                let mut rows = vec![["DISK OF", "SIZE"].map(str::to_owned)];
                rows.extend(disks.iter().map(|disk| [disk.source.clone(), bytes(disk.bytes)]));
                text += &format!("\n\n{}", columns(&rows));
            }
            format!("{text}\n{} of {} in {}", bytes(total), bytes(limit), cache.root().display())
        })
    }
}

/// How long ago a time in seconds since 1970 was.
pub(crate) fn ago(time: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{} ago", span(now.saturating_sub(time)))
}

/// A number of seconds in words.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// The images, by name or by the beginning of the digest.
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Also remove images that running pods use.
    #[arg(short, long)]
    force: bool,
}

impl RmiArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such image, or when it is in use.
    pub fn execute(self, global: &Global) -> anyhow::Result<()> {
        let cache = global.cache()?;
        let library = Library::new(&cache);
        let in_use = in_use(&library);
        let mut removed = Removed::default();
        for name in &self.images {
            let all = library.find_all(name)?;
            anyhow::ensure!(!all.is_empty(), "{}", {
                let known = library.list().unwrap_or_default();
                let known: Vec<&str> = known.iter().map(|one| one.reference.as_str()).collect();
                let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
                format!("no image {name:?} was pulled; known: {known}")
            });
            // One name has an image for each architecture it was pulled for.
            for kept in all {
                anyhow::ensure!(
                    self.force || !in_use.contains(&kept.digest),
                    "a pod that runs was started from {}; stop it first, or use --force",
                    kept.reference
                );
                let source = library.source(&kept);
                let others = library.list()?.iter().filter(|one| one.digest == kept.digest).count();
                for disk in image::made(&cache).iter().filter(|disk| others == 1 && disk.source == source) {
                    image::discard(disk, &cache)?;
                    (removed.disks, removed.bytes) = (removed.disks + 1, removed.bytes + disk.bytes);
                }
                removed.bytes += library.remove(&kept)?;
                removed.images.push(kept.reference);
            }
        }
        global.print(&removed, || format!("{}\n{} freed", removed.images.join("\n"), bytes(removed.bytes)))
    }
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove all disks, and all images that no running pod uses.
    #[arg(short, long, conflicts_with = "limit")]
    all: bool,
    /// Remove until the cache is at most this large [default: PITH_CACHE_LIMIT, or 20G].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    limit: Option<u64>,
}

impl PruneArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the cache cannot be changed.
    pub fn execute(self, global: &Global) -> anyhow::Result<()> {
        let cache = global.cache()?;
        let most = match (self.all, self.limit) {
            (true, _) => 0,
            (false, Some(limit)) => limit,
            (false, None) => limit()?,
        };
        // What came halfway is of no use to anybody but the next pull of the same.
        let halfway = Library::new(&cache).clean()?;
        let mut removed = make_room(&cache, most, SystemTime::now() + Duration::from_secs(1))?;
        removed.bytes += halfway;
        global.print(&removed, || {
            format!(
                "{} images, {} disks removed; {} freed",
                removed.images.len(),
                removed.disks,
                bytes(removed.bytes)
            )
        })
    }
}

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// The image: a file or directory as docker, podman, skopeo, buildah, containerd or umoci save it, a root file
    /// system as a directory or a tar archive, or the name of a pulled image. If a file has several images, add `:NAME`
    /// or `@sha256:DIGEST`.
    reference: String,
    #[command(flatten)]
    platform: PlatformArgs,
    #[command(flatten)]
    unpacking: Unpacking,
}

impl ImageArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When it is no image, or a broken one.
    pub fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let cache = global.cache()?;
        let library = Library::new(&cache);
        let arch = self.platform.arch;
        let pulled =
            if image::is_there(&self.reference) { None } else { library.find_for(&self.reference, arch)? };
        let reference = pulled.map_or(self.reference, |kept| library.source(&kept));
        let image = image::prepare_for(&reference, arch, &cache, self.unpacking.ceiling())?;
        let value = json!({
            "disk": image.disk, "bytes": image.size, "cached": image.cached, "arch": image.arch, "config": image.config,
        });
        global.print(&value, || format!("{} ({} bytes)", image.disk.display(), image.size))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with disks of these directories.
    fn cache(names: &[&str]) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("cache"));
        for name in names {
            let root = dir.path().join(name);
            std::fs::create_dir(&root).unwrap();
            std::fs::write(root.join("file"), name).unwrap();
            image::prepare(&root.display().to_string(), &cache).unwrap();
        }
        (dir, cache)
    }

    #[test]
    fn room_is_made_by_what_was_not_used_for_longest() {
        let (dir, cache) = cache(&["one", "two", "three"]);
        let total: u64 = image::made(&cache).iter().map(|disk| disk.bytes).sum();
        let old = |name: &str, seconds: u64| {
            let disks = image::made(&cache);
            let disk = disks.iter().find(|disk| disk.source.ends_with(name)).unwrap();
            let time = SystemTime::now() - Duration::from_secs(seconds);
            std::fs::File::open(&disk.path).unwrap().set_modified(time).unwrap();
        };
        old("one", 300);
        old("two", 900);
        old("three", 600);
        // Being used again makes it young.
        image::prepare(&dir.path().join("two").display().to_string(), &cache).unwrap();
        let before = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(make_room(&cache, total, before).unwrap().disks, 0, "there is room");
        assert_eq!(make_room(&cache, total - 1, before).unwrap().disks, 1);
        let left: Vec<String> = image::made(&cache).into_iter().map(|disk| disk.source).collect();
        assert!(left.iter().all(|source| !source.ends_with("three")), "{left:?}");
        make_room(&cache, 0, before).unwrap();
        let left: Vec<String> = image::made(&cache).into_iter().map(|disk| disk.source).collect();
        assert!(left.len() == 1 && left[0].ends_with("two"), "what is used now stays: {left:?}");
    }

    #[test]
    fn the_manifest_says_when_an_image_is_pulled() {
        let of = |policies: &[&str]| {
            let containers: Vec<String> = policies
                .iter()
                .enumerate()
                .map(|(at, policy)| format!("{{name: c{at}, image: i, imagePullPolicy: {policy}}}"))
                .collect();
            let text = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{}]}}}}",
                containers.join(", ")
            );
            policy_of(&Pod::parse(&text).unwrap(), "i")
        };
        assert_eq!(of(&["Never"]), PullPolicy::Never);
        assert_eq!(of(&["IfNotPresent"]), PullPolicy::Missing);
        assert_eq!(of(&["Never", "Always", "IfNotPresent"]), PullPolicy::Always);
        assert_eq!(of(&["Never", "null"]), PullPolicy::Missing);
    }

    #[test]
    fn times_are_told_in_words() {
        assert_eq!([span(5), span(125), span(7300), span(200_000)], ["5 s", "2 min", "2 h", "2 days"]);
    }
}
