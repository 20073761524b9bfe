//! What single manifests become.

use std::time::Duration;

use crate::run::Pod;
use crate::run::pod::{
    Container, EnvValue, Field, FileData, Handler, HostPathKind, PodError, Pull, Restart, Role, Seccomp,
    VolumeKind, VolumeMount,
};

const HEAD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n";

fn pod(spec: &str) -> Result<Pod, PodError> {
    Pod::parse(&format!("{HEAD}{spec}"))
}

fn good(spec: &str) -> Pod {
    pod(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"))
}

fn error(spec: &str) -> String {
    pod(spec).unwrap_err().to_string()
}

/// A manifest of the corpus.
fn of_corpus(name: &str) -> Pod {
    let text = &super::corpus::manifests()[name];
    Pod::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_least_pod() {
    let pod = good("  containers: [{name: a, image: ./img}]\n");
    assert_eq!((pod.name(), pod.hostname.as_str(), pod.grace.as_secs()), ("web", "web", 10));
    assert_eq!(pod.main, ["a"]);
    let container = Container {
        name: "a".into(),
        image: "./img".into(),
        termination_path: "/dev/termination-log".into(),
        ..Container::default()
    };
    assert_eq!(pod.containers, [container]);
    assert!(pod.notes.is_empty() && pod.init.is_empty());
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
      command: [sh, -c]
      args: ["exit 7"]
      env: [{name: A, value: "1"}, {name: B}]
      workingDir: /srv
      tty: true
      stdin: true
      ports: [{containerPort: 80}]
      resources: {limits: {cpu: 500m, memory: 1Gi}, requests: {cpu: "0.5"}}
      volumeMounts:
        - {name: scratch, mountPath: /scratch}
        - {name: site, mountPath: /site, readOnly: true}
      securityContext:
        runAsUser: 7
        privileged: true
        readOnlyRootFilesystem: true
        capabilities: {add: [CAP_SYS_TIME], drop: [all]}
    - name: b
      image: ./b
      resources: {limits: {cpu: 2}}
      securityContext: {allowPrivilegeEscalation: false}
"#;
    let pod = Pod::parse(text).unwrap();
    assert_eq!((pod.hostname.as_str(), pod.grace.as_secs()), ("host", 3));
    assert_eq!((pod.dns.servers.as_slice(), pod.dns.searches.len()), (&["10.0.2.3".to_owned()][..], 2));
    assert_eq!(pod.main, ["b"]);
    assert_eq!(pod.volumes[0].kind, VolumeKind::EmptyDir { memory: true, size: Some(64 << 20) });
    let (a, b) = (&pod.containers[0], &pod.containers[1]);
    assert_eq!((a.cpu_millis, a.memory, b.cpu_millis), (Some(500), Some(1 << 30), Some(2000)));
    let (user, other) = (&a.security, &b.security);
    assert_eq!((user.user, other.user, other.groups.as_slice()), (Some(7), Some(5), &[9][..]));
    let text = |text: &str| EnvValue::Text(text.into());
    assert_eq!(a.env, [("A".into(), text("1")), ("B".into(), text(""))]);
    assert_eq!(
        (user.add_capabilities.as_slice(), user.drop_capabilities.as_slice()),
        (&["SYS_TIME".to_owned()][..], &["ALL".to_owned()][..])
    );
    assert!(user.privileged && user.readonly_root && a.tty && a.stdin && other.no_new_privileges);
    let mount =
        VolumeMount { volume: "site".into(), path: "/site".into(), readonly: true, ..VolumeMount::default() };
    assert_eq!(VolumeMount { sub_path_expands: false, ..a.mounts[1].clone() }, mount);
}

#[test]
fn all_problems_of_a_file_come_at_once_with_their_lines() {
    let text = error("  containers:\n  - {name: A, image: i}\n  - name: b\n  nodeNam: x\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "3 problems:",
            "  line 6: spec.containers[0].name: \"A\" is not 1 to 63 lower-case letters, digits and inner hyphens",
            "  line 7: spec.containers[1]: image is missing; name an image in a registry, an OCI layout, an image archive or a directory",
            "  line 8: spec.nodeNam: there is no such key in a PodSpec",
        ]
    );
}

#[test]
fn senseless_values_are_placed() {
    let one = "  containers: [{name: a, image: i}]\n";
    let container = |keys: &str| format!("  containers: [{{name: a, image: i, {keys}}}]\n");
    for (spec, part) in [
        ("  containers: []\n".to_owned(), "at least one container"),
        ("  containers: [{name: a, image: i}, {name: a, image: i}]\n".to_owned(), "have the name \"a\""),
        ("  containers: [{name: a, image: ''}]\n".to_owned(), "spec.containers[0].image"),
        (container("workingDir: x"), "workingDir"),
        (container("resources: {limits: {memory: lots}}"), "limits.memory"),
        (container("resources: {limits: {cpu: 1}, requests: {cpu: 2}}"), "more cpu is requested"),
        (container("volumeMounts: [{name: v, mountPath: /v}]"), "no volume \"v\""),
        (container("command: [sleep, 5]"), "command[1]: 5 is no text; put it in quotes"),
        (container("env: [{name: 'A=', value: x}]"), "cannot be a variable's name"),
        (container("securityContext: {runAsUser: -1}"), "no whole number"),
        (container("securityContext: {privileged: maybe}"), "neither true nor false"),
        (container("livenessProbe: {exec: {command: []}}"), "command is missing"),
        (container("livenessProbe: {httpGet: {port: web}}"), "\"web\" is neither a port"),
        (format!("  restartPolicy: Maybe\n{one}"), "none of Always, OnFailure, Never"),
        (format!("  volumes: [{{name: v}}]\n{one}"), "needs one of emptyDir"),
        (
            format!("  volumes: [{{name: v, hostPath: {{path: /s, type: Socket}}}}]\n{one}"),
            "no end in the guest",
        ),
        (format!("  dnsPolicy: None\n{one}"), "needs dnsConfig.nameservers"),
        (format!("  dnsConfig: {{nameservers: [here]}}\n{one}"), "no address"),
        (
            format!(
                "  initContainers: [{{name: i, image: i, lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}}}]\n{one}"
            ),
            "neither probes nor hooks",
        ),
    ] {
        let text = error(&spec);
        assert!(text.contains(part), "{part:?} in {text:?}");
        assert!(text.starts_with("line "), "one problem with its line: {text}");
    }
}

#[test]
fn the_pod_of_a_file_is_found_or_chosen() {
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {containers: []}\n";
    let text = Pod::parse(other).unwrap_err().to_string();
    assert!(text.contains("no Pod") && text.contains("Deployment.apps a (line 1)"), "{text}");
    let two = &super::corpus::manifests()["two-pods"];
    let text = Pod::parse(two).unwrap_err().to_string();
    assert!(text.contains("one-container (line 1)") && text.contains("ready-tcp (line"), "{text}");
    assert_eq!(Pod::parse_named(two, Some("ready-tcp")).unwrap().name(), "ready-tcp");
    assert!(Pod::parse_named(two, Some("x")).unwrap_err().to_string().contains("no Pod \"x\""));
    assert!(Pod::parse("").unwrap_err().to_string().contains("no Pod"));
    assert!(Pod::parse("a: [").unwrap_err().to_string().contains("line 1"));
}

#[test]
fn a_stranger_cannot_be_a_main_container() {
    let head = HEAD.replace("name: web", "name: web, annotations: {pith/main-containers: c}");
    let text = Pod::parse(&format!("{head}  containers: [{{name: a, image: i}}]\n")).unwrap_err().to_string();
    assert!(text.contains("no container \"c\""), "{text}");
}

#[test]
fn init_containers_and_sidecars_restart_as_they_should() {
    let restarts = |policy: &str, own: &str| {
        let pod = good(&format!(
            "  restartPolicy: {policy}\n  initContainers: [{{name: i, image: i{own}}}]\n  containers: [{{name: a, image: i}}]\n"
        ));
        (pod.init[0].role, pod.init[0].restart, pod.containers[0].restart)
    };
    assert_eq!(restarts("Always", ""), (Role::Init, Restart::OnFailure, Restart::Always));
    assert_eq!(restarts("Never", ""), (Role::Init, Restart::Never, Restart::Never));
    assert_eq!(
        restarts("Never", ", restartPolicy: Always"),
        (Role::Sidecar, Restart::Always, Restart::Never)
    );
    let own = good("  restartPolicy: Always\n  containers: [{name: a, image: i, restartPolicy: Never}]\n");
    assert_eq!(own.containers[0].restart, Restart::Never);
}

#[test]
fn variables_come_from_everywhere() {
    let env = of_corpus("configmap-everywhere").containers.remove(0).env;
    let literal = |text: &str| EnvValue::Literal(text.into());
    let find = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert_eq!(find("LIVES"), Some(literal("3")));
    assert_eq!(find("GAME_ui.properties"), Some(literal("colour=purple\nnice=yes\n")));
    assert_eq!(find("MAYBE"), None, "optional and absent");
    let secret = of_corpus("secret-everywhere").containers.remove(0).env;
    assert!(secret.contains(&("DB_USER".into(), literal("user"))), "{secret:?}");
    assert!(secret.contains(&("password".into(), literal("changed"))), "stringData wins");
    let fields = of_corpus("downward-env").containers.remove(0).env;
    assert!(fields.contains(&("POD".into(), literal("downward-env"))), "{fields:?}");
    assert!(fields.contains(&("IP".into(), EnvValue::Field(Field::PodIp))), "{fields:?}");
    assert!(fields.contains(&("APP".into(), literal(""))), "a label that is not there");
}

#[test]
fn volumes_have_the_files_of_their_sources() {
    let files = |name: &str| match of_corpus(name).volumes.remove(0).kind {
        VolumeKind::Files(files) => files,
        other => panic!("{other:?}"),
    };
    let config = files("configmap-everywhere");
    let bytes = |data: &FileData| match data {
        FileData::Bytes(content) => content.0.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((config[1].path.as_str(), config[1].mode), ("img/logo.bin", 0o400));
    assert_eq!(bytes(&config[1].data), [0, 1, 2]);
    assert_eq!(files("secret-everywhere")[0].mode, 0o400, "256 in decimal");
    let all = files("projected-all");
    let paths: Vec<&str> = all.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["my-group/my-username", "labels", "cpu_limit", "my-group/lives"]);
    assert_eq!((all[0].mode, all[1].mode), (0o777, 0o440));
    assert_eq!(bytes(&all[1].data), b"cluster=\"c1\"\nzone=\"us-east\"");
    assert!(format!("{:?}", files("secret-everywhere")).contains("bytes"), "secrets are not printed");
}

#[test]
fn a_volume_of_an_absent_source_is_refused_unless_it_is_optional() {
    let volume = |source: &str| {
        pod(&format!("  volumes: [{{name: v, {source}}}]\n  containers: [{{name: a, image: i}}]\n"))
    };
    let text = volume("configMap: {name: x}").unwrap_err().to_string();
    assert!(text.contains("there is no ConfigMap \"x\" in this file, which has none"), "{text}");
    assert_eq!(
        volume("configMap: {name: x, optional: true}").unwrap().volumes[0].kind,
        VolumeKind::Files(vec![])
    );
    assert!(volume("secret: {secretName: x}").is_err());
}

#[test]
fn empty_dirs_and_host_paths_in_every_form() {
    let kinds: Vec<VolumeKind> =
        of_corpus("emptydir-kinds").volumes.into_iter().map(|volume| volume.kind).collect();
    assert_eq!(
        kinds,
        [
            VolumeKind::EmptyDir { memory: false, size: Some(500 << 20) },
            VolumeKind::EmptyDir { memory: true, size: Some(1_000_000) },
            VolumeKind::EmptyDir { memory: false, size: None },
        ]
    );
    let paths = of_corpus("hostpath-kinds").volumes;
    let kind = |at: usize| match &paths[at].kind {
        VolumeKind::HostPath { kind, .. } => *kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [0, 1, 2, 3].map(kind),
        [
            HostPathKind::Directory,
            HostPathKind::DirectoryOrCreate,
            HostPathKind::FileOrCreate,
            HostPathKind::Any
        ]
    );
}

#[test]
fn probes_have_kubernetes_defaults_and_ports_names() {
    let container = of_corpus("liveness-http").containers.remove(0);
    let probe = container.probes.liveness.unwrap();
    assert_eq!(
        (probe.delay, probe.period, probe.timeout),
        (Duration::from_secs(3), Duration::from_secs(3), Duration::from_secs(1))
    );
    assert_eq!((probe.successes, probe.failures), (1, 1));
    let Handler::Http(get) = probe.handler else { panic!("{:?}", probe.handler) };
    assert_eq!((get.port, get.path.as_str(), get.headers.len()), (8080, "/healthz", 1));
    assert_eq!(container.probes.startup.unwrap().grace, Some(Duration::from_secs(60)));
}

#[test]
fn a_container_says_when_its_image_is_pulled_and_what_it_may_write() {
    let of = |more: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: a, image: i{more}}}]}}\n"
        );
        Pod::parse(&text).map(|pod| (pod.containers[0].pull, pod.containers[0].storage, pod.notes))
    };
    for (word, pull) in [("Always", Pull::Always), ("IfNotPresent", Pull::Missing), ("Never", Pull::Never)] {
        let found = of(&format!(", imagePullPolicy: {word}")).unwrap();
        assert_eq!(found, (Some(pull), None, Vec::new()), "{word}");
    }
    assert_eq!(of("").unwrap().0, None);
    assert!(
        of(", imagePullPolicy: Sometimes").unwrap_err().to_string().contains("Always, IfNotPresent, Never")
    );
    let limit = of(", resources: {limits: {ephemeral-storage: 1Gi}}").unwrap();
    assert_eq!(limit, (None, Some(1 << 30), Vec::new()));
    assert!(of(", resources: {limits: {ephemeral-storage: x}}").is_err());
}

