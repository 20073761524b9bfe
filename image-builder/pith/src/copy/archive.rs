//! Converts between the stream of the guest and a tar archive.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use parcel::{Copied, Entry, Kind, MOST_PATH, read_entry, write_entry};

/// Bounds of what is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// Writes a guest's tree as an archive: what is in it under `name`, or relative to the tree.
pub(super) fn to_tar(
    input: &mut dyn Read,
    out: &mut dyn Write,
    name: Option<&str>,
    bounds: Bounds,
) -> anyhow::Result<Copied> {
    let mut archive = tar::Builder::new(out);
    let mut done = Copied::default();
    loop {
        let entry = read_entry(input)?;
        if entry.kind == Kind::End {
            break;
        }
        if entry.kind == Kind::Skipped {
            done.skipped += 1
        } else {
            done.entries += 1
        }
        ensure!(
            done.entries + done.skipped <= bounds.entries,
            "there are more files to copy than {}",
            bounds.entries
        );
        let parts: Vec<&[u8]> = entry.path.split(|&byte| byte == b'/').collect();
        let is_plain = |part: &&[u8]| !matches!(*part, b"" | b"." | b"..") && !part.contains(&0);
        ensure!(entry.path.is_empty() || parts.iter().all(is_plain), "the guest sent a path that leads out");
        let mut path = PathBuf::from(name.unwrap_or("."));
        if !entry.path.is_empty() {
            path.push(OsStr::from_bytes(&entry.path));
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        // Times before 1970 have no place in a header.
        header.set_mtime(u64::try_from(entry.changed.0).unwrap_or(0));
        header.set_size(0);
        match entry.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, path.join(""), io::empty())?;
            }
            Kind::File => {
                done.bytes = done.bytes.saturating_add(entry.size);
                ensure!(done.bytes <= bounds.bytes, "there is more to copy than {} bytes", bounds.bytes);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(entry.size);
                let mut data = Exactly { input: &mut *input, left: entry.size };
                archive.append_data(&mut header, path, &mut data)?;
            }
            Kind::Symlink | Kind::HardLink => {
                let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
                ensure!(size <= MOST_PATH, "the guest sent a link whose target is too long");
                let mut target = vec![0; size];
                input.read_exact(&mut target)?;
                ensure!(entry.kind == Kind::Symlink, "the guest sent a link that it never sends");
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, path, OsStr::from_bytes(&target))?;
            }
            Kind::Skipped | Kind::End => {}
        }
    }
    archive.into_inner()?.flush()?;
    Ok(done)
}

/// As many bytes as there must be: fewer are an error, and not a shorter file.
struct Exactly<'a> {
    input: &'a mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            got => {
                self.left -= got as u64;
                Ok(got)
            }
        }
    }
}

/// Reads an archive as a tree for the guest, which makes it in a directory that is there.
pub(super) fn from_tar(input: &mut dyn Read, out: &mut dyn Write) -> anyhow::Result<Copied> {
    let mut done = Copied::default();
    write_entry(out, &Entry { kind: Kind::Directory, mode: 0o755, ..Entry::end() })?;
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries().context("standard input is not a tar archive")? {
        let mut entry = entry.context("standard input is not a tar archive")?;
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
            tar::EntryType::Symlink => Kind::Symlink,
            tar::EntryType::Link => Kind::HardLink,
            tar::EntryType::XGlobalHeader => continue,
            _ => {
                done.skipped += 1;
                continue;
            }
        };
        let id =
            |number: io::Result<u64>| number.ok().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
        let (mode, uid, gid) = (header.mode().unwrap_or(0o644) & 0o7777, id(header.uid()), id(header.gid()));
        let changed = (header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0);
        let path = below(&entry.path()?)?;
        // The directory itself is there.
        if path.is_empty() {
            continue;
        }
        let target = match kind {
            Kind::Symlink | Kind::HardLink => {
                let target =
                    entry.link_name()?.context("the archive has a link without a target")?.into_owned();
                match kind {
                    Kind::HardLink => Some(below(&target)?),
                    _ => Some(target.as_os_str().as_bytes().to_vec()),
                }
            }
            _ => None,
        };
        let size = target.as_ref().map_or_else(|| entry.size(), |target| target.len() as u64);
        let size = if kind == Kind::Directory { 0 } else { size };
        write_entry(out, &Entry { kind, mode, uid, gid, changed, size, path })?;
        done.entries += 1;
        match target {
            Some(target) => out.write_all(&target)?,
            None if kind == Kind::File => {
                done.bytes += size;
                let copied = io::copy(&mut entry, out)?;
                ensure!(copied == size, "the archive ends in the middle of a file");
            }
            None => {}
        }
    }
    write_entry(out, &Entry::end())?;
    out.flush()?;
    Ok(done)
}

/// A path of an archive, relative to the directory that it is unpacked in.
fn below(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the archive has the path {}, which leads out of the directory", path.display())
            }
        }
    }
    Ok(parts.into_os_string().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use parcel::{Options, Owner, pack, unpack};

    use super::*;

    const ALL: Bounds = Bounds { bytes: u64::MAX, entries: u64::MAX };

    #[test]
    fn a_tree_is_an_archive_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        let long = "n".repeat(150);
        std::fs::create_dir_all(from.join(&long)).unwrap();
        std::fs::write(from.join(&long).join(&long), "deep").unwrap();
        std::fs::write(from.join("file"), vec![1; 70_000]).unwrap();
        std::fs::set_permissions(from.join("file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("t".repeat(200), from.join("link")).unwrap();
        let mut stream = Vec::new();
        pack(std::fs::File::open(&from).unwrap().into(), &mut stream).unwrap();
        let mut archive = Vec::new();
        let done = to_tar(&mut &stream[..], &mut archive, Some("from"), ALL).unwrap();
        assert_eq!((done.entries, done.bytes), (5, 70_004));
        // As any other program reads it.
        let read = tar::Archive::new(&archive[..]).unpack(dir.path().join("tar"));
        read.unwrap();
        assert_eq!(std::fs::read(dir.path().join("tar/from/file")).unwrap(), vec![1; 70_000]);
        let mut again = Vec::new();
        from_tar(&mut &archive[..], &mut again).unwrap();
        let to = dir.path().join("to");
        std::fs::create_dir(&to).unwrap();
        let options =
            Options { owner: Owner::Own, set_id: true, most_bytes: u64::MAX, most_entries: u64::MAX };
        unpack(&mut &again[..], std::fs::File::open(&to).unwrap().as_fd(), None, &options).unwrap();
        let at = |name: &str| to.join("from").join(name);
        assert_eq!(std::fs::read_to_string(at(&long).join(&long)).unwrap(), "deep");
        assert_eq!(std::fs::metadata(at("file")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new(&"t".repeat(200)));
        for bounds in [Bounds { bytes: 70_003, ..ALL }, Bounds { entries: 4, ..ALL }] {
            assert!(to_tar(&mut &stream[..], &mut Vec::new(), None, bounds).is_err(), "{bounds:?}");
        }
        assert!(to_tar(&mut &stream[..stream.len() - 1], &mut Vec::new(), None, ALL).is_err());
    }

    #[test]
    fn paths_of_an_archive_stay_below() {
        for (path, expected) in [("/etc/x", "etc/x"), ("./a", "a"), ("./", ""), ("a//b/.", "a/b")] {
            assert_eq!(below(Path::new(path)).unwrap(), expected.as_bytes(), "{path}");
        }
        assert!(below(Path::new("a/../../b")).is_err());
        assert!(from_tar(&mut &b"no archive, but long enough to be looked at"[..], &mut Vec::new()).is_err());
    }
}
