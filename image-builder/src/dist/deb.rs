//! A Debian package: an `ar` archive of a version, a tree that describes the package, and the tree that is installed (deb(5)).
//!
//! Promises the same bytes for the same tree. The package runs no script when it is installed or removed.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use fs_image::{Inode, Kind, Tree};
use md5::{Digest as _, Md5};

use super::{DistError, archive};

/// What the package says about itself.
#[derive(Debug, Clone)]
pub(super) struct Control<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// Name and address.
    pub(super) maintainer: &'a str,
    /// Fields such as `Depends`, in the order in which they are written.
    pub(super) relations: &'a [(&'a str, &'a str)],
    /// One line.
    pub(super) summary: &'a str,
    /// Lines of the description. An empty line separates paragraphs.
    pub(super) description: &'a str,
}

/// Debian's name for x86_64.
pub(super) const ARCHITECTURE: &str = "amd64";

impl Control<'_> {
    fn text(&self, installed_kib: u64) -> String {
        let Self { name, version, maintainer, relations, summary, description } = self;
        let mut text = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {ARCHITECTURE}\nMaintainer: {maintainer}\n\
             Installed-Size: {installed_kib}\n"
        );
        for (field, value) in *relations {
            text += &format!("{field}: {value}\n");
        }
        text += &format!("Section: admin\nPriority: optional\nDescription: {summary}\n");
        for line in description.lines() {
            text += &format!(" {}\n", if line.is_empty() { "." } else { line });
        }
        text
    }
}

/// Whether Debian's tools accept a maintainer: `NAME <ADDRESS>` on one line.
pub(super) fn is_maintainer(text: &str) -> bool {
    let parts = text.split_once(" <").and_then(|(name, rest)| Some((name, rest.strip_suffix('>')?)));
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['<', '>', '\n', '\r']);
    parts.is_some_and(|(name, address)| {
        is_plain(name) && is_plain(address) && address.contains('@') && !address.contains(' ')
    })
}

/// Writes the package of `tree` into the new file `path`. Its parts are made in the directory `work`.
///
/// # Errors
/// When something cannot be read or written.
pub(super) fn write(
    tree: &Tree,
    control: &Control<'_>,
    epoch: u32,
    work: &Path,
    path: &Path,
) -> Result<(), DistError> {
    let (mut sums, mut kib) = (String::new(), 0);
    for (name, id) in tree.walk() {
        let name = String::from_utf8_lossy(&name);
        // As dpkg-gencontrol counts: whole KiB for files, one for anything else.
        kib += match &tree.inode(id).kind {
            Kind::File(content) => {
                let bytes = content.bytes().map_err(DistError::io("read", &*name))?;
                let sum: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                sums += &format!("{sum}  {}\n", name.trim_start_matches('/'));
                content.len().div_ceil(1024)
            }
            _ => 1,
        };
    }
    let mut description = Tree::new();
    for (name, text) in [("/control", control.text(kib)), ("/md5sums", sums)] {
        description.insert(name, Inode::new(0o644, Kind::File(text.into_bytes().into())))?;
    }
    let parts = [("control.tar.xz", &description), ("data.tar.xz", tree)];
    for (name, tree) in parts {
        archive::write(tree, "./", epoch, &work.join(name))?;
    }
    let failed = || DistError::io("write", path);
    let mut out = File::create_new(path).map_err(DistError::io("create", path))?;
    out.write_all(b"!<arch>\n").map_err(failed())?;
    member(&mut out, "debian-binary", epoch, 4, &b"2.0\n"[..]).map_err(failed())?;
    for (name, _) in parts {
        let part = work.join(name);
        let file = File::open(&part).map_err(DistError::io("read", &part))?;
        let size = file.metadata().map_err(DistError::io("inspect", &part))?.len();
        member(&mut out, name, epoch, size, file).map_err(failed())?;
    }
    out.sync_all().map_err(failed())
}

/// One file of an `ar` archive: a head of 60 bytes of text, and the content, padded to an even length.
fn member(out: &mut File, name: &str, epoch: u32, size: u64, content: impl io::Read) -> io::Result<()> {
    let head = format!("{name:<16}{epoch:<12}{:<6}{:<6}{:<8o}{size:<10}`\n", 0, 0, 0o100_644);
    if head.len() != 60 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name} does not fit into an archive"),
        ));
    }
    out.write_all(head.as_bytes())?;
    let copied = io::copy(&mut content.take(size), out)?;
    if copied != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if size % 2 == 1 { out.write_all(b"\n") } else { Ok(()) }
}
