//! Our programs against those that libseccomp makes of the same profile, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxSeccomp;
use serde_json::json;

use super::super::Instruction;
use super::super::interpreter::{Call, run};
use super::super::table::{self, Column};
use super::*;

/// Reads a profile on stdin, has libseccomp make the program and writes it to stdout. In Python, since it finds the
/// library at run time and calls it without a line of C. Prints nothing where there is no library.
const SCRIPT: &str = r#"
import ctypes, json, os, sys, tempfile
try:
    lib = ctypes.CDLL("libseccomp.so.2")
except OSError:
    sys.exit(0)
lib.seccomp_init.restype = ctypes.c_void_p
class Arg(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]
PLAIN = {"KILL": 0, "KILL_THREAD": 0, "KILL_PROCESS": 0x80000000, "TRAP": 0x30000, "LOG": 0x7ffc0000, "ALLOW": 0x7fff0000}
def action(name, errno):
    name = name.removeprefix("SCMP_ACT_")
    if name in PLAIN: return PLAIN[name]
    return {"ERRNO": 0x50000, "TRACE": 0x7ff00000}[name] | (1 if errno is None else errno)
OPS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
profile = json.load(sys.stdin)
default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
ARCHES = {
    "SCMP_ARCH_X86_64": 0xc000003e, "SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X32": 0x4000003e,
    "SCMP_ARCH_AARCH64": 0xc00000b7, "SCMP_ARCH_ARM": 0x40000028,
}
native = int(sys.argv[1])
if native != lib.seccomp_arch_native() % 2**32:
    assert lib.seccomp_arch_add(ctx, ctypes.c_uint32(native)) == 0
    assert lib.seccomp_arch_remove(ctx, ctypes.c_uint32(lib.seccomp_arch_native())) == 0
for arch in profile.get("architectures", []):
    result = lib.seccomp_arch_add(ctx, ctypes.c_uint32(ARCHES[arch]))
    assert result in (0, -17), (arch, result)
for rule in profile["syscalls"]:
    act = action(rule["action"], rule.get("errnoRet"))
    if act == default: continue
    for name in rule["names"]:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number == -1: continue
        args = [Arg(a["index"], OPS[a["op"].removeprefix("SCMP_CMP_")], a["value"], a.get("valueTwo", 0)) for a in rule.get("args") or []]
        result = lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(act), number, len(args), (Arg * max(len(args), 1))(*args))
        assert result == 0, (name, result)
with tempfile.TemporaryFile() as file:
    assert lib.seccomp_export_bpf(ctx, file.fileno()) == 0
    file.seek(0)
    sys.stdout.buffer.write(file.read())
"#;

