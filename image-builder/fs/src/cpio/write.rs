//! Writes a [`Tree`] as cpio: see the module above.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::counted::Counted;
use crate::error::{WriteError, beyond_linux};
use crate::tree::{Inode, InodeId, Kind, Tree};

const FORMAT: &str = "a cpio archive";
/// The name that marks the end.
const TRAILER: &[u8] = b"TRAILER!!!";
/// Bytes of the longest name: PATH_MAX of the kernel without the NUL.
const NAME: usize = 4095;

/// The archive of `tree`, in memory.
///
/// # Errors
/// As [`write()`].
pub fn archive(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let mut out = Vec::new();
    write(tree, &mut out)?;
    Ok(out)
}

/// Writes the archive of `tree`.
///
/// # Errors
/// When an entry does not fit the format, or a side fails.
pub fn write(tree: &Tree, out: impl Write) -> Result<(), WriteError> {
    let entries = tree.walk();
    // Names that are still to come, and the number.
    let mut inodes: HashMap<InodeId, (u32, u32)> = HashMap::new();
    for (_, id) in &entries {
        inodes.entry(*id).or_default().0 += 1;
    }
    let names = inodes.clone();
    let mut out = Counted::new(out);
    let mut last = 0;
    for (path, id) in &entries {
        let links = names.get(id).map_or(1, |(names, _)| *names);
        let (left, number) = inodes.entry(*id).or_default();
        *left -= 1;
        if *number == 0 {
            last += 1;
            *number = last;
        }
        entry(&mut out, path, tree.inode(*id), *number, links, *left == 0)?;
    }
    header(&mut out, TRAILER, [0, 0, 0, 0, 1, 0, 0, 0, 0])?;
    out.align(512)?;
    Ok(out.flush()?)
}

fn entry(
    out: &mut Counted<impl Write>,
    path: &[u8],
    inode: &Inode,
    number: u32,
    names: u32,
    is_last: bool,
) -> Result<(), WriteError> {
    let refuse = |problem: String| WriteError::cannot_hold(FORMAT, path, problem);
    let name = path.strip_prefix(b"/").unwrap_or(path);
    if let Some(problem) = beyond_linux(inode) {
        return Err(refuse(problem));
    }
    if name == TRAILER {
        return Err(refuse("its name is the mark of the end".into()));
    }
    if name.len() > NAME {
        return Err(refuse(format!("its path has more than {NAME} bytes")));
    }
    if let Some(attribute) = inode.meta.xattrs.keys().next() {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(refuse(format!("it has the extended attribute {attribute}, and the format knows none")));
    }
    let mtime = u32::try_from(inode.meta.mtime).map_err(|_| refuse("it is from after 2106".into()))?;
    let (size, device) = match &inode.kind {
        Kind::File(content) => (content.len(), (0, 0)),
        Kind::Symlink(target) => (target.len() as u64, (0, 0)),
        Kind::Char { major, minor } | Kind::Block { major, minor } => (0, (*major, *minor)),
        Kind::Directory(_) | Kind::Fifo | Kind::Socket => (0, (0, 0)),
    };
    let size = u32::try_from(size)
        .map_err(|_| refuse(format!("it has {size} bytes, and the format ends at 4 GiB - 1")))?;
    let is_content_here = is_last || !matches!(inode.kind, Kind::File(_));
    let size = if is_content_here { size } else { 0 };
    let links = if inode.kind.is_directory() { 2 } else { names };
    let (uid, gid) = (inode.meta.uid, inode.meta.gid);
    let fields = [number, inode.mode().into(), uid, gid, links, mtime, size, device.0, device.1];
    header(out, name, fields)?;
    match &inode.kind {
        Kind::File(content) if is_content_here => content.copy(0, content.len(), out)?,
        Kind::Symlink(target) => out.write_all(target)?,
        _ => {}
    }
    Ok(out.align(4)?)
}

/// Writes a header and the name behind it: inode, mode, owner, group, links, time, size, device's major and minor.
fn header(out: &mut Counted<impl Write>, name: &[u8], fields: [u32; 9]) -> io::Result<()> {
    let [inode, mode, uid, gid, links, mtime, size, major, minor] = fields;
    write!(out, "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{mtime:08x}{size:08x}")?;
    // The device that the file is on, and a checksum that this variant of the format has not.
    write!(out, "{:08x}{:08x}{major:08x}{minor:08x}{:08x}{:08x}", 0, 0, name.len() + 1, 0)?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    out.align(4)
}
