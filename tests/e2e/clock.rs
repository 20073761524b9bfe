//! The guest's clock stays the host's, also when the machine stands still for a while.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use image_builder::vm::AgentClient;
use protocols::agent::SetGuestDateTimeRequest;
use serde_json::Value;
use tests::{Guest, Machine};

/// What the feature promises.
const BOUND: Duration = Duration::from_millis(100);

fn host_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

async fn set(guest: &Guest, time: Duration) -> Result<()> {
    let request = SetGuestDateTimeRequest {
        Sec: time.as_secs().try_into()?,
        Usec: time.subsec_micros().into(),
        ..Default::default()
    };
    guest.api().set_guest_date_time(AgentClient::call(), &request).await?;
    Ok(())
}

/// How far the guest's clock is from the host's, for sure: what the asking took is in its favour. Each try has a connection
/// of its own: one that was open while the machine stood still may not wake up with it (`vhost-device-vsock`).
async fn error(guest: &Guest, id: &str) -> Result<Duration> {
    let mut tries = 0;
    loop {
        tries += 1;
        let ask = async {
            let client = guest.vm().client().await?;
            let container = guest.container(id).over(&client).made();
            let before = host_now();
            let text = container.sh("adjtimex").await?;
            anyhow::Ok((before, text, host_now()))
        };
        match tokio::time::timeout(Duration::from_secs(8), ask).await {
            Ok(asked) => {
                let (before, text, after) = asked?;
                let field = |name: &str| -> Result<u64> {
                    let line =
                        text.lines().find_map(|line| line.trim().strip_prefix(name)).context(text.clone())?;
                    Ok(line.trim_start_matches(':').trim().parse()?)
                };
                let guest = Duration::from_secs(field("time.tv_sec")?)
                    + Duration::from_micros(field("time.tv_usec")?);
                return Ok(before.saturating_sub(guest).max(guest.saturating_sub(after)));
            }
            Err(late) if tries == 5 => return Err(late).context("the guest does not answer"),
            Err(_) => {}
        }
    }
}

/// The error once it is within the bound, or as it is after twenty seconds.
async fn settled(guest: &Guest, id: &str) -> Result<Duration> {
    let mut now = error(guest, id).await?;
    for _ in 0..40 {
        if now <= BOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        now = error(guest, id).await?;
    }
    Ok(now)
}

async fn a_clock_survives_a_stop(machine: Machine) -> Result<()> {
    let guest = Guest::builder().machine(machine).cmdline(&["agent.log=debug"]).boot().await?;
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    set(&guest, host_now()).await?;
    assert!(error(&guest, "c1").await? <= BOUND, "not what was set: {:?}", error(&guest, "c1").await?);
    // The agent has looked at its source since.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(error(&guest, "c1").await? <= BOUND, "not kept: {:?}", error(&guest, "c1").await?);
    guest.vm().qmp("stop", Value::Null).await?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    guest.vm().qmp("cont", Value::Null).await?;
    let lost = error(&guest, "c1").await?;
    let left = settled(&guest, "c1").await?;
    println!("{machine:?}: {lost:?} wrong after the stop, {left:?} then");
    assert!(left <= BOUND, "{left:?} wrong, {lost:?} at first");
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
    set(&guest, year_2030).await?;
    let at = host_now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    let text = container.sh("date +%s").await?;
    let passed = Duration::from_secs(text.parse()?).saturating_sub(year_2030);
    let really = host_now() - at;
    let difference = passed.max(really) - passed.min(really);
    assert!(difference < Duration::from_secs(2), "{passed:?} in the guest, {really:?} here");
    Ok(())
}
