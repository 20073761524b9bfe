//! Writes a [`Tree`] as an EROFS file system: read-only, uncompressed, mountable without options.
//!
//! Promises that the same tree gives the same bytes, and that nothing needs privileges. The format is the one of
//! Linux 5.4 (no compression, no chunks), so that every kernel with EROFS reads it.
//!
//! ```text
//! block 0      1024 bytes of nothing, the superblock, nothing
//! block 1 ..   inodes in 32-byte slots: 64 bytes each, then extended attributes, then the tail of the content
//! then         whole blocks of content of files and directories
//! ```
//! An inode's number is the number of its first slot. Content is laid out *flat*: its whole blocks are contiguous,
//! and its last partial block follows the inode when that fits into the inode's block.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::spool::{Extent, Spool};
use super::tree::{Inode, InodeId, Kind, Tree};

const BLOCK: u64 = 4096;
const SLOT: u64 = 32;
const INODE: u64 = 64;
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Compatible features: the superblock has a checksum, inodes have times.
const FEATURES: u32 = 0x1 | 0x2;
/// Layouts of content.
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;

/// Why a tree could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErofsError {
    #[error("cannot write the file system")]
    Write(#[source] io::Error),
    #[error("the file name {0:?} is longer than 255 bytes")]
    Name(String),
    #[error("the extended attributes of one file take more than 64 KiB")]
    Attributes,
    #[error("the file system would be larger than 16 TiB")]
    TooLarge,
}

/// Where an inode and its content go.
#[derive(Debug)]
struct Place {
    source: InodeId,
    parent: usize,
    /// Names that lead here.
    names: u32,
    subdirectories: u32,
    attributes: Vec<u8>,
    size: u64,
    /// Byte offset of the inode from the start of the inode area.
    offset: u64,
    /// First whole block of content.
    block: u32,
    /// Whether the last partial block follows the inode.
    inline: bool,
}

impl Place {
    fn number(&self) -> u64 {
        self.offset / SLOT
    }

    /// Bytes of content in whole blocks of their own.
    fn outside(&self) -> u64 {
        if self.inline { self.size / BLOCK * BLOCK } else { self.size.next_multiple_of(BLOCK) }
    }
}

/// Writes `tree` to `out`; `uuid` names the file system.
pub(crate) fn write(tree: &Tree, spool: &Spool, uuid: [u8; 16], out: File) -> Result<(), ErofsError> {
    let (mut places, index) = collect(tree)?;
    let inode_blocks = lay_out_inodes(tree, &mut places).div_ceil(BLOCK);
    let mut next = 1 + inode_blocks;
    for place in &mut places {
        let blocks = place.outside() / BLOCK;
        place.block =
            if blocks == 0 { u32::MAX } else { u32::try_from(next).map_err(|_| ErofsError::TooLarge)? };
        next += blocks;
    }
    let blocks = u32::try_from(next).map_err(|_| ErofsError::TooLarge)?;

    let mut writer = Writer { out: BufWriter::with_capacity(1 << 20, out), at: 0 };
    writer.put(&superblock(&places, blocks, uuid)).map_err(ErofsError::Write)?;
    for place in &places {
        writer.pad_to(BLOCK + place.offset).map_err(ErofsError::Write)?;
        writer.put(&inode_bytes(tree.inode(place.source), place)).map_err(ErofsError::Write)?;
        writer.put(&place.attributes).map_err(ErofsError::Write)?;
        if place.inline {
            let whole = place.size / BLOCK * BLOCK;
            content(tree, spool, &places, &index, place, whole, place.size, &mut writer)
                .map_err(ErofsError::Write)?;
        }
    }
    for place in places.iter().filter(|place| place.outside() > 0) {
        writer.pad_to(u64::from(place.block) * BLOCK).map_err(ErofsError::Write)?;
        let end = place.outside().min(place.size);
        content(tree, spool, &places, &index, place, 0, end, &mut writer).map_err(ErofsError::Write)?;
    }
    writer.pad_to(u64::from(blocks) * BLOCK).map_err(ErofsError::Write)?;
    writer.out.flush().map_err(ErofsError::Write)
}

