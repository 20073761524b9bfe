//! The table of boot steps, and how each is printed. Data only: nothing here touches the system.

use std::fmt;

use nix::mount::MsFlags;
use nix::sys::resource::Resource;

/// What happens to the boot when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No container can run without it: a failure is an error.
    Must,
    /// Something will be missing, but pods still run: a failure is a warning.
    Should,
}

/// One line of the boot table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootStep {
    /// How bad a failure is.
    pub need: Need,
    /// What to do.
    pub step: Step,
}

/// One thing to do at boot. Its `Display` is the text that reports and warnings use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make a directory; one that exists keeps its mode.
    Dir {
        /// Absolute path.
        path: &'static str,
        /// Permission bits.
        mode: u32,
    },
    /// Mount a file system, unless the same type is mounted there already.
    Mount(Mount),
    /// Put the root on a mount of its own, unless it has a parent already: the kernel's first mount cannot be pivoted away
    /// (pivot_root(2), NOTES), so each container would have to detach every mount of the guest by itself.
    RootMount {
        /// Absolute path of `/proc`, which is mounted and goes with the root.
        proc: &'static str,
        /// Absolute path of an empty directory that is covered for a moment.
        through: &'static str,
    },
    /// Make a symbolic link, unless anything exists at `path`.
    Symlink {
        /// Absolute path of the link.
        path: &'static str,
        /// Text of the link.
        target: &'static str,
    },
    /// Make a character device, unless anything exists at its path.
    Node(Node),
    /// Make every mount below `path` shared, so that containers (whose roots are slaves of it) and the sandbox
    /// see what is mounted later.
    ShareMounts {
        /// Absolute path of a mount point.
        path: &'static str,
    },
    /// Enable every available cgroup v2 controller for the children of the cgroup at `path`.
    DelegateControllers {
        /// Absolute path of a cgroup directory.
        path: &'static str,
    },
    /// Write a kernel setting.
    Write {
        /// Absolute path of a file in proc or sysfs.
        path: &'static str,
        /// What to write.
        text: &'static str,
    },
    /// Set a limit of the kernel's. A kernel that does not have what is limited does not have the file.
    Limit {
        /// Absolute path of a file in proc.
        path: &'static str,
        /// What to write.
        text: &'static str,
    },
    /// Take away a limit of this process, and so of all that it starts and that is not given one of its own.
    Unlimited {
        /// As in setrlimit(2).
        name: &'static str,
        /// The same for the kernel.
        resource: Resource,
    },
    /// Raise this process's limits on open files, never lower them.
    OpenFiles {
        /// Soft limit. Moderate, since children inherit it and some programs close every possible descriptor.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// Become the leader of a session of its own, without a controlling terminal.
    Session,
    /// Set the host name from the first word of `file`, or to `default`, unless one is set.
    Hostname {
        /// Absolute path; a missing file is fine.
        file: &'static str,
        /// Used when the file gives nothing.
        default: &'static str,
    },
}

/// A file system to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount {
    /// File system type; also the source shown in the mount table.
    pub fstype: &'static str,
    /// Absolute path, created by a [`Step::Dir`] before or by the file system it lies on.
    pub target: &'static str,
    /// Mount flags.
    pub flags: MsFlags,
    /// Options for the file system itself; may be empty.
    pub data: &'static str,
}

/// A character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Absolute path.
    pub path: &'static str,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Permission bits.
    pub mode: u32,
}

const NSE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

const fn must(step: Step) -> BootStep {
    BootStep { need: Need::Must, step }
}

const fn should(step: Step) -> BootStep {
    BootStep { need: Need::Should, step }
}

const fn dir(path: &'static str, mode: u32) -> Step {
    Step::Dir { path, mode }
}

const fn mount(fstype: &'static str, target: &'static str, flags: MsFlags, data: &'static str) -> Step {
    Step::Mount(Mount { fstype, target, flags, data })
}

const fn link(path: &'static str, target: &'static str) -> Step {
    Step::Symlink { path, target }
}

const fn node(path: &'static str, major: u64, minor: u64, mode: u32) -> Step {
    Step::Node(Node { path, major, minor, mode })
}

/// The most that the kernel's numbers can hold.
const MOST_INT: &str = "2147483647";
const MOST_LONG: &str = "9223372036854775807";
/// `PID_MAX_LIMIT` of 64-bit kernels.
const MOST_PROCESSES: &str = "4194304";

const fn limit(path: &'static str, text: &'static str) -> BootStep {
    should(Step::Limit { path, text })
}

const fn unlimited(name: &'static str, resource: Resource) -> BootStep {
    should(Step::Unlimited { name, resource })
}

