//! A plain directory as a root file system.
//!
//! Takes it as it is: links, devices, modes, owners, times and extended attributes. One thing is changed: whoever
//! owns the directory itself becomes root in the image, so that a tree unpacked by an ordinary user still has a
//! root-owned `/bin`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ImageError;
use super::spool::Spool;
use super::tree::{Inode, Kind, Meta, Tree};
use crate::digest::Digest;

/// A digest that changes whenever anything in the directory does, without reading file content.
pub(super) fn key(dir: &Path) -> Result<Digest, ImageError> {
    let mut text = Vec::new();
    visit(dir, &mut |path, metadata| {
        text.extend(path.as_os_str().as_bytes());
        text.push(0);
        let numbers = [
            u64::from(metadata.mode()),
            u64::from(metadata.uid()),
            u64::from(metadata.gid()),
            metadata.size(),
            metadata.ino(),
            metadata.rdev(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
        ];
        text.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        Ok(())
    })?;
    Ok(Digest::of_parts([("directory", dir.as_os_str().as_bytes()), ("entries", &text)]))
}

/// Puts everything below `dir` into the tree.
pub(super) fn fill(dir: &Path, tree: &mut Tree, spool: &mut Spool) -> Result<(), ImageError> {
    let top = fs::metadata(dir).map_err(|error| ImageError::io("read", dir, error))?;
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    tree.begin_layer();
    visit(dir, &mut |path, metadata| {
        let relative = path.strip_prefix(dir).unwrap_or(path);
        let name = relative.as_os_str().as_bytes();
        let misfit = |source| ImageError::Layer {
            path: dir.to_path_buf(),
            layer: relative.display().to_string(),
            source: Box::new(source),
        };
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = first_names.get(&inode) {
                return tree.put_hard_link(name, first.as_os_str().as_bytes()).map_err(misfit);
            }
            first_names.insert(inode, relative.to_path_buf());
        }
        let kind = kind(path, metadata, spool)?;
        let meta = meta(path, metadata, &top)?;
        tree.put(name, Inode { meta, kind }).map(drop).map_err(misfit)
    })
}

fn kind(path: &Path, metadata: &Metadata, spool: &mut Spool) -> Result<Kind, ImageError> {
    let file_type = metadata.file_type();
    let major = u32::try_from(nix::sys::stat::major(metadata.rdev())).unwrap_or_default();
    let minor = u32::try_from(nix::sys::stat::minor(metadata.rdev())).unwrap_or_default();
    Ok(if file_type.is_dir() {
        Kind::Directory(BTreeMap::new())
    } else if file_type.is_symlink() {
        let target = fs::read_link(path).map_err(|error| ImageError::io("read the link", path, error))?;
        Kind::Symlink(target.as_os_str().as_bytes().to_vec())
    } else if file_type.is_char_device() {
        Kind::Char { major, minor }
    } else if file_type.is_block_device() {
        Kind::Block { major, minor }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else {
        let mut file = File::open(path).map_err(|error| ImageError::io("open", path, error))?;
        Kind::File(spool.append(&mut file).map_err(|error| ImageError::io("copy", path, error))?)
    })
}

fn meta(path: &Path, metadata: &Metadata, top: &Metadata) -> Result<Meta, ImageError> {
    let failed = |error| ImageError::io("read the extended attributes of", path, error);
    let mut xattrs = BTreeMap::new();
    if xattr::SUPPORTED_PLATFORM && !metadata.file_type().is_symlink() {
        match xattr::list(path) {
            Ok(names) => {
                for name in names {
                    if let Some(value) = xattr::get(path, &name).map_err(failed)? {
                        xattrs.insert(name.as_bytes().to_vec(), value);
                    }
                }
            }
            // File systems without attributes have none.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Meta {
        mode: u16::try_from(metadata.mode() & 0o7777).unwrap_or_default(),
        uid: if metadata.uid() == top.uid() { 0 } else { metadata.uid() },
        gid: if metadata.gid() == top.gid() { 0 } else { metadata.gid() },
        mtime: u64::try_from(metadata.mtime()).unwrap_or_default(),
        mtime_nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        xattrs,
    })
}

/// Calls `each` for the directory and everything below it, parents first, names in order. Links are not followed.
fn visit(
    path: &Path,
    each: &mut impl FnMut(&Path, &Metadata) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let metadata = fs::symlink_metadata(path).map_err(|error| ImageError::io("read", path, error))?;
    each(path, &metadata)?;
    if metadata.is_dir() {
        let mut names = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>())
            .map_err(|error| ImageError::io("list", path, error))?;
        names.sort();
        for name in names {
            visit(&path.join(name), each)?;
        }
    }
    Ok(())
}
