//! The crates that a program links, by cargo's word, with their digests by the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::error::SbomError;
use crate::agent::cargo_name;
use crate::program::Program;
use store::digest::Digest;

/// A crate that is linked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// What its manifest says.
    pub(super) licence: Option<String>,
    /// Of the archive it was unpacked from; none for crates of the workspace.
    pub(super) sha256: Option<Digest>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<Digest>,
}

/// What the program `package` links with these features for the target, itself included, in order of name. Macros, which run at build time,
/// are not among it.
pub(super) async fn linked(
    root: &Path,
    package: &str,
    features: &BTreeSet<String>,
    target: &str,
) -> Result<Vec<Crate>, SbomError> {
    let path = root.join("Cargo.lock");
    let lock =
        std::fs::read_to_string(&path).map_err(|source| SbomError::Read { path: path.clone(), source })?;
    let listed = features.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let lines = Program::new(&cargo_name(), "install Rust by rustup")
        .current_dir(root)
        .args(["tree", "--locked", "--package", package, "--features", &listed, "--target", target])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}\t{l}"])
        .lines()
        .await
        .map_err(|source| SbomError::Cargo { program: package.to_owned(), source })?;
    parse(&lines, &lock).map_err(|source| SbomError::Lock { path, source: Box::new(source) })
}

fn parse(lines: &[String], lock: &str) -> Result<Vec<Crate>, toml::de::Error> {
    let lock: Lock = toml::from_str(lock)?;
    let sums: BTreeMap<(String, String), Option<Digest>> =
        lock.package.into_iter().map(|locked| ((locked.name, locked.version), locked.checksum)).collect();
    let krate = |line: &String| {
        let (package, licence) = line.split_once('\t')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
        let sha256 = sums.get(&(name.clone(), version.clone())).copied().flatten();
        // A crate that was listed before has a mark at its end.
        let licence = licence.trim_end_matches("(*)").trim();
        let licence = Some(licence).filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Crate { name, version, licence, sha256 })
    };
    Ok(lines.iter().filter_map(krate).collect::<BTreeSet<_>>().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_comes_once_with_its_digest_and_licence() {
        let sum = Digest::of(b"archive");
        let lock = format!(
            "version = 4\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\
             [[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"x\"\nchecksum = \"{sum}\"\n"
        );
        let lines = [
            "own v0.1.0 (/src/own)\tApache-2.0",
            "libc v0.2.1\tMIT OR Apache-2.0",
            "libc v0.2.1\tMIT OR Apache-2.0 (*)",
            "",
        ]
        .map(str::to_owned);
        let crates = parse(&lines, &lock).unwrap();
        let brief: Vec<_> =
            crates.iter().map(|c| (c.name.as_str(), c.licence.as_deref(), c.sha256)).collect();
        assert_eq!(
            brief,
            [("libc", Some("MIT OR Apache-2.0"), Some(sum)), ("own", Some("Apache-2.0"), None)]
        );
    }
}
