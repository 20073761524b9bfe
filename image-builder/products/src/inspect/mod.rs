//! What is in an image, read from the image itself and not from what its manifest says.
//!
//! Owns the reading side of what is around file systems: initrds in every compression, disks with an MBR or a GPT, unified
//! kernel images. File systems themselves are read by `fs_image`. Promises that damaged or hostile input gives an error and
//! never more memory than the image could fill. Must never mount or write anything.

mod disk;
mod found;
mod initrd;
mod show;
mod uki;

use std::io;
use std::path::{Path, PathBuf};

use fs_image::{ReadError, erofs, ext4};

pub use found::{Inspection, Partition, Section};
pub use fs_image::Entry;
use initrd::InitrdError;
pub use show::tree;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is of no kind that is known.
    #[error(
        "{0} is neither a cpio archive, compressed or not, nor a disk with partitions, an EROFS or ext4 file system or a unified kernel image"
    )]
    Unknown(PathBuf),
    /// It is damaged.
    #[error("{path}: {what} at byte {offset} is not what it should be")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// Where, in what was unpacked.
        offset: u64,
    },
    /// It cannot be unpacked.
    #[error("cannot unpack {path}, which looks like {format}")]
    Unpack {
        /// The file.
        path: PathBuf,
        /// The compression.
        format: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Where a kernel for PCs has its mark (the kernel's boot protocol).
const KERNEL_MARK: std::ops::Range<usize> = 0x202..0x206;

/// Reads an image.
///
/// # Errors
/// When it cannot be read, is of no known kind, or is damaged.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let bytes =
        std::fs::read(path).map_err(|source| InspectError::Read { path: path.to_path_buf(), source })?;
    let damaged =
        |ReadError { what, offset }| InspectError::Damaged { path: path.to_path_buf(), what, offset };
    let mut found = Inspection { size: bytes.len() as u64, ..Inspection::default() };
    if erofs::is(&bytes) {
        found.kind = "EROFS".to_owned();
        found.entries = erofs::read(&bytes).map_err(damaged)?;
        return Ok(found);
    }
    if ext4::is(&bytes)
        && let Ok(entries) = ext4::read(&bytes)
    {
        // The mark alone may be chance.
        return Ok(Inspection { kind: "ext4".to_owned(), entries, ..found });
    }
    // The heads of programs and kernels would do for an MBR.
    let unified = uki::read(&bytes);
    if unified.is_none()
        && bytes.get(KERNEL_MARK).is_none_or(|mark| mark != b"HdrS")
        && let Some(found) = disk::read(&bytes).map_err(damaged)?
    {
        return Ok(found);
    }
    let archive = unified.as_ref().map_or(&bytes[..], |(_, archive)| archive);
    let read = initrd::read(archive).map_err(|error| match error {
        InitrdError::Unknown => InspectError::Unknown(path.to_path_buf()),
        InitrdError::Damaged(damage) => damaged(damage),
        InitrdError::Unpack(format, source) => {
            InspectError::Unpack { path: path.to_path_buf(), format, source }
        }
    })?;
    let is_plain = read.formats.iter().all(|format| *format == "none");
    let kind = kind(&read.formats);
    found.entries = read.entries;
    if let Some((sections, _)) = unified {
        found.kind = format!("unified kernel image with {kind}");
        found.sections = sections;
    } else {
        found.kind = kind;
        found.unpacked = (!is_plain).then_some(read.unpacked);
    }
    Ok(found)
}

/// What an initrd is, by how its parts are compressed.
fn kind(formats: &[&'static str]) -> String {
    let mut words: Vec<&str> =
        formats.iter().map(|format| if *format == "none" { "not compressed" } else { format }).collect();
    words.dedup();
    format!("initrd ({})", words.join(", then "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compress::{Compression, compress};
    use crate::format::{label, pe};
    use fs_image::entry::{BLOCK, CHARACTER, TYPE};
    use fs_image::{Inode, Kind, Tree, cpio};

    fn sample() -> fs_image::Tree {
        fs_image::sample::sample().unwrap()
    }

    fn on_erofs() -> Vec<u8> {
        let disk = tempfile::NamedTempFile::new().unwrap();
        erofs::write(&sample(), [1; 16], disk.as_file()).unwrap();
        std::fs::read(disk.path()).unwrap()
    }

    /// What a reader must see of the sample tree.
    fn expected() -> Vec<(String, u32, u64, Option<String>)> {
        let entry = |path: &str, mode, size, target: Option<&str>| {
            (path.to_owned(), mode, size, target.map(str::to_owned))
        };
        vec![
            entry("/bin", 0o040_755, 0, None),
            entry("/bin/sh", 0o120_777, 0, Some("busybox")),
            entry("/dev", 0o040_755, 0, None),
            entry("/dev/console", 0o020_600, 0, Some("5:1")),
            entry("/disk", 0o060_660, 0, Some("254:3")),
            entry("/etc", 0o040_755, 0, None),
            entry("/etc/empty", 0o100_644, 0, None),
            entry("/init", 0o100_755, 1025, None),
            entry("/pipe", 0o010_640, 0, None),
            entry("/tmp", 0o041_777, 0, None),
        ]
    }

    fn brief(inspection: &Inspection) -> Vec<(String, u32, u64, Option<String>)> {
        let entries = inspection.entries.iter();
        entries.map(|e| (e.path.clone(), e.mode, e.size, e.target.clone())).collect()
    }

    fn written(bytes: &[u8]) -> Result<Inspection, InspectError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        inspect(file.path())
    }

    #[test]
    fn an_initrd_shows_its_tree_however_it_is_compressed() {
        let archive = cpio::archive(&sample()).unwrap();
        for compression in
            [Compression::None, Compression::Zstd, Compression::Gzip, Compression::Lz4, Compression::Xz]
        {
            let found = written(&compress(&archive, compression).unwrap()).unwrap();
            assert_eq!(brief(&found), expected(), "{compression}");
            let whole = (compression != Compression::None).then_some(archive.len() as u64);
            assert_eq!(found.unpacked, whole);
        }
    }

    /// An archive of one file.
    fn one(path: &str, content: &[u8]) -> Vec<u8> {
        let mut tree = Tree::new();
        tree.insert(path, Inode::new(0o600, Kind::File(content.to_vec().into()))).unwrap();
        cpio::archive(&tree).unwrap()
    }

    #[test]
    fn an_initrd_of_several_archives_is_read_as_the_kernel_unpacks_it() {
        let microcode = one("/kernel/x86/microcode/AuthenticAMD.bin", &[1; 700]);
        let (main, later) = (one("/init", b"first"), one("/init", b"the second"));
        let packed = |bytes: &[u8], compression| compress(bytes, compression).unwrap();
        for compression in [Compression::Zstd, Compression::Gzip, Compression::Lz4, Compression::Xz] {
            // Microcode, the initrd, zeros up to a block, and one that a boot loader appended.
            let mut image = [&microcode[..], &packed(&main, compression)].concat();
            image.resize(image.len().next_multiple_of(512), 0);
            image.extend(packed(&later, Compression::Gzip));
            let found = written(&image).unwrap();
            let files: Vec<_> =
                found.entries.iter().filter(|e| e.size > 0).map(|e| (e.path.as_str(), e.size)).collect();
            assert_eq!(
                files,
                [("/init", 10), ("/kernel/x86/microcode/AuthenticAMD.bin", 700)],
                "{compression}"
            );
            let then = if compression == Compression::Gzip {
                "gzip".into()
            } else {
                format!("{compression}, then gzip")
            };
            assert_eq!(found.kind, format!("initrd (not compressed, then {then})"));
            let all = microcode.len() + main.len() + later.len();
            assert_eq!(found.unpacked, Some(all as u64), "{compression}");
        }
        // Streams without anything between them, and archives inside one stream.
        let twice = [packed(&main, Compression::Zstd), packed(&later, Compression::Zstd)].concat();
        assert_eq!(written(&twice).unwrap().entries.last().unwrap().size, 10);
        let inside = packed(&[&main[..], &[0; 8], &later].concat(), Compression::Xz);
        assert_eq!(written(&inside).unwrap().entries.last().unwrap().size, 10);
        assert_eq!(
            written(&[&main[..], &[0; 512], &later].concat()).unwrap().kind,
            "initrd (not compressed)"
        );
    }

    #[test]
    fn what_the_kernel_stops_at_behind_an_archive_is_named() {
        let main = one("/init", b"first");
        let error = written(&[&main[..], b"junk"].concat()).unwrap_err();
        assert!(
            matches!(error, InspectError::Damaged { offset, .. } if offset == main.len() as u64),
            "{error}"
        );
        let error =
            written(&compress(&[&main[..], b"junk"].concat(), Compression::Zstd).unwrap()).unwrap_err();
        assert!(matches!(error, InspectError::Damaged { .. }), "{error}");
        let error = written(&[&main[..], b"BZh91AY"].concat()).unwrap_err();
        assert!(matches!(error, InspectError::Unpack { format: "bzip2", .. }), "{error}");
    }

    #[test]
    fn a_file_system_shows_the_same_tree() {
        let found = written(&on_erofs()).unwrap();
        assert_eq!(brief(&found), expected());
    }

    /// On a disk and by itself. Which device a node is of cannot be told.
    #[test]
    fn an_ext4_shows_the_same_tree() {
        let file = tempfile::NamedTempFile::new().unwrap();
        if let Err(error) = ext4::write(&sample(), [1; 16], 0, file.path()) {
            assert!(matches!(error, fs_image::WriteError::Missing { .. }), "{error}");
            return eprintln!("skipped: mke2fs (package e2fsprogs) is not installed");
        }
        let bytes = std::fs::read(file.path()).unwrap();
        let mut expected = expected();
        for (_, mode, _, target) in &mut expected {
            if matches!(*mode & TYPE, CHARACTER | BLOCK) {
                *target = None;
            }
        }
        let found = written(&bytes).unwrap();
        assert_eq!((brief(&found), found.kind.as_str()), (expected.clone(), "ext4"));
        let mut disk = label::mbr(7, &[label::Extent { start: label::ALIGNMENT, len: label::ALIGNMENT }])
            .unwrap()
            .to_vec();
        disk.resize(label::ALIGNMENT as usize, 0);
        disk.extend_from_slice(&bytes);
        disk.resize(2 * label::ALIGNMENT as usize, 0);
        let found = written(&disk).unwrap();
        assert_eq!((brief(&found), found.partitions[0].content.as_str()), (expected, "ext4"));
        for at in (1024..bytes.len()).step_by(1009) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _answer = written(&damaged);
        }
    }

    #[test]
    fn a_unified_image_shows_its_sections_and_the_tree_of_its_initrd() {
        let archive = compress(&cpio::archive(&sample()).unwrap(), Compression::Zstd).unwrap();
        let parts: [(&str, &[u8]); 3] =
            [(".cmdline", b"quiet\0"), (".linux", b"a kernel"), (".initrd", &archive)];
        let found = written(&pe::with_sections(&pe::tests::tiny(), &parts).unwrap()).unwrap();
        assert_eq!(found.kind, "unified kernel image with initrd (zstd)");
        assert_eq!(brief(&found), expected());
        let seen: Vec<_> =
            found.sections.iter().map(|s| (s.name.as_str(), s.size, s.text.as_deref())).collect();
        let initrd = (".initrd", archive.len() as u64, None);
        assert_eq!(seen[seen.len() - 3..], [(".cmdline", 6, Some("quiet")), (".linux", 8, None), initrd]);
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let mut kernel = [1; 8192];
        kernel[510..512].copy_from_slice(&[0x55, 0xaa]);
        kernel[KERNEL_MARK].copy_from_slice(b"HdrS");
        for bytes in [&b""[..], b"hello", &[0; 8192], &kernel] {
            assert!(matches!(written(bytes), Err(InspectError::Unknown(_))));
        }
        assert!(matches!(
            written(b"\x28\xb5\x2f\xfdnonsense"),
            Err(InspectError::Unpack { format: "zstd", .. })
        ));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// A byte anywhere may be anything: the reader answers, and stays within the image.
        #[test]
        fn damage_is_survived(at in 0usize..40_000, value: u8) {
            let archive = cpio::archive(&sample()).unwrap();
            let parts: [(&str, &[u8]); 2] = [(".linux", b"a kernel"), (".initrd", &archive)];
            let unified = pe::with_sections(&pe::tests::tiny(), &parts).unwrap();
            for mut bytes in [on_erofs(), archive, unified] {
                let at = at % bytes.len();
                bytes[at] = value;
                let _answer = written(&bytes);
            }
        }
    }
}
