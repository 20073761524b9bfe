//! Packs a flavour into an initrd: the tree as a cpio archive, compressed.
//!
//! Promises that an archive that was compressed before is not compressed again: it is what takes longest. Must never need root.

use fs_image::cpio;

use crate::format::compress::{Compression, compress};
use crate::install::Packed;
use crate::manifest::InitrdPart;
pub use crate::pack::epoch;
use crate::pack::{PackError, Ready, Size, pack as pack_recipe};
use crate::recipe::Choice;
use store::cache::{self, Cache};
use store::digest::Digest;
use store::layout::Layout;
use store::product::Product;

/// What to pack and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe.
    pub flavour: Choice,
    /// How to compress.
    pub compression: Compression,
    /// The time of every entry.
    pub epoch: u32,
    /// Pack twice and compare.
    pub twice: bool,
    /// Where what was compressed before is found again.
    pub cache: Option<Cache>,
}

/// A packed initrd, not yet written.
pub type Initrd = Packed<InitrdPart>;

/// Packs an initrd.
///
/// # Errors
/// As they come; [`PackError::Budget`] names the largest files.
pub fn pack(layout: &Layout, options: &Options) -> Result<Initrd, PackError> {
    let Options { flavour, compression, epoch, twice, cache } = options;
    let cache = cache.as_ref().filter(|_| !twice);
    let name = Product::initrd(&flavour.name()).file_name(layout.arch());
    pack_recipe(layout, flavour, *epoch, *twice, |Ready { recipe, tree, entries }| {
        let advice = "; a disk may hold what an initrd cannot, and `attributes = false` at an [[image]] of the recipe leaves \
                      its extended attributes out";
        let archive = cpio::archive(tree).map_err(|source| PackError::Tree {
            product: name.clone(),
            advice,
            source,
        })?;
        let image = match cache {
            Some(cache) => compressed_once(&archive, *compression, cache)?,
            None => compressed(&archive, *compression)?,
        };
        let part = InitrdPart {
            flavour: flavour.name(),
            arch: layout.arch(),
            recipe_sha256: recipe.digest(),
            compression: compression.to_string(),
            source_date_epoch: *epoch,
            unpacked_size: archive.len() as u64,
            packages: recipe.packages(layout)?,
            entries,
        };
        // The budget is about what ships, which is the default compression; the others trade size for something else.
        let budget = recipe.budget(layout.arch()).filter(|_| *compression == Compression::default());
        let size = budget.map(|budget| Size { bytes: image.len() as u64, budget, key: "compressed" });
        Ok((Packed { name: name.clone(), image, beside: None, part }, size))
    })
}

fn compressed(archive: &[u8], compression: Compression) -> Result<Vec<u8>, PackError> {
    compress(archive, compression).map_err(|source| PackError::Compress { compression, source })
}

