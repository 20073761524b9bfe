//! Which accelerator a guest gets.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::Pods;

/// Runs a pod to its end with a cache of its own; gives what `run` wrote to standard error.
fn run(pods: &Pods, cache: &std::path::Path, words: &[&str]) -> Result<String> {
    let manifest = pods.manifest("accel", &[("one", "true")])?.display().to_string();
    let arguments = [&["run", "-f", &manifest], words].concat();
    let output = pods.command(&arguments)?.env("PITH_CACHE", cache).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{stderr}");
    Ok(stderr)
}

fn remembered(cache: &std::path::Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(cache.join("kvm.json")).context("nothing is remembered")?)?)
}

#[test]
fn kvm_is_tried_found_and_remembered() -> Result<()> {
    let (pods, cache) = (Pods::new()?, tempfile::tempdir()?);
    // Once on trial, once because it is known.
    for _ in 0..2 {
        let said = run(&pods, cache.path(), &[])?;
        ensure!(said.contains("(kvm, agent "), "{said}");
        let remembered = remembered(cache.path())?;
        assert_eq!(remembered["kvm_boots"], true, "{remembered}");
    }
    pods.nothing_is_left()
}

#[test]
fn kvm_is_not_given_up_for_a_kernel_that_boots_nowhere() -> Result<()> {
    let (pods, cache) = (Pods::new()?, tempfile::tempdir()?);
    let manifest = pods.manifest("nowhere", &[("one", "true")])?.display().to_string();
    // A kernel that ends at once, whatever runs it.
    let words = ["run", "-f", &manifest, "--append", "init=/none", "--append", "rdinit=/none"];
    let output = pods.command(&words)?.env("PITH_CACHE", cache.path()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{stderr}");
    ensure!(!cache.path().join("kvm.json").exists(), "a broken guest says nothing about the host: {stderr}");
    pods.nothing_is_left()
}
