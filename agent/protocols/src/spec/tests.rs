//! The conversions against each other (properties), against a real `config.json`, and against bad input.

mod strategies;

use oci_spec::runtime::{self, Capability, LinuxDeviceType};
use proptest::collection::vec;
use proptest::prelude::*;
use protobuf::Message as _;

use self::strategies::{process, resources, spec};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..Default::default() })]

    /// Nothing that the wire carries is lost or altered.
    #[test]
    fn from_the_wire_and_back_is_the_same(wire in spec()) {
        let (decoded, warnings) = from_wire(&wire).unwrap();
        prop_assert_eq!(warnings, vec![]);
        prop_assert_eq!(to_wire(&decoded), wire);
    }

    #[test]
    fn a_lone_process_is_that_of_the_spec(wire in process()) {
        let (alone, _) = process_from_wire(&wire).unwrap();
        let (spec, _) = from_wire(&oci::Spec { Process: Some(wire.clone()).into(), ..Default::default() }).unwrap();
        prop_assert_eq!(spec.process().as_ref(), Some(&alone));
        prop_assert_eq!(alone.env().clone().unwrap_or_default(), wire.Env);
    }

    #[test]
    fn lone_resources_are_those_of_the_spec(wire in resources()) {
        let alone = resources_from_wire(&wire).unwrap();
        prop_assert_eq!(resources_to_wire(&alone), wire);
    }

    /// Any bytes at all: decoding gives a spec or an error, and what it gives survives another turn.
    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        survives(&bytes)?;
    }

    /// The same for bytes that are nearly right, which reach further in.
    #[test]
    fn no_spoiled_spec_makes_it_panic(wire in spec(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = wire.write_to_bytes().unwrap();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes)?;
    }
}

fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(wire) = oci::Spec::parse_from_bytes(bytes)
        && let Ok((decoded, _)) = from_wire(&wire)
    {
        prop_assert_eq!(from_wire(&to_wire(&decoded)).unwrap().0, decoded);
    }
    Ok(())
}

/// The types' own defaults describe a sample container; none of that may leak into a spec from the wire.
#[test]
fn an_empty_message_gives_an_empty_section() {
    let wire = oci::Spec {
        Process: Some(oci::Process::new()).into(),
        Root: Some(oci::Root::new()).into(),
        Linux: Some(oci::Linux::new()).into(),
        ..Default::default()
    };
    let expected: runtime::Spec = serde_json::from_str(
        r#"{"ociVersion": "", "root": {"path": "", "readonly": false}, "linux": {},
            "process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "", "noNewPrivileges": false,
                        "oomScoreAdj": 0}}"#,
    )
    .unwrap();
    assert_eq!(from_wire(&wire).unwrap(), (expected, vec![]));
    let nothing: runtime::Spec = serde_json::from_str("{}").unwrap();
    assert_eq!(from_wire(&oci::Spec::new()).unwrap(), (nothing, vec![]));
}