/// As [`compressed`], unless the cache has it.
fn compressed_once(archive: &[u8], compression: Compression, cache: &Cache) -> Result<Vec<u8>, PackError> {
    const KIND: &str = "initrd";
    let name = compression.to_string();
    let writer = crate::format::compress::WRITER;
    let key = Digest::of_parts([("writer", writer), ("format", name.as_bytes()), ("archive", archive)]);
    if let Some(image) = cache.entry(KIND, &key).and_then(|entry| std::fs::read(entry.join("image")).ok()) {
        return Ok(image);
    }
    let image = compressed(archive, compression)?;
    let work = cache.workspace()?;
    let entry = work.path().join("entry");
    cache::write_atomically(&entry.join("image"), &image)?;
    cache.publish(KIND, &key, &entry)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::cpio::newc;

    use super::*;
    use crate::manifest::Manifest;

    /// Entries as another reader sees them.
    fn read(mut archive: &[u8]) -> Vec<newc::Entry> {
        let mut seen = Vec::new();
        loop {
            let reader = newc::Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                return seen;
            }
            seen.push(reader.entry().clone());
            archive = reader.finish().unwrap();
        }
    }

    /// The shipped recipe with a made-up agent of `size` bytes that do not compress.
    fn layout(dir: &Path, size: usize) -> Layout {
        let shipped = Layout::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), None);
        let layout = Layout::new(dir.into(), None);
        let recipe = std::fs::read(shipped.flavour("minimal")).unwrap();
        cache::write_atomically(&layout.flavour("minimal"), &recipe).unwrap();
        let mut seed = 1_u64;
        let mut noise = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        };
        let agent: Vec<_> = (0..size).map(|_| noise()).collect();
        cache::write_atomically(&layout.agent(), &agent).unwrap();
        layout
    }

    fn options(compression: Compression) -> Options {
        Options { flavour: "minimal".into(), compression, epoch: 1_234_567, twice: true, cache: None }
    }

    #[test]
    fn what_was_compressed_before_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), 1000);
        let cache = Cache::new(dir.path().join("cache"));
        let options = Options { twice: false, cache: Some(cache.clone()), ..options(Compression::Zstd) };
        let image = pack(&layout, &options).unwrap().image;
        let [entry] = &cache.entries("initrd")[..] else { panic!("one entry") };
        assert!(std::fs::read(entry.join("image")).unwrap() == image);
        // Only what comes out of the cache can be told from what is packed anew.
        std::fs::write(entry.join("image"), "kept").unwrap();
        Cache::reseal(entry).unwrap();
        assert_eq!(pack(&layout, &options).unwrap().image, b"kept");
        assert!(pack(&layout, &Options { twice: true, ..options.clone() }).unwrap().image == image);
        assert!(pack(&layout, &Options { epoch: 1, ..options }).unwrap().image != b"kept");
    }

    #[test]
    fn a_cache_entry_that_was_cut_short_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), 1000);
        let cache = Cache::new(dir.path().join("cache"));
        let options = Options { twice: false, cache: Some(cache.clone()), ..options(Compression::Zstd) };
        let image = pack(&layout, &options).unwrap().image;
        for length in [0, 1, image.len() as u64 - 1] {
            let [entry] = &cache.entries("initrd")[..] else { panic!("one entry") };
            let file = std::fs::File::options().write(true).open(entry.join("image")).unwrap();
            file.set_len(length).unwrap();
            assert!(pack(&layout, &options).unwrap().image == image, "cut to {length}");
        }
    }

    #[test]
    fn the_minimal_flavour_has_what_a_boot_needs() {
        let dir = tempfile::tempdir().unwrap();
        let initrd = pack(&layout(dir.path(), 1000), &options(Compression::None)).unwrap();
        let seen = read(initrd.image());
        let find = |name: &str| seen.iter().find(|entry| entry.name() == name).expect(name);
        assert_eq!((find("init").mode(), find("init").file_size()), (0o100_755, 1000));
        let console = find("dev/console");
        assert_eq!((console.mode(), console.rdev_major(), console.rdev_minor()), (0o020_600, 5, 1));
        for name in ["dev", "proc", "sys", "run", "etc"] {
            assert_eq!(find(name).mode() & 0o170_000, 0o040_000, "{name}");
        }
        assert_eq!(find("tmp").mode(), 0o041_777);
        assert!(seen.iter().all(|entry| entry.mtime() == 1_234_567));
        assert_eq!(initrd.part().unpacked_size, initrd.image().len() as u64);
        assert_eq!(initrd.part().entries.len(), seen.len());
    }

    #[test]
    fn built_in_two_places_it_is_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for compression in
            [Compression::Zstd, Compression::Gzip, Compression::Lz4, Compression::Xz, Compression::None]
        {
            let images = [&one, &two].map(|dir| {
                let layout = layout(dir.path(), 50_000);
                pack(&layout, &options(compression)).unwrap().install(&layout).unwrap();
                (std::fs::read(layout.initrd()).unwrap(), std::fs::read(layout.manifest()).unwrap())
            });
            assert!(images[0] == images[1], "{compression} differs");
        }
        let manifest = Manifest::read(&Layout::new(one.path().into(), None));
        let init = manifest.initrd.unwrap().entries.into_iter().find(|entry| entry.path == "/init").unwrap();
        assert_eq!((init.size, init.mode.as_str()), (Some(50_000), "0755"));
        assert!(manifest.products.contains_key("initrd.img"));
    }

    #[test]
    fn another_flavour_stands_beside_the_one_that_ships() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), 1000);
        let recipe = "description = 'd'\nextends = 'minimal'\n[budget]\ncompressed = 99999\n";
        cache::write_atomically(&layout.flavour("more"), recipe.as_bytes()).unwrap();
        pack(&layout, &options(Compression::Zstd)).unwrap().install(&layout).unwrap();
        let more = Options { flavour: "more".into(), ..options(Compression::Zstd) };
        let more = pack(&layout, &more).unwrap();
        assert_eq!(more.install(&layout).unwrap(), "initrd-more.img");
        let manifest = Manifest::read(&layout);
        assert_eq!(manifest.initrd.unwrap().flavour, "minimal");
        assert_eq!(manifest.flavours["more"].flavour, "more");
        assert_eq!(manifest.products.len(), 2);
        std::fs::remove_file(layout.flavour_initrd("more")).unwrap();
        Manifest::update(&layout, |_| Ok(())).unwrap();
        assert!(Manifest::read(&layout).flavours.is_empty());
        let file = dir.path().join("elsewhere/x.img");
        more.write(&file).unwrap();
        assert_eq!(std::fs::read(file).unwrap(), more.image());
    }

    #[test]
    fn over_budget_names_the_largest_files_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path(), 2_600_000);
        let error = pack(&layout, &options(Compression::Zstd)).unwrap_err().to_string();
        assert!(error.contains("over its budget of 2.00 MB") && error.contains("2.60 MB  /init"), "{error}");
        assert!(!layout.initrd().exists());
        assert!(pack(&layout, &options(Compression::None)).is_ok(), "uncompressed images are for tests");
    }

    #[test]
    fn the_epoch_is_a_number_or_nothing() {
        assert_eq!(epoch(None).unwrap(), 0);
        assert_eq!(epoch(Some("".into())).unwrap(), 0);
        assert_eq!(epoch(Some("1700000000".into())).unwrap(), 1_700_000_000);
        for bad in ["now", "-1", "4294967296", "1 "] {
            assert!(epoch(Some(bad.into())).is_err(), "{bad}");
        }
    }
}
