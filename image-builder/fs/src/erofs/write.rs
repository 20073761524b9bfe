//! Writes a [`Tree`] as EROFS: see the module above.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

use crate::content::{At, Opened, PIECE};
use crate::counted::Counted;
use crate::error::{WriteError, beyond_linux};
use crate::tree::{Inode, InodeId, Kind, Tree};

const FORMAT: &str = "EROFS";

const SLOT: u64 = 32;
const INODE: u64 = 64;
const SUPERBLOCK: usize = 1024;
const MAGIC: u32 = 0xE0F5_E1E2;
/// Compatible features: the superblock has a checksum, inodes have times.
const FEATURES: u32 = 0x1 | 0x2;
/// Layouts of content.
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;

const TOO_LARGE: WriteError = WriteError::TooLarge {
    format: FORMAT,
    problem: "blocks are counted with 32 bits, which ends at 16 TiB of blocks of 4 KiB",
};

/// Bytes of a block. A kernel mounts only blocks that are as large as its pages or smaller; before Linux 6.4, only those that are
/// exactly as large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlockSize {
    /// 4 KiB: for every kernel since 6.4, and for older ones with pages of this size.
    #[default]
    K4,
    /// 16 KiB: for kernels before 6.4 with pages of this size.
    K16,
    /// 64 KiB: for kernels before 6.4 with pages of this size.
    K64,
}

impl BlockSize {
    /// All of them.
    pub const ALL: [BlockSize; 3] = [BlockSize::K4, BlockSize::K16, BlockSize::K64];

    /// Its binary logarithm, which the superblock has.
    const fn bits(self) -> u8 {
        match self {
            BlockSize::K4 => 12,
            BlockSize::K16 => 14,
            BlockSize::K64 => 16,
        }
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.bits()
    }
}

/// What is said of a file system besides its tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Its name.
    pub uuid: [u8; 16],
    /// How large its blocks are.
    pub block_size: BlockSize,
}

/// A file system of this name, with the usual blocks.
impl From<[u8; 16]> for Parameters {
    fn from(uuid: [u8; 16]) -> Parameters {
        Parameters { uuid, ..Parameters::default() }
    }
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
}

/// Where the inodes of a tree go.
struct Layout<'a> {
    tree: &'a Tree,
    /// Bytes of a block.
    block: u64,
    places: Vec<Place>,
    /// The place of each inode of the tree, [`NOWHERE`] for one without a name.
    index: Vec<usize>,
    /// Blocks of the file system.
    blocks: u32,
}

const NOWHERE: usize = usize::MAX;

/// Writes `tree` to `out`, a file with nothing in it. A uuid alone makes a file system with blocks of 4 KiB. Each file of the tree
/// is opened once, and the kernel copies large ones by itself.
///
/// # Errors
/// When something in the tree does not fit the format, content cannot be read, or `out` fails.
pub fn write(tree: &Tree, parameters: impl Into<Parameters>, out: &File) -> Result<(), WriteError> {
    let parameters = parameters.into();
    let layout = Layout::of(tree, parameters.block_size)?;
    // What nobody writes is zeros.
    out.set_len(layout.len())?;
    // Both areas are filled from their beginnings to their ends, at the same time.
    let mut inodes = Counted::new(BufWriter::with_capacity(PIECE, At { out, offset: 0 }));
    let mut blocks = Blocks { out, block: layout.block, start: 0, pending: vec![0; PIECE], used: 0 };
    inodes.write_all(&layout.superblock(parameters))?;
    for place in &layout.places {
        let content = if place.size > 0 { Some(layout.content(place)?) } else { None };
        layout.write_inode(place, content.as_ref(), &mut inodes)?;
        if let Some(content) = content.filter(|_| layout.outside(place) > 0) {
            blocks.put(&content, layout.whole(place), layout.start(place))?;
        }
    }
    blocks.flush()?;
    Ok(inodes.flush()?)
}

/// The blocks of content in a file. Small content is collected, because a call for each takes longer than another copy.
struct Blocks<'a> {
    out: &'a File,
    /// Bytes of a block.
    block: u64,
    /// Where what is pending belongs.
    start: u64,
    /// A piece, of which some is used.
    pending: Vec<u8>,
    used: usize,
}

/// Content of fewer bytes is small.
const SMALL: u64 = 32 << 10;

impl Blocks<'_> {
    /// The first `len` bytes of `content`, to `start`.
    fn put(&mut self, content: &Opened<'_>, len: u64, start: u64) -> io::Result<()> {
        if len >= SMALL {
            return content.send(0, len, self.out, start);
        }
        let end = self.start + self.used as u64;
        let is_next = end.next_multiple_of(self.block) == start;
        if !is_next || start + len > self.start + PIECE as u64 {
            self.flush()?;
            self.start = start;
        }
        // Both are within a piece.
        let (from, to) = ((start - self.start) as usize, (start + len - self.start) as usize);
        self.pending[self.used..from].fill(0);
        content.read(0, &mut self.pending[from..to])?;
        self.used = to;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all_at(&self.pending[..self.used], self.start)?;
        self.used = 0;
        Ok(())
    }
}

