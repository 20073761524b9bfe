//! Wire messages for the property tests: every field takes many values, in the form that `to_wire` gives.

#![allow(non_snake_case, reason = "the fields of the messages are named so")]

use std::collections::HashMap;

use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use protobuf::MessageField;

use crate::oci;

fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z=/é ]{0,8}", 0..4)
}

fn pairs() -> impl Strategy<Value = HashMap<String, String>> {
    hash_map("[a-z.]{1,8}", ".{0,8}", 0..4)
}

fn field<T: std::fmt::Debug>(inner: impl Strategy<Value = T>) -> impl Strategy<Value = MessageField<T>> {
    option::of(inner).prop_map(MessageField::from_option)
}

fn one_of(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(names).prop_map(str::to_owned)
}

/// Numbers that a block or character device can have.
fn device_number() -> impl Strategy<Value = i64> {
    prop_oneof![0..300i64, Just(i64::MAX)]
}

fn capability_names() -> impl Strategy<Value = Vec<String>> {
    // In the order that `to_wire` gives.
    subsequence(vec!["CAP_BPF", "CAP_CHOWN", "CAP_KILL", "CAP_SYSLOG", "CAP_SYS_ADMIN"], 0..=5)
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

prop_compose! {
    fn capabilities()(
        Bounding in capability_names(), Effective in capability_names(), Inheritable in capability_names(),
        Permitted in capability_names(), Ambient in capability_names(),
    ) -> oci::LinuxCapabilities {
        oci::LinuxCapabilities { Bounding, Effective, Inheritable, Permitted, Ambient, ..Default::default() }
    }
}

prop_compose! {
    fn rlimit()(
        Type in one_of(&["RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_MSGQUEUE", "RLIMIT_RTTIME"]),
        Hard: u64, Soft: u64,
    ) -> oci::POSIXRlimit {
        oci::POSIXRlimit { Type, Hard, Soft, ..Default::default() }
    }
}

prop_compose! {
    pub(super) fn process()(
        Terminal: bool,
        ConsoleSize in field((any::<u32>(), any::<u32>())
            .prop_map(|(Height, Width)| oci::Box { Height, Width, ..Default::default() })),
        User in (any::<u32>(), any::<u32>(), vec(any::<u32>(), 0..3), "[a-z]{0,4}")
            .prop_map(|(UID, GID, AdditionalGids, Username)|
                oci::User { UID, GID, AdditionalGids, Username, ..Default::default() }),
        (Args, Env) in (words(), words()),
        Cwd in "(/[a-zé]{0,5}){0,3}",
        Capabilities in field(capabilities()),
        Rlimits in vec(rlimit(), 0..3),
        NoNewPrivileges: bool,
        (ApparmorProfile, SelinuxLabel) in ("[a-z]{0,4}", "[a-z]{0,4}"),
        OOMScoreAdj in -1000..=1000i64,
    ) -> oci::Process {
        oci::Process {
            Terminal, ConsoleSize, User: Some(User).into(), Args, Env, Cwd, Capabilities, Rlimits,
            NoNewPrivileges, ApparmorProfile, OOMScoreAdj, SelinuxLabel, ..Default::default()
        }
    }
}

prop_compose! {
    /// Rules in the form that `to_wire` gives: "every number" is -1.
    fn device_rule()(
        Type in one_of(&["", "a", "b", "c", "u", "p"]),
        major in option::of(1..i64::MAX), minor in option::of(0..i64::MAX),
        Allow: bool, Access in one_of(&["", "r", "rwm"]),
    ) -> oci::LinuxDeviceCgroup {
        let every_type = Type.is_empty() || Type == "a";
        oci::LinuxDeviceCgroup {
            Allow, Access, Type, Major: major.unwrap_or(-1),
            Minor: minor.filter(|n| *n > 0 || !every_type).unwrap_or(-1), ..Default::default()
        }
    }
}

prop_compose! {
    fn memory()(
        n in proptest::array::uniform5(any::<i64>()), Swappiness: u64, DisableOOMKiller: bool,
    ) -> oci::LinuxMemory {
        oci::LinuxMemory {
            Limit: n[0], Reservation: n[1], Swap: n[2], Kernel: n[3], KernelTCP: n[4], Swappiness,
            DisableOOMKiller, ..Default::default()
        }
    }
}

prop_compose! {
    fn cpu()(
        (Shares, Period, RealtimePeriod) in any::<(u64, u64, u64)>(), (Quota, RealtimeRuntime) in any::<(i64, i64)>(),
        (Cpus, Mems) in ("[0-9,-]{0,5}", "[0-9,-]{0,5}"),
    ) -> oci::LinuxCPU {
        oci::LinuxCPU {
            Shares, Quota, Period, RealtimeRuntime, RealtimePeriod, Cpus, Mems, ..Default::default()
        }
    }
}

prop_compose! {
    fn weight_device()(
        Major in device_number(), Minor in device_number(), (w, l) in any::<(u16, u16)>(),
    ) -> oci::LinuxWeightDevice {
        oci::LinuxWeightDevice { Major, Minor, Weight: w.into(), LeafWeight: l.into(), ..Default::default() }
    }
}

fn throttles() -> impl Strategy<Value = Vec<oci::LinuxThrottleDevice>> {
    let throttle = (device_number(), device_number(), any::<u64>()).prop_map(|(Major, Minor, Rate)| {
        oci::LinuxThrottleDevice { Major, Minor, Rate, ..Default::default() }
    });
    vec(throttle, 0..3)
}

prop_compose! {
    fn block_io()(
        (w, l) in any::<(u16, u16)>(), WeightDevice in vec(weight_device(), 0..3),
        (rb, wb, ri, wi) in (throttles(), throttles(), throttles(), throttles()),
    ) -> oci::LinuxBlockIO {
        oci::LinuxBlockIO {
            Weight: w.into(), LeafWeight: l.into(), WeightDevice, ThrottleReadBpsDevice: rb,
            ThrottleWriteBpsDevice: wb, ThrottleReadIOPSDevice: ri, ThrottleWriteIOPSDevice: wi,
            ..Default::default()
        }
    }
}

prop_compose! {
    pub(super) fn resources()(
        Devices in vec(device_rule(), 0..4),
        Memory in field(memory()), CPU in field(cpu()),
        Pids in field(any::<i64>().prop_map(|Limit| oci::LinuxPids { Limit, ..Default::default() })),
        BlockIO in field(block_io()),
        HugepageLimits in vec(
            ("[0-9]{1,3}MB", prop_oneof![Just(u64::MAX), 0..=i64::MAX.unsigned_abs()]).prop_map(
                |(Pagesize, Limit)| oci::LinuxHugepageLimit { Pagesize, Limit, ..Default::default() }),
            0..3),
        Network in field((any::<u32>(), vec(("[a-z]{1,4}", any::<u32>()), 0..3)).prop_map(
            |(ClassID, priorities)| oci::LinuxNetwork {
                ClassID,
                Priorities: priorities.into_iter().map(|(Name, Priority)|
                    oci::LinuxInterfacePriority { Name, Priority, ..Default::default() }).collect(),
                ..Default::default()
            })),
    ) -> oci::LinuxResources {
        oci::LinuxResources {
            Devices, Memory, CPU, Pids, BlockIO, HugepageLimits, Network, ..Default::default()
        }
    }
}

prop_compose! {
    fn syscall_rule()(
        Names in words(), Action in one_of(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"]),
        errno in option::of(any::<u32>()),
        Args in vec(
            (0..6u64, any::<u64>(), any::<u64>(), one_of(&["SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ"])).prop_map(
                |(Index, Value, ValueTwo, Op)|
                    oci::LinuxSeccompArg { Index, Value, ValueTwo, Op, ..Default::default() }),
            0..3),
    ) -> oci::LinuxSyscall {
        let mut rule = oci::LinuxSyscall { Names, Action, Args, ..Default::default() };
        if let Some(errno) = errno {
            rule.set_errnoret(errno);
        }
        rule
    }
}

prop_compose! {
    fn seccomp()(
        DefaultAction in one_of(&["SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"]),
        arch in subsequence(vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_MIPSEL64N32"], 0..=4),
        flags in subsequence(vec!["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0..=2),
        Syscalls in vec(syscall_rule(), 0..4),
    ) -> oci::LinuxSeccomp {
        oci::LinuxSeccomp {
            DefaultAction, Architectures: arch.into_iter().map(str::to_owned).collect(),
            Flags: flags.into_iter().map(str::to_owned).collect(), Syscalls, ..Default::default()
        }
    }
}

fn id_mappings() -> impl Strategy<Value = Vec<oci::LinuxIDMapping>> {
    let mapping = any::<(u32, u32, u32)>().prop_map(|(HostID, ContainerID, Size)| oci::LinuxIDMapping {
        HostID,
        ContainerID,
        Size,
        ..Default::default()
    });
    vec(mapping, 0..3)
}

prop_compose! {
    fn device()(
        Path in "/dev/[a-z]{1,5}", Type in one_of(&["b", "c", "u", "p"]), Major in device_number(),
        Minor in device_number(), (FileMode, UID, GID) in any::<(u32, u32, u32)>(),
    ) -> oci::LinuxDevice {
        oci::LinuxDevice { Path, Type, Major, Minor, FileMode, UID, GID, ..Default::default() }
    }
}

prop_compose! {
    fn linux()(
        (UIDMappings, GIDMappings) in (id_mappings(), id_mappings()), Sysctl in pairs(),
        Resources in field(resources()), CgroupsPath in "[a-z:/]{0,8}",
        Namespaces in vec(
            (one_of(&["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]), "(/[a-z]{1,4})?").prop_map(
                |(Type, Path)| oci::LinuxNamespace { Type, Path, ..Default::default() }),
            0..4),
        Devices in vec(device(), 0..3), Seccomp in field(seccomp()),
        (RootfsPropagation, MountLabel, l3) in ("[a-z]{0,4}", "[a-z]{0,4}", "[A-Z0-9:]{0,4}"),
        (MaskedPaths, ReadonlyPaths) in (words(), words()), rdt: bool,
    ) -> oci::Linux {
        let rdt = rdt.then(|| oci::LinuxIntelRdt { L3CacheSchema: l3, ..Default::default() });
        oci::Linux {
            UIDMappings, GIDMappings, Sysctl, Resources, CgroupsPath, Namespaces, Devices, Seccomp,
            RootfsPropagation, MaskedPaths, ReadonlyPaths, MountLabel, IntelRdt: rdt.into(), ..Default::default()
        }
    }
}

fn hook_lists() -> impl Strategy<Value = Vec<oci::Hook>> {
    let hook = ("/[a-z]{1,4}", words(), words(), 0..i64::MAX)
        .prop_map(|(Path, Args, Env, Timeout)| oci::Hook { Path, Args, Env, Timeout, ..Default::default() });
    vec(hook, 0..3)
}

prop_compose! {
    pub(super) fn spec()(
        (Version, Hostname) in ("1\\.[0-9]", "[a-z]{0,5}"), Process in field(process()),
        Root in field(("/[a-z]{0,4}", any::<bool>()).prop_map(
            |(Path, Readonly)| oci::Root { Path, Readonly, ..Default::default() })),
        Mounts in vec(("/[a-z]{0,4}", "[a-z/]{0,5}", "[a-z]{0,5}", words()).prop_map(
            |(destination, source, type_, options)|
                oci::Mount { destination, source, type_, options, ..Default::default() }), 0..4),
        hooks in proptest::array::uniform6(hook_lists()), with_hooks: bool,
        Annotations in pairs(), Linux in field(linux()),
    ) -> oci::Spec {
        let [Prestart, Poststart, Poststop, CreateRuntime, CreateContainer, StartContainer] = hooks;
        let hooks = with_hooks.then(|| oci::Hooks {
            Prestart, Poststart, Poststop, CreateRuntime, CreateContainer, StartContainer, ..Default::default()
        });
        oci::Spec {
            Version, Process, Root, Hostname, Mounts, Hooks: hooks.into(), Annotations, Linux, ..Default::default()
        }
    }
}
