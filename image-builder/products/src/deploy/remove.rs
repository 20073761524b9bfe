//! An installation taken away again, by its receipt alone: neither products nor Kata's configuration are needed.

use std::path::{Path, PathBuf};

use super::error::DeployError;
use super::install::{EDITED, How, Kept, Report, lock, new_name, old_name, own_and_others};
use super::plan::check_name;
use super::receipt::{Receipt, Written};
use super::root::{Found, Root};

/// Removes the files that the installation called `name` wrote, and the directories that it made and that are empty then.
///
/// A file that was changed since, or is a link now, stays unless `force` says otherwise (a link always stays). A file that
/// another installation uses as well stays for that one.
///
/// # Errors
/// [`DeployError::NotInstalled`] when there is no receipt; otherwise when a file cannot be removed. The receipt stays then, and
/// the removal can be tried again.
pub fn remove(root: &Root, prefix: &Path, name: &str, how: How<'_>) -> Result<Report, DeployError> {
    check_name(name)?;
    let missing = |known| DeployError::NotInstalled { receipt: root.at(&Receipt::path(prefix, name)), known };
    if !root.at(prefix).is_dir() {
        return Err(missing(Vec::new()));
    }
    let _lock = lock(root, prefix, how.stop)?;
    let (receipt, mut others) = own_and_others(Receipt::all(root, prefix)?, name);
    let Some(receipt) = receipt else {
        return Err(missing(others.into_iter().map(|receipt| receipt.name).collect()));
    };
    let mut report = Report::default();
    for Written { path, sha256 } in receipt.files.iter().rev() {
        let keep = |reason: String| Kept { path: path.clone(), reason };
        if let Some(other) = others.iter().find(|other| other.digests(path).is_some()) {
            report.kept.push(keep(format!("the installation {:?} uses it, too", other.name)));
            continue;
        }
        match root.find(path)? {
            Found::Nothing => {}
            Found::File(found) if how.force || sha256.contains(&found) => report.removed.push(path.clone()),
            Found::File(_) => report.kept.push(keep(EDITED.into())),
            Found::Other => report.kept.push(keep("it is no regular file any more".into())),
        }
    }
    if how.dry_run {
        return Ok(report);
    }
    // From here on it goes to its end: half a removal is nothing that anybody asks for.
    for path in &report.removed {
        root.remove(path)?;
    }
    for path in receipt.files.iter().map(|file| file.path.clone()).chain([Receipt::path(prefix, name)]) {
        root.remove(&new_name(&path, name))?;
        root.remove(&old_name(&path, name))?;
    }
    let itself = Receipt::path(prefix, name);
    root.remove(&itself.with_file_name(format!(".{name}.json.new")))?;
    // Directories that others still need become theirs, so that the last one takes them along.
    let needed = |directory: &PathBuf, other: &Receipt| {
        let theirs = Receipt::path(prefix, &other.name);
        other.files.iter().any(|file| file.path.starts_with(directory)) || theirs.starts_with(directory)
    };
    for other in &mut others {
        let before = other.directories.len();
        for directory in &receipt.directories {
            if needed(directory, other) && !other.directories.contains(directory) {
                other.directories.push(directory.clone());
            }
        }
        if other.directories.len() > before {
            other.directories.sort();
            other.write(root, prefix)?;
        }
    }
    root.remove(&itself)?;
    let mut directories = receipt.directories;
    directories.sort();
    for directory in directories.iter().rev() {
        // A package's tree is not the host's: there only what is the installation's own can be known to be its.
        if receipt.staged && !root.is_staged() && !receipt.own.iter().any(|own| directory.starts_with(own)) {
            continue;
        }
        root.remove_directory(directory)?;
    }
    Ok(report)
}
