//! Reads an OCI profile into rules by system call number.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::table::{self, Column};
use crate::plan::PlanError;

/// `SECCOMP_RET_*` values with their data (`seccomp(2)`).
pub(super) type Return = u32;

/// Ends the thread.
pub(super) const KILL_THREAD: Return = 0;
const KILL_PROCESS: Return = 0x8000_0000;
const TRAP: Return = 0x0003_0000;
const ERRNO: Return = 0x0005_0000;
const USER_NOTIF: Return = 0x7fc0_0000;
const TRACE: Return = 0x7ff0_0000;
const LOG: Return = 0x7ffc_0000;
const ALLOW: Return = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The largest error number that the kernel passes on (`MAX_ERRNO`).
const MOST_ERRNO: u32 = 4095;

/// Set in the numbers of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An `AUDIT_ARCH_*` value and the columns of its calls.
pub(super) struct Machine {
    /// As `seccomp_data.arch` has it.
    pub(super) audit: u32,
    /// Its calls that the profile has rules for.
    pub(super) calls: Calls,
    /// What is decided of all others: the first number of each range, from 0 on.
    pub(super) others: BTreeMap<u32, Decision>,
}

/// What is decided of system calls by number.
pub(super) type Calls = BTreeMap<u32, Decision>;

/// The rules of one call, in order. The last one may have no conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) rules: Vec<Rule>,
}

/// What happens if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) result: Return,
}

impl Decision {
    /// The same result, whatever the arguments.
    fn always(result: Return) -> Decision {
        Decision { rules: vec![Rule { conditions: Vec::new(), result }] }
    }
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u32,
    pub(super) test: Test,
}

/// How an argument is compared, as 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// What is left of it under the mask.
    Masked {
        mask: u64,
        value: u64,
    },
}

/// A profile, read.
pub(super) struct Profile {
    pub(super) default: Return,
    pub(super) machines: Vec<Machine>,
    pub(super) flags: u32,
    pub(super) listener: bool,
}

fn invalid<T>(text: String) -> Result<T, PlanError> {
    Err(PlanError::Invalid(format!("linux.seccomp.{text}")))
}

/// The `SECCOMP_RET_*` value of an action. `field` is where its error number stands.
fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<Return, PlanError> {
    let plain = |value: Return| match errno {
        None => Ok(value),
        // "When the action doesn't support an errno, the runtime MUST print and error and fail."
        Some(errno) => {
            invalid(format!("{field} is {errno}, but the action {action} returns no error number"))
        }
    };
    let data = |value: Return, most: u32| match errno.unwrap_or(EPERM) {
        errno if errno <= most => Ok(value | errno),
        errno => invalid(format!("{field} is {errno}, above {most}")),
    };
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => plain(KILL_THREAD),
        LinuxSeccompAction::ScmpActKillProcess => plain(KILL_PROCESS),
        LinuxSeccompAction::ScmpActTrap => plain(TRAP),
        LinuxSeccompAction::ScmpActErrno => data(ERRNO, MOST_ERRNO),
        LinuxSeccompAction::ScmpActTrace => data(TRACE, 0xffff),
        LinuxSeccompAction::ScmpActLog => plain(LOG),
        LinuxSeccompAction::ScmpActAllow => plain(ALLOW),
        LinuxSeccompAction::ScmpActNotify => plain(USER_NOTIF),
    }
}

fn condition(arg: &LinuxSeccompArg, field: &str) -> Result<Condition, PlanError> {
    let index = match u32::try_from(arg.index()) {
        Ok(index @ 0..=5) => index,
        _ => return invalid(format!("{field}.index is {}: a system call has arguments 0 to 5", arg.index())),
    };
    let value = arg.value();
    let test = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Test::Masked { mask: value, value: arg.value_two().unwrap_or(0) }
        }
    };
    Ok(Condition { index, test })
}

