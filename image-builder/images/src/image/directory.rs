//! A plain directory as a root file system.
//!
//! Takes it as it is: links, devices, modes, owners, times and extended attributes. One thing is changed: whoever
//! owns the directory itself becomes root in the image, so that a tree unpacked by an ordinary user still has a
//! root-owned `/bin`.
//!
//! Somebody may change the directory meanwhile, and mean harm by it. So nothing is looked up by a path: each name is opened
//! once in the directory that was opened before, without following a link, and all that is asked afterwards is asked of that
//! descriptor. A directory that is another one in the end than it was at the beginning is refused.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_image::{Inode, Kind, Later, Meta, Open, Tree};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::Mode;

use super::ImageError;
use super::spool::Spool;
use store::digest::Digest;

/// How deep directories may lie: a path with names of three letters leads about as far (PATH_MAX is 4096 bytes).
const MAX_DEPTH: usize = 1000;

/// A digest that changes whenever anything in the directory does, without reading file content.
pub(super) fn key(dir: &Path) -> Result<Digest, ImageError> {
    let mut listing = Listing::default();
    visit(dir, &mut |found| {
        listing.add(found);
        Ok(())
    })?;
    Ok(listing.key(dir))
}

/// What tells a file from another one, and from itself before a change (stat(2)).
fn stamp(metadata: &Metadata) -> [u64; 10] {
    [
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
    ]
}

/// Everything in a directory, as it goes into its key.
#[derive(Default)]
struct Listing(Vec<u8>);

impl Listing {
    fn add(&mut self, found: &Found<'_>) {
        self.0.extend(found.relative.as_os_str().as_bytes());
        self.0.push(0);
        self.0.extend(stamp(&found.metadata).into_iter().flat_map(u64::to_le_bytes));
    }

    fn key(&self, dir: &Path) -> Digest {
        Digest::of_parts([("directory", dir.as_os_str().as_bytes()), ("entries", &self.0)])
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
        let file = open_below(&self.root, &self.relative)?;
        let metadata = file.metadata()?;
        if stamp(&metadata) == self.stamp {
            return Ok(file);
        }
        Err(io::Error::other(format!("{} {CHANGED}", self.relative.display())))
    }
}

/// Opens what has a path of no links below `root`.
fn open_below(root: &File, relative: &Path) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(root, relative, how) {
        Ok(file) => Ok(file.into()),
        // A path longer than the kernel takes, and kernels and sandboxes that do not know the call.
        Err(Errno::ENAMETOOLONG | Errno::ENOSYS | Errno::EPERM) => {
            let (parent, name) = (relative.parent(), relative.file_name());
            let parent = enter(root, parent.unwrap_or(Path::new("")))?;
            open_name(&parent, name.unwrap_or_default(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)
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
    let mut listing = Listing::default();
    let refers = spool.elsewhere().is_some();
    let root = Arc::new(open_top(dir)?);
    let mut top = None;
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    tree.begin_layer();
    visit(dir, &mut |found| {
        listing.add(found);
        let metadata = &found.metadata;
        let owner = *top.get_or_insert((metadata.uid(), metadata.gid()));
        let name = found.relative.as_os_str().as_bytes();
        let misfit = |source| ImageError::Layer {
            path: dir.to_path_buf(),
            layer: found.relative.display().to_string(),
            source: Box::new(source),
        };
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = first_names.get(&inode) {
                return tree.put_hard_link(name, first.as_os_str().as_bytes()).map_err(misfit);
            }
            first_names.insert(inode, found.relative.to_path_buf());
        }
        let kind = kind(found, spool, refers.then_some(&root))?;
        let meta = meta(found, owner)?;
        tree.put(name, Inode { meta, kind }).map_err(misfit)?;
        match tree.len() > spool.ceiling().entries {
            true => {
                let most = spool.ceiling().entries;
                Err(ImageError::source(dir, format!("it has more than {most} entries")))
            }
            false => Ok(()),
        }
    })?;
    let key = listing.key(dir);
    match spool.elsewhere() {
        Some(elsewhere) => elsewhere.push((dir.to_path_buf(), key)),
        None => unchanged(dir, key)?,
    }
    Ok(())
}

/// What has a name in the directory.
struct Found<'a> {
    /// Below the directory; empty for the directory itself.
    relative: &'a Path,
    /// Where it is, for messages.
    path: PathBuf,
    metadata: Metadata,
    /// Only names it: opened with O_PATH.
    handle: File,
}

impl Found<'_> {
    /// A path that leads to just this (proc(5), /proc/pid/fd), whatever its name leads to now.
    fn itself(&self) -> PathBuf {
        itself(&self.handle)
    }
}

fn itself(handle: &File) -> PathBuf {
    format!("/proc/self/fd/{}", handle.as_raw_fd()).into()
}

