//! Requests become the agent's own types here, or are refused.

use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use protocols::agent::{
    CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, Device as WireDevice, ExecProcessRequest,
    SharedMount as WireSharedMount, Storage as WireStorage, StringUser,
};
use protocols::spec::{self, SpecError, Warning};
use protocols::types::FSGroupChangePolicy;

use super::status::Failure;
use crate::container::{ContainerId, CreateRequest, ExecRequest, SharedMount, UserNames};
use crate::device::container::Device;
use crate::error::{ErrorKind, Kind};
use crate::files::CopyRequest;
use crate::guest::modules::Module;
use crate::pod::PodRequest;
use crate::process::passfd::Ports;
use crate::storage::{ChangePolicy, Group, Storage, combine};

impl Kind for SpecError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// CreateSandbox.
pub(super) fn sandbox(request: CreateSandboxRequest) -> Result<PodRequest, Failure> {
    let modules = request.kernel_modules.into_iter().map(|wire| Module::parse(&wire.name, wire.parameters));
    let hooks = Some(request.guest_hook_path).filter(|path| !path.is_empty());
    Ok(PodRequest {
        modules: modules.collect::<Result<_, _>>()?,
        // The agent's working directory is the root.
        hooks: hooks.map(|path| Path::new("/").join(path)),
        id: request.sandbox_id,
        hostname: request.hostname,
        dns: request.dns,
        storages: storages(request.storages)?,
    })
}

/// CreateContainer.
pub(super) fn create(request: CreateContainerRequest) -> Result<(ContainerId, CreateRequest), Failure> {
    let id = ContainerId::parse(&request.container_id)?;
    let ports = Ports::parse([request.stdin_port, request.stdout_port, request.stderr_port])?;
    let wire = request.OCI.into_option().ok_or_else(|| Failure::invalid("the request has no OCI spec"))?;
    let (spec, warnings) = spec::from_wire(&wire)?;
    tell(&id, &warnings);
    hooks_that_can_run(&spec)?;
    let devices: Vec<Device> = request.devices.into_iter().map(device).collect();
    devices.iter().try_for_each(Device::check)?;
    let request = CreateRequest {
        spec,
        devices,
        shared_mounts: request.shared_mounts.into_iter().map(shared_mount).collect(),
        storages: storages(request.storages)?,
        shared_pid_namespace: request.sandbox_pidns,
        user: user(request.string_user.into_option()),
        ports,
    };
    Ok((id, request))
}

/// ExecProcess.
pub(super) fn exec(request: ExecProcessRequest) -> Result<(String, ExecRequest), Failure> {
    let ports = Ports::parse([request.stdin_port, request.stdout_port, request.stderr_port])?;
    exec_id(&request.exec_id)?;
    let wire = request.process.into_option().ok_or_else(|| Failure::invalid("the request has no process"))?;
    let (process, warnings): (Process, _) = spec::process_from_wire(&wire)?;
    for warning in &warnings {
        tracing::warn!(container_id = %request.container_id, exec_id = %request.exec_id, %warning, "in an exec");
    }
    let user = user(request.string_user.into_option());
    Ok((request.container_id, ExecRequest { exec_id: request.exec_id, process, user, ports, apart: None }))
}

fn user(wire: Option<StringUser>) -> UserNames {
    let wire = wire.unwrap_or_default();
    UserNames { uid: wire.uid, gid: wire.gid, additional_gids: wire.additionalGids }
}

/// An exec id is a name as a container's is, of one character at least.
fn exec_id(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(Failure::invalid("the request has no exec_id"));
    }
    let starts = text.starts_with(char::is_alphanumeric);
    let goes_on = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if starts && goes_on && text.len() <= LONGEST_EXEC_ID {
        Ok(())
    } else {
        Err(Failure::invalid(format!(
            "invalid exec id {text:?}: letters, digits, '.', '-' and '_', a letter or digit first"
        )))
    }
}

/// In bytes, as for containers.
const LONGEST_EXEC_ID: usize = 255;

fn tell(id: &ContainerId, warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!(container_id = %id, %warning, "in a spec");
    }
}

/// Hooks that could not run must not be accepted: they may be what makes a container safe.
fn hooks_that_can_run(spec: &Spec) -> Result<(), Failure> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "shims may still send prestart hooks")]
    let prestart = hooks.prestart();
    let lists = [prestart, hooks.create_runtime(), hooks.poststart(), hooks.poststop()];
    match lists.into_iter().flatten().flatten().find(|hook| !hook.path().is_absolute()) {
        Some(hook) => Err(Failure::invalid(format!("hook {:?} is no absolute path", hook.path()))),
        None => Ok(()),
    }
}

