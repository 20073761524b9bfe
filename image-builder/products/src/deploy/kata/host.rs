//! What of Kata Containers a host has, and where.
//!
//! Owns the list of places. They are those of Kata's own releases, of kata-deploy and of distributions; the sources are
//! `src/runtime/Makefile`, `src/libs/kata-types/src/config/default.rs` and `tools/packaging/kata-deploy/binary` of Kata
//! Containers 3.30 and 4.1. Must never guess: what is not found is an error that says what to name.

use std::fs;
use std::path::{Path, PathBuf};

use super::base::{Base, KataVersion, Shim};
use super::hypervisor::Hypervisor;
use crate::deploy::{DeployError, Root};

/// Where releases and kata-deploy put Kata Containers, unless told otherwise.
pub(super) const KATA: &str = "/opt/kata";
/// The shim's program, by either name of a directory.
const PROGRAM: &str = "containerd-shim-kata-v2";

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The configuration that an installation is based on.
    pub base: Base,
    /// The shim's program. Not there when none was found.
    pub program: Option<PathBuf>,
    /// The version, if a file says it.
    pub version: Option<KataVersion>,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A configuration that was named.
    pub base: Option<PathBuf>,
    /// A shim that was named.
    pub shim: Option<Shim>,
    /// The shim's program, if it was named.
    pub program: Option<PathBuf>,
    /// A version that was named.
    pub version: Option<KataVersion>,
    /// The directory that stands for the host's root.
    pub host: Root,
}

impl Host {
    /// Looks for the configuration of this VMM.
    ///
    /// # Errors
    /// [`DeployError::NoBase`] when there is none, [`DeployError::BadBase`] when the one that was named is none,
    /// [`DeployError::Version`] for a version that is not known here.
    pub fn find(hypervisor: Hypervisor, wanted: &Wanted) -> Result<Self, DeployError> {
        let mut base = match &wanted.base {
            Some(path) => named(path, hypervisor, wanted.shim)?,
            None => search(hypervisor, wanted)?,
        };
        base.path = unstaged(&base.path, &wanted.host);
        let program = wanted.program.clone().or_else(|| program(base.shim, &base.path, &wanted.host));
        let version = match wanted.version {
            Some(version) => Some(version),
            None => version(&base.path, program.as_deref(), &wanted.host)?,
        };
        if let Some(version) = version.filter(|version| !(3..=4).contains(&version.major)) {
            return Err(DeployError::Version(format!(
                "Kata Containers {version} is not known here, only 3.x and 4.x are"
            )));
        }
        Ok(Self { base, program, version })
    }
}

fn named(path: &Path, hypervisor: Hypervisor, shim: Option<Shim>) -> Result<Base, DeployError> {
    let base = Base::read(path)?;
    let reason = if shim.is_some_and(|shim| shim != base.shim) {
        format!("it is of {}; drop --shim, or name another file", base.shim)
    } else if hypervisor.table(&base).is_none() {
        let tables = base.hypervisors().join(", ");
        format!("it is for {tables}, not for {hypervisor}; name another file, or another --hypervisor")
    } else {
        return Ok(base);
    };
    Err(DeployError::BadBase { path: path.to_path_buf(), reason })
}

fn search(hypervisor: Hypervisor, wanted: &Wanted) -> Result<Base, DeployError> {
    let mut places = Vec::new();
    let mut found: Vec<Base> = Vec::new();
    for shim in [Shim::Go, Shim::Rust].into_iter().filter(|shim| wanted.shim.is_none_or(|one| one == *shim)) {
        for path in candidates(hypervisor, shim) {
            let at = wanted.host.at(&path);
            if !at.exists() {
                places.push(format!("{}: not there", at.display()));
                continue;
            }
            match Base::read(&at) {
                Err(error) => places.push(error.to_string()),
                Ok(base) if base.shim != shim => {
                    places.push(format!("{}: of {}", at.display(), base.shim));
                }
                Ok(base) if hypervisor.table(&base).is_none() => {
                    places.push(format!("{}: for {}", at.display(), base.hypervisors().join(", ")));
                }
                Ok(mut base) => {
                    base.path = path;
                    found.push(base);
                    break;
                }
            }
        }
    }
    // A configuration whose shim is not installed is a leftover, unless no shim was found at all.
    let installed = |base: &Base| program(base.shim, &base.path, &wanted.host).is_some();
    if found.iter().any(installed) {
        found.retain(installed);
    }
    if found.len() > 1 {
        // kata-deploy's default is the Go shim up to 3.x, and runtime-rs since 4.0.
        let rust = KataVersion { major: 4, minor: 0 };
        let seen = wanted.version.or(version(&found[0].path, None, &wanted.host)?);
        let preferred = if seen.is_some_and(|seen| seen >= rust) { Shim::Rust } else { Shim::Go };
        found.retain(|base| base.shim == preferred);
    }
    let whose = wanted.shim.map_or(String::new(), |shim| format!(" and {shim}"));
    found.pop().ok_or_else(|| DeployError::NoBase { wanted: format!("{hypervisor}{whose}"), places })
}

