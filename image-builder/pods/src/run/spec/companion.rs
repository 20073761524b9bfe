//! Containers that are there for the pod or for this program, and have nothing but the agent's own program.

use std::collections::HashMap;

use protobuf::MessageField;
use protocols::agent::Storage;
use protocols::oci;

use super::mounts;
use super::place::{COMPANION, MASKED, READONLY, RUN};
use crate::run::pod::Pod;
use crate::run::record::MountRecord;

/// Where a courier sees the files of the other container.
const TARGET: &str = "/target";
/// What a courier may do to files: all that root may, but for devices.
const COURIER: [&str; 4] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID"];

/// The container that is there for the pod itself: its first process keeps the shared pid namespace, and others in it talk to
/// the pod's ports.
pub(in crate::run) fn companion(pod: &Pod) -> (String, oci::Spec, Vec<Storage>) {
    // No container's name has a dot.
    let id = format!("{}.pod", pod.name());
    let mut spec = alone(&id, &format!("/pith/{}/.pod", pod.name()), &[]);
    spec.Hostname = pod.hostname.clone();
    spec.Mounts.push(mounts::companion_hosts());
    let storages = vec![root(&id)];
    (id, spec, storages)
}

/// A container that sees the files of another one, and copies them. `number` is nobody else's.
pub(in crate::run) fn courier(
    pod: &str,
    number: &str,
    seen: &[MountRecord],
) -> (String, oci::Spec, Vec<Storage>) {
    let id = format!("{pod}.cp-{number}");
    let mut spec = alone(&id, &format!("/pith/{pod}/.cp-{number}"), &COURIER);
    spec.Mounts.extend(seen.iter().map(|mount| {
        let target = format!("{TARGET}{}", mount.target.trim_end_matches('/'));
        mounts::bind(&target, &mount.source, mount.readonly)
    }));
    let storages = vec![root(&id)];
    (id, spec, storages)
}

/// What a container sees that a courier can see, too: its root, and what is mounted in it from elsewhere in the guest.
pub(in crate::run) fn seen(spec: &oci::Spec) -> Vec<MountRecord> {
    // The kernel's own, which the courier does not have at these places.
    let is_kernels = |path: &str| ["/dev/", "/proc/", "/sys/"].iter().any(|place| path.starts_with(place));
    let binds = spec.Mounts.iter().filter(|mount| mount.type_ == "bind" && !is_kernels(&mount.destination));
    let root =
        MountRecord { source: spec.Root.Path.clone(), target: "/".to_owned(), readonly: spec.Root.Readonly };
    let bind = |mount: &oci::Mount| MountRecord {
        source: mount.source.clone(),
        target: mount.destination.clone(),
        readonly: mount.options.iter().any(|option| option == "ro"),
    };
    std::iter::once(root).chain(binds.map(bind)).collect()
}

fn root(id: &str) -> Storage {
    Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: vec!["mode=0755".to_owned()],
        mount_point: format!("{RUN}/{id}/rootfs"),
        ..Storage::default()
    }
}

/// A container with the agent's program and no other.
fn alone(id: &str, cgroup: &str, capabilities: &[&str]) -> oci::Spec {
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let mut spec = oci::Spec::new();
    spec.Version = "1.2.0".to_owned();
    let mut process = oci::Process::new();
    process.User = MessageField::some(oci::User::default());
    process.Args = [COMPANION, "wait"].map(str::to_owned).to_vec();
    process.Cwd = "/".to_owned();
    process.NoNewPrivileges = true;
    process.Capabilities = MessageField::some(oci::LinuxCapabilities {
        Bounding: strings(capabilities),
        Effective: strings(capabilities),
        Permitted: strings(capabilities),
        ..oci::LinuxCapabilities::default()
    });
    spec.Process = MessageField::some(process);
    let root = format!("{RUN}/{id}/rootfs");
    spec.Root = MessageField::some(oci::Root { Path: root, Readonly: true, ..oci::Root::default() });
    spec.Mounts = mounts::companion();
    spec.Annotations =
        HashMap::from([("io.kubernetes.cri.container-type".to_owned(), "container".to_owned())]);
    let namespace =
        |kind: &str| oci::LinuxNamespace { Type: kind.to_owned(), ..oci::LinuxNamespace::default() };
    let mut linux = oci::Linux::new();
    linux.CgroupsPath = cgroup.to_owned();
    linux.Namespaces = ["ipc", "uts", "mount"].map(namespace).to_vec();
    linux.MaskedPaths = strings(&MASKED);
    linux.ReadonlyPaths = strings(&READONLY);
    linux.Resources = MessageField::some(oci::LinuxResources::new());
    spec.Linux = MessageField::some(linux);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_courier_sees_what_the_container_sees() {
        let mut spec = oci::Spec::new();
        let root = oci::Root { Path: "/run/r/rootfs".into(), Readonly: true, ..oci::Root::default() };
        spec.Root = MessageField::some(root);
        spec.Mounts = vec![
            mounts::bind("/data", "/run/volume", false),
            mounts::bind("/dev/termination-log", "/run/words", false),
            mounts::bind("/etc/hosts", "/run/hosts", true),
            oci::Mount { destination: "/proc".into(), type_: "proc".into(), ..oci::Mount::default() },
        ];
        let seen = seen(&spec);
        let of = |target: &str| seen.iter().find(|mount| mount.target == target).map(|mount| mount.readonly);
        assert_eq!(seen.len(), 3);
        assert_eq!((of("/"), of("/data"), of("/etc/hosts")), (Some(true), Some(false), Some(true)));
        let (id, spec, storages) = courier("web", "7", &seen);
        assert_eq!((id.as_str(), storages.len()), ("web.cp-7", 1));
        let places: Vec<(&str, &str)> = spec
            .Mounts
            .iter()
            .filter(|mount| mount.destination.starts_with(TARGET))
            .map(|mount| (mount.destination.as_str(), mount.options[1].as_str()))
            .collect();
        assert_eq!(places, [("/target", "ro"), ("/target/data", "rw"), ("/target/etc/hosts", "ro")]);
        assert!(spec.Process.NoNewPrivileges && spec.Root.Readonly);
    }
}
