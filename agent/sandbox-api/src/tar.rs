//! Archives of trees: tar as POSIX (pax) writes it, and as GNU tar does.
//!
//! Reads and writes as a stream: of an archive nothing is held but one header. What a header says of itself has a bound, so an
//! archive cannot ask for memory.

use std::io::{self, Read};

/// Bytes of a header, and what everything is rounded up to.
const BLOCK: usize = 512;
/// Most bytes of the long names, links and further fields of one entry.
pub const MOST_EXTENDED: u64 = 64 << 10;
/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends inside of an entry, or could not be read.
    #[error("the archive cannot be read")]
    Io(#[from] io::Error),
    /// A header is none.
    #[error("the archive has a malformed header: {0}")]
    Header(&'static str),
    /// A name or the further fields are too long.
    #[error("the archive has a header of more than {MOST_EXTENDED} bytes")]
    Long,
    /// A kind of entry that is not supported.
    #[error("the archive has an entry of type {:?}, which is not supported: {}", char::from(*.0), String::from_utf8_lossy(.1))]
    Kind(u8, Vec<u8>),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// Kinds by their letters.
const KINDS: [(u8, Kind); 7] = [
    (b'0', Kind::File),
    (b'1', Kind::HardLink),
    (b'2', Kind::Symlink),
    (b'3', Kind::Character),
    (b'4', Kind::Block),
    (b'5', Kind::Directory),
    (b'6', Kind::Fifo),
];

/// An entry, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the archive.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-user-ID and so on.
    pub mode: u32,
    /// Number of its user.
    pub uid: u64,
    /// Number of its group.
    pub gid: u64,
    /// Bytes of data that follow.
    pub size: u64,
    /// Unix seconds.
    pub modified: i64,
    /// Where a link leads; for a hard link a path in the archive.
    pub link: Vec<u8>,
}

impl Entry {
    /// The header of this entry, with another one before it if something does not fit.
    pub fn encode(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut record = |key: &str, value: &[u8]| {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap_or(1);
            records.extend(format!("{} {key}=", rest + digits).into_bytes());
            records.extend(value);
            records.push(b'\n');
        };
        let fits = |number: u64, digits: u32| number < 8u64.pow(digits);
        if self.path.len() > 100 {
            record("path", &self.path);
        }
        if self.link.len() > 100 {
            record("linkpath", &self.link);
        }
        for (key, number, digits) in [("uid", self.uid, 7), ("gid", self.gid, 7), ("size", self.size, 11)] {
            if !fits(number, digits) {
                record(key, number.to_string().as_bytes());
            }
        }
        let modified = u64::try_from(self.modified).ok().filter(|modified| fits(*modified, 11));
        if modified.is_none() {
            record("mtime", self.modified.to_string().as_bytes());
        }
        let mut out = Vec::new();
        if !records.is_empty() {
            let size = records.len() as u64;
            out.extend(header(b"././@PaxHeader", b'x', [0o644, 0, 0], size, 0, b""));
            out.extend(records);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        let letter = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or(b'0', |(letter, _)| *letter);
        let number = |number: u64, digits| if fits(number, digits) { number } else { 0 };
        let ids = [u64::from(self.mode & 0o7777), number(self.uid, 7), number(self.gid, 7)];
        out.extend(header(&self.path, letter, ids, number(self.size, 11), modified.unwrap_or(0), &self.link));
        out
    }

    /// Zeros that follow so many bytes of data.
    pub fn padding(size: u64) -> usize {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over == 0 { 0 } else { BLOCK - over }
    }
}

/// One block. What is too long is cut.
fn header(path: &[u8], letter: u8, ids: [u64; 3], size: u64, modified: u64, link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    for (index, id) in ids.into_iter().enumerate() {
        put(100 + index * 8, format!("{id:07o}\0").as_bytes());
    }
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{modified:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[letter]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Reads an archive. It reads as a file: after [`Reader::next`] the data of that entry.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Data of the current entry that was not read.
    left: u64,
    /// What follows it.
    padding: usize,
}

/// What stands before a header and changes it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
}

impl<R: Read> Reader<R> {
    /// An archive that begins where `input` stands.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, left: 0, padding: 0 }
    }

    /// What it reads from.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; none at the end. What was not read of the one before is skipped.
    ///
    /// # Errors
    /// [`TarError`]; nothing more can be read.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be read from meanwhile")]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            if !fill(&mut self.input, &mut block)? || block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if !has_sum(&block) {
                return Err(TarError::Header("its sum is another one"));
            }
            let letter = block[156];
            self.left = number(&block[124..136]).ok_or(TarError::Header("its size is no number"))?;
            self.padding = Entry::padding(self.left);
            match letter {
                b'L' => extension.path = Some(until_nul(&self.extended()?).to_vec()),
                b'K' => extension.link = Some(until_nul(&self.extended()?).to_vec()),
                b'x' => records(&self.extended()?, &mut extension)?,
                // Defaults for all that follow: nothing that matters here stands in them.
                b'g' => {}
                _ => return self.entry(&block, letter, extension).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], letter: u8, extension: Extension) -> Result<Entry, TarError> {
        let path = extension.path.unwrap_or_else(|| {
            let (name, prefix) = (until_nul(&block[..100]), until_nul(&block[345..500]));
            let has_prefix = &block[257..263] == b"ustar\0" && !prefix.is_empty();
            if has_prefix { [prefix, b"/", name].concat() } else { name.to_vec() }
        });
        let kind = match letter {
            // Before POSIX a directory was a file whose name ends so.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'7' => Kind::File,
            letter => {
                let known = KINDS.iter().find(|(other, _)| *other == letter).map(|(_, kind)| *kind);
                known.ok_or_else(|| TarError::Kind(letter, path.clone()))?
            }
        };
        let field = |from: usize, to: usize| number(&block[from..to]);
        let size = if kind == Kind::File { extension.size.unwrap_or(self.left) } else { 0 };
        // Nothing but a file has data, whatever the header says of its size.
        (self.left, self.padding) = (size, Entry::padding(size));
        Ok(Entry {
            path,
            kind,
            mode: u32::try_from(field(100, 108).unwrap_or(0) & 0o7777).unwrap_or(0),
            uid: extension.uid.or_else(|| field(108, 116)).unwrap_or(0),
            gid: extension.gid.or_else(|| field(116, 124)).unwrap_or(0),
            size,
            modified: extension
                .modified
                .unwrap_or_else(|| field(136, 148).and_then(|time| i64::try_from(time).ok()).unwrap_or(0)),
            link: extension.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec()),
        })
    }

    /// All data of the current entry, which is a part of the next one's header.
    fn extended(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > MOST_EXTENDED {
            return Err(TarError::Long);
        }
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let rest = self.left.saturating_add(self.padding as u64);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        // Some archives end without the last zeros.
        if skipped < rest { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) } else { Ok(()) }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Fills a block; false at the end of the input.
