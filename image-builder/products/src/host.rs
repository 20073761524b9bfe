//! Programs and data of the build machine, taken into a root file system, programs with the shared libraries they need.
//!
//! Owns the search for libraries and the question which Debian package a file came from. Promises that nothing is
//! executed, that a file keeps its path, that modes depend on the execute bit alone, and that the same files give the
//! same tree. Must never take in a library that nothing asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_image::{Inode, Kind};

use crate::debian::DPKG;
use crate::elf::{self, ElfError};

/// Where the loader of Debian on x86_64 looks for libraries, in its order. Before them, where the loader itself is: the C
/// library asks for it by name, and it must not come in twice.
const LIBRARIES: [&str; 5] =
    ["/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];

/// Why a program cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It is not there.
    #[error("{path} is not on this machine; install the Debian package {package}")]
    Missing {
        /// The file, or the pattern that matches none.
        path: String,
        /// What has it.
        package: String,
    },
    /// It cannot be read.
    #[error("cannot read {path}; check its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a program or library.
    #[error("cannot tell which libraries {path} needs")]
    Elf {
        /// The file.
        path: String,
        /// Why.
        source: ElfError,
    },
    /// A library is not where the loader looks.
    #[error("{path} needs {library}, which is in none of {}; reinstall the Debian package {package}", LIBRARIES.join(", "))]
    Library {
        /// Who needs it.
        path: String,
        /// Its name.
        library: String,
        /// Whose files they are.
        package: String,
    },
}

/// Files by their path, which is the same here and there.
pub type Files = BTreeMap<String, Inode>;

/// Takes in files, whose last part may have one `*`, and all that they need to run.
///
/// # Errors
/// When something is missing; the text says what to install.
pub fn closure(package: &str, files: &[String]) -> Result<Files, HostError> {
    let mut found = Files::new();
    let mut pending: Vec<String> = Vec::new();
    for pattern in files {
        pending.extend(matching(package, pattern)?);
    }
    while let Some(path) = pending.pop() {
        if found.contains_key(&path) {
            continue;
        }
        let read = |source| HostError::Read { path: PathBuf::from(&path), source };
        let content = std::fs::read(&path).map_err(read)?;
        let mode = std::fs::metadata(&path).map_err(read)?.permissions().mode();
        let damaged = |source| HostError::Elf { path: path.clone(), source };
        // Anything else is data, and needs nothing.
        let is_program = content.starts_with(b"\x7fELF");
        let (loader, libraries) = match is_program {
            true => (elf::interpreter(&content).map_err(damaged)?, elf::needed(&content).map_err(damaged)?),
            false => Default::default(),
        };
        pending.extend(loader);
        for library in libraries {
            let place = library_path(&library).ok_or_else(|| HostError::Library {
                path: path.clone(),
                library,
                package: package.to_string(),
            })?;
            pending.push(place);
        }
        let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        found.insert(path, Inode::new(mode, Kind::File(content.into())));
    }
    Ok(found)
}

/// The files that a path or pattern names, sorted.
fn matching(package: &str, pattern: &str) -> Result<Vec<String>, HostError> {
    let missing = || HostError::Missing { path: pattern.to_string(), package: package.to_string() };
    let (directory, name) = pattern.rsplit_once('/').ok_or_else(missing)?;
    let Some((before, after)) = name.split_once('*') else {
        return if Path::new(pattern).is_file() { Ok(vec![pattern.to_string()]) } else { Err(missing()) };
    };
    let entries = std::fs::read_dir(directory).map_err(|_| missing())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let fits = |name: &String| {
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    let mut paths: Vec<_> = names.filter(fits).map(|name| format!("{directory}/{name}")).collect();
    paths.sort();
    if paths.is_empty() { Err(missing()) } else { Ok(paths) }
}

fn library_path(name: &str) -> Option<String> {
    let is_ours = |path: &String| {
        // A library of another architecture is passed over, as the loader does.
        std::fs::read(path).is_ok_and(|content| elf::needed(&content).is_ok())
    };
    LIBRARIES.iter().map(|directory| format!("{directory}/{name}")).find(is_ours)
}

/// The Debian packages that files came from, with their versions, by name. A file that no package knows is passed over.
pub fn packages<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    packages_in(Path::new(DPKG), paths)
}

fn packages_in<'a>(dpkg: &Path, paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    // Packages of Debian 12 may call a file /lib/x or /usr/lib/x: the one directory is a link to the other.
    let plain = |path: &str| path.strip_prefix("/usr").unwrap_or(path).to_string();
    let wanted: BTreeSet<String> = paths.map(plain).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let lists = std::fs::read_dir(dpkg.join("info")).into_iter().flatten().flatten();
    let owners: BTreeSet<String> = lists
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let package = name.strip_suffix(".list")?.split(':').next()?.to_string();
            let list = std::fs::read_to_string(entry.path()).ok()?;
            list.lines().any(|path| wanted.contains(&plain(path))).then_some(package)
        })
        .collect();
    let status = std::fs::read_to_string(dpkg.join("status")).unwrap_or_default();
    let versions = status.split("\n\n").filter_map(|entry| {
        let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (package, version) = (field("Package")?, field("Version")?);
        owners.contains(package).then(|| (package.to_string(), version.to_string()))
    });
    versions.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        // Whatever this machine is, it has a dynamic program: this one.
        let own = std::env::current_exe().unwrap().display().to_string();
        let files = closure("none", std::slice::from_ref(&own)).unwrap();
        assert!(files.contains_key(&own));
        let names: Vec<_> = files.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        let loaders = names.iter().filter(|name| name.starts_with("ld-linux")).count();
        assert_eq!(loaders, 1, "{names:?}");
        assert_eq!(files[&own].mode(), 0o100_755);
        assert_eq!(closure("none", &[own]).unwrap(), files);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        for path in ["/no/such/program", "/no/such/*.so", "/etc/no-such-*"] {
            let error = closure("thing", &[path.into()]).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("Debian package thing"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let taken = closure("thing", &[script.display().to_string()]).unwrap();
        let expected = Inode::new(0o644, Kind::File("#!/bin/sh\n".into()));
        assert_eq!(taken.into_values().collect::<Vec<_>>(), [expected], "data comes alone");
        std::fs::write(&script, "\x7fELF and nothing more").unwrap();
        let error = closure("thing", &[script.display().to_string()]).unwrap_err();
        assert!(matches!(error, HostError::Elf { .. }), "{error:?}");
    }

    #[test]
    fn patterns_match_sorted_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libb.so", "liba.so", "lib.txt", "other.so"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let base = dir.path().display();
        let found = matching("p", &format!("{base}/lib*.so")).unwrap();
        assert_eq!(found, [format!("{base}/liba.so"), format!("{base}/libb.so")]);
    }

    #[test]
    fn packages_are_found_under_either_name_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("info/libx:amd64.list", "/.\n/usr/lib/libx.so.1\n");
        write("info/tool.list", "/bin/tool\n");
        write("info/other.list", "/bin/other\n");
        write(
            "status",
            "Package: libx\nVersion: 1:2-3\n\nPackage: tool\nVersion: 4\n\nPackage: other\nVersion: 5\n",
        );
        let found = packages_in(dir.path(), ["/lib/libx.so.1", "/bin/tool", "/nowhere"].into_iter());
        let expected = [("libx", "1:2-3"), ("tool", "4")];
        assert_eq!(found, expected.map(|(name, version)| (name.into(), version.into())).into());
        assert!(packages_in(&dir.path().join("none"), ["/bin/tool"].into_iter()).is_empty());
    }
}
