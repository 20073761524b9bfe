//! Readers of the kernel's statistics in `/proc`: from their text to named numbers. Pure; what is missing or odd in a
//! text is left out, for a statistic that a kernel does not have is no error.
//!
//! Sources: proc(5), Documentation/admin-guide/iostats.rst. The names are those that dashboards of kata-monitor know.

/// Items of `/proc/diskstats` from its fourth field on.
const DISK: [&str; 17] = [
    "reads",
    "merged",
    "sectors_read",
    "time_reading",
    "writes",
    "writes_merged",
    "sectors_written",
    "time_writing",
    "in_progress",
    "time_in_progress",
    "weighted_time_in_progress",
    "discards",
    "discards_merged",
    "sectors_discarded",
    "time_discarding",
    "flushes",
    "time_flushing",
];

/// Items of `/proc/net/dev`, in its order.
const INTERFACE: [&str; 16] = [
    "recv_bytes",
    "recv_packets",
    "recv_errs",
    "recv_drop",
    "recv_fifo",
    "recv_frame",
    "recv_compressed",
    "recv_multicast",
    "sent_bytes",
    "sent_packets",
    "sent_errs",
    "sent_drop",
    "sent_fifo",
    "sent_colls",
    "sent_carrier",
    "sent_compressed",
];

/// Items of a `cpu` line of `/proc/stat`, in its order.
const CPU: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];

/// Lines of `/proc/PID/status` that are numbers worth telling.
const STATUS: [&str; 19] = [
    "VmPeak",
    "VmSize",
    "VmLck",
    "VmPin",
    "VmHWM",
    "VmRSS",
    "RssAnon",
    "RssFile",
    "RssShmem",
    "VmData",
    "VmStk",
    "VmExe",
    "VmLib",
    "VmPTE",
    "VmPMD",
    "VmSwap",
    "HugetlbPages",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// Named numbers.
pub(super) type Items = Vec<(String, u64)>;

fn zip(names: &[&str], fields: &[&str]) -> Items {
    let numbers = fields.iter().map(|field| field.parse().ok());
    names.iter().zip(numbers).filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect()
}

fn fields(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// `/proc/loadavg`: the three averages, and how many tasks can run of how many there are.
pub(super) fn load(text: &str) -> Option<([f64; 3], [u64; 2])> {
    let fields = fields(text);
    let average = |at: usize| fields.get(at)?.parse().ok();
    let (running, all) = fields.get(3)?.split_once('/')?;
    Some(([average(0)?, average(1)?, average(2)?], [running.parse().ok()?, all.parse().ok()?]))
}

/// `/proc/stat`: the times of each processor in milliseconds, `total` for all. `hertz` is the unit of the file per second.
pub(super) fn cpu(text: &str, hertz: u64) -> Vec<(String, Items)> {
    let line = |line: &str| {
        let fields = fields(line);
        let (name, times) = fields.split_first()?;
        let number = name.strip_prefix("cpu")?;
        let name = if number.is_empty() { "total" } else { number };
        let mut items = zip(&CPU, times);
        items.iter_mut().for_each(|(_, ticks)| *ticks = *ticks * 1000 / hertz.max(1));
        Some((name.to_owned(), items))
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/diskstats`: per disk and partition.
pub(super) fn disks(text: &str) -> Vec<(String, Items)> {
    let line = |line: &str| {
        let fields = fields(line);
        Some(((*fields.get(2)?).to_owned(), zip(&DISK, fields.get(3..)?)))
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/net/dev`: per interface.
pub(super) fn interfaces(text: &str) -> Vec<(String, Items)> {
    let line = |line: &str| {
        let (name, counts) = line.rsplit_once(':')?;
        Some((name.trim().to_owned(), zip(&INTERFACE, &fields(counts))))
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/vmstat`, whose names are the items.
pub(super) fn vmstat(text: &str) -> Items {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/meminfo`, in bytes where it has a unit.
pub(super) fn meminfo(text: &str) -> Items {
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let fields = fields(value);
        let number: u64 = fields.first()?.parse().ok()?;
        let factor = if fields.get(1) == Some(&"kB") { 1024 } else { 1 };
        Some((memory_item(name), number * factor))
    };
    text.lines().filter_map(line).collect()
}

/// `SReclaimable` is `s_reclaimable`, `Active(anon)` is `active_anon`, `DirectMap2M` is `direct_map_2M`.
fn memory_item(name: &str) -> String {
    let name =
        name.replace("HugePages", "Hugepages").replace("Percpu", "PerCpu").replace('(', "_").replace(')', "");
    let characters: Vec<char> = name.chars().collect();
    let mut item = String::new();
    for (at, &character) in characters.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| characters[at]);
        let after = characters.get(at + 1);
        let begins_word = character.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase()
                    || before.is_uppercase() && after.is_some_and(|after| after.is_lowercase())
            });
        let begins_number = character.is_ascii_digit() && before.is_some_and(char::is_alphabetic);
        if begins_word || begins_number {
            item.push('_');
        }
        if before.is_some_and(|before| before.is_ascii_digit()) {
            item.push(character);
        } else {
            item.extend(character.to_lowercase());
        }
    }
    item
}

/// `/proc/PID/status`: sizes in kB, as the file has them, and counts of context switches.
pub(super) fn status(text: &str) -> Items {
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let number = fields(value).first()?.parse().ok()?;
        STATUS.contains(&name).then(|| (name.to_ascii_lowercase(), number))
    };
    text.lines().filter_map(line).collect()
}