/// The program that libseccomp makes for a kernel of this family; none where it is not installed.
fn theirs(profile: &serde_json::Value, family: Family) -> Option<Vec<Instruction>> {
    let native = family.members()[0].2.to_string();
    let mut python = Command::new("python3");
    let child = python.args(["-c", SCRIPT, &native]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: there is no python3 to ask libseccomp with");
        return None;
    };
    child.stdin.take().unwrap().write_all(profile.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{profile}");
    if output.stdout.is_empty() {
        eprintln!("skipped: libseccomp is not installed");
        return None;
    }
    let instruction = |bytes: &[u8]| Instruction {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    Some(output.stdout.chunks_exact(8).map(instruction).collect())
}

/// Calls of each architecture with arguments that profiles look at.
fn calls(family: Family) -> impl Iterator<Item = Call> {
    let machines = match family {
        Family::X86 => [
            (0xc000_003e_u32, 0..470_u32),
            (0x4000_0003, 0..470),
            (0xc000_003e, 0x4000_0000..0x4000_0230),
            (1, 0..3),
        ],
        Family::Arm => {
            [(0xc000_00b7, 0..470), (0x4000_0028, 0..470), (0x4000_0028, 0xf_0000..0xf_0010), (1, 0..3)]
        }
    };
    let arguments: [u64; 14] = [0, 1, 2, 3, 7, 8, 9, 16, 40, 41, 131_072, 131_080, 0xffff_ffff, 0x7e02_0000];
    machines.into_iter().flat_map(move |(machine, numbers)| {
        numbers.flat_map(move |number| {
            arguments.into_iter().map(move |value| Call {
                number,
                machine,
                arguments: [value, value ^ 1, 3, value, 0, value],
            })
        })
    })
}

fn profile(json: &serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json.clone()).unwrap()
}

/// Instructions that one call takes, on the average of x86_64's first 335, which are those that programs make.
fn mean(program: &[Instruction]) -> f64 {
    let steps: usize = (0..335)
        .map(|number| run(program, &Call { number, machine: 0xc000_003e, arguments: [0; 6] }).1)
        .sum();
    steps as f64 / 335.0
}

/// Whether a call is newer than all that a profile names, and the profile forbids what it does not name.
fn is_newer(json: &serde_json::Value, family: Family, call: &Call) -> bool {
    let profile = profile(json);
    let listed = |name: &str| profile.architectures().iter().flatten().any(|arch| arch.to_string() == name);
    let (column, number) = match (family, call.machine, call.number) {
        (Family::X86, 0xc000_003e, number @ 0x4000_0000..) if listed("SCMP_ARCH_X32") => {
            (Column::X32, number - 0x4000_0000)
        }
        (Family::X86, 0xc000_003e, number @ 0..0x4000_0000) => (Column::X86_64, number),
        (Family::X86, 0x4000_0003, number) if listed("SCMP_ARCH_X86") => (Column::X86, number),
        (Family::Arm, 0xc000_00b7, number) => (Column::Aarch64, number),
        (Family::Arm, 0x4000_0028, number) if listed("SCMP_ARCH_ARM") => (Column::Arm, number),
        _ => return false,
    };
    let permissive = ["ALLOW", "LOG", "TRACE"].map(|name| format!("SCMP_ACT_{name}"));
    let names = profile.syscalls().iter().flatten().flat_map(|entry| entry.names());
    let newest = names.filter_map(|name| table::common_number(name, column)).max();
    let is_private = column == Column::Arm && number >= table::ARM_PRIVATE_BASE;
    !permissive.contains(&profile.default_action().to_string())
        && newest.is_some_and(|newest| number > newest)
        && !is_private
}

fn compare(json: &serde_json::Value) {
    for family in [Family::X86, Family::Arm] {
        let Some(theirs) = theirs(json, family) else { return };
        let ours = compile_for(&profile(json), family).unwrap().program;
        for call in calls(family) {
            let (our, mut their) = (run(&ours, &call).0, run(&theirs, &call).0);
            if is_newer(json, family, &call) {
                // Not libseccomp's affair: runc puts a program of its own in front.
                their = 0x0005_0026;
            }
            assert_eq!(our, their, "{call:?} of {json}");
        }
    }
}

fn docker() -> serde_json::Value {
    serde_json::from_str(include_str!("../../testdata/seccomp-docker.json")).unwrap()
}

#[test]
fn dockers_profile_decides_as_libseccomp_has_it() {
    let json = docker();
    compare(&json);
    let mut of_arm = json.clone();
    of_arm["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    compare(&of_arm);
    if let Some(theirs) = theirs(&json, Family::X86) {
        let ours = compile_for(&profile(&json), Family::X86).unwrap().program;
        println!(
            "Docker's profile: {} instructions, {:.1} per call; libseccomp: {}, {:.1} per call",
            ours.len(),
            mean(&ours),
            theirs.len(),
            mean(&theirs)
        );
    }
}

#[test]
fn dockers_profile_has_known_answers() {
    for family in [Family::X86, Family::Arm] {
        dockers_answers(family);
    }
}

fn dockers_answers(family: Family) {
    let filter = compile_for(&profile(&docker()), family).unwrap();
    let (_, column, machine) = family.members()[0];
    let of = |name: &str, argument: u64| {
        let number = table::number(name, column).unwrap();
        run(&filter.program, &Call { number, machine, arguments: [argument, 0, 0, 0, 0, 0] }).0
    };
    let (allow, perm, nosys) = (0x7fff_0000, 0x0005_0001, 0x0005_0026);
    assert_eq!([of("read", 0), of("execve", 0), of("mount", 0)], [allow, allow, perm]);
    assert_eq!([of("clone3", 0), of("socket", 1), of("socket", 40)], [nosys, allow, perm]);
    assert_eq!([of("personality", 8), of("personality", 9)], [allow, perm]);
    // Threads, but no namespaces.
    assert_eq!([of("clone", 0x3d0f00), of("clone", 0x1000_0000)], [allow, perm]);
}

#[test]
fn every_operator_decides_as_libseccomp_has_it() {
    for (operator, two) in
        [("NE", 0), ("LT", 0), ("LE", 0), ("EQ", 0), ("GE", 0), ("GT", 0), ("MASKED_EQ", 8)]
    {
        for value in [0_u64, 8, 40, 0xffff_ffff, 1 << 32, 0x7e02_0000] {
            let op = format!("SCMP_CMP_{operator}");
            compare(&json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [
                    { "names": ["read", "openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [
                        { "index": 0, "value": value, "valueTwo": two & value, "op": op },
                        { "index": 3, "value": 7, "op": "SCMP_CMP_GT" },
                    ] },
                ],
            }));
        }
    }
}

#[test]
fn actions_and_rules_for_all_decide_as_libseccomp_has_them() {
    let arg = |value: u64| json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
    compare(&json!({
        "defaultAction": "SCMP_ACT_LOG",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_ARM"],
        "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arg(3) },
            { "names": ["read"], "action": "SCMP_ACT_KILL_PROCESS" },
            { "names": ["write"], "action": "SCMP_ACT_TRAP" },
            { "names": ["write"], "action": "SCMP_ACT_TRAP", "args": arg(3) },
            { "names": ["open", "socket", "semop"], "action": "SCMP_ACT_TRACE", "errnoRet": 99 },
            { "names": ["mkdir", "set_tls", "no_such_call"], "action": "SCMP_ACT_KILL" },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": arg(8) },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": arg(16) },
        ],
    }));
}
