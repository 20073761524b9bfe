//! Applies one layer, a tar archive, to a [`Tree`].
//!
//! Knows the tar dialects that image builders write (ustar, PAX, GNU long names) and the whiteout names of the OCI
//! image specification. The archive's extension headers are read here rather than by the `tar` crate, which cuts
//! PAX records at newlines and so loses extended attributes with binary values. Must never skip an entry it does
//! not understand: a layer is applied whole or not at all.

use std::collections::BTreeMap;
use std::io::{self, Read};

use fs_image::{Inode, Kind, Meta, Tree, TreeError};
use tar::{Archive, EntryType, Header};

use super::spool::Spool;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of this form are aufs's own bookkeeping.
const BOOKKEEPING: &[u8] = b".wh..wh.";
const XATTR: &[u8] = b"SCHILY.xattr.";
/// The largest extension header worth reading into memory.
const MAX_EXTENSION: u64 = 1 << 20;

/// Why a layer could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
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

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Applies the tar archive `layer`.
pub(crate) fn apply(tree: &mut Tree, spool: &mut Spool, layer: impl Read) -> Result<(), LayerError> {
    tree.begin_layer();
    let mut archive = Archive::new(layer);
    let mut next = Extensions::default();
    for entry in archive.entries().map_err(LayerError::Read)?.raw(true) {
        let mut entry = entry.map_err(LayerError::Read)?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => {
                let body = extension(&mut entry)?;
                for (key, value) in pax_records(&body).ok_or_else(|| problem(b"", "malformed PAX header"))? {
                    match key.as_slice() {
                        b"path" => next.path = Some(value),
                        b"linkpath" => next.link = Some(value),
                        _ => {
                            next.records.insert(key, value);
                        }
                    }
                }
            }
            EntryType::GNULongName => next.path = Some(without_nul(extension(&mut entry)?)),
            EntryType::GNULongLink => next.link = Some(without_nul(extension(&mut entry)?)),
            _ => {
                let extensions = std::mem::take(&mut next);
                put(tree, spool, &mut entry, extensions)?;
            }
        }
    }
    Ok(())
}

fn put<R: Read>(
    tree: &mut Tree,
    spool: &mut Spool,
    entry: &mut tar::Entry<'_, R>,
    extensions: Extensions,
) -> Result<(), LayerError> {
    let path = extensions.path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
    let link = extensions
        .link
        .or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned))
        .unwrap_or_default();
    let in_tree = |source| LayerError::Tree { path: display(&path), source };

    let (parent, name) = split(&path);
    if name == OPAQUE {
        return tree.make_opaque(parent).map_err(in_tree);
    }
    if name.starts_with(BOOKKEEPING) {
        return Ok(());
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(problem(&path, "a whiteout that hides nothing"));
        }
        let hidden = [parent, b"/", hidden].concat();
        return tree.white_out(&hidden).map_err(in_tree);
    }

    if extensions.records.contains_key(&b"size"[..]) {
        return Err(problem(&path, "files of 8 GiB and more are not supported"));
    }
    let meta = metadata(entry.header(), &extensions.records).map_err(|text| problem(&path, text))?;
    let kind = match entry.header().entry_type() {
        EntryType::Link => return tree.put_hard_link(&path, &link).map_err(in_tree),
        // Old archives mark a directory by a slash at the end of the name.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory(BTreeMap::new()),
        EntryType::Regular | EntryType::Continuous => {
            let size = entry.header().size().map_err(LayerError::Read)?;
            let extent = spool
                .expect(size)
                .and_then(|()| spool.append(entry))
                .map_err(|source| LayerError::Spool { path: display(&path), source })?;
            if extent.len != size {
                return Err(problem(&path, "the archive ends inside this file"));
            }
            Kind::File(extent.into())
        }
        EntryType::Directory => Kind::Directory(BTreeMap::new()),
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Fifo => Kind::Fifo,
        kind @ (EntryType::Char | EntryType::Block) => {
            let number = |value: io::Result<Option<u32>>| {
                value.ok().flatten().ok_or_else(|| problem(&path, "a device without a number"))
            };
            let (major, minor) =
                (number(entry.header().device_major())?, number(entry.header().device_minor())?);
            if kind == EntryType::Char { Kind::Char { major, minor } } else { Kind::Block { major, minor } }
        }
        other => {
            return Err(problem(
                &path,
                format!("entries of type {:?} are not supported", char::from(other.as_byte())),
            ));
        }
    };
    tree.put(&path, Inode { meta, kind }).map_err(in_tree)?;
    if tree.len() > spool.ceiling().entries {
        return Err(problem(&path, format!("the image has more than {} entries", spool.ceiling().entries)));
    }
    Ok(())
}