/// A `config.json` with everything the wire can carry comes out of a trip as it went in.
#[test]
fn a_config_json_survives_the_trip() {
    let config: runtime::Spec = serde_json::from_str(include_str!("testdata/config.json")).unwrap();
    let bytes = to_wire(&config).write_to_bytes().unwrap();
    let (back, warnings) = from_wire(&oci::Spec::parse_from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(back, config);
}

#[test]
fn unknown_capabilities_are_left_out_with_a_warning() {
    let wire = oci::Process {
        Capabilities: Some(oci::LinuxCapabilities {
            Bounding: ["CAP_CHOWN", "cap_kill", "BPF", "CAP_TIME_TRAVEL", ""].map(str::to_owned).into(),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let (process, warnings) = process_from_wire(&wire).unwrap();
    let capabilities = process.capabilities().as_ref().unwrap();
    let bounding = capabilities.bounding().as_ref().unwrap();
    assert_eq!(*bounding, [Capability::Chown, Capability::Kill, Capability::Bpf].into());
    assert_eq!(*capabilities.ambient(), Some([].into()), "an empty set, not an absent one");
    let texts: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            r#"process.capabilities.bounding: unknown capability "CAP_TIME_TRAVEL" left out"#,
            r#"process.capabilities.bounding: unknown capability "" left out"#,
        ]
    );
}

#[test]
fn sections_for_other_platforms_are_warned_about() {
    let wire = oci::Spec {
        Solaris: Some(oci::Solaris::new()).into(),
        Windows: Some(oci::Windows::new()).into(),
        ..Default::default()
    };
    let (_, warnings) = from_wire(&wire).unwrap();
    assert_eq!(
        warnings,
        [Warning::ForeignPlatform { field: "solaris" }, Warning::ForeignPlatform { field: "windows" }]
    );
}

#[test]
fn both_spellings_of_namespace_types_are_taken() {
    use runtime::LinuxNamespaceType::{Mount, Network};
    for (name, typ) in [("mount", Mount), ("mnt", Mount), ("network", Network), ("net", Network)] {
        let mut wire = oci::Spec::new();
        wire.Linux.mut_or_insert_default().Namespaces =
            vec![oci::LinuxNamespace { Type: name.to_owned(), ..Default::default() }];
        let (spec, _) = from_wire(&wire).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap()[0].typ(), typ);
    }
}

#[test]
fn zero_in_a_device_rule_is_every_number_only_where_it_cannot_be_a_number() {
    type Rule = (&'static str, i64, i64);
    let cases: [(Rule, Option<i64>, Option<i64>); 7] = [
        (("", 0, 0), None, None),
        (("a", 0, 0), None, None),
        (("a", -1, -1), None, None),
        (("c", 0, 0), None, None),
        (("c", 136, -1), Some(136), None),
        (("b", 8, 0), Some(8), Some(0)),
        (("c", -1, 0), None, Some(0)),
    ];
    for ((typ, major, minor), expected_major, expected_minor) in cases {
        let wire = oci::LinuxResources {
            Devices: vec![oci::LinuxDeviceCgroup {
                Type: typ.to_owned(),
                Major: major,
                Minor: minor,
                ..Default::default()
            }],
            ..Default::default()
        };
        let resources = resources_from_wire(&wire).unwrap();
        let rule = &resources.devices().as_ref().unwrap()[0];
        assert_eq!((rule.major(), rule.minor()), (expected_major, expected_minor), "{typ} {major}:{minor}");
        assert_eq!(rule.typ(), typ.parse::<LinuxDeviceType>().ok());
    }
}

/// One bad value per field, and the text a caller reads.
#[test]
fn bad_values_are_named() {
    type Spoil = fn(&mut oci::Spec);
    let cases: [(Spoil, &str); 16] = [
        (
            |s| {
                let rlimits = &mut s.Process.mut_or_insert_default().Rlimits;
                rlimits.push(oci::POSIXRlimit { Type: "RLIMIT_CPU".to_owned(), ..Default::default() });
                rlimits.push(oci::POSIXRlimit { Type: "NOFILE".to_owned(), ..Default::default() });
            },
            r#"process.rlimits[1].type: "NOFILE" is not an RLIMIT_* name of Linux"#,
        ),
        (
            |s| s.Process.mut_or_insert_default().OOMScoreAdj = 1001,
            "process.oomScoreAdj: 1001 is not between -1000 and 1000",
        ),
        (
            |s| s.Process.mut_or_insert_default().OOMScoreAdj = i64::MIN,
            "process.oomScoreAdj: -9223372036854775808 is not between -1000 and 1000",
        ),
        (
            |s| {
                s.Hooks.mut_or_insert_default().Poststop =
                    vec![oci::Hook { Timeout: -1, ..Default::default() }]
            },
            "hooks.poststop[0].timeout: -1 is not between 1 and 9223372036854775807",
        ),
        (
            |s| s.Linux.mut_or_insert_default().Namespaces = vec![oci::LinuxNamespace::new()],
            r#"linux.namespaces[0].type: "" is not one of pid, network, mount, ipc, uts, user, cgroup, time"#,
        ),
        (
            |s| s.Linux.mut_or_insert_default().Devices = vec![oci::LinuxDevice::new()],
            r#"linux.devices[0].type: "" is not a device type (a, b, c, u or p)"#,
        ),
        (
            |s| {
                s.Linux.mut_or_insert_default().Devices =
                    vec![oci::LinuxDevice { Type: "c".to_owned(), Minor: -1, ..Default::default() }];
            },
            "linux.devices[0].minor: -1 is not between 0 and 9223372036854775807",
        ),
        (
            |s| resources_of(s).Devices = vec![oci::LinuxDeviceCgroup { Major: -2, ..Default::default() }],
            "linux.resources.devices[0].major: -2 is not between -1 and 9223372036854775807",
        ),
        (
            |s| {
                resources_of(s).Devices =
                    vec![oci::LinuxDeviceCgroup { Type: "disk".to_owned(), ..Default::default() }];
            },
            r#"linux.resources.devices[0].type: "disk" is not a device type (a, b, c, u or p)"#,
        ),
        (
            |s| resources_of(s).BlockIO.mut_or_insert_default().Weight = 65_536,
            "linux.resources.blockIO.weight: 65536 is not between 0 and 65535",
        ),
        (
            |s| {
                resources_of(s).BlockIO.mut_or_insert_default().ThrottleReadIOPSDevice =
                    vec![oci::LinuxThrottleDevice { Major: -8, ..Default::default() }];
            },
            "linux.resources.blockIO.throttleReadIOPSDevice[0].major: -8 is not between 0 and 9223372036854775807",
        ),
        (
            |s| {
                resources_of(s).HugepageLimits =
                    vec![oci::LinuxHugepageLimit { Limit: 1 << 63, ..Default::default() }];
            },
            "linux.resources.hugepageLimits[0].limit: 9223372036854775808 is not between 0 and 9223372036854775807",
        ),
        (
            |s| seccomp_of(s).DefaultAction.clear(),
            r#"linux.seccomp.defaultAction: "" is not a seccomp action (SCMP_ACT_*)"#,
        ),
        (
            |s| seccomp_of(s).Architectures = vec!["x86_64".to_owned()],
            r#"linux.seccomp.architectures[0]: "x86_64" is not an architecture (SCMP_ARCH_*)"#,
        ),
        (
            |s| seccomp_of(s).Flags = vec!["TSYNC".to_owned()],
            r#"linux.seccomp.flags[0]: "TSYNC" is not a filter flag (SECCOMP_FILTER_FLAG_*)"#,
        ),
        (
            |s| {
                let args = vec![oci::LinuxSeccompArg { Op: "==".to_owned(), ..Default::default() }];
                seccomp_of(s).Syscalls = vec![oci::LinuxSyscall {
                    Action: "SCMP_ACT_LOG".to_owned(),
                    Args: args,
                    ..Default::default()
                }];
            },
            r#"linux.seccomp.syscalls[0].args[0].op: "==" is not a comparison (SCMP_CMP_*)"#,
        ),
    ];
    for (spoil, expected) in cases {
        let mut wire = oci::Spec::new();
        spoil(&mut wire);
        assert_eq!(from_wire(&wire).unwrap_err().to_string(), expected);
    }
}

fn resources_of(spec: &mut oci::Spec) -> &mut oci::LinuxResources {
    spec.Linux.mut_or_insert_default().Resources.mut_or_insert_default()
}

fn seccomp_of(spec: &mut oci::Spec) -> &mut oci::LinuxSeccomp {
    let seccomp = spec.Linux.mut_or_insert_default().Seccomp.mut_or_insert_default();
    seccomp.DefaultAction = "SCMP_ACT_ERRNO".to_owned();
    seccomp
}
