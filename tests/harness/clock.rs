//! Clocks of guests, compared with the host's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protocols::agent::SetGuestDateTimeRequest;

use crate::{Container, Guest};

/// The host's time since 1970.
///
/// # Panics
/// When it is before 1970.
pub fn host_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}

impl Guest {
    /// Sets the guest's clock.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn set_clock(&self, time: Duration) -> Result<()> {
        let request = SetGuestDateTimeRequest {
            Sec: time.as_secs().try_into()?,
            Usec: time.subsec_micros().into(),
            ..Default::default()
        };
        self.api().set_guest_date_time(AgentClient::call(), &request).await?;
        Ok(())
    }
}

impl Container {
    /// How far the guest's clock is from the host's, for sure: what the asking took is in its favour.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn clock_error(&self) -> Result<Duration> {
        let before = host_now();
        let text = self.sh("adjtimex").await?;
        let after = host_now();
        let field = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)).context(text.clone())?;
            Ok(line.trim_start_matches(':').trim().parse()?)
        };
        let guest =
            Duration::from_secs(field("time.tv_sec")?) + Duration::from_micros(field("time.tv_usec")?);
        Ok(before.saturating_sub(guest).max(guest.saturating_sub(after)))
    }
}