/// Where a shim's configuration for a VMM may be, in the order in which an administrator would expect it.
fn candidates(hypervisor: Hypervisor, shim: Shim) -> Vec<PathBuf> {
    let below = match shim {
        Shim::Go => "",
        Shim::Rust => "runtime-rs/",
    };
    let names = hypervisor.file_names(shim);
    let mut paths = vec![format!("/etc/kata-containers/{below}configuration.toml")];
    paths.extend(names.iter().map(|name| format!("/etc/kata-containers/{below}configuration-{name}.toml")));
    for share in ["/opt/kata/share", "/usr/share"] {
        let defaults = format!("{share}/defaults/kata-containers/{below}");
        // kata-deploy has one directory per shim, and links in the place where the files were.
        paths.extend(names.iter().map(|name| format!("{defaults}runtimes/{name}/configuration-{name}.toml")));
        paths.push(format!("{defaults}configuration.toml"));
        paths.extend(names.iter().map(|name| format!("{defaults}configuration-{name}.toml")));
    }
    paths.into_iter().map(PathBuf::from).collect()
}

/// The directory that Kata Containers is installed in, if the configuration lies in it.
fn prefix_of(base: &Path) -> Option<PathBuf> {
    let text = base.to_str()?;
    let (prefix, _) = text.split_once("/share/defaults/kata-containers/")?;
    Some(prefix.into())
}

/// The shim's program, if it is there.
fn program(shim: Shim, base: &Path, host: &Root) -> Option<PathBuf> {
    let directory = match shim {
        Shim::Go => "bin",
        Shim::Rust => "runtime-rs/bin",
    };
    let beside = prefix_of(base).map(|prefix| prefix.join(directory));
    let usual = match shim {
        Shim::Go => ["/opt/kata/bin", "/usr/local/bin", "/usr/bin"],
        Shim::Rust => ["/opt/kata/runtime-rs/bin", "/usr/local/bin", "/usr/bin"],
    };
    let places = beside.into_iter().chain(usual.map(PathBuf::from));
    places.map(|directory| directory.join(PROGRAM)).find(|path| host.at(path).is_file())
}

/// A path of the host without the directory that stands for its root.
fn unstaged(path: &Path, host: &Root) -> PathBuf {
    path.strip_prefix(host.at(Path::new("/"))).map_or(path.to_path_buf(), |path| Path::new("/").join(path))
}

/// Where the program is by all experience, when it was not found.
pub(super) fn usual_program(shim: Shim) -> PathBuf {
    let directory = match shim {
        Shim::Go => "bin",
        Shim::Rust => "runtime-rs/bin",
    };
    Path::new(KATA).join(directory).join(PROGRAM)
}

/// The version that the file `VERSION` of a release says. kata-deploy does not always bring it.
fn version(base: &Path, program: Option<&Path>, host: &Root) -> Result<Option<KataVersion>, DeployError> {
    let of_program = program.and_then(|program| {
        let directory = program.parent()?.parent()?;
        let outer = if directory.ends_with("runtime-rs") { directory.parent()? } else { directory };
        Some(outer.to_path_buf())
    });
    let places = prefix_of(base).into_iter().chain(of_program);
    for path in places.map(|place| host.at(&place.join("VERSION"))) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_file() || metadata.len() > 100 {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(DeployError::io("read", &path))?;
        let parsed = text
            .parse()
            .map_err(|reason: String| DeployError::Version(format!("{} says {reason}", path.display())))?;
        return Ok(Some(parsed));
    }
    Ok(None)
}
