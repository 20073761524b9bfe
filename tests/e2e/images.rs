//! What `pith run` makes of an image: programs that cannot be executed, and the signal that the image wants at its end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use store::digest::Digest;

use crate::pods::{Pods, root};

/// How long something may take to happen in a guest.
const LONGEST: Duration = Duration::from_secs(120);

#[test]
fn a_program_that_cannot_be_executed_gives_126_or_127_and_the_words_on_standard_error() -> Result<()> {
    let pods = Pods::new()?;
    // No shell in it: nobody but the kernel says what is wrong.
    let image = pods.path().join("image");
    std::fs::create_dir(&image)?;
    let programs = [
        ("broken", &b"\x7fELFnot"[..]),
        ("plain", b"echo without a first line\n"),
        ("script", b"#!/bin/none\n"),
    ];
    for (name, content) in programs {
        std::fs::write(image.join(name), content)?;
        std::fs::set_permissions(image.join(name), std::fs::Permissions::from_mode(0o755))?;
    }
    let mut manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: odd}\nspec:\n  containers:\n".to_owned();
    for name in ["script", "plain"] {
        manifest += &format!("    - {{name: {name}, image: {}, command: [/{name}]}}\n", image.display());
    }
    let path = pods.path().join("odd.yaml");
    std::fs::write(&path, manifest)?;
    // The status of a pod is that of the first container that failed.
    let output = pods.run(&["run", "--rm", "-f", &path.display().to_string()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(127), "{said}");
    for line in [
        "script | exec /script: no such file or directory: the interpreter or dynamic loader that it names",
        "plain  | exec /plain: exec format error",
    ] {
        assert!(said.lines().any(|found| found == line), "{line:?} is not in {said}");
    }
    let output = pods.run(&["run", "--rm", &image.display().to_string(), "/broken"])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(126), "{said}");
    assert!(said.lines().any(|line| line == "exec /broken: exec format error"), "{said}");
    pods.nothing_is_left()
}

#[test]
fn a_stop_sends_the_signal_that_the_image_names() -> Result<()> {
    let pods = Pods::new()?;
    let image = pods.path().join("image");
    layout(&image, |config| config["config"]["StopSignal"] = json!("SIGRTMIN+3"))?;
    // SIGRTMIN is 34 for programs.
    let script = "trap 'echo got 37; exit 3' 37; trap 'echo got another; exit 4' TERM; echo up; while :; do sleep 0.1; done";
    pods.success(&["run", "-d", "--name", "odd", &image.display().to_string(), "sh", "-c", script])?;
    let begun = Instant::now();
    while !pods.success(&["logs", "odd"])?.contains("up") {
        ensure!(begun.elapsed() < LONGEST, "the container does not come up");
        std::thread::sleep(Duration::from_millis(100));
    }
    pods.success(&["stop", "odd"])?;
    assert_eq!(pods.success(&["logs", "odd"])?, "up\ngot 37\n");
    assert_eq!(pods.success(&["wait", "odd"])?.trim(), "3");
    pods.nothing_is_left()
}

/// Writes the sample image with busybox as an OCI layout, with changes to its configuration.
fn layout(directory: &Path, change: impl Fn(&mut Value)) -> Result<()> {
    let sample = root().join("out/images/busybox");
    let blob = |directory: &Path, digest: &Value| -> Result<PathBuf> {
        let digest = digest.as_str().and_then(|text| text.strip_prefix("sha256:")).context("no digest")?;
        Ok(directory.join("blobs/sha256").join(digest))
    };
    let read = |path: PathBuf| -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(&path).with_context(|| format!("{}", path.display()))?)?)
    };
    let write = |value: &Value, descriptor: &mut Value| -> Result<()> {
        let bytes = value.to_string();
        descriptor["digest"] = json!(format!("sha256:{}", Digest::of(bytes.as_bytes())));
        descriptor["size"] = json!(bytes.len());
        Ok(std::fs::write(blob(directory, &descriptor["digest"])?, bytes)?)
    };
    std::fs::create_dir_all(directory.join("blobs/sha256"))?;
    let mut index = read(sample.join("index.json"))?;
    let mut manifest = read(blob(&sample, &index["manifests"][0]["digest"])?)?;
    let mut config = read(blob(&sample, &manifest["config"]["digest"])?)?;
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        std::fs::copy(blob(&sample, &layer["digest"])?, blob(directory, &layer["digest"])?)?;
    }
    change(&mut config);
    write(&config, &mut manifest["config"])?;
    write(&manifest, &mut index["manifests"][0])?;
    std::fs::write(directory.join("index.json"), index.to_string())?;
    Ok(std::fs::copy(sample.join("oci-layout"), directory.join("oci-layout")).map(drop)?)
}
