//! The ioctls that make and remove devices of the device mapper (`include/uapi/linux/dm-ioctl.h` of the kernel).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;

const CONTROL: &str = "/dev/mapper/control";
/// Version of the interface that is asked for; the kernel refuses a newer one than its own.
const VERSION: [u32; 3] = [4, 0, 0];
/// `struct dm_ioctl`: its size, and where its fields are.
const HEADER: usize = 312;
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME: usize = 48;
/// Room for a name with its NUL.
const NAME_SIZE: usize = 128;
/// `struct dm_target_spec`.
const TARGET: usize = 40;
/// Room for a target's name with its NUL.
const TARGET_NAME: usize = 16;

const READ_ONLY: u32 = 1;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// Commands, by number.
#[derive(Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    /// Resumes, unless a flag says to suspend.
    Suspend = 6,
    LoadTable = 9,
}

/// What a device is made of: one target that is all of it.
pub(crate) struct Target<'a> {
    /// Its name, such as `verity`.
    pub(crate) kind: &'a str,
    /// Its length, in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Its parameters, as dmsetup(8) takes them.
    pub(crate) parameters: &'a str,
}

/// Makes a read-only device and gives its minor number. A failure leaves none.
pub(crate) fn create(name: &str, target: &Target<'_>) -> io::Result<u32> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    let mut request = header(name, 0, HEADER)?;
    call(&control, Command::Create, &mut request)?;
    let work = || {
        let mut request = table(name, target)?;
        call(&control, Command::LoadTable, &mut request)?;
        let mut request = header(name, READ_ONLY, HEADER)?;
        call(&control, Command::Suspend, &mut request)?;
        let device = u64::from_ne_bytes(std::array::from_fn(|at| request[DEVICE + at]));
        Ok(minor(device))
    };
    work().inspect_err(|_| {
        let removed =
            header(name, 0, HEADER).and_then(|mut request| call(&control, Command::Remove, &mut request));
        if let Err(error) = removed {
            tracing::error!(name, %error, "a mapped device stays");
        }
    })
}

/// Removes a device, at once or when its last user is gone.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    call(&control, Command::Remove, &mut header(name, DEFERRED_REMOVE, HEADER)?)
}

/// `huge_decode_dev` of the kernel: minor numbers have 8 low and 12 high bits around the major's.
fn minor(device: u64) -> u32 {
    ((device & 0xff) | ((device >> 12) & 0xfff00)) as u32
}

fn header(name: &str, flags: u32, size: usize) -> io::Result<Vec<u8>> {
    if name.len() >= NAME_SIZE || name.bytes().any(|byte| byte == 0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut request = vec![0; size];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    for (index, number) in VERSION.iter().enumerate() {
        put(index * 4, &number.to_ne_bytes());
    }
    put(DATA_SIZE, &(size as u32).to_ne_bytes());
    put(DATA_START, &(HEADER as u32).to_ne_bytes());
    put(FLAGS, &flags.to_ne_bytes());
    put(NAME, name.as_bytes());
    Ok(request)
}

fn table(name: &str, target: &Target<'_>) -> io::Result<Vec<u8>> {
    if target.kind.len() >= TARGET_NAME || target.parameters.bytes().any(|byte| byte == 0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The parameters end in a NUL, and the whole at a multiple of eight.
    let length = (TARGET + target.parameters.len() + 1).next_multiple_of(8);
    let mut request = header(name, READ_ONLY, HEADER + length)?;
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(TARGET_COUNT, &1u32.to_ne_bytes());
    // The target begins at sector 0; then its length, a status, where the next one is, its name.
    put(HEADER + 8, &target.sectors.to_ne_bytes());
    put(HEADER + 20, &(length as u32).to_ne_bytes());
    put(HEADER + 24, target.kind.as_bytes());
    put(HEADER + TARGET, target.parameters.as_bytes());
    Ok(request)
}

fn call(control: &File, command: Command, request: &mut [u8]) -> io::Result<()> {
    let number = nix::request_code_readwrite!(0xfd, command as u32, HEADER);
    // SAFETY: the kernel reads and writes at most as many bytes as the request says that it has, which is its length;
    // the buffer lives until the call returns.
    let result = unsafe { libc::ioctl(control.as_raw_fd(), number as _, request.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let target = Target { kind: "verity", sectors: 16, parameters: "1 8:0" };
        let table = table("x", &target).unwrap();
        assert_eq!(table.len(), HEADER + 48);
        let number = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| table[at + byte]));
        assert_eq!((number(0), number(DATA_SIZE), number(DATA_START)), (4, 360, 312));
        assert_eq!((number(TARGET_COUNT), number(FLAGS), number(HEADER + 8)), (1, READ_ONLY, 16));
        assert_eq!(&table[HEADER + 24..HEADER + 31], b"verity\0");
        assert_eq!(&table[HEADER + 40..], b"1 8:0\0\0\0");
        assert!(header(&"n".repeat(128), 0, HEADER).is_err());
    }

    #[test]
    fn minors_are_split_around_the_major() {
        assert_eq!(minor(0xfc00), 0);
        assert_eq!(minor(0xfc07), 7);
        assert_eq!(minor(0x1000_fc02), 0x10002);
    }
}
