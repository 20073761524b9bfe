//! What the agent is told about a container, decided without doing anything.
//!
//! Turns a pod's container and its image's configuration into the OCI spec that travels to the agent, with the
//! defaults that Docker and containerd give: mounts, capabilities, masked paths. Names no pid and no network
//! namespace, as shims do not: the agent decides, and all containers of a pod share the guest's network.

mod capabilities;
mod companion;
pub(super) mod environment;
mod error;
mod mounts;
mod place;
mod seccomp;

use std::collections::HashMap;

use protobuf::MessageField;
use protocols::oci;

use super::facts::Surroundings;
use super::pod::{Container, Pod};
use images::image::ImageConfig;

pub(super) use companion::{companion, courier, seen};
pub use error::SpecError;
pub(super) use mounts::{file_point, root_storages, scratch_storage, sub_path, termination, volume_storages};
pub(super) use place::{COMPANION, SHARED, own_file, shared_part_point, shared_point};

use place::{MASKED, READONLY, RUN};

/// Names the file of a container's last words to the agent.
const TERMINATION: &str = "io.kubernetes.container.terminationMessagePath";

/// A spec, and what is to be remembered of how it came about.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) spec: oci::Spec,
    /// Whether the home directory is the user's, and nobody's wish.
    pub(super) home_is_default: bool,
}

/// The id of a container in its guest.
pub(super) fn container_id(pod: &Pod, container: &Container) -> String {
    format!("{}-{}", pod.name(), container.name)
}

/// The OCI spec of a container.
pub(super) fn describe(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    around: &Surroundings<'_>,
) -> Result<Described, SpecError> {
    let id = container_id(pod, container);
    let mut spec = oci::Spec::new();
    spec.Version = "1.2.0".to_owned();
    spec.Hostname = pod.hostname.clone();
    let (process, home_is_default) = process(pod, container, image, around)?;
    spec.Process = MessageField::some(process);
    spec.Root = MessageField::some(oci::Root {
        Path: format!("{RUN}/{id}/rootfs"),
        Readonly: container.security.readonly_root,
        ..oci::Root::default()
    });
    spec.Mounts = mounts::mounts(pod, container, around)?;
    spec.Annotations = HashMap::from([
        ("io.kubernetes.cri.container-type".to_owned(), "container".to_owned()),
        ("io.kubernetes.container.name".to_owned(), container.name.clone()),
        (TERMINATION.to_owned(), container.termination_path.clone()),
    ]);
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let namespace =
        |kind: &str| oci::LinuxNamespace { Type: kind.to_owned(), ..oci::LinuxNamespace::default() };
    let mut linux = oci::Linux::new();
    linux.CgroupsPath = format!("/pith/{}/{}", pod.name(), container.name);
    linux.Namespaces = ["ipc", "uts", "mount"].map(namespace).to_vec();
    linux.Resources = MessageField::some(resources(container));
    linux.Sysctl = pod.sysctls.iter().cloned().collect();
    if !container.security.privileged && !container.security.unmasked {
        linux.MaskedPaths = strings(&MASKED);
        linux.ReadonlyPaths = strings(&READONLY);
    }
    linux.Seccomp = seccomp::profile(container, around.base)?.into();
    spec.Linux = MessageField::some(linux);
    Ok(Described { spec, home_is_default })
}

fn process(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    around: &Surroundings<'_>,
) -> Result<(oci::Process, bool), SpecError> {
    let security = &container.security;
    let of_user = |source| SpecError::User { container: container.name.clone(), source };
    let account = security.account.clone().unwrap_or_else(|| image.user.clone());
    let wanted = security.user.map_or(account, |uid| uid.to_string());
    let account = image.account(&wanted).map_err(of_user)?;
    if security.not_root && account.uid == 0 {
        return Err(SpecError::Root(container.name.clone()));
    }
    let mut groups = if security.only_own_groups { Vec::new() } else { account.groups.clone() };
    groups.extend(&security.groups);
    groups.sort_unstable();
    groups.dedup();

    let mut process = oci::Process::new();
    process.Terminal = container.tty;
    process.User = MessageField::some(oci::User {
        UID: account.uid,
        GID: security.group.unwrap_or(account.gid),
        AdditionalGids: groups,
        ..oci::User::default()
    });
    let own = environment::own(pod, container, around.facts)?;
    let env = environment::whole(pod, container, image, account.home.as_deref(), &own);
    process.Args = arguments(container, image, &own)?;
    let home_is_default = !own.iter().any(|(name, _)| name == "HOME")
        && !image.env.iter().any(|variable| variable.starts_with("HOME="));
    process.Env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let from_image = Some(image.working_dir.clone()).filter(|dir| !dir.is_empty());
    process.Cwd = container.working_dir.clone().or(from_image).unwrap_or_else(|| "/".to_owned());
    process.NoNewPrivileges = security.no_new_privileges;
    let names = capabilities::of(container)?;
    process.Capabilities = MessageField::some(oci::LinuxCapabilities {
        Bounding: names.clone(),
        Effective: names.clone(),
        Permitted: names,
        ..oci::LinuxCapabilities::default()
    });
    process.Rlimits = vec![oci::POSIXRlimit {
        Type: "RLIMIT_NOFILE".to_owned(),
        Soft: 1024,
        Hard: 524_288,
        ..oci::POSIXRlimit::default()
    }];
    Ok((process, home_is_default))
}

/// The program and its arguments: a command replaces all that the image says, arguments only its arguments.
fn arguments(
    container: &Container,
    image: &ImageConfig,
    env: &[(String, String)],
) -> Result<Vec<String>, SpecError> {
    let expanded =
        |words: &Vec<String>| words.iter().map(|word| environment::expand(word, env)).collect::<Vec<_>>();
    let program = container.command.as_ref().map_or_else(|| image.entrypoint.clone(), expanded);
    let rest = match (&container.args, &container.command) {
        (Some(args), _) => expanded(args),
        (None, Some(_)) => Vec::new(),
        (None, None) => image.cmd.clone(),
    };
    let all: Vec<String> = program.into_iter().chain(rest).collect();
    if all.is_empty() { Err(SpecError::NoCommand(container.name.clone())) } else { Ok(all) }
}

fn resources(container: &Container) -> oci::LinuxResources {
    let mut resources = oci::LinuxResources::new();
    if let Some(bytes) = container.memory {
        resources.Memory = MessageField::some(oci::LinuxMemory {
            Limit: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..oci::LinuxMemory::default()
        });
    }
    if let Some(millis) = container.cpu_millis {
        resources.CPU = MessageField::some(oci::LinuxCPU {
            Period: 100_000,
            Quota: i64::try_from(millis.saturating_mul(100)).unwrap_or(i64::MAX),
            Shares: (millis.saturating_mul(1024) / 1000).max(2),
            ..oci::LinuxCPU::default()
        });
    }
    if container.security.privileged {
        resources.Devices = vec![oci::LinuxDeviceCgroup {
            Allow: true,
            Access: "rwm".to_owned(),
            ..oci::LinuxDeviceCgroup::default()
        }];
    }
    resources
}

#[cfg(test)]
mod tests;
