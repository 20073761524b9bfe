//! What is told of an entry of a directory.

use std::collections::BTreeMap;

use rustix::fs::{FileType, Stat};
use sandbox_api::mode::permissions;
use sandbox_api::time::Timestamp;
use serde_json::{Map, Value};

use super::root::magic;
use super::{FileError, Found, Root, base};
use crate::sandbox_api::account::Names;

/// Extended attributes that begin so are the metadata of uploads.
pub(crate) const PREFIX: &str = "user.e2b.";
/// Most bytes of a list of extended attributes, and of one of them: the kernel's own bounds.
const LARGEST: usize = 64 << 10;

/// `EntryInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) kind: Option<&'static str>,
    pub(crate) path: String,
    pub(crate) size: i64,
    pub(crate) mode: u32,
    pub(crate) permissions: String,
    pub(crate) owner: String,
    pub(crate) group: String,
    pub(crate) modified_time: String,
    pub(crate) symlink_target: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) is_symlink: bool,
}

impl Entry {
    /// Describes what has a path, a link itself. Blocks.
    pub(crate) fn of(root: &Root, names: &Names, path: &str) -> Result<Entry, FileError> {
        let found = root.find(path, false).map_err(FileError::lookup("stat", path))?;
        Ok(Entry::found(root, names, path, &found))
    }

    /// Describes what was found at a path. Blocks.
    pub(crate) fn found(root: &Root, names: &Names, path: &str, found: &Found) -> Entry {
        let is_symlink = found.kind() == FileType::Symlink;
        let target = is_symlink.then(|| root.find(path, true).ok()).flatten();
        let last = if is_symlink { target.as_ref() } else { Some(found) };
        let real = || target.as_ref().and_then(|target| root.path_of(&target.fd));
        let Stat { st_mode, st_size, st_uid, st_gid, st_mtime, st_mtime_nsec, .. } = found.stat;
        let modified = Timestamp { seconds: st_mtime, nanos: u32::try_from(st_mtime_nsec).unwrap_or(0) };
        Entry {
            name: base(path).to_owned(),
            kind: last.and_then(|last| match last.kind() {
                FileType::RegularFile => Some("FILE_TYPE_FILE"),
                FileType::Directory => Some("FILE_TYPE_DIRECTORY"),
                _ => None,
            }),
            path: path.to_owned(),
            size: st_size,
            mode: last.map_or(0, |last| last.stat.st_mode & 0o777),
            permissions: permissions(st_mode),
            owner: names.user(st_uid),
            group: names.group(st_gid),
            modified_time: modified.to_rfc3339(),
            symlink_target: is_symlink.then(|| real().unwrap_or_else(|| path.to_owned())),
            metadata: last.map(metadata).unwrap_or_default(),
            is_symlink,
        }
    }

    /// In protobuf's JSON: what has its default is left out, and 64 bits are a text.
    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| {
            fields.insert(name.to_owned(), value);
        };
        let texts = [
            ("name", &self.name),
            ("path", &self.path),
            ("permissions", &self.permissions),
            ("owner", &self.owner),
            ("group", &self.group),
            ("modifiedTime", &self.modified_time),
        ];
        for (name, text) in texts {
            put(name, text.as_str().into());
        }
        if let Some(kind) = self.kind {
            put("type", kind.into());
        }
        if self.size != 0 {
            put("size", self.size.to_string().into());
        }
        if self.mode != 0 {
            put("mode", self.mode.into());
        }
        if let Some(target) = &self.symlink_target {
            put("symlinkTarget", target.as_str().into());
        }
        if self.is_symlink {
            put("isSymlink", true.into());
        }
        if !self.metadata.is_empty() {
            put("metadata", texts_to_json(&mut self.metadata.iter()));
        }
        Value::Object(fields)
    }
}

/// Metadata in JSON.
pub(crate) fn texts_to_json<'a>(texts: &mut dyn Iterator<Item = (&'a String, &'a String)>) -> Value {
    // Not collected: that would sort them first.
    let mut fields = Map::new();
    for (key, value) in texts {
        fields.insert(key.clone(), Value::from(value.as_str()));
    }
    Value::Object(fields)
}

/// The metadata of an upload; none where the file system has no attributes.
fn metadata(found: &Found) -> BTreeMap<String, String> {
    if !matches!(found.kind(), FileType::RegularFile | FileType::Directory) {
        return BTreeMap::new();
    }
    let path = magic(&found.fd);
    // Most files have none, and need no memory for it.
    if !matches!(rustix::fs::listxattr_query(&path), Ok(1..)) {
        return BTreeMap::new();
    }
    let mut list = vec![0u8; LARGEST];
    let length = rustix::fs::listxattr(&path, list.as_mut_slice()).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let pairs = names.filter_map(|name| {
        let key = name.strip_prefix(PREFIX).filter(|key| !key.is_empty())?;
        let length = rustix::fs::getxattr_query(&path, name).ok()?.min(LARGEST);
        let mut value = vec![0u8; length];
        let length = rustix::fs::getxattr(&path, name, value.as_mut_slice()).ok()?;
        Some((key.to_owned(), String::from_utf8_lossy(&value[..length]).into_owned()))
    });
    pairs.collect()
}
