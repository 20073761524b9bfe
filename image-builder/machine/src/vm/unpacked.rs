//! The initrd as an emulated guest gets it: unpacked.
//!
//! An emulated processor takes longer to unpack an initrd than for the rest of the boot. The host does it in milliseconds, and
//! once: the result is in the cache, by the digest of the packed file, so that all guests map the same pages of one file.
//! Promises a file that boots: if anything stands in the way, it is the packed one. Must never be asked for a guest under
//! KVM, which unpacks as fast as the host does.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use store::cache::Cache;
use store::digest::Digest;

/// The kind of the cache's entries, and the file in each.
const KIND: &str = "unpacked";
const NAME: &str = "initrd";
/// How zstd's frames begin, and archives that the kernel unpacks.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const CPIO: &[u8] = b"070701";
/// The largest archive that is unpacked here, in bytes. A packed file may be made to grow without end.
const LARGEST: u64 = 256 << 20;
/// How many unpacked archives are kept, and how long any is kept at least.
const KEPT: usize = 16;
const LEAST_AGE: Duration = Duration::from_secs(3600);

/// What an emulated guest boots for the initrd `packed`: the unpacked archive, or `packed` itself.
pub fn unpacked_initrd(packed: &Path) -> PathBuf {
    initrd(packed, super::host::cache_root().as_deref())
}

/// As [`unpacked_initrd`], with this cache.
fn initrd(packed: &Path, cache: Option<&Path>) -> PathBuf {
    let unpacked = cache.and_then(|root| kept(packed, &Cache::new(root.to_path_buf())));
    unpacked.unwrap_or_else(|| packed.to_path_buf())
}

fn kept(packed: &Path, cache: &Cache) -> Option<PathBuf> {
    let mut magic = [0; ZSTD.len()];
    File::open(packed).and_then(|mut file| file.read_exact(&mut magic)).ok().filter(|()| magic == ZSTD)?;
    let (key, _) = Digest::of_file(packed).ok()?;
    let entry = match cache.entry(KIND, &key) {
        Some(entry) => entry,
        None => {
            let work = cache.workspace().ok()?;
            let finished = work.path().join(KIND);
            fs::create_dir(&finished).ok()?;
            unpack(packed, &finished.join(NAME), LARGEST).ok()?;
            let entry = cache.publish(KIND, &key, &finished).ok()?;
            make_room(cache, KEPT, LEAST_AGE);
            entry
        }
    };
    Some(entry.join(NAME))
}

/// Removes all but the `most` newest entries, as far as they are older than `age`: a guest may be about to boot a young one. One
/// that boots already has its file open.
fn make_room(cache: &Cache, most: usize, age: Duration) {
    let is_old = |entry: &PathBuf| {
        let made = fs::metadata(entry).and_then(|metadata| metadata.modified()).ok();
        made.and_then(|made| made.elapsed().ok()).is_some_and(|elapsed| elapsed >= age)
    };
    for entry in cache.entries(KIND).into_iter().skip(most).filter(is_old) {
        // What cannot be removed now is tried again.
        drop(fs::remove_dir_all(entry));
    }
}

fn unpack(packed: &Path, to: &Path, most: u64) -> io::Result<()> {
    let mut bytes = Vec::new();
    zstd::stream::Decoder::new(File::open(packed)?)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most || !bytes.starts_with(CPIO) {
        return Err(io::Error::other("no archive that is worth unpacking"));
    }
    File::create_new(to)?.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a file with these bytes: the path of what boots, and its content.
    fn of(bytes: &[u8], cache: Option<&Path>) -> (PathBuf, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("initrd.img");
        fs::write(&packed, bytes).unwrap();
        let boots = initrd(&packed, cache);
        let content = fs::read(&boots).unwrap();
        (packed, boots, content)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, 3).unwrap()
    }

    #[test]
    fn guests_share_one_unpacked_archive() {
        let cache = tempfile::tempdir().unwrap();
        let archive = [CPIO, &[b'x'; 5000]].concat();
        let (packed, first, content) = of(&zstd(&archive), Some(cache.path()));
        assert!(first != packed && first.starts_with(cache.path()), "{first:?}");
        assert_eq!(content, archive);
        assert_eq!(of(&zstd(&archive), Some(cache.path())).1, first);
        let (_, other, content) = of(&zstd(&[CPIO, b"other"].concat()), Some(cache.path()));
        assert!(other != first && content.ends_with(b"other"));
    }

    #[test]
    fn what_cannot_be_unpacked_boots_as_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let archive = [CPIO, &[b'x'; 50]].concat();
        let packed = zstd(&archive);
        let cut = &packed[..packed.len() - 3];
        for bytes in ["".as_bytes(), b"07", archive.as_slice(), zstd(b"no archive").as_slice(), cut] {
            let (packed, boots, _) = of(bytes, Some(cache.path()));
            assert_eq!(boots, packed, "{bytes:?}");
        }
        let (packed_path, boots, _) = of(&packed, None);
        assert_eq!(boots, packed_path, "there is no cache");
        let file = cache.path().join("file");
        fs::write(&file, "").unwrap();
        let (packed_path, boots, _) = of(&packed, Some(&file));
        assert_eq!(boots, packed_path, "the cache is no directory");
    }

    #[test]
    fn old_archives_make_room() {
        let dir = tempfile::tempdir().unwrap();
        for name in [b"one", b"two"] {
            of(&zstd(&[CPIO, name].concat()), Some(dir.path()));
        }
        let cache = Cache::new(dir.path().to_path_buf());
        make_room(&cache, 1, LEAST_AGE);
        assert_eq!(cache.entries(KIND).len(), 2, "they are young");
        let newest = cache.entries(KIND)[0].clone();
        make_room(&cache, 1, Duration::ZERO);
        assert_eq!(cache.entries(KIND), [newest]);
    }

    #[test]
    fn what_grows_too_large_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (packed, to) = (dir.path().join("packed"), dir.path().join("unpacked"));
        fs::write(&packed, zstd(&[CPIO, &[b'x'; 94]].concat())).unwrap();
        assert!(unpack(&packed, &to, 99).is_err() && !to.exists());
        unpack(&packed, &to, 100).unwrap();
        assert_eq!(fs::read(&to).unwrap().len(), 100);
    }
}
