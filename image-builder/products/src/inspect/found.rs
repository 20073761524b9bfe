//! What is found in an image, in the words that all readers share.

use fs_image::Entry;
use serde::Serialize;

/// What an image is, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What it is, in a few words.
    pub kind: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of what it unpacks to, where that is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpacked: Option<u64>,
    /// Partitions of a disk.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// Sections of a unified kernel image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<Section>,
    /// The entries of the root file system, sorted by path.
    pub entries: Vec<Entry>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its name in the table, or its type.
    pub name: String,
    /// What is on it, as far as that can be told.
    pub content: String,
}

/// A section of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its first byte in the file.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// What it says, if it is one of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
