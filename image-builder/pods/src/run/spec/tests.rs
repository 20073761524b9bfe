//! Specs of containers.

use std::path::Path;

use protocols::agent::Storage;

use super::*;
use crate::run::facts::Facts;
use crate::run::pod::{EnvValue, Field, Meta, Seccomp, Security, Volume, VolumeKind, VolumeMount};

fn pod_of(container: Container) -> Pod {
    Pod {
        meta: Meta { name: "web".into(), ..Meta::default() },
        hostname: "host".into(),
        containers: vec![container],
        ..Pod::default()
    }
}

fn container() -> Container {
    Container { name: "a".into(), termination_path: "/dev/termination-log".into(), ..Container::default() }
}

/// What is described in ordinary surroundings.
fn spec(pod: &Pod, container: &Container, image: &ImageConfig) -> Result<oci::Spec, SpecError> {
    let facts = Facts { pod_ips: vec!["10.0.2.15".into()], ..Facts::default() };
    let around = Surroundings { facts: &facts, base: Path::new("/nowhere"), resolves: true };
    describe(pod, container, image, &around).map(|described| described.spec)
}

fn storages(pod: &Pod) -> Vec<Storage> {
    let around = Surroundings { facts: &Facts::default(), base: Path::new("/"), resolves: false };
    volume_storages(pod, &around).unwrap()
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["cmd".into()],
        env: vec!["A=image".into(), "PATH=/bin".into()],
        working_dir: "/srv".into(),
        user: "7:8".into(),
        ..ImageConfig::default()
    }
}

fn process_of(container: Container) -> oci::Process {
    let pod = pod_of(container.clone());
    spec(&pod, &container, &image()).unwrap().Process.unwrap()
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn commands_merge_as_in_kubernetes() {
    let args = |command: Option<&[&str]>, args: Option<&[&str]>| {
        process_of(Container { command: command.map(words), args: args.map(words), ..container() }).Args
    };
    assert_eq!(args(None, None), ["/entry", "cmd"]);
    assert_eq!(args(None, Some(&["x"])), ["/entry", "x"]);
    assert_eq!(args(Some(&["/c"]), None), ["/c"]);
    assert_eq!(args(Some(&["/c"]), Some(&["x"])), ["/c", "x"]);
    let nothing = spec(&pod_of(container()), &container(), &ImageConfig::default());
    assert_eq!(nothing.unwrap_err(), SpecError::NoCommand("a".into()));
}

fn texts(env: &[(&str, &str)]) -> Vec<(String, EnvValue)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), EnvValue::Text((*value).to_owned()))).collect()
}

#[test]
fn environments_merge_and_expand() {
    let env = texts(&[("A", "pod"), ("B", "$(A)/b"), ("C", "$$(A) $(NOPE) $ $(PATH) $(")]);
    let process = process_of(Container { env, args: Some(words(&["$(B)", "$(PATH)"])), ..container() });
    // As the kubelet has it: only the manifest's own variables stand for something.
    assert_eq!(
        process.Env,
        ["PATH=/bin", "HOSTNAME=host", "HOME=/", "A=pod", "B=pod/b", "C=$(A) $(NOPE) $ $(PATH) $("]
    );
    assert_eq!(process.Args[1..], ["pod/b", "$(PATH)"]);
}

#[test]
fn what_is_not_known_is_no_variable() {
    let env = vec![
        ("IP".to_owned(), EnvValue::Field(Field::PodIp)),
        ("HOST".to_owned(), EnvValue::Field(Field::HostIp)),
    ];
    let container = Container { env, ..container() };
    let error = spec(&pod_of(container.clone()), &container, &image()).unwrap_err().to_string();
    assert!(error.contains("status.hostIP is not known"), "{error}");
}

