//! Applies one layer, a tar archive, to a [`Tree`].
//!
//! Knows the whiteout names of the OCI image specification, and what a file system can hold of what an archive says. Names
//! are resolved as containerd and umoci do it: first by their text (`a/../b` is `b`), then along the links that are there.
//! Must never skip an entry it does not understand: a layer is applied whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Read};

use fs_image::{Extent, Inode, Kind, Meta, Tree, TreeError};

use super::spool::Spool;
use super::tar::{Member, Reader, Source, Stream, TarError, flag};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of this form are aufs's own bookkeeping.
const BOOKKEEPING: &[u8] = b".wh..wh.";
/// The longest target of a symbolic link: the kernel's PATH_MAX, without its NUL.
const MAX_TARGET: usize = 4095;
/// The most that the extended attributes of one file may take: what a file system has room for, and the kernel for one of them.
const MAX_ATTRIBUTES: usize = 1 << 16;
/// The largest numbers that the kernel has for a device: 12 and 20 bits.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;
/// The last second whose nanoseconds since 1970 fit 64 bits, in the year 2262.
const LAST_SECOND: i64 = i64::MAX / 1_000_000_000;

/// Why a layer could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    #[error(transparent)]
    Archive(#[from] TarError),
    #[error("cannot store the content of {path:?}")]
    Spool {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("entry {path:?}")]
    Tree {
        path: String,
        #[source]
        source: TreeError,
    },
    #[error("entry {path:?}: {problem}")]
    Entry { path: String, problem: String },
}

/// Applies the tar archive `layer`.
pub(super) fn apply(tree: &mut Tree, spool: &mut Spool, layer: impl Read) -> Result<(), LayerError> {
    tree.begin_layer();
    let mut archive = Reader::new(Stream(layer));
    while let Some(member) = archive.next()? {
        put(tree, spool, &mut archive, &member)?;
    }
    Ok(())
}

fn put<R: Source>(
    tree: &mut Tree,
    spool: &mut Spool,
    archive: &mut Reader<R>,
    member: &Member,
) -> Result<(), LayerError> {
    let written = &member.path;
    let in_tree = |source| LayerError::Tree { path: display(written), source };
    let path = clean(written).map_err(in_tree)?;

    let (parent, name) = split(&path);
    if name == OPAQUE {
        return tree.make_opaque(parent).map_err(in_tree);
    }
    if name.starts_with(BOOKKEEPING) {
        return Ok(());
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(problem(written, "a whiteout that hides nothing"));
        }
        let hidden = [parent, b"/", hidden].concat();
        return tree.white_out(&hidden).map_err(in_tree);
    }

    let kind = match member.flag {
        flag::HARD_LINK => {
            let target = clean(&member.link).map_err(in_tree)?;
            // What is replaced goes first, so it cannot be linked to.
            if target.strip_prefix(&path[..]).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
                return Err(problem(
                    written,
                    "a hard link to itself, or into the directory that it replaces",
                ));
            }
            return tree.put_hard_link(&path, &target).map_err(in_tree);
        }
        flag::REGULAR | flag::CONTIGUOUS | flag::GNU_SPARSE => {
            Kind::File(content(spool, archive, member)?.into())
        }
        flag::DIRECTORY => Kind::Directory(BTreeMap::new()),
        flag::SYMLINK if member.link.is_empty() => {
            return Err(problem(written, "a symbolic link that leads nowhere"));
        }
        flag::SYMLINK if member.link.len() > MAX_TARGET => {
            return Err(problem(written, format!("a symbolic link of more than {MAX_TARGET} bytes")));
        }
        flag::SYMLINK => Kind::Symlink(member.link.clone()),
        flag::FIFO => Kind::Fifo,
        flag::CHAR | flag::BLOCK => {
            let number = |value: i64, most| u32::try_from(value).ok().filter(|number| *number <= most);
            let (Some(major), Some(minor)) =
                (number(member.device.0, MAX_MAJOR), number(member.device.1, MAX_MINOR))
            else {
                return Err(problem(written, "a device with a number that does not exist"));
            };
            if member.flag == flag::CHAR { Kind::Char { major, minor } } else { Kind::Block { major, minor } }
        }
        other => {
            return Err(problem(
                written,
                format!("entries of type {:?} are not supported", char::from(other)),
            ));
        }
    };
    let meta = metadata(member).map_err(|text| problem(written, text))?;
    let attributes = member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if attributes > MAX_ATTRIBUTES {
        return Err(problem(written, format!("extended attributes of more than {MAX_ATTRIBUTES} bytes")));
    }
    spool.count_attributes(attributes as u64).map_err(|error| problem(written, error.to_string()))?;
    tree.put(&path, Inode { meta, kind }).map_err(in_tree)?;
    if tree.len() > spool.ceiling().entries {
        return Err(problem(written, format!("the image has more than {} entries", spool.ceiling().entries)));
    }
    Ok(())
}

