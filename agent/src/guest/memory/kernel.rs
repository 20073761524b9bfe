//! The kernel's files about the memory of the whole guest.
//!
//! Everything is read below one directory, `/proc`, so that tests can put another in its place.

use std::io;
use std::path::PathBuf;

use rustjail::cgroup::Stalls;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    proc: PathBuf,
}

impl Kernel {
    pub(super) fn new(proc: impl Into<PathBuf>) -> Kernel {
        Kernel { proc: proc.into() }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.proc.join(file)).unwrap_or_default()
    }

    /// Whether the kernel tells of pressure.
    pub(super) fn tells_pressure(&self) -> bool {
        self.proc.join("pressure/memory").exists()
    }

    /// What the guest has waited for so far.
    pub(super) fn stalls(&self) -> Stalls {
        Stalls::parse(&self.read("pressure/memory"), &self.read("pressure/io"))
    }

    /// Bytes of free swap space.
    pub(super) fn swap_free(&self) -> u64 {
        let text = self.read("meminfo");
        let line = text.lines().find_map(|line| line.strip_prefix("SwapFree:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.unwrap_or(0).saturating_mul(1024)
    }

    /// Free pages in blocks below an order.
    pub(super) fn scattered(&self, order: u8) -> u64 {
        scattered(&self.read("buddyinfo"), order)
    }

    /// Pages that compaction has picked up so far. It counts while the kernel is at it, not when it is done.
    pub(super) fn moved(&self) -> u64 {
        let text = self.read("vmstat");
        let line = text.lines().find_map(|line| line.strip_prefix("compact_isolated "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    const PROACTIVENESS: &str = "sys/vm/compaction_proactiveness";

    /// How much the kernel compacts by itself, 0 to 100.
    pub(super) fn proactiveness(&self) -> io::Result<String> {
        std::fs::read_to_string(self.proc.join(Self::PROACTIVENESS)).map(|text| text.trim().to_owned())
    }

    /// Sets it. What is not 0 wakes the kernel's compaction threads (Linux 5.15), what is 0 lets them stop.
    pub(super) fn set_proactiveness(&self, value: &str) -> io::Result<()> {
        std::fs::write(self.proc.join(Self::PROACTIVENESS), value)
    }
}

/// Adds up lines such as `Node 0, zone   Normal  3 1 0`: free blocks of order 0, 1, 2.
fn scattered(buddyinfo: &str, order: u8) -> u64 {
    let mut pages = 0u64;
    for line in buddyinfo.lines() {
        let Some((_, zone)) = line.split_once("zone") else { continue };
        let blocks = zone.split_whitespace().skip(1).take(order.into());
        for (order, count) in blocks.enumerate() {
            pages = pages.saturating_add(count.parse::<u64>().unwrap_or(0) << order.min(32));
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDDYINFO: &str = "\
Node 0, zone      DMA      1      0      2      0      0      0      0      0      1      1      3
Node 0, zone    DMA32     10      5      1      0      0      0      0      0      0      2     40
";

    #[test]
    fn scattered_is_what_lies_in_small_blocks() {
        assert_eq!(scattered(BUDDYINFO, 1), 11);
        assert_eq!(scattered(BUDDYINFO, 9), 1 + 8 + 256 + 10 + 10 + 4);
        assert_eq!(scattered(BUDDYINFO, 10), 289 + 512 + 1024);
        assert_eq!(scattered("", 9), 0);
        assert_eq!(scattered("Node 0, zone", 9), 0);
    }

    #[test]
    fn files_are_read_and_written_below_one_directory() {
        let tree = tempfile::tempdir().unwrap();
        let kernel = Kernel::new(tree.path());
        assert!(!kernel.tells_pressure());
        assert_eq!((kernel.swap_free(), kernel.scattered(9)), (0, 0));
        assert!(kernel.proactiveness().is_err());
        std::fs::create_dir_all(tree.path().join("sys/vm")).unwrap();
        kernel.set_proactiveness("20\n").unwrap();
        assert_eq!(kernel.proactiveness().unwrap(), "20");
        std::fs::write(tree.path().join("meminfo"), "SwapTotal:  8 kB\nSwapFree:     4092 kB\n").unwrap();
        assert_eq!(kernel.swap_free(), 4092 * 1024);
        std::fs::write(tree.path().join("vmstat"), "compact_free_scanned 9\ncompact_isolated 7\n").unwrap();
        assert_eq!(kernel.moved(), 7);
    }
}
