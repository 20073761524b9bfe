//! Nodes of devices, and directories of sysfs.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::runtime::LinuxDeviceType;

/// What kind of device a node is, and its major and minor number.
pub(super) fn number_of(node: &Path) -> std::io::Result<(LinuxDeviceType, i64, i64)> {
    let status = node.metadata()?;
    let kind = match status.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no device node")),
    };
    let number = status.rdev();
    Ok((kind, rustix::fs::major(number).into(), rustix::fs::minor(number).into()))
}

/// Names in a directory, sorted; none where there is no such directory.
pub(super) fn entries(directory: &Path) -> Vec<String> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The first name in a directory.
pub(super) fn only_entry(directory: &Path) -> Option<String> {
    entries(directory).into_iter().next()
}
