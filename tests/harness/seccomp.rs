//! A profile of system calls as real engines send it.

use anyhow::Result;
use protocols::oci;

/// Docker's profile of system calls, as the runtime spec has it.
///
/// # Errors
/// When the file that it is kept in is broken.
pub fn dockers_profile() -> Result<oci::LinuxSeccomp> {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../../agent/rustjail/testdata/seccomp-docker.json"))?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let call = |call: &serde_json::Value| {
        let mut made = oci::LinuxSyscall::new();
        made.Names = list(&call["names"]).iter().map(text).collect();
        made.Action = text(&call["action"]);
        if call["errnoRet"].is_u64() {
            made.set_errnoret(number(&call["errnoRet"]) as u32);
        }
        let arg = |arg: &serde_json::Value| oci::LinuxSeccompArg {
            Index: number(&arg["index"]),
            Value: number(&arg["value"]),
            ValueTwo: number(&arg["valueTwo"]),
            Op: text(&arg["op"]),
            ..Default::default()
        };
        made.Args = list(&call["args"]).iter().map(arg).collect();
        made
    };
    Ok(oci::LinuxSeccomp {
        DefaultAction: text(&json["defaultAction"]),
        Architectures: list(&json["architectures"]).iter().map(text).collect(),
        Syscalls: list(&json["syscalls"]).iter().map(call).collect(),
        ..Default::default()
    })
}
