//! What a CDI spec does to a container's.

use std::path::Path;

use oci_spec::runtime::{
    Hook, HookBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, MountBuilder, Spec,
};

use super::super::number_of;
use super::super::spec::allow;
use super::file::{self, ContainerEdits, DeviceNode};

/// Does it. The error says what is wrong; the spec may be half changed then.
pub(super) fn apply(edits: &ContainerEdits, spec: &mut Spec) -> Result<(), String> {
    environment(&edits.env, spec)?;
    groups(&edits.additional_gids, spec);
    for node in &edits.device_nodes {
        device(node, spec)?;
    }
    for mount in &edits.mounts {
        self::mount(mount, spec)?;
    }
    for hook in &edits.hooks {
        self::hook(hook, spec)?;
    }
    Ok(())
}

/// A variable takes the place of one with its name.
fn environment(wanted: &[String], spec: &mut Spec) -> Result<(), String> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut process = spec.process().clone().unwrap_or_default();
    let mut env = process.env().clone().unwrap_or_default();
    for variable in wanted {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("env {variable:?} is not like NAME=value"));
        };
        env.retain(|one| one.split('=').next() != Some(name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
    spec.set_process(Some(process));
    Ok(())
}

fn groups(wanted: &[u32], spec: &mut Spec) {
    if wanted.is_empty() {
        return;
    }
    let mut process = spec.process().clone().unwrap_or_default();
    let mut user = process.user().clone();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.extend(wanted.iter().filter(|group| **group != 0));
    groups.dedup();
    user.set_additional_gids(Some(groups));
    process.set_user(user);
    spec.set_process(Some(process));
}

/// A node is the guest's, found where the spec says, unless it says its numbers.
fn device(wanted: &DeviceNode, spec: &mut Spec) -> Result<(), String> {
    if !wanted.path.is_absolute() {
        return Err(format!("deviceNodes path {:?} is not absolute", wanted.path));
    }
    let host = wanted.host_path.as_deref().unwrap_or(&wanted.path);
    let said = match wanted.kind.as_deref() {
        None | Some("") => None,
        Some("b") => Some(LinuxDeviceType::B),
        Some("c") => Some(LinuxDeviceType::C),
        Some("u") => Some(LinuxDeviceType::U),
        Some("p") => Some(LinuxDeviceType::P),
        Some(other) => return Err(format!("deviceNodes type {other:?} is not one of b, c, u, p")),
    };
    let (kind, major, minor) = match (said, wanted.major, wanted.minor) {
        (Some(LinuxDeviceType::P), ..) => (LinuxDeviceType::P, 0, 0),
        (Some(kind), Some(major), Some(minor)) => (kind, major, minor),
        _ => node_of_guest(host, said)?,
    };
    let builder =
        LinuxDeviceBuilder::default().path(wanted.path.as_path()).typ(kind).major(major).minor(minor);
    let mut node: LinuxDevice = builder.build().map_err(|error| error.to_string())?;
    node.set_file_mode(wanted.file_mode).set_uid(wanted.uid).set_gid(wanted.gid);
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|device| device.path() != &wanted.path);
    devices.push(node);
    linux.set_devices(Some(devices));
    if matches!(kind, LinuxDeviceType::B | LinuxDeviceType::C) {
        let access = wanted.permissions.as_deref().unwrap_or("rwm");
        if access.is_empty() || !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(format!("deviceNodes permissions {access:?} are not of r, w and m"));
        }
        let mut resources = linux.resources().clone().unwrap_or_default();
        let mut rules = resources.devices().clone().unwrap_or_default();
        rules.extend(allow(kind, major, minor, access));
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
    }
    spec.set_linux(Some(linux));
    Ok(())
}

fn node_of_guest(path: &Path, said: Option<LinuxDeviceType>) -> Result<(LinuxDeviceType, i64, i64), String> {
    let number = number_of(path).map_err(|error| format!("device node {}: {error}", path.display()))?;
    let found = number.0;
    let is_said =
        said.is_none_or(|said| said == found || (said, found) == (LinuxDeviceType::U, LinuxDeviceType::C));
    if !is_said {
        return Err(format!("{} is of another type than the spec says", path.display()));
    }
    Ok(number)
}

