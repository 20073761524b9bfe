//! Images as parts of a recipe's tree.

use fs_image::{Tree, erofs};

use super::spool::Spool;
use super::{Ceiling, ImageError, source};
use store::arch::Arch;
use store::cache::Cache;

/// The files of the image for an architecture at `reference` (as [`super::prepare`] takes it), layers applied, with all that they say of themselves:
/// hard links, owners, extended attributes. Which of that a product can hold is its format's business. Content stays on disk, in
/// a file without a name.
///
/// # Errors
/// As [`super::prepare`].
pub fn contents(reference: &str, arch: Arch) -> Result<Tree, ImageError> {
    let temporary = std::env::temp_dir();
    let scratch = |error| ImageError::io("create a directory in", &temporary, error);
    let work = tempfile::tempdir_in(&temporary).map_err(scratch)?;
    // Archives are unpacked into the cache's workspace, which need not outlive this.
    let cache = Cache::new(work.path().to_path_buf());
    let (mut tree, mut spool) = (Tree::new(), Spool::new(work.path(), Ceiling::default()).map_err(scratch)?);
    source::open(reference, Some(arch), &cache, Ceiling::default())?.fill(&mut tree, &mut spool)?;
    // As those who unpack images do: Linux knows no others.
    tree.retain_xattrs(erofs::is_attribute);
    Ok(tree)
}