/// What it is. Content stays where it is if `root`, the directory, is given; else it is copied to the spool.
fn kind(found: &Found<'_>, spool: &mut Spool, root: Option<&Arc<File>>) -> Result<Kind, ImageError> {
    let (metadata, path) = (&found.metadata, &found.path);
    let file_type = metadata.file_type();
    let major = u32::try_from(nix::sys::stat::major(metadata.rdev())).unwrap_or_default();
    let minor = u32::try_from(nix::sys::stat::minor(metadata.rdev())).unwrap_or_default();
    Ok(if file_type.is_dir() {
        Kind::Directory(BTreeMap::new())
    } else if file_type.is_symlink() {
        let target = readlinkat(&found.handle, "")
            .map_err(|errno| ImageError::io("read the link", path, errno.into()))?;
        Kind::Symlink(target.as_bytes().to_vec())
    } else if file_type.is_char_device() {
        Kind::Char { major, minor }
    } else if file_type.is_block_device() {
        Kind::Block { major, minor }
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if let Some(root) = root {
        spool.count(metadata.size()).map_err(|error| ImageError::io("pack", path, error))?;
        let (root, relative) = (Arc::clone(root), found.relative.to_path_buf());
        let member = Member { root, relative, stamp: stamp(metadata) };
        Kind::File(Later::new(Arc::new(member), metadata.size()).into())
    } else {
        let mut file = File::open(found.itself()).map_err(|error| ImageError::io("open", path, error))?;
        Kind::File(spool.append(&mut file).map_err(|error| ImageError::io("copy", path, error))?.into())
    })
}

fn meta(found: &Found<'_>, owner: (u32, u32)) -> Result<Meta, ImageError> {
    let metadata = &found.metadata;
    let failed = |error| ImageError::io("read the extended attributes of", &found.path, error);
    let mut xattrs = BTreeMap::new();
    if xattr::SUPPORTED_PLATFORM && !metadata.file_type().is_symlink() {
        let itself = found.itself();
        match xattr::list_deref(&itself) {
            Ok(names) => {
                for name in names {
                    if let Some(value) = xattr::get_deref(&itself, &name).map_err(failed)? {
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
        uid: if metadata.uid() == owner.0 { 0 } else { metadata.uid() },
        gid: if metadata.gid() == owner.1 { 0 } else { metadata.gid() },
        mtime: u64::try_from(metadata.mtime()).unwrap_or_default(),
        mtime_nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        xattrs,
    })
}

/// Calls `each` for the directory and everything below it, parents first, names in order. Links are not followed.
fn visit(top: &Path, each: &mut impl FnMut(&Found<'_>) -> Result<(), ImageError>) -> Result<(), ImageError> {
    let failed = |operation, path: &Path| {
        let path = path.to_path_buf();
        move |error| ImageError::io(operation, path, error)
    };
    let root = open_top(top)?;
    let metadata = root.metadata().map_err(failed("read", top))?;
    let handle = root.try_clone().map_err(failed("open", top))?;
    each(&Found { relative: Path::new(""), path: top.to_path_buf(), metadata, handle })?;
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let at = top.join(&below);
        let dir = enter(&root, &below).map_err(failed("open", &at))?;
        let mut names = fs::read_dir(itself(&dir))
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>())
            .map_err(failed("list", &at))?;
        names.sort();
        let mut directories = Vec::new();
        for name in names {
            let (relative, path) = (below.join(&name), at.join(&name));
            let handle = open_name(&dir, &name, OFlag::O_PATH).map_err(failed("open", &path))?;
            let metadata = handle.metadata().map_err(failed("read", &path))?;
            let is_dir = metadata.is_dir();
            each(&Found { relative: &relative, path, metadata, handle })?;
            if is_dir {
                directories.push(relative);
            }
        }
        pending.extend(directories.into_iter().rev());
    }
    Ok(())
}

fn open_top(top: &Path) -> Result<File, ImageError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_PATH;
    let root = nix::fcntl::open(top, flags, Mode::empty()).map(File::from);
    root.map_err(|errno| ImageError::io("open", top, errno.into()))
}

/// Opens a directory below `root`, name by name, none of which may be a link.
fn enter(root: &File, below: &Path) -> io::Result<File> {
    let mut at = root.try_clone()?;
    for (depth, name) in below.iter().enumerate() {
        if depth == MAX_DEPTH {
            return Err(io::Error::other(format!("it is more than {MAX_DEPTH} directories deep")));
        }
        at = open_name(&at, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    }
    Ok(at)
}

fn open_name(dir: &File, name: &OsStr, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty()).map(File::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Ceiling;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn spool() -> Spool {
        Spool::new(&std::env::temp_dir(), Ceiling::default()).unwrap()
    }

    fn filled(dir: &Path, mut spool: Spool) -> Result<Vec<Vec<u8>>, ImageError> {
        let mut tree = Tree::new();
        fill(dir, &mut tree, &mut spool)?;
        let file = |name: &[u8]| {
            let bytes = tree.file(name).unwrap().bytes().map(std::borrow::Cow::into_owned);
            bytes.map_err(|error| ImageError::io("read", dir, error))
        };
        let content = vec![file(b"swapped")?, file(b"sub/file")?];
        settle(&mut spool)?;
        Ok(content)
    }

    /// A directory in which a file and a directory change places with links to a secret, all the time.
    #[test]
    fn what_is_swapped_for_a_link_is_never_followed() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("file"), "secret").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("swapped"), "plain").unwrap();
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/file"), "plain").unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), at("other")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("another")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
                let swap = |a: &Path, b: &Path| {
                    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).ok();
                };
                while !stop.load(Ordering::Relaxed) {
                    swap(&at("swapped"), &at("other"));
                    swap(&at("sub"), &at("another"));
                }
            });
            for _ in 0..300 {
                let mut copies = spool();
                drop(fill(dir.path(), &mut Tree::new(), &mut copies));
                // "secret" is in none of the content that was taken, whether the packing succeeded or not.
                let taken = copies.content();
                assert!(!taken.bytes().unwrap().windows(6).any(|window| window == b"secret"));
                let mut tree = Tree::new();
                drop(fill(dir.path(), &mut tree, &mut spool().referring()));
                for name in [&b"swapped"[..], b"sub/file"] {
                    if let Some(Ok(bytes)) = tree.file(name).map(|content| content.bytes()) {
                        assert_eq!(&*bytes, b"plain");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_directory_that_changes_while_it_is_packed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["swapped", "sub/file"] {
            fs::write(dir.path().join(name), "plain").unwrap();
        }
        for spool in [spool(), spool().referring()] {
            assert_eq!(filled(dir.path(), spool).unwrap(), [b"plain", b"plain"]);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::write(dir.path().join("swapped"), "plain").unwrap();
                }
            });
            let changed = |spool| match filled(dir.path(), spool) {
                Err(error) => format!("{:?}", anyhow::Error::from(error)).contains(CHANGED),
                Ok(_) => false,
            };
            let is_noticed = (0..200).any(|_| changed(spool()));
            let is_noticed_later = (0..200).any(|_| changed(spool().referring()));
            stop.store(true, Ordering::Relaxed);
            assert!(is_noticed && is_noticed_later);
        });
    }

    #[test]
    fn content_that_stays_where_it_is_counts() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), [b'a'; 6]).unwrap();
        fs::write(dir.path().join("b"), [b'b'; 6]).unwrap();
        for (bytes, is_fine) in [(12, true), (11, false)] {
            let ceiling = Ceiling { bytes, ..Ceiling::default() };
            let mut spool = Spool::new(&std::env::temp_dir(), ceiling).unwrap().referring();
            let filled = fill(dir.path(), &mut Tree::new(), &mut spool);
            assert_eq!(filled.is_ok(), is_fine, "{bytes}: {filled:?}");
        }
    }

    #[test]
    fn a_member_is_found_where_paths_end() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(250);
        let mut at = PathBuf::new();
        let root = open_top(dir.path()).unwrap();
        for _ in 0..20 {
            let parent = enter(&root, &at).unwrap();
            nix::sys::stat::mkdirat(&parent, long.as_str(), Mode::S_IRWXU).unwrap();
            at.push(&long);
        }
        let parent = enter(&root, &at).unwrap();
        fs::write(itself(&parent).join("file"), "deep").unwrap();
        let file = open_below(&root, &at.join("file")).unwrap();
        assert_eq!(std::io::read_to_string(file).unwrap(), "deep");
        std::os::unix::fs::symlink("file", itself(&parent).join("link")).unwrap();
        assert!(open_below(&root, &at.join("link")).is_err());
        let rm = std::process::Command::new("rm").arg("-rf").arg(dir.path().join(&long)).status().unwrap();
        assert!(rm.success());
    }

    #[test]
    fn a_directory_too_deep_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        // By descriptors, since no path leads there; removed in the same way.
        let mut chain = vec![File::open(dir.path()).unwrap()];
        for _ in 0..MAX_DEPTH + 1 {
            let at = chain.last().unwrap();
            nix::sys::stat::mkdirat(at, "d", Mode::S_IRWXU).unwrap();
            let next = open_name(at, OsStr::new("d"), OFlag::O_PATH | OFlag::O_DIRECTORY).unwrap();
            // Two at a time are enough, but for the way back.
            chain.push(next);
            if chain.len() > 900 {
                chain.drain(1..450);
            }
        }
        let error = fill(dir.path(), &mut Tree::new(), &mut spool()).unwrap_err();
        let text = format!("{:?}", anyhow::Error::from(error));
        assert!(text.contains("directories deep"), "{text}");
        // As no path leads to the end, not everything can remove it.
        assert!(
            std::process::Command::new("rm").arg("-rf").arg(dir.path().join("d")).status().unwrap().success()
        );
    }
}
