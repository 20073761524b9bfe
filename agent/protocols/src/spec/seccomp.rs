//! The seccomp section. Syscall names are passed on as they are: which of them this kernel has is not known here.

use oci_spec::runtime;

use super::{BUILDER_DEFAULTS, SpecError, in_range, nonzero, parse, repeated, try_list};
use crate::oci;

const ACTION: &str = "a seccomp action (SCMP_ACT_*)";

pub(super) fn from_wire(wire: &oci::LinuxSeccomp) -> Result<runtime::LinuxSeccomp, SpecError> {
    let default_action = parse(|| "linux.seccomp.defaultAction".to_owned(), &wire.DefaultAction, ACTION)?;
    let architectures = try_list(&wire.Architectures, |i, name| {
        parse(|| format!("linux.seccomp.architectures[{i}]"), name, "an architecture (SCMP_ARCH_*)")
    })?;
    let flags = try_list(&wire.Flags, |i, name| {
        parse(|| format!("linux.seccomp.flags[{i}]"), name, "a filter flag (SECCOMP_FILTER_FLAG_*)")
    })?;
    let mut seccomp = runtime::LinuxSeccomp::default();
    seccomp
        .set_default_action(default_action)
        .set_architectures(architectures)
        .set_flags(flags)
        .set_syscalls(try_list(&wire.Syscalls, rule_from_wire)?);
    Ok(seccomp)
}

pub(super) fn to_wire(seccomp: &runtime::LinuxSeccomp) -> oci::LinuxSeccomp {
    oci::LinuxSeccomp {
        DefaultAction: seccomp.default_action().to_string(),
        Architectures: repeated(seccomp.architectures(), ToString::to_string),
        Flags: repeated(seccomp.flags(), ToString::to_string),
        Syscalls: repeated(seccomp.syscalls(), rule_to_wire),
        ..Default::default()
    }
}

fn rule_from_wire(i: usize, wire: &oci::LinuxSyscall) -> Result<runtime::LinuxSyscall, SpecError> {
    let action = parse(|| format!("linux.seccomp.syscalls[{i}].action"), &wire.Action, ACTION)?;
    let args = try_list(&wire.Args, |j, wire| {
        let field = |name: &str| format!("linux.seccomp.syscalls[{i}].args[{j}].{name}");
        let index: u64 = in_range(|| field("index"), wire.Index, 0, u32::MAX.into())?;
        let op: runtime::LinuxSeccompOperator = parse(|| field("op"), &wire.Op, "a comparison (SCMP_CMP_*)")?;
        let mut arg =
            runtime::LinuxSeccompArgBuilder::default().index(index as usize).value(wire.Value).op(op);
        if let Some(value) = nonzero(wire.ValueTwo) {
            arg = arg.value_two(value);
        }
        Ok(arg.build().expect(BUILDER_DEFAULTS))
    })?;
    let mut rule = runtime::LinuxSyscall::default();
    rule.set_names(wire.Names.clone())
        .set_action(action)
        .set_errno_ret(wire.has_errnoret().then(|| wire.errnoret()))
        .set_args(args);
    Ok(rule)
}

fn rule_to_wire(rule: &runtime::LinuxSyscall) -> oci::LinuxSyscall {
    let mut wire = oci::LinuxSyscall {
        Names: rule.names().clone(),
        Action: rule.action().to_string(),
        Args: repeated(rule.args(), |arg| oci::LinuxSeccompArg {
            Index: arg.index() as u64,
            Value: arg.value(),
            ValueTwo: arg.value_two().unwrap_or_default(),
            Op: arg.op().to_string(),
            ..Default::default()
        }),
        ..Default::default()
    };
    if let Some(errno) = rule.errno_ret() {
        wire.set_errnoret(errno);
    }
    wire
}
