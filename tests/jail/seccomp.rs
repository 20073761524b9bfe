//! Filters of system calls, in force in a container and in what is executed in it later.

use anyhow::Result;
use protobuf::MessageField;
use protocols::oci::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use tests::{Code, Container, ContainerBuilder, Guest, expect_code};

use crate::status;

async fn guest() -> Result<Guest> {
    let guest = Guest::builder().program("/probe", "probe")?.boot().await?;
    guest.sandbox().await?;
    Ok(guest)
}

fn rule(names: &[&str], action: &str) -> LinuxSyscall {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    LinuxSyscall { Names: names, Action: action.into(), ..Default::default() }
}

fn errno(names: &[&str], number: u32) -> LinuxSyscall {
    let mut rule = rule(names, "SCMP_ACT_ERRNO");
    rule.set_errnoret(number);
    rule
}

fn filtered(guest: &Guest, id: &str, default: &str, rules: Vec<LinuxSyscall>) -> ContainerBuilder {
    let profile = LinuxSeccomp { DefaultAction: default.into(), Syscalls: rules, ..Default::default() };
    guest
        .container(id)
        .mount("/probe", "bind", "/probe", &["bind", "ro"])
        .linux(|linux| linux.Seccomp = MessageField::some(profile))
}

/// What the probe says of a call.
async fn tried(container: &Container, call: &str) -> Result<String> {
    container.sh(&format!("/probe --call {call} | sed 's/.*\"call {call}\":\"\\([^\"]*\\)\".*/\\1/'")).await
}

#[tokio::test]
async fn calls_are_refused_as_the_profile_says_with_and_without_new_privileges() -> Result<()> {
    let guest = guest().await?;
    for no_new_privileges in [true, false] {
        let id = format!("nnp-{no_new_privileges}");
        let mut socket = errno(&["socket"], 97);
        socket.Args =
            vec![LinuxSeccompArg { Index: 0, Value: 16, Op: "SCMP_CMP_EQ".into(), ..Default::default() }];
        let rules = vec![errno(&["mkdirat"], 75), errno(&["no_such_call"], 1), socket];
        let one = filtered(&guest, &id, "SCMP_ACT_ALLOW", rules)
            .process(|process| process.NoNewPrivileges = no_new_privileges)
            .run()
            .await?;
        assert_eq!(tried(&one, "mkdirat:0").await?, "errno 75");
        assert_eq!(tried(&one, "socket:16").await?, "errno 97");
        assert_eq!(tried(&one, "socket:1").await?, "ok");
        // The first process, and one that was executed later, and what the filter needed is not theirs.
        for process in ["1", "self"] {
            let text = one.sh(&format!("cat /proc/{process}/status")).await?;
            assert_eq!(status(&text, "Seccomp"), "2");
            assert_eq!(status(&text, "Seccomp_filters"), "1");
            let sys_admin = u64::from_str_radix(status(&text, "CapPrm"), 16)? & 1 << 21;
            assert_eq!(sys_admin, 0);
        }
        let first = one.sh("cat /proc/1/status").await?;
        assert_eq!(status(&first, "NoNewPrivs"), if no_new_privileges { "1" } else { "0" });
        one.remove().await?;
    }
    Ok(())
}

/// glibc tries `fchmodat2` first and falls back on ENOSYS alone: an old profile must not break a new image's chmod.
#[tokio::test]
async fn calls_newer_than_the_profile_do_not_exist() -> Result<()> {
    let guest = guest().await?;
    let profile = include_str!("../../agent/rustjail/testdata/seccomp-docker.json");
    let profile: serde_json::Value = serde_json::from_str(profile)?;
    let names = profile["syscalls"].as_array().into_iter().flatten().filter(|entry| {
        entry["action"] == "SCMP_ACT_ALLOW" && entry["args"].as_array().is_none_or(Vec::is_empty)
    });
    let names: Vec<&str> = names
        .flat_map(|entry| entry["names"].as_array().into_iter().flatten())
        .filter_map(serde_json::Value::as_str)
        .chain(["clone", "personality"])
        // Of the last ones those that this profile's author knew.
        .filter(|name| !AFTER_5_13.contains(name))
        .collect();
    let one = filtered(&guest, "one", "SCMP_ACT_ERRNO", vec![rule(&names, "SCMP_ACT_ALLOW")]).run().await?;
    for (call, expected) in [
        ("mount", "errno 1"),
        ("number:450", "errno 38"),
        ("number:452", "errno 38"),
        ("number:999", "errno 38"),
    ] {
        assert_eq!(tried(&one, call).await?, expected, "{call}");
    }
    Ok(())
}

