//! User, groups, capabilities and limits of a plan.

use capctl::caps::{Cap, CapSet};
use oci_spec::runtime::{
    Capabilities as SpecCapabilities, LinuxCapabilities, PosixRlimit, PosixRlimitType, User,
};
use serde::{Deserialize, Serialize};

use super::PlanError;

/// Who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; the list is always set, so that the agent's own never leak.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// Whether `execve` may grant privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
}

/// Capability sets as bit masks: bit N is capability number N (`capabilities(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What `execve` may ever gain.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over `execve` where the file has them too.
    pub inheritable: u64,
    /// May be made effective.
    pub permitted: u64,
    /// Kept over `execve` of an ordinary file.
    pub ambient: u64,
}

impl Capabilities {
    pub(super) fn of_spec(spec: Option<&LinuxCapabilities>) -> Capabilities {
        let Some(spec) = spec else { return Capabilities::default() };
        Capabilities {
            bounding: mask(spec.bounding()),
            effective: mask(spec.effective()),
            inheritable: mask(spec.inheritable()),
            permitted: mask(spec.permitted()),
            ambient: mask(spec.ambient()),
        }
    }
}

fn mask(set: &Option<SpecCapabilities>) -> u64 {
    // A name that capctl does not know cannot be granted by this kernel either: it is left out, as the runtime
    // spec demands for capabilities that cannot be granted ("SHOULD log a warning", the caller's part).
    set.iter()
        .flatten()
        .filter_map(|cap| format!("CAP_{cap}").parse::<Cap>().ok())
        .fold(0, |mask, cap| mask | (1 << cap as u8))
}

/// Names of all capabilities that Linux has, as the OCI runtime spec spells them.
pub fn capability_names() -> impl Iterator<Item = String> {
    Cap::iter().map(|cap| cap.to_string())
}

/// Turns a mask back into a set, leaving out what the running kernel does not know.
pub(crate) fn cap_set(mask: u64) -> CapSet {
    Cap::iter().filter(|cap| mask & (1 << *cap as u8) != 0).collect()
}

impl Identity {
    pub(super) fn of_spec(
        user: &User,
        capabilities: Option<&LinuxCapabilities>,
        no_new_privileges: Option<bool>,
    ) -> Result<Identity, PlanError> {
        Ok(Identity {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask().unwrap_or(0o022) & 0o777,
            capabilities: Capabilities::of_spec(capabilities),
            no_new_privileges: no_new_privileges.unwrap_or(false),
        })
    }
}

/// One `prlimit(2)` limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number of the kernel's asm-generic table.
    pub resource: u32,
    /// Enforced value; `u64::MAX` is no limit.
    pub soft: u64,
    /// Ceiling for the soft value; `u64::MAX` is no limit.
    pub hard: u64,
}

const NOFILE: u32 = 7;
/// Names by number (`include/uapi/asm-generic/resource.h`).
const RLIMIT_NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];
/// Open files where the spec names no limit: what a kernel gives its first process, not what the agent gave itself.
const DEFAULT_NOFILE: Rlimit = Rlimit { resource: NOFILE, soft: 1024, hard: 1_048_576 };

impl Rlimit {
    /// All limits of a process. A type may be listed once.
    pub(super) fn all_of_spec(list: &[PosixRlimit]) -> Result<Vec<Rlimit>, PlanError> {
        let mut limits: Vec<Rlimit> = Vec::new();
        for entry in list {
            let limit = Rlimit::of_spec(entry)?;
            if limits.iter().any(|other| other.resource == limit.resource) {
                return Err(PlanError::Invalid(format!("rlimit {} is listed twice", entry.typ())));
            }
            limits.push(limit);
        }
        if limits.iter().all(|limit| limit.resource != NOFILE) {
            limits.push(DEFAULT_NOFILE);
        }
        Ok(limits)
    }

    /// Its name, as the runtime spec and `getrlimit(2)` have it.
    pub fn name(&self) -> &'static str {
        RLIMIT_NAMES.get(self.resource as usize).copied().unwrap_or("an unknown rlimit")
    }

    /// Whether it is the limit of open files, which the kernel has a ceiling of its own for.
    pub fn is_open_files(&self) -> bool {
        self.resource == NOFILE
    }

    fn of_spec(spec: &PosixRlimit) -> Result<Rlimit, PlanError> {
        if spec.soft() > spec.hard() {
            return Err(PlanError::Invalid(format!(
                "rlimit {} has soft {} above hard {}",
                spec.typ(),
                spec.soft(),
                spec.hard()
            )));
        }
        // include/uapi/asm-generic/resource.h
        let resource = match spec.typ() {
            PosixRlimitType::RlimitCpu => 0,
            PosixRlimitType::RlimitFsize => 1,
            PosixRlimitType::RlimitData => 2,
            PosixRlimitType::RlimitStack => 3,
            PosixRlimitType::RlimitCore => 4,
            PosixRlimitType::RlimitRss => 5,
            PosixRlimitType::RlimitNproc => 6,
            PosixRlimitType::RlimitNofile => 7,
            PosixRlimitType::RlimitMemlock => 8,
            PosixRlimitType::RlimitAs => 9,
            PosixRlimitType::RlimitLocks => 10,
            PosixRlimitType::RlimitSigpending => 11,
            PosixRlimitType::RlimitMsgqueue => 12,
            PosixRlimitType::RlimitNice => 13,
            PosixRlimitType::RlimitRtprio => 14,
            PosixRlimitType::RlimitRttime => 15,
        };
        Ok(Rlimit { resource, soft: spec.soft(), hard: spec.hard() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder, PosixRlimitBuilder};

    #[test]
    fn capabilities_become_bits_of_their_numbers() {
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding([Capability::Chown, Capability::SysAdmin])
            .build()
            .unwrap();
        let got = Capabilities::of_spec(Some(&spec));
        assert_eq!(got.bounding, 1 | 1 << 21);
        assert_eq!(cap_set(got.bounding), [Cap::CHOWN, Cap::SYS_ADMIN].into_iter().collect());
    }

    #[test]
    fn limits_have_the_names_that_the_spec_gives_them() {
        for typ in [PosixRlimitType::RlimitCpu, PosixRlimitType::RlimitNofile, PosixRlimitType::RlimitRttime]
        {
            let spec = PosixRlimitBuilder::default().typ(typ).soft(1u64).hard(1u64).build().unwrap();
            assert_eq!(Rlimit::of_spec(&spec).unwrap().name(), typ.to_string());
        }
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        let spec = PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(2u64)
            .hard(1u64)
            .build()
            .unwrap();
        assert!(Rlimit::of_spec(&spec).unwrap_err().to_string().contains("soft 2 above hard 1"));
    }
}
