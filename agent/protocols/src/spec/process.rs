//! The process section: of a container's spec, and alone in an exec.

use std::path::PathBuf;

use oci_spec::runtime;

use super::{
    BUILDER_DEFAULTS, SpecError, Warning, capabilities, in_range, message, parse, path_text, strings, text,
    try_list,
};
use crate::oci;

pub(super) fn from_wire(
    field: &str,
    wire: &oci::Process,
    warnings: &mut Vec<Warning>,
) -> Result<runtime::Process, SpecError> {
    let rlimits = try_list(&wire.Rlimits, |i, wire| rlimit_from_wire(field, i, wire))?;
    let oom_score_adj = in_range(|| format!("{field}.oomScoreAdj"), wire.OOMScoreAdj, -1000i32, 1000)?;
    let capabilities = wire
        .Capabilities
        .as_ref()
        .map(|wire| capabilities::from_wire(&format!("{field}.capabilities"), wire, warnings));
    let mut process = runtime::Process::default();
    process
        .set_terminal(Some(wire.Terminal))
        .set_console_size(wire.ConsoleSize.as_ref().map(console_size_from_wire))
        .set_user(user_from_wire(&wire.User))
        .set_args(strings(&wire.Args))
        .set_env(strings(&wire.Env))
        .set_cwd(PathBuf::from(&wire.Cwd))
        .set_capabilities(capabilities)
        .set_rlimits(rlimits)
        .set_no_new_privileges(Some(wire.NoNewPrivileges))
        .set_apparmor_profile(text(&wire.ApparmorProfile))
        .set_oom_score_adj(Some(oom_score_adj))
        .set_selinux_label(text(&wire.SelinuxLabel));
    Ok(process)
}

/// Puts a process on the wire, for a client that makes an exec.
///
/// `umask`, `ioPriority`, `scheduler`, `execCPUAffinity` and `commandLine` have no field there and stay behind. A
/// console size beyond 32 bits is sent as the greatest number that fits.
pub fn to_wire(process: &runtime::Process) -> oci::Process {
    oci::Process {
        Terminal: process.terminal().unwrap_or_default(),
        ConsoleSize: message(process.console_size().as_ref(), |size| oci::Box {
            Height: u32::try_from(size.height()).unwrap_or(u32::MAX),
            Width: u32::try_from(size.width()).unwrap_or(u32::MAX),
            ..Default::default()
        }),
        User: message(Some(process.user()), user_to_wire),
        Args: process.args().clone().unwrap_or_default(),
        Env: process.env().clone().unwrap_or_default(),
        Cwd: path_text(process.cwd()),
        Capabilities: message(process.capabilities().as_ref(), capabilities::to_wire),
        Rlimits: super::repeated(process.rlimits(), rlimit_to_wire),
        NoNewPrivileges: process.no_new_privileges().unwrap_or_default(),
        ApparmorProfile: process.apparmor_profile().clone().unwrap_or_default(),
        OOMScoreAdj: process.oom_score_adj().unwrap_or_default().into(),
        SelinuxLabel: process.selinux_label().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn console_size_from_wire(wire: &oci::Box) -> runtime::Box {
    runtime::BoxBuilder::default().height(wire.Height).width(wire.Width).build().expect(BUILDER_DEFAULTS)
}

/// An absent user is root with no further groups, the zero of every field.
fn user_from_wire(wire: &oci::User) -> runtime::User {
    let mut user = runtime::User::default();
    user.set_uid(wire.UID)
        .set_gid(wire.GID)
        .set_additional_gids(super::list(&wire.AdditionalGids, |gid| *gid))
        .set_username(text(&wire.Username));
    user
}

fn user_to_wire(user: &runtime::User) -> oci::User {
    oci::User {
        UID: user.uid(),
        GID: user.gid(),
        AdditionalGids: user.additional_gids().clone().unwrap_or_default(),
        Username: user.username().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn rlimit_from_wire(
    field: &str,
    i: usize,
    wire: &oci::POSIXRlimit,
) -> Result<runtime::PosixRlimit, SpecError> {
    let typ: runtime::PosixRlimitType =
        parse(|| format!("{field}.rlimits[{i}].type"), &wire.Type, "an RLIMIT_* name of Linux")?;
    let rlimit = runtime::PosixRlimitBuilder::default().typ(typ).hard(wire.Hard).soft(wire.Soft);
    Ok(rlimit.build().expect(BUILDER_DEFAULTS))
}

fn rlimit_to_wire(rlimit: &runtime::PosixRlimit) -> oci::POSIXRlimit {
    oci::POSIXRlimit {
        Type: rlimit.typ().to_string(),
        Hard: rlimit.hard(),
        Soft: rlimit.soft(),
        ..Default::default()
    }
}
