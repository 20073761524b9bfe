//! Room in the cache: what can go, and in which order.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ::images::image::{self, Made};
use pods::run::quantity;
use registry::{Kept, Library};
use store::cache::Cache;

use crate::global::state;

/// What the cache may hold when nobody says otherwise.
const LIMIT: u64 = 20_000_000_000;
/// The variable that says otherwise.
const LIMIT_VARIABLE: &str = "PITH_CACHE_LIMIT";

/// What the cache may hold.
pub(super) fn limit() -> anyhow::Result<u64> {
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
pub(super) fn make_room(cache: &Cache, limit: u64, before: SystemTime) -> anyhow::Result<Removed> {
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
pub(super) fn in_use(library: &Library) -> BTreeSet<String> {
    let pods = state().pods().unwrap_or_default();
    let images = pods.iter().flat_map(|pod| &pod.containers).map(|container| &container.image);
    let all = images.flat_map(|image| library.find_all(image).unwrap_or_default());
    all.map(|kept| kept.digest).collect()
}

/// What was removed from the cache.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Removed {
    /// Names of images.
    pub(super) images: Vec<String>,
    /// How many disks.
    pub(super) disks: usize,
    /// What they took together.
    pub(super) bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
