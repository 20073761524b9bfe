//! Programs and data of Debian packages, taken into a root file system, programs with the shared libraries they need.
//!
//! They are those of the build machine, or of a directory with packages for another processor. Owns the search for libraries and the question which Debian package a file came from. Promises that nothing is
//! executed, that a file keeps its path, that modes depend on the execute bit alone, and that the same files give the
//! same tree. Must never take in a library that nothing asks for, or a program of another processor.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fs_image::{Inode, Kind};

use crate::elf::{self, ElfError};
use crate::place::Place;
use store::arch::Arch;

/// In a path of a recipe: Debian's name for the processor in the names of its directories of libraries.
pub const MULTIARCH: &str = "{multiarch}";

/// Where Debian's loader looks for libraries, in its order. Before them, where the loader itself is: the C library asks for it by
/// name, and it must not come in twice.
fn libraries(arch: Arch) -> Vec<String> {
    let gnu = arch.gnu();
    let loader = match arch {
        Arch::X86_64 => "/lib64",
        Arch::Aarch64 => "/lib",
    };
    let mut directories = vec![loader.to_owned(), format!("/lib/{gnu}"), format!("/usr/lib/{gnu}")];
    directories.extend(["/lib", "/usr/lib"].into_iter().filter(|other| *other != loader).map(str::to_owned));
    directories
}

/// Why a program cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It is not there.
    #[error("there is no {path}; {hint}")]
    Missing {
        /// The file, or the pattern that matches none.
        path: PathBuf,
        /// What to do.
        hint: String,
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
    /// It is for another processor.
    #[error("{path} is for {}, not for {arch}; {hint}", .found.map_or("another processor".to_owned(), |found| found.to_string()))]
    OtherArch {
        /// The file.
        path: PathBuf,
        /// What it should be for.
        arch: Arch,
        /// What it is for, if that is known.
        found: Option<Arch>,
        /// What to do.
        hint: String,
    },
    /// A library is not where the loader looks.
    #[error("{path} needs {library}, which is in none of {}; {hint}", .directories.join(", "))]
    Library {
        /// Who needs it.
        path: String,
        /// Its name.
        library: String,
        /// Where it was looked for.
        directories: Vec<String>,
        /// What to do.
        hint: String,
    },
}

/// Files by their path, which is the same here and there.
pub type Files = BTreeMap<String, Inode>;

impl Place {
    /// Takes in files, whose last part may have one `*`, and all that they need to run.
    ///
    /// # Errors
    /// When something is missing or for another processor; the text says what to install.
    pub fn closure(&self, package: &str, files: &[String]) -> Result<Files, HostError> {
        let mut found = Files::new();
        let mut pending: Vec<String> = Vec::new();
        for pattern in files {
            let pattern = pattern.replace(MULTIARCH, self.arch().gnu());
            pending.extend(self.matching(package, &pattern)?);
        }
        while let Some(path) = pending.pop() {
            if found.contains_key(&path) {
                continue;
            }
            let read = |source| HostError::Read { path: self.shown(&path), source };
            let (content, meta) = self.read(&path).map_err(read)?;
            let damaged = |source| HostError::Elf { path: path.clone(), source };
            // Anything else is data, and needs nothing.
            if content.starts_with(b"\x7fELF") {
                let machine = Arch::of_elf_machine(elf::machine(&content).map_err(damaged)?);
                if machine != Some(self.arch()) {
                    let (path, arch, hint) = (self.shown(&path), self.arch(), self.hint(package));
                    return Err(HostError::OtherArch { path, arch, found: machine, hint });
                }
                pending.extend(elf::interpreter(&content).map_err(damaged)?);
                for library in elf::needed(&content).map_err(damaged)? {
                    let place = self.library(&library).ok_or_else(|| HostError::Library {
                        path: path.clone(),
                        library,
                        directories: libraries(self.arch()),
                        hint: self.hint(package),
                    })?;
                    pending.push(place);
                }
            }
            let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            found.insert(path, Inode::new(mode, Kind::File(content.into())));
        }
        Ok(found)
    }

