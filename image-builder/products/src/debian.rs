//! Whole Debian packages of a place, with the packages that they depend on.
//!
//! Owns the reading of dpkg's database. Promises that nothing is executed, that everything belongs to root, and that the same
//! installed files give the same tree. Must never follow a path out of what a package lists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use fs_image::{Inode, Kind, Tree, TreeError};

use crate::place::Place;

/// Packages that only the scripts of other packages use. No script runs here, so they are never needed.
const FOR_SCRIPTS: [&str; 6] =
    ["debconf", "dpkg", "init-system-helpers", "install-info", "sensible-utils", "ucf"];

/// Directories that only people read. They are left out.
const DOCUMENTS: [&str; 8] = [
    "/usr/share/bug",
    "/usr/share/doc",
    "/usr/share/doc-base",
    "/usr/share/info",
    "/usr/share/lintian",
    "/usr/share/locale",
    "/usr/share/man",
    "/usr/share/menu",
];

/// Why a package cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The machine is no Debian.
    #[error("cannot read {path}; packages are taken from a Debian machine on which they are installed")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The package is not there.
    #[error("there is no Debian package {package} here; {hint}")]
    NotInstalled {
        /// The package.
        package: String,
        /// What to do.
        hint: String,
    },
    /// No package that would do is there.
    #[error("{package} depends on {wanted}, which is not there; {hint}, or name it in `without`")]
    Dependency {
        /// Who depends on it.
        package: String,
        /// What it depends on.
        wanted: String,
        /// What to do.
        hint: String,
    },
    /// What is to be left out is no part of it.
    #[error("{package} does not depend on {without}, which `without` leaves out; remove it there")]
    Without {
        /// The package.
        package: String,
        /// What was named.
        without: String,
    },
    /// A file of it is not there or cannot be read.
    #[error(
        "cannot read {path} of the Debian package {package}; reinstall the package, or check permissions"
    )]
    Read {
        /// The file.
        path: String,
        /// Its package.
        package: String,
        /// Why.
        source: io::Error,
    },
    /// A file of it is a device, a socket or the like.
    #[error("{path} of the Debian package {package} is no file, directory or symbolic link")]
    Kind {
        /// The file.
        path: String,
        /// Its package.
        package: String,
    },
    /// Two packages have different things at one place.
    #[error("cannot put {path} of the Debian package {package} into the tree")]
    Tree {
        /// The file.
        path: String,
        /// Its package.
        package: String,
        /// Why.
        source: TreeError,
    },
}

/// An installed package.
#[derive(Debug, Clone, Default)]
struct Installed {
    version: String,
    /// What it depends on, each with its alternatives.
    depends: Vec<Vec<String>>,
}

/// What is installed, by dpkg's database.
#[derive(Debug)]
pub(crate) struct Database {
    place: Place,
    installed: BTreeMap<String, Installed>,
    /// Packages by the names that they provide.
    provided: HashMap<String, String>,
}

