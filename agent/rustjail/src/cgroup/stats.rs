//! What a cgroup has used.
//!
//! Owns: the control files that are read for numbers. Promises: a file, a controller or a whole cgroup that is not
//! there reads as zero or absent; text the kernel did not use to print is skipped. Must never: fail for want of a
//! controller.

use std::collections::BTreeMap;

use super::events::flat_keyed;
use super::file::Directory;
use super::limits::parse_limit;
use super::{Cgroup, Error};

/// Everything a cgroup reports about itself and all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory and swap.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices that were used.
    pub io: Vec<IoStats>,
    /// Huge pages by page size, as in `2MB`.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
}

/// `cpu.stat`. Times are nanoseconds; the kernel counts microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// CPU time used.
    pub total_ns: u64,
    /// Of it in user mode.
    pub user_ns: u64,
    /// Of it in the kernel.
    pub system_ns: u64,
    /// Periods of `cpu.max` that have passed.
    pub periods: u64,
    /// Of them those in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled_ns: u64,
}

/// The `memory.*` files. All numbers in bytes, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Page cache (`file` of `memory.stat`).
    pub cache: u64,
    /// `memory.current`, `.peak`, `.max`; failures are `max` of `memory.events`.
    pub usage: MemoryUsage,
    /// `memory.swap.current`, `.peak`, `.max`; failures are `fail` of `memory.swap.events`. Swap alone, without memory.
    pub swap: MemoryUsage,
    /// Memory of the kernel on the cgroup's behalf (`kernel` of `memory.stat`); it has no limit of its own.
    pub kernel: MemoryUsage,
    /// `memory.stat` as it is.
    pub stat: BTreeMap<String, u64>,
}

/// A use of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Now.
    pub usage: u64,
    /// The most there ever was; 0 if the kernel does not keep it.
    pub max_usage: u64,
    /// The limit; none for unlimited.
    pub limit: Option<u64>,
    /// How often the limit was run into.
    pub failures: u64,
}

/// `pids.*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Tasks now.
    pub current: u64,
    /// The limit; none for unlimited.
    pub limit: Option<u64>,
}

/// A line of `io.stat`: bytes and operations on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoStats {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Bytes discarded.
    pub discard_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Discards.
    pub discards: u64,
}

/// `hugetlb.<size>.*`, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// Now.
    pub usage: u64,
    /// The limit; none for unlimited.
    pub limit: Option<u64>,
    /// How often the limit was run into.
    pub failures: u64,
}

impl Cgroup {
    /// Reads all statistics. What is not there is zero; a cgroup that is gone is zero throughout.
    ///
    /// # Errors
    /// Only if a file that is there cannot be opened or read: out of descriptors or memory.
    pub fn stats(&self) -> Result<Stats, Error> {
        let directory = &self.directory;
        Ok(Stats {
            cpu: parse_cpu(&text(directory, "cpu.stat")?),
            memory: memory(directory)?,
            pids: PidsStats {
                current: number(directory, "pids.current")?,
                limit: limit(directory, "pids.max")?,
            },
            io: parse_io(&text(directory, "io.stat")?),
            hugetlb: self.hugetlb()?,
        })
    }
}

fn text(directory: &Directory, file: &str) -> Result<String, Error> {
    Ok(directory.read(file)?.unwrap_or_default())
}

fn number(directory: &Directory, file: &str) -> Result<u64, Error> {
    Ok(text(directory, file)?.trim().parse().unwrap_or(0))
}

fn limit(directory: &Directory, file: &str) -> Result<Option<u64>, Error> {
    Ok(parse_limit(&text(directory, file)?).flatten())
}

