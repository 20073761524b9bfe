//! Recipes of root file systems: `rootfs/flavour/<name>.toml`.
//!
//! ```toml
//! description = "…"
//! extends = "minimal"                 # all that this flavour has, too
//! overlays = ["name"]                 # rootfs/overlay/<name>, in this order, over everything else
//! [budget]
//! compressed = 2_500_000              # bytes of the packed initrd, in zstd
//! disk = 7_000_000                    # bytes of a disk's root file system; optional
//! [agent]
//! features = ["policy"]               # cargo features that this flavour's agent is built with
//! [[directory]]
//! path = "/tmp"
//! mode = "1777"
//! [[file]]
//! path = "/init"
//! mode = "0755"
//! product = "agent"                   # or: text = "…"
//! [[symlink]]
//! path = "/bin/sh"
//! target = "busybox"
//! [[symlinks]]                        # many with one target
//! directory = "/bin"
//! target = "busybox"
//! names = ["ls", "cat"]
//! [[host]]                            # programs of this machine, with the libraries they need
//! package = "busybox-static"          # the Debian package that has them
//! files = ["/bin/busybox"]            # one `*` in the last part matches names
//! [[device]]
//! path = "/dev/console"
//! kind = "character"
//! major = 5
//! minor = 1
//! mode = "0600"
//! ```
//!
//! Promises that a key nobody knows is an error that names it. Must never read anything but recipes and what they
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::Digest;
use crate::host::{self, HostError};
use crate::layout::Layout;
use crate::tree::{Kind, Node, Tree, TreeError, TreePath};

/// What is wrong with a recipe or with what it names.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// There is no such flavour.
    #[error("there is no flavour {name:?}; there are: {known}")]
    NoFlavour {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}; {hint}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The recipe is not TOML of the expected shape.
    #[error("{path} is not understood")]
    Toml {
        /// The recipe.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A file has no content, or two.
    #[error("{recipe}: {path} needs exactly one of `product` and `text`")]
    Content {
        /// The recipe.
        recipe: PathBuf,
        /// The file in it.
        path: String,
    },
    /// A program of this machine cannot be taken in.
    #[error("{recipe}: a program is missing")]
    Host {
        /// The recipe.
        recipe: PathBuf,
        /// Which, and what to do.
        source: HostError,
    },
    /// Flavours extend each other in a circle, or a chain that nobody can follow.
    #[error("{0}: `extends` leads through more than {DEPTH} flavours")]
    Depth(PathBuf),
    /// An entry cannot be in a tree.
    #[error("{recipe}: an entry is wrong")]
    Tree {
        /// The recipe.
        recipe: PathBuf,
        /// Which and why.
        source: TreeError,
    },
}

/// How many flavours may extend each other.
const DEPTH: usize = 4;

/// A parsed recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    path: PathBuf,
    digest: Digest,
    file: File,
    /// What it extends.
    base: Option<Box<Recipe>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    description: String,
    extends: Option<String>,
    #[serde(default)]
    overlays: Vec<String>,
    budget: Budget,
    #[serde(default)]
    agent: Agent,
    #[serde(default)]
    directory: Vec<Directory>,
    #[serde(default)]
    file: Vec<Regular>,
    #[serde(default)]
    symlink: Vec<Symlink>,
    #[serde(default)]
    symlinks: Vec<Symlinks>,
    #[serde(default)]
    host: Vec<Host>,
    #[serde(default)]
    device: Vec<Device>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    compressed: u64,
    disk: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    features: BTreeSet<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: String,
    mode: Mode,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Regular {
    path: String,
    mode: Mode,
    product: Option<ProductName>,
    text: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symlink {
    path: String,
    target: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symlinks {
    directory: String,
    target: String,
    names: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    package: String,
    files: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    path: String,
    kind: DeviceKind,
    major: u32,
    minor: u32,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DeviceKind {
    Character,
    Block,
}

/// A file that an earlier step put into the product directory.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProductName {
    Agent,
}

/// Permission bits, written in octal as text.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Mode(u32);

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        let mode = u32::from_str_radix(&text, 8).ok().filter(|_| octal);
        mode.map(Self).ok_or_else(|| format!("{text:?} is no mode: three or four octal digits are expected"))
    }
}

impl Recipe {
    /// Reads the flavour called `name`.
    ///
    /// # Errors
    /// When it does not exist or is not understood.
    pub fn load(layout: &Layout, name: &str) -> Result<Self, RecipeError> {
        Self::load_within(layout, name, DEPTH)
    }

    fn load_within(layout: &Layout, name: &str, depth: usize) -> Result<Self, RecipeError> {
        let path = layout.flavour(name);
        if name.is_empty() || name.contains(['/', '.']) || !path.is_file() {
            return Err(RecipeError::NoFlavour { name: name.to_string(), known: known(layout).join(", ") });
        }
        let hint = "check its permissions";
        let text = std::fs::read_to_string(&path).map_err(|source| RecipeError::Read {
            path: path.clone(),
            hint,
            source,
        })?;
        let shown = path.strip_prefix(layout.root()).unwrap_or(&path).to_path_buf();
        let mut recipe = Self::parse(name, shown, &text)?;
        if let Some(base) = &recipe.file.extends {
            let depth = depth.checked_sub(1).ok_or_else(|| RecipeError::Depth(recipe.path.clone()))?;
            let base = Self::load_within(layout, base, depth)?;
            // The whole of what was read, whichever file a change is in.
            recipe.digest = Digest::of(format!("{} {}", base.digest, recipe.digest).as_bytes());
            recipe.base = Some(Box::new(base));
        }
        Ok(recipe)
    }