impl Database {
    /// Reads the database of a place.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(place: &Place) -> Result<Self, DebianError> {
        let path = place.dpkg().join("status");
        let status = std::fs::read_to_string(&path)
            .map_err(|source| DebianError::Database { path: path.clone(), source })?;
        let (mut installed, mut provided) = (BTreeMap::new(), HashMap::new());
        for entry in status.split("\n\n") {
            let field =
                |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let is_installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
            let is_ours = is_installed && place.has(field("Architecture"));
            let (Some(name), Some(version), true) = (field("Package"), field("Version"), is_ours) else {
                continue;
            };
            for other in field("Provides").unwrap_or_default().split(',').filter_map(plain) {
                provided.entry(other.to_owned()).or_insert_with(|| name.to_owned());
            }
            let depends = ["Pre-Depends", "Depends"].iter().filter_map(|name| field(name));
            let depends = depends.flat_map(|list| list.split(','));
            let alternatives =
                |wanted: &str| wanted.split('|').filter_map(plain).map(str::to_owned).collect();
            let depends = depends.map(alternatives).filter(|list: &Vec<_>| !list.is_empty()).collect();
            installed.insert(name.to_owned(), Installed { version: version.to_owned(), depends });
        }
        Ok(Self { place: place.clone(), installed, provided })
    }

    /// The package called `name` and all that it depends on, with their versions, without those that are left out.
    ///
    /// # Errors
    /// When one is not installed, or a package to leave out is not among them.
    pub(crate) fn closure(
        &self,
        name: &str,
        without: &[String],
    ) -> Result<BTreeMap<String, String>, DebianError> {
        let mut found = BTreeMap::new();
        let mut unused: BTreeSet<&str> = without.iter().map(String::as_str).collect();
        let mut pending = vec![name.to_owned()];
        while let Some(name) = pending.pop() {
            if found.contains_key(&name) {
                continue;
            }
            let package = self.installed.get(&name).ok_or_else(|| DebianError::NotInstalled {
                package: name.clone(),
                hint: self.place.hint(&name),
            })?;
            for alternatives in &package.depends {
                let left_out = alternatives.iter().find(|other| without.contains(other));
                if let Some(other) = left_out {
                    unused.remove(other.as_str());
                    continue;
                }
                if alternatives.iter().any(|other| FOR_SCRIPTS.contains(&other.as_str())) {
                    continue;
                }
                let installed = |other: &String| {
                    let known = self.installed.contains_key(other).then_some(other);
                    known.or_else(|| self.provided.get(other)).cloned()
                };
                let next = alternatives.iter().find_map(installed).ok_or_else(|| {
                    let (wanted, hint) = (alternatives.join(" or "), self.place.hint(&alternatives[0]));
                    DebianError::Dependency { package: name.clone(), wanted, hint }
                })?;
                // It may be left out under the name that it has, where it is wanted by one that it provides.
                if without.contains(&next) {
                    unused.remove(next.as_str());
                } else {
                    pending.push(next);
                }
            }
            found.insert(name, package.version.clone());
        }
        match unused.first() {
            Some(other) => {
                Err(DebianError::Without { package: name.to_owned(), without: (*other).to_owned() })
            }
            None => Ok(found),
        }
    }

    /// The files of packages as a tree, without documents and translations.
    ///
    /// # Errors
    /// When a file is not there, or cannot be in a tree.
    pub(crate) fn tree<'a>(&self, packages: impl Iterator<Item = &'a str>) -> Result<Tree, DebianError> {
        let mut files: BTreeMap<String, &str> = BTreeMap::new();
        for package in packages {
            for path in self.files(package)? {
                if !is_document(&path) {
                    files.entry(path).or_insert(package);
                }
            }
        }
        let mut tree = Tree::new();
        for (path, package) in &files {
            let failed =
                |source| DebianError::Read { path: path.clone(), package: (*package).to_owned(), source };
            // What has files below it is a directory here, though it be a link on this machine, as /lib is.
            let below = format!("{path}/");
            let is_parent =
                files.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
            let meta = match is_parent {
                true => self.place.metadata(path),
                false => std::fs::symlink_metadata(self.place.shown(path)),
            };
            let meta = meta.map_err(failed)?;
            let kind = if meta.is_dir() {
                Kind::directory()
            } else if meta.is_symlink() {
                Kind::Symlink(
                    std::fs::read_link(self.place.shown(path))
                        .map_err(failed)?
                        .as_os_str()
                        .as_bytes()
                        .to_vec(),
                )
            } else if meta.is_file() {
                Kind::File(self.place.read(path).map_err(failed)?.0.into())
            } else {
                return Err(DebianError::Kind { path: path.clone(), package: (*package).to_owned() });
            };
            let placed = tree.insert(path, Inode::new(mode(&meta), kind));
            placed.map_err(|source| DebianError::Tree {
                path: path.clone(),
                package: (*package).to_owned(),
                source,
            })?;
        }
        Ok(tree)
    }

    /// The paths that a package has, by dpkg.
    fn files(&self, package: &str) -> Result<Vec<String>, DebianError> {
        let info = self.place.dpkg().join("info");
        // Packages that may be installed for several processors have the processor in the name.
        let names = [format!("{package}.list"), format!("{package}:{}.list", self.place.arch().debian())];
        let path = names.iter().map(|name| info.join(name)).find(|path| path.is_file());
        let path = path.unwrap_or_else(|| info.join(&names[0]));
        let list = std::fs::read_to_string(&path).map_err(|source| DebianError::Database { path, source })?;
        Ok(list.lines().filter(|line| line.len() > 1 && *line != "/.").map(str::to_owned).collect())
    }
}

/// Permission bits. The owner here is root: a set-id bit for anybody else would give root's rights instead of his.
fn mode(meta: &std::fs::Metadata) -> u16 {
    if meta.is_symlink() {
        return 0o777;
    }
    let is_roots = meta.uid() == 0 && meta.gid() == 0;
    let bits = meta.permissions().mode() & if is_roots || meta.is_dir() { 0o7777 } else { 0o1777 };
    // Twelve bits fit.
    bits as u16
}

