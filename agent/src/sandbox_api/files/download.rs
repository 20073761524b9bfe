//! A file on its way out, piece by piece.
//!
//! A piece is read when the one before has left, so a slow client holds a descriptor and a piece, and no thread. Files that
//! have no size of their own (`/proc`, `/sys`) are read to their end.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use sandbox_api::http::{Chunks, Headers, Payload, Response};
use sandbox_api::range::{Conditions, Selection, http_date};

use super::content_type::{content_type, disposition};
use crate::sandbox_api::rooted::{FileError, Root, Workers, base, errno};
use crate::sandbox_api::storage::Download as Place;

/// File systems whose files are made when they are read, whatever size they say: proc, sysfs, cgroup2, cgroup, debugfs,
/// tracefs, securityfs, configfs, the kernel's binary formats, efivars.
const MADE_WHEN_READ: [i64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x6367_7270,
    0x0027_e0eb,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0x4249_4e4d,
    0xde5e_81e4,
];

/// A file that was opened, and what is to be sent of it.
pub(super) struct Download {
    path: String,
    modified: i64,
    content: Content,
}

enum Content {
    /// A file of this size.
    Sized(File, u64),
    /// What was read of a file already, the file, and whether there is more.
    Made(Vec<u8>, File, bool),
}

impl Download {
    /// Opens a file, of which so many bytes may be read at once. Blocks.
    pub(super) fn open(root: &Root, path: &str, piece: usize) -> Result<Download, FileError> {
        let (mut file, stat) = root.read(path)?;
        #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
        let kind = rustix::fs::fstatfs(&file).map_err(FileError::during("open", path))?.f_type as i64;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_made = MADE_WHEN_READ.contains(&(kind & 0xFFFF_FFFF));
        let content = if size > 0 && !is_made {
            Content::Sized(file, size)
        } else {
            let mut first = Vec::new();
            let has_more = fill(&mut file, &mut first, piece).map_err(FileError::during("read", path))?;
            // What is empty, and not only says so, has conditions as others have.
            if first.is_empty() && !is_made {
                Content::Sized(file, 0)
            } else {
                Content::Made(first, file, has_more)
            }
        };
        Ok(Download { path: path.to_owned(), modified: stat.st_mtime, content })
    }

    /// The answer to a request with these headers. The place is kept until all is sent.
    pub(super) fn answer(self, headers: &Headers, workers: &Workers, place: Place) -> Response {
        let Download { path, modified, content } = self;
        let response = |status| {
            let response =
                Response::empty(status).with("vary", "Accept-Encoding").with("accept-ranges", "bytes");
            match http_date(modified) {
                Some(date) => response.with("last-modified", date),
                None => response,
            }
        };
        let kind = content_type(&path);
        let described = |status, kind: &str| {
            response(status)
                .with("content-type", kind)
                .with("content-disposition", disposition(base(&path)))
                .with("x-content-type-options", "nosniff")
        };
        let source = |file, pieces: VecDeque<Piece>| {
            Source { file: Arc::new(file), pieces, workers: workers.clone(), place }.stream()
        };
        match content {
            Content::Made(first, file, has_more) => {
                let length = first.len() as u64;
                let mut pieces = VecDeque::from([Piece::Text(first.into())]);
                let payload = if has_more {
                    pieces.push_back(Piece::Rest);
                    Payload::Stream(source(file, pieces))
                } else {
                    Payload::Sized(length, source(file, pieces))
                };
                Response { payload, ..described(200, kind) }
            }
            Content::Sized(file, size) => match conditions(headers).select(size, modified) {
                Selection::NotModified => response(304),
                Selection::Failed => response(412),
                Selection::Unsatisfiable { text, overlaps_nothing } => {
                    let refused = Response::text(416, text);
                    if overlaps_nothing {
                        refused.with("content-range", format!("bytes */{size}"))
                    } else {
                        refused
                    }
                }
                Selection::Whole => {
                    let pieces = VecDeque::from([Piece::Range(0..size)]);
                    Response { payload: Payload::Sized(size, source(file, pieces)), ..described(200, kind) }
                }
                Selection::Part(range) => {
                    let length = range.end - range.start;
                    let head = described(206, kind).with("content-range", content_range(&range, size));
                    let pieces = VecDeque::from([Piece::Range(range)]);
                    Response { payload: Payload::Sized(length, source(file, pieces)), ..head }
                }
                Selection::Parts(ranges) => {
                    let boundary = boundary();
                    let pieces = parts(&ranges, size, kind, &boundary);
                    let length = pieces.iter().map(Piece::length).sum();
                    let head = described(206, &format!("multipart/byteranges; boundary={boundary}"));
                    Response { payload: Payload::Sized(length, source(file, pieces)), ..head }
                }
            },
        }
    }
}

