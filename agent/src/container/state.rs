//! States of a container, as the OCI runtime spec names them.

use std::fmt;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Being made; nothing can be done with it.
    Creating,
    /// Its first process waits to be started.
    Created,
    /// Its first process executes.
    Running,
    /// Frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
    /// Being removed, or removed.
    Removed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Creating => "creating",
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
            State::Removed => "removed",
        })
    }
}
