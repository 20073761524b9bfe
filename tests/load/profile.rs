//! What a profile of system calls costs an exec: Docker's, with its hundreds of calls.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::figures::{Durations, HEAD};
use tests::{Container, Guest, dockers_profile};

const ROUNDS: usize = 60;

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
    let profile = dockers_profile()?;
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
