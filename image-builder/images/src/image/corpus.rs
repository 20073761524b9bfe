//! Layers that the tools of the world made, against what umoci unpacked of each (`image-builder/images/corpus/make.sh`).
//!
//! Where we differ, the table [`DIFFERENCES`] says it, and `docs/images.md` says why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::Ceiling;
use super::layer;
use super::spool::Spool;
use fs_image::{InodeId, Kind, Tree};
use store::digest::Digest;

/// What we make of a layer that umoci refuses or reads in another way.
enum Ours {
    /// The tree of another layer.
    As(&'static str),
    /// This list of paths and contents.
    Files(&'static [(&'static str, &'static str)]),
    /// An error that says this.
    Refused(&'static str),
    /// These lines in place of those with the same path.
    Lines(&'static [&'static str]),
}

const DIFFERENCES: &[(&str, Ours)] = &[
    ("git-archive", Ours::Files(&[("file", "text\n")])),
    ("gnutar-gnu-sparse", Ours::As("gnutar-gnu")),
    ("gnutar-oldgnu-sparse", Ours::As("gnutar-oldgnu")),
    ("hand-contiguous", Ours::Files(&[("f", "data")])),
    ("hand-dots-outside", Ours::Refused("leads out of the image")),
    // An attribute without a value is one all the same.
    ("bsdtar-pax-more", Ours::Lines(&[EMPTY_ATTRIBUTE])),
    ("gnutar-posix-more", Ours::Lines(&[EMPTY_ATTRIBUTE])),
];

const EMPTY_ATTRIBUTE: &str =
    "dir\tdir\t1777\t0:0\t-\t-\t-\t1700000000.000000000\ttrusted.note=fffe,user.empty=\t-";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/layers")
}

/// All layers of a case, applied.
fn unpacked(name: &str) -> Result<Tree, anyhow::Error> {
    let mut spool = Spool::new(&std::env::temp_dir(), Ceiling::default())?;
    let mut tree = Tree::new();
    for number in 1..=2 {
        let path = corpus().join(format!("{name}.{number}.tar.zst"));
        if number == 1 || path.exists() {
            layer::apply(&mut tree, &mut spool, zstd::Decoder::new(fs::File::open(path)?)?)?;
        }
    }
    Ok(tree)
}

/// The list that `files.py` makes of a directory, made of a tree.
fn list(tree: &Tree) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut names: BTreeMap<InodeId, Vec<String>> = BTreeMap::new();
    let mut pending = vec![(String::new(), InodeId::ROOT)];
    while let Some((path, id)) = pending.pop() {
        for (name, child) in tree.names(id) {
            let name = String::from_utf8(name.to_vec()).unwrap();
            pending.push((if path.is_empty() { name } else { format!("{path}/{name}") }, child));
        }
        let path = if path.is_empty() { ".".to_owned() } else { path };
        names.entry(id).or_default().push(path);
    }
    for (id, mut names) in names {
        names.sort();
        for path in &names {
            let same = if names.len() > 1 { names[0].as_str() } else { "-" };
            lines.insert(path.clone(), line(tree, id, path, same));
        }
    }
    lines
}

