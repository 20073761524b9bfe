//! What VMMs and features need of a kernel: `requirement/<name>.toml`, one list each.
//!
//! Fragments say what a kernel asks for; these say what somebody outside relies on, whoever brings it in. Pure but for
//! reading the files. Promises that unknown keys, empty lists and options named twice are errors that name the file.
//! Must never ask kconfig for anything, and no list may be weakened to make a profile pass.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::arch::Arch;
use super::config::Config;
use super::data::{DataError, read};
use super::fragment::{self, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    arch: Option<Arch>,
    #[serde(default)]
    require: Vec<Group>,
}

/// Options that are required for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    options: Vec<String>,
    why: String,
}

/// One list of what is required of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Its name, such as `qemu-q35`.
    pub name: String,
    /// One sentence about who requires it.
    pub description: String,
    /// The processor whose kernels it is for; none for all.
    pub arch: Option<Arch>,
    /// The file, for messages.
    path: PathBuf,
    groups: Vec<Group>,
}

impl Requirement {
    /// Reads one list; `path` is its name in messages.
    ///
    /// # Errors
    /// When the text is not TOML of the expected shape, or does not say why or what.
    pub fn parse(path: &Path, text: &str) -> Result<Self, DataError> {
        let File { description, arch, require: groups } =
            toml::from_str(text).map_err(|source| DataError::toml(path, source))?;
        let wrong = |reason: String| DataError::Requirement { path: path.to_path_buf(), reason };
        if groups.is_empty() {
            return Err(wrong("it requires nothing; add a [[require]]".to_string()));
        }
        let mut seen = BTreeSet::new();
        for Group { options, why } in &groups {
            if options.is_empty() || why.trim().is_empty() {
                return Err(wrong("each [[require]] has options and says why".to_string()));
            }
            for option in options {
                if !fragment::is_symbol(option) {
                    return Err(wrong(format!("{option:?} is no option; write it as CONFIG_NAME")));
                }
                if !seen.insert(option) {
                    return Err(wrong(format!("{option} is required twice; drop one")));
                }
            }
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, description, arch, path: path.to_path_buf(), groups })
    }

    /// Reads every list below `dir`, the `kernel-config` directory, in order of name.
    ///
    /// # Errors
    /// The first file that cannot be read or is wrong.
    pub fn load_all(dir: &Path) -> Result<Vec<Self>, DataError> {
        let lists = dir.join("requirement");
        if !lists.is_dir() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&lists).map_err(DataError::read(&lists))? {
            let path = entry.map_err(DataError::read(&lists))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            }
        }
        files.sort();
        let parse = |path: PathBuf| Self::parse(path.strip_prefix(dir).unwrap_or(&path), &read(&path)?);
        files.into_iter().map(parse).collect()
    }

    /// How many options it requires.
    pub fn options(&self) -> usize {
        self.groups.iter().map(|group| group.options.len()).sum()
    }

    /// What a configuration lacks, in the list's order.
    pub fn missing(&self, config: &Config) -> Vec<Missing> {
        let pairs =
            self.groups.iter().flat_map(|group| group.options.iter().map(|option| (option, &group.why)));
        pairs
            .filter(|(option, _)| config.value(option) == Value::No)
            .map(|(option, why)| Missing {
                path: self.path.clone(),
                option: option.clone(),
                why: why.clone(),
            })
            .collect()
    }

    /// How a configuration stands to it; `promised` is what the profile says it meets.
    pub fn standing(&self, config: &Config, promised: &[String]) -> Standing {
        Standing {
            name: self.name.clone(),
            description: self.description.clone(),
            promised: promised.contains(&self.name),
            options: self.options(),
            missing: self.missing(config).into_iter().map(|missing| missing.option).collect(),
        }
    }
}

/// An option that somebody requires and a configuration does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The requirement's file.
    pub path: PathBuf,
    /// The option.
    pub option: String,
    /// What it is required for.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not set ({})", self.path.display(), self.option, self.why)
    }
}

/// How a configuration stands to a requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The requirement's name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// Whether the profile says that it is met.
    pub promised: bool,
    /// How many options are required.
    pub options: usize,
    /// Which of them are not set; none when it is met.
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Requirement, DataError> {
        Requirement::parse(Path::new("requirement/vmm.toml"), text)
    }

    #[test]
    fn what_is_missing_is_named_with_its_file_and_reason() {
        let list = parse(
            "description = 'd'\n[[require]]\noptions = ['CONFIG_A', 'CONFIG_B']\nwhy = 'boot'\n\
             [[require]]\noptions = ['CONFIG_C']\nwhy = 'disks'\n",
        )
        .unwrap();
        let config = Config::parse("CONFIG_A=y\n# CONFIG_B is not set\n");
        let missing: Vec<_> = list.missing(&config).iter().map(Missing::to_string).collect();
        assert_eq!(
            missing,
            [
                "requirement/vmm.toml: CONFIG_B is not set (boot)",
                "requirement/vmm.toml: CONFIG_C is not set (disks)"
            ]
        );
        let standing = list.standing(&config, &["vmm".to_string()]);
        assert_eq!((standing.name.as_str(), standing.options, standing.promised), ("vmm", 3, true));
        assert_eq!(standing.missing, ["CONFIG_B", "CONFIG_C"]);
        assert!(list.missing(&Config::parse("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=4\n")).is_empty());
    }

    #[test]
    fn a_list_that_says_too_little_or_something_else_is_refused_by_name() {
        for (text, fault) in [
            ("description = 'd'\n", "requires nothing"),
            ("description = 'd'\n[[require]]\noptions = []\nwhy = 'w'\n", "options and says why"),
            ("description = 'd'\n[[require]]\noptions = ['CONFIG_A']\nwhy = ' '\n", "options and says why"),
            ("description = 'd'\n[[require]]\noptions = ['PVH']\nwhy = 'w'\n", "\"PVH\" is no option"),
            ("description = 'd'\n[[require]]\noptions = ['CONFIG_A', 'CONFIG_A']\nwhy = 'w'\n", "twice"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("requirement/vmm.toml: ") && error.contains(fault), "{error}");
        }
        for text in [
            "description = 'd'\ncolour = 1\n",
            "description = 'd'\n[[require]]\noptions = ['CONFIG_A']\nwhy = 'w'\ncolour = 1\n",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("requirement/vmm.toml"), "{error}");
            assert!(format!("{error:?}").contains("colour"), "{error:?}");
        }
    }
}