/// The rules that one entry of `syscalls` makes.
fn rules(entry: &LinuxSyscall, field: &str) -> Result<Vec<Rule>, PlanError> {
    let result = action(entry.action(), entry.errno_ret(), &format!("{field}.errnoRet"))?;
    let args = entry.args().as_deref().unwrap_or_default();
    let conditions = args
        .iter()
        .enumerate()
        .map(|(number, arg)| condition(arg, &format!("{field}.args[{number}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let twice = conditions
        .iter()
        .enumerate()
        .any(|(number, one)| conditions[..number].iter().any(|other| other.index == one.index));
    Ok(if twice {
        conditions.into_iter().map(|one| Rule { conditions: vec![one], result }).collect()
    } else {
        vec![Rule { conditions, result }]
    })
}

/// What a rule adds to a call. After one without conditions nothing more counts.
fn add(calls: &mut Calls, number: u32, rule: &Rule) {
    let rules = &mut calls.entry(number).or_default().rules;
    if rules.iter().any(|other| other.conditions.is_empty()) {
        return;
    }
    if rule.conditions.is_empty() {
        rules.clear();
    }
    rules.push(rule.clone());
}

/// Architectures whose programs run on the same kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    X86,
    Arm,
}

impl Family {
    /// The one that this program is of.
    pub(super) const NATIVE: Family = if cfg!(target_arch = "x86_64") {
        Family::X86
    } else if cfg!(target_arch = "aarch64") {
        Family::Arm
    } else {
        panic!("there is no table of this architecture's system calls")
    };

    /// Its columns, the kernel's own first, with their `AUDIT_ARCH_*` value (`linux/audit.h`).
    pub(super) const fn members(self) -> &'static [(Arch, Column, u32)] {
        match self {
            Family::X86 => &[
                (Arch::ScmpArchX86_64, Column::X86_64, 0xc000_003e),
                (Arch::ScmpArchX86, Column::X86, 0x4000_0003),
                (Arch::ScmpArchX32, Column::X32, 0xc000_003e),
            ],
            Family::Arm => &[
                (Arch::ScmpArchAarch64, Column::Aarch64, 0xc000_00b7),
                (Arch::ScmpArchArm, Column::Arm, 0x4000_0028),
            ],
        }
    }
}

/// Whether calls that the profile has no rule for happen, or are answered by a tracer that knows new ones itself.
fn is_permissive(default: Return) -> bool {
    matches!(default & 0xffff_0000, ALLOW | LOG | TRACE)
}

/// The largest number of a column's calls that the profile names, whatever it says of them. The private calls of arm have large
/// numbers, and are as old as arm.
fn newest(spec: &LinuxSeccomp, column: Column) -> Option<u32> {
    let names = spec.syscalls().iter().flatten().flat_map(|entry| entry.names());
    names.filter_map(|name| table::common_number(name, column)).max()
}

/// What is decided of calls without a rule, for one machine's columns.
fn others(spec: &LinuxSeccomp, default: Return, columns: &[Column]) -> BTreeMap<u32, Decision> {
    let mut others = BTreeMap::from([(0, Decision::default())]);
    let has_x32 = columns.contains(&Column::X32);
    if columns.contains(&Column::X86_64) {
        let of_x32 = if has_x32 { Decision::default() } else { Decision::always(KILL_THREAD) };
        others.insert(X32_BIT, of_x32);
    }
    for column in columns.iter().filter(|_| !is_permissive(default)) {
        let bit = if *column == Column::X32 { X32_BIT } else { 0 };
        if let Some(newest) = newest(spec, *column) {
            others.insert((newest | bit) + 1, Decision::always(ERRNO | ENOSYS));
            if *column == Column::Arm {
                others.insert(table::ARM_PRIVATE_BASE, Decision::default());
            }
        }
    }
    others
}

/// The columns that a profile is for: the kernel's own, and those of its family that the profile lists.
fn columns(profile: &LinuxSeccomp, family: Family) -> Vec<(Column, u32)> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let members = family.members().iter().enumerate();
    members
        .filter(|(number, (arch, ..))| *number == 0 || listed.contains(arch))
        .map(|(_, (_, column, audit))| (*column, *audit))
        .collect()
}

fn add_everywhere(calls: &mut Calls, column: Column, name: &str, rule: &Rule) {
    if let Some(number) = table::number(name, column) {
        let bit = if column == Column::X32 { X32_BIT } else { 0 };
        add(calls, number | bit, rule);
    }
    if column == Column::X86
        && rule.conditions.is_empty()
        && let Some((whole, part)) = table::part(name)
        && let Some(number) = table::number(whole, column)
    {
        let conditions = vec![Condition { index: 0, test: Test::Equal(part.into()) }];
        add(calls, number, &Rule { conditions, result: rule.result });
    }
}

impl Profile {
    pub(super) fn read(spec: &LinuxSeccomp, family: Family) -> Result<Profile, PlanError> {
        let default = action(spec.default_action(), spec.default_errno_ret(), "defaultErrnoRet")?;
        let mut machines: Vec<Machine> = Vec::new();
        let mut listener = default == USER_NOTIF;
        let columns = columns(spec, family);
        for (_, audit) in &columns {
            if machines.iter().all(|machine| machine.audit != *audit) {
                let same = columns.iter().filter(|(_, other)| other == audit);
                let same: Vec<Column> = same.map(|(column, _)| *column).collect();
                let others = others(spec, default, &same);
                machines.push(Machine { audit: *audit, calls: Calls::new(), others });
            }
        }
        for (number, entry) in spec.syscalls().iter().flatten().enumerate() {
            let field = format!("syscalls[{number}]");
            let rules = rules(entry, &field)?;
            let asks = rules.iter().any(|rule| rule.result == USER_NOTIF);
            if asks && entry.names().iter().any(|name| name == "sendmsg") {
                return invalid(format!(
                    "{field} asks a listener about sendmsg, by which the listener itself is handed over"
                ));
            }
            listener |= asks;
            for rule in rules.iter().filter(|rule| rule.result != default) {
                for name in entry.names() {
                    for (column, audit) in &columns {
                        let machine = machines.iter_mut().find(|machine| machine.audit == *audit);
                        machine.into_iter().for_each(|machine| {
                            add_everywhere(&mut machine.calls, *column, name, rule);
                        });
                    }
                }
            }
        }
        if default == USER_NOTIF {
            return invalid(
                "defaultAction asks a listener about every call, which its own process would wait for".into(),
            );
        }
        let path = spec.listener_path().as_deref();
        match path.filter(|path| !path.as_os_str().is_empty()) {
            None if listener => {
                return invalid("listenerPath is missing: SCMP_ACT_NOTIFY asks who listens there".into());
            }
            Some(path) if !listener => {
                return invalid(format!(
                    "listenerPath {} is for SCMP_ACT_NOTIFY, which no rule has",
                    path.display()
                ));
            }
            Some(path) if !path.is_absolute() => {
                return invalid(format!("listenerPath {} is no absolute path", path.display()));
            }
            _ => {}
        }
        Ok(Profile { default, machines, flags: flags(spec, listener)?, listener })
    }
}

/// `SECCOMP_FILTER_FLAG_*` (`linux/seccomp.h`).
fn flags(spec: &LinuxSeccomp, listener: bool) -> Result<u32, PlanError> {
    let mut flags = 0;
    for flag in spec.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1 << 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
            // The kernel takes it together with a listener only.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener => 1 << 5,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return invalid("flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs SCMP_ACT_NOTIFY".into());
            }
        };
    }
    Ok(flags)
}
