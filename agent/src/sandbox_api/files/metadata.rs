//! Metadata of uploads: headers of a request, kept as extended attributes of the file.

use std::collections::BTreeMap;
use std::fs::File;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use sandbox_api::http::Headers;

use crate::sandbox_api::rooted::{FileError, PREFIX};

/// What the names of such headers begin with.
const HEADER: &str = "x-metadata-";
/// Longest key: what the kernel has for a name of an attribute, less [`PREFIX`].
pub(crate) const LONGEST_KEY: usize = 246;
/// Most bytes of all keys and values together.
pub(crate) const MOST_BYTES: usize = 4096;
/// Most bytes of a list of extended attributes.
const LIST: usize = 64 << 10;

/// Metadata of one upload.
pub(super) type Metadata = BTreeMap<String, String>;

/// The metadata that a request brings.
pub(super) fn read(headers: &Headers) -> Result<Metadata, FileError> {
    let mut metadata = Metadata::new();
    let mut bytes = 0;
    for (name, value) in headers.iter() {
        let Some(key) = name.strip_prefix(HEADER) else { continue };
        let refuse = |reason: String| FileError::Invalid(format!("metadata '{key}': {reason}"));
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(refuse(format!("a key has 1 to {LONGEST_KEY} bytes")));
        }
        let is_printable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !is_printable(key) || !is_printable(value) {
            return Err(refuse("only printable ASCII is allowed".to_owned()));
        }
        bytes += key.len() + value.len();
        if bytes > MOST_BYTES {
            return Err(FileError::Invalid(format!(
                "metadata: more than {MOST_BYTES} bytes of keys and values"
            )));
        }
        metadata.insert(key.to_ascii_lowercase(), value.to_owned());
    }
    Ok(metadata)
}

/// Gives a file this metadata and no other. False if its file system has none.
pub(super) fn replace(file: &File, path: &str, metadata: &Metadata) -> Result<bool, FileError> {
    let failed = || FileError::during::<Errno>("keep the metadata of", path);
    for name in present(file) {
        let is_kept = name.strip_prefix(PREFIX).is_none_or(|key| metadata.contains_key(key));
        if is_kept {
            continue;
        }
        match rustix::fs::fremovexattr(file, name.as_str()) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(failed()(errno)),
        }
    }
    for (key, value) in metadata {
        match rustix::fs::fsetxattr(file, format!("{PREFIX}{key}"), value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(failed()(errno)),
        }
    }
    Ok(true)
}

/// Names of the attributes that a file has.
fn present(file: &File) -> Vec<String> {
    if !matches!(rustix::fs::flistxattr_query(file), Ok(1..)) {
        return Vec::new();
    }
    let mut list = vec![0u8; LIST];
    let length = rustix::fs::flistxattr(file, list.as_mut_slice()).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Metadata, FileError> {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.push(name, value);
        }
        read(&headers)
    }

    #[test]
    fn headers_become_metadata_within_bounds() {
        let metadata = of(&[("X-Metadata-Author", "me"), ("x-metadata-k2", "v 2"), ("Other", "x")]).unwrap();
        let pairs: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("author", "me"), ("k2", "v 2")]);
        let key = |length: usize| format!("X-Metadata-{}", "k".repeat(length));
        assert!(of(&[(&key(LONGEST_KEY), "")]).is_ok());
        assert!(of(&[(&key(LONGEST_KEY + 1), "")]).is_err());
        assert!(of(&[(&key(0), "v")]).is_err());
        assert!(of(&[("X-Metadata-k", &"v".repeat(MOST_BYTES - 1))]).is_ok());
        assert!(of(&[("X-Metadata-k", &"v".repeat(MOST_BYTES))]).is_err());
        assert!(of(&[("X-Metadata-k", "ü")]).is_err());
        assert!(of(&[("X-Metadata-k", "a\tb")]).is_err());
    }

    #[test]
    fn a_set_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let one = of(&[("X-Metadata-a", "1"), ("X-Metadata-b", "2")]).unwrap();
        if !replace(&file, "f", &one).unwrap() {
            eprintln!("skipped: the directory of temporary files has no extended attributes of users");
            return;
        }
        assert_eq!(present(&file).len(), 2);
        assert!(replace(&file, "f", &of(&[("X-Metadata-b", "3")]).unwrap()).unwrap());
        assert_eq!(present(&file), ["user.e2b.b"]);
        assert!(replace(&file, "f", &Metadata::new()).unwrap());
        assert!(present(&file).is_empty());
    }
}
