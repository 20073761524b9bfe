//! Pods as they are written for clusters, run by `pith run`.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::pods::{Pods, busybox_image};

/// How long something may take to happen in a guest.
const LONGEST: Duration = Duration::from_secs(120);

/// Writes a manifest in which `IMAGE` stands for busybox.
fn manifest(pods: &Pods, name: &str, text: &str) -> Result<String> {
    let path = pods.path().join(format!("{name}.yaml"));
    let image = busybox_image();
    std::fs::write(&path, text.replace("IMAGE", &image))?;
    Ok(path.display().to_string())
}

/// What `ps` knows of a container.
fn container(pods: &Pods, pod: &str, name: &str) -> Result<Value> {
    let listed: Value = serde_json::from_str(&pods.success(&["--json", "ps", pod])?)?;
    let all = listed["containers"].as_array().context("no containers")?;
    all.iter().find(|container| container["name"] == name).cloned().context("no such container")
}

/// Waits until a container is so.
fn until(pods: &Pods, pod: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let now = container(pods, pod, name)?;
        if is_so(&now) {
            return Ok(now);
        }
        ensure!(begun.elapsed() < LONGEST, "{name} stays as it is: {now}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

const EVERYTHING: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: purple, file.txt: "from a map\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {token: czNjcmV0}
---
apiVersion: v1
kind: Pod
metadata: {name: everything, creationTimestamp: null, labels: {app: demo}}
spec:
  restartPolicy: OnFailure
  activeDeadlineSeconds: 120
  hostname: front
  subdomain: sub
  hostAliases: [{ip: 192.0.2.7, hostnames: [other.example]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [example], options: [{name: ndots, value: "2"}]}
  tolerations: [{operator: Exists}]
  securityContext:
    fsGroup: 2000
    sysctls: [{name: net.core.somaxconn, value: "1234"}]
    seccompProfile: {type: RuntimeDefault}
  volumes:
  - {name: work, emptyDir: }
  - {name: small, emptyDir: {sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: ./host, type: DirectoryOrCreate}}
  - {name: one, hostPath: {path: ./one.txt}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings, items: [{key: file.txt, path: a/b.txt}]}}
      - {secret: {name: keys}}
      - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  initContainers:
  - name: first
    image: IMAGE
    command: [sh, -c, "echo made by first > /work/first; mkdir /work/part; echo part > /work/part/file"]
    volumeMounts: [{name: work, mountPath: /work}]
  - name: side
    image: IMAGE
    restartPolicy: Always
    command: [sh, -c, "trap 'echo side is over > /host/side; exit 0' TERM; sleep 1; touch /work/side; while :; do sleep 1; done"]
    volumeMounts: [{name: work, mountPath: /work}, {name: host, mountPath: /host}]
    startupProbe: {exec: {command: [test, -e, /work/side]}, periodSeconds: 1, failureThreshold: 60}
  containers:
  - name: reader
    image: IMAGE
    stdin: true
    command: [sh, -c, "read line; echo got $line; test $line = typed && ! read more"]
  - name: main
    image: IMAGE
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: MEM, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: SAYS, value: "$(POD) is $(COLOUR), not $$(COLOUR)"}
    envFrom: [{secretRef: {name: keys}, prefix: KEY_}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: work, mountPath: /logs, subPathExpr: $(POD)/logs}
    - {name: small, mountPath: /small}
    - {name: all, mountPath: /all}
    - {name: host, mountPath: /host}
    - {name: one, mountPath: /one.txt, readOnly: true}
    lifecycle:
      postStart: {exec: {command: [touch, /work/hooked]}}
    securityContext: {runAsUser: 1000, runAsNonRoot: true, allowPrivilegeEscalation: false}
    terminationMessagePath: /tmp/last-words
    command: [sh, -c]
    args:
    - |
      until test -e /work/hooked; do sleep 0.1; done
      echo again >> /work/count
      # Fails the first time; the volume remembers.
      test "$(wc -l < /work/count)" = 2 || exit 3
      same() { test "$1" = "$2" || { echo "$3: $1 is not $2"; exit 9; }; }
      same "$SAYS" 'everything is purple, not $$(COLOUR)' variables
      same "$KEY_token" s3cret secret
      same "$IP" 10.0.2.15 address
      same "$MEM" 64 limit
      same "$(cat /work/first)" "made by first" init
      same "$(cat /all/a/b.txt)" "from a map" file
      same "$(cat /all/token)" s3cret token
      same "$(cat /all/labels)" 'app="demo"' labels
      same "$(stat -c %g /all/token)" 2000 'group of a file'
      same "$(id -G)" "0 2000" groups
      same "$(stat -c %g /work)" 2000 'group of a volume'
      echo x > /logs/line; same "$(cat /work/everything/logs/line)" x part
      touch /all/x 2>/dev/null && exit 9
      same "$(cat /etc/hostname)" front hostname
      grep -q '^10.0.2.15.*front.sub.default.svc.cluster.local.front$' /etc/hosts || exit 8
      grep -q '^192.0.2.7.other.example$' /etc/hosts || exit 8
      grep -q '^127.0.0.1.localhost$' /etc/hosts || exit 8
      same "$(tr '\n' ' ' < /etc/resolv.conf)" 'search example nameserver 192.0.2.53 options ndots:2 ' resolver
      same "$(cat /proc/sys/net/core/somaxconn)" 1234 sysctl
      same "$(grep Seccomp: /proc/self/status | tr -dc 0-9)" 2 seccomp
      same "$(cat /one.txt)" one 'file of the host'
      head -c 2000000 /dev/zero > /small/file 2>/dev/null && exit 7
      echo all is well > /tmp/last-words
      echo fine
"#;

#[test]
fn a_pod_with_everything_is_as_in_a_cluster() -> Result<()> {
    let pods = Pods::new()?;
    std::fs::write(pods.path().join("one.txt"), "one\n")?;
    let file = manifest(&pods, "everything", EVERYTHING)?;
    let mut run = pods.command(&["--json", "run", "-f", &file])?;
    let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    run.stdin.take().context("no input")?.write_all(b"typed\n")?;
    let output = run.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "{}: {out}{err}", output.status);
    assert!(out.contains(r#""text":"fine""#), "{out}");
    assert!(out.contains("main: ended with status 3; it is started again"), "{out}");
    assert!(out.contains("without effect on one machine: spec.tolerations"), "{out}");
    assert!(out.contains(r#""text":"got typed""#), "{out}");
    let side = std::fs::read_to_string(pods.path().join("host/side"))?;
    assert_eq!(side, "side is over\n", "a sidecar is told to end after the others");
    pods.nothing_is_left()
}

const ASKED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: asked}
spec:
  restartPolicy: Always
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 20
  volumes: [{name: host, hostPath: {path: ./host, type: DirectoryOrCreate}}]
  containers:
  - name: server
    image: IMAGE
    command: [sh, -c, "echo ok > /tmp/index.html; mkdir /www; cp /tmp/index.html /www; exec httpd -f -p 8080 -h /www"]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 10}
    volumeMounts: [{name: host, mountPath: /host}]
    lifecycle:
      preStop: {exec: {command: [sh, -c, "echo before the end > /host/hook"]}}
  - name: shell
    image: IMAGE
    stdin: true
    command: [sh, -c, "while read line; do echo got $line; done; sleep 1000"]
    livenessProbe: {exec: {command: [test, '!', -e, /tmp/sick]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}
"#;

#[test]
fn containers_are_asked_how_they_are_and_started_again() -> Result<()> {
    let pods = Pods::new()?;
    let file = manifest(&pods, "asked", ASKED)?;
    pods.success(&["run", "--detach", "-f", &file])?;
    let sh =
        |container: &str, script: &str| pods.success(&["exec", "asked", container, "--", "sh", "-c", script]);
    let server = until(&pods, "asked", "server", |now| now["ready"] == true)?;
    assert_eq!((server["id"].as_str(), server["restarts"].as_u64()), (Some("asked-server"), Some(0)));
    assert!(pods.success(&["ps", "asked"])?.contains("asked-server"));
    // Each sees the other's processes, and neither is process 1.
    sh("shell", "ps | grep -q '[h]ttpd -f' && test -e /proc/1/status && test $$ != 1")?;
    // Not ready: the page is gone, and the port is still there.
    sh("server", "rm /www/index.html")?;
    until(&pods, "asked", "server", |now| now["ready"] == false && now["phase"] == "running")?;
    sh("server", "cp /tmp/index.html /www")?;
    until(&pods, "asked", "server", |now| now["ready"] == true)?;
    // Its end is not the pod's.
    sh("shell", "killall httpd")?;
    until(&pods, "asked", "server", |now| now["restarts"] == 1 && now["ready"] == true)?;

    // The input of another one.
    let mut attach = pods.command(&["attach", "asked", "shell"])?;
    let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = attach.stdin.take().context("no input")?;
    input.write_all(b"one\n")?;
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(attach.stdout.take().context("no output")?));
    assert_eq!(lines.next().context("nothing came")??, "got one");
    drop(input);
    Pods::signal(&attach, "INT")?;
    assert_eq!(attach.wait()?.code(), Some(130));
    assert!(pods.success(&["logs", "asked", "shell"])?.contains("got one"));
    let refused = pods.run(&["attach", "asked", "server"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stdin: true"), "{refused:?}");

    // Users by name, from the container's own files.
    let exec = |user: &str| {
        pods.success(&[
            "exec",
            "-u",
            user,
            "asked",
            "shell",
            "--",
            "sh",
            "-c",
            "echo $(id -u):$(id -g) $HOME",
        ])
    };
    assert_eq!(exec("www-data")?, "33:33 /var/www\n");
    assert_eq!(exec("nobody:tty")?, "65534:5 /nonexistent\n");
    assert_eq!(exec("12:34")?, "12:34 /\n");
    let refused = pods.run(&["exec", "-u", "nobody-else", "asked", "shell", "--", "true"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nobody-else"), "{refused:?}");

    // A failing probe ends it, and it is started again.
    sh("shell", "touch /tmp/sick")?;
    until(&pods, "asked", "shell", |now| now["restarts"] == 1 && now["phase"] == "running")?;
    pods.success(&["stop", "asked"])?;
    assert_eq!(std::fs::read_to_string(pods.path().join("host/hook"))?, "before the end\n");
    pods.nothing_is_left()
}

#[test]
fn an_init_container_that_fails_is_the_end_and_so_is_the_deadline() -> Result<()> {
    let pods = Pods::new()?;
    let container =
        |name: &str, script: &str| format!("{{name: {name}, image: IMAGE, command: [sh, -c, '{script}']}}");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: failed}}\nspec:\n  initContainers: [{}]\n  containers: [{}]\n",
        container("init", "echo no; exit 5"),
        container("main", "echo started")
    );
    let output = pods.run(&["run", "-f", &manifest(&pods, "failed", &text)?])?;
    let out = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(out.contains("init | no") && !out.contains("started"), "{out}");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: late}}\nspec:\n  activeDeadlineSeconds: 2\n  containers: [{}]\n",
        container("main", "sleep 1000")
    );
    let output = pods.run(&["run", "-f", &manifest(&pods, "late", &text)?])?;
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    pods.nothing_is_left()
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_at_once() -> Result<()> {
    let pods = Pods::new()?;
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  colour: red\n  containers:\n  - name: a\n    image: /i\n    \
                command: [5]\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: y}\nspec: {containers: [{name: a, image: /none, command: [a]}]}\n";
    let file = manifest(&pods, "bad", text)?;
    let said = |arguments: &[&str]| -> Result<String> {
        let output = pods.run(arguments)?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = said(&["run", "-f", &file])?;
    assert!(text.contains("several Pods: x (line 1), y (line 11)") && text.contains("--pod"), "{text}");
    let text = said(&["run", "--pod", "x", "-f", &file])?;
    assert!(
        text.contains("line 5: spec.colour") && text.contains("line 9: spec.containers[0].command[0]"),
        "{text}"
    );
    let text = said(&["run", "--pod", "y", "-f", &file])?;
    assert!(text.contains("/none"), "{text}");
    pods.nothing_is_left()
}

/// Fails its first life before it is ready, and is ready in its second one after some seconds.
const SLOW: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: slow}
spec:
  restartPolicy: Always
  volumes: [{name: host, hostPath: {path: ./host, type: DirectoryOrCreate}}]
  containers:
  - name: server
    image: IMAGE
    command: [sh, -c, "test -e /host/tried || { echo > /host/tried; sleep 1; exit 1; }; sleep 4; echo > /host/up; sleep 1000"]
    readinessProbe: {exec: {command: [test, -e, /host/up]}, periodSeconds: 1, timeoutSeconds: 10}
    volumeMounts: [{name: host, mountPath: /host}]
"#;

#[test]
fn in_the_background_it_returns_only_when_the_readiness_probe_has_passed() -> Result<()> {
    let pods = Pods::new()?;
    let file = manifest(&pods, "slow", SLOW)?;
    assert_eq!(pods.success(&["run", "--detach", "-f", &file])?, "slow\n");
    let host = pods.path().join("host");
    ensure!(host.join("tried").exists() && host.join("up").exists(), "it returned before the probe passed");
    let server = container(&pods, "slow", "server")?;
    assert_eq!((server["ready"].as_bool(), server["restarts"].as_u64()), (Some(true), Some(1)), "{server}");
    pods.success(&["rm", "--force", "slow"])?;
    pods.nothing_is_left()
}
