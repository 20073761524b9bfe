//! The shape of the input, held against expectations that were written by hand.

use protobuf::{EnumOrUnknown, MessageField};
use protocols::types::{FSGroupChangePolicy, IPAddress, IPFamily, Interface};
use protocols::{agent, oci};

use super::*;

fn shape(message: &dyn MessageDyn) -> Value {
    of(message).unwrap()
}

#[test]
fn empty_messages_have_all_of_their_fields() {
    assert_eq!(shape(&agent::DestroySandboxRequest::new()), json!({}));
    assert_eq!(
        shape(&agent::ExecProcessRequest::new()),
        json!({
            "container_id": "", "exec_id": "", "string_user": null, "process": null,
            "stdin_port": 0, "stdout_port": 0, "stderr_port": 0,
        })
    );
    assert_eq!(
        shape(&agent::MemAgentCompactConfig::new()),
        json!({
            "disabled": null, "period_secs": null, "period_psi_percent_limit": null,
            "compact_psi_percent_limit": null, "compact_sec_max": null, "compact_order": null,
            "compact_threshold": null, "compact_force_times": null,
        })
    );
}

#[test]
fn optional_numbers_are_there_when_they_are_given_even_as_zero() {
    let mut config = agent::MemAgentCompactConfig::new();
    config.disabled = Some(false);
    config.compact_sec_max = Some(-1);
    config.compact_force_times = Some(u64::MAX);
    let value = shape(&config);
    assert_eq!(value["disabled"], json!(false));
    assert_eq!(value["compact_sec_max"], json!(-1));
    assert_eq!(value["compact_force_times"], json!(18_446_744_073_709_551_615_u64));
    assert_eq!(value["compact_order"], Value::Null);
}

#[test]
fn bytes_are_arrays_of_numbers_up_to_a_limit() {
    let mut request = agent::WriteStreamRequest::new();
    request.container_id = "c1".into();
    request.data = vec![0, 104, 255];
    assert_eq!(shape(&request), json!({ "container_id": "c1", "exec_id": "", "data": [0, 104, 255] }));
    request.data = vec![0; 64 << 10];
    assert_eq!(shape(&request)["data"].as_array().map(Vec::len), Some(64 << 10));
    request.data.push(0);
    assert!(of(&request).unwrap_err().contains("65537 bytes"));
}

#[test]
fn enums_are_numbers_and_words_of_rust_have_a_tail() {
    let interface = Interface {
        device: "eth0".into(),
        IPAddresses: vec![IPAddress {
            family: EnumOrUnknown::new(IPFamily::v6),
            address: "fd00::1".into(),
            mask: "64".into(),
            ..Default::default()
        }],
        mtu: 1500,
        type_: "veth".into(),
        raw_flags: 0x80,
        ..Default::default()
    };
    let request =
        agent::UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() };
    assert_eq!(
        shape(&request),
        json!({ "interface": {
            "device": "eth0", "name": "",
            "IPAddresses": [{ "family": 1, "address": "fd00::1", "mask": "64" }],
            "mtu": 1500, "hwAddr": "", "devicePath": "", "type_": "veth", "raw_flags": 128,
        }})
    );
}

#[test]
fn a_copied_file_has_a_shape_of_its_own() {
    let mut request = agent::CopyFileRequest {
        path: "/run/kata-containers/shared/containers/x".into(),
        file_size: 1 << 40,
        file_mode: 0o100_644,
        dir_mode: 0o755,
        uid: -1,
        gid: 5,
        offset: 4096,
        data: vec![0; 1 << 20],
        ..Default::default()
    };
    assert_eq!(
        shape(&request),
        json!({
            "path": "/run/kata-containers/shared/containers/x", "file_type": "Regular", "symlink_target": null,
            "symlink_src": "", "file_size": 1_099_511_627_776_i64, "file_mode": 0o100_644, "dir_mode": 0o755,
            "uid": -1, "gid": 5, "offset": 4096,
        })
    );
    for (mode, kind) in
        [(0o040_755, "Directory"), (0o140_000, "Unknown"), (0, "Unknown"), (0o170_000, "Unknown")]
    {
        request.file_mode = mode;
        assert_eq!(shape(&request)["file_type"], json!(kind), "{mode:o}");
    }
    request.file_mode = 0o120_777;
    request.data = b"..data/x".to_vec();
    let value = shape(&request);
    assert_eq!(value["file_type"], json!("Symlink"));
    assert_eq!((&value["symlink_target"], &value["symlink_src"]), (&json!("..data/x"), &json!("..data/x")));
    request.data = vec![0xff];
    assert!(of(&request).is_err());
}

