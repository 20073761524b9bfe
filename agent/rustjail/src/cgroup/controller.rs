//! The controllers, and which kernel option brings a control file.
//!
//! Owns: the names. Promises: an option for every file that [`super::limits`] may write, so that "missing" always
//! says what to build. Must never: look at the running kernel.

use std::fmt;

/// A cgroup v2 controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Weight, quota and burst of CPU time.
    Cpu,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// Block devices.
    Io,
    /// Number of tasks.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// RDMA handles and objects.
    Rdma,
    /// Scalar resources such as encrypted-VM keys.
    Misc,
}

impl Controller {
    const ALL: [Controller; 8] = [
        Controller::Cpu,
        Controller::Cpuset,
        Controller::Memory,
        Controller::Io,
        Controller::Pids,
        Controller::Hugetlb,
        Controller::Rdma,
        Controller::Misc,
    ];

    /// The controller's name in `cgroup.controllers`, which is also the prefix of its files.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Io => "io",
            Controller::Pids => "pids",
            Controller::Hugetlb => "hugetlb",
            Controller::Rdma => "rdma",
            Controller::Misc => "misc",
        }
    }

    /// The kernel option that builds the controller.
    pub fn kernel_option(self) -> &'static str {
        match self {
            Controller::Cpu => "CONFIG_CGROUP_SCHED",
            Controller::Cpuset => "CONFIG_CPUSETS",
            Controller::Memory => "CONFIG_MEMCG",
            Controller::Io => "CONFIG_BLK_CGROUP",
            Controller::Pids => "CONFIG_CGROUP_PIDS",
            Controller::Hugetlb => "CONFIG_CGROUP_HUGETLB",
            Controller::Rdma => "CONFIG_CGROUP_RDMA",
            Controller::Misc => "CONFIG_CGROUP_MISC",
        }
    }

    /// The controller a control file belongs to; none for `cgroup.*` and unknown prefixes.
    pub(super) fn of_file(file: &str) -> Option<Controller> {
        let (prefix, _) = file.split_once('.')?;
        Controller::ALL.into_iter().find(|controller| controller.name() == prefix)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kernel option that adds `file` to a controller which is there.
pub(super) fn option_of_file(file: &str) -> &'static str {
    match file {
        "cpu.max" | "cpu.max.burst" => "CONFIG_CFS_BANDWIDTH",
        "cpu.weight" | "cpu.idle" => "CONFIG_FAIR_GROUP_SCHED",
        "io.max" => "CONFIG_BLK_DEV_THROTTLING",
        "io.weight" => "CONFIG_BLK_CGROUP_IOCOST or CONFIG_BFQ_GROUP_IOSCHED",
        "io.bfq.weight" => "CONFIG_BFQ_GROUP_IOSCHED",
        "io.latency" => "CONFIG_BLK_CGROUP_IOLATENCY",
        "cgroup.kill" => "Linux 5.14 or newer",
        "cgroup.freeze" => "Linux 5.2 or newer",
        "memory.reclaim" => "Linux 6.11 or newer",
        _ if file.starts_with("memory.swap.") => "CONFIG_SWAP",
        _ if file.starts_with("memory.zswap.") => "CONFIG_ZSWAP",
        _ => Controller::of_file(file).map_or("a newer Linux", Controller::kernel_option),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_controller() {
        assert_eq!(Controller::of_file("cpu.max"), Some(Controller::Cpu));
        assert_eq!(Controller::of_file("cpuset.cpus"), Some(Controller::Cpuset));
        assert_eq!(Controller::of_file("hugetlb.2MB.max"), Some(Controller::Hugetlb));
        assert_eq!(Controller::of_file("cgroup.freeze"), None);
        assert_eq!(Controller::of_file("cpu"), None);
    }

    #[test]
    fn a_file_may_need_more_than_its_controller() {
        assert_eq!(option_of_file("cpu.max"), "CONFIG_CFS_BANDWIDTH");
        assert_eq!(option_of_file("memory.swap.max"), "CONFIG_SWAP");
        assert_eq!(option_of_file("memory.high"), "CONFIG_MEMCG");
    }
}