/// The boot, in order.
///
/// `/proc` comes first because the mount table is read from it. devtmpfs may fail: the nodes after it are enough
/// for containers without disks. The kernel makes `/dev/ptmx` on devtmpfs, and since 4.7 it finds the devpts
/// instance beside it, so the link is for the other case only.
pub const TABLE: &[BootStep] = &[
    must(dir("/proc", 0o555)),
    must(mount("proc", "/proc", NSE, "")),
    must(dir("/sys", 0o555)),
    // Before there are more mounts that would have to move.
    should(Step::RootMount { proc: "/proc", through: "/sys" }),
    must(mount("sysfs", "/sys", NSE, "")),
    must(dir("/dev", 0o755)),
    should(mount("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755")),
    must(node("/dev/null", 1, 3, 0o666)),
    should(node("/dev/zero", 1, 5, 0o666)),
    should(node("/dev/full", 1, 7, 0o666)),
    must(node("/dev/random", 1, 8, 0o666)),
    must(node("/dev/urandom", 1, 9, 0o666)),
    should(node("/dev/kmsg", 1, 11, 0o644)),
    should(node("/dev/tty", 5, 0, 0o666)),
    should(node("/dev/console", 5, 1, 0o600)),
    must(dir("/dev/pts", 0o755)),
    must(mount(
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "ptmxmode=0666,mode=0620,gid=5",
    )),
    should(link("/dev/ptmx", "pts/ptmx")),
    should(dir("/dev/shm", 0o1777)),
    should(mount("tmpfs", "/dev/shm", NS, "mode=1777")),
    // Without these, process substitution and `/dev/stdout` fail in the debug console.
    should(link("/dev/fd", "/proc/self/fd")),
    should(link("/dev/stdin", "/proc/self/fd/0")),
    should(link("/dev/stdout", "/proc/self/fd/1")),
    should(link("/dev/stderr", "/proc/self/fd/2")),
    must(dir("/run", 0o755)),
    must(mount("tmpfs", "/run", NS, "mode=0755")),
    should(dir("/var", 0o755)),
    should(link("/var/run", "/run")),
    should(dir("/tmp", 0o1777)),
    should(mount("tmpfs", "/tmp", NS, "mode=1777")),
    must(mount("cgroup2", "/sys/fs/cgroup", NSE.union(MsFlags::MS_RELATIME), "nsdelegate")),
    must(Step::DelegateControllers { path: "/sys/fs/cgroup" }),
    must(Step::ShareMounts { path: "/" }),
    // The kernel never picks PID 1, but what the agent forks for itself would do; containers get their own value.
    should(Step::Write { path: "/proc/self/oom_score_adj", text: "-999" }),
    should(Step::OpenFiles { soft: 65_536, hard: 1_048_576 }),
    // The kernel counts these for each user or for all, and nearly everybody here is user 0: one container could take all, and
    // then neither the agent nor another container would get any. Each is charged to the memory of the cgroup that takes it
    // (SLAB_ACCOUNT, GFP_KERNEL_ACCOUNT), so the limits of memory of the container and of the pod are its bound.
    limit("/proc/sys/fs/file-max", MOST_LONG),
    limit("/proc/sys/fs/epoll/max_user_watches", MOST_LONG),
    limit("/proc/sys/fs/inotify/max_user_instances", MOST_INT),
    limit("/proc/sys/fs/inotify/max_user_watches", MOST_INT),
    limit("/proc/sys/fs/fanotify/max_user_groups", MOST_INT),
    limit("/proc/sys/fs/fanotify/max_user_marks", MOST_INT),
    limit("/proc/sys/fs/pipe-user-pages-soft", "0"),
    limit("/proc/sys/fs/aio-max-nr", MOST_LONG),
    limit("/proc/sys/net/ipv4/tcp_mem", "2147483647\t2147483647\t2147483647"),
    limit("/proc/sys/net/ipv4/udp_mem", "2147483647\t2147483647\t2147483647"),
    limit("/proc/sys/user/max_mnt_namespaces", MOST_INT),
    limit("/proc/sys/user/max_user_namespaces", MOST_INT),
    limit("/proc/sys/user/max_pid_namespaces", MOST_INT),
    limit("/proc/sys/user/max_uts_namespaces", MOST_INT),
    limit("/proc/sys/user/max_cgroup_namespaces", MOST_INT),
    limit("/proc/sys/user/max_time_namespaces", MOST_INT),
    // Processes are counted by the pod's and the containers' pids.max, which are below the number of process ids.
    limit("/proc/sys/kernel/threads-max", MOST_PROCESSES),
    unlimited("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    unlimited("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    unlimited("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    // These are charged to nobody, so few can be had.
    limit("/proc/sys/user/max_net_namespaces", "64"),
    limit("/proc/sys/user/max_ipc_namespaces", "1024"),
    limit("/proc/sys/kernel/pty/max", "1536"),
    limit("/proc/sys/kernel/keys/root_maxkeys", "4000"),
    limit("/proc/sys/kernel/keys/root_maxbytes", "1000000"),
    should(Step::Session),
    should(Step::Hostname { file: "/etc/hostname", default: "localhost" }),
];

/// The names of the mount flags used in the table.
fn flag_names(flags: MsFlags) -> impl Iterator<Item = &'static str> {
    [
        (MsFlags::MS_NOSUID, "nosuid"),
        (MsFlags::MS_NODEV, "nodev"),
        (MsFlags::MS_NOEXEC, "noexec"),
        (MsFlags::MS_RELATIME, "relatime"),
    ]
    .into_iter()
    .filter(move |(flag, _)| flags.contains(*flag))
    .map(|(_, name)| name)
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Dir { path, mode } => write!(out, "make directory {path} ({mode:04o})"),
            Step::Mount(mount) => mount.fmt(out),
            Step::RootMount { .. } => write!(out, "put the root on a mount of its own"),
            Step::Symlink { path, target } => write!(out, "link {path} to {target}"),
            Step::Node(Node { path, major, minor, mode }) => {
                write!(out, "make device {path} (char {major}:{minor}, {mode:04o})")
            }
            Step::ShareMounts { path } => write!(out, "share mounts below {path}"),
            Step::DelegateControllers { path } => write!(out, "delegate cgroup controllers of {path}"),
            Step::Write { path, text } => write!(out, "write {text} to {path}"),
            Step::Limit { path, text } => write!(out, "limit {path} to {}", text.replace('\t', " ")),
            Step::Unlimited { name, .. } => write!(out, "take away {name}"),
            Step::OpenFiles { soft, hard } => write!(out, "raise open files to {soft} (at most {hard})"),
            Step::Session => write!(out, "lead a session"),
            Step::Hostname { file, default } => write!(out, "set host name from {file} or to {default}"),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options: Vec<&str> = flag_names(self.flags).collect();
        if !self.data.is_empty() {
            options.push(self.data);
        }
        write!(out, "mount {} on {} ({})", self.fstype, self.target, options.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path_of(step: &Step) -> Option<&'static str> {
        match step {
            Step::Dir { path, .. } | Step::Symlink { path, .. } => Some(path),
            Step::Node(node) => Some(node.path),
            Step::Mount(mount) => Some(mount.target),
            _ => None,
        }
    }

    #[test]
    fn steps_print_what_they_do() {
        let texts: Vec<String> = TABLE.iter().map(|entry| entry.step.to_string()).collect();
        for expected in [
            "make directory /proc (0555)",
            "mount proc on /proc (nosuid,nodev,noexec)",
            "mount devpts on /dev/pts (nosuid,noexec,ptmxmode=0666,mode=0620,gid=5)",
            "mount cgroup2 on /sys/fs/cgroup (nosuid,nodev,noexec,relatime,nsdelegate)",
            "make device /dev/null (char 1:3, 0666)",
            "link /dev/fd to /proc/self/fd",
            "delegate cgroup controllers of /sys/fs/cgroup",
            "put the root on a mount of its own",
            "share mounts below /",
            "write -999 to /proc/self/oom_score_adj",
        ] {
            assert!(texts.iter().any(|text| text == expected), "no step prints {expected:?}: {texts:#?}");
        }
        let mut unique = texts.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), texts.len(), "two steps print the same");
    }

    #[test]
    fn everything_lies_in_a_directory_made_before_it() {
        let mut made = vec!["/"];
        for entry in TABLE {
            let Some(path) = path_of(&entry.step) else { continue };
            assert!(path.starts_with('/'), "{path} is not absolute");
            let parent = Path::new(path).parent().and_then(Path::to_str);
            // The kernel makes /sys/fs/cgroup itself.
            assert!(
                parent.is_some_and(|parent| made.contains(&parent)) || path == "/sys/fs/cgroup",
                "{path} comes before its directory"
            );
            made.push(path);
        }
    }

    #[test]
    fn a_mount_never_hides_what_was_made_before() {
        let mut seen: Vec<&str> = Vec::new();
        for entry in TABLE {
            if let Step::Mount(mount) = entry.step {
                let below = format!("{}/", mount.target);
                assert!(
                    !seen.iter().any(|path| path.starts_with(&below)),
                    "{} hides an earlier step",
                    mount.target
                );
            }
            seen.extend(path_of(&entry.step));
        }
    }
}