fn parse_cpu(text: &str) -> CpuStats {
    let count = |key| flat_keyed(text, key).unwrap_or(0);
    let nanoseconds = |key| count(key).saturating_mul(1000);
    CpuStats {
        total_ns: nanoseconds("usage_usec"),
        user_ns: nanoseconds("user_usec"),
        system_ns: nanoseconds("system_usec"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: nanoseconds("throttled_usec"),
    }
}

fn memory(directory: &Directory) -> Result<MemoryStats, Error> {
    let stat = parse_flat_keyed(&text(directory, "memory.stat")?);
    let value = |key: &str| stat.get(key).copied().unwrap_or(0);
    let failures = |file, key| Ok::<_, Error>(flat_keyed(&text(directory, file)?, key).unwrap_or(0));
    Ok(MemoryStats {
        cache: value("file"),
        usage: MemoryUsage {
            usage: number(directory, "memory.current")?,
            max_usage: number(directory, "memory.peak")?,
            limit: limit(directory, "memory.max")?,
            failures: failures("memory.events", "max")?,
        },
        swap: MemoryUsage {
            usage: number(directory, "memory.swap.current")?,
            max_usage: number(directory, "memory.swap.peak")?,
            limit: limit(directory, "memory.swap.max")?,
            failures: failures("memory.swap.events", "fail")?,
        },
        kernel: MemoryUsage { usage: value("kernel"), ..MemoryUsage::default() },
        stat,
    })
}

fn parse_flat_keyed(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`. Keys of other controllers may follow, and a
/// device that was never used has none.
fn parse_io(text: &str) -> Vec<IoStats> {
    text.lines().filter_map(parse_io_line).collect()
}

fn parse_io_line(line: &str) -> Option<IoStats> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let mut stats = IoStats { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoStats::default() };
    let mut any = false;
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let slot = match key {
            "rbytes" => &mut stats.read_bytes,
            "wbytes" => &mut stats.write_bytes,
            "dbytes" => &mut stats.discard_bytes,
            "rios" => &mut stats.reads,
            "wios" => &mut stats.writes,
            "dios" => &mut stats.discards,
            _ => continue,
        };
        *slot = value.parse().unwrap_or(0);
        any = true;
    }
    any.then_some(stats)
}

/// The sizes of huge pages that a cgroup counts, as `2MB`, which are all that there are.
pub(super) fn huge_page_sizes(directory: &Directory) -> Result<Vec<String>, Error> {
    let entries = directory.entries()?;
    let sizes = entries.iter().filter_map(|(name, _)| {
        let size = name.to_str()?.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
        // hugetlb.<size>.rsvd.current counts reservations, not pages.
        (!size.contains('.')).then(|| size.to_owned())
    });
    let mut sizes: Vec<String> = sizes.collect();
    sizes.sort();
    Ok(sizes)
}

impl Cgroup {
    fn hugetlb(&self) -> Result<BTreeMap<String, HugetlbStats>, Error> {
        let directory = &self.directory;
        let known = match self.huge_pages.get() {
            Some(known) => known,
            // They are those of the processor and the kernel.
            None => {
                let found = huge_page_sizes(directory)?;
                self.huge_pages.get_or_init(|| found)
            }
        };
        let mut sizes = BTreeMap::new();
        for size in known {
            let events = text(directory, &format!("hugetlb.{size}.events"))?;
            let stats = HugetlbStats {
                usage: number(directory, &format!("hugetlb.{size}.current"))?,
                limit: limit(directory, &format!("hugetlb.{size}.max"))?,
                failures: flat_keyed(&events, "max").unwrap_or(0),
            };
            sizes.insert(size.clone(), stats);
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::CgroupPath;
    use super::*;

    fn stats(files: &[(&str, &str)]) -> Stats {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("c1")).unwrap();
        for (name, text) in files {
            fs::write(tree.path().join("c1").join(name), text).unwrap();
        }
        Cgroup::open(tree.path(), &CgroupPath::parse("c1", "").unwrap()).unwrap().stats().unwrap()
    }

    #[test]
    fn no_controller_is_no_error() {
        assert_eq!(stats(&[]), Stats::default());
    }

    #[test]
    fn cpu_time_is_in_nanoseconds() {
        let text = "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnice_usec 0\nnr_periods 10\n\
                    nr_throttled 4\nthrottled_usec 70\nnr_bursts 0\nburst_usec 0\n";
        assert_eq!(
            stats(&[("cpu.stat", text)]).cpu,
            CpuStats {
                total_ns: 3_000_000,
                user_ns: 2_000_000,
                system_ns: 1_000_000,
                periods: 10,
                throttled_periods: 4,
                throttled_ns: 70_000,
            }
        );
    }

    #[test]
    fn memory_with_and_without_a_limit() {
        let memory = stats(&[
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "16384\n"),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n"),
            ("memory.swap.current", "1\n"),
            ("memory.swap.max", "max\n"),
            ("memory.swap.events", "high 0\nmax 9\nfail 2\n"),
            ("memory.stat", "anon 100\nfile 200\nkernel 300\nkernel_stack 5\n"),
        ])
        .memory;
        assert_eq!(
            memory.usage,
            MemoryUsage { usage: 4096, max_usage: 8192, limit: Some(16384), failures: 7 }
        );
        assert_eq!(memory.swap, MemoryUsage { usage: 1, max_usage: 0, limit: None, failures: 2 });
        assert_eq!((memory.cache, memory.kernel.usage), (200, 300));
        assert_eq!(memory.stat.len(), 4);
        assert_eq!(memory.stat["kernel_stack"], 5);
    }

    #[test]
    fn pids_with_and_without_a_limit() {
        let limited = stats(&[("pids.current", "3\n"), ("pids.max", "10\n")]).pids;
        assert_eq!(limited, PidsStats { current: 3, limit: Some(10) });
        assert_eq!(stats(&[("pids.max", "max\n")]).pids.limit, None);
    }

    #[test]
    fn io_by_device() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n253:1 \n7:0\nmax\n\
                    254:16 rbytes=9 new_key=1\n";
        let io = stats(&[("io.stat", text)]).io;
        assert_eq!(io.len(), 2);
        assert_eq!(
            io[0],
            IoStats {
                major: 8,
                minor: 0,
                read_bytes: 1,
                write_bytes: 2,
                discard_bytes: 5,
                reads: 3,
                writes: 4,
                discards: 6,
            }
        );
        assert_eq!((io[1].major, io[1].minor, io[1].read_bytes), (254, 16, 9));
    }

    #[test]
    fn huge_pages_by_size() {
        let sizes = stats(&[
            ("hugetlb.2MB.current", "2097152\n"),
            ("hugetlb.2MB.max", "4194304\n"),
            ("hugetlb.2MB.events", "max 3\n"),
            ("hugetlb.2MB.rsvd.current", "9\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.max", "max\n"),
        ])
        .hugetlb;
        assert_eq!(sizes.keys().collect::<Vec<_>>(), ["1GB", "2MB"]);
        assert_eq!(sizes["2MB"], HugetlbStats { usage: 2_097_152, limit: Some(4_194_304), failures: 3 });
        assert_eq!(sizes["1GB"].limit, None);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in "[a-z0-9:= \\n_-]{0,200}") {
            parse_cpu(&text);
            parse_flat_keyed(&text);
            parse_io(&text);
        }

        #[test]
        fn what_the_kernel_prints_is_read(major in any::<u32>(), minor in any::<u32>(), bytes in any::<u64>()) {
            let line = format!("{major}:{minor} rbytes={bytes} wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n");
            let parsed = parse_io(&line);
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(
                (parsed[0].major, parsed[0].minor, parsed[0].read_bytes),
                (u64::from(major), u64::from(minor), bytes)
            );
        }
    }
}
