//! Programs against the plain meaning of their profiles.

use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompOperator};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::interpreter::{Call, run};
use super::super::profile::X32_BIT;
use super::super::table::{self, Column};
use super::*;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compiled(json: Value) -> Filter {
    compile_for(&profile(json), Family::X86).unwrap()
}

fn error(json: Value) -> String {
    compile(&profile(json)).unwrap_err().to_string()
}

fn decide(filter: &Filter, machine: u32, number: u32, arguments: [u64; 6]) -> u32 {
    run(&filter.program, &Call { number, machine, arguments }).0
}

/// What a profile says of a call, by its text alone: no ranges, no code.
fn plain(profile: &LinuxSeccomp, family: Family, machine: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let value = |action: LinuxSeccompAction, errno: Option<u32>| match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
    };
    let listed = |name: &str| profile.architectures().iter().flatten().any(|arch| arch.to_string() == name);
    let (column, number) = match (family, machine) {
        (Family::X86, X86_64) if number < X32_BIT => (Column::X86_64, number),
        (Family::X86, X86_64) if listed("SCMP_ARCH_X32") => (Column::X32, number - X32_BIT),
        (Family::X86, X86) if listed("SCMP_ARCH_X86") => (Column::X86, number),
        (Family::Arm, AARCH64) => (Column::Aarch64, number),
        (Family::Arm, ARM) if listed("SCMP_ARCH_ARM") => (Column::Arm, number),
        _ => return 0,
    };
    let default = value(profile.default_action(), profile.default_errno_ret());
    let holds = |arg: &oci_spec::runtime::LinuxSeccompArg| {
        let (argument, value) = (arguments[arg.index()], arg.value());
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpEq => argument == value,
            LinuxSeccompOperator::ScmpCmpNe => argument != value,
            LinuxSeccompOperator::ScmpCmpLt => argument < value,
            LinuxSeccompOperator::ScmpCmpLe => argument <= value,
            LinuxSeccompOperator::ScmpCmpGt => argument > value,
            LinuxSeccompOperator::ScmpCmpGe => argument >= value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => argument & value == arg.value_two().unwrap_or(0),
        }
    };
    // Allowed, logged or traced calls may be of any age.
    let is_permissive = matches!(default, 0x7fff_0000 | 0x7ffc_0000) || default >> 16 == 0x7ff0;
    let names = profile.syscalls().iter().flatten().flat_map(|entry| entry.names());
    let newest = names.filter_map(|name| table::common_number(name, column)).max();
    let is_private = column == Column::Arm && number >= table::ARM_PRIVATE_BASE;
    if !is_permissive && !is_private && newest.is_some_and(|newest| number > newest) {
        return 0x0005_0026;
    }
    let (mut certain, mut first) = (None, None);
    for entry in profile.syscalls().iter().flatten() {
        let result = value(entry.action(), entry.errno_ret());
        let args = entry.args().as_deref().unwrap_or_default();
        if result == default {
            continue;
        }
        for name in entry.names() {
            let whole = table::part(name).filter(|_| column == Column::X86 && args.is_empty());
            let is_part = whole.is_some_and(|(whole, part)| {
                table::number(whole, column) == Some(number) && arguments[0] == u64::from(part)
            });
            let is_it = table::number(name, column) == Some(number);
            let twice =
                args.iter().any(|one| args.iter().filter(|other| other.index() == one.index()).count() > 1);
            if is_it && args.is_empty() {
                certain = certain.or(Some(result));
            } else if is_part
                || (is_it && if twice { args.iter().any(holds) } else { args.iter().all(holds) })
            {
                first = first.or(Some(result));
            }
        }
    }
    certain.or(first).unwrap_or(default)
}

const NAMES: [&str; 13] = [
    "read",
    "write",
    "open",
    "socket",
    "connect",
    "clone",
    "personality",
    "semop",
    "ipc",
    "execve",
    "openat2",
    "no_such_call",
    "set_tls",
];

fn argument() -> impl Strategy<Value = u64> {
    let near = |value: u64| (value.saturating_sub(1)..=value.saturating_add(1)).boxed();
    prop_oneof![near(0), near(1 << 32), near(0x7e02_0000), near(u64::MAX), (1u64..30).boxed(), any::<u64>()]
}

fn arg() -> impl Strategy<Value = Value> {
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    (0usize..6, argument(), argument(), prop::sample::select(operators.to_vec())).prop_map(
        |(index, one, two, operator)| {
            let two = if operator == "MASKED_EQ" { two & one } else { two };
            json!({ "index": index, "value": one, "valueTwo": two, "op": format!("SCMP_CMP_{operator}") })
        },
    )
}

