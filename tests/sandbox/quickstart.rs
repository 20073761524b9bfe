//! The ten lines of docs/sandbox-api.md, run as they stand.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tests::root;

use crate::checks::Sdk;
use crate::sandbox::{Image, Sandbox};

/// The first fenced block of a language in a document.
fn block(document: &str, language: &str) -> Result<String> {
    let text = std::fs::read_to_string(root().join(document)).with_context(|| document.to_owned())?;
    let fence = format!("```{language}\n");
    let (_, rest) = text.split_once(&fence).with_context(|| format!("no {fence:?} in {document}"))?;
    let (code, _) = rest.split_once("```").context("a block without an end")?;
    Ok(code.to_owned())
}

#[test]
fn the_documents_first_python_program_prints_what_it_says() -> Result<()> {
    let program = block("docs/sandbox-api.md", "python")?;
    let expected: Vec<&str> =
        program.lines().filter_map(|line| line.split_once("# prints ")).map(|p| p.1).collect();
    ensure!(!expected.is_empty(), "the program says of no line what it prints");
    let lines = program.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines <= 10, "a quickstart of {lines} lines");
    let sandbox = Sandbox::start(Image::Debian, None)?;
    let program = program.replace("http://127.0.0.1:49983", &sandbox.url());
    let output = Sdk::pinned()?.interpreter().arg("-c").arg(&program).stdin(Stdio::null()).output()?;
    let out = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(out.lines().collect::<Vec<_>>() == expected, "{out} in place of {expected:?}");
    sandbox.end()
}
