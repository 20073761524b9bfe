//! One block of 512 bytes as a header: the old fields, and what ustar, star and GNU tar made of the rest.

use std::collections::BTreeMap;
use std::ops::Range;

use super::member::Member;
use super::sparse::Fragment;

pub(super) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const VERSION: Range<usize> = 263..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TIMES: [Range<usize>; 2] = [476..488, 488..500];
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_TIMES: [Range<usize>; 2] = [345..357, 357..369];
const GNU_MAP: Range<usize> = 386..483;
const GNU_REAL_SIZE: Range<usize> = 483..495;
const GNU_EXTENDED_MAP: Range<usize> = 0..505;
/// An offset and a length of 12 bytes each.
const GNU_MAP_ENTRY: usize = 24;

/// Which fields a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    /// POSIX, with or without PAX headers.
    Ustar,
    Star,
    Gnu,
}

/// A header.
pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    /// The member as the header alone describes it.
    pub(super) fn member(&self) -> Result<(Dialect, Member), &'static str> {
        let dialect = self.dialect().ok_or("no header of a tar archive (its checksum is wrong)")?;
        let field = |range: Range<usize>| &self.0[range];
        let value = |range: Range<usize>| number(field(range)).ok_or("a number in a header cannot be read");
        let size = value(SIZE)?;
        let mut member = Member {
            flag: self.0[FLAG],
            path: text(field(NAME)).to_vec(),
            link: text(field(LINK)).to_vec(),
            mode: value(MODE)?,
            uid: value(UID)?,
            gid: value(GID)?,
            mtime: (value(MTIME)?, 0),
            // One below zero is refused where it would count.
            size: size.cast_unsigned(),
            fragments: None,
            device: (0, 0),
            xattrs: BTreeMap::new(),
            offset: 0,
        };
        if dialect != Dialect::V7 {
            member.device = (value(MAJOR)?, value(MINOR)?);
        }
        let prefix = match dialect {
            Dialect::V7 => &[][..],
            Dialect::Ustar => text(field(PREFIX)),
            Dialect::Star => {
                for time in STAR_TIMES {
                    value(time)?;
                }
                text(field(STAR_PREFIX))
            }
            Dialect::Gnu => {
                // Go's own writer once put a prefix where this format has times.
                let is_time =
                    |range: Range<usize>| self.0[range.start] == 0 || number(field(range)).is_some();
                let prefix = text(field(PREFIX));
                let is_prefix = !GNU_TIMES.into_iter().all(is_time) && prefix.is_ascii();
                if is_prefix { prefix } else { &[] }
            }
        };
        if !prefix.is_empty() {
            member.path = [prefix, b"/", &member.path].concat();
        }
        Ok((dialect, member))
    }

    /// Nothing when the checksum is wrong.
    fn dialect(&self) -> Option<Dialect> {
        let sum = octal(&self.0[CHECKSUM])?;
        let counted = |index: usize, byte: u8| if CHECKSUM.contains(&index) { b' ' } else { byte };
        let bytes = || self.0.iter().enumerate().map(|(index, byte)| counted(index, *byte));
        // Some old writers summed signed bytes.
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if sum != unsigned && sum != signed {
            return None;
        }
        Some(match (&self.0[MAGIC], &self.0[VERSION]) {
            (b"ustar\0", _) if &self.0[STAR_TRAILER] == b"tar\0" => Dialect::Star,
            (b"ustar\0", _) => Dialect::Ustar,
            (b"ustar ", b" \0") => Dialect::Gnu,
            _ => Dialect::V7,
        })
    }

    /// The size with holes, in GNU tar's old format.
    pub(super) fn real_size(&self) -> Result<u64, &'static str> {
        let size = number(&self.0[GNU_REAL_SIZE]).and_then(|size| u64::try_from(size).ok());
        size.ok_or("the size of a sparse file cannot be read")
    }

    /// The map in the header, and whether more of it follows.
    pub(super) fn sparse_map(&self) -> Result<(Vec<Fragment>, bool), &'static str> {
        old_map(&self.0[GNU_MAP])
    }

    /// As [`Block::sparse_map`], of a block that follows.
    pub(super) fn extended_sparse_map(&self) -> Result<(Vec<Fragment>, bool), &'static str> {
        old_map(&self.0[GNU_EXTENDED_MAP])
    }
}

/// Pairs of numbers up to one that begins with NUL, and a byte that says whether more follow.
fn old_map(area: &[u8]) -> Result<(Vec<Fragment>, bool), &'static str> {
    let wrong = "a sparse map cannot be read";
    let mut fragments = Vec::new();
    for entry in area.chunks_exact(GNU_MAP_ENTRY).take_while(|entry| entry[0] != 0) {
        let (offset, len) = entry.split_at(GNU_MAP_ENTRY / 2);
        let value = |field| number(field).and_then(|value| u64::try_from(value).ok()).ok_or(wrong);
        fragments.push(Fragment { offset: value(offset)?, len: value(len)? });
    }
    Ok((fragments, area.last().is_some_and(|byte| *byte > 0)))
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits or, if the first bit is set, in base 256 as two's complement. Nothing counts as zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let Some(first) = field.first().filter(|byte| **byte & 0x80 != 0) else { return octal(field) };
    // The bit after the mark is the sign.
    let sign = if first & 0x40 == 0 { 0 } else { 0xff };
    let mut value: u64 = 0;
    for (index, byte) in field.iter().enumerate() {
        let byte = if index == 0 { (byte ^ sign) & 0x7f } else { byte ^ sign };
        if value >> 56 > 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if sign == 0 { value } else { !value })
}

/// Octal digits amid spaces and NULs.
fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, 0 | b' ');
    let Some(begin) = field.iter().position(|byte| !is_blank(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !is_blank(byte)).unwrap_or(begin);
    text(&field[begin..=end]).iter().try_fold(0i64, |value, byte| match byte {
        b'0'..=b'7' => Some(value.checked_mul(8)? + i64::from(byte - b'0')),
        _ => None,
    })
}