fn actions() -> impl Strategy<Value = (&'static str, Option<u32>)> {
    prop_oneof![
        Just(("SCMP_ACT_ALLOW", None)),
        Just(("SCMP_ACT_KILL_PROCESS", None)),
        Just(("SCMP_ACT_LOG", None)),
        Just(("SCMP_ACT_TRAP", None)),
        (1u32..4095).prop_map(|errno| ("SCMP_ACT_ERRNO", Some(errno))),
        (1u32..65535).prop_map(|data| ("SCMP_ACT_TRACE", Some(data))),
    ]
}

fn profiles() -> impl Strategy<Value = Value> {
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4);
    let entry = (names, actions(), prop::collection::vec(arg(), 0..4)).prop_map(|(names, (action, errno), args)| {
        json!({ "names": names, "action": action, "errnoRet": errno, "args": args })
    });
    let machines =
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
    let machines = prop::sample::subsequence(machines.to_vec(), 0..=5);
    (actions(), machines, prop::collection::vec(entry, 0..8)).prop_map(|((action, errno), machines, entries)| {
        json!({
            "defaultAction": action, "defaultErrnoRet": errno, "architectures": machines, "syscalls": entries,
        })
    })
}

fn calls() -> impl Strategy<Value = (u32, u32, [u64; 6])> {
    let columns = [Column::X86_64, Column::X86, Column::X32, Column::Aarch64, Column::Arm];
    let named = (prop::sample::select(NAMES.to_vec()), prop::sample::select(columns.to_vec())).prop_map(
        |(name, column)| {
            let bit = if column == Column::X32 { X32_BIT } else { 0 };
            table::number(name, column).unwrap_or(999) | bit
        },
    );
    let number = prop_oneof![5 => named, 1 => Just(102), 1 => any::<u32>()];
    let machine = prop_oneof![
        4 => prop::sample::select(vec![X86_64, AARCH64]),
        2 => prop::sample::select(vec![X86, ARM]),
        1 => any::<u32>(),
    ];
    (machine, number, prop::array::uniform6(argument()))
}

proptest! {
    #[test]
    fn programs_decide_as_profiles_mean(
        json in profiles(),
        family in prop::sample::select(vec![Family::X86, Family::Arm]),
        calls in prop::collection::vec(calls(), 32),
    ) {
        let profile = profile(json);
        let filter = compile_for(&profile, family).unwrap();
        for (machine, number, arguments) in calls {
            let got = decide(&filter, machine, number, arguments);
            let meant = plain(&profile, family, machine, number, arguments);
            prop_assert_eq!(got, meant, "{:?}: {:#x} call {} of {:?}", family, machine, number, arguments);
        }
    }
}

/// The same profile means the same on each architecture, as far as each has the calls and can run the programs.
#[test]
fn each_family_has_its_own_calls_and_machines() {
    let json = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["openat", "mkdir", "openat2", "set_tls"], "action": "SCMP_ACT_ALLOW" }],
    });
    let (allow, perm, nosys) = (0x7fff_0000, 0x0005_0001, 0x0005_0026);
    // A profile that lists only x86_64 is for 64-bit Arm all the same, and not for 32-bit Arm.
    let filter = compile_for(&profile(json.clone()), Family::Arm).unwrap();
    let of = |number: u32| decide(&filter, AARCH64, number, [0; 6]);
    // openat is 56 there, and 257, its number on x86_64, is nothing. There is no mkdir, whose number here is 83.
    assert_eq!([of(56), of(257), of(83), of(437), of(438)], [allow, perm, perm, allow, nosys]);
    assert_eq!([ARM, X86_64].map(|machine| decide(&filter, machine, 322, [0; 6])), [0, 0]);
    // 32-bit programs, and a private call that does not make all others old.
    let mut json = json;
    json["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    let filter = compile_for(&profile(json), Family::Arm).unwrap();
    let of = |number: u32| decide(&filter, ARM, number, [0; 6]);
    assert_eq!([of(322), of(39), of(40), of(438)], [allow, allow, perm, nosys]);
    assert_eq!([of(0xf_0005), of(0xf_0004), of(0xe_ffff)], [allow, perm, nosys]);
}

#[test]
fn a_filter_survives_its_journey() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": [{ "names": ["mount"], "action": "SCMP_ACT_ERRNO" }],
    }));
    assert_eq!((filter.flags, filter.listener), (6, false));
    let text = serde_json::to_string(&filter).unwrap();
    assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
}

