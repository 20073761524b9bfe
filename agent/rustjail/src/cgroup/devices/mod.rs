//! Which devices a container may use.
//!
//! Owns: the meaning of OCI's device rules, the rules every container gets, and the filter on the cgroup.
//!
//! The meaning: an access (read, write, mknod, in any combination) to a device is allowed if each part of it is, and
//! for each part the *last* rule decides that names the device and that part. What no rule names is denied. A part of
//! a rule that is left out, or is -1, stands for any.
//!
//! Promises: a filter takes the place of the one before in one step, never with a gap and never wider than the wider of
//! the two. Must never: translate numbers or names (rules come with the guest's numbers).

mod instruction;
#[cfg(test)]
mod interpreter;
mod program;

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::io::Errno;

use super::error::FILTER_OPTIONS;
use super::{Cgroup, Error};
use crate::sys::bpf;
use instruction::Instruction;

/// More rules than any real container has, and few enough for the verifier (a million steps).
const RULES_MAX: usize = 1024;
/// How often a program is loaded until a signal is no longer to blame.
const LOAD_ATTEMPTS: usize = 10;

/// What a process wants to do with a device, as `BPF_DEVCG_ACC_*` bits.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// A device's kind, as `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceKind {
    Block = 1,
    Char = 2,
}

/// A rule, read once. None stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<DeviceKind>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

/// The rules every container gets after its own: it may make any node (a node alone opens nothing), and use
/// the devices without which programs do not run. `/dev/console` (5:1) is none of them: it is the guest's console, where
/// the agent and the kernel write. A container's own is a terminal of devpts under that name.
pub fn default_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{B, C};
    const DEVICES: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
        (C, None, None, "m"),
        (B, None, None, "m"),
        (C, Some(1), Some(3), "rwm"),    // null
        (C, Some(1), Some(5), "rwm"),    // zero
        (C, Some(1), Some(7), "rwm"),    // full
        (C, Some(1), Some(8), "rwm"),    // random
        (C, Some(1), Some(9), "rwm"),    // urandom
        (C, Some(5), Some(0), "rwm"),    // tty
        (C, Some(5), Some(2), "rwm"),    // ptmx
        (C, Some(136), None, "rwm"),     // pts/*
        (C, Some(10), Some(200), "rwm"), // net/tun
    ];
    let rule = |(typ, major, minor, access): (_, Option<i64>, Option<i64>, &str)| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(typ)).set_major(major).set_minor(minor);
        rule.set_access(Some(access.to_owned()));
        rule
    };
    DEVICES.into_iter().map(rule).collect()
}

impl Rule {
    fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
        let refused = |problem: String| Err(Error::resource(format!("devices[{rule}]"), problem));
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(DeviceKind::Block),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(DeviceKind::Char),
            Some(LinuxDeviceType::P) => return refused("a fifo is no device".to_owned()),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some),
        };
        let (Ok(major), Ok(minor)) = (number(rule.major()), number(rule.minor())) else {
            return refused("no device number, nor -1 for any".to_owned());
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                other => return refused(format!("{other:?} is none of r, w and m")),
            };
        }
        Ok(Rule { allow: rule.allow(), kind, major, minor, access: if access == 0 { ALL } else { access } })
    }
}

/// The container's rules and the defaults behind them, read.
fn parse_all(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Error> {
    if rules.len() > RULES_MAX {
        let problem = format!("{} rules are more than {RULES_MAX}", rules.len());
        return Err(Error::resource("devices", problem));
    }
    rules.iter().chain(&default_rules()).map(Rule::parse).collect()
}

/// The container's own rules as they were understood, once a program could be made of all.
#[cfg(any(test, fuzzing))]
pub(super) fn outcome(rules: &[LinuxDeviceCgroup]) -> Result<Vec<String>, Error> {
    let parsed = parse_all(rules)?;
    assert!(!program::compile(&parsed).is_empty(), "a filter has an answer");
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let text = |rule: &Rule| {
        let verb = if rule.allow { "allow" } else { "deny" };
        let kind = rule.kind.map_or_else(|| "any".to_owned(), |kind| format!("{kind:?}").to_lowercase());
        let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(bit, _)| rule.access & bit != 0).map(|(_, letter)| letter).collect();
        format!("{verb} {kind} {}:{} {access}", number(rule.major), number(rule.minor))
    };
    Ok(parsed.iter().take(rules.len()).map(text).collect())
}

