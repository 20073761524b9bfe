//! Unpacks gzip (RFC 1952) as it comes, piece by piece. Pure.
//!
//! The packed data themselves are miniz_oxide's work. What is around them is read here: crates that do so bring tables for
//! checksums that are larger than all of this.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// Bytes that a reference into what was unpacked reaches back, and that are unpacked at once.
const WINDOW: usize = 32 * 1024;
/// Bytes of a member before its optional fields.
const FIXED: usize = 10;
/// Bytes of a member after its data.
const TRAILER: usize = 8;
/// What a member begins with, and the only method there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// The optional fields, by their bits.
const CHECKSUM: u8 = 0x02;
const EXTRA: u8 = 0x04;
const NAME: u8 = 0x08;
const COMMENT: u8 = 0x10;
const RESERVED: u8 = 0xe0;

/// Why something is not unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// It does not begin as gzip does.
    #[error("invalid gzip header")]
    Header,
    /// The packed data are broken.
    #[error("corrupt deflate stream")]
    Data,
    /// They are something else than what was packed.
    #[error("corrupt gzip stream does not have a matching checksum")]
    Checksum,
    /// The end is missing.
    #[error("unexpected end of file")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of a member's beginning were read. With none of it, the end may come.
    Fixed(usize),
    /// So many of the two bytes of the extra field's length.
    ExtraLength(usize),
    /// So many bytes of the extra field are to come.
    Extra(usize),
    Name,
    Comment,
    /// So many of the two bytes of the header's checksum.
    HeaderChecksum(usize),
    Data,
    /// So many bytes of the trailer were read.
    Trailer(usize),
}

/// Unpacks members of gzip that follow each other.
pub struct Gunzip {
    state: State,
    /// Bytes of a field that is being read.
    field: [u8; FIXED],
    /// Checksum of what was read of the header, or of what was unpacked, not yet inverted.
    checksum: u32,
    /// Bytes that were unpacked of this member, modulo 2^32.
    length: u32,
    has_member: bool,
    table: [u32; 256],
    inflate: Box<DecompressorOxide>,
    window: Vec<u8>,
    /// Where the next byte goes in the window.
    at: usize,
}

impl std::fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gunzip").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Default for Gunzip {
    fn default() -> Gunzip {
        let mut table = [0; 256];
        for (byte, entry) in (0u32..).zip(&mut table) {
            *entry = (0..8).fold(byte, |rest, _| (rest >> 1) ^ if rest & 1 == 1 { 0xedb8_8320 } else { 0 });
        }
        Gunzip {
            state: State::Fixed(0),
            field: [0; FIXED],
            checksum: u32::MAX,
            length: 0,
            has_member: false,
            table,
            inflate: Box::default(),
            window: vec![0; WINDOW],
            at: 0,
        }
    }
}

impl Gunzip {
    /// Takes more in, and hands out what is unpacked, at most 32 KiB at once.
    ///
    /// # Errors
    /// [`GzipError`], and those of `out`; nothing more can be unpacked.
    pub fn feed<E: From<GzipError>>(
        &mut self,
        mut data: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            if self.state == State::Data {
                let (taken, from) = (self.inflate(data)?, self.at);
                data = &data[taken.bytes..];
                self.at = (from + taken.unpacked) % WINDOW;
                let unpacked = &self.window[from..from + taken.unpacked];
                self.checksum = sum(&self.table, self.checksum, unpacked);
                // Modulo 2^32: the window is smaller.
                self.length = self.length.wrapping_add(taken.unpacked as u32);
                if !unpacked.is_empty() {
                    out(unpacked)?;
                }
            } else {
                self.around(data[0])?;
                data = &data[1..];
            }
        }
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// [`GzipError::Truncated`] inside of a member, and where there was none.
    pub fn finish(&self) -> Result<(), GzipError> {
        let is_whole = self.has_member && self.state == State::Fixed(0);
        is_whole.then_some(()).ok_or(GzipError::Truncated)
    }

    fn inflate(&mut self, data: &[u8]) -> Result<Taken, GzipError> {
        let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT | inflate_flags::TINFL_FLAG_IGNORE_ADLER32;
        let (status, bytes, unpacked) = decompress(&mut self.inflate, data, &mut self.window, self.at, flags);
        match status {
            TINFLStatus::Done => self.state = State::Trailer(0),
            TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput if bytes + unpacked > 0 => {}
            _ => return Err(GzipError::Data),
        }
        Ok(Taken { bytes, unpacked })
    }