impl<'a> Layout<'a> {
    fn of(tree: &'a Tree, block_size: BlockSize) -> Result<Self, WriteError> {
        let mut layout = Self::find(tree, block_size.bytes())?;
        let mut next = 1 + layout.lay_out_inodes().div_ceil(layout.block);
        let sizes: Vec<u64> =
            layout.places.iter().map(|place| layout.outside(place) / layout.block).collect();
        for (place, blocks) in layout.places.iter_mut().zip(sizes) {
            place.block = if blocks == 0 { u32::MAX } else { u32::try_from(next).map_err(|_| TOO_LARGE)? };
            next += blocks;
        }
        layout.blocks = u32::try_from(next).map_err(|_| TOO_LARGE)?;
        Ok(layout)
    }

    /// Bytes of the file system.
    fn len(&self) -> u64 {
        u64::from(self.blocks) * self.block
    }

    /// Where the whole blocks of an inode begin.
    fn start(&self, place: &Place) -> u64 {
        u64::from(place.block) * self.block
    }

    /// Bytes of an inode's content that are not behind it.
    fn whole(&self, place: &Place) -> u64 {
        self.outside(place).min(place.size)
    }

    /// Bytes of the blocks that are only one inode's content.
    fn outside(&self, place: &Place) -> u64 {
        let size = place.size;
        if place.inline { size / self.block * self.block } else { size.next_multiple_of(self.block) }
    }

