//! From the spec of a request to the one that is planned. Pure: what has to be found in the guest was found before.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use super::error::ContainerError;
use super::id::ContainerId;
use super::label::{self, SecurityModules};
use super::user::{Tables, UserNames};
use super::view::SharedNamespaces;
use crate::device::cdi::Edits;
use crate::device::container::Attached;

/// What was found in the guest for a container.
pub(super) struct Found<'a> {
    /// Its devices.
    pub(super) devices: &'a Attached,
    /// Its CDI devices.
    pub(super) cdi: &'a Edits,
    /// The user of its first process by name, and where to look it up.
    pub(super) user: Option<(&'a UserNames, &'a Tables)>,
    /// What the pod's containers share.
    pub(super) namespaces: &'a SharedNamespaces,
    /// Whether it is in the pid namespace of the first container.
    pub(super) shares_pids: bool,
    /// What labels mean something here.
    pub(super) modules: SecurityModules,
}

/// Puts all that was found into the spec.
///
/// # Errors
/// [`ContainerError::Cdi`] for edits that make no sense, [`ContainerError::User`] for a name that the root does not have.
pub(super) fn prepare(id: &ContainerId, mut spec: Spec, found: &Found<'_>) -> Result<Spec, ContainerError> {
    let pids = if found.shares_pids { found.namespaces.pid.get() } else { None };
    rewrite_namespaces(&mut spec, found.namespaces, pids);
    label::drop_what_is_unknown(id, &mut spec, found.modules);
    found.devices.put_into(&mut spec);
    found.cdi.put_into(&mut spec).map_err(|error| ContainerError::Cdi(id.clone(), error))?;
    if let Some((names, tables)) = found.user {
        // The spec keeps the numbers, as if it had come with them.
        let mut process = spec.process().clone().unwrap_or_default();
        let mut user = process.user().clone();
        tables.resolve(names, &mut user).map_err(|error| ContainerError::User(id.clone(), error))?;
        process.set_user(user);
        spec.set_process(Some(process));
    }
    Ok(spec)
}

/// Gives the container the pod's IPC and UTS namespaces, whatever path its spec names, and a pid namespace: the
/// one its spec names by path, the shared one if asked for, else a new one.
// COMPAT(kata): `ipc_and_uts_are_the_sandboxes_and_others_stay`. Shims leave this to the agent.
// COMPAT(kata): `a_pid_namespace_is_given_where_the_shim_sent_none_and_kept_where_it_is_named`. They strip it.
fn rewrite_namespaces(spec: &mut Spec, pod: &SharedNamespaces, shared_pid: Option<&Arc<OwnedFd>>) {
    let Some(linux) = spec.linux_mut() else { return };
    let mut list: Vec<LinuxNamespace> = linux.namespaces().clone().unwrap_or_default();
    // A link of the agent's own descriptor table; the agent itself opens it, moments later.
    let link = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    for entry in &mut list {
        match entry.typ() {
            LinuxNamespaceType::Ipc => entry.set_path(Some(link(&pod.ipc))),
            LinuxNamespaceType::Uts => entry.set_path(Some(link(&pod.uts))),
            _ => entry,
        };
    }
    let named = |entry: &LinuxNamespace| {
        entry.typ() == LinuxNamespaceType::Pid
            && entry.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
    };
    if !list.iter().any(named) {
        list.retain(|entry| entry.typ() != LinuxNamespaceType::Pid);
        let mut entry = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
        if let Some(shared) = shared_pid {
            entry = entry.path(link(shared));
        }
        list.extend(entry.build());
    }
    linux.set_namespaces(Some(list));
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxBuilder;

    fn rewritten(kinds: &[(LinuxNamespaceType, Option<&str>)], shared: bool) -> Vec<LinuxNamespace> {
        let fd = || Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let pod = SharedNamespaces { ipc: fd(), uts: fd(), pid: Arc::default() };
        let list: Vec<_> = kinds
            .iter()
            .map(|(kind, path)| {
                let mut entry = LinuxNamespaceBuilder::default().typ(*kind);
                if let Some(path) = path {
                    entry = entry.path(*path);
                }
                entry.build().unwrap()
            })
            .collect();
        let mut spec = Spec::default();
        spec.set_linux(Some(LinuxBuilder::default().namespaces(list).build().unwrap()));
        rewrite_namespaces(&mut spec, &pod, shared.then(fd).as_ref());
        spec.linux().as_ref().unwrap().namespaces().clone().unwrap()
    }

    fn pid_path(list: &[LinuxNamespace]) -> Option<PathBuf> {
        let entries: Vec<_> = list.iter().filter(|entry| entry.typ() == LinuxNamespaceType::Pid).collect();
        assert_eq!(entries.len(), 1, "{list:?}");
        entries[0].path().clone()
    }

    #[test]
    fn a_pid_namespace_is_given_where_the_shim_sent_none_and_kept_where_it_is_named() {
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Mount, None)], false)), None);
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Pid, None)], false)), None);
        assert_eq!(pid_path(&rewritten(&[(LinuxNamespaceType::Pid, Some(""))], false)), None);
        let named = rewritten(&[(LinuxNamespaceType::Pid, Some("/run/ns/pid"))], false);
        assert_eq!(pid_path(&named), Some("/run/ns/pid".into()));
        let shared = pid_path(&rewritten(&[], true)).unwrap();
        assert!(shared.starts_with("/proc/self/fd"));
    }

    #[test]
    fn ipc_and_uts_are_the_sandboxes_and_others_stay() {
        let list = rewritten(
            &[
                (LinuxNamespaceType::Ipc, None),
                (LinuxNamespaceType::Uts, Some("/proc/1/ns/uts")),
                (LinuxNamespaceType::Network, None),
            ],
            false,
        );
        assert!(list[0].path().as_ref().unwrap().starts_with("/proc/self/fd"));
        assert!(list[1].path().as_ref().unwrap().starts_with("/proc/self/fd"));
        assert_eq!(list[2].path(), &None);
    }
}