/// `/proc/PID/io`.
pub(super) fn io(text: &str) -> Items {
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `utime`, `stime`, `cutime` and `cstime`, in clock ticks.
    pub(super) times: [u64; 4],
    /// Threads.
    pub(super) threads: u64,
    /// Virtual size in bytes.
    pub(super) virtual_bytes: u64,
    /// Resident pages.
    pub(super) resident_pages: u64,
}

/// `/proc/PID/stat`. The name in parentheses may hold anything, parentheses included.
pub(super) fn stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields = fields(rest);
    // `rest` begins with the third field of the page's table.
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Stat {
        times: [field(14)?, field(15)?, field(16)?, field(17)?],
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
    })
}

/// A file of `/proc/pressure`: kind (`some`, `full`) and window, in percent of the time; and the total in microseconds.
pub(super) fn pressure(text: &str) -> Vec<(String, Vec<(String, f64)>)> {
    let line = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        let entry = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Some((kind.to_owned(), rest.split(' ').filter_map(entry).collect()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(items: &Items, name: &str) -> u64 {
        items.iter().find(|(item, _)| item == name).unwrap_or_else(|| panic!("no {name} in {items:?}")).1
    }

    #[test]
    fn load_and_tasks() {
        assert_eq!(load("0.50 0.25 1.00 2/77 123\n"), Some(([0.5, 0.25, 1.0], [2, 77])));
        assert_eq!(load("nonsense"), None);
    }

    #[test]
    fn processors_are_in_milliseconds() {
        let text = "cpu  300 0 20 1000 0 0 5 0 0 0\ncpu1 1 2 3 4 5 6 7 8 9 10\nintr 5 6\nctxt 9\n";
        let all = cpu(text, 100);
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].0.as_str(), item(&all[0].1, "user"), item(&all[0].1, "idle")),
            ("total", 3000, 10_000)
        );
        assert_eq!((all[1].0.as_str(), item(&all[1].1, "guest_nice")), ("1", 100));
    }

    #[test]
    fn disks_and_interfaces() {
        let text = " 254       0 vda 10 1 80 5 2 0 16 3 0 8 8 0 0 0 0 4 6\n 254 1 vda1 1\n";
        let all = disks(text);
        assert_eq!((all[0].0.as_str(), item(&all[0].1, "sectors_read")), ("vda", 80));
        assert_eq!(item(&all[0].1, "time_flushing"), 6);
        assert_eq!(all[1].1, [("reads".to_owned(), 1)]);
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 8 7 6 5 4 3 2 1 10 11 12 13 14 15 16\n";
        let all = interfaces(text);
        assert_eq!((all.len(), all[0].0.as_str()), (1, "lo"));
        assert_eq!((item(&all[0].1, "recv_bytes"), item(&all[0].1, "sent_compressed")), (9, 16));
    }

    #[test]
    fn memory_has_the_names_of_dashboards_and_is_in_bytes() {
        let text = "MemTotal: 2 kB\nActive(anon): 1 kB\nSReclaimable: 1 kB\nHugePages_Total: 7\nHugepagesize: 2048 kB\n\
                    DirectMap2M: 1 kB\nDirectMap4k: 1 kB\nNFS_Unstable: 0 kB\nCommitted_AS: 3 kB\nAnonHugePages: 4 kB\n\
                    ShmemPmdMapped: 0 kB\nPercpu: 5 kB\nKReclaimable: 6 kB\nSUnreclaim: 1 kB\nWritebackTmp: 0 kB\n\
                    VmallocChunk: 0 kB\nCmaFree: 0 kB\nBroken\n";
        let all = meminfo(text);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "mem_total",
                "active_anon",
                "s_reclaimable",
                "hugepages_total",
                "hugepagesize",
                "direct_map_2M",
                "direct_map_4k",
                "nfs_unstable",
                "committed_as",
                "anon_hugepages",
                "shmem_pmd_mapped",
                "per_cpu",
                "k_reclaimable",
                "s_unreclaim",
                "writeback_tmp",
                "vmalloc_chunk",
                "cma_free"
            ]
        );
        assert_eq!((item(&all, "mem_total"), item(&all, "hugepages_total")), (2048, 7));
    }

    #[test]
    fn a_process() {
        let text = "1 (a ) b) S 0 1 1 0 -1 4194560 90 100 0 0 11 12 13 14 20 0 5 0 60 7340032 1025 18446744073709551615";
        let stat = stat(text).unwrap();
        assert_eq!(stat.times, [11, 12, 13, 14]);
        assert_eq!((stat.threads, stat.virtual_bytes, stat.resident_pages), (5, 7_340_032, 1025));
        let items = status("Name:\tagent\nVmRSS:\t 4100 kB\nThreads:\t5\nvoluntary_ctxt_switches:\t9\n");
        assert_eq!(items, [("vmrss".to_owned(), 4100), ("voluntary_ctxt_switches".to_owned(), 9)]);
        assert_eq!(io("rchar: 5\ncancelled_write_bytes: 0\n").len(), 2);
        assert_eq!(vmstat("nr_free_pages 5\noops\n"), [("nr_free_pages".to_owned(), 5)]);
    }

    #[test]
    fn pressure_has_kinds_and_windows() {
        let all = pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00\n");
        assert_eq!(all[0].0, "some");
        assert_eq!(all[0].1[0], ("avg10".to_owned(), 1.5));
        assert_eq!(all[0].1[3], ("total".to_owned(), 77.0));
        assert_eq!(all[1].0, "full");
    }
}