/// Finds every inode that has a name, the root first, breadth first.
fn collect(tree: &Tree) -> Result<(Vec<Place>, HashMap<InodeId, usize>), ErofsError> {
    let mut places: Vec<Place> = Vec::new();
    let mut index = HashMap::new();
    let mut queue = VecDeque::from([(InodeId::ROOT, 0)]);
    while let Some((id, parent)) = queue.pop_front() {
        if let Some(&known) = index.get(&id) {
            let place: &mut Place = &mut places[known];
            place.names += 1;
            continue;
        }
        let here = places.len();
        index.insert(id, here);
        let inode = tree.inode(id);
        let mut subdirectories = 0;
        for (name, child) in tree.names(id) {
            if name.len() > 255 {
                return Err(ErofsError::Name(String::from_utf8_lossy(name).into_owned()));
            }
            subdirectories += u32::from(is_directory(tree, child));
            queue.push_back((child, here));
        }
        let size = match &inode.kind {
            Kind::Directory(_) => directory_size(tree, id),
            Kind::File(extent) => extent.len,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let attributes = attribute_bytes(inode)?;
        places.push(Place {
            source: id,
            parent,
            names: 1,
            subdirectories,
            attributes,
            size,
            offset: 0,
            block: u32::MAX,
            inline: false,
        });
    }
    Ok((places, index))
}

fn is_directory(tree: &Tree, id: InodeId) -> bool {
    matches!(tree.inode(id).kind, Kind::Directory(_))
}

/// Gives every inode its slots; answers how many bytes they take.
fn lay_out_inodes(tree: &Tree, places: &mut [Place]) -> u64 {
    let mut at: u64 = 0;
    for place in places {
        let head = INODE + place.attributes.len() as u64;
        let has_content =
            matches!(tree.inode(place.source).kind, Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_));
        let tail = if has_content { place.size % BLOCK } else { 0 };
        // The tail must not cross into another block; neither does the inode itself, for the readers' ease.
        let block_left = BLOCK - at % BLOCK;
        if tail > 0 && head + tail <= BLOCK {
            place.inline = true;
            if head + tail > block_left {
                at += block_left;
            }
        } else if INODE > block_left {
            at += block_left;
        }
        place.offset = at;
        at += (head + if place.inline { tail } else { 0 }).next_multiple_of(SLOT);
    }
    at
}

fn inode_bytes(inode: &Inode, place: &Place) -> [u8; INODE as usize] {
    let (file_type, detail) = match &inode.kind {
        Kind::Directory(_) => (0o040_000, place.block),
        Kind::File(_) => (0o100_000, place.block),
        Kind::Symlink(_) => (0o120_000, place.block),
        Kind::Char { major, minor } => (0o020_000, device_number(*major, *minor)),
        Kind::Block { major, minor } => (0o060_000, device_number(*major, *minor)),
        Kind::Fifo => (0o010_000, 0),
        Kind::Socket => (0o140_000, 0),
    };
    let layout = if place.inline { FLAT_INLINE } else { FLAT_PLAIN };
    let attribute_count = match place.attributes.len() {
        0 => 0,
        // The count is in units of 4 bytes, of which the 12-byte header makes one.
        bytes => u16::try_from((bytes - 12) / 4 + 1).unwrap_or(u16::MAX),
    };
    let links = if matches!(inode.kind, Kind::Directory(_)) { 2 + place.subdirectories } else { place.names };
    let mut bytes = [0; INODE as usize];
    let mut field = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    field(0, &(1 | layout << 1).to_le_bytes());
    field(2, &attribute_count.to_le_bytes());
    field(4, &(file_type | inode.meta.mode).to_le_bytes());
    field(8, &place.size.to_le_bytes());
    field(16, &detail.to_le_bytes());
    field(20, &u32::try_from(place.number()).unwrap_or(u32::MAX).to_le_bytes());
    field(24, &inode.meta.uid.to_le_bytes());
    field(28, &inode.meta.gid.to_le_bytes());
    field(32, &inode.meta.mtime.to_le_bytes());
    field(40, &inode.meta.mtime_nsec.to_le_bytes());
    field(44, &links.to_le_bytes());
    bytes
}

