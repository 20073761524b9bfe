//! The guest's clock stays the host's, also when the machine stands still for a while.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use machine::vm::Endpoint;
use serde_json::Value;
use tests::{Guest, Machine, host_now};

/// What the feature promises.
const BOUND: Duration = Duration::from_millis(100);

/// How long the first answer after the stop may take, by `vhost-device-vsock` and by the kernel's own vsock.
const AWAKE: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(60)];

/// By how many milliseconds the agent has stepped the clock, each time, from its records on the console. Not over vsock: its
/// device on the host may not wake up with the machine (`vhost-device-vsock` 0.3).
fn steps(guest: &Guest) -> Result<Vec<i64>> {
    let log = guest.vm().console_log();
    let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps = records.filter(|record| record["msg"] == "the clock was wrong and is stepped");
    let by = |step: Value| {
        let by = &step["milliseconds"];
        let by = by.as_i64().or_else(|| by.as_str()?.parse().ok());
        by.with_context(|| format!("no milliseconds in {step}"))
    };
    steps.map(by).collect()
}

/// Waits for a step that comes after so many others, and gives it.
async fn step_after(guest: &Guest, others: usize) -> Result<i64> {
    for _ in 0..600 {
        if let Some(step) = steps(guest)?.get(others) {
            return Ok(*step);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the clock was not stepped")
}

async fn a_clock_survives_a_stop(machine: Machine) -> Result<()> {
    let guest = Guest::builder().machine(machine).boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    guest.set_clock(host_now()).await?;
    assert!(
        container.clock_error().await? <= BOUND,
        "not what was set: {:?}",
        container.clock_error().await?
    );
    // The agent has looked at its source since.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(container.clock_error().await? <= BOUND, "not kept: {:?}", container.clock_error().await?);
    // Under KVM it may have stepped the clock before: what the host set was not exactly the host's time.
    let before = steps(&guest)?.len();
    guest.vm().qmp("stop", Value::Null).await?;
    let stopped = Instant::now();
    tokio::time::sleep(Duration::from_secs(30)).await;
    guest.vm().qmp("cont", Value::Null).await?;
    let stood = i64::try_from(stopped.elapsed().as_millis())?;
    let by = step_after(&guest, before).await?;
    println!("{machine:?}: stood still for {stood} ms, stepped by {by} ms");
    // It was right before, so the step is the time that it missed.
    assert!((by - stood).unsigned_abs() <= BOUND.as_millis() as u64, "{stood} ms became {by} ms");
    let is_kernels = matches!(guest.vm().endpoint(), Endpoint::Vsock { .. });
    let patience = AWAKE[usize::from(is_kernels)];
    match tokio::time::timeout(patience, container.clock_error()).await {
        Ok(left) => assert!(left? <= BOUND, "wrong after the step"),
        Err(_) if is_kernels => bail!("no answer within {patience:?} of the stop, by the kernel's own vsock"),
        // What is known of `vhost-device-vsock` 0.3. What the log says of the step was checked above.
        Err(_) => println!("{machine:?}: the host's vsock device did not wake up with the machine"),
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_survives_a_stop_on_a_q35() -> Result<()> {
    a_clock_survives_a_stop(Machine::Q35).await
}

#[tokio::test]
async fn a_clock_survives_a_stop_on_a_microvm() -> Result<()> {
    a_clock_survives_a_stop(Machine::Microvm).await
}

#[tokio::test]
async fn what_the_host_sets_is_kept_even_if_it_is_another_time() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let year_2030 = Duration::from_secs(1_900_000_000);
    guest.set_clock(year_2030).await?;
    let at = host_now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    let text = container.sh("date +%s").await?;
    let passed = Duration::from_secs(text.parse()?).saturating_sub(year_2030);
    let really = host_now() - at;
    let difference = passed.max(really) - passed.min(really);
    assert!(difference < Duration::from_secs(2), "{passed:?} in the guest, {really:?} here");
    Ok(())
}