fn process() -> oci::Process {
    oci::Process {
        User: MessageField::some(oci::User { UID: 1000, AdditionalGids: vec![10, 20], ..Default::default() }),
        Args: vec!["/bin/sh".into(), "-c".into()],
        Env: vec!["PATH=/bin".into()],
        Cwd: "/".into(),
        Capabilities: MessageField::some(oci::LinuxCapabilities {
            Bounding: vec!["CAP_KILL".into()],
            ..Default::default()
        }),
        Rlimits: vec![oci::POSIXRlimit {
            Type: "RLIMIT_NOFILE".into(),
            Hard: 1024,
            Soft: 512,
            ..Default::default()
        }],
        NoNewPrivileges: true,
        OOMScoreAdj: -999,
        ..Default::default()
    }
}

fn linux() -> oci::Linux {
    let mut syscall = oci::LinuxSyscall {
        Names: vec!["mount".into()],
        Action: "SCMP_ACT_ERRNO".into(),
        ..Default::default()
    };
    syscall.set_errnoret(38);
    let plain = oci::LinuxSyscall { Names: vec!["read".into()], ..Default::default() };
    oci::Linux {
        Sysctl: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        Resources: MessageField::some(oci::LinuxResources {
            Memory: MessageField::some(oci::LinuxMemory { Limit: -1, Swappiness: 60, ..Default::default() }),
            ..Default::default()
        }),
        CgroupsPath: "/pod/c1".into(),
        Namespaces: vec![oci::LinuxNamespace { Type: "mount".into(), ..Default::default() }],
        Devices: vec![oci::LinuxDevice {
            Path: "/dev/x".into(),
            Type: "c".into(),
            Major: 1,
            Minor: 3,
            ..Default::default()
        }],
        Seccomp: MessageField::some(oci::LinuxSeccomp {
            DefaultAction: "SCMP_ACT_ALLOW".into(),
            Syscalls: vec![syscall, plain],
            ..Default::default()
        }),
        MaskedPaths: vec!["/proc/kcore".into()],
        ..Default::default()
    }
}

fn storage() -> agent::Storage {
    agent::Storage {
        driver: "blk".into(),
        source: "/dev/vdb".into(),
        options: vec!["ro".into()],
        mount_point: "/run/x".into(),
        fs_group: MessageField::some(agent::FSGroup {
            group_id: 7,
            group_change_policy: EnumOrUnknown::new(FSGroupChangePolicy::OnRootMismatch),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_create_request_has_the_shape_that_generated_policies_expect() {
    let spec = oci::Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(process()),
        Root: MessageField::some(oci::Root {
            Path: "/run/root".into(),
            Readonly: true,
            ..Default::default()
        }),
        Mounts: vec![oci::Mount { destination: "/proc".into(), type_: "proc".into(), ..Default::default() }],
        Annotations: [("io.kubernetes.cri.container-type".to_owned(), "container".to_owned())].into(),
        Linux: MessageField::some(linux()),
        ..Default::default()
    };
    let device = agent::Device { id: "d".into(), type_: "blk".into(), ..Default::default() };
    let request = agent::CreateContainerRequest {
        container_id: "c1".into(),
        exec_id: "c1".into(),
        devices: vec![device],
        storages: vec![storage(), agent::Storage::new()],
        OCI: MessageField::some(spec),
        sandbox_pidns: true,
        ..Default::default()
    };
    let expected: Value = serde_json::from_str(include_str!("create_container.json")).unwrap();
    assert_eq!(shape(&request), expected);
}
