//! Why products cannot be put in their places.

use std::io;
use std::path::{Path, PathBuf};

use store::arch::Arch;
use store::digest::Digest;

/// Why products cannot be put in their places.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A product is not there.
    #[error("there is no {path}; make it with: {command}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes it.
        command: String,
    },
    /// A product is not what the manifest says.
    #[error("{path} has sha256 {found}, but the manifest beside it says {expected}; build it anew")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Something is in the way.
    #[error("{0} is there already and was not written from here; move it away, or choose another directory")]
    Foreign(PathBuf),
    /// A link leads somewhere else.
    #[error(
        "{0} is a link, and links are not followed there; replace it by a directory, or choose another one"
    )]
    Link(PathBuf),
    /// A file is not as it was written.
    #[error(
        "{0} was changed since it was installed; move your changes to a file of your own, or add --force"
    )]
    Edited(PathBuf),
    /// Another installation has another file of this name.
    #[error(
        "{path} is also of the installation {other:?} and would change under it; uninstall that one first, or choose another directory"
    )]
    Shared {
        /// The file.
        path: PathBuf,
        /// The other installation's name.
        other: String,
    },
    /// There is no such installation.
    #[error("there is no {receipt}, so nothing is known of such an installation; {}", hint(known))]
    NotInstalled {
        /// Where its receipt would be.
        receipt: PathBuf,
        /// The names of those that there are.
        known: Vec<String>,
    },
    /// A receipt cannot be understood.
    #[error("{path} is no receipt of an installation that this program can read: {reason}")]
    BadReceipt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A name that no runtime handler can have.
    #[error(
        "{0:?} cannot be the name of a runtime handler: take lower-case letters, digits and hyphens, at most 63"
    )]
    Name(String),
    /// A directory that is not named from the root.
    #[error("{0} must be an absolute path without . and .., and not / itself")]
    NotAbsolute(PathBuf),
    /// Kata's own configuration was not found.
    #[error(
        "no configuration of Kata Containers for {wanted} was found; name one with --base. Looked at:{}",
        list(places)
    )]
    NoBase {
        /// Which VMM and shim.
        wanted: String,
        /// Where it was looked for, and why that was not it.
        places: Vec<String>,
    },
    /// What is given as Kata's configuration is none, or not the one that is wanted.
    #[error("{path} cannot be the base: {reason}")]
    BadBase {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// A version of Kata Containers that this does not know.
    #[error("{0}; say which version it is with --kata-version")]
    Version(String),
    /// A kernel that a VMM cannot use.
    #[error(
        "the kernel of the profile {profile:?} does not run under {vmm}: it lacks {option} ({why}); {way_out}"
    )]
    Kernel {
        /// The kernel's profile.
        profile: String,
        /// The VMM.
        vmm: &'static str,
        /// The option of the kernel's configuration.
        option: &'static str,
        /// What it is needed for.
        why: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// The end was called for.
    #[error("stopped; nothing was left behind")]
    Stopped,
    /// The kernel is for another processor than the guest.
    #[error(
        "the kernel {profile:?} is for {theirs}, and the guest for {arch}; add --arch {theirs}, or take another --profile"
    )]
    Processor {
        /// Its profile.
        profile: String,
        /// What it is for.
        theirs: Arch,
        /// What the guest is for.
        arch: Arch,
    },
    /// A combination that no VMM can boot.
    #[error("{0}")]
    Impossible(&'static str),
    /// A machine that no guest can boot on.
    #[error(transparent)]
    Machine(#[from] machine::vm::VmError),
    /// A file operation failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn hint(known: &[String]) -> String {
    match known {
        [] => "name its directory with --prefix and its name with --name".to_owned(),
        names => format!("there are: {}; choose one with --name", names.join(", ")),
    }
}

fn list(places: &[String]) -> String {
    places.iter().map(|place| format!("\n  {place}")).collect()
}

impl DeployError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}
