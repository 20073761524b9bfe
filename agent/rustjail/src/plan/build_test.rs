//! Plans of specs, without root.

use super::*;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, MountBuilder, ProcessBuilder, RootBuilder, SpecBuilder, UserBuilder,
};
use std::collections::HashMap;

const OPTIONS: InitOptions<'static> =
    InitOptions { switch: RootSwitch::Move, bundle: Bundle { id: "c", path: "/run/c" }, filters: None };

fn process() -> ProcessBuilder {
    ProcessBuilder::default()
        .args(["/bin/true".to_owned()])
        .env(["A= b ".to_owned(), "A=c".to_owned()])
        .cwd("/")
        .user(UserBuilder::default().uid(7u32).gid(8u32).build().unwrap())
}

fn linux() -> LinuxBuilder {
    let kinds = [LinuxNamespaceType::Mount, LinuxNamespaceType::Uts, LinuxNamespaceType::Pid];
    let list: Vec<_> =
        kinds.iter().map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build().unwrap()).collect();
    LinuxBuilder::default().namespaces(list)
}

fn spec(process: ProcessBuilder, linux: LinuxBuilder) -> Spec {
    SpecBuilder::default()
        .root(RootBuilder::default().path("/run/c/rootfs").build().unwrap())
        .mounts([])
        .hostname("box")
        .process(process.build().unwrap())
        .linux(linux.build().unwrap())
        .build()
        .unwrap()
}

fn error(process: ProcessBuilder, linux: LinuxBuilder) -> String {
    init(&spec(process, linux), OPTIONS).unwrap_err().to_string()
}

#[test]
fn an_init_gets_its_mount_and_cgroup_namespaces_and_waits() {
    let plan = init(&spec(process(), linux()), OPTIONS).unwrap();
    assert!(plan.wait_for_start);
    assert!(plan.namespaces.is_new(NamespaceKind::Cgroup));
    assert!(plan.namespaces.is_new(NamespaceKind::Mount));
    assert!(!plan.namespaces.has(NamespaceKind::Network));
    assert_eq!(plan.hostname.as_deref(), Some("box"));
    assert_eq!(plan.identity.uid, 7);
    assert_eq!(plan.identity.umask, 0o022);
    assert!(plan.command.create_cwd);
}

#[test]
fn a_variable_is_there_once_with_its_last_value() {
    let plan = init(&spec(process(), linux()), OPTIONS).unwrap();
    assert_eq!(plan.command.env, ["A=c"]);
}

#[test]
fn a_joined_uts_namespace_keeps_its_hostname() {
    let joined =
        LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Uts).path("/run/ns/uts").build().unwrap();
    let plan = init(&spec(process(), LinuxBuilder::default().namespaces([joined])), OPTIONS).unwrap();
    assert_eq!(plan.hostname, None);
    assert_eq!(plan.namespaces.join, [(NamespaceKind::Uts, "/run/ns/uts".into())]);
}

#[test]
fn default_devices_can_be_replaced_and_a_bound_dev_has_none() {
    let null = LinuxDeviceBuilder::default()
        .path("/dev/null")
        .typ(LinuxDeviceType::C)
        .major(1)
        .minor(3)
        .file_mode(0o600u32)
        .build()
        .unwrap();
    let mut spec = spec(process(), linux().devices([null]));
    let plan = init(&spec, OPTIONS).unwrap();
    let nodes = &plan.rootfs.as_ref().unwrap().devices;
    assert_eq!(nodes.len(), 6);
    assert_eq!(nodes.iter().find(|node| node.path == Path::new("/dev/null")).unwrap().mode, 0o600);
    let dev = MountBuilder::default().destination("/dev").source("/dev").typ("bind").build().unwrap();
    spec.set_mounts(Some(vec![dev]));
    assert!(init(&spec, OPTIONS).unwrap().rootfs.unwrap().devices.is_empty());
}

#[test]
fn what_cannot_be_right_is_named() {
    let cases = [
        (process().args(Vec::<String>::new()), linux(), "process.args is empty"),
        (process().cwd("rel"), linux(), "process.cwd"),
        (process().env(["A=\0".to_owned()]), linux(), "NUL"),
        (process().oom_score_adj(2000), linux(), "process.oomScoreAdj"),
        (process(), linux().rootfs_propagation("sideways"), "rootfsPropagation"),
        (process(), linux().masked_paths(["/a/../b".to_owned()]), "\"..\""),
        (process(), linux().sysctl(HashMap::from([("vm.swappiness".into(), "1".into())])), "vm.swappiness"),
        (process(), linux().sysctl(HashMap::from([("net..x".into(), "1".into())])), "net..x"),
    ];
    for (process, linux, text) in cases {
        let got = error(process, linux);
        assert!(got.contains(text), "{got:?} does not name {text:?}");
    }
}

#[test]
fn a_namespace_listed_twice_is_refused() {
    let pid = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid).build().unwrap();
    assert!(
        error(process(), LinuxBuilder::default().namespaces([pid.clone(), pid]))
            .contains("pid is listed twice")
    );
}

#[test]
fn sysctl_names_follow_the_first_separator() {
    assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
}

#[test]
fn an_exec_takes_the_containers_capabilities_when_it_has_none() {
    let caps = LinuxCapabilitiesBuilder::default().effective([Capability::Chown]).build().unwrap();
    let container = spec(process().capabilities(caps), linux());
    let mut process = process().terminal(true).build().unwrap();
    process.set_capabilities(None);
    let plan = exec(&process, &ExecOptions { spec: &container }).unwrap();
    assert_eq!(plan.identity.capabilities.effective, 1);
    assert!(plan.rootfs.is_none());
    assert!(!plan.wait_for_start);
    assert!(!plan.terminal.unwrap().console);
}

#[test]
fn an_exec_takes_a_filter_that_was_compiled_before() {
    let profile = |names: &str| -> LinuxSeccomp {
        let call = format!(r#"{{"names": [{names}], "action": "SCMP_ACT_ALLOW"}}"#);
        serde_json::from_str(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{call}]}}"#))
            .unwrap()
    };
    let filter = init(&spec(process(), linux().seccomp(profile(r#""read""#))), OPTIONS).unwrap().seccomp;
    assert!(filter.is_some());
    // The spec's own would be another: it is not looked at.
    let other = spec(process(), linux().seccomp(profile(r#""write""#)));
    let process = process().build().unwrap();
    let options = ExecOptions { spec: &other };
    assert_eq!(exec_with(&process, &options, filter.as_ref()).unwrap().seccomp, filter);
    assert_ne!(exec(&process, &options).unwrap().seccomp, filter);
}

#[test]
fn a_plan_survives_its_journey() {
    let plan = init(&spec(process(), linux()), OPTIONS).unwrap();
    let text = serde_json::to_vec(&plan).unwrap();
    assert_eq!(serde_json::from_slice::<JailPlan>(&text).unwrap(), plan);
}
