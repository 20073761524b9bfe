//! The Kubernetes manifest of a pod, and its way to a [`Pod`].
//!
//! Reads the subset of a Pod that has a meaning on one machine, and says no to everything else by its name: a
//! setting that is silently ignored is worse than one that is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::pod::{Container, Pod, PodError, Volume, VolumeKind, VolumeMount};
use super::quantity;

/// Names the containers whose end is the end of the pod, separated by commas. All of them, by default.
const MAIN_CONTAINERS: &str = "pith/main-containers";
/// How long a container may take to end when it is asked to, unless the pod says otherwise.
const GRACE: Duration = Duration::from_secs(10);

fn wrong(place: impl Into<String>, problem: impl Into<String>) -> PodError {
    PodError::Value { place: place.into(), problem: problem.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    /// Labels and a namespace serve a cluster's bookkeeping; here they change nothing.
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "namespace")]
    _namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    containers: Vec<ContainerSpec>,
    #[serde(default)]
    volumes: Vec<VolumeSpec>,
    hostname: Option<String>,
    restart_policy: Option<String>,
    termination_grace_period_seconds: Option<u64>,
    #[serde(default)]
    dns_config: DnsConfig,
    #[serde(default)]
    security_context: PodSecurity,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DnsConfig {
    #[serde(default)]
    nameservers: Vec<String>,
    #[serde(default)]
    searches: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodSecurity {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
    #[serde(default)]
    supplemental_groups: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerSpec {
    name: String,
    image: String,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Vec<EnvVar>,
    working_dir: Option<String>,
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    volume_mounts: Vec<MountSpec>,
    #[serde(default)]
    security_context: ContainerSecurity,
    /// Nothing is pulled, and ports are documentation: all containers share the guest's network.
    #[serde(default, rename = "imagePullPolicy")]
    _image_pull_policy: Option<String>,
    #[serde(default, rename = "ports")]
    _ports: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvVar {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    limits: Limits,
    /// Requests serve a scheduler.
    #[serde(default, rename = "requests")]
    _requests: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    cpu: Option<String>,
    memory: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MountSpec {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerSecurity {
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
    #[serde(default)]
    privileged: bool,
    #[serde(default)]
    read_only_root_filesystem: bool,
    allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Capabilities {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    drop: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeSpec {
    name: String,
    empty_dir: Option<EmptyDir>,
    host_path: Option<HostPath>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EmptyDir {
    medium: Option<String>,
    size_limit: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HostPath {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Manifest {
    pub(super) fn into_pod(self) -> Result<Pod, PodError> {
        if (self.api_version.as_str(), self.kind.as_str()) != ("v1", "Pod") {
            return Err(wrong("kind", format!("{} {} is not v1 Pod", self.api_version, self.kind)));
        }
        if let Some(policy) = self.spec.restart_policy.filter(|policy| policy != "Never") {
            return Err(wrong("spec.restartPolicy", format!("{policy:?}: only Never is supported")));
        }
        let name = label("metadata.name", self.metadata.name)?;
        let volumes = volumes(self.spec.volumes)?;
        let security = self.spec.security_context;
        if self.spec.containers.is_empty() {
            return Err(wrong("spec.containers", "a pod needs at least one container"));
        }
        let mut names = BTreeSet::new();
        let mut containers = Vec::new();
        for (index, container) in self.spec.containers.into_iter().enumerate() {
            let place = format!("spec.containers[{index}]");
            let container = container.into_container(&place, &volumes, &security)?;
            if !names.insert(container.name.clone()) {
                return Err(wrong(format!("{place}.name"), format!("{:?} is taken", container.name)));
            }
            containers.push(container);
        }
        let main = main_containers(&self.metadata.annotations, &names)?;
        let dns = self.spec.dns_config;
        let mut lines: Vec<String> =
            dns.nameservers.iter().map(|server| format!("nameserver {server}")).collect();
        if !dns.searches.is_empty() {
            lines.push(format!("search {}", dns.searches.join(" ")));
        }
        Ok(Pod {
            hostname: self.spec.hostname.unwrap_or_else(|| name.clone()),
            name,
            grace: self.spec.termination_grace_period_seconds.map_or(GRACE, Duration::from_secs),
            containers,
            volumes,
            dns: lines,
            main,
        })
    }
}

fn main_containers(
    annotations: &BTreeMap<String, String>,
    names: &BTreeSet<String>,
) -> Result<Vec<String>, PodError> {
    let Some(list) = annotations.get(MAIN_CONTAINERS) else { return Ok(names.iter().cloned().collect()) };
    let main: Vec<String> =
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let place = format!("metadata.annotations[{MAIN_CONTAINERS}]");
    match main.iter().find(|name| !names.contains(*name)) {
        Some(stranger) => Err(wrong(place, format!("there is no container {stranger:?}"))),
        None if main.is_empty() => Err(wrong(place, "names no container")),
        None => Ok(main),
    }
}

fn volumes(specs: Vec<VolumeSpec>) -> Result<Vec<Volume>, PodError> {
    let mut volumes: Vec<Volume> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let place = format!("spec.volumes[{index}]");
        let name = label(format!("{place}.name"), spec.name)?;
        if volumes.iter().any(|volume| volume.name == name) {
            return Err(wrong(format!("{place}.name"), format!("{name:?} is taken")));
        }
        let kind = match (spec.empty_dir, spec.host_path) {
            (Some(empty), None) => empty.into_kind(&place)?,
            (None, Some(host)) => {
                let create = match host.kind.as_deref() {
                    None | Some("" | "Directory") => false,
                    Some("DirectoryOrCreate") => true,
                    Some(kind) => {
                        return Err(wrong(
                            format!("{place}.hostPath.type"),
                            format!(
                                "{kind:?}: only Directory and DirectoryOrCreate are supported; share the directory of a file"
                            ),
                        ));
                    }
                };
                VolumeKind::HostPath { path: host.path, create }
            }
            _ => return Err(wrong(place, "needs either emptyDir or hostPath")),
        };
        volumes.push(Volume { name, kind });
    }
    Ok(volumes)
}

impl EmptyDir {
    fn into_kind(self, place: &str) -> Result<VolumeKind, PodError> {
        let memory = match self.medium.as_deref() {
            None | Some("") => false,
            Some("Memory") => true,
            Some(other) => {
                return Err(wrong(
                    format!("{place}.emptyDir.medium"),
                    format!("{other:?}: only Memory is supported"),
                ));
            }
        };
        let place = format!("{place}.emptyDir.sizeLimit");
        if self.size_limit.is_some() && !memory {
            return Err(wrong(place, "only a volume with medium Memory has a size"));
        }
        let size = self
            .size_limit
            .map(|text| quantity::bytes(&text).map_err(|error| wrong(place, error)))
            .transpose()?;
        Ok(VolumeKind::EmptyDir { memory, size })
    }
}

impl ContainerSpec {
    fn into_container(
        self,
        place: &str,
        volumes: &[Volume],
        pod: &PodSecurity,
    ) -> Result<Container, PodError> {
        let at = |key: &str| format!("{place}.{key}");
        if self.image.is_empty() {
            return Err(wrong(at("image"), "is empty; name an OCI layout, an image archive or a directory"));
        }
        if let Some(variable) =
            self.env.iter().find(|variable| variable.name.is_empty() || variable.name.contains('='))
        {
            return Err(wrong(at("env"), format!("{:?} cannot be a variable's name", variable.name)));
        }
        if let Some(dir) = self.working_dir.as_ref().filter(|dir| !dir.starts_with('/')) {
            return Err(wrong(at("workingDir"), format!("{dir:?} is not an absolute path")));
        }
        let limits = self.resources.limits;
        let cpu = limits
            .cpu
            .map(|text| quantity::millis(&text).map_err(|error| wrong(at("resources.limits.cpu"), error)));
        let memory = limits
            .memory
            .map(|text| quantity::bytes(&text).map_err(|error| wrong(at("resources.limits.memory"), error)));
        let mut mounts = Vec::new();
        for (index, mount) in self.volume_mounts.into_iter().enumerate() {
            let place = at(&format!("volumeMounts[{index}]"));
            if !volumes.iter().any(|volume| volume.name == mount.name) {
                return Err(wrong(place, format!("there is no volume {:?}", mount.name)));
            }
            if !mount.mount_path.starts_with('/') {
                return Err(wrong(
                    place,
                    format!("mountPath {:?} is not an absolute path", mount.mount_path),
                ));
            }
            mounts.push(VolumeMount {
                volume: mount.name,
                path: mount.mount_path,
                readonly: mount.read_only,
            });
        }
        let security = self.security_context;
        let bare = |names: Vec<String>| -> Vec<String> {
            names
                .iter()
                .map(|name| name.to_uppercase())
                .map(|name| name.trim_start_matches("CAP_").to_owned())
                .collect()
        };
        Ok(Container {
            name: label(at("name"), self.name)?,
            image: self.image,
            command: self.command,
            args: self.args,
            env: self.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
            working_dir: self.working_dir,
            tty: self.tty,
            stdin: self.stdin,
            cpu_millis: cpu.transpose()?,
            memory: memory.transpose()?,
            mounts,
            user: security.run_as_user.or(pod.run_as_user),
            group: security.run_as_group.or(pod.run_as_group),
            groups: pod.supplemental_groups.clone(),
            privileged: security.privileged,
            readonly_root: security.read_only_root_filesystem,
            may_gain_privileges: security.allow_privilege_escalation.unwrap_or(true),
            add_capabilities: bare(security.capabilities.add),
            drop_capabilities: bare(security.capabilities.drop),
        })
    }
}

/// A DNS label (RFC 1123), which is also a good file name and part of a container id.
fn label(place: impl Into<String>, name: String) -> Result<String, PodError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(name)
    } else {
        Err(wrong(place, format!("{name:?} is not 1 to 63 lower-case letters, digits and inner hyphens")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n";

    fn pod(spec: &str) -> Result<Pod, PodError> {
        Pod::parse(&format!("{HEAD}{spec}"))
    }

    fn error(spec: &str) -> String {
        pod(spec).unwrap_err().to_string()
    }

    #[test]
    fn the_least_pod() {
        let pod = pod("  containers: [{name: a, image: ./img}]\n").unwrap();
        assert_eq!((pod.name.as_str(), pod.hostname.as_str(), pod.grace), ("web", "web", GRACE));
        assert_eq!(pod.main, ["a"]);
        let container = Container {
            name: "a".into(),
            image: "./img".into(),
            may_gain_privileges: true,
            ..Container::default()
        };
        assert_eq!(pod.containers, [container]);
    }

    #[test]
    fn everything_at_once() {
        let text = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
  annotations: {pith/main-containers: "b"}
spec:
  restartPolicy: Never
  hostname: host
  terminationGracePeriodSeconds: 3
  dnsConfig: {nameservers: [10.0.2.3], searches: [a, b]}
  securityContext: {runAsUser: 5, supplementalGroups: [9]}
  volumes:
    - name: scratch
      emptyDir: {medium: Memory, sizeLimit: 64Mi}
    - name: site
      hostPath: {path: ./site, type: Directory}
    - name: plain
      emptyDir: {}
  containers:
    - name: a
      image: ./a
      imagePullPolicy: Never
      command: [sh, -c]
      args: ["exit 7"]
      env: [{name: A, value: "1"}, {name: B}]
      workingDir: /srv
      tty: true
      stdin: true
      ports: [{containerPort: 80}]
      resources: {limits: {cpu: 500m, memory: 1Gi}, requests: {cpu: 1}}
      volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: site, mountPath: /site, readOnly: true}
      securityContext:
        runAsUser: 7
        privileged: true
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        capabilities: {add: [CAP_SYS_TIME], drop: [all]}
    - name: b
      image: ./b
      resources: {limits: {cpu: 2}}
"#;
        let pod = Pod::parse(text).unwrap();
        assert_eq!((pod.hostname.as_str(), pod.grace.as_secs()), ("host", 3));
        assert_eq!(pod.dns, ["nameserver 10.0.2.3", "search a b"]);
        assert_eq!(pod.main, ["b"]);
        assert_eq!(pod.volumes[0].kind, VolumeKind::EmptyDir { memory: true, size: Some(64 << 20) });
        let (a, b) = (&pod.containers[0], &pod.containers[1]);
        assert_eq!((a.cpu_millis, a.memory, b.cpu_millis), (Some(500), Some(1 << 30), Some(2000)));
        assert_eq!((a.user, b.user, b.groups.as_slice()), (Some(7), Some(5), &[9][..]));
        assert_eq!(a.env, [("A".into(), "1".into()), ("B".into(), String::new())]);
        assert_eq!(
            (a.add_capabilities.as_slice(), a.drop_capabilities.as_slice()),
            (&["SYS_TIME".into()][..], &["ALL".into()][..])
        );
        assert!(a.privileged && a.readonly_root && a.tty && a.stdin && !a.may_gain_privileges);
        assert_eq!(a.mounts[1], VolumeMount { volume: "site".into(), path: "/site".into(), readonly: true });
    }

    #[test]
    fn unknown_keys_are_named() {
        assert!(error("  containers: [{name: a, image: i, livenessProbe: {}}]\n").contains("livenessProbe"));
        assert!(error("  nodeName: x\n  containers: [{name: a, image: i}]\n").contains("nodeName"));
    }

    #[test]
    fn senseless_values_are_placed() {
        let one = "  containers: [{name: a, image: i}]\n";
        for (spec, part) in [
            ("  containers: []\n", "at least one container"),
            ("  containers: [{name: A, image: i}]\n", "spec.containers[0].name"),
            (
                "  containers: [{name: a, image: i}, {name: a, image: i}]\n",
                "spec.containers[1].name: \"a\" is taken",
            ),
            ("  containers: [{name: a, image: ''}]\n", "spec.containers[0].image"),
            ("  containers: [{name: a, image: i, workingDir: x}]\n", "workingDir"),
            ("  containers: [{name: a, image: i, resources: {limits: {memory: lots}}}]\n", "limits.memory"),
            (
                "  containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /v}]}]\n",
                "no volume \"v\"",
            ),
            (&format!("  restartPolicy: Always\n{one}"), "only Never"),
            (&format!("  volumes: [{{name: v}}]\n{one}"), "either emptyDir or hostPath"),
            (&format!("  volumes: [{{name: v, emptyDir: {{sizeLimit: 1Mi}}}}]\n{one}"), "medium Memory"),
        ] {
            let text = error(spec);
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
    }

    #[test]
    fn a_single_file_of_the_host_is_refused() {
        let spec = "  volumes: [{name: v, hostPath: {path: /srv, type: File}}]\n  containers: [{name: a, image: i}]\n";
        assert!(error(spec).contains("share the directory"));
    }

    #[test]
    fn other_kinds_are_refused() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {containers: []}\n";
        assert!(Pod::parse(text).unwrap_err().to_string().contains("not v1 Pod"));
    }

    #[test]
    fn a_stranger_cannot_be_a_main_container() {
        let text = format!(
            "{}  containers: [{{name: a, image: i}}]\n",
            HEAD.replace("name: web", "name: web, annotations: {pith/main-containers: c}")
        );
        assert!(Pod::parse(&text).unwrap_err().to_string().contains("no container \"c\""));
    }
}
