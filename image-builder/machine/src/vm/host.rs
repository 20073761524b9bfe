//! What is on the host: programs, the cache, and what its kernel says.

use std::fs;
use std::io;
use std::path::PathBuf;

use store::cache::Cache;

/// Finds a program: by an environment variable, on PATH, or in the cache's `bin`.
pub fn find_tool(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(cache_root().map(|root| root.join("bin")));
    places.into_iter().map(|place| place.join(name)).find(|candidate| candidate.is_file())
}

/// The project's cache directory, where there can be one.
pub(super) fn cache_root() -> Option<PathBuf> {
    Cache::locate(|name| std::env::var_os(name)).ok().map(|cache| cache.root().to_path_buf())
}

/// Reads a small file of the kernel's, for example below `/proc`.
pub(super) fn read_trimmed(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}
