//! Puts the plan's filter on the process: the last thing before `execve`, which it already sees.

use std::os::fd::{AsFd, BorrowedFd};

use super::{Step, fail, identity};
use crate::plan::JailPlan;
use crate::start::message::{self, Report};
use crate::sys;

/// Whether the process needs `CAP_SYS_ADMIN` to put the filter on, whatever its plan leaves it
/// (`seccomp(2)`, EACCES).
pub(super) fn needs_privilege(plan: &JailPlan) -> bool {
    plan.seccomp.is_some() && !plan.identity.no_new_privileges
}

/// Installs the filter, and sends the agent the listener's descriptor.
///
/// Where the process kept a capability for it, `capset(2)` comes after: the profile must allow that one, as it must
/// with other runtimes.
pub(super) fn install(plan: &JailPlan, handshake: BorrowedFd<'_>) -> Step<()> {
    let Some(seccomp) = &plan.seccomp else { return Ok(()) };
    let privileged = needs_privilege(plan);
    if privileged {
        identity::use_kept_capability()?;
    }
    let listener =
        sys::seccomp::load(&seccomp.filter).map_err(|error| fail("load the seccomp filter", error))?;
    if let Some(listener) = listener {
        message::send(handshake, &Report::Listener, &[listener.as_fd()])
            .map_err(|error| fail("hand the seccomp listener over", error))?;
    }
    if privileged {
        identity::limit(&plan.identity, None)?;
    }
    Ok(())
}
