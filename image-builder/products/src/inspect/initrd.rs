//! Initrds as the kernel unpacks them (`init/initramfs.c`): archives one after the other, each compressed or not, with zeros
//! between them. Boot loaders put one with microcode in front, and others append configuration.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use fs_image::cpio::{self, Behind, is};
use fs_image::{Entry, ReadError};

/// Unpacked, an initrd larger than this is nothing that a guest of ours could hold.
const MOST: u64 = 1 << 30;
/// The magic number of LZ4's legacy frame.
const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Unpacked bytes of a block of that frame.
const LZ4_BLOCK: usize = 8 << 20;

/// Why an initrd cannot be read.
#[derive(Debug)]
pub(super) enum InitrdError {
    /// It is none.
    Unknown,
    Damaged(ReadError),
    /// A part cannot be unpacked.
    Unpack(&'static str, io::Error),
}

/// What is in an initrd.
#[derive(Debug, Default)]
pub(super) struct Initrd {
    /// How its parts are compressed.
    pub(super) formats: Vec<&'static str>,
    /// Bytes of all parts together, unpacked.
    pub(super) unpacked: u64,
    /// Those of later archives in the place of earlier ones.
    pub(super) entries: Vec<Entry>,
}

/// Reads all parts.
pub(super) fn read(bytes: &[u8]) -> Result<Initrd, InitrdError> {
    let mut found = Initrd::default();
    let mut entries = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest[0] == 0 {
            at += 1;
            continue;
        }
        let (format, passed) = if is(rest) {
            let passed = cpio::read_on(rest, at, Behind::Part, &mut entries).map_err(InitrdError::Damaged)?;
            found.unpacked += passed as u64;
            ("none", passed)
        } else {
            let room = MOST.saturating_sub(found.unpacked);
            let (format, passed, content) = match unpack(rest, room) {
                Some((format, unpacked)) => {
                    let (passed, content) = unpacked.map_err(|error| InitrdError::Unpack(format, error))?;
                    (format, passed, content)
                }
                None if found.formats.is_empty() => return Err(InitrdError::Unknown),
                None => {
                    let what = "what follows an archive";
                    return Err(InitrdError::Damaged(ReadError { what, offset: at as u64 }));
                }
            };
            if !is(&content) {
                return Err(InitrdError::Unknown);
            }
            found.unpacked += content.len() as u64;
            cpio::read_on(&content, 0, Behind::Nothing, &mut entries).map_err(InitrdError::Damaged)?;
            (format, passed)
        };
        found.formats.push(format);
        at += passed.max(1);
    }
    if found.formats.is_empty() {
        return Err(InitrdError::Unknown);
    }
    entries.remove("/.");
    found.entries = entries.into_values().collect();
    Ok(found)
}

/// Unpacks one stream, by what its first bytes say: how it is compressed, how long it is, and what is in it.
#[expect(clippy::type_complexity, reason = "it is taken apart at once")]
fn unpack(bytes: &[u8], room: u64) -> Option<(&'static str, io::Result<(usize, Vec<u8>)>)> {
    let all = |reader: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let count = reader.take(room + 1).read_to_end(&mut out)?;
        if count as u64 > room { Err(io::Error::other("it unpacks to more than 1 GiB")) } else { Ok(out) }
    };
    // Readers that stop where their stream does.
    let passed = |rest: &mut dyn BufRead| rest.fill_buf().map(|rest| bytes.len() - rest.len());
    Some(match bytes {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => (
            "zstd",
            (|| {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
                let content = all(&mut decoder)?;
                Ok((passed(&mut decoder.finish())?, content))
            })(),
        ),
        [0x1f, 0x8b, ..] => (
            "gzip",
            (|| {
                let mut decoder = flate2::bufread::GzDecoder::new(bytes);
                let content = all(&mut decoder)?;
                Ok((passed(&mut decoder.into_inner())?, content))
            })(),
        ),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => (
            "xz",
            (|| {
                let mut decoder = liblzma::bufread::XzDecoder::new(bytes);
                let content = all(&mut decoder)?;
                Ok((passed(&mut decoder.into_inner())?, content))
            })(),
        ),
        [first, second, third, fourth, ..] if [*first, *second, *third, *fourth] == LZ4 => {
            ("lz4", lz4_legacy(bytes, room))
        }
        [b'B', b'Z', b'h', ..] => ("bzip2", Err(unread())),
        [0x5d, 0, ..] => ("lzma", Err(unread())),
        [0x89, b'L', b'Z', b'O', ..] => ("lzo", Err(unread())),
        _ => return None,
    })
}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the kernel reads that, and this program does not")
}

/// Blocks of at most 8 MiB each, each after its packed length. Another magic number begins another frame, and zeros end it.
fn lz4_legacy(bytes: &[u8], room: u64) -> io::Result<(usize, Vec<u8>)> {
    let (mut at, mut out) = (0, Vec::new());
    while let Some(length) = bytes.get(at..at + 4) {
        if length == LZ4 {
            at += 4;
            continue;
        }
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length == 0 {
            break;
        }
        let block = bytes.get(at + 4..at + 4 + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.extend(lz4_flex::block::decompress(block, LZ4_BLOCK).map_err(io::Error::other)?);
        if out.len() as u64 > room {
            return Err(io::Error::other("it unpacks to more than 1 GiB"));
        }
        at += 4 + length;
    }
    Ok((at, out))
}
