//! A plain directory as a root file system.
//!
//! Takes it as it is: links, devices, modes, owners, times and extended attributes. One thing is changed: whoever
//! owns the directory itself becomes root in the image, so that a tree unpacked by an ordinary user still has a
//! root-owned `/bin`.
//!
//! Somebody may change the directory meanwhile, and mean harm by it. So nothing is looked up by a path from outside: each name
//! is looked up in the directory that was opened before, without following a link, and what is opened must be what was found
//! there. A directory that is another one in the end than it was at the beginning is refused.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_image::{Inode, Kind, Later, Meta, Open, Tree};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use xattr::FileExt as _;

use super::ImageError;
use super::spool::Spool;
use store::digest::Digest;

/// How deep directories may lie: a path with names of three letters leads about as far (PATH_MAX is 4096 bytes).
const MAX_DEPTH: usize = 1000;

/// A digest that changes whenever anything in the directory does, without reading file content.
pub(super) fn key(dir: &Path) -> Result<Digest, ImageError> {
    let mut listing = Listing::of(dir);
    visit(dir, &mut |found| {
        listing.add(found);
        Ok(())
    })?;
    Ok(listing.key())
}

/// What tells a file from another one, and from itself before a change (stat(2)).
fn stamp(stat: &Stat) -> [u64; 10] {
    [
        u64::from(stat.st_mode),
        u64::from(stat.st_uid),
        u64::from(stat.st_gid),
        stat.st_size.cast_unsigned(),
        stat.st_ino,
        stat.st_rdev,
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec,
        stat.st_ctime.cast_unsigned(),
        stat.st_ctime_nsec,
    ]
}

/// Everything in a directory, as it goes into its key.
struct Listing(Sha256);

impl Listing {
    fn of(dir: &Path) -> Self {
        let mut listing = Self(Sha256::new());
        listing.name(dir);
        listing
    }

    fn name(&mut self, name: &Path) {
        self.0.update(name.as_os_str().as_bytes());
        self.0.update([0]);
    }

    fn add(&mut self, found: &Found<'_>) {
        self.name(found.relative);
        self.0.update(stamp(&found.stat).map(u64::to_le_bytes).as_flattened());
    }

    fn key(self) -> Digest {
        <[u8; 32]>::from(self.0.finalize()).into()
    }
}

/// A regular file of a directory, which is opened when it is packed.
#[derive(Debug)]
struct Member {
    root: Arc<File>,
    relative: PathBuf,
    stamp: [u64; 10],
}

impl Open for Member {
    fn open(&self) -> io::Result<File> {
        let file = open_below(&self.root, &self.relative, OFlags::NONBLOCK)?;
        check(&file, self.stamp, &self.relative)?;
        Ok(file)
    }
}

/// Looks whether what was opened is what was found before.
fn check(file: &File, before: [u64; 10], relative: &Path) -> io::Result<()> {
    if stamp(&fstat(file)?) == before {
        return Ok(());
    }
    Err(changed(relative))
}

fn changed(relative: &Path) -> io::Error {
    io::Error::other(format!("{} {CHANGED}", relative.display()))
}

