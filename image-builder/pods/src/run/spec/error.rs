//! Why no spec can be made.

use images::image::UserError;

/// Why no spec can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither the pod nor the image says what to run.
    #[error("container {0}: neither the pod nor the image names a command")]
    NoCommand(String),
    /// The image's user does not exist.
    #[error("container {container}: {source}")]
    User {
        /// The container.
        container: String,
        /// Which user.
        source: UserError,
    },
    /// It would run as root, and must not.
    #[error(
        "container {0}: runAsNonRoot is set, and it would run as user 0; name another one with runAsUser or in the image"
    )]
    Root(String),
    /// No such capability.
    #[error("container {container}: there is no capability {name:?}")]
    Capability {
        /// The container.
        container: String,
        /// As the pod names it.
        name: String,
    },
    /// No such signal.
    #[error("container {container}: there is no signal {name:?}; SIGTERM, TERM, 15 or SIGRTMIN+3 are some")]
    Signal {
        /// The container.
        container: String,
        /// As the manifest or the image names it.
        name: String,
    },
    /// A value that is not known in this run.
    #[error("container {container}: {what} is not known: {reason}")]
    Unknown {
        /// The container.
        container: String,
        /// Which value.
        what: &'static str,
        /// Why, and what would help.
        reason: &'static str,
    },
    /// A profile of system calls that cannot be read.
    #[error("container {container}: seccomp profile {profile}: {problem}")]
    Seccomp {
        /// The container.
        container: String,
        /// The file.
        profile: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A part of a volume that is not one.
    #[error("container {container}: subPathExpr comes to {path:?}, which does not lie below the volume")]
    SubPath {
        /// The container.
        container: String,
        /// With variables filled in.
        path: String,
    },
}
