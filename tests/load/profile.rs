//! What a profile of system calls costs an exec: Docker's, with its hundreds of calls.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use protocols::oci;
use tests::{Container, Guest};

use crate::figures::{Durations, HEAD};

const ROUNDS: usize = 60;

/// Docker's profile, as the runtime spec has it.
fn profile() -> Result<oci::LinuxSeccomp> {
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

async fn exec(container: &Container) -> Result<std::time::Duration> {
    let began = Instant::now();
    container.exec(["true"]).run().await?.success()?;
    Ok(began.elapsed())
}

/// Number of the mode of a new process's filter (`proc_pid_status(5)`, "Seccomp").
async fn mode(container: &Container) -> Result<String> {
    Ok(container.sh("sed -n 's/^Seccomp:[^0-9]*//p' /proc/self/status").await?.trim().to_owned())
}

/// The profile is compiled once for a container; what is left is the kernel's own work on the filter of each process, most of
/// all its translation into machine code, which takes long under emulation.
#[tokio::test]
async fn an_exec_under_a_profile_has_its_filter_and_tells_what_it_costs() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let profile = profile()?;
    ensure!(profile.Syscalls.len() > 5, "no profile");
    let free = guest.container("free").run().await?;
    let bound = guest.container("bound").linux(|linux| linux.Seccomp = Some(profile).into()).run().await?;
    assert_eq!((mode(&free).await?.as_str(), mode(&bound).await?.as_str()), ("0", "2"));
    let (mut without, mut with) = (Durations::default(), Durations::default());
    for _ in 0..ROUNDS {
        without.push(exec(&free).await.context("exec without a profile")?);
        with.push(exec(&bound).await.context("exec under a profile")?);
    }
    let ratio = with.percentile(50).as_secs_f64() / without.percentile(50).as_secs_f64();
    println!("{HEAD}\n{}\n{}", without.line("without"), with.line("profile"));
    println!("ratio of the medians: {ratio:.2}");
    Ok(())
}
