//! The block in front of a file system that lets Linux map it from an NVDIMM (DAX).
//!
//! An NVDIMM that a VMM makes of a file has no labels. Linux reads it as a disk then, and maps files on it only where an
//! info block says that it may keep an entry for each page (`drivers/nvdimm/pfn.h` of the kernel). The block lies 4 KiB
//! behind the start; what follows the prefix is the disk that the guest sees.

/// Length of the prefix in bytes. Large pages of x86-64 are as large, and what is mapped begins on one.
pub const PREFIX: usize = 2 << 20;

/// Where the info block is, and its length.
const BLOCK: usize = 4096;
const SIGNATURE: &[u8; 16] = b"NVDIMM_PFN_INFO\0";
/// Entries for pages are kept in the guest's memory, not on the device.
const MODE_RAM: u32 = 1;
/// Version 1.4 says the sizes of a page and of its entry.
const VERSION: (u16, u16) = (1, 4);
const PAGE: u64 = 4096;
const PAGE_ENTRY: u16 = 64;

/// Makes the prefix for a disk of so many bytes. Any size will do, but VMMs and kernels want the whole, prefix and disk, to
/// be a multiple of 2 MiB.
pub fn prefix(disk: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, SIGNATURE);
    put(52, &VERSION.0.to_le_bytes());
    put(54, &VERSION.1.to_le_bytes());
    put(56, &(PREFIX as u64).to_le_bytes());
    put(64, &(disk / PAGE).to_le_bytes());
    put(72, &MODE_RAM.to_le_bytes());
    put(84, &(PREFIX as u32).to_le_bytes());
    put(88, &(PAGE as u32).to_le_bytes());
    put(92, &PAGE_ENTRY.to_le_bytes());
    let sum = checksum(&block);
    block[BLOCK - 8..].copy_from_slice(&sum.to_le_bytes());
    let mut prefix = vec![0; PREFIX];
    prefix[BLOCK..2 * BLOCK].copy_from_slice(&block);
    prefix
}

/// Whether a disk begins with such a prefix.
pub fn is(disk: &[u8]) -> bool {
    disk.get(BLOCK..).is_some_and(|rest| rest.starts_with(SIGNATURE))
}

/// Fletcher's, over words of 32 bits, with the place of the sum itself as zeros.
fn checksum(block: &[u8]) -> u64 {
    let words = block.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let (low, high) = words.fold((0u32, 0u64), |(low, high), word| {
        let low = low.wrapping_add(word);
        (low, high.wrapping_add(low.into()))
    });
    high << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_lies_behind_the_first_page_and_is_summed() {
        let prefix = prefix(62 << 20);
        assert_eq!(prefix.len(), PREFIX);
        assert!(prefix[..BLOCK].iter().all(|byte| *byte == 0));
        let mut block = prefix[BLOCK..2 * BLOCK].to_vec();
        assert_eq!(&block[..15], b"NVDIMM_PFN_INFO");
        assert_eq!(block[64..72], (62u64 << 8).to_le_bytes());
        let sum = block.split_off(BLOCK - 8);
        block.extend([0; 8]);
        assert_eq!(sum, checksum(&block).to_le_bytes());
    }

    #[test]
    fn sums_carry_over_into_the_upper_half() {
        assert_eq!(checksum(&[1, 0, 0, 0, 2, 0, 0, 0]), 4 << 32 | 3);
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]), (0xffff_ffff + 1) << 32 | 1);
    }
}
