//! Known differences, each with its reason. One that is none any more fails the test.

use crate::report::Difference;

/// A difference that is as it should be.
#[derive(Debug)]
pub(crate) struct Known {
    /// Bundles: a name, or `*` for all.
    pub(crate) bundle: &'static str,
    /// `crun`, `runc` or `*`.
    pub(crate) runtime: &'static str,
    /// Place in the report, which may end in `*`.
    pub(crate) place: &'static str,
    /// Why it is so.
    pub(crate) reason: &'static str,
}

impl Known {
    pub(crate) fn covers(&self, bundle: &str, runtime: &str, difference: &Difference) -> bool {
        let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => pattern == text,
        };
        fits(self.bundle, bundle) && fits(self.runtime, runtime) && fits(self.place, &difference.place)
    }
}

/// All of them.
#[rustfmt::skip]
pub(crate) const KNOWN: &[Known] = &[
    known("*", "crun", "controls/misc.max", "crun only delegates the controllers that it knows, and it does not know misc"),
    known("*", "crun", "controls/rdma.max", "crun only delegates the controllers that it knows, and it does not know rdma"),
    known("*", "crun", "mounts", "crun masks paths first, then makes others read-only; we do it the other way round, so that a path that is both ends masked"),
    known("*", "crun", "mounts//", "crun drops the flags (nosuid, nodev) of the mount that the root is bound from; we keep them"),
    known("*", "crun", "mounts//proc/keys", "crun covers a file with a read-only mount of the null device; for the null device, read-only has no effect"),
    known("*", "crun", "mounts//proc/timer_list", "as `/proc/keys`"),
    known("*", "crun", "mounts//sys/firmware", "crun covers a directory with a tmpfs of size 0; we use a read-only tmpfs of 4 KiB"),
    known("*", "crun", "devices/core", "crun links /dev/core to /proc/kcore, which the runtime spec does not ask for"),
    known("*", "runc", "mounts//proc/keys", "runc covers a file with the container's own /dev/null, which an image can replace (CVE-2025-31133); we use the guest's"),
    known("*", "runc", "mounts//proc/timer_list", "as `/proc/keys`"),
    known("*", "runc", "mounts//sys", "runc makes the file system read-only; we make the mount read-only"),
    known("*", "runc", "mounts//sys/firmware", "runc covers a directory with a read-only file system; we use a read-only mount of a tmpfs of 4 KiB"),
    known("*", "runc", "streams", "runc copies the streams through pipes; with us they are the container's own"),
    known("user", "crun", "env", "crun sets no HOME for a user that the image does not name; with us it is /"),
    known("capabilities-of-a-user", "crun", "env", "as for `user`"),
    known("home-of-a-user", "crun", "devices/null", "if the null device is one of the streams, crun makes the container's user its owner; with us it still belongs to root"),
    known("user", "crun", "devices/null", "if the null device is one of the streams, crun makes the container's user its owner; with us it still belongs to root"),
    known("capabilities-of-a-user", "crun", "devices/null", "if the null device is one of the streams, crun makes the container's user its owner; with us it still belongs to root"),
    known("readonly-root", "runc", "mounts//", "runc drops the flags (nosuid, nodev) of the root's mount when it makes it read-only; we keep them"),
    known("root-shared", "runc", "mounts//", "runc does not set this propagation on the container's root; the runtime spec asks for it"),
    known("root-rshared", "runc", "mounts//", "runc does not set this propagation on the container's root; the runtime spec asks for it"),
    known("root-unbindable", "runc", "mounts//", "runc does not set this propagation on the container's root; the runtime spec asks for it"),
    known("root-rshared", "runc", "mounts//*", "runc does not set this propagation on the container's root; the runtime spec asks for it"),
    known("names", "runc", "domainname", "this runc does not know the property"),
    known("personality", "runc", "personality", "this runc does not know the property"),
    known("scheduler-*", "crun", "scheduler", "this crun does not know the property"),
    known("io-priority", "crun", "io_priority", "this crun does not know the property"),
    known("cpu-burst", "crun", "controls/cpu.max.burst", "this crun does not know the property"),
    known("hugepages", "crun", "controls/hugetlb.2MB.rsvd.max", "we limit reservations too, so that a process is refused at mmap and not killed at the page fault"),
    known("time", "crun", "status", "this crun does not know time namespaces"),
    known("root-runbindable", "crun", "status", "crun makes the root unbindable too early and fails; we do it when the root is complete"),
    known("cgroup-of-the-guest", "crun", "cgroup", "we always give a container a cgroup namespace: without one it sees the guest's tree"),
    known("cgroup-of-the-guest", "crun", "namespaces/cgroup", "as above"),
    known("cgroup-of-the-guest", "crun", "controls/*", "as above"),
    known("cgroup-of-the-guest", "crun", "mounts//sys/fs/cgroup", "as above"),
    known("overlay", "crun", "refused", "crun passes all options to the kernel in one string, so an option cannot contain a comma; we pass each option by itself"),
    known("time-offset-without-a-namespace", "crun", "refused", "this crun does not know the property"),
    known("bind-file", "crun", "mounts//etc/config/deep/file", "crun drops the flags of the source's mount when it makes the bind read-only; we keep them"),
    known("scheduler-*", "runc", "scheduler", "this runc does not know the property"),
    known("io-priority", "runc", "io_priority", "this runc does not know the property"),
    known("cpu-burst", "runc", "controls/cpu.max.burst", "this runc does not know the property"),
    known("hugepages", "runc", "controls/hugetlb.2MB.rsvd.max", "we limit reservations too, so that a process is refused at mmap and not killed at the page fault"),
    known("time", "runc", "status", "this runc does not know time namespaces"),
    known("root-runbindable", "runc", "status", "runc makes the root unbindable too early and fails; we do it when the root is complete"),
    known("cgroup-of-the-guest", "runc", "cgroup", "we always give a container a cgroup namespace: without one it sees the guest's tree"),
    known("cgroup-of-the-guest", "runc", "namespaces/cgroup", "as above"),
    known("cgroup-of-the-guest", "runc", "controls/*", "as above"),
    known("cgroup-of-the-guest", "runc", "mounts//sys/fs/cgroup", "as above"),
    known("overlay", "runc", "refused", "runc passes all options to the kernel in one string, so an option cannot contain a comma; we pass each option by itself"),
    known("time-offset-without-a-namespace", "runc", "refused", "this runc does not know the property"),
    known("bind-file", "runc", "mounts//etc/config/deep/file", "runc drops the flags of the source's mount when it makes the bind read-only; we keep them"),
    known("cpu-idle", "runc", "controls/cpu.idle", "this runc does not know the property"),
    known("cpu-idle", "runc", "controls/cpu.weight", "this runc does not know the property"),
    known("seccomp-flags", "runc", "status", "this runc refuses flags of seccomp"),
    known("no-mounts", "runc", "status", "runc opens the container's own /dev/null, which cannot be used on the test's nodev root"),
    known("device-in-place-of-a-default", "runc", "status", "runc opens the container's own /dev/null for writing, which this one does not allow"),
    known("user-and-network-of-the-guest", "runc", "status", "this runc mounts no /sys in a user namespace that does not own the network; we mount it before, with the guest's privileges"),
    known("user-and-namespaces-by-path", "runc", "status", "as for `user-and-network-of-the-guest`"),
    known("user-and-network-of-the-guest", "crun", "mounts//sys*", "crun binds the guest's /sys there, without the flags that were asked for and with the guest's control groups below; we mount the network's own"),
    known("user-and-namespaces-by-path", "crun", "mounts//sys*", "as for `user-and-network-of-the-guest`"),
    known("user-and-namespaces-by-path", "crun", "mounts//dev/mqueue", "crun binds the guest's queues, without the flags that were asked for; we mount those of the namespace"),
    known("user-and-ipc-of-the-guest", "*", "status", "others mount no queues in a user namespace that does not own the IPC namespace; we mount them before, with the guest's privileges"),
    known("user-and-pid-of-the-guest", "*", "status", "others mount no /proc in a user namespace that does not own the pid namespace; we mount it before, with the guest's privileges"),
    known("tmpfs-keeps-the-mode", "crun", "tried/mode /private", "this crun makes a tmpfs open to all; runc, docker and podman keep the mode of the directory"),
    known("tmpfs-keeps-the-mode", "crun", "tried/mode /group", "this crun makes a tmpfs open to all; runc, docker and podman keep the mode of the directory"),
    known("tmpfs-keeps-the-mode", "runc", "tried/mode /said", "this runc gives a tmpfs the mode of the directory even where the mount says another; later ones do as it says"),
    known("tmpfs-keeps-the-mode", "*", "mounts//private", "with us the file system has the mode from the start, with runc its directory gets it afterwards"),
    known("tmpfs-keeps-the-mode", "*", "mounts//group", "as `mounts//private`"),
    known("tmpfs-through-a-link", "crun", "tried/mode /private", "this crun makes a tmpfs open to all; runc, docker and podman keep the mode of the directory"),
    known("tmpfs-through-a-link", "*", "mounts//private", "as for `tmpfs-keeps-the-mode`"),
    known("tmpfs-keeps-the-mode", "crun", "root/*", "as `tried/mode /private`"),
    known("tmpfs-keeps-the-mode", "runc", "root/said", "as `tried/mode /said`"),
    known("tmpfs-through-a-link", "crun", "root/private", "as `tried/mode /private`"),
    known("tmpfs-on-nothing", "crun", "root/fresh", "this crun adds the sticky bit to the mode of a directory that it made"),
    known("tmpfs-on-nothing", "crun", "tried/mode /fresh", "as `root/fresh`"),
    known("user-and-bind", "runc", "status", "runc cannot bind a directory without what is mounted below it in a user namespace, where mounts are locked together; we bind it before"),
    known("user-by-path", "runc", "status", "runc joins no user namespace without mappings"),
    known("bind-recursive-attributes", "crun", "status", "crun fails to set these together"),
    known("bind*", "crun", "mounts//volume", "crun drops the flags (nosuid, nodev) of the source's mount; we keep them"),
    known("bind-*", "runc", "mounts//volume", "runc drops the flags of the source's mount when it changes any; we keep them"),
    known("volume-*", "crun", "mounts//volume*", "crun drops the flags (nosuid, nodev) of the source's mount, and sets no propagation that is the mount's own"),
    known("bind-over-a-file-keeps-it", "crun", "mounts//etc/covered", "crun drops the flags of the source's mount; we keep them"),
    known("relative-source", "crun", "mounts//beside", "crun drops the flags of the source's mount; we keep them"),
    known("user-and-bind", "crun", "mounts//volume", "crun drops the flags of the source's mount; we keep them"),
    known("idmap", "runc", "stdout", "this runc does not know ID-mapped mounts, and passes over the words without an error"),
    known("tmpcopyup", "crun", "root/full", "crun leaves the new file system its own mode; with us, as with runc, it has that of the directory it covers"),
    known("proc-options", "crun", "mounts//proc/*", "crun drops the flags of /proc from what it makes read-only below; we keep them"),
    known("readonly-paths", "crun", "mounts//kept/*", "crun drops the flags of the mount that a path is on; we keep them"),
    known("masked-files-and-directories", "*", "mounts//secret/*", "as `/proc/keys` and `/sys/firmware`"),
    known("writable-cgroup", "crun", "tried/list /sys/fs/cgroup", "crun only delegates the controllers that it knows, so there are fewer files"),
    known("no-mounts", "crun", "stdout", "crun links /dev/core to /proc/kcore, which the runtime spec does not ask for"),
    known("relative-cwd", "crun", "refused", "crun takes it from the root; the runtime spec asks for an absolute path"),
    known("namespace-twice", "crun", "refused", "crun takes the last one; the runtime spec asks for an error"),
    known("unknown-propagation", "crun", "refused", "crun passes over a word that it does not know"),
    known("cache-allocation-without-it", "crun", "refused", "crun passes over what it does not know here"),
    known("user*", "crun", "keyring", "crun makes the keyring before it becomes the namespace's root, so it is nobody's there"),
    known("user*", "crun", "devices/null", "crun gives the guest's null device to the root of the namespace; with us it stays the guest's"),
    known("user*", "crun", "mounts//dev/*", "crun binds devices noexec"),
    known("user*", "runc", "devices/mqueue", "with runc the group is one that the namespace does not have"),
    known("user*", "runc", "mounts", "runc masks paths first, as crun does"),
    known("user-with-raised-limits", "crun", "limits/Max open files", "a limit that a spec does not name is the kernel's usual one with us, and that of whoever starts it with others"),
    known("user-with-raised-limits", "runc", "limits/Max open files", "a limit that a spec does not name is the kernel's usual one with us, and that of whoever starts it with others"),
    known("hook-prestart", "crun", "after", "with crun the state of these hooks says created; the runtime spec has creating"),
    known("hook-create-*", "crun", "after", "with crun the state of these hooks says created; the runtime spec has creating"),
    known("hook-prestart-that-fails", "crun", "after", "with crun the state of these hooks says created; the runtime spec has creating"),
    known("hook-start-container", "crun", "after", "with crun the state says starting, which the runtime spec does not know"),
    known("hook-poststart", "runc", "after", "with runc the state says created; the program runs by then"),
    known("words-of-a-*", "crun", "mounts//words/ro+rw", "of two words that contradict each other crun takes the one that restricts; with us, as with runc, the last counts"),
    known("words-of-a-bind", "crun", "mounts//words/noexec+exec", "as above"),
    known("words-of-a-tmpfs", "crun", "mounts//words/nosuid+suid", "as above"),
    known("words-of-a-bind", "*", "mounts//words/*", "crun drops the flags of the source's mount, runc where a word changes any; we keep them"),
    known("words-of-propagation", "crun", "mounts//words/*", "crun drops the flags of the source's mount, and sets no propagation that is the mount's own"),
    known("words-of-*", "crun", "root/words", "crun makes the directories above a missing mount point sticky; no permission follows from it"),
    known("readonly-root-gets-its-places", "crun", "root/made", "as above"),
    known("readonly-root-gets-its-places", "*", "after", "which modes a missing mount point is made with is the runtime's own affair: a mount covers it"),
    known("readonly-root-gets-its-places", "*", "mounts//made/file", "crun and runc drop the flags of the source's mount; we keep them"),
    known("readonly-root-gets-its-places", "runc", "mounts//", "as for `readonly-root`"),
    known("file-through-a-link", "*", "mounts//outside", "crun and runc drop the flags of the source's mount; we keep them"),
    known("masks-and-mounts", "*", "tried/create /a/below/*", "a read-only path is read-only with all that is mounted below it; with crun and runc only its own mount is"),
    known("masks-and-mounts", "*", "mounts//a/below/file*", "as `/proc/keys`; with crun, which masks first, the cover comes along when the path above is made read-only"),
    known("masks-and-mounts", "*", "mounts//a/below*", "a read-only path is read-only with all that is mounted below it; with crun and runc only its own mount is"),
    known("mask-through-a-link", "*", "mounts//secret/file", "as `/proc/keys`"),
    known("mask-through-a-link", "crun", "mounts//kept", "crun drops the flags of the mount that a path is on; we keep them"),
    known("io-weight-of-a-device", "runc", "refused", "runc passes over a weight that the device's queue cannot have"),
    known("hooks-in-their-order", "crun", "signals/SigBlk", "crun leaves SIGCHLD blocked in the program after these hooks; we hand no blocked signal on"),
    known("hooks-in-their-order", "*", "after", "our createContainer hooks see the container's hostname, others set it after them; the runtime spec has no order for it"),
];

/// Those of the specs that real engines wrote, beside what is so for all bundles.
#[rustfmt::skip]
pub(crate) const OF_ENGINES: &[Known] = &[
    known("*", "crun", "tried/mode /private", "as for `tmpfs-keeps-the-mode`"),
    known("*", "*", "mounts//private", "as for `tmpfs-keeps-the-mode`"),
    known("*", "runc", "tried/mode /data", "as `/said` of `tmpfs-keeps-the-mode`"),
];

const fn known(
    bundle: &'static str,
    runtime: &'static str,
    place: &'static str,
    reason: &'static str,
) -> Known {
    Known { bundle, runtime, place, reason }
}