/// Opens what has a path of no links below `root`, for reading.
fn open_below(root: &File, relative: &Path, flags: OFlags) -> io::Result<File> {
    if relative.as_os_str().is_empty() {
        return open_name(root, c".", flags);
    }
    let how = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(root, relative, how, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        // A path longer than the kernel takes, and kernels and sandboxes that do not know the call.
        Err(Errno::NAMETOOLONG | Errno::NOSYS | Errno::PERM) => {
            let (parent, name) = (relative.parent(), relative.file_name());
            let parent = enter(root, parent.unwrap_or(Path::new("")))?;
            open_name(&parent, &c_string(name.unwrap_or_default())?, flags)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Looks whether the directories that content still lies in are as they were when they were read.
pub(super) fn settle(spool: &mut Spool) -> Result<(), ImageError> {
    for (dir, before) in spool.elsewhere().into_iter().flat_map(std::mem::take) {
        unchanged(&dir, before)?;
    }
    Ok(())
}

fn unchanged(dir: &Path, before: Digest) -> Result<(), ImageError> {
    if key(dir)? == before { Ok(()) } else { Err(ImageError::source(dir, format!("it {CHANGED}"))) }
}

const CHANGED: &str = "was changed while it was packed; try again";

/// Puts everything below `dir` into the tree. Where the spool may refer to content, files stay where they are: whoever has written
/// the tree has to [`settle`] the spool.
pub(super) fn fill(dir: &Path, tree: &mut Tree, spool: &mut Spool) -> Result<(), ImageError> {
    let mut listing = Listing::of(dir);
    let root = Arc::new(open_top(dir)?);
    let mut top = None;
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    tree.begin_layer();
    visit(dir, &mut |found| {
        listing.add(found);
        let stat = &found.stat;
        let owner = *top.get_or_insert((stat.st_uid, stat.st_gid));
        let name = found.relative.as_os_str().as_bytes();
        let misfit = |source| ImageError::Layer {
            path: dir.to_path_buf(),
            layer: found.relative.display().to_string(),
            source: Box::new(source),
        };
        if found.kind() != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = first_names.get(&inode) {
                return tree.put_hard_link(name, first.as_os_str().as_bytes()).map_err(misfit);
            }
            first_names.insert(inode, found.relative.to_path_buf());
        }
        let inode = inode(found, owner, spool, &root)?;
        tree.put(name, inode).map_err(misfit)?;
        match tree.len() > spool.ceiling().entries {
            true => {
                let most = spool.ceiling().entries;
                Err(ImageError::source(dir, format!("it has more than {most} entries")))
            }
            false => Ok(()),
        }
    })?;
    let key = listing.key();
    match spool.elsewhere() {
        Some(elsewhere) => elsewhere.push((dir.to_path_buf(), key)),
        None => unchanged(dir, key)?,
    }
    Ok(())
}

/// What has a name in the directory.
struct Found<'a> {
    top: &'a Path,
    /// Below the top; empty for the top itself.
    relative: &'a Path,
    /// The directory that it was found in, and its name there.
    parent: &'a File,
    name: &'a CStr,
    stat: Stat,
}

impl Found<'_> {
    /// Where it is, for messages.
    fn path(&self) -> PathBuf {
        self.top.join(self.relative)
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> ImageError {
        move |error| ImageError::io(operation, self.path(), error)
    }

    /// Opens it, and nothing else that has its name by now.
    fn open(&self, flags: OFlags) -> Result<File, ImageError> {
        open_name(self.parent, self.name, flags)
            .and_then(|file| check(&file, stamp(&self.stat), self.relative).map(|()| file))
            .map_err(|error| ImageError::io("open", self.path(), error))
    }
}

/// A path that leads to just this (proc(5), /proc/pid/fd), whatever its name leads to now.
fn itself(handle: &File) -> PathBuf {
    format!("/proc/self/fd/{}", handle.as_raw_fd()).into()
}

/// What it is. Where the spool may refer to content, larger files stay where they are, below `root`; else all of it is copied
/// to the spool.
fn inode(
    found: &Found<'_>,
    owner: (u32, u32),
    spool: &mut Spool,
    root: &Arc<File>,
) -> Result<Inode, ImageError> {
    let major = rustix::fs::major(found.stat.st_rdev);
    let minor = rustix::fs::minor(found.stat.st_rdev);
    let (kind, xattrs) = match found.kind() {
        FileType::Directory => {
            let directory = found.open(OFlags::DIRECTORY)?;
            (Kind::Directory(BTreeMap::new()), attributes(found, &directory)?)
        }
        FileType::RegularFile => {
            let file = found.open(OFlags::NONBLOCK)?;
            (Kind::File(content(found, &file, spool, root)?), attributes(found, &file)?)
        }
        FileType::Symlink => {
            let target = readlinkat(found.parent, found.name, Vec::new());
            let target = target.map_err(|errno| found.failed("read the link")(errno.into()))?;
            (Kind::Symlink(target.into_bytes()), BTreeMap::new())
        }
        other => {
            // To open it for reading could wait for somebody, or start a device.
            let handle = found.open(OFlags::PATH)?;
            let kind = match other {
                FileType::CharacterDevice => Kind::Char { major, minor },
                FileType::BlockDevice => Kind::Block { major, minor },
                FileType::Fifo => Kind::Fifo,
                FileType::Socket => Kind::Socket,
                _ => return Err(found.failed("pack")(io::ErrorKind::Unsupported.into())),
            };
            (kind, attributes_at(found, &itself(&handle))?)
        }
    };
    let stat = &found.stat;
    let meta = Meta {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or_default(),
        uid: if stat.st_uid == owner.0 { 0 } else { stat.st_uid },
        gid: if stat.st_gid == owner.1 { 0 } else { stat.st_gid },
        mtime: u64::try_from(stat.st_mtime).unwrap_or_default(),
        mtime_nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        xattrs,
    };
    Ok(Inode { meta, kind })
}

/// The content of a file that is open.
fn content(
    found: &Found<'_>,
    file: &File,
    spool: &mut Spool,
    root: &Arc<File>,
) -> Result<fs_image::Content, ImageError> {
    if spool.elsewhere().is_none() {
        return Ok(spool.append(&mut &*file).map_err(found.failed("copy"))?.into());
    }
    let len = found.stat.st_size.cast_unsigned();
    spool.count(len).map_err(found.failed("pack"))?;
    if let Some(mut bytes) = spool.keep(len) {
        // Whether it has more by now is seen in the end.
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => found.failed("read")(changed(found.relative)),
            _ => found.failed("read")(error),
        })?;
        return Ok(bytes.into());
    }
    let member =
        Member { root: Arc::clone(root), relative: found.relative.to_path_buf(), stamp: stamp(&found.stat) };
    Ok(Later::new(Arc::new(member), len).into())
}

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

