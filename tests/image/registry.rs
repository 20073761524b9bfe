//! `image-builder push` and `pull` as a user types them, against Debian's `docker-registry` on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use products::manifest::Manifest;
use store::digest::Digest;
use store::layout::Layout;
use tempfile::TempDir;

/// `user` with the password `U*U`, a published vector of bcrypt, as htpasswd and as docker keep it.
const HTPASSWD: &str = "user:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n";
const LOGIN: &str = "dXNlcjpVKlU=";

/// A registry that ends with the test.
struct Registry {
    process: Child,
    address: String,
    place: TempDir,
}

impl Registry {
    fn start(locked: bool) -> Result<Registry> {
        let place = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let storage = place.path().join("storage");
        let mut config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        if locked {
            let users = place.path().join("htpasswd");
            fs::write(&users, HTPASSWD)?;
            config += &format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", users.display());
        }
        let path = place.path().join("config.yml");
        fs::write(&path, config)?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry is missing: run `make setup`")?;
        let registry = Registry { process, address, place };
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(&registry.address).is_err() {
            ensure!(Instant::now() < end, "the registry does not listen on {}", registry.address);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Runs `image-builder` with the product directory `out`, and docker's configuration in the registry's place.
    fn run(&self, out: &Path, arguments: &[&str]) -> Result<Output> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/image-builder");
        ensure!(program.exists(), "{} is missing: run `make build`", program.display());
        let mut command = Command::new(program);
        command.args(arguments).arg("--out").arg(out).env("DOCKER_CONFIG", self.place.path());
        command.output().context("run image-builder")
    }

    fn success(&self, out: &Path, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.run(out, &[arguments, &["--json"]].concat())?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn failure(&self, out: &Path, arguments: &[&str]) -> Result<String> {
        let output = self.run(out, arguments)?;
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Where the registry keeps a blob.
    fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_string();
        let blobs = self.place.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(&hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Products that are quickly sent.
fn products(dir: &Path) -> Result<Layout> {
    let layout = Layout::new(dir.into(), Some(dir.into()));
    fs::write(layout.vmlinuz(), vec![7; 300_000])?;
    fs::write(layout.initrd(), "an initrd")?;
    Manifest::update(&layout, |manifest| {
        manifest.add_product(&layout, "vmlinuz")?;
        manifest.add_product(&layout, "initrd.img")
    })?;
    Ok(layout)
}

fn files(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn what_was_pushed_is_pulled_by_its_digest_and_a_tampered_blob_is_refused() -> Result<()> {
    let registry = Registry::start(false)?;
    let place = tempfile::tempdir()?;
    let layout = products(place.path())?;
    let tagged = format!("{}/pith/guest:one", registry.address);
    let pushed = registry.success(place.path(), &["push", &tagged])?;
    assert_eq!((&pushed["uploaded"], &pushed["present"]), (&4.into(), &0.into()));
    let reference = pushed["reference"].as_str().context("no reference")?.to_string();
    let again = registry.success(place.path(), &["push", &tagged])?;
    assert_eq!((&again["uploaded"], &again["present"]), (&0.into(), &4.into()));
    assert_eq!(again["reference"], reference.as_str());

    for reference in [&reference, &tagged] {
        let target = tempfile::tempdir()?;
        let pulled = registry.success(target.path(), &["pull", reference])?;
        assert_eq!(pulled["files"], 3);
        assert_eq!(files(target.path())?, ["initrd.img", "manifest.json", "vmlinuz"]);
        for name in files(target.path())? {
            assert!(fs::read(target.path().join(&name))? == fs::read(place.path().join(&name))?, "{name}");
        }
    }

    // The layout has the same manifest.
    let oci = place.path().join("layout");
    let written = registry.success(place.path(), &["artifact", &oci.display().to_string()])?;
    assert!(reference.ends_with(written["digest"].as_str().context("no digest")?), "{written}");

    let target = tempfile::tempdir()?;
    fs::write(target.path().join("vmlinuz"), "mine")?;
    let (kernel, size) = Digest::of_file(&layout.vmlinuz())?;
    for (content, complaint) in [(vec![8; usize::try_from(size)?], "digest"), (vec![7; 5], "bytes")] {
        fs::write(registry.blob(kernel), content)?;
        let said = registry.failure(target.path(), &["pull", &reference])?;
        assert!(said.contains(complaint) && said.contains(&kernel.to_string()), "{said}");
        assert_eq!(files(target.path())?, ["vmlinuz"]);
        assert_eq!(fs::read_to_string(target.path().join("vmlinuz"))?, "mine");
    }
    let missing = format!("{}/pith/guest:two", registry.address);
    assert!(registry.failure(target.path(), &["pull", &missing])?.contains("404"));
    Ok(())
}

#[test]
fn a_locked_registry_wants_the_login_of_docker() -> Result<()> {
    let registry = Registry::start(true)?;
    let place = tempfile::tempdir()?;
    products(place.path())?;
    let tagged = format!("{}/guest:one", registry.address);
    let said = registry.failure(place.path(), &["push", &tagged])?;
    assert!(said.contains("401") && said.contains("docker login"), "{said}");
    let config =
        |login: &str| format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{login}\"}}}}}}", registry.address);
    fs::write(registry.place.path().join("config.json"), config("dXNlcjpubw=="))?;
    let said = registry.failure(place.path(), &["push", &tagged])?;
    assert!(said.contains("401") && said.contains("log in again") && !said.contains("dXNl"), "{said}");
    fs::write(registry.place.path().join("config.json"), config(LOGIN))?;
    registry.success(place.path(), &["push", &tagged])?;
    Ok(())
}
