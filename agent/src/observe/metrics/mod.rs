//! Metrics in the Prometheus text format, under the names that kata-monitor's users know.
//!
//! Owns the count of scrapes; everything else is read from the kernel when it is asked for. Promises a text that parses,
//! whatever statistics the kernel has: a file that is not there leaves its family out. Must never be called on the
//! runtime's thread: it reads files and asks file systems.

mod proc;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use text::{Exposition, MetricType};

use crate::guest::clock::Restores;

/// File systems whose room is worth a gauge: what has a disk of its own. Others would count the memory again.
const WITH_ROOM: [&str; 5] = ["btrfs", "ext4", "overlay", "vfat", "xfs"];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    scrapes: AtomicU64,
}

impl Metrics {
    /// The whole text. `containers` counts them by state. Blocks.
    pub(crate) fn gather(&self, containers: &BTreeMap<String, usize>, restores: Restores) -> String {
        let mut text = Exposition::default();
        let scrapes = self.scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        text.family("kata_agent_scrape_count", MetricType::Counter, "Metrics scrape count.").value(scrapes);
        agent(&mut text);
        guest(&mut text);
        room(&mut text);
        pressure(&mut text);
        let mut family = text.family("pith_containers", MetricType::Gauge, "Containers by state.");
        for (state, count) in containers {
            family.sample(&[("state", state)], count);
        }
        let help = "Signs that the VM was saved, restored or moved, by kind.";
        let mut family = text.family("pith_guest_restores", MetricType::Counter, help);
        for (sign, count) in
            [("generation", restores.forked), ("reset", restores.reset), ("clock", restores.still)]
        {
            family.sample(&[("sign", sign)], count);
        }
        let help = "How often the agent made the real-time clock jump to the right time.";
        text.family("pith_guest_clock_steps", MetricType::Counter, help).value(restores.stepped);
        text.finish()
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A family whose samples differ in their label `item` only.
fn items(text: &mut Exposition, name: &'static str, help: &str, items: Option<proc::Items>) {
    let Some(items) = items else { return };
    let mut family = text.family(name, MetricType::Gauge, help);
    for (item, value) in items {
        family.item(&item, value);
    }
}

fn agent(text: &mut Exposition) {
    if let Some(stat) = read("/proc/self/stat").as_deref().and_then(proc::stat) {
        let [user, system, child_user, child_system] = stat.times;
        let seconds = (user + system) as f64 / hertz() as f64;
        let mut gauge = |name, help, value: f64| {
            text.family(name, MetricType::Gauge, help).value(value);
        };
        gauge("kata_agent_threads", "Agent process threads.", stat.threads as f64);
        gauge("kata_agent_total_time", "Agent process total time, in seconds.", seconds);
        gauge("kata_agent_total_vm", "Agent process total VM size, in bytes.", stat.virtual_bytes as f64);
        let resident = stat.resident_pages * rustix::param::page_size() as u64;
        gauge("kata_agent_total_rss", "Agent process total RSS size, in bytes.", resident as f64);
        let help = "Agent process statistics, in clock ticks.";
        let mut family = text.family("kata_agent_proc_stat", MetricType::Gauge, help);
        family.item("utime", user).item("stime", system);
        family.item("cutime", child_user).item("cstime", child_system);
    }
    let status = read("/proc/self/status").as_deref().map(proc::status);
    items(text, "kata_agent_proc_status", "Agent process status; sizes in kB.", status);
    let io = read("/proc/self/io").as_deref().map(proc::io);
    items(text, "kata_agent_io_stat", "Agent process IO statistics.", io);
}

fn guest(text: &mut Exposition) {
    if let Some((averages, [running, all])) = read("/proc/loadavg").as_deref().and_then(proc::load) {
        let mut family = text.family("kata_guest_load", MetricType::Gauge, "Guest system load.");
        family.item("load1", averages[0]).item("load5", averages[1]).item("load15", averages[2]);
        let help = "Guest tasks: that can run now, and all.";
        text.family("kata_guest_tasks", MetricType::Gauge, help).item("cur", running).item("max", all);
    }
    let meminfo = read("/proc/meminfo").as_deref().map(proc::meminfo);
    items(text, "kata_guest_meminfo", "Statistics about memory usage in the system, in bytes.", meminfo);
    let vmstat = read("/proc/vmstat").as_deref().map(proc::vmstat);
    items(text, "kata_guest_vm_stat", "Guest virtual memory statistics.", vmstat);
    let mut by = |name, help, label, all: Option<Vec<(String, proc::Items)>>| {
        let Some(all) = all else { return };
        let mut family = text.family(name, MetricType::Gauge, help);
        for (subject, items) in &all {
            for (item, value) in items {
                family.sample(&[(label, subject), ("item", item)], value);
            }
        }
    };
    let cpu = read("/proc/stat").map(|stat| proc::cpu(&stat, hertz()));
    by("kata_guest_cpu_time", "Guest CPU statistics, in milliseconds.", "cpu", cpu);
    let disks = read("/proc/diskstats").as_deref().map(proc::disks);
    by("kata_guest_diskstat", "Disks statistics in system.", "disk", disks);
    let interfaces = read("/proc/net/dev").as_deref().map(proc::interfaces);
    by("kata_guest_netdev_stat", "Guest net devices statistics.", "interface", interfaces);
}

/// How full the writable disks are.
fn room(text: &mut Exposition) {
    let mounts = mountinfo::mounts().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut rooms = Vec::new();
    for mount in mounts.iter().rev() {
        let is_told = mount.is_writable && WITH_ROOM.contains(&mount.fstype.as_str());
        // Of mounts on one point only the last can be asked.
        if seen.insert(&mount.point) && is_told {
            rooms.extend(crate::guest::volume::usage(&mount.point).ok().map(|usage| (mount, usage)));
        }
    }
    if rooms.is_empty() {
        return;
    }
    let families = [
        ("kata_guest_filesystem_bytes", "Room of a file system, in bytes."),
        ("kata_guest_filesystem_inodes", "Room of a file system, in inodes."),
    ];
    for (at, (name, help)) in families.into_iter().enumerate() {
        let mut family = text.family(name, MetricType::Gauge, help);
        for (mount, (bytes, inodes)) in rooms.iter().rev() {
            let usage = if at == 0 { bytes } else { inodes };
            let point = mount.point.to_string_lossy();
            for (item, value) in
                [("total", usage.total), ("used", usage.used), ("available", usage.available)]
            {
                family.sample(&[("mount", &point), ("device", &mount.source), ("item", item)], value);
            }
        }
    }
}

/// What the kernel says about waiting for processors, memory and disks (Documentation/accounting/psi.rst).
fn pressure(text: &mut Exposition) {
    let read = |resource: &'static str| {
        let path = Path::new("/proc/pressure").join(resource);
        std::fs::read_to_string(path).ok().map(|file| (resource, proc::pressure(&file)))
    };
    let all: Vec<_> = ["cpu", "io", "memory"].into_iter().filter_map(read).collect();
    if all.is_empty() {
        return;
    }
    let help = "Share of time that tasks waited, in percent; total in microseconds.";
    let mut family = text.family("pith_guest_pressure", MetricType::Gauge, help);
    for (resource, kinds) in &all {
        for (kind, windows) in kinds {
            for (window, value) in windows {
                family.sample(&[("resource", resource), ("kind", kind), ("window", window)], value);
            }
        }
    }
}

/// Clock ticks per second in `/proc`.
fn hertz() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_the_family_before_it() {
        let metrics = Metrics::default();
        metrics.gather(&BTreeMap::new(), Restores::default());
        let text = metrics.gather(
            &BTreeMap::from([("running".to_owned(), 2)]),
            Restores { reset: 3, ..Restores::default() },
        );
        let mut family = String::new();
        let mut names = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(names.insert(family.clone()), "{family} comes twice");
            } else if line.strip_prefix("# TYPE ").is_none() {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next().unwrap(), family);
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("\nkata_agent_scrape_count 2\n"), "{text}");
        assert!(text.contains("\npith_containers{state=\"running\"} 2\n"), "{text}");
        assert!(text.contains("\npith_guest_restores{sign=\"reset\"} 3\n"), "{text}");
        for name in
            ["kata_agent_total_rss", "kata_guest_meminfo", "kata_guest_cpu_time", "kata_guest_vm_stat"]
        {
            assert!(names.contains(name), "{name}");
        }
    }
}
