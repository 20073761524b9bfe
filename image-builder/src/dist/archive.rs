//! A tree as a tar archive in xz.
//!
//! Promises that the same tree gives the same bytes: entries are sorted, everything belongs to root, all times are one time, and
//! one thread compresses.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use fs_image::{Kind, Tree};
use products::format::compress;

use super::DistError;

/// Writes the tree into the new file `path`. `prefix` is put before the names, `./` or nothing. A tree with the prefix `./` has
/// an entry for its root, as Debian's packages do.
///
/// # Errors
/// When the tree has something else than files, directories and links, or when something cannot be read or written.
pub(super) fn write(tree: &Tree, prefix: &str, epoch: u32, path: &Path) -> Result<(), DistError> {
    let failed = || DistError::io("write", path);
    let file = File::create_new(path).map_err(DistError::io("create", path))?;
    let out = compress::archive(BufWriter::new(file)).map_err(failed())?;
    let mut archive = tar::Builder::new(out);
    if !prefix.is_empty() {
        let root = header(tar::EntryType::Directory, 0o755, 0, epoch).map_err(failed())?;
        append(&mut archive, root, prefix, io::empty()).map_err(failed())?;
    }
    for (name, id) in tree.walk() {
        let inode = tree.inode(id);
        let name = String::from_utf8_lossy(&name);
        let name = format!("{prefix}{}", name.trim_start_matches('/'));
        let mode = u32::from(inode.meta.mode);
        let written = match &inode.kind {
            Kind::Directory(_) => header(tar::EntryType::Directory, mode, 0, epoch)
                .and_then(|header| append(&mut archive, header, &format!("{name}/"), io::empty())),
            Kind::File(content) => header(tar::EntryType::Regular, mode, content.len(), epoch)
                .and_then(|header| append(&mut archive, header, &name, &*content.bytes()?)),
            Kind::Symlink(target) => {
                header(tar::EntryType::Symlink, 0o777, 0, epoch).and_then(|mut header| {
                    header.set_link_name(&*String::from_utf8_lossy(target))?;
                    append(&mut archive, header, &name, io::empty())
                })
            }
            other => return Err(DistError::Kind(name, other.name())),
        };
        written.map_err(failed())?;
    }
    let out = archive.into_inner().and_then(|out| out.finish()).map_err(failed())?;
    let file = out.into_inner().map_err(|error| error.into_error()).map_err(failed())?;
    file.sync_all().map_err(failed())
}

fn header(kind: tar::EntryType, mode: u32, size: u64, epoch: u32) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(epoch.into());
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    Ok(header)
}

/// The name is set as it is: the crate would drop the `./` that dpkg's own archives have.
fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    mut header: tar::Header,
    name: &str,
    content: impl io::Read,
) -> io::Result<()> {
    let field = &mut header.as_old_mut().name;
    if name.len() > field.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is longer than 100 bytes")));
    }
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    archive.append(&header, content)
}