#[test]
fn what_serves_a_cluster_is_told_in_one_note() {
    let pod = of_corpus("kubectl-get");
    assert_eq!(pod.notes.len(), 1, "{:?}", pod.notes);
    for key in ["metadata.creationTimestamp", "status", "spec.tolerations"] {
        assert!(pod.notes[0].contains(key), "{key} in {:?}", pod.notes);
    }
    assert_eq!((pod.name(), pod.meta.node.as_deref()), ("kubectl-get", Some("worker-1")));
    assert_eq!(pod.volumes[0].kind, VolumeKind::Files(vec![]), "credentials of a cluster that is not there");
    let list = of_corpus("list");
    assert!(list.notes[0].contains("Service web"), "{:?}", list.notes);
}

#[test]
fn security_follows_the_pod_and_the_container() {
    let security = of_corpus("security-group").containers.remove(0).security;
    assert_eq!(
        (security.user, security.group, security.groups.as_slice()),
        (Some(1000), Some(3000), &[4000, 2000][..])
    );
    assert!(security.only_own_groups && security.no_new_privileges);
    let security = of_corpus("security-capabilities").containers.remove(0).security;
    assert_eq!((security.seccomp, security.not_root), (Seccomp::RuntimeDefault, true));
    let security = of_corpus("seccomp-file").containers.remove(0).security;
    assert_eq!(security.seccomp, Seccomp::Localhost("profiles/audit.json".into()));
}

#[test]
fn names_come_in_the_pods_domain() {
    let pod = of_corpus("hostname-subdomain");
    let long = "busybox-1.busybox-subdomain.default.svc.cluster.local";
    assert_eq!((pod.hostname.as_str(), pod.fqdn.as_deref()), (long, Some(long)));
}