fn fill(input: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match input.read(&mut block[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or, where the first bit is set, in base 256.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        return rest.iter().try_fold(u64::from(first & 0x7f), |number, byte| {
            number.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Whether a header's sum is right, counted with or without signs, as old programs differ.
fn has_sum(block: &[u8; BLOCK]) -> bool {
    let bytes =
        || block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    number(&block[148..156])
        .and_then(|sum| i64::try_from(sum).ok())
        .is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Reads `LENGTH KEY=VALUE\n`, as often as it comes.
fn records(mut data: &[u8], extension: &mut Extension) -> Result<(), TarError> {
    let malformed = || TarError::Header("its further fields are malformed");
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let length =
            length.filter(|length| (space + 2..=data.len()).contains(length)).ok_or_else(malformed)?;
        let (record, rest) = data.split_at(length);
        let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let text = || std::str::from_utf8(value).map_err(|_| malformed());
        let whole = || text()?.parse::<u64>().map_err(|_| malformed());
        match key {
            b"path" => extension.path = Some(value.to_vec()),
            b"linkpath" => extension.link = Some(value.to_vec()),
            b"size" => extension.size = Some(whole()?),
            b"uid" => extension.uid = Some(whole()?),
            b"gid" => extension.gid = Some(whole()?),
            b"mtime" => {
                let text = text()?;
                let seconds = text.split_once('.').map_or(text, |(seconds, _)| seconds);
                extension.modified = Some(seconds.parse().map_err(|_| malformed())?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Kind(b'S', extension.path.clone().unwrap_or_default()));
            }
            _ => {}
        }
        data = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &str, kind: Kind, link: &str, size: u64) -> Entry {
        let (path, link) = (path.as_bytes().to_vec(), link.as_bytes().to_vec());
        Entry { path, kind, mode: 0o4755, uid: 1000, gid: 3_000_000_000, size, modified: -5, link }
    }

    fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (entry, data) in entries {
            archive.extend(entry.encode());
            archive.extend(*data);
            archive.resize(archive.len() + Entry::padding(entry.size), 0);
        }
        archive.extend(END);
        archive
    }

    fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(archive);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut data = Vec::new();
            reader.read_to_end(&mut data)?;
            entries.push((entry, data));
        }
        Ok(entries)
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "ü/".repeat(400);
        let entries: [(Entry, &[u8]); 5] = [
            (entry("d", Kind::Directory, "", 0), b""),
            (entry("d/f", Kind::File, "", 3), b"abc"),
            (entry(&long, Kind::Symlink, &long, 0), b""),
            (entry("hard", Kind::HardLink, "d/f", 0), b""),
            (entry("pipe", Kind::Fifo, "", 0), b""),
        ];
        let read = read(&archive(&entries)).unwrap();
        assert_eq!(read.len(), entries.len());
        for ((entry, data), (expected, content)) in read.iter().zip(&entries) {
            assert_eq!((entry, data.as_slice()), (expected, *content));
        }
    }

    #[test]
    fn data_that_nobody_reads_is_skipped() {
        let content = [7; 1000];
        let archive =
            archive(&[(entry("a", Kind::File, "", 1000), &content), (entry("b", Kind::File, "", 0), b"")]);
        let mut reader = Reader::new(archive.as_slice());
        assert_eq!(reader.next().unwrap().unwrap().path, b"a");
        assert_eq!(reader.next().unwrap().unwrap().path, b"b");
        assert!(reader.next().unwrap().is_none());
        // Without the zeros at the end, and cut.
        assert_eq!(read(&archive[..archive.len() - 1024]).unwrap().len(), 2);
        assert!(matches!(read(&archive[..700]), Err(TarError::Io(_))));
        assert!(matches!(read(&archive[..2000]), Err(TarError::Io(_))));
    }

    #[test]
    fn gnus_long_names_are_read() {
        let mut archive = header(b"././@LongLink", b'L', [0; 3], 6, 0, b"").to_vec();
        archive.extend(b"long!\0");
        archive.resize(2 * BLOCK, 0);
        archive.extend(header(b"short", b'0', [0o644, 0, 0], 0, 7, b""));
        let read = read(&archive).unwrap();
        assert_eq!((read[0].0.path.as_slice(), read[0].0.modified), (&b"long!"[..], 7));
    }

    #[test]
    fn what_a_header_says_has_a_bound() {
        for letter in [b'L', b'K', b'x'] {
            let archive = header(b"x", letter, [0; 3], MOST_EXTENDED + 1, 0, b"");
            assert!(matches!(read(&archive), Err(TarError::Long)), "{letter}");
        }
        assert!(matches!(read(&header(b"x", b'S', [0; 3], 0, 0, b"")), Err(TarError::Kind(b'S', _))));
        let mut block = header(b"x", b'0', [0; 3], 0, 0, b"");
        block[0] = b'y';
        assert!(matches!(read(&block), Err(TarError::Header(_))));
    }

    proptest! {
        #[test]
        fn no_archive_is_too_much(mut archive in proptest::collection::vec(any::<u8>(), 0..2048), text in "([0-9]{1,3} (path|size|mtime|GNU.sparse.x)=.{0,9}\n){0,4}") {
            drop(read(&archive));
            let mut sealed = header(b"x", b'x', [0; 3], text.len() as u64, 0, b"").to_vec();
            sealed.extend(text.bytes());
            sealed.resize(sealed.len().next_multiple_of(BLOCK), 0);
            sealed.append(&mut archive);
            drop(read(&sealed));
        }
    }
}
