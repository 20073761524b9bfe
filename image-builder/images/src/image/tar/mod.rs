//! Reads tar archives, and takes and refuses the same archives as Go's `archive/tar`.
//!
//! Every tool that handles images reads layers with that package: docker, podman, containerd, umoci, scanners. An archive
//! that it reads in another way than we do would hold one thing for a scanner and another one for the guest. So the rules
//! are its rules (as of Go 1.19, with the bounds on sparse maps that came later), down to what ends an archive. The formats
//! themselves are described in pax(1) and in the manual of GNU tar ("Basic Tar Format", "Storing Sparse Files").
//!
//! Owns headers, extension headers and sparse maps. Promises that no member's content is ever in memory as a whole. Must not
//! know what a layer is: names are given as they are written.

mod header;
mod member;
mod number;
mod pax;
mod sparse;

use std::io::{self, Read};

use header::{BLOCK, Block, Dialect};
pub(super) use member::{Member, flag};
use pax::Records;
pub(super) use sparse::Fragment;

/// The largest extension header or sparse map, in bytes.
const MAX_SPECIAL: u64 = 1 << 20;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    #[error("cannot read the archive")]
    Read(#[from] io::Error),
    #[error("the archive ends inside a member")]
    Truncated,
    #[error("the archive is malformed at byte {offset}: {problem}")]
    Malformed { offset: u64, problem: &'static str },
}

/// Where an archive comes from.
pub(super) trait Source: Read {
    /// Passes over `len` bytes; answers how many there were.
    fn skip(&mut self, len: u64) -> io::Result<u64>;
}

/// An archive that can only be read from its beginning to its end.
pub(super) struct Stream<R>(pub(super) R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Stream<R> {
    fn skip(&mut self, len: u64) -> io::Result<u64> {
        io::copy(&mut self.0.by_ref().take(len), &mut io::sink())
    }
}

/// A tar archive. As a reader, it gives the stored data of the member that came last.
pub(super) struct Reader<R> {
    source: R,
    /// Bytes of the archive that were read.
    at: u64,
    /// Bytes of the member's data that were not.
    left: u64,
    /// Bytes after them, up to the next block.
    padding: u64,
}

impl<R: Source> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, at: 0, left: 0, padding: 0 }
    }

    /// How much stored data of the member is left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next member; nothing at the archive's end, which is two blocks of zeros or the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut records = Records::default();
        let (mut long_name, mut long_link) = (Vec::new(), Vec::new());
        loop {
            self.skip_content()?;
            let begin = self.at;
            let malformed = |problem| TarError::Malformed { offset: begin, problem };
            let Some(block) = self.header_block()? else { return Ok(None) };
            let (dialect, mut member) = block.member().map_err(malformed)?;
            self.expect(member.flag, member.size, malformed)?;
            match member.flag {
                flag::PAX => records = pax::records(&self.special()?).map_err(malformed)?,
                flag::PAX_GLOBAL => {
                    // It has to be well-formed, and stands between what was said before and the next member.
                    pax::records(&self.special()?).map_err(malformed)?;
                    records = Records::default();
                    long_name.clear();
                    long_link.clear();
                }
                flag::GNU_LONG_NAME => long_name = header::text(&self.special()?).to_vec(),
                flag::GNU_LONG_LINK => long_link = header::text(&self.special()?).to_vec(),
                _ => {
                    records.apply(&mut member).map_err(malformed)?;
                    if !long_name.is_empty() {
                        member.path = long_name;
                    }
                    if !long_link.is_empty() {
                        member.link = long_link;
                    }
                    if member.flag == flag::OLD_REGULAR {
                        // Old archives mark a directory by a slash at the end of its name.
                        let is_directory = member.path.ends_with(b"/");
                        member.flag = if is_directory { flag::DIRECTORY } else { flag::REGULAR };
                    }
                    self.expect(member.flag, member.size, malformed)?;
                    self.map(&block, dialect, &records, &mut member, malformed)?;
                    if flag::is_header_only(member.flag) {
                        member.size = 0;
                    }
                    member.offset = self.at;
                    return Ok(Some(member));
                }
            }
        }
    }

    /// Finds out where a file's holes are.
    fn map(
        &mut self,
        block: &Block,
        dialect: Dialect,
        records: &Records,
        member: &mut Member,
        malformed: impl Fn(&'static str) -> TarError + Copy,
    ) -> Result<(), TarError> {
        let fragments = if member.flag == flag::GNU_SPARSE {
            if dialect != Dialect::Gnu {
                return Err(malformed("a sparse file in a format that has none"));
            }
            member.size = block.real_size().map_err(malformed)?;
            let (mut fragments, mut is_extended) = block.sparse_map().map_err(malformed)?;
            let mut map_size = BLOCK as u64;
            while is_extended {
                map_size += BLOCK as u64;
                if map_size > MAX_SPECIAL {
                    return Err(malformed("a sparse map of more than 1 MiB"));
                }
                // Not part of the member's size.
                let block = Block(self.raw_block()?.ok_or(TarError::Truncated)?);
                let (more, again) = block.extended_sparse_map().map_err(malformed)?;
                fragments.extend(more);
                is_extended = again;
            }
            fragments
        } else {
            let Some(version) = records.sparse_version() else { return Ok(()) };
            records.apply_sparse(member).map_err(malformed)?;
            match version {
                pax::Sparse::InRecords => records.sparse_map().map_err(malformed)?,
                pax::Sparse::InData => self.map_in_data(malformed)?,
            }
        };
        if flag::is_header_only(member.flag) || !sparse::is_valid(&fragments, member.size) {
            return Err(malformed("an impossible sparse map"));
        }
        member.fragments = Some(fragments.into_iter().filter(|fragment| fragment.len > 0).collect());
        Ok(())
    }

    /// The map of PAX's sparse format 1.0: decimal numbers, a line each, in whole blocks in front of the data.
    fn map_in_data(
        &mut self,
        malformed: impl Fn(&'static str) -> TarError + Copy,
    ) -> Result<Vec<Fragment>, TarError> {
        let mut text = sparse::MapText::default();
        while !text.is_complete().map_err(malformed)? {
            if text.len() as u64 >= MAX_SPECIAL {
                return Err(malformed("a sparse map of more than 1 MiB"));
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(cut)?;
            text.push(&block);
        }
        text.fragments().map_err(malformed)
    }

    /// From here on, so much data can be read.
    fn expect(
        &mut self,
        flag: u8,
        size: u64,
        malformed: impl Fn(&'static str) -> TarError,
    ) -> Result<(), TarError> {
        let size = if flag::is_header_only(flag) { 0 } else { size };
        if i64::try_from(size).is_err() {
            return Err(malformed("a negative size"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Passes over what is left of a member. An archive may end inside the padding.
    fn skip_content(&mut self) -> Result<(), TarError> {
        let passed = self.source.skip(self.left)?;
        self.at += passed;
        if passed < self.left {
            return Err(TarError::Truncated);
        }
        self.at += self.source.skip(self.padding)?;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn header_block(&mut self) -> Result<Option<Block>, TarError> {
        let begin = self.at;
        let Some(block) = self.raw_block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(Block(block)));
        }
        match self.raw_block()? {
            Some(block) if block != [0; BLOCK] => {
                let problem = "one block of zeros, and something behind it";
                Err(TarError::Malformed { offset: begin, problem })
            }
            _ => Ok(None),
        }
    }

    /// A whole block, or nothing at the end of the file.
    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    /// The content of an extension header.
    fn special(&mut self) -> Result<Vec<u8>, TarError> {
        let size = self.left;
        if size > MAX_SPECIAL {
            let problem = "an extension header of more than 1 MiB";
            return Err(TarError::Malformed { offset: self.at, problem });
        }
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        if (content.len() as u64) < size { Err(TarError::Truncated) } else { Ok(content) }
    }
}

impl<R: Source> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..most])?;
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

fn cut(error: io::Error) -> TarError {
    if error.kind() == io::ErrorKind::UnexpectedEof { TarError::Truncated } else { TarError::Read(error) }
}

#[cfg(test)]
mod tests;
