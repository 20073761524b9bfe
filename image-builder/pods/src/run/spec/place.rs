//! Paths: where the guest keeps what the host gives it, and which paths of a container are special.

/// Where the agent keeps what belongs to containers and to the pod.
pub(in crate::run) const RUN: &str = "/run/kata-containers";
/// Where the guest keeps what the host shares with it or copies to it.
pub(in crate::run) const SHARED: &str = "/run/kata-containers/shared/containers";
/// Where emptyDirs are that have no size of their own.
pub(super) const SCRATCH: &str = "/run/kata-containers/sandbox/local";
/// The pod's own files below it; no volume's name has a dot.
const OWN: &str = ".pod";

/// What containers of this program run: the agent's program under this name does what is wanted there.
pub(in crate::run) const COMPANION: &str = "/companion";
/// What containers do not see.
pub(super) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// What containers only read.
pub(super) const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where the guest has a file of the pod's own.
pub(in crate::run) fn own_file(name: &str) -> String {
    format!("{SHARED}/{OWN}/{name}")
}

/// Where the guest has a volume, or the file that it is.
pub(in crate::run) fn shared_point(volume: &str) -> String {
    format!("{SHARED}/{volume}")
}

/// Where the guest has a part of one.
pub(in crate::run) fn shared_part_point(volume: &str, path: &str) -> String {
    shared_point(&flat(volume, path))
}

/// One file name for a part of a volume.
pub(in crate::run) fn flat(volume: &str, path: &str) -> String {
    // Escaped so that two parts never have one name; a volume's own name has neither of these.
    format!("{volume}.{}", path.replace('%', "%25").replace('/', "%2f"))
}
