//! Storages as a shim would ask for them.

use protocols::agent::Storage;

/// Where a pod's volumes are.
pub const VOLUMES: &str = "/run/kata-containers/sandbox/volumes";

/// A storage at any mount point.
pub fn storage_at(driver: &str, source: &str, fstype: &str, options: &[&str], mount_point: &str) -> Storage {
    Storage {
        driver: driver.into(),
        source: source.into(),
        fstype: fstype.into(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        mount_point: mount_point.into(),
        ..Storage::default()
    }
}

/// A storage that is a volume of the pod's, by its name.
pub fn storage(driver: &str, source: &str, fstype: &str, options: &[&str], name: &str) -> Storage {
    storage_at(driver, source, fstype, options, &format!("{VOLUMES}/{name}"))
}