    fn parse(name: &str, path: PathBuf, text: &str) -> Result<Self, RecipeError> {
        let file: File = toml::from_str(text)
            .map_err(|source| RecipeError::Toml { path: path.clone(), source: Box::new(source) })?;
        for Regular { path: entry, product, text, .. } in &file.file {
            if product.is_some() == text.is_some() {
                return Err(RecipeError::Content { recipe: path, path: entry.clone() });
            }
        }
        Ok(Self { name: name.to_string(), path, digest: Digest::of(text.as_bytes()), file, base: None })
    }

    /// The flavour's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One sentence about the flavour.
    pub fn description(&self) -> &str {
        &self.file.description
    }

    /// The digest of the recipe's text, and of the recipes it extends.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes the packed image may have.
    pub fn budget(&self) -> u64 {
        self.file.budget.compressed
    }

    /// How many bytes the file system of a disk may have, if there is a bound.
    pub fn disk_budget(&self) -> Option<u64> {
        self.file.budget.disk
    }

    /// The cargo features that the agent is built with: the recipe's own, and of what it extends.
    pub fn features(&self) -> BTreeSet<String> {
        let mut features = self.base.as_ref().map(|base| base.features()).unwrap_or_default();
        features.extend(self.file.agent.features.iter().cloned());
        features
    }

    /// Makes the tree: what the recipe extends, the recipe's own entries, then the overlays over them.
    ///
    /// # Errors
    /// When a product or overlay is missing, or entries contradict each other.
    pub fn tree(&self, layout: &Layout) -> Result<Tree, RecipeError> {
        self.tree_with(layout, &layout.agent_with(&self.features()))
    }

    fn tree_with(&self, layout: &Layout, agent: &Path) -> Result<Tree, RecipeError> {
        let mut tree = match &self.base {
            Some(base) => base.tree_with(layout, agent)?,
            None => Tree::default(),
        };
        let mut add = |path: &str, node| {
            TreePath::parse(path).and_then(|path| tree.insert(path, node)).map_err(|error| self.error(error))
        };
        for Directory { path, mode } in &self.file.directory {
            add(path, Node::new(mode.0, Kind::Directory))?;
        }
        for Regular { path, mode, product, text } in &self.file.file {
            let content = match (product, text) {
                (Some(ProductName::Agent), _) => {
                    let hint = "build it first: image-builder agent";
                    std::fs::read(agent).map_err(|source| RecipeError::Read {
                        path: agent.to_path_buf(),
                        hint,
                        source,
                    })?
                }
                (None, text) => text.clone().unwrap_or_default().into_bytes(),
            };
            add(path, Node::new(mode.0, Kind::File(content)))?;
        }
        for Symlink { path, target } in &self.file.symlink {
            add(path, Node::new(0o777, Kind::Symlink(target.clone())))?;
        }
        for Symlinks { directory, target, names } in &self.file.symlinks {
            for name in names {
                add(&format!("{directory}/{name}"), Node::new(0o777, Kind::Symlink(target.clone())))?;
            }
        }
        for &Device { ref path, kind, major, minor, mode } in &self.file.device {
            let kind = match kind {
                DeviceKind::Character => Kind::Character { major, minor },
                DeviceKind::Block => Kind::Block { major, minor },
            };
            add(path, Node::new(mode.0, kind))?;
        }
        for (path, node) in self.host_files()? {
            add(&path, node)?;
        }
        for name in &self.file.overlays {
            let dir = layout.rootfs().join("overlay").join(name);
            tree.overlay(&dir).map_err(|error| self.error(error))?;
        }
        Ok(tree)
    }

    /// The programs of this machine that the recipe names, with what they need. Two may need the same library.
    fn host_files(&self) -> Result<host::Files, RecipeError> {
        let mut files = host::Files::new();
        for Host { package, files: wanted } in &self.file.host {
            let closure = host::closure(package, wanted);
            files.extend(closure.map_err(|source| RecipeError::Host { recipe: self.path.clone(), source })?);
        }
        Ok(files)
    }

    /// The Debian packages that parts of the tree came from, with their versions, by name.
    ///
    /// # Errors
    /// As [`Recipe::tree`].
    pub fn packages(&self) -> Result<BTreeMap<String, String>, RecipeError> {
        let mut packages = match &self.base {
            Some(base) => base.packages()?,
            None => BTreeMap::new(),
        };
        packages.extend(host::packages(self.host_files()?.keys().map(String::as_str)));
        Ok(packages)
    }

    fn error(&self, source: TreeError) -> RecipeError {
        RecipeError::Tree { recipe: self.path.clone(), source }
    }
}

/// The names of all flavours, sorted.
pub fn known(layout: &Layout) -> Vec<String> {
    let dir = layout.rootfs().join("flavour");
    let Ok(entries) = std::fs::read_dir(Path::new(&dir)) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_string()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
#[path = "recipe_test.rs"]
mod tests;