    /// The files that a path or pattern names, sorted.
    fn matching(&self, package: &str, pattern: &str) -> Result<Vec<String>, HostError> {
        let missing = || HostError::Missing { path: self.shown(pattern), hint: self.hint(package) };
        let (directory, name) = pattern.rsplit_once('/').ok_or_else(missing)?;
        let Some((before, after)) = name.split_once('*') else {
            return if self.is_file(pattern) { Ok(vec![pattern.to_string()]) } else { Err(missing()) };
        };
        let names = self.names(directory).map_err(|_| missing())?.into_iter();
        let fits = |name: &String| {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        };
        let mut paths: Vec<_> = names.filter(fits).map(|name| format!("{directory}/{name}")).collect();
        paths.sort();
        if paths.is_empty() { Err(missing()) } else { Ok(paths) }
    }

    /// Where a library is. One for another processor is passed over, as the loader does.
    fn library(&self, name: &str) -> Option<String> {
        let is_ours = |path: &String| {
            let content = self.read(path).ok().map(|(content, _)| content);
            content.is_some_and(|content| elf::machine(&content) == Ok(self.arch().elf_machine()))
        };
        libraries(self.arch()).into_iter().map(|directory| format!("{directory}/{name}")).find(is_ours)
    }

    /// The Debian packages that files came from, with their versions, by name. A file that no package knows is passed over.
    pub fn packages<'a>(&self, paths: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
        // Packages of Debian 12 may call a file /lib/x or /usr/lib/x: the one directory is a link to the other.
        let plain = |path: &str| path.strip_prefix("/usr").unwrap_or(path).to_string();
        let wanted: BTreeSet<String> = paths.map(plain).collect();
        if wanted.is_empty() {
            return BTreeMap::new();
        }
        let dpkg = self.dpkg();
        let lists = std::fs::read_dir(dpkg.join("info")).into_iter().flatten().flatten();
        let owners: BTreeSet<String> = lists
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (package, arch) = match name.strip_suffix(".list")?.split_once(':') {
                    Some((package, arch)) => (package.to_string(), Some(arch.to_string())),
                    None => (name.strip_suffix(".list")?.to_string(), None),
                };
                let list = std::fs::read_to_string(entry.path()).ok()?;
                let is_ours = arch.is_none_or(|arch| arch == self.arch().debian());
                (is_ours && list.lines().any(|path| wanted.contains(&plain(path)))).then_some(package)
            })
            .collect();
        let status = std::fs::read_to_string(dpkg.join("status")).unwrap_or_default();
        let versions = status.split("\n\n").filter_map(|entry| {
            let field =
                |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let (package, version) = (field("Package")?, field("Version")?);
            let is_ours = self.has(field("Architecture"));
            (is_ours && owners.contains(package)).then(|| (package.to_string(), version.to_string()))
        });
        versions.collect()
    }

    /// Whether a package of an architecture belongs to it: a machine may have packages of several.
    pub(crate) fn has(&self, architecture: Option<&str>) -> bool {
        architecture.is_none_or(|name| name == "all" || name == self.arch().debian())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::foreign;

    /// The least that is a program for a processor: a header, and a table with no entries.
    fn program(arch: Arch) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&arch.elf_machine().to_le_bytes());
        file[54] = 56;
        file
    }

    #[test]
    fn programs_of_a_place_are_for_its_processor() {
        let dir = tempfile::tempdir().unwrap();
        let place = foreign(dir.path());
        let library = format!("usr/lib/{}", place.arch().gnu());
        std::fs::create_dir_all(dir.path().join(&library)).unwrap();
        let write = |name: &str, arch| {
            std::fs::write(dir.path().join(&library).join(name), program(arch)).unwrap();
        };
        write("ours.so", place.arch());
        write("other.so", Arch::host());
        let taken = place.closure("thing", &["/usr/lib/{multiarch}/ours.so".into()]).unwrap();
        assert_eq!(taken.into_keys().collect::<Vec<_>>(), [format!("/{library}/ours.so")]);
        let error = place.closure("thing", &["/usr/lib/{multiarch}/*.so".into()]).unwrap_err().to_string();
        let expected = format!("other.so is for {}, not for {}; unpack", Arch::host(), place.arch());
        assert!(error.contains(&expected), "{error}");
        assert_eq!(place.library("ours.so"), Some(format!("/{library}/ours.so")));
        assert_eq!(place.library("other.so"), None);
    }

    #[test]
    fn the_loader_is_where_its_processor_has_it() {
        assert_eq!(libraries(Arch::X86_64)[..2], ["/lib64", "/lib/x86_64-linux-gnu"]);
        assert_eq!(
            libraries(Arch::Aarch64),
            ["/lib", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
        );
    }

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        // Whatever this machine is, it has a dynamic program: this one.
        let own = std::env::current_exe().unwrap().display().to_string();
        let files = Place::machine().closure("none", std::slice::from_ref(&own)).unwrap();
        assert!(files.contains_key(&own));
        let names: Vec<_> = files.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        let loaders = names.iter().filter(|name| name.starts_with("ld-linux")).count();
        assert_eq!(loaders, 1, "{names:?}");
        assert_eq!(files[&own].mode(), 0o100_755);
        assert_eq!(Place::machine().closure("none", &[own]).unwrap(), files);
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        for path in ["/no/such/program", "/no/such/*.so", "/etc/no-such-*"] {
            let error = Place::machine().closure("thing", &[path.into()]).unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("Debian package thing"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let taken = Place::machine().closure("thing", &[script.display().to_string()]).unwrap();
        let expected = Inode::new(0o644, Kind::File("#!/bin/sh\n".into()));
        assert_eq!(taken.into_values().collect::<Vec<_>>(), [expected], "data comes alone");
        std::fs::write(&script, "\x7fELF and nothing more").unwrap();
        let error = Place::machine().closure("thing", &[script.display().to_string()]).unwrap_err();
        assert!(matches!(error, HostError::Elf { .. }), "{error:?}");
    }

    #[test]
    fn patterns_match_sorted_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libb.so", "liba.so", "lib.txt", "other.so"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let base = dir.path().display();
        let found = Place::machine().matching("p", &format!("{base}/lib*.so")).unwrap();
        assert_eq!(found, [format!("{base}/liba.so"), format!("{base}/libb.so")]);
    }

    #[test]
    fn packages_are_found_under_either_name_of_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let place = foreign(dir.path());
        let write = |name: &str, text: &str| {
            let path = place.dpkg().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(&format!("info/libx:{}.list", place.arch().debian()), "/.\n/usr/lib/libx.so.1\n");
        write("info/liby:riscv64.list", "/.\n/usr/lib/libx.so.1\n");
        write("info/tool.list", "/bin/tool\n");
        write("info/other.list", "/bin/other\n");
        write(
            "status",
            &format!(
                "Package: libx\nArchitecture: riscv64\nVersion: 9\n\nPackage: libx\nArchitecture: {}\nVersion: 1:2-3\n\n\
                 Package: tool\nArchitecture: all\nVersion: 4\n\nPackage: other\nVersion: 5\n\n\
                 Package: liby\nArchitecture: riscv64\nVersion: 6\n",
                place.arch().debian()
            ),
        );
        let found = place.packages(["/lib/libx.so.1", "/bin/tool", "/nowhere"].into_iter());
        let expected = [("libx", "1:2-3"), ("tool", "4")];
        assert_eq!(found, expected.map(|(name, version)| (name.into(), version.into())).into());
        assert!(foreign(&dir.path().join("none")).packages(["/bin/tool"].into_iter()).is_empty());
    }
}