fn is_document(path: &str) -> bool {
    DOCUMENTS.iter().any(|directory| {
        path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The name in `name:any (>= 1)`.
fn plain(wanted: &str) -> Option<&str> {
    let name = wanted.trim().split([' ', ':', '(']).next()?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::place::tests::foreign;

    const STATUS: &str = "\
Package: tool
Status: install ok installed
Version: 1.2-3
Depends: libtool (>= 1), debconf (>= 0.5) | debconf-2.0, editor | vim

Package: libtool
Status: install ok installed
Version: 4
Pre-Depends: libbase:any (>= 2)

Package: libbase
Status: install ok installed
Version: 5

Package: vim
Status: install ok installed
Version: 6
Provides: editor (= 1)

Package: gone
Status: deinstall ok config-files
Version: 7
";

    fn database(dir: &Path, status: &str) -> Database {
        let place = foreign(dir);
        std::fs::create_dir_all(place.dpkg().join("info")).unwrap();
        std::fs::write(place.dpkg().join("status"), status).unwrap();
        Database::read(&place).unwrap()
    }

    fn names(found: &BTreeMap<String, String>) -> Vec<&str> {
        found.keys().map(String::as_str).collect()
    }

    #[test]
    fn packages_of_other_processors_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let ours = foreign(dir.path()).arch().debian();
        let status = format!(
            "Package: tool\nStatus: install ok installed\nArchitecture: riscv64\nVersion: 1\n\n\
             Package: tool\nStatus: install ok installed\nArchitecture: {ours}\nVersion: 2\n\n\
             Package: data\nStatus: install ok installed\nArchitecture: all\nVersion: 3\n\n\
             Package: other\nStatus: install ok installed\nArchitecture: riscv64\nVersion: 4\n"
        );
        let database = database(dir.path(), &status);
        assert_eq!(database.closure("tool", &[]).unwrap()["tool"], "2");
        assert_eq!(database.closure("data", &[]).unwrap()["data"], "3");
        assert!(database.closure("other", &[]).is_err());
    }

    #[test]
    fn a_package_comes_with_what_it_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(dir.path(), STATUS);
        let found = database.closure("tool", &[]).unwrap();
        assert_eq!(names(&found), ["libbase", "libtool", "tool", "vim"]);
        assert_eq!((found["tool"].as_str(), found["libbase"].as_str()), ("1.2-3", "5"));
        for without in ["editor", "vim"] {
            assert_eq!(
                names(&database.closure("tool", &[without.into()]).unwrap()),
                ["libbase", "libtool", "tool"]
            );
        }
        assert_eq!(names(&database.closure("tool", &["libtool".into()]).unwrap()), ["tool", "vim"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(dir.path(), &STATUS.replace("Package: libbase", "Package: x"));
        let error = database.closure("tool", &[]).unwrap_err().to_string();
        assert!(error.starts_with("libtool depends on libbase, which is not there; unpack"), "{error}");
        assert!(error.contains("the Debian package libbase"), "{error}");
        for name in ["gone", "nothing"] {
            let error = database.closure(name, &[]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("there is no Debian package {name} here; unpack")), "{error}");
        }
        let error = database.closure("vim", &["libtool".into()]).unwrap_err().to_string();
        assert_eq!(error, "vim does not depend on libtool, which `without` leaves out; remove it there");
        let error = Database::read(&foreign(&dir.path().join("none"))).unwrap_err().to_string();
        assert!(error.contains("none/var/lib/dpkg/status") && error.contains("Debian machine"), "{error}");
    }

    #[test]
    fn files_links_and_directories_come_in_and_documents_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path();
        std::fs::create_dir_all(files.join("usr/lib/deep")).unwrap();
        std::fs::write(files.join("usr/lib/deep/data"), "data").unwrap();
        std::fs::set_permissions(files.join("usr/lib/deep/data"), std::fs::Permissions::from_mode(0o640))
            .unwrap();
        std::os::unix::fs::symlink("usr/lib", files.join("lib")).unwrap();
        std::os::unix::fs::symlink("deep", files.join("usr/lib/link")).unwrap();
        let database = database(dir.path(), STATUS);
        let list = "/.\n/lib\n/lib/deep\n/lib/deep/data\n/lib/link\n\
                    /usr/share/doc/tool/copyright\n/usr/share/locale\n";
        let place = foreign(dir.path());
        let named = place.dpkg().join(format!("info/tool:{}.list", place.arch().debian()));
        std::fs::write(&named, list).unwrap();
        let tree = database.tree(std::iter::once("tool")).unwrap();
        let get = |path: &str| tree.get(path).unwrap();
        assert!(get("/lib").kind.is_directory() && get("/lib/deep").kind.is_directory());
        assert_eq!(get("/lib/deep/data"), &Inode::new(0o640, Kind::File("data".into())));
        assert_eq!(get("/lib/link").kind, Kind::Symlink(b"deep".to_vec()));
        assert_eq!(tree.get("/usr/share"), None);

        std::fs::write(&named, "/nothing\n").unwrap();
        let error = database.tree(std::iter::once("tool")).unwrap_err().to_string();
        assert!(error.contains("/nothing of the Debian package tool; reinstall"), "{error}");
        assert!(database.tree(std::iter::once("vim")).is_err());
    }
}