fn conditions(headers: &Headers) -> Conditions<'_> {
    Conditions {
        if_match: headers.get("if-match"),
        if_unmodified_since: headers.get("if-unmodified-since"),
        if_none_match: headers.get("if-none-match"),
        if_modified_since: headers.get("if-modified-since"),
        if_range: headers.get("if-range"),
        range: headers.get("range"),
    }
}

fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// A text that no file has, or hardly.
fn boundary() -> String {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

fn parts(ranges: &[Range<u64>], size: u64, kind: &str, boundary: &str) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    let mut before = "";
    for range in ranges {
        let field = content_range(range, size);
        let head = format!("{before}--{boundary}\r\nContent-Range: {field}\r\nContent-Type: {kind}\r\n\r\n");
        pieces.push_back(Piece::Text(head.into_bytes().into()));
        pieces.push_back(Piece::Range(range.clone()));
        before = "\r\n";
    }
    pieces.push_back(Piece::Text(format!("\r\n--{boundary}--\r\n").into_bytes().into()));
    pieces
}

/// What an answer is made of.
enum Piece {
    Text(Bytes),
    Range(Range<u64>),
    /// All that is left of the file.
    Rest,
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::Text(text) => text.len() as u64,
            Piece::Range(range) => range.end - range.start,
            Piece::Rest => 0,
        }
    }
}

struct Source {
    file: Arc<File>,
    pieces: VecDeque<Piece>,
    workers: Workers,
    place: Place,
}

impl Source {
    fn stream(self) -> Chunks {
        Box::pin(stream::try_unfold(self, |mut source| async move {
            loop {
                let bytes = match source.pieces.front_mut() {
                    None => return Ok(None),
                    Some(Piece::Text(text)) => {
                        let text = std::mem::take(text);
                        source.pieces.pop_front();
                        text
                    }
                    Some(Piece::Range(range)) if range.is_empty() => {
                        source.pieces.pop_front();
                        continue;
                    }
                    Some(Piece::Range(range)) => {
                        let most = source.place.piece;
                        let length = usize::try_from(range.end - range.start).unwrap_or(most).min(most);
                        let start = range.start;
                        let bytes = source.read(move |file| read_at(file, start, length)).await?;
                        if let Some(Piece::Range(range)) = source.pieces.front_mut() {
                            range.start += bytes.len() as u64;
                        }
                        bytes
                    }
                    Some(Piece::Rest) => {
                        let most = source.place.piece;
                        let bytes = source.read(move |file| read_next(file, most)).await?;
                        if bytes.is_empty() {
                            source.pieces.pop_front();
                        }
                        bytes
                    }
                };
                if !bytes.is_empty() {
                    return Ok(Some((bytes, source)));
                }
            }
        }))
    }

    async fn read<W>(&self, work: W) -> io::Result<Bytes>
    where
        W: FnOnce(&File) -> io::Result<Bytes> + Send + 'static,
    {
        let file = Arc::clone(&self.file);
        let read = self.workers.run(move |_| work(&file).map_err(FileError::during("read", "the file")));
        read.await.map_err(io::Error::other)
    }
}

/// So many bytes from an offset, or as many as are there; the file has become shorter if there are none.
fn read_at(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(length);
    while buffer.len() < length {
        let at = start + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) if buffer.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    buffer.truncate(length);
    Ok(buffer.into())
}

fn read_next(file: &File, most: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    let mut file = file;
    fill(&mut file, &mut bytes, most)?;
    Ok(bytes.into())
}

/// Reads a piece of a file that is made when it is read. Whether there may be more. A file that would make its reader wait
/// ends here.
fn fill(file: &mut impl io::Read, bytes: &mut Vec<u8>, most: usize) -> io::Result<bool> {
    bytes.resize(most, 0);
    let mut filled = 0;
    let has_more = loop {
        if filled == bytes.len() {
            break true;
        }
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break false,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if errno(&error) == Some(rustix::io::Errno::AGAIN) => break false,
            Err(error) => return Err(error),
        }
    };
    bytes.truncate(filled);
    // A client that does not read holds no more than what there is.
    bytes.shrink_to_fit();
    Ok(has_more)
}
