//! The Linux section, save for resources and seccomp, which have files of their own.

use std::path::PathBuf;

use oci_spec::runtime::{self, LinuxNamespaceType};

use super::resources::{device_type, device_type_text};
use super::{
    BUILDER_DEFAULTS, SpecError, in_range, list, map, message, nonzero, optional_path_text, path, path_text,
    repeated, resources, seccomp, strings, text, try_list,
};
use crate::oci;

pub(super) fn from_wire(wire: &oci::Linux) -> Result<runtime::Linux, SpecError> {
    let resources =
        wire.Resources.as_ref().map(|wire| resources::from_wire("linux.resources", wire)).transpose()?;
    let seccomp = wire.Seccomp.as_ref().map(seccomp::from_wire).transpose()?;
    let mut linux = runtime::Linux::default();
    linux
        .set_uid_mappings(list(&wire.UIDMappings, id_mapping_from_wire))
        .set_gid_mappings(list(&wire.GIDMappings, id_mapping_from_wire))
        .set_sysctl(map(&wire.Sysctl))
        .set_resources(resources)
        .set_cgroups_path(path(&wire.CgroupsPath))
        .set_namespaces(try_list(&wire.Namespaces, namespace_from_wire)?)
        .set_devices(try_list(&wire.Devices, device_from_wire)?)
        .set_seccomp(seccomp)
        .set_rootfs_propagation(text(&wire.RootfsPropagation))
        .set_masked_paths(strings(&wire.MaskedPaths))
        .set_readonly_paths(strings(&wire.ReadonlyPaths))
        .set_mount_label(text(&wire.MountLabel))
        .set_intel_rdt(wire.IntelRdt.as_ref().map(|wire| {
            let mut rdt = runtime::LinuxIntelRdt::default();
            rdt.set_l3_cache_schema(text(&wire.L3CacheSchema));
            rdt
        }));
    Ok(linux)
}

pub(super) fn to_wire(linux: &runtime::Linux) -> oci::Linux {
    oci::Linux {
        UIDMappings: repeated(linux.uid_mappings(), id_mapping_to_wire),
        GIDMappings: repeated(linux.gid_mappings(), id_mapping_to_wire),
        Sysctl: linux.sysctl().clone().unwrap_or_default(),
        Resources: message(linux.resources().as_ref(), resources::to_wire),
        CgroupsPath: optional_path_text(linux.cgroups_path()),
        Namespaces: repeated(linux.namespaces(), |namespace| oci::LinuxNamespace {
            Type: namespace_text(namespace.typ()).to_owned(),
            Path: optional_path_text(namespace.path()),
            ..Default::default()
        }),
        Devices: repeated(linux.devices(), device_to_wire),
        Seccomp: message(linux.seccomp().as_ref(), seccomp::to_wire),
        RootfsPropagation: linux.rootfs_propagation().clone().unwrap_or_default(),
        MaskedPaths: linux.masked_paths().clone().unwrap_or_default(),
        ReadonlyPaths: linux.readonly_paths().clone().unwrap_or_default(),
        MountLabel: linux.mount_label().clone().unwrap_or_default(),
        IntelRdt: message(linux.intel_rdt().as_ref(), |rdt| oci::LinuxIntelRdt {
            L3CacheSchema: rdt.l3_cache_schema().clone().unwrap_or_default(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn id_mapping_from_wire(wire: &oci::LinuxIDMapping) -> runtime::LinuxIdMapping {
    let mapping = runtime::LinuxIdMappingBuilder::default();
    let mapping = mapping.host_id(wire.HostID).container_id(wire.ContainerID).size(wire.Size);
    mapping.build().expect(BUILDER_DEFAULTS)
}

fn id_mapping_to_wire(mapping: &runtime::LinuxIdMapping) -> oci::LinuxIDMapping {
    oci::LinuxIDMapping {
        HostID: mapping.host_id(),
        ContainerID: mapping.container_id(),
        Size: mapping.size(),
        ..Default::default()
    }
}

fn namespace_from_wire(i: usize, wire: &oci::LinuxNamespace) -> Result<runtime::LinuxNamespace, SpecError> {
    // Takes the spec's names and the kernel's short ones (`mnt`, `net`): Rust clients print the latter.
    let typ = LinuxNamespaceType::try_from(wire.Type.as_str()).map_err(|_| SpecError::UnknownName {
        field: format!("linux.namespaces[{i}].type"),
        value: wire.Type.clone(),
        expected: "one of pid, network, mount, ipc, uts, user, cgroup, time",
    })?;
    let mut namespace = runtime::LinuxNamespace::default();
    namespace.set_typ(typ).set_path(path(&wire.Path));
    Ok(namespace)
}

fn namespace_text(typ: LinuxNamespaceType) -> &'static str {
    match typ {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

fn device_from_wire(i: usize, wire: &oci::LinuxDevice) -> Result<runtime::LinuxDevice, SpecError> {
    let typ = device_type(|| format!("linux.devices[{i}].type"), &wire.Type)?;
    let major = in_range(|| format!("linux.devices[{i}].major"), wire.Major, 0, i64::MAX)?;
    let minor = in_range(|| format!("linux.devices[{i}].minor"), wire.Minor, 0, i64::MAX)?;
    let mut device = runtime::LinuxDevice::default();
    device
        .set_path(PathBuf::from(&wire.Path))
        .set_typ(typ)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(nonzero(wire.FileMode))
        .set_uid(nonzero(wire.UID))
        .set_gid(nonzero(wire.GID));
    Ok(device)
}

fn device_to_wire(device: &runtime::LinuxDevice) -> oci::LinuxDevice {
    oci::LinuxDevice {
        Path: path_text(device.path()),
        Type: device_type_text(device.typ()).to_owned(),
        Major: device.major(),
        Minor: device.minor(),
        FileMode: device.file_mode().unwrap_or_default(),
        UID: device.uid().unwrap_or_default(),
        GID: device.gid().unwrap_or_default(),
        ..Default::default()
    }
}
