//! Lists what is in archives: see the module above.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use ::cpio::newc;

use crate::entry::{BLOCK, CHARACTER, Entry, REGULAR, ReadError, SYMLINK, TYPE};

const MAGIC: [&[u8]; 2] = [b"070701", b"070702"];

/// Whether an archive begins here.
pub fn is(bytes: &[u8]) -> bool {
    MAGIC.iter().any(|magic| bytes.starts_with(magic))
}

/// All entries of archives that follow one another, sorted by path. Those of later archives take the place of earlier ones.
///
/// # Errors
/// When something in them, or behind them, is no archive.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let mut entries = BTreeMap::new();
    read_on(bytes, 0, Behind::Nothing, &mut entries)?;
    entries.remove("/.");
    Ok(entries.into_values().collect())
}

/// What may come after an archive and its zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Nothing but archives.
    Nothing,
    /// Anything: it is for the caller to say.
    Part,
}

/// Adds the entries of archives that follow one another, by path; answers how many bytes the archives are. `offset` is where
/// they begin, for errors.
///
/// # Errors
/// As [`read`].
pub fn read_on(
    bytes: &[u8],
    offset: usize,
    behind: Behind,
    entries: &mut BTreeMap<String, Entry>,
) -> Result<usize, ReadError> {
    let mut at = 0;
    let mut is_between = false;
    while at < bytes.len() {
        // Zeros fill up to the next archive.
        if bytes[at] == 0 {
            at += 1;
            continue;
        }
        if is_between && behind == Behind::Part && !is(&bytes[at..]) {
            break;
        }
        let damage = |what| ReadError { what, offset: (offset + at) as u64 };
        let mut cursor = Cursor::new(&bytes[at..]);
        let mut reader = newc::Reader::new(&mut cursor).map_err(|_| damage("the header of an entry"))?;
        let entry = reader.entry();
        is_between = entry.is_trailer();
        if is_between {
            reader.finish().map_err(|_| damage("the end of the archive"))?;
        } else {
            let (mode, size) = (entry.mode(), u64::from(entry.file_size()));
            let device = format!("{}:{}", entry.rdev_major(), entry.rdev_minor());
            let path = format!("/{}", entry.name().trim_start_matches("./").trim_start_matches('/'));
            let (uid, gid) = (entry.uid(), entry.gid());
            let target = match mode & TYPE {
                SYMLINK => {
                    let mut text = Vec::new();
                    reader.by_ref().take(4096).read_to_end(&mut text).map_err(|_| damage("a link"))?;
                    Some(String::from_utf8_lossy(&text).into_owned())
                }
                CHARACTER | BLOCK => Some(device),
                _ => None,
            };
            reader.finish().map_err(|_| damage("the content of an entry"))?;
            let size = if mode & TYPE == REGULAR { size } else { 0 };
            entries.insert(path.clone(), Entry { path, mode, uid, gid, size, target });
        }
        let read = usize::try_from(cursor.position()).unwrap_or(bytes.len());
        if read == 0 {
            return Err(damage("an entry"));
        }
        at += read;
    }
    Ok(at)
}