/// The kernel's 32-bit encoding: 12 bits of major amid 20 bits of minor.
fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The attribute area that follows an inode: a header, then entries padded to 4 bytes.
fn attribute_bytes(inode: &Inode) -> Result<Vec<u8>, ErofsError> {
    let mut bytes = Vec::new();
    for (name, value) in &inode.meta.xattrs {
        let Some((prefix, rest)) = attribute_prefix(name) else { continue };
        if bytes.is_empty() {
            bytes.resize(12, 0);
        }
        bytes.push(u8::try_from(rest.len()).map_err(|_| ErofsError::Attributes)?);
        bytes.push(prefix);
        bytes.extend(u16::try_from(value.len()).map_err(|_| ErofsError::Attributes)?.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if bytes.len() > usize::from(u16::MAX) { Err(ErofsError::Attributes) } else { Ok(bytes) }
}

/// The number of a name's prefix and what follows it. Other name spaces do not exist on Linux file systems.
fn attribute_prefix(name: &[u8]) -> Option<(u8, &[u8])> {
    const PREFIXES: [(u8, &[u8]); 5] = [
        (1, b"user."),
        (2, b"system.posix_acl_access"),
        (3, b"system.posix_acl_default"),
        (4, b"trusted."),
        (6, b"security."),
    ];
    PREFIXES.into_iter().find_map(|(number, prefix)| Some((number, name.strip_prefix(prefix)?)))
}

/// A directory's names in the order of their bytes, `.` and `..` among them.
fn sorted_names(tree: &Tree, id: InodeId, parent: InodeId) -> Vec<(&[u8], InodeId)> {
    let mut names: Vec<(&[u8], InodeId)> = tree.names(id).collect();
    names.push((b".", id));
    names.push((b"..", parent));
    names.sort_by_key(|(name, _)| *name);
    names
}

/// How many names go into each block: 12 bytes per entry, then the names.
fn blocks_of<'a, 'b>(names: &'b [(&'a [u8], InodeId)]) -> Vec<&'b [(&'a [u8], InodeId)]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (position, (name, _)) in names.iter().enumerate() {
        let need = 12 + name.len() as u64;
        if used + need > BLOCK {
            blocks.push(&names[start..position]);
            (start, used) = (position, 0);
        }
        used += need;
    }
    blocks.push(&names[start..]);
    blocks
}

fn directory_size(tree: &Tree, id: InodeId) -> u64 {
    let names = sorted_names(tree, id, id);
    let blocks = blocks_of(&names);
    let last: u64 =
        blocks.last().map_or(0, |names| names.iter().map(|(name, _)| 12 + name.len() as u64).sum());
    (blocks.len() as u64 - 1) * BLOCK + last
}

fn directory_bytes(tree: &Tree, places: &[Place], index: &HashMap<InodeId, usize>, place: &Place) -> Vec<u8> {
    let parent = places[place.parent].source;
    let names = sorted_names(tree, place.source, parent);
    let mut bytes = Vec::new();
    for block in blocks_of(&names) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let mut name_at = 12 * block.len();
        for (name, id) in block {
            let number = index.get(id).map_or(0, |&at| places[at].number());
            bytes.extend(number.to_le_bytes());
            bytes.extend(u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend([file_type(&tree.inode(*id).kind), 0]);
            name_at += name.len();
        }
        for (name, _) in block {
            bytes.extend(*name);
        }
    }
    bytes
}

fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory(_) => 2,
        Kind::Char { .. } => 3,
        Kind::Block { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => 7,
    }
}

/// Writes bytes `start..end` of an inode's content.
#[allow(clippy::too_many_arguments, reason = "the arguments are one immutable picture and one output")]
fn content(
    tree: &Tree,
    spool: &Spool,
    places: &[Place],
    index: &HashMap<InodeId, usize>,
    place: &Place,
    start: u64,
    end: u64,
    out: &mut impl Write,
) -> io::Result<()> {
    let slice = |bytes: &[u8], out: &mut dyn Write| {
        let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        out.write_all(bytes.get(range).ok_or(io::ErrorKind::InvalidData)?)
    };
    match &tree.inode(place.source).kind {
        Kind::Directory(_) => slice(&directory_bytes(tree, places, index, place), out),
        Kind::Symlink(target) => slice(target, out),
        Kind::File(extent) => copy(spool, *extent, start, end, out),
        _ => Ok(()),
    }
}

fn copy(spool: &Spool, extent: Extent, start: u64, end: u64, out: &mut impl Write) -> io::Result<()> {
    spool.copy(extent, start, end - start, out)
}