fn mount(wanted: &file::Mount, spec: &mut Spec) -> Result<(), String> {
    if !wanted.container_path.is_absolute() {
        return Err(format!("mounts containerPath {:?} is not absolute", wanted.container_path));
    }
    let mut options = wanted.options.clone();
    let kind = wanted.kind.clone().filter(|kind| !kind.is_empty()).unwrap_or_else(|| "bind".to_owned());
    if kind == "bind" && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.push("bind".to_owned());
    }
    let mount = MountBuilder::default().destination(&wanted.container_path).source(&wanted.host_path);
    let mount = mount.typ(kind).options(options).build().map_err(|error| error.to_string())?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|one| one.destination() != &wanted.container_path);
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn hook(wanted: &file::Hook, spec: &mut Spec) -> Result<(), String> {
    if !wanted.path.is_absolute() {
        return Err(format!("hooks path {:?} is not absolute", wanted.path));
    }
    let mut hook: Hook =
        HookBuilder::default().path(&wanted.path).build().map_err(|error| error.to_string())?;
    hook.set_args(Some(wanted.args.clone()).filter(|args| !args.is_empty()));
    hook.set_env(Some(wanted.env.clone()).filter(|env| !env.is_empty()));
    hook.set_timeout(wanted.timeout);
    let mut hooks = spec.hooks().clone().unwrap_or_default();
    let add = |list: &Option<Vec<Hook>>| Some(list.iter().flatten().cloned().chain([hook]).collect());
    match wanted.hook_name.as_str() {
        "prestart" => hooks.set_prestart(add(hooks.prestart())),
        "createRuntime" => hooks.set_create_runtime(add(hooks.create_runtime())),
        "createContainer" => hooks.set_create_container(add(hooks.create_container())),
        "startContainer" => hooks.set_start_container(add(hooks.start_container())),
        "poststart" => hooks.set_poststart(add(hooks.poststart())),
        "poststop" => hooks.set_poststop(add(hooks.poststop())),
        other => return Err(format!("hookName {other:?} is not known")),
    };
    spec.set_hooks(Some(hooks));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> Result<Spec, String> {
        let mut spec = Spec::default();
        apply(&serde_json::from_str(text).map_err(|error| error.to_string())?, &mut spec).map(|()| spec)
    }

    #[test]
    fn all_kinds_of_edits() {
        let spec = applied(
            r#"{"env":["PATH=/gpu","GPU=0"], "additionalGids":[44,0],
                "deviceNodes":[{"path":"/dev/gpu","hostPath":"/dev/null","fileMode":432,"gid":44,"permissions":"rw"},
                               {"path":"/dev/fixed","type":"b","major":8,"minor":1}],
                "mounts":[{"hostPath":"/lib/gpu","containerPath":"/gpu","options":["ro","nosuid"]}],
                "hooks":[{"hookName":"createContainer","path":"/bin/ldconfig","args":["ldconfig"],"timeout":3}]}"#,
        )
        .unwrap();
        let process = spec.process().as_ref().unwrap();
        let env = process.env().as_ref().unwrap();
        assert_eq!(env.iter().filter(|one| one.starts_with("PATH=")).collect::<Vec<_>>(), ["PATH=/gpu"]);
        assert_eq!(process.user().additional_gids().as_deref(), Some(&[44][..]));
        let linux = spec.linux().as_ref().unwrap();
        let devices = linux.devices().as_ref().unwrap();
        let (gpu, fixed) = (&devices[devices.len() - 2], &devices[devices.len() - 1]);
        assert_eq!(
            (gpu.typ(), gpu.major(), gpu.minor(), gpu.file_mode()),
            (LinuxDeviceType::C, 1, 3, Some(432))
        );
        assert_eq!((fixed.typ(), fixed.major(), fixed.minor()), (LinuxDeviceType::B, 8, 1));
        let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
        let access: Vec<_> = rules.iter().rev().take(2).map(|rule| rule.access().clone().unwrap()).collect();
        assert_eq!(access, ["rwm", "rw"]);
        let mount = spec.mounts().as_ref().unwrap().last().unwrap().clone();
        assert_eq!(mount.options().as_deref().unwrap(), ["ro", "nosuid", "bind"]);
        let hooks = spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap();
        assert_eq!((hooks[0].path().as_path(), hooks[0].timeout()), (Path::new("/bin/ldconfig"), Some(3)));
    }

    #[test]
    fn edits_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"env":["PATH"]}"#,
            r#"{"deviceNodes":[{"path":"dev/x"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/no-such-node"}]}"#,
            r#"{"deviceNodes":[{"path":"/etc/passwd"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/null","type":"b"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/null","permissions":"x"}]}"#,
            r#"{"mounts":[{"hostPath":"/a","containerPath":"b"}]}"#,
            r#"{"hooks":[{"hookName":"sometime","path":"/a"}]}"#,
            r#"{"hooks":[{"hookName":"prestart","path":"a"}]}"#,
            r#"{"intelRdt":{}}"#,
            r#"{"netDevices":[]}"#,
        ] {
            assert!(applied(bad).is_err(), "{bad}");
        }
    }
}
