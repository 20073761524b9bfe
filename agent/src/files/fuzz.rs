//! What the fuzzer throws at CopyFile. Exists in tests and under a fuzzer only.

use std::path::{Path, PathBuf};

use super::copy::{Copies, CopyRequest, UNFINISHED};
use super::path::below;
use super::remove_tree;

/// Names to choose from: what containers are given, links among them, and ways out.
const NAMES: [&str; 16] = [
    "a", "c/a", "c/b", "c/l", "c/l/x", "c/d", "c/d/e", "c/d/e/f", "c/l/../x", "../a", "c/./a", "c//b", "e/l",
    "e/l/l/y", "e/d/l", "",
];
/// Targets of links.
const TARGETS: [&str; 8] = ["a", "..", "../..", "../../outside", "/", "l", "d/e", "."];
/// Types of files, as `st_mode` has them.
const TYPES: [u32; 8] = [0, 0o100_000, 0o100_000, 0o100_000, 0o040_000, 0o040_000, 0o120_000, 0o060_000];

/// Copies entries that `bytes` describe, six bytes each, into a tree below `scratch`, and removes it again.
///
/// # Panics
/// When something outside of the tree changes, when a part of a copy has a name, or a whole one has not what was sent.
pub fn copies(bytes: &[u8], scratch: &Path) {
    let (root, outside) = (scratch.join("shared"), scratch.join("outside"));
    std::fs::create_dir_all(&outside).expect("a directory");
    std::fs::write(outside.join("kept"), "kept").expect("a file");
    let copies = Copies::default();
    for piece in bytes.chunks_exact(6) {
        let entry = entry(&root, piece);
        let is_last = entry.size >= 0 && entry.offset.saturating_add(entry.data.len() as i64) == entry.size;
        let is_regular = matches!(entry.mode & 0o170_000, 0 | 0o100_000);
        if copies.copy(&root, &entry).is_ok() && is_regular && is_last {
            let found = std::fs::symlink_metadata(&entry.path).expect("a whole copy has its name");
            assert!(found.is_file() && found.len() == entry.size as u64, "{entry:?}: {found:?}");
        }
        assert!(copies.unfinished() <= UNFINISHED);
    }
    let kept: Vec<_> = std::fs::read_dir(&outside).expect("it stays").flatten().collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read(outside.join("kept")).expect("it stays"), b"kept");
    assert_eq!(names(&root).iter().find(|name| name.starts_with(".pith-copy-")), None);
    if root.exists() {
        remove_tree(&root).expect("all of it can be removed");
    }
}

fn entry(root: &Path, piece: &[u8]) -> CopyRequest {
    let [name, kind, size, offset, length, fill] = piece else { unreachable!("pieces of six") };
    let kind = TYPES[usize::from(kind % 8)];
    let is_link = kind == 0o120_000;
    let target = TARGETS[usize::from(fill % 8)].as_bytes().to_vec();
    CopyRequest {
        path: root.join(NAMES[usize::from(name % 16)]),
        // Negative ones among them.
        size: i64::from(*size as i8),
        offset: i64::from(*offset as i8),
        mode: kind | 0o700 | u32::from(name / 16),
        directory_mode: 0o755,
        uid: -1,
        gid: -1,
        data: if is_link { target } else { vec![*fill; usize::from(length % 100)] },
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        all.push(entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(names(&entry.path()));
        }
    }
    all
}

/// Checks that a path that is taken for one below a directory is below it, and not by way of `..`.
pub(crate) fn is_well_placed(entry: &CopyRequest) {
    let root = Path::new("/run/shared");
    if let Ok(names) = below(root, &entry.path) {
        let walked: PathBuf = names.iter().collect();
        assert!(!names.is_empty() && names.iter().all(|name| name != ".." && name != "."), "{entry:?}");
        assert_eq!(root.join(walked), entry.path.components().collect::<PathBuf>());
    }
}

/// The inputs of a fuzz target that are kept: what a fuzzer found once, and what it begins with. Never none.
#[cfg(test)]
pub(crate) fn kept(target: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
    let directories = ["regressions", "corpus"].map(|kept| root.join(kept).join(target));
    let list = directories.into_iter().filter_map(|kept| std::fs::read_dir(kept).ok()).flatten();
    let found: Vec<_> = list.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!found.is_empty(), "{target} has a corpus");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuzzing begins with, below the directory that `FUZZ_SEEDS` names.
    #[test]
    fn seeds() {
        let scratch = tempfile::tempdir().unwrap();
        let out =
            std::env::var_os("FUZZ_SEEDS").map_or(scratch.path().to_owned(), PathBuf::from).join("copies");
        std::fs::create_dir_all(&out).unwrap();
        let seeds: [&[[u8; 6]]; 4] = [
            // A file in three pieces, the second one twice; another in between.
            &[
                [1, 1, 30, 0, 10, 7],
                [1, 1, 30, 10, 10, 7],
                [2, 1, 5, 0, 5, 7],
                [1, 1, 30, 10, 10, 7],
                [1, 1, 30, 20, 10, 7],
            ],
            // A link out, and files through it.
            &[[3, 6, 0, 0, 0, 3], [4, 1, 5, 0, 5, 7], [12, 6, 0, 0, 0, 1], [13, 1, 5, 0, 5, 7]],
            // One thing in the place of another.
            &[
                [7, 1, 5, 0, 5, 7],
                [5, 1, 5, 0, 5, 7],
                [5, 4, 0, 0, 0, 0],
                [5, 6, 0, 0, 0, 0],
                [6, 1, 5, 0, 5, 7],
            ],
            // Numbers that do not fit.
            &[
                [1, 1, 200, 0, 5, 7],
                [1, 1, 5, 200, 5, 7],
                [1, 1, 5, 4, 5, 7],
                [9, 1, 5, 0, 5, 7],
                [15, 1, 5, 0, 5, 7],
            ],
        ];
        for (number, seed) in seeds.into_iter().enumerate() {
            copies(&seed.concat(), scratch.path());
            std::fs::write(out.join(number.to_string()), seed.concat()).unwrap();
        }
    }

    /// What a fuzzer found once, and what it begins with.
    #[test]
    fn regressions_stay_mended() {
        let scratch = tempfile::tempdir().unwrap();
        kept("copies").iter().for_each(|bytes| copies(bytes, scratch.path()));
    }
}
