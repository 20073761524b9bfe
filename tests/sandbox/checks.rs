//! The SDKs, and what their checks say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

/// A script beside this file.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox").join(name)
}

/// SDKs that are installed.
pub(crate) struct Sdk {
    dir: PathBuf,
}

impl Sdk {
    /// Those of requirements.txt and js/package-lock.json.
    pub(crate) fn pinned() -> Result<Self> {
        Self::install(&[])
    }

    /// The newest for Python.
    pub(crate) fn newest() -> Result<Self> {
        Self::install(&["newest"])
    }

    fn install(arguments: &[&str]) -> Result<Self> {
        let output = Command::new(script("sdk.sh")).args(arguments).output().context("run sdk.sh")?;
        ensure!(output.status.success(), "sdk.sh: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { dir: PathBuf::from(String::from_utf8(output.stdout)?.trim()) })
    }

    /// Which version of Python's it is.
    pub(crate) fn version(&self) -> Result<String> {
        let program = "from importlib.metadata import version; print(version('e2b'))";
        let output = self.interpreter().args(["-c", program]).output().context("run python3")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Python with the SDK, and nothing of the user's.
    pub(crate) fn interpreter(&self) -> Command {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", self.dir.join("python")).env("PYTHONDONTWRITEBYTECODE", "1").arg("-s");
        command
    }

    /// The checks of Python's SDK against a URL.
    pub(crate) fn python(&self, url: &str, arguments: &[&str]) -> Result<Checks> {
        let output = self.interpreter().arg(script("accept.py")).arg(url).args(arguments).output();
        Checks::read(output.context("run python3 (Debian: apt-get install python3)")?)
    }

    /// The checks of JavaScript's SDK against a URL; none where npm could not install it.
    pub(crate) fn javascript(&self, url: &str) -> Result<Option<Checks>> {
        if !self.dir.join("js").is_dir() {
            println!("skipped: the JavaScript SDK is not installed; tests/sandbox/sdk.sh says why");
            return Ok(None);
        }
        let mut command = Command::new(self.dir.join("node"));
        command.current_dir(self.dir.join("js")).arg(script("accept.mjs")).arg(url);
        Checks::read(command.output().context("run node")?).map(Some)
    }
}

/// What checks printed.
pub(crate) struct Checks {
    text: String,
}

impl Checks {
    /// Prints what came, so that it stands in the test's output.
    fn read(output: Output) -> Result<Self> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        println!("{text}{errors}");
        ensure!(text.contains(" passed, "), "the checks did not come to their end: {errors}");
        Ok(Self { text })
    }

    /// Every check has passed; those named may be skipped.
    pub(crate) fn all_passed(&self, may_skip: &[&str]) -> Result<()> {
        let lines = |word: &str| self.text.lines().filter(|line| line.starts_with(word)).collect::<Vec<_>>();
        let failed = lines("FAIL");
        ensure!(failed.is_empty(), "{} failed: {}", failed.len(), failed.join("\n"));
        let skipped = lines("skip");
        let surprise = skipped.iter().find(|line| !may_skip.iter().any(|name| line.contains(name)));
        ensure!(surprise.is_none(), "skipped: {surprise:?}");
        ensure!(!lines("ok").is_empty(), "no check has run");
        Ok(())
    }
}
