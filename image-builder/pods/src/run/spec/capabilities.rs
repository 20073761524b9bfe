//! Which capabilities a container gets.

use super::error::SpecError;
use crate::run::pod::Container;

/// What Docker gives a container that asks for nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The others that Linux 6.12 has.
const OTHER_CAPABILITIES: [&str; 27] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "NET_BROADCAST",
    "PERFMON",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The capabilities of a container, sorted, each with `CAP_`.
///
/// # Errors
/// Names a capability that does not exist.
pub(super) fn of(container: &Container) -> Result<Vec<String>, SpecError> {
    let known = |name: &str| DEFAULT_CAPABILITIES.contains(&name) || OTHER_CAPABILITIES.contains(&name);
    for name in container.security.add_capabilities.iter().chain(&container.security.drop_capabilities) {
        if name != "ALL" && !known(name) {
            return Err(SpecError::Capability { container: container.name.clone(), name: name.clone() });
        }
    }
    let added =
        |name: &str| container.security.add_capabilities.iter().any(|other| other == name || other == "ALL");
    let dropped =
        |name: &str| container.security.drop_capabilities.iter().any(|other| other == name || other == "ALL");
    let named = |name: &str| container.security.add_capabilities.iter().any(|other| other == name);
    let mut names: Vec<String> = DEFAULT_CAPABILITIES
        .into_iter()
        .map(|name| (name, true))
        .chain(OTHER_CAPABILITIES.into_iter().map(|name| (name, false)))
        .filter(|&(name, default)| {
            // Dropping ALL still leaves what is added by name.
            container.security.privileged || named(name) || ((default || added(name)) && !dropped(name))
        })
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::pod::Security;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn capabilities_follow_the_pod() {
        let of = |add: &[&str], drop: &[&str], privileged| {
            let security = Security {
                add_capabilities: words(add),
                drop_capabilities: words(drop),
                privileged,
                ..Security::default()
            };
            super::of(&Container { security, ..Container::default() })
        };
        assert_eq!(of(&[], &[], false).unwrap().len(), 14);
        assert_eq!(of(&["SYS_TIME"], &["ALL"], false).unwrap(), ["CAP_SYS_TIME"]);
        assert!(!of(&[], &["NET_RAW"], false).unwrap().contains(&"CAP_NET_RAW".to_owned()));
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"], false).unwrap().len(), 40);
        assert_eq!(of(&[], &[], true).unwrap().len(), 41);
        assert!(of(&["NOPE"], &[], false).unwrap_err().to_string().contains("NOPE"));
    }
}