fn attributes(found: &Found<'_>, file: &File) -> Result<Attributes, ImageError> {
    collect(found, file.list_xattr(), |name| file.get_xattr(name))
}

fn attributes_at(found: &Found<'_>, path: &Path) -> Result<Attributes, ImageError> {
    collect(found, xattr::list_deref(path), |name| xattr::get_deref(path, name))
}

fn collect(
    found: &Found<'_>,
    names: io::Result<xattr::XAttrs>,
    value: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> Result<Attributes, ImageError> {
    let names = match names {
        Ok(names) => names,
        // File systems without attributes have none.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(BTreeMap::new()),
        Err(error) => return Err(found.failed("read the extended attributes of")(error)),
    };
    let mut attributes = BTreeMap::new();
    for name in names {
        if let Some(value) = value(&name).map_err(found.failed("read the extended attributes of"))? {
            attributes.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(attributes)
}

/// Calls `each` for the directory and everything below it, parents first, names in order. Links are not followed.
fn visit(top: &Path, each: &mut impl FnMut(&Found<'_>) -> Result<(), ImageError>) -> Result<(), ImageError> {
    let root = open_top(top)?;
    let stat = fstat(&root).map_err(|errno| ImageError::io("read", top, errno.into()))?;
    each(&Found { top, relative: Path::new(""), parent: &root, name: c".", stat })?;
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let failed = |operation, name: &CStr| {
            let path = top.join(&below).join(OsStr::from_bytes(name.to_bytes()));
            move |error| ImageError::io(operation, path, error)
        };
        let (dir, names) = list(&root, &below).map_err(|error| failed("list", c"")(error))?;
        let mut directories = Vec::new();
        for name in names {
            let relative = below.join(OsStr::from_bytes(name.to_bytes()));
            let stat = statat(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|errno| failed("read", &name)(errno.into()))?;
            let found = Found { top, relative: &relative, parent: &dir, name: &name, stat };
            let is_directory = found.kind() == FileType::Directory;
            each(&found)?;
            if is_directory {
                directories.push(relative);
            }
        }
        pending.extend(directories.into_iter().rev());
    }
    Ok(())
}

/// Opens a directory, and answers the names in it, in order.
fn list(root: &File, below: &Path) -> io::Result<(File, Vec<CString>)> {
    if below.iter().count() > MAX_DEPTH {
        return Err(too_deep());
    }
    let dir = open_below(root, below, OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in Dir::new(dir.try_clone()?)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok((dir, names))
}

fn open_top(top: &Path) -> Result<File, ImageError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    let root = openat(CWD, top, flags, Mode::empty()).map(File::from);
    root.map_err(|errno| ImageError::io("open", top, errno.into()))
}

/// Opens a directory below `root`, name by name, none of which may be a link.
fn enter(root: &File, below: &Path) -> io::Result<File> {
    let mut at = root.try_clone()?;
    for (depth, name) in below.iter().enumerate() {
        if depth == MAX_DEPTH {
            return Err(too_deep());
        }
        at = open_name(&at, &c_string(name)?, OFlags::PATH | OFlags::DIRECTORY)?;
    }
    Ok(at)
}

fn too_deep() -> io::Error {
    io::Error::other(format!("it is more than {MAX_DEPTH} directories deep"))
}

fn open_name(dir: &File, name: &CStr, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty()).map(File::from)?)
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

#[cfg(test)]
mod tests;