fn device(wire: WireDevice) -> Device {
    Device {
        id: wire.id,
        kind: wire.type_,
        vm_path: wire.vm_path,
        container_path: wire.container_path,
        options: wire.options,
    }
}

fn shared_mount(wire: WireSharedMount) -> SharedMount {
    SharedMount {
        name: wire.name,
        source_container: wire.src_ctr,
        source_path: wire.src_path,
        destination_container: wire.dst_ctr,
        destination_path: wire.dst_path,
    }
}

fn storages(wire: Vec<WireStorage>) -> Result<Vec<Storage>, Failure> {
    Ok(combine(wire.into_iter().map(storage).collect())?)
}

pub(super) fn storage(wire: WireStorage) -> Storage {
    let fs_group = wire.fs_group.as_ref().map(|group| Group {
        id: group.group_id,
        // Shims that know more policies than we do mean the careful one.
        policy: match group.group_change_policy.enum_value_or_default() {
            FSGroupChangePolicy::OnRootMismatch => ChangePolicy::OnRootMismatch,
            FSGroupChangePolicy::Always => ChangePolicy::Always,
        },
    });
    Storage {
        driver: wire.driver,
        driver_options: wire.driver_options,
        source: wire.source,
        fstype: wire.fstype,
        options: wire.options,
        mount_point: wire.mount_point.into(),
        fs_group,
        shared: wire.shared,
        layers: Vec::new(),
    }
}

/// CopyFile.
pub(super) fn copy(request: CopyFileRequest) -> CopyRequest {
    CopyRequest {
        path: request.path.into(),
        size: request.file_size,
        mode: request.file_mode,
        directory_mode: request.dir_mode,
        uid: request.uid,
        gid: request.gid,
        offset: request.offset,
        data: request.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::{agent, oci};

    fn refused<T>(result: Result<T, Failure>) -> String {
        let Err(failure) = result else { panic!("accepted") };
        let ttrpc::Error::RpcStatus(status) = failure.into() else { panic!("no status") };
        format!("{:?} {}", status.code(), status.message())
    }

    #[test]
    fn what_cannot_be_created_is_named() {
        let create = |change: fn(&mut CreateContainerRequest)| {
            let mut request = CreateContainerRequest { container_id: "c1".into(), ..Default::default() };
            request.OCI = Some(oci::Spec::default()).into();
            change(&mut request);
            refused(super::create(request))
        };
        assert!(create(|r| r.container_id = "x".into()).starts_with("INVALID_ARGUMENT invalid container id"));
        assert!(create(|r| r.OCI = None.into()).starts_with("INVALID_ARGUMENT"));
        let twice = create(|r| (r.stdout_port, r.stderr_port) = (9, 9));
        assert_eq!(twice, "INVALID_ARGUMENT port 9 is named for two streams");
        assert!(create(|r| r.devices.push(agent::Device::default())).starts_with("INVALID_ARGUMENT device"));
        let vfio = |r: &mut CreateContainerRequest| {
            r.devices.push(agent::Device { type_: "vfio-ap".into(), ..Default::default() });
        };
        assert!(create(vfio).starts_with("UNIMPLEMENTED device type"));
        let relative = |r: &mut CreateContainerRequest| {
            let hook = oci::Hook { Path: "bin/h".into(), ..Default::default() };
            let hooks = oci::Hooks { Poststop: vec![hook], ..Default::default() };
            r.OCI.mut_or_insert_default().Hooks = Some(hooks).into();
        };
        assert!(create(relative).starts_with("INVALID_ARGUMENT hook"));
    }

    #[test]
    fn an_exec_needs_an_id_and_a_process() {
        assert!(refused(exec(ExecProcessRequest::default())).contains("no exec_id"));
        let request = ExecProcessRequest { exec_id: "e".into(), ..Default::default() };
        assert!(refused(exec(request)).contains("no process"));
        for bad in ["a/b", "..", "-a", "a b", "a\0b", &"a".repeat(256)] {
            let request = ExecProcessRequest { exec_id: bad.into(), ..Default::default() };
            assert!(refused(exec(request)).starts_with("INVALID_ARGUMENT invalid exec id"), "{bad:?}");
        }
    }

    #[test]
    fn a_sandboxes_modules_have_names_and_its_hooks_a_directory() {
        let module = agent::KernelModule::default();
        let request = CreateSandboxRequest { kernel_modules: vec![module], ..Default::default() };
        assert!(refused(sandbox(request)).contains("INVALID_ARGUMENT kernel module \"\""));
        let hooks = |path: &str| {
            let request = CreateSandboxRequest { guest_hook_path: path.into(), ..Default::default() };
            sandbox(request).unwrap().hooks
        };
        assert_eq!(hooks("usr/hooks"), Some("/usr/hooks".into()));
        assert_eq!(hooks(""), None);
    }
}
