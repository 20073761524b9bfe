//! The system call that makes a TAP device.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// From `linux/if_tun.h`: frames as they are on a wire, nothing before them but a virtio-net header.
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const NAME_SIZE: usize = 16;

/// `struct ifreq` of `linux/if.h` with the flags in its union.
#[repr(C)]
struct Request {
    name: [u8; NAME_SIZE],
    flags: i16,
    rest: [u8; 22],
}

const TUNSETIFF: nix::sys::ioctl::ioctl_num_type =
    nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>());

#[allow(unsafe_code)]
mod call {
    // The call takes the request whole, whatever size its number says.
    nix::ioctl_readwrite_bad!(
        tun_set_iff,
        crate::run::network::sys::TUNSETIFF,
        crate::run::network::sys::Request
    );
}

/// Makes a TAP device in the network namespace of the calling thread; `%d` in its name becomes a number. It lives as
/// long as what is returned is open. Gives its name, too.
pub(super) fn make_tap(pattern: &str) -> io::Result<(OwnedFd, String)> {
    let mut name = [0; NAME_SIZE];
    let room = name.get_mut(..pattern.len()).filter(|room| room.len() < NAME_SIZE);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(pattern.as_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name, flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] };
    // SAFETY: the descriptor is open, and the kernel reads and writes one `struct ifreq` (40 bytes), which `Request` is.
    #[allow(unsafe_code)]
    unsafe { call::tun_set_iff(file.as_raw_fd(), &mut request) }?;
    let length = request.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
    Ok((file.into(), String::from_utf8_lossy(&request.name[..length]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_the_kernel_copies() {
        assert_eq!((size_of::<Request>(), TUNSETIFF), (40, 0x4004_54ca));
    }

    #[test]
    fn a_name_has_its_limit() {
        assert_eq!(make_tap("0123456789abcdef").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