    /// Takes a byte of what is around the data.
    fn around(&mut self, byte: u8) -> Result<(), GzipError> {
        let is_header = !matches!(self.state, State::HeaderChecksum(_) | State::Trailer(_));
        if is_header {
            self.checksum = sum(&self.table, self.checksum, &[byte]);
        }
        match self.state {
            State::Fixed(read) => {
                if MAGIC.get(read).is_some_and(|expected| *expected != byte) {
                    return Err(GzipError::Header);
                }
                self.field[read] = byte;
                self.state = State::Fixed(read + 1);
                if read + 1 == FIXED {
                    if self.field[3] & RESERVED != 0 {
                        return Err(GzipError::Header);
                    }
                    self.after(0);
                }
            }
            State::ExtraLength(read) => {
                self.field[read] = byte;
                match u16::from_le_bytes([self.field[0], byte]) {
                    _ if read == 0 => self.state = State::ExtraLength(1),
                    0 => self.after(EXTRA),
                    length => self.state = State::Extra(length.into()),
                }
            }
            State::Extra(1) => self.after(EXTRA),
            State::Extra(left) => self.state = State::Extra(left - 1),
            State::Name if byte == 0 => self.after(NAME),
            State::Comment if byte == 0 => self.after(COMMENT),
            State::Name | State::Comment => {}
            State::HeaderChecksum(read) => {
                if (!self.checksum).to_le_bytes()[read] != byte {
                    return Err(GzipError::Header);
                }
                match read {
                    0 => self.state = State::HeaderChecksum(1),
                    _ => self.begin(),
                }
            }
            State::Trailer(read) => {
                let expected = [(!self.checksum).to_le_bytes(), self.length.to_le_bytes()];
                if expected.as_flattened()[read] != byte {
                    return Err(GzipError::Checksum);
                }
                self.state = State::Trailer(read + 1);
                if read + 1 == TRAILER {
                    self.has_member = true;
                    self.checksum = u32::MAX;
                    self.state = State::Fixed(0);
                }
            }
            // Not around them.
            State::Data => {}
        }
        Ok(())
    }

    /// Goes on behind a field of the header, in the order in which they come; 0 is what all headers have.
    fn after(&mut self, field: u8) {
        let flags = self.field[3];
        self.state = if field < EXTRA && flags & EXTRA != 0 {
            State::ExtraLength(0)
        } else if field < NAME && flags & NAME != 0 {
            State::Name
        } else if field < COMMENT && flags & COMMENT != 0 {
            State::Comment
        } else if flags & CHECKSUM != 0 {
            State::HeaderChecksum(0)
        } else {
            return self.begin();
        };
    }

    /// The data begin.
    fn begin(&mut self) {
        self.inflate.init();
        (self.state, self.checksum, self.length, self.at) = (State::Data, u32::MAX, 0, 0);
    }
}

/// What was taken of a piece.
struct Taken {
    bytes: usize,
    unpacked: usize,
}

/// Goes on with a checksum (CRC-32).
fn sum(table: &[u32; 256], checksum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(checksum, |sum, byte| (sum >> 8) ^ table[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn packed(data: &[u8], builder: flate2::GzBuilder) -> Vec<u8> {
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8], piece: usize) -> Result<Vec<u8>, GzipError> {
        let (mut gunzip, mut all) = (Gunzip::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            gunzip.feed(piece, &mut |data: &[u8]| -> Result<(), GzipError> {
                assert!(!data.is_empty() && data.len() <= WINDOW);
                all.extend_from_slice(data);
                Ok(())
            })?;
        }
        gunzip.finish().map(|()| all)
    }

    fn named() -> flate2::GzBuilder {
        flate2::GzBuilder::new().extra([7; 300]).filename("a name").comment("a comment").mtime(7)
    }

    #[test]
    fn members_are_unpacked_however_they_come() {
        let data: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let bytes = [
            packed(&data, named()),
            packed(b"", flate2::GzBuilder::new().extra([])),
            packed(b"two", flate2::GzBuilder::new()),
        ];
        for piece in [1, 7, 4096, usize::MAX] {
            assert_eq!(unpacked(&bytes.concat(), piece).unwrap(), [&data[..], b"two"].concat(), "{piece}");
        }
    }

    #[test]
    fn what_is_cut_off_or_broken_is_told() {
        let whole = packed(&[7; 1000], named());
        for end in 0..whole.len() {
            assert_eq!(unpacked(&whole[..end], 100), Err(GzipError::Truncated), "{end}");
        }
        assert_eq!(unpacked(b"no gzip", 7), Err(GzipError::Header));
        assert_eq!(unpacked(&[&whole[..], &[0]].concat(), 100), Err(GzipError::Header));
        for end in 1..=TRAILER {
            let mut bytes = whole.clone();
            let at = bytes.len() - end;
            bytes[at] ^= 1;
            assert_eq!(unpacked(&bytes, 100), Err(GzipError::Checksum), "{end}");
        }
        let mut bytes = packed(b"x", flate2::GzBuilder::new());
        bytes[FIXED] |= 0b110;
        assert_eq!(unpacked(&bytes, 100), Err(GzipError::Data));
        let mut bytes = packed(b"x", flate2::GzBuilder::new());
        bytes[3] = 0x80;
        assert_eq!(unpacked(&bytes, 100), Err(GzipError::Header));
    }

    #[test]
    fn a_checksum_of_the_header_is_looked_at() {
        let mut bytes = packed(b"x", flate2::GzBuilder::new());
        bytes[3] = CHECKSUM;
        let table = Gunzip::default().table;
        let [low, high, ..] = (!sum(&table, u32::MAX, &bytes[..FIXED])).to_le_bytes();
        bytes.splice(FIXED..FIXED, [low, high]);
        assert_eq!(unpacked(&bytes, 1).unwrap(), b"x");
        bytes[FIXED + 1] ^= 1;
        assert_eq!(unpacked(&bytes, 1), Err(GzipError::Header));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(
            head in any::<bool>(),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            piece in 1usize..50,
        ) {
            let start: &[u8] = if head { &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0] } else { &[] };
            let _ = unpacked(&[start, &bytes].concat(), piece);
        }

        #[test]
        fn what_was_packed_comes_back(data in prop::collection::vec(any::<u8>(), 0..3000), piece in 1usize..500) {
            prop_assert_eq!(unpacked(&packed(&data, flate2::GzBuilder::new()), piece).unwrap(), data);
        }
    }
}
