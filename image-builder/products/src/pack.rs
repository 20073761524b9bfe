//! From a recipe to a product, the same way for every kind of them.
//!
//! ```text
//! recipe ─ tree ─ the format's own work ─ budget ─ all of it again, compared ─ Packed: install or write
//! ```
//! Promises that the same recipe, products and `SOURCE_DATE_EPOCH` give the same bytes, and that what is over its budget is
//! never written. Must never know a format.

use std::ffi::OsString;
use std::io;

use fs_image::{Tree, WriteError};

use crate::format::compress::Compression;
use crate::format::label::LabelError;
use crate::install::{InstallError, Packed};
use crate::manifest::{EntryPart, Part};
use crate::recipe::{Choice, Recipe, RecipeError};
use store::cache::CacheError;
use store::layout::Layout;
use store::progress::bytes;

/// How many files a budget error lists.
const CULPRITS: usize = 5;

/// Why a recipe is no product.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The recipe is wrong or something it names is missing.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The tree does not fit the format, or cannot be read.
    #[error("cannot make {product}{advice}")]
    Tree {
        /// Which product.
        product: String,
        /// What else could be done.
        advice: &'static str,
        /// Why.
        source: WriteError,
    },
    /// The compressor failed.
    #[error("cannot compress the archive with {compression}")]
    Compress {
        /// The format.
        compression: Compression,
        /// Why.
        source: io::Error,
    },
    /// The partition table cannot be made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// It is too large.
    #[error(
        "{product} has {}, over its budget of {} (`{}` in the recipe); the largest files (unpacked):\n{culprits}",
        bytes(.size.bytes), bytes(.size.budget), .size.key
    )]
    Budget {
        /// Which product, or what of it.
        product: String,
        /// Its size.
        size: Size,
        /// One line per large file.
        culprits: String,
    },
    /// `SOURCE_DATE_EPOCH` is not a time.
    #[error(
        "SOURCE_DATE_EPOCH={0:?} is not a number of seconds from 0 to 4294967295; correct it or unset it"
    )]
    Epoch(OsString),
    /// Two packings of the same input differ.
    #[error("packed twice from the same input, {0} came out different; this is a bug in image-builder")]
    Irreproducible(String),
    /// What was made before cannot be kept or found.
    #[error("cannot keep what was packed")]
    Cache(#[from] CacheError),
    /// It cannot be put into its place.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// A size and its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes that there are.
    pub bytes: u64,
    /// Bytes that there may be.
    pub budget: u64,
    /// The recipe's key that says so.
    pub key: &'static str,
}

/// The time to put on everything: the value of `SOURCE_DATE_EPOCH`, or 0 when it is unset or empty.
///
/// # Errors
/// [`PackError::Epoch`] when it is set to something else than a number that fits.
pub fn epoch(variable: Option<OsString>) -> Result<u32, PackError> {
    match variable.filter(|value| !value.is_empty()) {
        None => Ok(0),
        Some(value) => value.to_str().and_then(|text| text.parse().ok()).ok_or(PackError::Epoch(value)),
    }
}

/// A recipe's tree, as a format gets it.
pub(crate) struct Ready<'a> {
    pub(crate) recipe: &'a Recipe,
    /// Every entry with the time of the product.
    pub(crate) tree: &'a Tree,
    /// The same as manifests list it.
    pub(crate) entries: Vec<EntryPart>,
}

/// Packs a recipe with `make`, which also says how large the product may be, if there is a bound.
///
/// # Errors
/// As they come; [`PackError::Budget`] names the largest files.
pub(crate) fn pack<P: Part>(
    layout: &Layout,
    choice: &Choice,
    epoch: u32,
    twice: bool,
    make: impl Fn(Ready<'_>) -> Result<(Packed<P>, Option<Size>), PackError>,
) -> Result<Packed<P>, PackError> {
    let recipe = Recipe::load(layout, choice)?;
    let once = || {
        let mut tree = recipe.tree(layout)?;
        tree.set_times(epoch.into());
        let unreadable = |error: io::Error| PackError::Tree {
            product: format!("a list of {}", recipe.name()),
            advice: "",
            source: error.into(),
        };
        let entries = EntryPart::list(&tree).map_err(unreadable)?;
        let (packed, size) = make(Ready { recipe: &recipe, tree: &tree, entries })?;
        match size.filter(|size| size.bytes > size.budget) {
            Some(size) => {
                let line = |(path, size): (String, u64)| format!("  {:>10}  {path}", bytes(size));
                let culprits = tree.largest(CULPRITS).into_iter().map(line).collect::<Vec<_>>().join("\n");
                Err(PackError::Budget { product: packed.name, size, culprits })
            }
            None => Ok(packed),
        }
    };
    let first = once()?;
    if twice && once()?.image != first.image {
        return Err(PackError::Irreproducible(first.name));
    }
    Ok(first)
}

#[cfg(test)]
mod tests;