#[test]
fn users_and_directories() {
    let process = process_of(container());
    let user = process.User.unwrap();
    assert_eq!((user.UID, user.GID, process.Cwd.as_str()), (7, 8, "/srv"));
    let security =
        Security { user: Some(1000), group: Some(5), groups: vec![9, 9, 3], ..Security::default() };
    let process = process_of(Container { security, working_dir: Some("/w".into()), ..container() });
    let user = process.User.unwrap();
    assert_eq!((user.UID, user.GID, user.AdditionalGids, process.Cwd.as_str()), (1000, 5, vec![3, 9], "/w"));
}

#[test]
fn who_must_not_be_root_is_not() {
    let of = |user: Option<u32>, image: &ImageConfig| {
        let container =
            Container { security: Security { not_root: true, user, ..Security::default() }, ..container() };
        spec(&pod_of(container.clone()), &container, image).map(drop)
    };
    let roots = ImageConfig { user: "root".into(), passwd: "root:x:0:0::/root:/bin/sh".into(), ..image() };
    assert_eq!(of(None, &roots), Err(SpecError::Root("a".into())));
    assert_eq!(of(Some(0), &image()), Err(SpecError::Root("a".into())));
    assert_eq!((of(None, &image()), of(Some(5), &roots)), (Ok(()), Ok(())));
}

#[test]
fn groups_of_the_image_count_unless_they_must_not() {
    let image = ImageConfig {
        user: "app".into(),
        passwd: "app:x:7:8::/home/app:/bin/sh".into(),
        group: "more:x:30:app".into(),
        ..image()
    };
    let of = |only_own_groups| {
        let security = Security { groups: vec![9], only_own_groups, ..Security::default() };
        let container = Container { security, ..container() };
        spec(&pod_of(container.clone()), &container, &image).unwrap().Process.User.AdditionalGids.clone()
    };
    assert_eq!((of(false), of(true)), (vec![9, 30], vec![9]));
}

