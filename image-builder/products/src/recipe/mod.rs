//! Recipes of root file systems: `rootfs/flavour/<name>.toml`, or a file anywhere.
//!
//! `docs/recipes.md` has every key; a test compares it with the types in [`file`].
//!
//! Promises that a key nobody knows is an error that names it. Must never read anything but recipes and what they
//! name.

mod error;
mod file;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fs_image::{Inode, Kind, Tree, TreeError};
use toml::Spanned;

use crate::debian::Database;
use crate::elf;
use crate::host::Files;
use crate::place::Place;
use error::DEPTH;
pub use error::RecipeError;
use file::{
    Device, DeviceKind, Directory, File, Host, Image, Package, ProductName, Regular, Symlink, Symlinks,
};
use images::image;
use store::arch::Arch;
use store::digest::Digest;
use store::layout::Layout;
use users::{Owner, User};

/// Which recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A flavour of the source tree, by its name.
    Flavour(String),
    /// A file anywhere. Its name without `.toml` is that of the products.
    File(PathBuf),
}

impl Choice {
    /// The name that products have.
    pub fn name(&self) -> String {
        match self {
            Self::Flavour(name) => name.clone(),
            Self::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}

impl From<&str> for Choice {
    fn from(name: &str) -> Self {
        Self::Flavour(name.to_owned())
    }
}

impl From<String> for Choice {
    fn from(name: String) -> Self {
        Self::Flavour(name)
    }
}

/// A parsed recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    /// Where the files are that it names, unless it is a flavour of the source tree.
    home: Option<PathBuf>,
    path: PathBuf,
    digest: Digest,
    file: File,
    /// Where its lines begin.
    lines: Vec<usize>,
    /// What it extends.
    base: Option<Box<Recipe>>,
}

impl Recipe {
    /// Reads a recipe, and those that it extends.
    ///
    /// # Errors
    /// When it does not exist or is not understood.
    pub fn load(layout: &Layout, choice: &Choice) -> Result<Self, RecipeError> {
        Self::load_within(layout, choice, DEPTH)
    }

    fn load_within(layout: &Layout, choice: &Choice, depth: usize) -> Result<Self, RecipeError> {
        let (name, hint) = (choice.name(), "name a recipe that is there, and check its permissions");
        let (path, home) = match choice {
            Choice::Flavour(_) => {
                let path = layout.flavour(&name);
                if name.is_empty() || name.contains(['/', '.']) || !path.is_file() {
                    return Err(RecipeError::NoFlavour { name, known: known(layout).join(", ") });
                }
                (path, None)
            }
            Choice::File(path) => {
                let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                let is_toml = path.extension().is_some_and(|extension| extension == "toml");
                let is_taken = known(layout).contains(&name) || Arch::claimed_by(&name).is_some();
                if !is_name || name.is_empty() || !is_toml || is_taken {
                    return Err(RecipeError::Name(path.clone()));
                }
                (path.clone(), Some(path.parent().unwrap_or(Path::new("")).to_path_buf()))
            }
        };
        let text = std::fs::read_to_string(&path).map_err(|source| RecipeError::Read {
            path: path.clone(),
            hint,
            source,
        })?;
        let shown = path.strip_prefix(layout.root()).unwrap_or(&path).to_path_buf();
        let mut recipe = Self::parse(&name, shown, &text)?;
        if home.is_none() && recipe.file.budget.compressed.is_none() {
            return Err(RecipeError::NoBudget(recipe.path));
        }
        recipe.home = home;
        if let Some(base) = &recipe.file.extends {
            let depth = depth.checked_sub(1).ok_or_else(|| RecipeError::Depth(recipe.path.clone()))?;
            let base = match &recipe.home {
                Some(home) if base.ends_with(".toml") => Choice::File(home.join(base)),
                _ => Choice::Flavour(base.clone()),
            };
            let base = Self::load_within(layout, &base, depth)?;
            // The whole of what was read, whichever file a change is in.
            recipe.digest = Digest::of(format!("{} {}", base.digest, recipe.digest).as_bytes());
            recipe.base = Some(Box::new(base));
        }
        Ok(recipe)
    }

    fn parse(name: &str, path: PathBuf, text: &str) -> Result<Self, RecipeError> {
        let file: File = toml::from_str(text)
            .map_err(|source| RecipeError::Toml { path: path.clone(), source: Box::new(source) })?;
        let lines: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let recipe = Self {
            name: name.to_string(),
            home: None,
            path,
            digest: Digest::of(text.as_bytes()),
            file,
            lines,
            base: None,
        };
        for Regular { path: entry, product, text, source, .. } in &recipe.file.file {
            if [product.is_some(), text.is_some(), source.is_some()].iter().filter(|given| **given).count()
                != 1
            {
                let (line, path) = (recipe.line(entry), entry.get_ref().clone());
                return Err(RecipeError::Content { recipe: recipe.path, line, path });
            }
        }
        Ok(recipe)
    }