fn superblock(places: &[Place], blocks: u32, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    let mut field = |at: usize, value: &[u8]| {
        block[SUPERBLOCK + at..SUPERBLOCK + at + value.len()].copy_from_slice(value);
    };
    field(0, &MAGIC.to_le_bytes());
    field(8, &FEATURES.to_le_bytes());
    field(12, &[12]);
    // The root is the first inode, in slot 0.
    field(14, &0_u16.to_le_bytes());
    field(16, &(places.len() as u64).to_le_bytes());
    field(36, &blocks.to_le_bytes());
    field(40, &1_u32.to_le_bytes());
    field(48, &uuid);
    let checksum = crc32c(&block[SUPERBLOCK..]);
    block[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// CRC-32C without the final inversion, as the kernel's `crc32c(~0, …)`.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// Counts what is written, so that gaps can be filled with zeros.
struct Writer<W> {
    out: W,
    at: u64,
}

impl<W: Write> Writer<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let gap = offset.checked_sub(self.at).ok_or_else(|| io::Error::other("the layout overlaps"))?;
        io::copy(&mut io::Read::take(io::repeat(0), gap), self)?;
        Ok(())
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tree::Meta;
    use std::collections::BTreeMap;
    use std::process::Command;

    /// A tree with one of everything, and a directory of more than one block.
    fn sample() -> (Tree, Spool) {
        let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
        let mut tree = Tree::new();
        let mut file = |tree: &mut Tree, path: &str, bytes: &[u8], meta: Meta| {
            let extent = spool.append(&mut &bytes[..]).unwrap();
            tree.put(path.as_bytes(), Inode { meta, kind: Kind::File(extent) }).unwrap();
        };
        let meta = |mode| Meta { mode, uid: 70_000, gid: 7, mtime: 1_700_000_000, ..Meta::default() };
        file(&mut tree, "bin/su", b"su", meta(0o4755));
        file(&mut tree, "empty", b"", meta(0o600));
        file(&mut tree, "block", &[1; 4096], meta(0o644));
        file(&mut tree, "tail", &[2; 4100], meta(0o644));
        file(&mut tree, "fat-tail", &[3; 8191], meta(0o644));
        let mut with_xattr = meta(0o755);
        with_xattr.xattrs.insert(
            b"security.capability".to_vec(),
            b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
        );
        with_xattr.xattrs.insert(b"user.note".to_vec(), b"x".to_vec());
        file(&mut tree, "caps", b"caps", with_xattr);
        for number in 0..600 {
            file(&mut tree, &format!("many/a-rather-long-name-{number:04}"), b"m", meta(0o644));
        }
        file(&mut tree, "many/-first", b"", meta(0o644));
        tree.put_hard_link(b"hard", b"bin/su").unwrap();
        let mut put = |path: &str, kind: Kind| {
            tree.put(path.as_bytes(), Inode { meta: meta(0o777), kind }).unwrap();
        };
        put("soft", Kind::Symlink(b"bin/su".to_vec()));
        put("null", Kind::Char { major: 1, minor: 3 });
        put("disk", Kind::Block { major: 259, minor: 300 });
        put("pipe", Kind::Fifo);
        put("socket", Kind::Socket);
        put("void", Kind::Directory(BTreeMap::new()));
        (tree, spool)
    }

    fn image() -> Vec<u8> {
        let (tree, spool) = sample();
        let file = tempfile::NamedTempFile::new().unwrap();
        write(&tree, &spool, [7; 16], file.reopen().unwrap()).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let first = image();
        assert_eq!(first.len() % 4096, 0);
        assert!(first == image());
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // RFC 3720 B.4: 32 bytes of zeros have CRC-32C 0x8a9136aa, inverted at the end.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn device_numbers_are_packed_like_the_kernel_does() {
        assert_eq!(device_number(1, 3), 0x103);
        assert_eq!(device_number(259, 300), 0x0011_032c);
    }

    #[test]
    fn attributes_that_do_not_fit_are_an_error() {
        let mut meta = Meta::default();
        meta.xattrs.insert(b"user.big".to_vec(), vec![0; 70_000]);
        assert!(attribute_bytes(&Inode { meta, kind: Kind::Fifo }).is_err());
    }

    /// erofs-utils' own checker is the judge where it is installed; the guest's kernel is in the e2e tests.
    #[test]
    fn fsck_finds_nothing_wrong_and_extracts_the_tree() {
        if Command::new("fsck.erofs").arg("-V").output().is_err() {
            eprintln!("skipped: fsck.erofs (package erofs-utils) is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.erofs");
        std::fs::write(&disk, image()).unwrap();
        let out = dir.path().join("out");
        let checked = Command::new("fsck.erofs")
            .arg(format!("--extract={}", out.display()))
            .arg(&disk)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let read = |name: &str| std::fs::read(out.join(name)).unwrap();
        assert_eq!(read("bin/su"), b"su");
        assert_eq!(read("hard"), b"su");
        assert_eq!(read("tail"), [2; 4100]);
        assert_eq!(read("fat-tail"), [3; 8191]);
        assert_eq!(read("block"), [1; 4096]);
        assert_eq!(std::fs::read_link(out.join("soft")).unwrap(), std::path::Path::new("bin/su"));
        assert_eq!(std::fs::read_dir(out.join("many")).unwrap().count(), 601);
        let dump = Command::new("dump.erofs").arg("--path=/caps").arg(&disk).output().unwrap();
        let text = String::from_utf8_lossy(&dump.stdout).into_owned();
        assert!(text.contains("Uid: 70000") && text.contains("Xattr size: "), "{text}");
    }
}
