//! Waiting for what somebody else does in his own time: by looking again and again, with a deadline for what never comes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough beside compilers; what works takes a moment.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until there is something, and gives it.
///
/// # Errors
/// When a look fails, or when there is nothing in two minutes; then the text says what was waited for.
pub async fn until_some<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("not in {PATIENCE:?}: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Looks until it is so.
///
/// # Errors
/// As [`until_some`].
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    until_some(what, async || Ok(is_so().await?.then_some(()))).await
}
