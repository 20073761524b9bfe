//! What containers can mount, and where.

use std::path::PathBuf;

use super::env::{Field, ResourceField};

/// Something that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
}

/// Kinds of volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeKind {
    /// An empty directory in the guest that lives as long as the pod.
    EmptyDir {
        /// A tmpfs of its own rather than a directory.
        memory: bool,
        /// The tmpfs's size in bytes.
        size: Option<u64>,
    },
    /// A file or directory of the host, shared with the guest.
    HostPath {
        /// Where it is; relative to the manifest.
        path: PathBuf,
        /// What it must be, and whether it is made.
        kind: HostPathKind,
    },
    /// Files that the manifest itself has. Containers cannot write to them.
    Files(Vec<VolumeFile>),
}

/// What a `hostPath` must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathKind {
    /// A file or directory that is there.
    Any,
    /// A directory that is there.
    Directory,
    /// A directory, made where it is missing.
    DirectoryOrCreate,
    /// A file that is there.
    File,
    /// A file, made empty where it is missing.
    FileOrCreate,
}

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its path in the volume.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub data: FileData,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileData {
    /// The manifest.
    Bytes(Content),
    /// Something of the pod that is known when it runs.
    Field(Field),
    /// A container's resource.
    Resource(ResourceField),
}

/// Bytes of a file, which are not shown when it is printed for debugging: they may be secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeMount {
    /// The volume.
    pub volume: String,
    /// The path in the container.
    pub path: String,
    /// Whether it cannot be written to.
    pub readonly: bool,
    /// Whether this holds for file systems that are mounted below, too.
    pub readonly_below: bool,
    /// What of the volume is mounted; empty for all of it.
    pub sub_path: String,
    /// Whether `$(NAME)` in it stands for a variable of the container.
    pub sub_path_expands: bool,
    /// Which later mounts are seen on the other side.
    pub propagation: Propagation,
}

/// Which later mounts below a mounted volume are seen on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// None.
    #[default]
    None,
    /// The guest's are seen in the container.
    FromGuest,
    /// Both sides see each other's.
    Both,
}
