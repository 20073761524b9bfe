//! Initrds: one cpio archive, or several after each other, compressed as a whole.

use std::io::{self, Cursor, Read};

use cpio::newc;

use super::{BLOCK, CHARACTER, Damage, Entry, REGULAR, SYMLINK, TYPE};

/// Unpacked, an initrd larger than this is nothing that a guest of ours could hold.
const MOST: u64 = 1 << 30;
const MAGIC: [&[u8]; 2] = [b"070701", b"070702"];

/// Whether an archive begins here.
pub(super) fn is(bytes: &[u8]) -> bool {
    MAGIC.iter().any(|magic| bytes.starts_with(magic))
}

/// Unpacks by what the first bytes say; what says nothing is taken as it is.
pub(super) fn unpack(bytes: &[u8]) -> Result<(&'static str, Vec<u8>), (&'static str, io::Error)> {
    let read = |format, reader: &mut dyn Read| {
        let mut out = Vec::new();
        let count = reader.take(MOST + 1).read_to_end(&mut out).map_err(|error| (format, error))?;
        if count as u64 > MOST {
            return Err((format, io::Error::other("it unpacks to more than 1 GiB")));
        }
        Ok((format, out))
    };
    match bytes {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes).map_err(|error| ("zstd", error))?;
            read("zstd", &mut decoder)
        }
        [0x1f, 0x8b, ..] => read("gzip", &mut flate2::read::MultiGzDecoder::new(bytes)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => read("xz", &mut liblzma::read::XzDecoder::new(bytes)),
        [0x02, 0x21, 0x4c, 0x18, rest @ ..] => Ok(("lz4", lz4_legacy(rest).map_err(|error| ("lz4", error))?)),
        _ => Ok(("none", bytes.to_vec())),
    }
}

/// Blocks of at most 8 MiB each, each after its packed length.
fn lz4_legacy(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let block = after.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.extend(lz4_flex::block::decompress(block, 8 << 20).map_err(io::Error::other)?);
        rest = &after[length..];
    }
    Ok(out)
}

/// All entries, those of later archives in the place of earlier ones.
pub(super) fn read(archive: &[u8]) -> Result<Vec<Entry>, Damage> {
    let mut entries = std::collections::BTreeMap::new();
    let mut at = 0;
    while at < archive.len() {
        // Zeros fill up to the next archive.
        if archive[at] == 0 {
            at += 1;
            continue;
        }
        let damage = |what| Damage { what, offset: at as u64 };
        let mut cursor = Cursor::new(&archive[at..]);
        let mut reader = newc::Reader::new(&mut cursor).map_err(|_| damage("the header of an entry"))?;
        let entry = reader.entry();
        if entry.is_trailer() {
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
        let read = usize::try_from(cursor.position()).unwrap_or(archive.len());
        if read == 0 {
            return Err(damage("an entry"));
        }
        at += read;
    }
    entries.remove("/.");
    Ok(entries.into_values().collect())
}
