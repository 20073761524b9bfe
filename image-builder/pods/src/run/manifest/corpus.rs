//! Pods as the world writes them, in testdata/pods: what becomes of each is in testdata/pods/expected.txt.
//!
//! In the style of kubernetes.io's examples, of `kubectl run --dry-run` and `kubectl get`, of Kata's tests and of
//! `podman kube generate`, with images in local directories. `UPDATE_DOCS=1` writes what is expected anew; read the difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::run::Pod;
use crate::run::pod::PodError;

/// So many real pods at the least.
const LEAST: usize = 40;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/pods")
}

/// The manifests of a directory by name.
fn manifests_in(directory: &Path) -> BTreeMap<String, String> {
    let mut manifests = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|one| extension == *one))
        {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            manifests.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    manifests
}

/// Ours.
pub(super) fn manifests() -> BTreeMap<String, String> {
    manifests_in(&directory())
}

fn outcome(text: &str) -> String {
    match Pod::parse(text) {
        Ok(pod) if pod.notes.is_empty() => "accepted\n".to_owned(),
        Ok(pod) => format!("accepted\n  {}\n", pod.notes.join("\n  ")),
        Err(PodError::Refused(problems)) => {
            problems.iter().fold("refused\n".to_owned(), |mut text, problem| {
                writeln!(text, "  {problem}").unwrap();
                text
            })
        }
        Err(error) => format!("refused\n  {error}\n"),
    }
}

#[test]
fn real_pods_are_accepted_or_refused_with_every_reason_at_once() {
    let manifests = manifests();
    assert!(manifests.len() >= LEAST, "{} manifests", manifests.len());
    let found = manifests.iter().fold(String::new(), |mut text, (name, manifest)| {
        write!(text, "{name}: {}", outcome(manifest)).unwrap();
        text
    });
    let path = directory().join("expected.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found, "see {}", path.display());
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "see {}", path.display());
    assert!(found.matches(": accepted\n").count() >= LEAST - 5, "most of them can run");
}

/// What becomes of manifests that are not ours to keep: `make pods PODS=DIR`.
#[test]
#[ignore = "needs PODS=DIR, a directory of manifests"]
fn what_becomes_of_the_manifests_in_a_directory_is_printed() {
    let directory = std::env::var_os("PODS").expect("PODS=DIR names a directory of manifests");
    let manifests = manifests_in(Path::new(&directory));
    assert!(!manifests.is_empty(), "no .yaml, .yml or .json in PODS");
    let mut accepted = 0;
    for (name, text) in &manifests {
        let outcome = outcome(text);
        accepted += usize::from(outcome.starts_with("accepted"));
        print!("{name}: {outcome}");
    }
    println!("{} manifests, {accepted} accepted", manifests.len());
}
