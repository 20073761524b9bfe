//! What is known about a built kernel; kept beside it in the cache.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::KernelError;
use crate::manifest::{KernelPart, Toolchain};
use store::digest::Digest;

/// What is known about a built kernel; kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// `uname -r`.
    pub release: String,
    /// The profile's name.
    pub profile: String,
    /// The tarball's file name.
    pub source: String,
    /// Its digest.
    pub source_sha256: Digest,
    /// What built it.
    #[serde(flatten)]
    pub toolchain: Toolchain,
    /// How many pieces make reported: the next build's estimate.
    pub pieces: u64,
    /// The physical address a VMM enters `vmlinux` at; only a PC's kernel has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvh_entry: Option<u32>,
}

impl Record {
    /// Reads the one beside the kernel in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self, KernelError> {
        let path = dir.join("record.json");
        let text = std::fs::read(&path).map_err(KernelError::io("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| KernelError::io("understand", &path)(error.into()))
    }

    /// What of it is told in the manifest, for the profile that asked for the kernel.
    pub(super) fn part(&self, profile: &str) -> KernelPart {
        KernelPart {
            release: self.release.clone(),
            profile: profile.to_owned(),
            source: self.source.clone(),
            source_sha256: self.source_sha256,
            toolchain: self.toolchain.clone(),
        }
    }
}
