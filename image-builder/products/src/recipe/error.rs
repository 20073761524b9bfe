//! What is wrong with a recipe.

use std::io;
use std::path::PathBuf;

use fs_image::TreeError;

use crate::debian::DebianError;
use crate::host::HostError;
use images::image::ImageError;
use store::arch::Arch;

/// How many flavours may extend each other.
pub(super) const DEPTH: usize = 4;

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
    /// A file of one's own has a name that no product can have.
    #[error(
        "{0} cannot be the name of a recipe: the part before `.toml` becomes the name of the product, and must be letters, \
         digits and `-`, none of this source tree's flavours, and must not end with the name of a processor"
    )]
    Name(PathBuf),
    /// A flavour of the source tree has no bound.
    #[error("{0}: a flavour needs a budget: add `[budget]` with `compressed`, in bytes")]
    NoBudget(PathBuf),
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
    /// The agent is for another processor.
    #[error("{path} is for {found}, not for {arch}; build it again: image-builder agent --arch {arch}")]
    OtherArch {
        /// The agent.
        path: PathBuf,
        /// What it is for.
        found: Arch,
        /// What the product is for.
        arch: Arch,
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
    #[error("{recipe}:{line}: {path} needs exactly one of `product`, `text` and `source`")]
    Content {
        /// The recipe.
        recipe: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
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
    /// A Debian package cannot be taken in.
    #[error("{recipe}:{line}: a package cannot be taken in")]
    Package {
        /// The recipe.
        recipe: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// Which, and what to do.
        source: Box<DebianError>,
    },
    /// An owner is nobody.
    #[error(
        "{recipe}:{line}: {path} belongs to {owner:?}, but no `[[user]]` has that name; there are: {known}"
    )]
    Owner {
        /// The recipe.
        recipe: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// The entry.
        path: String,
        /// The name.
        owner: String,
        /// The names that there are.
        known: String,
    },
    /// A container image cannot be taken in.
    #[error("{recipe}:{line}: an image cannot be taken in")]
    Image {
        /// The recipe.
        recipe: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// Which, and what is wrong with it.
        source: Box<ImageError>,
    },
    /// Users contradict each other.
    #[error("{recipe}: {problem}")]
    User {
        /// The recipe.
        recipe: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Flavours extend each other in a circle, or a chain that nobody can follow.
    #[error("{0}: `extends` leads through more than {DEPTH} flavours")]
    Depth(PathBuf),
    /// An entry cannot be in a tree.
    #[error("{recipe}{}: an entry is wrong", line.map(|line| format!(":{line}")).unwrap_or_default())]
    Tree {
        /// The recipe.
        recipe: PathBuf,
        /// Where in it, counted from 1; none for what an overlay or a library brings.
        line: Option<usize>,
        /// Which and why.
        source: TreeError,
    },
}
