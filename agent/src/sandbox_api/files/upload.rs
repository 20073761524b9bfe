//! Files on their way in.
//!
//! ```text
//! body ─ piece ─► thread: gzip? ─ form? ─ file
//! ```
//!
//! Each piece of the body is worked on by a thread, to its end, before the next one is read: nothing is held but what a decoder
//! keeps. What a piece unpacks to goes to the disk at once, and stops where the disk is full or nobody waits. A file is
//! emptied and written in place, as the protocol wants it: its mode, its hard links and whoever has it open stay. It is emptied
//! only once there is something to write, or the body is complete and empty.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use sandbox_api::multipart::{FormError, Parser, Part, Sink};
use serde_json::{Value, json};

use super::metadata::{self, Metadata};
use crate::sandbox_api::rooted::{FileError, Owner, Root, Stop, base, texts_to_json};

/// Most bytes of the paths of one request, which the answer repeats.
pub(crate) const MOST_PATHS: usize = 1 << 20;
/// The form's fields that are files.
const FIELD: &str = "file";

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    name: String,
    path: String,
    metadata: Metadata,
}

impl Written {
    /// As it is answered.
    pub(super) fn to_json(&self) -> Value {
        let mut written = json!({ "name": self.name, "path": self.path, "type": "file" });
        if !self.metadata.is_empty() {
            written["metadata"] = texts_to_json(&mut self.metadata.iter());
        }
        written
    }

    pub(super) fn new(path: &str, metadata: Metadata) -> Written {
        Written { name: base(path).to_owned(), path: path.to_owned(), metadata }
    }
}

/// How a body is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoding<'a> {
    /// `Content-Type`.
    pub(super) content_type: &'a str,
    /// `Content-Encoding`.
    pub(super) content_encoding: &'a str,
}

/// Where files go.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) root: Root,
    pub(super) owner: Owner,
    /// `path` of the request, as it came.
    pub(super) path: Option<String>,
    pub(super) metadata: Metadata,
}

/// An upload under way.
pub(super) struct Upload(Decoder);

enum Decoder {
    Plain(Box<Content>),
    Gzip(Box<MultiGzDecoder<Content>>),
}

/// What is in the body, once it is unpacked.
enum Content {
    Form(Parser, Files),
    /// One file, and its path until it is opened.
    Bytes(Option<String>, Files),
}

