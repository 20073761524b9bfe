//! What the machine's device tree says about PSCI, the calls by which firmware or a hypervisor starts the processors of an Arm
//! machine and ends it. Pure.
//!
//! Follows what the kernel does with the same node (Linux 6.12, `drivers/firmware/psci/psci.c`): PSCI has been able to power a
//! machine off since version 0.2 (Arm DEN0022).

/// Names of the versions that can power off.
const COMPATIBLE: [&[u8]; 2] = [b"arm,psci-1.0", b"arm,psci-0.2"];

/// Whether the kernel can power the machine off by the node with these properties. Each is a list of strings that end in NUL; a
/// missing `status` means that the node is in use.
pub(crate) fn can_power_off(compatible: &[u8], status: Option<&[u8]>) -> bool {
    let first = status.map(|status| strings(status).next().unwrap_or_default());
    let is_used = first.is_none_or(|status| status == b"okay" || status == b"ok");
    is_used && strings(compatible).any(|name| COMPATIBLE.contains(&name))
}

fn strings(property: &[u8]) -> impl Iterator<Item = &[u8]> {
    property.split(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_can_power_off_count() {
        for compatible in [&b"arm,psci-1.0\0arm,psci-0.2\0arm,psci\0"[..], b"arm,psci-0.2\0", b"arm,psci-0.2"]
        {
            assert!(can_power_off(compatible, None), "{}", String::from_utf8_lossy(compatible));
        }
        for compatible in [&b""[..], b"arm,psci\0", b"arm,psci-0.2x\0", b"xarm,psci-1.0\0", b"\0\0"] {
            assert!(!can_power_off(compatible, None), "{}", String::from_utf8_lossy(compatible));
        }
    }

    #[test]
    fn a_node_that_is_switched_off_does_not_count() {
        for (status, is_used) in
            [(&b"okay\0"[..], true), (b"ok\0", true), (b"disabled\0", false), (b"", false)]
        {
            assert_eq!(can_power_off(b"arm,psci-1.0\0", Some(status)), is_used);
        }
    }
}
