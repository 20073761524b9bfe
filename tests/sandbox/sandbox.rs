//! A guest with the sandbox API, started as a user would.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::{Pods, arch, root, sample_path};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POD: &str = "sandbox";

/// What the container is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Image {
    /// bash, coreutils, an account `user`.
    Debian,
    /// One static program with a shell.
    Busybox,
    /// One static program that waits, and nothing else.
    Bare,
}

impl Image {
    fn manifest(self, dir: &Path) -> Result<String> {
        let (image, command): (PathBuf, &str) = match self {
            Self::Debian => (sample_path("debian"), "[sleep, infinity]"),
            Self::Busybox => (sample_path("busybox"), "[sleep, '1000000']"),
            Self::Bare => {
                let rootfs = dir.join("rootfs");
                std::fs::create_dir_all(&rootfs)?;
                std::fs::copy(root().join(format!("out/probe{}", arch().suffix())), rootfs.join("wait"))
                    .context("the probe is missing: run `make programs`")?;
                (rootfs, "[/wait, --wait, '1000000']")
            }
        };
        Ok(format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {POD}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n    - name: box\n      image: {}\n      \
             command: {command}\n",
            image.display()
        ))
    }
}

/// A pod of one container whose sandbox API is at an address of this host.
pub(crate) struct Sandbox {
    pods: Pods,
    address: SocketAddr,
}

impl Sandbox {
    /// Boots it.
    pub(crate) fn start(image: Image, token: Option<&str>) -> Result<Self> {
        let pods = Pods::new()?;
        let manifest = pods.path().join("sandbox.yaml");
        std::fs::write(&manifest, image.manifest(pods.path())?)?;
        let manifest = manifest.display().to_string();
        let mut arguments =
            vec!["run", "-d", "-f", &manifest, "--memory", "512", "--sandbox-api", "127.0.0.1:0"];
        // A directory does not say what its programs are for.
        let platform = arch().platform();
        arguments.extend(["--platform", &platform]);
        let file = pods.path().join("token");
        let name = file.display().to_string();
        if let Some(token) = token {
            std::fs::write(&file, format!("{token}\n"))?;
            arguments.extend(["--sandbox-api-token", &name]);
        }
        pods.success(&arguments)?;
        let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
        let address = listed[0]["sandbox_api"].as_str().with_context(|| format!("no address in {listed}"))?;
        Ok(Self { address: address.parse()?, pods })
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request by hand; the status and the whole answer.
    pub(crate) fn request(&self, head: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let text =
            format!("{head}\r\nHost: box\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.with_context(|| format!("no status in {answer:?}"))?, answer))
    }

    /// A command and a file are refused to whoever has this token; the health is everybody's.
    pub(crate) fn is_refused(&self, token: &str) -> Result<()> {
        let token = if token.is_empty() { String::new() } else { format!("\r\nX-Access-Token: {token}") };
        let list = format!("POST /process.Process/List HTTP/1.1\r\nContent-Type: application/json{token}");
        for head in [list, format!("GET /files?path=/etc/passwd HTTP/1.1{token}")] {
            let (status, answer) = self.request(&head, if head.starts_with("POST") { "{}" } else { "" })?;
            ensure!(status == 401, "{head}: {answer}");
        }
        let (status, answer) = self.request(&format!("GET /health HTTP/1.1{token}"), "")?;
        ensure!(status == 204, "{answer}");
        Ok(())
    }

    /// Stops it, and looks at what is left.
    pub(crate) fn end(self) -> Result<()> {
        self.pods.success(&["stop", POD])?;
        self.pods.nothing_is_left()
    }
}
