//! A runtime bundle as an image: its root file system, and what its `config.json` runs.

use std::path::{Component, Path, PathBuf};

use super::ImageError;
use super::blobs::Blobs;
use super::config::ImageConfig;
use super::document::{Bundle, parse};

/// The name of the specification in a bundle.
pub(super) const SPEC: &str = "config.json";

/// The root file system of the bundle at `path`, and how it is run; nothing if it is none.
pub(super) fn open(path: &Path) -> Result<Option<(PathBuf, ImageConfig)>, ImageError> {
    let blobs = Blobs::Layout(path.to_path_buf());
    if !path.join(SPEC).is_file() {
        return Ok(None);
    }
    // Other directories have a config.json, too.
    let document = blobs.document(path, SPEC)?;
    let Ok(bundle) = parse::<Bundle>(path, SPEC, &document) else { return Ok(None) };
    let Some(root) = bundle.root else { return Ok(None) };
    let below = Path::new(&root.path);
    let is_inside = below.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let rootfs = path.join(below).canonicalize().ok().filter(|found| is_inside && found.starts_with(path));
    let Some(rootfs) = rootfs.filter(|found| found.is_dir()) else {
        return Err(ImageError::source(
            path,
            format!(
                "is a runtime bundle whose root {:?} is not a directory inside it; name that directory",
                root.path
            ),
        ));
    };
    let process = bundle.process;
    let config = ImageConfig {
        entrypoint: process.args,
        env: process.env,
        working_dir: process.cwd,
        user: format!("{}:{}", process.user.uid, process.user.gid),
        ..ImageConfig::default()
    };
    Ok(Some((rootfs, config)))
}