/// What Linux got after 5.13 (`landlock_restrict_self`, 446).
const AFTER_5_13: [&str; 10] = [
    "memfd_secret",
    "process_mrelease",
    "futex_waitv",
    "set_mempolicy_home_node",
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
];

#[tokio::test]
async fn a_user_without_capabilities_is_filtered_too() -> Result<()> {
    let guest = guest().await?;
    let one = filtered(&guest, "one", "SCMP_ACT_ALLOW", vec![errno(&["mkdirat"], 75)])
        .process(|process| {
            process.User.mut_or_insert_default().UID = 33;
            process.Capabilities = MessageField::some(Default::default());
            process.NoNewPrivileges = false;
        })
        .run()
        .await?;
    let text = one.sh("cat /proc/1/status").await?;
    assert_eq!((status(&text, "Seccomp"), status(&text, "CapPrm")), ("2", "0000000000000000"));
    assert_eq!(status(&text, "CapBnd"), "0000000000000000");
    Ok(())
}

#[tokio::test]
async fn a_call_can_end_the_process() -> Result<()> {
    let guest = guest().await?;
    let one = filtered(&guest, "one", "SCMP_ACT_ALLOW", vec![rule(&["socket"], "SCMP_ACT_KILL_PROCESS")]);
    let ended = one.clone().args(["/probe", "--call", "socket:1"]).run().await?;
    // SIGSYS.
    assert_eq!(ended.wait().await?, 128 + 31);
    ended.remove().await?;
    let trapped = filtered(&guest, "two", "SCMP_ACT_ALLOW", vec![rule(&["socket"], "SCMP_ACT_TRAP")]);
    let trapped = trapped.args(["/probe", "--call", "socket:1"]).run().await?;
    assert_eq!(trapped.wait().await?, 128 + 31);
    Ok(())
}

#[tokio::test]
async fn a_shell_lives_with_what_it_needs_and_no_more() -> Result<()> {
    let guest = guest().await?;
    // What a busybox needs for `sh -c 'echo'`, with all else refused: the filter is put on with the last calls of the
    // runtime's own, which are among them.
    let needed = [
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "prctl",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "getpid",
        "getppid",
        "rt_sigaction",
        "rt_sigprocmask",
        "newfstatat",
        "stat",
        "fstat",
        "getcwd",
        "write",
        "exit_group",
        "exit",
        "uname",
        "mmap",
        "munmap",
        "read",
        "close",
        "open",
        "openat",
        "ioctl",
        "fcntl",
        "dup2",
        "sigaltstack",
        "capset",
        "sendmsg",
        "clone",
        "fork",
        "vfork",
        "wait4",
        "rt_sigreturn",
        "getpgrp",
        "setpgid",
        "poll",
        // In the place of some of these on 64-bit Arm.
        "faccessat",
        "dup3",
        "pipe2",
        "ppoll",
    ];
    let one = filtered(&guest, "one", "SCMP_ACT_ERRNO", vec![rule(&needed, "SCMP_ACT_ALLOW")]);
    let one = one.script("mkdir /x 2>/dev/null || exit 42").run().await?;
    assert_eq!(one.wait().await?, 42);
    Ok(())
}

#[tokio::test]
async fn a_profile_that_cannot_be_right_is_refused_and_leaves_nothing() -> Result<()> {
    let guest = guest().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let mut bad = errno(&["read"], 1);
    bad.Args = vec![LinuxSeccompArg { Index: 6, Op: "SCMP_CMP_EQ".into(), ..Default::default() }];
    let text = expect_code(
        filtered(&guest, "one", "SCMP_ACT_ALLOW", vec![bad]).try_create().await,
        Code::INVALID_ARGUMENT,
    );
    assert!(text.contains("linux.seccomp.syscalls[0].args[0].index is 6"), "{text}");
    // Nobody listens.
    let text = expect_code(
        filtered(&guest, "one", "SCMP_ACT_ALLOW", vec![rule(&["mkdirat"], "SCMP_ACT_NOTIFY")])
            .try_create()
            .await,
        Code::INVALID_ARGUMENT,
    );
    assert!(text.contains("listenerPath"), "{text}");
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