    /// The line of an entry, counted from 1.
    fn line(&self, entry: &Spanned<String>) -> usize {
        self.lines.partition_point(|begin| *begin <= entry.span().start)
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

    /// How many bytes the packed image may have for a processor, if there is a bound.
    pub fn budget(&self, arch: Arch) -> Option<u64> {
        self.file.budget.of(arch).compressed
    }

    /// How many bytes the file system of a disk may have for a processor, if there is a bound.
    pub fn disk_budget(&self, arch: Arch) -> Option<u64> {
        self.file.budget.of(arch).disk
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
        let users = self.users()?;
        let mut tree = self.tree_with(layout, &layout.agent_to_pack(&self.features()), &users)?;
        for (path, content) in users::files(&users) {
            let inode = Inode::new(0o644, Kind::File(content.into_bytes().into()));
            tree.insert(path, inode).map_err(|source| self.error(None, source))?;
        }
        Ok(tree)
    }

    /// The users of what the recipe extends, then its own.
    fn users(&self) -> Result<Vec<User>, RecipeError> {
        let mut users = self.base.as_ref().map_or(Ok(Vec::new()), |base| base.users())?;
        users.extend(self.file.user.iter().cloned());
        match users::contradiction(&users) {
            Some(problem) => Err(RecipeError::User { recipe: self.path.clone(), problem }),
            None => Ok(users),
        }
    }

    fn tree_with(&self, layout: &Layout, agent: &Path, users: &[User]) -> Result<Tree, RecipeError> {
        let mut tree = match &self.base {
            Some(base) => base.tree_with(layout, agent, users)?,
            None => Tree::default(),
        };
        let mut add = |path: &str, line: Option<usize>, inode| {
            tree.insert(path, inode).map(drop).map_err(|source| self.error(line, source))
        };
        let owned = |path: &Spanned<String>, owner: &Option<Owner>, mut inode: Inode| {
            let Some(owner) = owner else { return Ok(inode) };
            let (uid, gid) = owner.resolve(users).map_err(|owner| RecipeError::Owner {
                recipe: self.path.clone(),
                line: self.line(path),
                path: path.get_ref().clone(),
                owner,
                known: users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            (inode.meta.uid, inode.meta.gid) = (uid, gid);
            Ok(inode)
        };
        for Directory { path, mode, owner } in &self.file.directory {
            let inode = owned(path, owner, Inode::new(mode.0, Kind::directory()))?;
            add(path.get_ref(), Some(self.line(path)), inode)?;
        }
        for Regular { path, mode, owner, product, text, source } in &self.file.file {
            let content = match (product, source) {
                (Some(ProductName::Agent), _) => {
                    let program = read(agent, build_agent(layout.arch()))?;
                    let found = elf::machine(&program).ok().and_then(Arch::of_elf_machine);
                    match found.filter(|found| *found != layout.arch()) {
                        Some(found) => {
                            let (path, arch) = (agent.to_path_buf(), layout.arch());
                            return Err(RecipeError::OtherArch { path, found, arch });
                        }
                        None => program,
                    }
                }
                (None, Some(source)) => read(&self.home(layout).join(source), self.source_hint())?,
                (None, None) => text.clone().unwrap_or_default().into_bytes(),
            };
            let inode = owned(path, owner, Inode::new(mode.0, Kind::File(content.into())))?;
            add(path.get_ref(), Some(self.line(path)), inode)?;
        }
        for Symlink { path, target } in &self.file.symlink {
            let inode = Inode::new(0o777, Kind::Symlink(target.clone().into_bytes()));
            add(path.get_ref(), Some(self.line(path)), inode)?;
        }
        for Symlinks { directory, target, names } in &self.file.symlinks {
            for name in names {
                let inode = Inode::new(0o777, Kind::Symlink(target.clone().into_bytes()));
                add(&format!("{directory}/{name}"), None, inode)?;
            }
        }
        for Device { path, kind, major, minor, mode, owner } in &self.file.device {
            let (major, minor) = (*major, *minor);
            let kind = match kind {
                DeviceKind::Character => Kind::Char { major, minor },
                DeviceKind::Block => Kind::Block { major, minor },
            };
            let inode = owned(path, owner, Inode::new(mode.0, kind))?;
            add(path.get_ref(), Some(self.line(path)), inode)?;
        }
        let debian = Place::of(layout);
        for (path, inode) in self.host_files(&debian)? {
            add(&path, None, inode)?;
        }
        for (line, below) in self.packages_of(&debian)?.trees {
            tree.underlay(below).map_err(|source| self.error(Some(line), source))?;
        }
        for name in &self.file.overlays {
            let dir = match &self.home {
                Some(home) => home.join(name),
                None => layout.rootfs().join("overlay").join(name),
            };
            tree.overlay(&dir).map_err(|source| self.error(None, source))?;
        }
        for Image { path, attributes } in &self.file.image {
            // An absolute path stays as it is.
            let reference = self.home(layout).join(path.get_ref());
            let mut below =
                image::contents(&reference.to_string_lossy(), layout.arch()).map_err(|source| {
                    RecipeError::Image {
                        recipe: self.path.clone(),
                        line: self.line(path),
                        source: Box::new(source),
                    }
                })?;
            if !attributes {
                below.retain_xattrs(|_| false);
            }
            tree.underlay(below).map_err(|source| self.error(Some(self.line(path)), source))?;
        }
        Ok(tree)
    }

    /// Where the files are that it names.
    fn home(&self, layout: &Layout) -> PathBuf {
        self.home.clone().unwrap_or_else(|| layout.rootfs())
    }

    fn source_hint(&self) -> &'static str {
        match &self.home {
            Some(_) => "`source` in a recipe is a path relative to the recipe",
            None => "`source` in a flavour is a path below rootfs/",
        }
    }

    /// The Debian packages that the recipe names, with those that they depend on.
    fn packages_of(&self, debian: &Place) -> Result<Packages, RecipeError> {
        let mut all = Packages::default();
        if self.file.package.is_empty() {
            return Ok(all);
        }
        let failed = |line| {
            let recipe = self.path.clone();
            move |source| RecipeError::Package { recipe, line, source: Box::new(source) }
        };
        let first = self.file.package.first().map_or(1, |package| self.line(&package.name));
        let database = Database::read(debian).map_err(failed(first))?;
        for Package { name, without } in &self.file.package {
            let line = self.line(name);
            let found = database.closure(name.get_ref(), without).map_err(failed(line))?;
            // Two packages may need the same third.
            let new: Vec<_> = found.keys().filter(|name| !all.versions.contains_key(*name)).collect();
            let tree = database.tree(new.into_iter().map(String::as_str)).map_err(failed(line))?;
            all.trees.push((line, tree));
            all.versions.extend(found);
        }
        Ok(all)
    }

    /// The programs of this machine that the recipe names, with what they need. Two may need the same library.
    fn host_files(&self, debian: &Place) -> Result<Files, RecipeError> {
        let mut files = Files::new();
        for Host { package, files: wanted } in &self.file.host {
            let closure = debian.closure(package, wanted);
            files.extend(closure.map_err(|source| RecipeError::Host { recipe: self.path.clone(), source })?);
        }
        Ok(files)
    }

    /// The Debian packages that parts of the tree came from, with their versions, by name.
    ///
    /// # Errors
    /// As [`Recipe::tree`].
    pub fn packages(&self, layout: &Layout) -> Result<BTreeMap<String, String>, RecipeError> {
        let mut packages = match &self.base {
            Some(base) => base.packages(layout)?,
            None => BTreeMap::new(),
        };
        let debian = Place::of(layout);
        packages.extend(debian.packages(self.host_files(&debian)?.keys().map(String::as_str)));
        packages.extend(self.packages_of(&debian)?.versions);
        Ok(packages)
    }

    fn error(&self, line: Option<usize>, source: TreeError) -> RecipeError {
        RecipeError::Tree { recipe: self.path.clone(), line, source }
    }
}

/// Debian packages of a recipe.
#[derive(Default)]
struct Packages {
    /// What each `[[package]]` adds to those before it, and its line.
    trees: Vec<(usize, Tree)>,
    /// All of them, with their versions.
    versions: BTreeMap<String, String>,
}

/// What to do where the agent is missing.
fn build_agent(arch: Arch) -> &'static str {
    match arch {
        own if own == Arch::host() => "build it first: image-builder agent",
        Arch::X86_64 => "build it first: image-builder agent --arch x86_64",
        Arch::Aarch64 => "build it first: image-builder agent --arch aarch64",
    }
}

fn read(path: &Path, hint: &'static str) -> Result<Vec<u8>, RecipeError> {
    std::fs::read(path).map_err(|source| RecipeError::Read { path: path.to_path_buf(), hint, source })
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
mod tests;