/// Takes a file's content out of the archive.
fn content<R: Source>(
    spool: &mut Spool,
    archive: &mut Reader<R>,
    member: &Member,
) -> Result<Extent, LayerError> {
    let cannot_store = |source| LayerError::Spool { path: display(&member.path), source };
    let is_cut = || problem(&member.path, "the archive ends inside this file");
    let extent = match &member.fragments {
        None => spool.expect(member.size).and_then(|()| spool.append(archive)).map_err(cannot_store)?,
        Some(fragments) => {
            let stretches = fragments.iter().map(|fragment| (fragment.offset, fragment.len));
            spool.append_sparse(archive, member.size, stretches).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => is_cut(),
                _ => cannot_store(error),
            })?
        }
    };
    if extent.len != member.size {
        return Err(is_cut());
    }
    if archive.left() > 0 {
        return Err(problem(&member.path, "more data than its sparse map has room for"));
    }
    Ok(extent)
}

fn metadata(member: &Member) -> Result<Meta, String> {
    let (mtime, mtime_nsec) = time(member.mtime);
    Ok(Meta {
        mode: u16::try_from(member.mode & 0o7777).unwrap_or_default(),
        uid: owner(member.uid).ok_or_else(|| format!("the uid {} does not exist", member.uid))?,
        gid: owner(member.gid).ok_or_else(|| format!("the gid {} does not exist", member.gid))?,
        mtime,
        mtime_nsec,
        xattrs: member.xattrs.clone(),
    })
}

/// A user or a group as chown(2) takes it: 32 bits, with a sign or without; -1 leaves the owner as he is, which is root.
fn owner(id: i64) -> Option<u32> {
    let id = match i32::try_from(id) {
        Ok(id) => id.cast_unsigned(),
        Err(_) => u32::try_from(id).ok()?,
    };
    Some(if id == u32::MAX { 0 } else { id })
}

/// A time as containerd sets it: what is before 1970, or after what nanoseconds in 64 bits can tell, is 1970.
fn time((seconds, nanoseconds): (i64, i32)) -> (u64, u32) {
    match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
        (Ok(since), Ok(nanoseconds)) if seconds < LAST_SECOND => (since, nanoseconds),
        _ => (0, 0),
    }
}

