//! `pith` as a user types it, with pods that no other test sees.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// A place for pods of one test's own.
pub struct Pods {
    state: TempDir,
}

impl Pods {
    /// A place without pods.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new() -> Result<Pods> {
        Ok(Pods { state: tempfile::tempdir()? })
    }

    /// Where its files are.
    pub fn path(&self) -> &Path {
        self.state.path()
    }

    /// Writes the manifest of a pod with one busybox container per `(name, script)`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn manifest(&self, pod: &str, containers: &[(&str, &str)]) -> Result<PathBuf> {
        let image = busybox_image();
        let mut text =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\nspec:\n  containers:\n");
        for (name, script) in containers {
            let script = serde_json::to_string(script)?;
            text += &format!("    - name: {name}\n      image: {image}\n      command: [sh, -c, {script}]\n");
        }
        let path = self.state.path().join(format!("{pod}.yaml"));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// `pith` with these arguments, for pods of this test.
    ///
    /// # Errors
    /// When it was not built.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let program = root().join("target/debug/pith");
        ensure!(program.exists(), "{} is missing: run `make build`", program.display());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PITH_STATE", self.state.path().join("pods"))
            .env("XDG_DATA_HOME", self.state.path().join("data"))
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Sends a signal, such as `INT`, to a program.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(program: &Child, name: &str) -> Result<()> {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", program.id())]).status()?;
        ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("run pith")
    }

    /// What it prints, when it ends with 0.
    ///
    /// # Errors
    /// When it ends otherwise, with what it said.
    pub fn success(&self, arguments: &[&str]) -> Result<String> {
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

    /// Nothing runs any more, and once what ended is removed no file of a pod is left.
    ///
    /// # Errors
    /// When something is left after 120 s, with its name.
    pub fn nothing_is_left(&self) -> Result<()> {
        self.success(&["rm", "--all"])?;
        let start = Instant::now();
        while !self.processes().is_empty() && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(100));
        }
        ensure!(self.processes().is_empty(), "left running: {:?}", self.processes());
        let pods = self.state.path().join("pods");
        let left: Vec<_> =
            std::fs::read_dir(&pods).into_iter().flatten().flatten().map(|e| e.path()).collect();
        // What happened to pods is remembered longer than they.
        let left: Vec<_> = left.into_iter().filter(|path: &PathBuf| !path.ends_with(".events")).collect();
        ensure!(left.is_empty(), "left in {}: {left:?}", pods.display());
        Ok(())
    }
}

/// The sample image with busybox, which `make samples` makes, as an argument of `pith`.
pub fn busybox_image() -> String {
    sample_path("busybox").display().to_string()
}

/// Where a sample image is, for the architecture that guests have.
pub fn sample_path(name: &str) -> PathBuf {
    root().join(format!("out/images{}", crate::arch().suffix())).join(name)
}

/// The project's directory.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}