#[test]
fn alternatives_on_one_argument_and_rules_for_all() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" },
            ] },
            { "names": ["read"], "action": "SCMP_ACT_LOG", "args": [{ "index": 0, "value": 3, "op": "SCMP_CMP_EQ" }] },
            { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
        ],
    }));
    let of = |number: u32, argument: u64| decide(&filter, X86_64, number, [argument, 0, 0, 0, 0, 0]);
    assert_eq!([of(135, 0), of(135, 8), of(135, 9)], [0x7fff_0000, 0x7fff_0000, 0x0005_0026]);
    assert_eq!([of(0, 3), of(0, 4)], [0x7fff_0000; 2]);
    // Neither x32 nor x86 is listed.
    assert_eq!([of(X32_BIT, 0), decide(&filter, X86, 3, [0; 6])], [0, 0]);
}

/// An old profile must not make new programs believe that a call is forbidden, which is only unknown to it.
#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let with = |default: &str, number: Option<u32>, entry: &str| {
        compiled(json!({
            "defaultAction": default,
            "defaultErrnoRet": number,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                { "names": ["read", "landlock_create_ruleset"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["memfd_secret", "no_such_call"], "action": entry },
            ],
        }))
    };
    let filter = with("SCMP_ACT_ERRNO", None, "SCMP_ACT_ERRNO");
    let (allow, perm, nosys) = (0x7fff_0000, 0x0005_0001, 0x0005_0026);
    let of = |number| decide(&filter, X86_64, number, [0; 6]);
    // memfd_secret (447) is the newest that it names, although it forbids it; 446 is the last that it allows.
    assert_eq!(
        [0, 1, 444, 446, 447, 448, 450, 463, 999].map(of),
        [allow, perm, allow, perm, perm, nosys, nosys, nosys, nosys]
    );
    assert_eq!([447, 448, 0x1000_0000].map(|number| of(X32_BIT | number)), [perm, nosys, nosys]);
    assert_eq!([447, 448].map(|number| decide(&filter, X86, number, [0; 6])), [perm, nosys]);
    // A number for those that are forbidden is not one for those that are unknown.
    let filter = with("SCMP_ACT_ERRNO", Some(13), "SCMP_ACT_ALLOW");
    assert_eq!([1, 448].map(|number| decide(&filter, X86_64, number, [0; 6])), [0x0005_000d, nosys]);
    for (default, value) in [("SCMP_ACT_KILL_PROCESS", 0x8000_0000), ("SCMP_ACT_TRAP", 0x0003_0000)] {
        let filter = with(default, None, "SCMP_ACT_ALLOW");
        assert_eq!([1, 448].map(|number| decide(&filter, X86_64, number, [0; 6])), [value, nosys]);
    }
    for (default, value) in
        [("SCMP_ACT_ALLOW", allow), ("SCMP_ACT_LOG", 0x7ffc_0000), ("SCMP_ACT_TRACE", 0x7ff0_0001)]
    {
        let filter = with(default, None, "SCMP_ACT_KILL");
        assert_eq!([1, 448].map(|number| decide(&filter, X86_64, number, [0; 6])), [value; 2]);
    }
    // One that names no call has no age.
    let filter = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO" }));
    assert_eq!([1, 999].map(|number| decide(&filter, X86_64, number, [0; 6])), [perm; 2]);
}

#[test]
fn parts_of_socketcall_are_decided_on_x86() {
    let filter = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO" }],
    }));
    let of = |number: u32, argument: u64| decide(&filter, X86, number, [argument, 0, 0, 0, 0, 0]);
    assert_eq!([of(102, 1), of(102, 3), of(359, 0)], [0x0005_0001, 0x7fff_0000, 0x0005_0001]);
}

#[test]
fn what_cannot_be_right_is_named() {
    let with = |entry: Value| error(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry] }));
    let arg = json!({ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" });
    let cases = [
        (
            with(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [arg] })),
            "syscalls[0].args[0].index is 6",
        ),
        (
            with(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 })),
            "errnoRet is 5000",
        ),
        (
            with(json!({ "names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 5 })),
            "returns no error number",
        ),
        (with(json!({ "names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY" })), "sendmsg"),
        (with(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })), "listenerPath is missing"),
        (error(json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/s" })), "which no rule has"),
        (error(json!({ "defaultAction": "SCMP_ACT_NOTIFY" })), "defaultAction"),
        (
            error(json!({
                "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            })),
            "WAIT_KILLABLE_RECV",
        ),
    ];
    for (text, part) in cases {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}

#[test]
fn a_filter_that_no_kernel_takes_is_refused() {
    let entries: Vec<_> = (0..800u64)
        .map(|value| {
            let args: Vec<_> =
                (0..6).map(|index| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" })).collect();
            json!({ "names": ["read"], "action": "SCMP_ACT_LOG", "args": args })
        })
        .collect();
    let text = error(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries }));
    assert!(text.contains("instructions; the kernel takes 4096"), "{text}");
}
