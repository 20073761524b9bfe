//! Lists what is in an EROFS: see the module above. The layout is the kernel's (`fs/erofs/erofs_fs.h`).

use std::collections::BTreeSet;

use crate::entry::{BLOCK, CHARACTER, DEPTH, DIRECTORY, Entry, REGULAR, ReadError, SYMLINK, TYPE, number};

const SUPERBLOCK: u64 = 1024;
const MAGIC: u64 = 0xE0F5_E1E2;
/// Longest link text that Linux takes.
const LINK: u64 = 4096;

/// Whether a file system begins here.
pub fn is(bytes: &[u8]) -> bool {
    number::<4>(bytes, SUPERBLOCK) == Some(MAGIC)
}

/// All entries below the root, sorted by path.
///
/// # Errors
/// When it is damaged. It never takes more memory than the bytes could describe.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let (reader, root) = Reader::open(bytes)?;
    let mut found = Vec::new();
    reader.list(root, "", &mut BTreeSet::from([root]), &mut |path, inode| {
        found.push(reader.entry(inode, path)?);
        // Each has 12 bytes of its own in a directory.
        if found.len() > bytes.len() / 12 {
            return Err(ReadError { what: "the number of entries", offset: inode.at });
        }
        Ok(())
    })?;
    found.sort_by(|a: &Entry, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The content of all files, by path.
#[cfg(test)]
pub(super) fn contents(bytes: &[u8]) -> Result<std::collections::BTreeMap<String, Vec<u8>>, ReadError> {
    let (reader, root) = Reader::open(bytes)?;
    let mut found = std::collections::BTreeMap::new();
    reader.list(root, "", &mut BTreeSet::from([root]), &mut |path, inode| {
        if inode.mode & TYPE == REGULAR {
            found.insert(path, reader.content(inode, bytes.len() as u64)?);
        }
        Ok(())
    })?;
    Ok(found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    block: u64,
    inodes: u64,
}

struct Inode {
    at: u64,
    head: u64,
    layout: u64,
    mode: u32,
    size: u64,
    detail: u64,
    uid: u32,
    gid: u32,
}

impl<'a> Reader<'a> {
    /// The reader, and the number of the root's inode.
    fn open(bytes: &'a [u8]) -> Result<(Self, u64), ReadError> {
        let field = |at: u64, value: Option<u64>| {
            value.ok_or(ReadError { what: "the superblock", offset: SUPERBLOCK + at })
        };
        let bits = field(12, number::<1>(bytes, SUPERBLOCK + 12))?;
        if !(9..=16).contains(&bits) {
            return Err(ReadError { what: "the block size", offset: SUPERBLOCK + 12 });
        }
        let block = 1 << bits;
        let root = field(14, number::<2>(bytes, SUPERBLOCK + 14))?;
        let inodes = field(40, number::<4>(bytes, SUPERBLOCK + 40))? * block;
        Ok((Reader { bytes, block, inodes }, root))
    }

    fn inode(&self, id: u64) -> Result<Inode, ReadError> {
        let at = id.checked_mul(32).and_then(|at| at.checked_add(self.inodes));
        let at = at.ok_or(ReadError { what: "the number of an inode", offset: 0 })?;
        let damage = ReadError { what: "an inode", offset: at };
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let parse = || {
            let format = number::<2>(self.bytes, at)?;
            let mode = narrow(number::<2>(self.bytes, at + 4)?);
            let attributes = match number::<2>(self.bytes, at + 2)? {
                0 => 0,
                count => 12 + (count - 1) * 4,
            };
            let detail = number::<4>(self.bytes, at + 16)?;
            let (head, size, uid, gid) = if format & 1 == 1 {
                let owner = (number::<4>(self.bytes, at + 24)?, number::<4>(self.bytes, at + 28)?);
                (64, number::<8>(self.bytes, at + 8)?, owner.0, owner.1)
            } else {
                let owner = (number::<2>(self.bytes, at + 24)?, number::<2>(self.bytes, at + 26)?);
                (32, number::<4>(self.bytes, at + 8)?, owner.0, owner.1)
            };
            let (uid, gid) = (narrow(uid), narrow(gid));
            Some(Inode { at, head: head + attributes, layout: format >> 1 & 7, mode, size, detail, uid, gid })
        };
        parse().ok_or(damage)
    }

    /// The content of a directory or link, which lies flat: whole blocks, and perhaps its tail behind the inode.
    fn content(&self, inode: &Inode, most: u64) -> Result<Vec<u8>, ReadError> {
        let damage = ReadError { what: "the content of a directory or link", offset: inode.at };
        let tail = if inode.layout == 2 { inode.size % self.block } else { 0 };
        if !matches!(inode.layout, 0 | 2) || inode.size > most {
            return Err(damage);
        }
        let piece = |start: Option<u64>, len: u64| {
            let start = usize::try_from(start?).ok()?;
            self.bytes.get(start..start.checked_add(usize::try_from(len).ok()?)?)
        };
        let mut content = Vec::new();
        if inode.size > tail {
            content.extend(piece(inode.detail.checked_mul(self.block), inode.size - tail).ok_or(damage)?);
        }
        content.extend(piece(inode.at.checked_add(inode.head), tail).ok_or(damage)?);
        Ok(content)
    }

    /// Gives `visit` everything below the directory `id`, whose path is `path`. `above` are the directories that it is in.
    fn list(
        &self,
        id: u64,
        path: &str,
        above: &mut BTreeSet<u64>,
        visit: &mut dyn FnMut(String, &Inode) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let directory = self.inode(id)?;
        let damage = ReadError { what: "a directory", offset: directory.at };
        if directory.mode & TYPE != DIRECTORY || above.len() > DEPTH {
            return Err(damage);
        }
        let content = self.content(&directory, self.bytes.len() as u64)?;
        let block = usize::try_from(self.block).map_err(|_| damage)?;
        for names in content.chunks(block) {
            let first = number::<2>(names, 8).ok_or(damage)?;
            let count = first / 12;
            for index in 0..count {
                let child = number::<8>(names, index * 12).ok_or(damage)?;
                let start = number::<2>(names, index * 12 + 8).ok_or(damage)?;
                let end = match index + 1 == count {
                    true => names.len() as u64,
                    false => number::<2>(names, index * 12 + 20).ok_or(damage)?,
                };
                let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
                    return Err(damage);
                };
                let name = names.get(start..end).ok_or(damage)?;
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if name == b"." || name == b".." {
                    continue;
                }
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                let inode = self.inode(child)?;
                visit(path.clone(), &inode)?;
                if inode.mode & TYPE == DIRECTORY {
                    // A directory below itself would never end.
                    if !above.insert(child) {
                        return Err(damage);
                    }
                    self.list(child, &path, above, visit)?;
                    above.remove(&child);
                }
            }
        }
        Ok(())
    }

    fn entry(&self, inode: &Inode, path: String) -> Result<Entry, ReadError> {
        let &Inode { mode, uid, gid, detail, .. } = inode;
        let target = match mode & TYPE {
            SYMLINK => Some(String::from_utf8_lossy(&self.content(inode, LINK)?).into_owned()),
            // 12 bits of major amid 20 bits of minor.
            CHARACTER | BLOCK => {
                Some(format!("{}:{}", detail >> 8 & 0xfff, (detail & 0xff) | (detail >> 12 & 0xfff00)))
            }
            _ => None,
        };
        let size = if mode & TYPE == REGULAR { inode.size } else { 0 };
        Ok(Entry { path, mode, uid, gid, size, target })
    }
}