fn metadata(header: &Header, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Meta, String> {
    let text =
        |key: &str| records.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned());
    // Some writers leave the owner out instead of writing zero.
    let blank = |field: &[u8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
    let old = header.as_old();
    let id = |key: &str, field: &[u8], plain: io::Result<u64>| {
        let value = match text(key) {
            Some(text) => text.parse().map_err(|_| format!("the {key} {text:?} is not a number"))?,
            None if blank(field) => 0,
            None => plain.map_err(|error| format!("the {key} cannot be read: {error}"))?,
        };
        u32::try_from(value).map_err(|_| format!("the {key} {value} is too large"))
    };
    let mode = header.mode().map_err(|error| format!("the mode cannot be read: {error}"))?;
    let (mtime, mtime_nsec) = match text("mtime") {
        Some(text) => parse_time(&text).ok_or_else(|| format!("the mtime {text:?} is not a time"))?,
        None => (header.mtime().unwrap_or(0), 0),
    };
    let xattrs = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
        .collect();
    Ok(Meta {
        mode: u16::try_from(mode & 0o7777).unwrap_or_default(),
        uid: id("uid", &old.uid, header.uid())?,
        gid: id("gid", &old.gid, header.gid())?,
        mtime,
        mtime_nsec,
        xattrs,
    })
}

/// Reads `1700000000.25`. Times before 1970 become 1970.
fn parse_time(text: &str) -> Option<(u64, u32)> {
    if let Some(before) = text.strip_prefix('-') {
        return before.parse::<f64>().ok().map(|_| (0, 0));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((seconds.parse().ok()?, nanoseconds))
}

fn extension(entry: &mut impl Read) -> Result<Vec<u8>, LayerError> {
    let mut body = Vec::new();
    entry.take(MAX_EXTENSION + 1).read_to_end(&mut body).map_err(LayerError::Read)?;
    if body.len() as u64 > MAX_EXTENSION {
        return Err(problem(b"", "an extension header of more than 1 MiB"));
    }
    Ok(body)
}

/// Splits a PAX header into records `<length> <key>=<value>\n`, where the length counts the whole record.
fn pax_records(mut body: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let space = body.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&body[..space]).ok()?.parse().ok()?;
        let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        body = &body[length..];
    }
    Some(records)
}

fn without_nul(mut text: Vec<u8>) -> Vec<u8> {
    while text.last() == Some(&0) {
        text.pop();
    }
    text
}

/// The directory part and the last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let trimmed = path.strip_suffix(b"/").unwrap_or(path);
    match trimmed.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&trimmed[..slash], &trimmed[slash + 1..]),
        None => (b"", trimmed),
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
    use fs_image::InodeId;

    struct Layer(tar::Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Self {
            Self(tar::Builder::new(Vec::new()))
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
        assert!(refused(Layer::new().entry(EntryType::new(b'S'), "s", "", b"")).contains("'S'"));
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
    fn times_are_read() {
        assert_eq!(parse_time("12"), Some((12, 0)));
        assert_eq!(parse_time("12.000000001"), Some((12, 1)));
        assert_eq!(parse_time("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(parse_time("-5.5"), Some((0, 0)));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse_time("1.x"), None);
    }

    #[test]
    fn broken_pax_headers_are_refused() {
        assert_eq!(pax_records(b"9 a=b\n"), None);
        assert_eq!(pax_records(b"6 a=b\n").unwrap(), [(b"a".to_vec(), b"b".to_vec())]);
        assert_eq!(pax_records(b"2"), None);
        assert_eq!(pax_records(b"1 a=b\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_applied_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4096)) {
            let mut spool = Spool::new(&std::env::temp_dir(), crate::image::Ceiling::default()).unwrap();
            drop(apply(&mut Tree::new(), &mut spool, &bytes[..]));
        }

        #[test]
        fn any_pax_header_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            if let Some(records) = pax_records(&bytes) {
                let length: usize = records.iter().map(|(key, value)| key.len() + value.len()).sum();
                proptest::prop_assert!(length < bytes.len().max(1));
            }
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
