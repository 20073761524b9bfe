//! The host's side of a vsock device: whether the kernel has one, and a context id for the guest.

use std::fs::File;
use std::io::Read as _;

use super::VmError;

/// Whether QEMU can use the host kernel's own vsock device.
pub(super) fn host_has_vhost_vsock() -> bool {
    File::options().read(true).write(true).open("/dev/vhost-vsock").is_ok()
}

/// A guest CID that no other VM of the host is likely to have. CIDs 0 to 2 are reserved.
pub(super) fn random_cid() -> Result<u32, VmError> {
    let mut bytes = [0; 4];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| VmError::io("read", "/dev/urandom", source))?;
    Ok(3 + u32::from_ne_bytes(bytes) % (i32::MAX as u32 - 3))
}
