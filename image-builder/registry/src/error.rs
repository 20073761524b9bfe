//! What can go wrong between this host and a registry.
//!
//! Owns the texts. Promises that each names the file or URL and what to do. Must never hold a password or a token.

use std::io;
use std::path::{Path, PathBuf};

use store::cache::CacheError;

/// Why something could not be sent to a registry or fetched from one.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the cache cannot be written.
    #[error("cannot write the cache")]
    Write(#[from] CacheError),
    /// The reference does not parse.
    #[error("{text:?} is no reference: {problem}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// A JSON document does not parse or cannot be made.
    #[error("cannot understand {subject}; it is no OCI document")]
    Json {
        /// The file or URL.
        subject: String,
        /// Where it stopped making sense.
        source: serde_json::Error,
    },
    /// The registry cannot be reached, or hung up.
    #[error("cannot {operation} {url}; check the address and the network")]
    Http {
        /// The HTTP method, or what was being done.
        operation: &'static str,
        /// Where.
        url: String,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// The content of a blob stopped on its way to the disk.
    #[error("cannot fetch {url} into {}; try again", path.display())]
    Fetch {
        /// Where from.
        url: String,
        /// Where to.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The registry answers, but not as hoped.
    #[error("{operation} {url} was answered with {status}; {hint}")]
    Status {
        /// The HTTP method.
        operation: &'static str,
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry said, or what to try.
        hint: String,
    },
    /// The registry wants to know who asks.
    #[error("{url} wants authentication (401): {problem}")]
    Unauthorized {
        /// Where.
        url: String,
        /// What is missing and how to get it.
        problem: String,
    },
    /// Content is not what its digest says.
    #[error("{subject} has digest sha256:{found}, but {expected} is expected; nothing of it was kept")]
    Digest {
        /// The URL.
        subject: String,
        /// What is there.
        found: String,
        /// What was promised.
        expected: String,
    },
    /// Content is shorter or longer than promised.
    #[error("{subject} has not the {expected} bytes that are expected; nothing of it was kept")]
    Size {
        /// The URL.
        subject: String,
        /// What was promised.
        expected: u64,
    },
    /// What is there is no image, or none that can be used here.
    #[error("{subject} {problem}")]
    NoImage {
        /// The reference.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The image is larger than wanted.
    #[error("{subject} has {size} bytes, more than {most}; --max-size raises that ceiling")]
    TooLarge {
        /// The reference.
        subject: String,
        /// What its manifest promises.
        size: u64,
        /// The ceiling.
        most: u64,
    },
    /// Nothing moves.
    #[error("the transfer of {reference} made no progress for {seconds} s; try again")]
    Stalled {
        /// The reference.
        reference: String,
        /// For how long.
        seconds: f64,
    },
    /// The thread that did the work is gone.
    #[error("the transfer of {0} ended without a result; try again")]
    Lost(String),
}

impl RegistryError {
    /// A file operation that failed.
    pub fn io(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    /// A document that does not parse.
    pub fn json(subject: impl ToString) -> impl FnOnce(serde_json::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Json { subject, source }
    }
}
