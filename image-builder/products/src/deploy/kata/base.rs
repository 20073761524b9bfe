//! A configuration of Kata Containers, read: whose it is, and what it says.
//!
//! Promises that nothing becomes the base of an installation that is not such a configuration, and that the host's own drop-ins
//! are read as the shims read them (`config.d` beside the file itself, not beside a link to it). Must never write.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::deploy::DeployError;

/// No configuration and no drop-in is larger, in bytes.
const LIMIT: u64 = 1 << 20;

/// Every name that some version of Kata Containers has for a VMM.
const HYPERVISORS: [&str; 10] = [
    "acrn",
    "clh",
    "cloud-hypervisor",
    "dragonball",
    "firecracker",
    "openvmm",
    "qemu",
    "remote",
    "stratovirt",
    "virtfw",
];

/// Which of Kata's two shims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shim {
    /// The one written in Go: `src/runtime` of Kata Containers.
    Go,
    /// The one written in Rust: `src/runtime-rs`.
    #[value(alias = "runtime-rs")]
    Rust,
}

impl fmt::Display for Shim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Go => "the Go shim",
            Self::Rust => "runtime-rs",
        })
    }
}

/// A version of Kata Containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KataVersion {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl fmt::Display for KataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for KataVersion {
    type Err = String;

    /// Understands `4.1`, `4.1.0` and `3.30.0-rc0`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{:?} is no version of Kata Containers, such as 4.1.0", text.trim());
        let mut numbers = text.trim().split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().map_err(|_| wrong())
        });
        let mut next = || numbers.next().unwrap_or_else(|| Err(wrong()));
        Ok(Self { major: next()?, minor: next()? })
    }
}

/// A file of the host's `config.d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropIn {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A configuration, and the drop-ins that go with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Where it was found.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The drop-ins beside it, in the order in which they count.
    pub drop_ins: Vec<DropIn>,
    /// All of it together.
    pub merged: Table,
    /// Whose configuration it is.
    pub shim: Shim,
}

impl Base {
    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// [`DeployError::BadBase`] when it is no regular file, no TOML, or no configuration of Kata Containers.
    pub fn read(path: &Path) -> Result<Self, DeployError> {
        let text = text_of(path)?;
        let mut merged = parse(path, &text)?;
        let hypervisors = merged.get("hypervisor").and_then(Value::as_table);
        let known = hypervisors.is_some_and(|table| {
            !table.is_empty()
                && table.iter().all(|(name, value)| HYPERVISORS.contains(&name.as_str()) && value.is_table())
        });
        if !known {
            return Err(bad(
                path,
                "it is TOML, but no configuration of Kata Containers: it has no table such as [hypervisor.qemu]",
            ));
        }
        let real = path.canonicalize().map_err(DeployError::io("find", path))?;
        let drop_ins = drop_ins(&real.with_file_name("config.d"))?;
        for DropIn { name, text } in &drop_ins {
            merge(&mut merged, parse(&real.with_file_name("config.d").join(name), text)?);
        }
        let shim = shim_of(&merged);
        Ok(Self { path: path.to_path_buf(), text, drop_ins, merged, shim })
    }

    /// The names of the tables for VMMs.
    pub fn hypervisors(&self) -> Vec<&str> {
        let table = self.merged.get("hypervisor").and_then(Value::as_table);
        table.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }

    /// The table for one VMM.
    pub fn hypervisor(&self, name: &str) -> Option<&Table> {
        self.merged.get("hypervisor")?.get(name)?.as_table()
    }

    /// The VMM that runtime-rs is told to start.
    pub fn hypervisor_name(&self) -> Option<&str> {
        self.merged.get("runtime")?.get("hypervisor_name")?.as_str()
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> DeployError {
    DeployError::BadBase { path: path.to_path_buf(), reason: reason.into() }
}

fn text_of(path: &Path) -> Result<String, DeployError> {
    let metadata = fs::metadata(path).map_err(DeployError::io("read", path))?;
    if !metadata.is_file() || metadata.len() > LIMIT {
        return Err(bad(path, "it is no regular file of at most 1 MiB"));
    }
    let bytes = fs::read(path).map_err(DeployError::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| bad(path, "it is no TOML: it is not even UTF-8"))
}

fn parse(path: &Path, text: &str) -> Result<Table, DeployError> {
    text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        bad(path, format!("it is no TOML: line {line}: {}", error.message()))
    })
}

/// The files of a `config.d`, by name. Both shims refuse a directory in it, and so does this.
fn drop_ins(directory: &Path) -> Result<Vec<DropIn>, DeployError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DeployError::io("list", directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DeployError::io("list", directory))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(bad(&path, "its name is not UTF-8"));
        };
        found.push(DropIn { name, text: text_of(&path)? });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Lays one table over another, as both shims do: tables are merged, everything else is replaced.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Only runtime-rs is told by its configuration which VMM and which agent it is to use.
fn shim_of(merged: &Table) -> Shim {
    let runtime = merged.get("runtime").and_then(Value::as_table);
    let rust = runtime.is_some_and(|table| {
        ["hypervisor_name", "agent_name"].iter().any(|key| table.contains_key(*key))
            || table.get("name").and_then(Value::as_str) == Some("virt_container")
    });
    if rust { Shim::Rust } else { Shim::Go }
}
