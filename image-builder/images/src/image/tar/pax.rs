//! PAX extension headers: records `<length> <key>=<value>\n`, where the length counts the whole record (pax(1)).

use std::collections::BTreeMap;

use super::member::Member;
use super::number::{integer, time};
use super::sparse::Fragment;

const XATTR: &[u8] = b"SCHILY.xattr.";
const MAP: &[u8] = b"GNU.sparse.map";
const MAP_OFFSET: &[u8] = b"GNU.sparse.offset";
const MAP_LENGTH: &[u8] = b"GNU.sparse.numbytes";

/// The records of one header. What comes twice counts as it comes last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

/// Where a sparse file's map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sparse {
    /// In the records: versions 0.0 and 0.1.
    InRecords,
    /// In front of the data: version 1.0.
    InData,
}

/// Splits a header into its records.
pub(super) fn records(mut body: &[u8]) -> Result<Records, &'static str> {
    let mut records = BTreeMap::new();
    // In version 0.0 of the sparse format, two keys come again and again. They are kept as version 0.1 writes them.
    let mut map: Vec<Vec<u8>> = Vec::new();
    while !body.is_empty() {
        let (key, value, rest) = record(body).ok_or("a PAX header is malformed")?;
        body = rest;
        if key == MAP_OFFSET || key == MAP_LENGTH {
            let expected = if map.len().is_multiple_of(2) { MAP_OFFSET } else { MAP_LENGTH };
            if key != expected || value.contains(&b',') {
                return Err("a sparse map in a PAX header is out of order");
            }
            map.push(value.to_vec());
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
    }
    if !map.is_empty() {
        records.insert(MAP.to_vec(), map.join(&b','));
    }
    Ok(Records(records))
}

/// The first record's key and value, and what follows it.
fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(integer(&body[..space])?).ok().filter(|length| *length >= 5)?;
    let record = body.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    // A NUL in a name would end it for some readers and not for others.
    let is_name = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
    let nul_in = if is_name { value } else { key };
    (!key.is_empty() && !nul_in.contains(&0)).then_some((key, value, &body[length..]))
}

impl Records {
    /// A record; one without a value counts as none.
    fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Puts what the records say in the place of what the header said.
    pub(super) fn apply(&self, member: &mut Member) -> Result<(), &'static str> {
        let number = |key: &str| self.get(key).map(|value| integer(value).ok_or(key_error(key))).transpose();
        if let Some(path) = self.get("path") {
            member.path = path.to_vec();
        }
        if let Some(link) = self.get("linkpath") {
            member.link = link.to_vec();
        }
        member.uid = number("uid")?.unwrap_or(member.uid);
        member.gid = number("gid")?.unwrap_or(member.gid);
        member.size = number("size")?.map_or(member.size, i64::cast_unsigned);
        for key in ["atime", "ctime", "mtime"] {
            if let Some(value) = self.get(key) {
                let time = time(value).ok_or(key_error(key))?;
                member.mtime = if key == "mtime" { time } else { member.mtime };
            }
        }
        let xattrs = self.0.iter();
        member.xattrs = xattrs
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
            .collect();
        Ok(())
    }

    /// Whether, and how, the records make the member a sparse file.
    pub(super) fn sparse_version(&self) -> Option<Sparse> {
        match (self.get("GNU.sparse.major"), self.get("GNU.sparse.minor")) {
            (Some(b"0"), Some(b"0" | b"1")) => Some(Sparse::InRecords),
            (Some(b"1"), Some(b"0")) => Some(Sparse::InData),
            // The first versions do not say which they are.
            (None, None) => self.get("GNU.sparse.map").map(|_| Sparse::InRecords),
            _ => None,
        }
    }

    /// The name and the size that a sparse file has when it is unpacked.
    pub(super) fn apply_sparse(&self, member: &mut Member) -> Result<(), &'static str> {
        if let Some(name) = self.get("GNU.sparse.name") {
            member.path = name.to_vec();
        }
        if let Some(size) = self.get("GNU.sparse.size").or_else(|| self.get("GNU.sparse.realsize")) {
            let size = integer(size).and_then(|size| u64::try_from(size).ok());
            member.size = size.ok_or("the size of a sparse file cannot be read")?;
        }
        Ok(())
    }

    /// The map of versions 0.0 and 0.1.
    pub(super) fn sparse_map(&self) -> Result<Vec<Fragment>, &'static str> {
        let wrong = "a sparse map in a PAX header cannot be read";
        let count = self.get("GNU.sparse.numblocks").and_then(integer).ok_or(wrong)?;
        let numbers: Option<Vec<u64>> = match self.get("GNU.sparse.map") {
            Some(map) => map
                .split(|byte| *byte == b',')
                .map(|value| integer(value).and_then(|value| u64::try_from(value).ok()))
                .collect(),
            None => Some(Vec::new()),
        };
        let numbers = numbers.ok_or(wrong)?;
        if i64::try_from(numbers.len()).ok() != count.checked_mul(2) {
            return Err(wrong);
        }
        Ok(numbers.chunks_exact(2).map(|pair| Fragment { offset: pair[0], len: pair[1] }).collect())
    }
}

fn key_error(key: &str) -> &'static str {
    match key {
        "uid" | "gid" => "the owner in a PAX header is not a number",
        "size" => "the size in a PAX header is not a number",
        _ => "a time in a PAX header cannot be read",
    }
}
