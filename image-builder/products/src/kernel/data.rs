//! The data files of `kernel-config/`: how they are read, and what can be wrong with them.

use std::io;
use std::path::{Path, PathBuf};

use super::arch::Arch;
use super::fragment::FragmentError;

/// What is wrong with a data file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML of the expected shape.
    #[error("{path} is not understood")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A profile of this name does not exist.
    #[error("there is no kernel profile {name:?}; there are: {known}")]
    NoProfile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A fragment of a user has a name that no kernel can have.
    #[error(
        "{0} cannot be the first fragment: its name without the ending becomes the name of the kernel, and must be letters, digits \
         and `-`, and no profile's; rename it"
    )]
    FragmentName(PathBuf),
    /// A profile allows what is not forbidden.
    #[error("{path}: allows {option}, which is not forbidden")]
    Allow {
        /// The profile.
        path: PathBuf,
        /// The option.
        option: String,
    },
    /// A fragment directory holds no fragment.
    #[error("{profile}: {fragments} has no *.conf file")]
    NoFragment {
        /// The profile.
        profile: PathBuf,
        /// The directory.
        fragments: PathBuf,
    },
    /// A list of requirements is wrong.
    #[error("{path}: {reason}")]
    Requirement {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A profile says that it meets a requirement that does not exist.
    #[error("{path}: meets {name:?}, which is no file in requirement/; there are: {known}")]
    NoRequirement {
        /// The profile.
        path: PathBuf,
        /// What it names.
        name: String,
        /// What there is.
        known: String,
    },
    /// A profile is not for the processor that was asked for.
    #[error("the kernel profile {name} is for {theirs}, not for {arch}; for {arch} there are: {known}")]
    ProfileArch {
        /// The profile.
        name: String,
        /// What it is for.
        theirs: Arch,
        /// What was asked for.
        arch: Arch,
        /// The profiles for that.
        known: String,
    },
    /// A profile says that it meets a requirement of another processor.
    #[error("{path}: meets {name:?}, which is for {theirs}, and this profile is for {ours}")]
    OtherArch {
        /// The profile.
        path: PathBuf,
        /// What it names.
        name: String,
        /// The requirement's processor.
        theirs: Arch,
        /// The profile's.
        ours: Arch,
    },
    /// A profile bounds a file that its kernel does not have.
    #[error("{path}: the budget is for {name}, but a kernel for {arch} is bounded by {image}")]
    Budget {
        /// The profile.
        path: PathBuf,
        /// What it bounds.
        name: String,
        /// Its processor.
        arch: Arch,
        /// What it can bound.
        image: &'static str,
    },
    /// A fragment is wrong.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
}

impl DataError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn toml(path: &Path, source: toml::de::Error) -> Self {
        Self::Toml { path: path.to_path_buf(), source: Box::new(source) }
    }
}

pub(super) fn read(path: &Path) -> Result<String, DataError> {
    std::fs::read_to_string(path).map_err(DataError::read(path))
}

pub(super) fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    toml::from_str(&read(path)?).map_err(|source| DataError::toml(path, source))
}
