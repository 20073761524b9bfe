//! `image-builder run` and the verbs around it, as a user types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A place for pods of one test's own.
struct Pods {
    state: TempDir,
}

impl Pods {
    fn new() -> Result<Pods> {
        Ok(Pods { state: tempfile::tempdir()? })
    }

    /// Writes the manifest of a pod with one busybox container per `(name, script)`.
    fn manifest(&self, pod: &str, containers: &[(&str, &str)]) -> Result<PathBuf> {
        let image = root().join("out/images/busybox");
        let mut text =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec:\n  containers:\n");
        for (name, script) in containers {
            let script = serde_json::to_string(script)?;
            text += &format!(
                "    - name: {name}\n      image: {}\n      command: [sh, -c, {script}]\n",
                image.display()
            );
        }
        let path = self.state.path().join(format!("{pod}.yaml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let program = root().join("target/debug/image-builder");
        ensure!(program.exists(), "{} is missing: run `make build`", program.display());
        let mut command = Command::new(program);
        command.args(arguments).env("PITH_STATE", self.state.path().join("pods")).stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("run image-builder")
    }

    /// What it prints, when it ends with 0.
    fn success(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Processes that have something of this test's state on their command line.
    fn processes(&self) -> Vec<String> {
        let needle = self.state.path().display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&needle) {
                found.push(line);
            }
        }
        found
    }

    /// Nothing runs any more, and no file of a pod is left.
    fn nothing_is_left(&self) -> Result<()> {
        let start = Instant::now();
        while !self.processes().is_empty() && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(self.processes().is_empty(), "left running: {:?}", self.processes());
        let pods = self.state.path().join("pods");
        let left: Vec<_> =
            std::fs::read_dir(&pods).into_iter().flatten().flatten().map(|e| e.path()).collect();
        ensure!(left.is_empty(), "left in {}: {left:?}", pods.display());
        Ok(())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}

#[test]
fn a_pod_runs_in_the_foreground_and_gives_its_containers_status() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("front", &[("one", "echo to stdout; exit 7"), ("two", "echo other")])?;
    let output = pods.run(&["run", "-f", &manifest.display().to_string()])?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stdout.contains("one | to stdout") && stdout.contains("two | other"), "{stdout}\n{stderr}");
    pods.nothing_is_left()
}

#[test]
fn a_pod_in_the_background_is_listed_entered_read_and_stopped() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("back", &[("one", "echo hello from one; sleep 1000")])?;
    pods.success(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    assert!(pods.success(&["ps"])?.contains("back"));
    let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
    assert!(listed.to_string().contains("\"back\""), "{listed}");
    assert_eq!(pods.success(&["exec", "back", "one", "--", "echo", "in it"])?, "in it\n");
    let failed = pods.run(&["exec", "back", "one", "--", "sh", "-c", "echo err >&2; exit 9"])?;
    assert_eq!((failed.status.code(), String::from_utf8_lossy(&failed.stderr).as_ref()), (Some(9), "err\n"));
    assert!(pods.success(&["logs", "back", "one"])?.contains("hello from one"));
    let again = pods.run(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    assert!(!again.status.success(), "two pods of one name");
    let mut cat = pods
        .command(&["exec", "-i", "back", "one", "--", "cat"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = cat.stdin.take().context("no stdin")?;
    let feeder = std::thread::spawn(move || {
        use std::io::Write as _;
        input.write_all(&vec![b'x'; 300_000])
    });
    let output = cat.wait_with_output()?;
    assert!(feeder.join().is_ok_and(|result| result.is_ok()));
    assert_eq!(output.stdout.len(), 300_000);
    pods.success(&["stop", "back"])?;
    assert!(!pods.success(&["ps"])?.contains("back"));
    pods.nothing_is_left()
}

#[test]
fn an_interrupt_ends_the_pod_and_leaves_nothing() -> Result<()> {
    use std::io::{BufRead as _, BufReader};
    let pods = Pods::new()?;
    let manifest = pods.manifest("ctrlc", &[("one", "echo up; sleep 1000")])?;
    let mut run = pods.command(&["run", "-f", &manifest.display().to_string()])?;
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(run.stdout.take().context("no stdout")?).lines();
    let up = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("one | up")));
    ensure!(up.is_some(), "the container did not come up");
    let interrupted = Command::new("sh").args(["-c", &format!("kill -INT {}", run.id())]).status()?;
    ensure!(interrupted.success(), "kill failed");
    let status = run.wait()?;
    ensure!(!status.success(), "an interrupted pod ended with 0");
    pods.nothing_is_left()
}

#[test]
fn what_is_wrong_with_a_pod_is_said_before_anything_boots() -> Result<()> {
    let pods = Pods::new()?;
    let refused = |text: &str, named: &str| -> Result<()> {
        let path = pods.state.path().join("bad.yaml");
        std::fs::write(&path, text)?;
        let output = pods.run(&["run", "-f", &path.display().to_string()])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && stderr.contains(named), "{named:?} is not in {stderr:?}");
        Ok(())
    };
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: /none, colour: red}]}\n",
        "colour",
    )?;
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: /none, command: [a]}]}\n",
        "/none",
    )?;
    refused("kind: [", "bad.yaml")?;
    pods.nothing_is_left()
}

#[test]
fn a_directory_of_the_host_is_seen_as_it_is() -> Result<()> {
    let pods = Pods::new()?;
    let site = pods.state.path().join("the site");
    std::fs::create_dir(&site)?;
    std::fs::write(site.join("page"), "first")?;
    let manifest = pods.state.path().join("shared.yaml");
    let image = root().join("out/images/busybox");
    std::fs::write(
        &manifest,
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: shared}}\nspec:\n  volumes:\n    - {{name: site, hostPath: {{path: ./the site}}}}\n    \
             - {{name: new, hostPath: {{path: ./new, type: DirectoryOrCreate}}}}\n  containers:\n    - name: one\n      \
             image: {}\n      command: [sleep, '1000']\n      volumeMounts:\n        - {{name: site, mountPath: /site, readOnly: true}}\n        \
             - {{name: new, mountPath: /new}}\n",
            image.display()
        ),
    )?;
    pods.success(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    let sh = |script: &str| pods.success(&["exec", "shared", "one", "--", "sh", "-c", script]);
    assert_eq!(sh("cat /site/page")?, "first");
    // Edited in place, and replaced as editors do.
    std::fs::write(site.join("page"), "second")?;
    let becomes = |text: &str| {
        sh(&format!(
            "for i in $(seq 100); do test \"$(cat /site/page)\" = {text} && exit; sleep 0.1; done; cat /site/page; exit 1"
        ))
    };
    becomes("second")?;
    std::fs::write(site.join(".page.swp"), "third")?;
    std::fs::rename(site.join(".page.swp"), site.join("page"))?;
    becomes("third")?;
    sh("echo from the guest > /new/file && sync")?;
    assert_eq!(std::fs::read_to_string(pods.state.path().join("new/file"))?, "from the guest\n");
    let refused = pods.run(&["exec", "shared", "one", "--", "touch", "/site/x"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    pods.success(&["stop", "shared"])?;
    pods.nothing_is_left()?;

    let missing = std::fs::read_to_string(&manifest)?.replace("./the site", "./nowhere");
    std::fs::write(&manifest, missing)?;
    let output = pods.run(&["run", "-f", &manifest.display().to_string()])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && stderr.contains("nowhere (volume site)"), "{stderr}");
    pods.nothing_is_left()
}