/// A path without empty parts and dots, and with each `..` and the part before it left out; empty for the root.
fn clean(path: &[u8]) -> Result<Vec<u8>, TreeError> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or_else(|| TreeError::Escape(display(path)))?),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// The directory part and the last component of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn problem(path: &[u8], text: impl Into<String>) -> LayerError {
    LayerError::Entry { path: display(path), problem: text.into() }
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tar::{EntryType, Header};
    use fs_image::InodeId;

    struct Layer(::tar::Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Self {
            Self(::tar::Builder::new(Vec::new()))
        }

        fn entry(mut self, kind: EntryType, path: &str, link: &str, body: &[u8]) -> Self {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            // set_path refuses what a hostile archive would hold, so the name is written by hand.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_mode(0o4751);
            header.set_uid(12);
            header.set_gid(34);
            header.set_mtime(1_700_000_000);
            header.set_size(body.len() as u64);
            if kind == EntryType::Char {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            header.set_cksum();
            self.0.append(&header, body).unwrap();
            self
        }

        fn file(self, path: &str) -> Self {
            self.entry(EntryType::Regular, path, "", b"data")
        }

        fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
            self.0.append_pax_extensions(records.iter().copied()).unwrap();
            self
        }

        fn bytes(self) -> Vec<u8> {
            self.0.into_inner().unwrap()
        }
    }

    fn tree_of(layers: Vec<Layer>) -> Result<(Tree, Spool), LayerError> {
        let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
        let mut tree = Tree::new();
        for layer in layers {
            apply(&mut tree, &mut spool, &layer.bytes()[..])?;
        }
        Ok((tree, spool))
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.names(InodeId::ROOT).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn metadata_and_content_arrive() {
        let (tree, _) = tree_of(vec![Layer::new().file("./bin/su")]).unwrap();
        let inode = tree.inode(tree.find(b"bin/su").unwrap().unwrap());
        let meta = Meta { mode: 0o4751, uid: 12, gid: 34, mtime: 1_700_000_000, ..Meta::default() };
        assert_eq!(inode.meta, meta);
        assert_eq!(&*tree.file(b"/bin/su").unwrap().bytes().unwrap(), b"data");
    }

    #[test]
    fn pax_values_may_hold_anything() {
        let value = b"\x01\x00\x00\x02\n\n=\x00 5\n";
        let layer = Layer::new()
            .pax(&[
                ("SCHILY.xattr.security.capability", value),
                ("uid", b"3000000"),
                ("mtime", b"1700000001.5"),
                ("path", "long/näme".as_bytes()),
            ])
            .file("short")
            .file("plain");
        let (tree, _) = tree_of(vec![layer]).unwrap();
        let inode = tree.inode(tree.find("long/näme".as_bytes()).unwrap().unwrap());
        assert_eq!(inode.meta.xattrs[&b"security.capability"[..]], value);
        assert_eq!(
            (inode.meta.uid, inode.meta.mtime, inode.meta.mtime_nsec),
            (3_000_000, 1_700_000_001, 500_000_000)
        );
        assert_eq!(tree.inode(tree.find(b"plain").unwrap().unwrap()).meta.uid, 12);
    }

    #[test]
    fn whiteouts_and_opaque_directories() {
        let lower = Layer::new().file("a").file("b").file("d/x").file("d/y/z");
        let upper = Layer::new().file(".wh.a").file("d/.wh..wh..opq").file("d/n").file(".wh..wh.plnk");
        let (tree, _) = tree_of(vec![lower, upper]).unwrap();
        assert_eq!(names(&tree), ["b", "d"]);
        assert_eq!(tree.find(b"d/x").unwrap(), None);
        assert_eq!(tree.find(b"d/y").unwrap(), None);
        assert!(tree.find(b"d/n").unwrap().is_some());
    }

    #[test]
    fn special_files_and_links() {
        let layer = Layer::new()
            .file("f")
            .entry(EntryType::Link, "hard", "f", b"")
            .entry(EntryType::Symlink, "soft", "../../etc", b"")
            .entry(EntryType::Char, "null", "", b"")
            .entry(EntryType::Fifo, "pipe", "", b"");
        let (tree, _) = tree_of(vec![layer]).unwrap();
        let kind = |path: &str| tree.inode(tree.find(path.as_bytes()).unwrap().unwrap()).kind.clone();
        assert_eq!(tree.find(b"hard").unwrap(), tree.find(b"f").unwrap());
        assert_eq!(kind("soft"), Kind::Symlink(b"../../etc".to_vec()));
        assert_eq!(kind("null"), Kind::Char { major: 1, minor: 3 });
        assert_eq!(kind("pipe"), Kind::Fifo);
    }

    #[test]
    fn hostile_entries_are_refused() {
        let refused = |layer: Layer| match tree_of(vec![layer]) {
            Ok(_) => panic!("applied"),
            Err(error) => error.to_string(),
        };
        assert!(refused(Layer::new().file("../../etc/passwd")).contains("../../etc/passwd"));
        assert!(refused(Layer::new().entry(EntryType::Link, "x", "../../etc/shadow", b"")).contains("\"x\""));
        assert!(refused(Layer::new().entry(EntryType::new(b'Z'), "s", "", b"")).contains("'Z'"));
        assert!(refused(Layer::new().file("d/.wh..")).contains("hides nothing"));
        let escape = Layer::new().entry(EntryType::Symlink, "out", "/../..", b"").file("out/etc/x");
        // Not an escape: the link leads to the image's own root.
        assert!(tree_of(vec![escape]).unwrap().0.find(b"etc/x").unwrap().is_some());
    }

    #[test]
    fn a_truncated_layer_is_an_error() {
        let mut bytes = Layer::new().entry(EntryType::Regular, "f", "", &[7; 5000]).bytes();
        bytes.truncate(3000);
        let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
        assert!(apply(&mut Tree::new(), &mut spool, &bytes[..]).is_err());
    }

    #[test]
    fn extended_attributes_are_bounded() {
        let value = vec![b'x'; MAX_ATTRIBUTES - 6];
        let layer = |value: &[u8]| Layer::new().pax(&[("SCHILY.xattr.user.a", value)]).file("f");
        assert!(tree_of(vec![layer(&value)]).is_ok());
        let error = tree_of(vec![layer(&vec![b'x'; MAX_ATTRIBUTES - 5])]).unwrap_err().to_string();
        assert!(error.contains("extended attributes"), "{error}");
        let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
        let layer = layer(&value).bytes();
        let applied = (0..5000).map(|_| apply(&mut Tree::new(), &mut spool, &layer[..]));
        let error = applied.filter_map(Result::err).next().unwrap().to_string();
        assert!(error.contains("of all files"), "{error}");
    }

    #[test]
    fn owners_and_times_are_those_of_the_tools() {
        assert_eq!(owner(-2), Some(4_294_967_294));
        assert_eq!([owner(-1), owner(4_294_967_295), owner(0)], [Some(0); 3]);
        assert_eq!([owner(4_294_967_296), owner(i64::from(i32::MIN) - 1)], [None; 2]);
        assert_eq!(time((12, 5)), (12, 5));
        for before in [(-1, 0), (0, -1), (-5, -500), (i64::MIN, 0), (i64::MAX, 0)] {
            assert_eq!(time(before), (0, 0), "{before:?}");
        }
    }

    #[test]
    fn names_are_resolved_by_their_text_first() {
        let layer = Layer::new().file("./x/../y").file("a/b/../../c/.").file("/d//e");
        assert_eq!(names(&tree_of(vec![layer]).unwrap().0), ["c", "d", "y"]);
        for out in ["x/../../y", "../y", "/.."] {
            let error = tree_of(vec![Layer::new().file(out)]).unwrap_err();
            assert!(matches!(error, LayerError::Tree { source: TreeError::Escape(_), .. }), "{out}: {error}");
        }
        let layer = Layer::new().file("f/f").entry(EntryType::Link, "f", "f/f", b"");
        assert!(tree_of(vec![layer]).unwrap_err().to_string().contains("into the directory"));
        let layer = Layer::new().file("f").entry(EntryType::Link, "hard", "x/../f", b"");
        assert!(tree_of(vec![layer]).unwrap().0.find(b"hard").unwrap().is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_applied_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4096)) {
            let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
            drop(apply(&mut Tree::new(), &mut spool, &bytes[..]));
        }

        #[test]
        fn no_path_leads_out(parts in proptest::collection::vec("[.a-c]{1,3}|\\.wh\\.[a.]{0,3}", 1..6)) {
            let path = parts.join("/");
            let layer = Layer::new().entry(EntryType::Symlink, "a", "../..", b"").file(&path);
            if let Ok((tree, _)) = tree_of(vec![layer]) {
                for (name, _) in tree.names(InodeId::ROOT) {
                    proptest::prop_assert!(!matches!(name, b"" | b"." | b".."));
                }
            }
        }
    }
}