    /// Finds every inode that has a name, the root first, breadth first.
    fn find(tree: &'a Tree, block: u64) -> Result<Self, WriteError> {
        let mut places: Vec<Place> = Vec::new();
        let mut index = vec![NOWHERE; tree.len()];
        let mut queue = VecDeque::from([(InodeId::ROOT, 0)]);
        while let Some((id, parent)) = queue.pop_front() {
            if let Some(known) = places.get_mut(index[id.index()]) {
                known.names += 1;
                continue;
            }
            let here = places.len();
            index[id.index()] = here;
            let inode = tree.inode(id);
            let refuse = |problem: String| WriteError::cannot_hold(FORMAT, &tree.path_of(id), problem);
            if let Some(problem) = beyond_linux(inode) {
                return Err(refuse(problem));
            }
            let mut subdirectories = 0;
            for (name, child) in tree.names(id) {
                if name.len() > 255 {
                    let path = [&tree.path_of(id), &b"/"[..], name].concat();
                    return Err(WriteError::cannot_hold(FORMAT, &path, "its name is longer than 255 bytes"));
                }
                subdirectories += u32::from(is_directory(tree, child));
                queue.push_back((child, here));
            }
            let size = match &inode.kind {
                Kind::Directory(_) => directory_size(tree, id, block),
                Kind::File(content) => content.len(),
                Kind::Symlink(target) => target.len() as u64,
                _ => 0,
            };
            let attributes = attribute_bytes(inode).map_err(refuse)?;
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
        Ok(Self { tree, block, places, index, blocks: 0 })
    }

    /// Gives every inode its slots; answers how many bytes they take.
    fn lay_out_inodes(&mut self) -> u64 {
        let (block, mut at) = (self.block, 0);
        for place in &mut self.places {
            let head = INODE + place.attributes.len() as u64;
            let has_content = matches!(
                self.tree.inode(place.source).kind,
                Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_)
            );
            let tail = if has_content { place.size % block } else { 0 };
            // The tail must not cross into another block; neither does the inode itself, for the readers' ease.
            let block_left = block - at % block;
            if tail > 0 && head + tail <= block {
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

    fn directory_bytes(&self, place: &Place) -> Vec<u8> {
        let parent = self.places[place.parent].source;
        let names = sorted_names(self.tree, place.source, parent);
        let mut bytes = Vec::new();
        for block in blocks_of(&names, self.block) {
            bytes.resize(bytes.len().next_multiple_of(self.block as usize), 0);
            let mut name_at = 12 * block.len();
            for (name, id) in block {
                let number = self.places.get(self.index[id.index()]).map_or(0, Place::number);
                bytes.extend(number.to_le_bytes());
                bytes.extend(u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
                bytes.extend([file_type(&self.tree.inode(*id).kind), 0]);
                name_at += name.len();
            }
            for (name, _) in block {
                bytes.extend(*name);
            }
        }
        bytes
    }

    fn superblock(&self, parameters: Parameters) -> Vec<u8> {
        superblock(self.places.len() as u64, self.blocks, parameters)
    }

    /// Writes an inode, and what follows it; `content` is there if some of it does.
    fn write_inode(
        &self,
        place: &Place,
        content: Option<&Opened<'_>>,
        out: &mut Counted<impl Write>,
    ) -> io::Result<()> {
        out.pad_to(self.block + place.offset)?;
        out.write_all(&inode_bytes(self.tree.inode(place.source), place))?;
        out.write_all(&place.attributes)?;
        match content.filter(|_| place.inline) {
            Some(content) => content.copy(self.whole(place), place.size - self.whole(place), out),
            None => Ok(()),
        }
    }

    fn content(&self, place: &Place) -> io::Result<Opened<'_>> {
        match &self.tree.inode(place.source).kind {
            Kind::Directory(_) => Ok(Opened::Bytes(self.directory_bytes(place).into())),
            Kind::Symlink(target) => Ok(Opened::Bytes(target.into())),
            Kind::File(content) => content.open(),
            _ => Ok(Opened::Bytes([].as_slice().into())),
        }
    }
}

fn is_directory(tree: &Tree, id: InodeId) -> bool {
    matches!(tree.inode(id).kind, Kind::Directory(_))
}

fn inode_bytes(inode: &Inode, place: &Place) -> [u8; INODE as usize] {
    let detail = match &inode.kind {
        Kind::Directory(_) | Kind::File(_) | Kind::Symlink(_) => place.block,
        Kind::Char { major, minor } | Kind::Block { major, minor } => device_number(*major, *minor),
        Kind::Fifo | Kind::Socket => 0,
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
    field(4, &inode.mode().to_le_bytes());
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
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The attribute area that follows an inode, a header and entries padded to 4 bytes; or why there can be none.
fn attribute_bytes(inode: &Inode) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (name, value) in &inode.meta.xattrs {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let long = || format!("the extended attribute {} is too long", shown());
        let (prefix, rest) = attribute_prefix(name)
            .ok_or_else(|| format!("the extended attribute {} is in no name space of it", shown()))?;
        if bytes.is_empty() {
            bytes.resize(12, 0);
        }
        bytes.push(u8::try_from(rest.len()).map_err(|_| long())?);
        bytes.push(prefix);
        bytes.extend(u16::try_from(value.len()).map_err(|_| long())?.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let fits = bytes.len() <= usize::from(u16::MAX);
    if fits { Ok(bytes) } else { Err("its extended attributes take more than 64 KiB".to_owned()) }
}

/// Whether the format has room for an extended attribute of this full name. Of the other name spaces none is known on Linux:
/// those who unpack images there leave them out ([`Tree::retain_xattrs`]).
pub fn is_attribute(name: &[u8]) -> bool {
    attribute_prefix(name).is_some()
}

/// The number of a name's prefix and what follows it.
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

/// How many names go into each block of `block` bytes: 12 bytes per entry, then the names.
fn blocks_of<'a, 'b>(names: &'b [(&'a [u8], InodeId)], block: u64) -> Vec<&'b [(&'a [u8], InodeId)]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (position, (name, _)) in names.iter().enumerate() {
        let need = 12 + name.len() as u64;
        if used + need > block {
            blocks.push(&names[start..position]);
            (start, used) = (position, 0);
        }
        used += need;
    }
    blocks.push(&names[start..]);
    blocks
}

fn directory_size(tree: &Tree, id: InodeId, block: u64) -> u64 {
    let names = sorted_names(tree, id, id);
    let blocks = blocks_of(&names, block);
    let last: u64 =
        blocks.last().map_or(0, |names| names.iter().map(|(name, _)| 12 + name.len() as u64).sum());
    (blocks.len() as u64 - 1) * block + last
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

fn superblock(inodes: u64, blocks: u32, Parameters { uuid, block_size }: Parameters) -> Vec<u8> {
    let mut block = vec![0; block_size.bytes() as usize];
    let mut field = |at: usize, value: &[u8]| {
        block[SUPERBLOCK + at..SUPERBLOCK + at + value.len()].copy_from_slice(value);
    };
    field(0, &MAGIC.to_le_bytes());
    field(8, &FEATURES.to_le_bytes());
    field(12, &[block_size.bits()]);
    // The root is the first inode, in slot 0.
    field(14, &0_u16.to_le_bytes());
    field(16, &inodes.to_le_bytes());
    field(36, &blocks.to_le_bytes());
    field(40, &1_u32.to_le_bytes());
    field(48, &uuid);
    // Of the block that the superblock is in.
    let checksum = crc32c(&block[SUPERBLOCK..]);
    block[SUPERBLOCK + 4..SUPERBLOCK + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// CRC-32C without the final inversion, as the kernel's `crc32c(~0, …)`.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}
