//! Becomes the plan's user, with the plan's capabilities.

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};
use rustix::thread::{Gid, Uid};

use super::{Step, fail, refuse};
use crate::plan::{Identity, cap_set};

/// Changes user, groups and capabilities, in the one order that works: the bounding set while CAP_SETPCAP is held, the
/// ids while CAP_SETUID is, the other sets last.
///
/// `kept` is one more capability that stays permitted, though not in force: [`use_kept_capability`] and [`limit`] are
/// still to come.
pub(super) fn assume(identity: &Identity, kept: Option<Cap>) -> Step<()> {
    let sets = &identity.capabilities;
    let keep = cap_set(sets.bounding);
    for cap in Cap::iter().filter(|cap| !keep.has(*cap)) {
        // Unknown to this kernel: not in its bounding set either.
        if bounding::read(cap) == Some(true) {
            bounding::drop(cap)
                .map_err(|error| fail("drop a capability from the bounding set", of_cap(error)))?;
        }
    }
    capctl::prctl::set_keepcaps(true).map_err(|error| fail("keep capabilities", of_cap(error)))?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups)
        .map_err(|errno| refuse("set the supplementary groups", errno))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(|errno| refuse(format!("become group {}", identity.gid), errno))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|errno| refuse(format!("become user {}", identity.uid), errno))?;
    capctl::prctl::set_keepcaps(false).map_err(|error| fail("keep capabilities", of_cap(error)))?;
    // Whoever started the forker may have had some, and they would stay.
    ambient::clear().map_err(|error| fail("clear the ambient capabilities", of_cap(error)))?;
    limit(identity, kept)?;
    let (permitted, inheritable) = (granted(identity), cap_set(sets.inheritable & sets.bounding));
    let ambient_set = cap_set(sets.ambient) & permitted & inheritable;
    for cap in ambient_set.iter() {
        ambient::raise(cap).map_err(|error| fail("raise an ambient capability", of_cap(error)))?;
    }
    if identity.no_new_privileges {
        capctl::prctl::set_no_new_privs().map_err(|error| fail("set no_new_privs", of_cap(error)))?;
    }
    Ok(())
}

/// What the identity permits.
fn granted(identity: &Identity) -> CapSet {
    cap_set(identity.capabilities.permitted & identity.capabilities.bounding)
}

/// Sets the effective, permitted and inheritable sets, in one system call.
pub(super) fn limit(identity: &Identity, kept: Option<Cap>) -> Step<()> {
    let sets = &identity.capabilities;
    let mut state = CapState::empty();
    state.permitted = granted(identity);
    state.effective = cap_set(sets.effective) & state.permitted;
    state.inheritable = cap_set(sets.inheritable & sets.bounding);
    state.permitted.extend(kept);
    state.set_current().map_err(|error| fail("set the capabilities", of_cap(error)))
}

/// Puts all that is permitted in force.
pub(super) fn use_kept_capability() -> Step<()> {
    let step = "use a kept capability";
    let mut state = CapState::get_current().map_err(|error| fail(step, of_cap(error)))?;
    state.effective = state.permitted;
    state.set_current().map_err(|error| fail(step, of_cap(error)))
}

fn of_cap(error: capctl::Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.code())
}
