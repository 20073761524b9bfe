//! Labels of security modules that this kernel does not have, and other things of a host that mean nothing in a guest.
//!
//! Kata's own agent passes them over, and shims send them unasked: where the host has AppArmor, each container comes with
//! a profile. To refuse them would be to refuse every pod. So they are dropped here, with a line in the log; the runtime
//! itself would refuse them.

use oci_spec::runtime::{Process, Spec};

use super::id::ContainerId;

/// The security modules that a kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecurityModules {
    apparmor: bool,
    selinux: bool,
}

impl SecurityModules {
    /// Those of the running kernel.
    pub(crate) fn of_kernel() -> SecurityModules {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        SecurityModules {
            apparmor: read("/sys/module/apparmor/parameters/enabled").trim() == "Y",
            selinux: read("/proc/filesystems").lines().any(|line| line.ends_with("selinuxfs")),
        }
    }
}

/// Drops what a container's spec asks of modules that are not there.
pub(super) fn drop_what_is_unknown(id: &ContainerId, spec: &mut Spec, modules: SecurityModules) {
    if let Some(process) = spec.process_mut() {
        drop_unknown(id, process, modules);
    }
    let Some(linux) = spec.linux_mut() else { return };
    if !modules.selinux && is_given(linux.mount_label()) {
        tell(id, "linux.mountLabel");
        linux.set_mount_label(None);
    }
    if linux.intel_rdt().is_some() {
        tell(id, "linux.intelRdt");
        linux.set_intel_rdt(None);
    }
}

/// Drops what a process asks of modules that are not there.
pub(super) fn drop_unknown(id: &ContainerId, process: &mut Process, modules: SecurityModules) {
    if !modules.apparmor && is_given(process.apparmor_profile()) {
        tell(id, "process.apparmorProfile");
        process.set_apparmor_profile(None);
    }
    if !modules.selinux && is_given(process.selinux_label()) {
        tell(id, "process.selinuxLabel");
        process.set_selinux_label(None);
    }
}

fn is_given(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn tell(id: &ContainerId, field: &str) {
    tracing::warn!(container_id = %id, field, "ignored: this guest does not have what it asks for");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_where_its_module_is() {
        let id = ContainerId::parse("c1").unwrap();
        for (apparmor, selinux) in [(false, false), (true, false), (false, true)] {
            let mut spec = Spec::default();
            let mut process = Process::default();
            process.set_apparmor_profile(Some("strict".into())).set_selinux_label(Some("a:b:c".into()));
            spec.set_process(Some(process));
            drop_what_is_unknown(&id, &mut spec, SecurityModules { apparmor, selinux });
            let process = spec.process().as_ref().unwrap();
            assert_eq!(process.apparmor_profile().is_some(), apparmor);
            assert_eq!(process.selinux_label().is_some(), selinux);
        }
    }
}
