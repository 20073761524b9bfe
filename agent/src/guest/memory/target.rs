//! Whose memory is reclaimed.

use std::sync::{Arc, Weak};

use rustjail::cgroup::Cgroup;

/// A container whose memory can be reclaimed.
pub(crate) struct Target {
    /// For the log.
    pub(crate) name: String,
    /// Where its memory is counted. Weak: a container that is removed must not be held.
    pub(crate) cgroup: Weak<Cgroup>,
}

impl Target {
    /// A container by its cgroup.
    pub(crate) fn new(name: String, cgroup: &Arc<Cgroup>) -> Target {
        Target { name, cgroup: Arc::downgrade(cgroup) }
    }
}