fn line(tree: &Tree, id: InodeId, path: &str, same: &str) -> String {
    let inode = tree.inode(id);
    let meta = &inode.meta;
    let (mut size, mut digest, mut target) = ("-".to_owned(), "-".to_owned(), "-".to_owned());
    let kind = match &inode.kind {
        Kind::Directory(_) => "dir",
        Kind::File(content) => {
            size = content.len().to_string();
            digest = Digest::of(&content.bytes().unwrap()).to_string()[..16].to_owned();
            "file"
        }
        Kind::Symlink(text) => {
            target = String::from_utf8(text.clone()).unwrap();
            "link"
        }
        Kind::Char { major, minor } => {
            size = format!("{major}:{minor}");
            "char"
        }
        Kind::Block { major, minor } => {
            size = format!("{major}:{minor}");
            "block"
        }
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    };
    let mode = if kind == "link" { "-".to_owned() } else { format!("{:04o}", meta.mode) };
    let attributes: Vec<String> = meta
        .xattrs
        .iter()
        .map(|(name, value)| {
            value.iter().fold(format!("{}=", String::from_utf8_lossy(name)), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        })
        .collect();
    let attributes = if attributes.is_empty() { "-".to_owned() } else { attributes.join(",") };
    let (uid, gid, seconds, rest) = (meta.uid, meta.gid, meta.mtime, meta.mtime_nsec);
    format!(
        "{path}\t{kind}\t{mode}\t{uid}:{gid}\t{size}\t{digest}\t{target}\t{seconds}.{rest:09}\t{attributes}\t{same}"
    )
}

/// umoci's list, with a rule that holds for all of it: what was before 1970 is 1970.
fn expected(name: &str) -> Result<BTreeMap<String, String>, String> {
    let text = fs::read_to_string(corpus().join(format!("{name}.tree"))).unwrap();
    if let Some(words) = text.strip_prefix("refused: ") {
        return Err(words.trim().to_owned());
    }
    Ok(text
        .lines()
        .map(|line| {
            let mut fields: Vec<&str> = line.split('\t').collect();
            if fields[7].starts_with('-') && fields[7] != "-" {
                fields[7] = "0.000000000";
            }
            (fields[0].to_owned(), fields.join("\t"))
        })
        .collect())
}

/// Whether two lines say the same. umoci leaves the time of unpacking, which is listed as `-`, where no layer says one, and where
/// a whiteout took something away.
fn agree(umoci: Option<&String>, ours: Option<&String>) -> bool {
    let (Some(umoci), Some(ours)) = (umoci, ours) else { return umoci == ours };
    let mut fields = umoci.split('\t').zip(ours.split('\t')).enumerate();
    fields.all(|(index, (umoci, ours))| umoci == ours || (index == 7 && umoci == "-"))
}

fn check(name: &str) -> Result<(), String> {
    let ours = unpacked(name);
    let difference = DIFFERENCES.iter().find(|(case, _)| *case == name).map(|(_, ours)| ours);
    let mut expected = match difference {
        Some(Ours::As(other)) => expected(other),
        Some(Ours::Refused(words)) => Err((*words).to_owned()),
        Some(Ours::Files(files)) => {
            let tree = ours.map_err(|error| format!("{error:?}"))?;
            let found: BTreeMap<_, _> = list(&tree)
                .keys()
                .filter(|path| *path != ".")
                .map(|path| {
                    let content = tree.file(path.as_bytes()).unwrap().bytes().unwrap();
                    (path.clone(), String::from_utf8(content.into_owned()).unwrap())
                })
                .collect();
            let wanted = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
            return if found == wanted { Ok(()) } else { Err(format!("{found:?}")) };
        }
        Some(Ours::Lines(_)) | None => expected(name),
    };
    if let (Some(Ours::Lines(lines)), Ok(expected)) = (difference, &mut expected) {
        for line in *lines {
            let path = line.split('\t').next().unwrap_or_default();
            if expected.insert(path.to_owned(), (*line).to_owned()).as_deref() == Some(*line) {
                return Err(format!("umoci agrees: take {path} out of DIFFERENCES"));
            }
        }
    }
    match (ours, expected) {
        (Ok(tree), Ok(expected)) => {
            let found = list(&tree);
            let differ: Vec<String> = expected
                .keys()
                .chain(found.keys())
                .filter(|path| !agree(expected.get(*path), found.get(*path)))
                .map(|path| format!("\n  umoci {:?}\n  ours  {:?}", expected.get(path), found.get(path)))
                .collect();
            if differ.is_empty() { Ok(()) } else { Err(differ.concat()) }
        }
        (Ok(_), Err(words)) => Err(format!("applied, but umoci says {words:?}")),
        (Err(error), Ok(_)) => Err(format!("refused: {error:?}")),
        (Err(error), Err(words)) => match difference {
            Some(_) if !format!("{error:?}").contains(&words) => {
                Err(format!("refused with other words: {error:?}"))
            }
            _ => Ok(()),
        },
    }
}

#[test]
fn every_layer_of_the_corpus_unpacks_as_umoci_unpacks_it() {
    let mut names: Vec<String> = fs::read_dir(corpus())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".tree")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() > 100, "{names:?}");
    let wrong: Vec<String> =
        names.iter().filter_map(|name| Some(format!("{name}: {}", check(name).err()?))).collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), names.len(), wrong.join("\n"));
    for (name, _) in DIFFERENCES {
        assert!(names.iter().any(|known| known == name), "{name} is not in the corpus");
    }
}