impl Cgroup {
    /// Lets the container use the devices that `rules` allow, and those of [`default_rules`] in any case. To be called
    /// again when the rules change.
    ///
    /// # Errors
    /// [`Error::Resource`] for a rule that cannot be right; [`Error::DeviceFilter`] if the kernel refuses the filter
    /// (class `Unsupported` when it was built without bpf(2)).
    pub fn apply_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
        let rules = parse_all(rules)?;
        let program = self.load(&program::compile(&rules))?;
        self.attach(&program)
    }

    fn load(&self, instructions: &[Instruction]) -> Result<OwnedFd, Error> {
        let encoded: Vec<[u8; 8]> = instructions.iter().map(Instruction::encode).collect();
        let errno = match load(&encoded, None) {
            Ok(program) => return Ok(program),
            Err(errno) => errno,
        };
        // Once more, to hear why.
        let mut log = vec![0u8; 64 * 1024];
        load(&encoded, Some(&mut log)).map_err(|_| {
            let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
            // The verifier's last words are the reason; before them is all it looked at.
            let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(400)..]);
            let detail = match errno {
                // It was never asked: an unknown command, or an unknown type of program.
                Errno::NOSYS | Errno::INVAL if tail.is_empty() => FILTER_OPTIONS,
                _ => &tail,
            };
            self.filter_error("load", errno, detail.to_owned())
        })
    }

    /// Puts `program` in the place of what is attached.
    fn attach(&self, program: &OwnedFd) -> Result<(), Error> {
        let failed = |operation| move |errno| self.filter_error(operation, errno, String::new());
        let ids = bpf::device_programs(self.dir()).map_err(failed("query"))?;
        let old: Vec<OwnedFd> =
            ids.into_iter().map(bpf::open_program).collect::<Result<_, _>>().map_err(failed("query"))?;
        if let [only] = old.as_slice() {
            return bpf::attach_device_program(self.dir(), program.as_fd(), Some(only.as_fd()))
                .map_err(failed("replace"));
        }
        // Programs side by side must all agree, so until the others are gone this is only stricter.
        bpf::attach_device_program(self.dir(), program.as_fd(), None).map_err(failed("attach"))?;
        old.iter()
            .try_for_each(|old| bpf::detach_device_program(self.dir(), old.as_fd()).map_err(failed("detach")))
    }

    fn filter_error(&self, operation: &'static str, errno: Errno, detail: String) -> Error {
        Error::DeviceFilter { operation, path: self.path().to_owned(), detail, source: errno.into() }
    }
}

/// Loads a program. The verifier gives up with EAGAIN when a signal arrives, which means nothing.
fn load(encoded: &[[u8; 8]], mut log: Option<&mut [u8]>) -> Result<OwnedFd, Errno> {
    for _ in 1..LOAD_ATTEMPTS {
        match bpf::load_device_program(encoded, log.as_deref_mut()) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    bpf::load_device_program(encoded, log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rule, Error> {
        Rule::parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn what_is_left_out_stands_for_any() {
        let any = Rule { allow: false, kind: None, major: None, minor: None, access: ALL };
        assert_eq!(rule(r#"{"allow": false}"#).unwrap(), any);
        assert_eq!(rule(r#"{"allow": false, "access": "rwm"}"#).unwrap(), any);
        assert_eq!(
            rule(r#"{"allow": false, "type": "a", "major": -1, "minor": -1, "access": ""}"#).unwrap(),
            any
        );
        assert_eq!(
            rule(r#"{"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rw"}"#).unwrap(),
            Rule {
                allow: true,
                kind: Some(DeviceKind::Char),
                major: Some(10),
                minor: Some(232),
                access: READ | WRITE,
            }
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for json in [
            r#"{"allow": true, "type": "p"}"#,
            r#"{"allow": true, "type": "c", "major": -2}"#,
            r#"{"allow": true, "type": "b", "minor": 4294967296}"#,
            r#"{"allow": true, "access": "rx"}"#,
        ] {
            assert!(matches!(rule(json), Err(Error::Resource { .. })), "{json}");
        }
        let error =
            rule(r#"{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "x"}"#).unwrap_err();
        assert_eq!(error.to_string(), "linux.resources.devices[c 1:3 x]: 'x' is none of r, w and m");
    }

    #[test]
    fn the_defaults_are_rules() {
        assert!(default_rules().iter().all(|rule| Rule::parse(rule).is_ok_and(|rule| rule.allow)));
    }
}