#[test]
fn system_calls_are_those_of_the_profile() {
    let of = |seccomp: Seccomp, privileged| {
        let container =
            Container { security: Security { seccomp, privileged, ..Security::default() }, ..container() };
        spec(&pod_of(container.clone()), &container, &image())
            .map(|spec| spec.Linux.Seccomp.clone().into_option())
    };
    assert_eq!(of(Seccomp::Unconfined, false), Ok(None));
    let usual = of(Seccomp::RuntimeDefault, false).unwrap().unwrap();
    assert_eq!(usual.DefaultAction, "SCMP_ACT_ERRNO");
    assert!(usual.Syscalls.iter().any(|rule| rule.Names.contains(&"openat2".to_owned())));
    assert_eq!(of(Seccomp::RuntimeDefault, true), Ok(None), "privileged");
    let error = of(Seccomp::Localhost("none.json".into()), false).unwrap_err().to_string();
    assert!(error.starts_with("container a: seccomp profile none.json: No such file"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.json");
    std::fs::write(&file, "{\"defaultAction\": \"SCMP_ACT_LOG\"}").unwrap();
    let own = of(Seccomp::Localhost(file.display().to_string()), false).unwrap().unwrap();
    assert_eq!(own.DefaultAction, "SCMP_ACT_LOG");
    std::fs::write(&file, "{}").unwrap();
    assert!(
        of(Seccomp::Localhost(file.display().to_string()), false)
            .unwrap_err()
            .to_string()
            .contains("defaultAction")
    );
}

#[test]
fn the_spec_leaves_pid_and_network_to_the_agent() {
    let container = Container { cpu_millis: Some(500), memory: Some(1 << 20), ..container() };
    let spec = spec(&pod_of(container.clone()), &container, &image()).unwrap();
    let linux = spec.Linux.unwrap();
    let kinds: Vec<&str> = linux.Namespaces.iter().map(|namespace| namespace.Type.as_str()).collect();
    assert_eq!(kinds, ["ipc", "uts", "mount"]);
    assert_eq!(linux.CgroupsPath, "/pith/web/a");
    let resources = linux.Resources.unwrap();
    assert_eq!((resources.CPU.Quota, resources.CPU.Period, resources.CPU.Shares), (50_000, 100_000, 512));
    assert_eq!(resources.Memory.Limit, 1 << 20);
    assert!(resources.Devices.is_empty());
    assert_eq!(spec.Root.Path, "/run/kata-containers/web-a/rootfs");
    assert!(linux.MaskedPaths.contains(&"/proc/kcore".to_owned()));
}

#[test]
fn privileged_means_nothing_hidden() {
    let security = Security { privileged: true, ..Security::default() };
    let container = Container { security, ..container() };
    let spec = spec(&pod_of(container.clone()), &container, &image()).unwrap();
    let linux = spec.Linux.unwrap();
    assert!(linux.MaskedPaths.is_empty() && linux.ReadonlyPaths.is_empty());
    assert!(linux.Resources.Devices[0].Allow);
    let sys = spec.Mounts.iter().find(|mount| mount.destination == "/sys").unwrap();
    assert!(!sys.options.contains(&"ro".to_owned()));
}

fn volume(name: &str, kind: VolumeKind) -> Volume {
    Volume { name: name.into(), kind }
}

fn binds(pod: &Pod) -> Vec<oci::Mount> {
    let spec = spec(pod, &pod.containers[0], &image()).unwrap();
    spec.Mounts.into_iter().filter(|mount| mount.type_ == "bind").collect()
}

#[test]
fn volumes_are_mounted_where_the_agent_puts_them() {
    let mount = |volume: &str| VolumeMount {
        volume: volume.into(),
        path: format!("/{volume}"),
        readonly: volume == "m",
        ..VolumeMount::default()
    };
    let container = Container { mounts: ["l", "m", "s", "f"].map(mount).to_vec(), ..container() };
    let mut pod = pod_of(container);
    pod.volumes = vec![
        volume("l", VolumeKind::EmptyDir { memory: false, size: None }),
        volume("m", VolumeKind::EmptyDir { memory: true, size: Some(4096) }),
        volume("s", VolumeKind::EmptyDir { memory: false, size: Some(8192) }),
        volume("f", VolumeKind::Files(vec![])),
    ];
    let all = storages(&pod);
    assert_eq!(all[1].options, ["size=4096", "mode=1777"]);
    assert_eq!((all[2].driver.as_str(), all.len()), ("ephemeral", 3));
    let binds = binds(&pod);
    let of = |path: &str| binds.iter().find(|bind| bind.destination == path).unwrap();
    for (path, storage) in ["/l", "/m", "/s"].iter().zip(&all) {
        assert_eq!(of(path).source, storage.mount_point);
    }
    assert_eq!(of("/m").options, ["rbind", "ro"]);
    assert_eq!(of("/f").options, ["rbind", "ro"], "nobody writes to a volume of files");
    pod.fs_group = Some(7);
    assert_eq!(storages(&pod)[0].options, ["mode=0777", "fsgid=7"]);
}

#[test]
fn every_container_has_hosts_and_names_unless_a_volume_is_there() {
    let destinations = |pod: &Pod| binds(pod).into_iter().map(|bind| bind.destination).collect::<Vec<_>>();
    let mut pod = pod_of(container());
    assert_eq!(
        destinations(&pod),
        ["/etc/hosts", "/etc/hostname", "/dev/termination-log", "/etc/resolv.conf"]
    );
    pod.volumes = vec![volume("v", VolumeKind::Files(vec![]))];
    pod.containers[0].mounts =
        vec![VolumeMount { volume: "v".into(), path: "/etc/hosts".into(), ..VolumeMount::default() }];
    assert_eq!(binds(&pod).iter().filter(|bind| bind.destination == "/etc/hosts").count(), 1);
}

#[test]
fn what_lies_deeper_is_mounted_later() {
    let mount = |path: &str| VolumeMount { volume: "v".into(), path: path.into(), ..VolumeMount::default() };
    let mut pod = pod_of(Container {
        mounts: vec![mount("/tmp/a/b"), mount("/tmp"), mount("/tmp/a")],
        termination_path: "/tmp/words".into(),
        ..container()
    });
    pod.volumes = vec![volume("v", VolumeKind::EmptyDir { memory: false, size: None })];
    let order: Vec<String> = binds(&pod).into_iter().map(|bind| bind.destination).collect();
    let at = |path: &str| order.iter().position(|known| known == path).unwrap();
    assert!(
        at("/tmp") < at("/tmp/a") && at("/tmp/a") < at("/tmp/a/b") && at("/tmp") < at("/tmp/words"),
        "{order:?}"
    );
}

#[test]
fn a_part_of_a_volume_is_pinned_before_containers_run() {
    let mount = |sub_path: &str, expands| VolumeMount {
        volume: "v".into(),
        path: format!("/m{}", sub_path.len()),
        sub_path: sub_path.into(),
        sub_path_expands: expands,
        ..VolumeMount::default()
    };
    let mounts = vec![mount("a//b/.", false), mount("$(X)/y", true), mount("a/b", false)];
    let container = Container { env: texts(&[("X", "x")]), mounts, ..container() };
    let mut pod = pod_of(container);
    pod.volumes = vec![volume("v", VolumeKind::EmptyDir { memory: false, size: None })];
    let all = storages(&pod);
    // The volume, and for each of two parts the directory and its bind.
    assert_eq!(all.len(), 5);
    assert_eq!(all[1].mount_point, "/run/kata-containers/sandbox/local/v/a/b");
    assert_eq!((all[2].driver.as_str(), &all[2].source), ("bind", &all[1].mount_point));
    let binds = binds(&pod);
    let parts = binds.iter().filter(|bind| bind.destination.starts_with("/m"));
    let sources: Vec<&str> = parts.map(|bind| bind.source.as_str()).collect();
    assert_eq!(sources, [&all[2].mount_point, &all[4].mount_point, &all[2].mount_point]);
    pod.containers[0].env = texts(&[("X", "..")]);
    let error = spec(&pod, &pod.containers[0], &image()).unwrap_err().to_string();
    assert!(error.contains("\"../y\"") && error.contains("below the volume"), "{error}");
}

#[test]
fn the_pods_own_container_has_the_agents_program_and_no_rights() {
    let (id, spec, storages) = companion(&pod_of(container()));
    assert_eq!((id.as_str(), spec.Root.Path.as_str()), ("web.pod", storages[0].mount_point.as_str()));
    let program = spec.Mounts.iter().find(|mount| mount.destination == COMPANION).unwrap();
    assert!(program.source == "/init" && program.options.contains(&"ro".to_owned()));
    assert!(
        spec.Process.Capabilities.Bounding.is_empty() && spec.Process.NoNewPrivileges && spec.Root.Readonly
    );
}

#[test]
fn a_root_is_an_overlay_over_the_image() {
    let storages = root_storages("web-a", "/dev/vdb", false);
    assert_eq!((storages[0].source.as_str(), storages[0].fstype.as_str()), ("/dev/vdb", "erofs"));
    assert_eq!(storages[1].options[0], format!("lowerdir={}", storages[0].mount_point));
    assert_eq!(storages[1].mount_point, "/run/kata-containers/web-a/rootfs");
    // On the pod's disk, in a directory that goes with the container.
    let on_disk = root_storages("web-a", "/dev/vdb", true);
    assert_eq!((on_disk.len(), on_disk[1].driver.as_str()), (3, "local"));
    assert!(on_disk[1].mount_point.starts_with(&scratch_storage("/dev/vdc").mount_point));
    assert_eq!(on_disk[2].options[1], format!("upperdir={}/upper", on_disk[1].mount_point));
    assert_eq!(on_disk[2].mount_point, storages[1].mount_point);
}