impl Upload {
    /// Begins one. Opens nothing yet: a body that cannot be read leaves a file as it was.
    pub(super) fn new(to: Destination, encoding: Encoding<'_>) -> Result<Upload, FileError> {
        let kind = encoding.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_gzip = match encoding.content_encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => false,
            "gzip" | "x-gzip" => true,
            other => {
                let wanted = "gzip or identity is expected";
                return Err(FileError::Invalid(format!("unsupported content encoding '{other}': {wanted}")));
            }
        };
        let files = Files::new(to);
        let content = match kind.as_str() {
            "multipart/form-data" => Content::Form(Parser::new(encoding.content_type).map_err(form)?, files),
            "application/octet-stream" => {
                let path = files.to.path.clone().filter(|path| !path.is_empty());
                let path = path.ok_or_else(|| {
                    FileError::Invalid(
                        "path is required for an upload of application/octet-stream".to_owned(),
                    )
                })?;
                Content::Bytes(Some(path), files)
            }
            _ => {
                let wanted = "multipart/form-data or application/octet-stream is expected";
                return Err(FileError::Invalid(format!("unsupported content type '{kind}': {wanted}")));
            }
        };
        let decoder = if is_gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(content)))
        } else {
            Decoder::Plain(Box::new(content))
        };
        Ok(Upload(decoder))
    }

    /// Takes the next piece of the body. Blocks.
    pub(super) fn feed(&mut self, piece: &[u8], stop: &Stop) -> Result<(), FileError> {
        self.content().files().stop = Some(stop.clone());
        let fed = match &mut self.0 {
            Decoder::Plain(content) => content.feed(piece),
            Decoder::Gzip(decoder) => decoder.write_all(piece).map_err(unpacked),
        };
        // A decoder that is dropped writes what it still has, wherever that is. Nobody waits for it.
        self.content().files().stop = None;
        fed
    }

    /// The body is complete: what was written. Blocks.
    pub(super) fn finish(mut self, stop: &Stop) -> Result<Vec<Written>, FileError> {
        self.content().files().stop = Some(stop.clone());
        match self.0 {
            Decoder::Plain(content) => content.finish(),
            Decoder::Gzip(decoder) => decoder.finish().map_err(unpacked)?.finish(),
        }
    }

    fn content(&mut self) -> &mut Content {
        match &mut self.0 {
            Decoder::Plain(content) => content,
            Decoder::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

impl Content {
    fn files(&mut self) -> &mut Files {
        match self {
            Content::Form(_, files) | Content::Bytes(_, files) => files,
        }
    }

    fn feed(&mut self, data: &[u8]) -> Result<(), FileError> {
        match self {
            Content::Form(parser, files) => parser.feed(data, files).map_err(|PartError(error)| error),
            Content::Bytes(path, files) => {
                files.open_at(path)?;
                files.write(data)
            }
        }
    }

    fn finish(self) -> Result<Vec<Written>, FileError> {
        match self {
            Content::Form(parser, files) => parser.finish().map_err(form).map(|()| files.written),
            Content::Bytes(mut path, mut files) => {
                files.open_at(&mut path)?;
                files.close();
                Ok(files.written)
            }
        }
    }
}

/// What the decoder writes to.
impl Write for Content {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.feed(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn form(error: FormError) -> FileError {
    FileError::Invalid(error.to_string())
}

/// What stopped the decoder: the files, or the body itself.
fn unpacked(error: io::Error) -> FileError {
    let text = error.to_string();
    match error.into_inner().map(|inner| inner.downcast::<FileError>()) {
        Some(Ok(error)) => *error,
        _ => FileError::Invalid(format!("the body is not gzip: {text}")),
    }
}

/// The files of one request.
struct Files {
    to: Destination,
    seen: HashSet<String>,
    paths: usize,
    current: Option<(File, Written)>,
    written: Vec<Written>,
    /// Told when nobody waits any more. None between two pieces: nothing may be written then.
    stop: Option<Stop>,
}

impl Files {
    fn new(to: Destination) -> Files {
        Files { to, seen: HashSet::new(), paths: 0, current: None, written: Vec::new(), stop: None }
    }

    fn check(&self) -> Result<(), FileError> {
        self.stop.as_ref().ok_or(FileError::Abandoned)?.check()
    }

    /// Opens the file at this path, unless that is done already.
    fn open_at(&mut self, path: &mut Option<String>) -> Result<(), FileError> {
        self.check()?;
        path.take().map_or(Ok(()), |path| self.open(&path))
    }

    fn open(&mut self, path: &str) -> Result<(), FileError> {
        self.check()?;
        let path = self.to.owner.expand(path)?;
        self.paths += path.len();
        if self.paths > MOST_PATHS {
            return Err(FileError::Exhausted(format!(
                "the paths of one request have at most {MOST_PATHS} bytes together"
            )));
        }
        if !self.seen.insert(path.clone()) {
            return Err(FileError::Invalid(format!(
                "you cannot upload multiple files to the same path '{path}'"
            )));
        }
        let file = self.to.root.write(&path, &self.to.owner)?;
        let is_kept = metadata::replace(&file, &path, &self.to.metadata)?;
        let metadata = if is_kept { self.to.metadata.clone() } else { Metadata::new() };
        self.current = Some((file, Written::new(&path, metadata)));
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), FileError> {
        self.check()?;
        let Some((file, written)) = &mut self.current else { return Ok(()) };
        file.write_all(data).map_err(FileError::during("write", &written.path))
    }

    fn close(&mut self) {
        self.written.extend(self.current.take().map(|(_, written)| written));
    }
}

/// An error of a form's part; a type of its own, since errors of forms become it.
struct PartError(FileError);

impl From<FormError> for PartError {
    fn from(error: FormError) -> PartError {
        PartError(form(error))
    }
}

impl Sink for Files {
    type Error = PartError;

    fn begin(&mut self, part: Part) -> Result<(), PartError> {
        // Data of other fields goes nowhere.
        if part.name != FIELD {
            return Ok(());
        }
        let path = self.to.path.clone().filter(|path| !path.is_empty()).or(part.filename);
        let path = path.filter(|path| !path.is_empty()).ok_or_else(|| {
            FileError::Invalid(
                "a file needs a path: neither the query has one nor the part a filename".to_owned(),
            )
        });
        path.and_then(|path| self.open(&path)).map_err(PartError)
    }

    fn data(&mut self, data: &[u8]) -> Result<(), PartError> {
        self.write(data).map_err(PartError)
    }

    fn end(&mut self) -> Result<(), PartError> {
        self.close();
        Ok(())
    }
}
