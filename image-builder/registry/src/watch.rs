//! Detects transfers that have stalled.
//!
//! A transfer may take hours, so it has no deadline. But if a registry sends nothing for a while, or only a few bytes, the
//! transfer fails. The transfer itself runs on a thread of its own, which may block. This module only counts its bytes, and
//! tells the task that waits for it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::RegistryError;
use crate::reference::Reference;

/// Bytes that are progress, within the time that is given.
const LEAST: u64 = 16 << 10;
/// How often that is looked at, at the most.
const LOOK: Duration = Duration::from_secs(1);

/// How much has moved, and whether something should move. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    moved: AtomicU64,
    open: AtomicU64,
}

impl Watch {
    /// Watches content on its way, until its end.
    pub fn over<R: Read>(&self, content: R) -> Moving<R> {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Moving { content, watch: Some(self.clone()) }
    }

    /// Bytes that have moved so far.
    pub fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// Waits until content that is on its way has made no progress for as long as `patience`.
    pub async fn stalled(&self, patience: Duration) {
        let (mut since, mut at) = (Instant::now(), 0);
        while since.elapsed() < patience {
            tokio::time::sleep(LOOK.min(patience / 4)).await;
            let moved = self.0.moved.load(Ordering::Relaxed);
            if self.0.open.load(Ordering::Relaxed) == 0 || moved >= at + LEAST {
                (since, at) = (Instant::now(), moved);
            }
        }
    }
}

/// Content on its way.
#[derive(Debug)]
pub struct Moving<R> {
    content: R,
    watch: Option<Watch>,
}

impl<R> Moving<R> {
    /// Nothing moves from here on: what follows is the other side's work.
    fn end(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.0.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<R: Read> Read for Moving<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        match &self.watch {
            Some(watch) if count > 0 => drop(watch.0.moved.fetch_add(count as u64, Ordering::Relaxed)),
            _ => self.end(),
        }
        Ok(count)
    }
}

impl<R> Drop for Moving<R> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Runs blocking `work` on a thread that nobody waits for at the end: a program that is told to stop stops at once.
///
/// # Errors
/// As the work; also when it made no progress for as long as `patience`.
pub async fn on_thread<T: Send + 'static, E: From<RegistryError> + Send + 'static>(
    reference: &Reference,
    patience: Duration,
    watch: Watch,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(done.send(work())));
    tokio::select! {
        result = result => result.unwrap_or_else(|_| Err(RegistryError::Lost(reference.to_string()).into())),
        () = watch.stalled(patience) => {
            let (reference, seconds) = (reference.to_string(), patience.as_secs_f64());
            Err(RegistryError::Stalled { reference, seconds }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_stalled(watch: &Watch) -> bool {
        let patience = Duration::from_millis(200);
        tokio::time::timeout(5 * patience, watch.stalled(patience)).await.is_ok()
    }

    #[tokio::test]
    async fn only_content_that_should_move_and_does_not_is_a_standstill() {
        let watch = Watch::default();
        assert!(!is_stalled(&watch).await, "nothing is on its way");
        let mut some = watch.over(&[1; 100][..]);
        some.read_exact(&mut [0; 10]).unwrap();
        assert!(is_stalled(&watch).await, "ten bytes are no progress");
        some.read_to_end(&mut Vec::new()).unwrap();
        assert!(!is_stalled(&watch).await, "it has ended");
        let steady = watch.over(io::repeat(1));
        let (watch, mut steady) = (watch.clone(), steady);
        let reads = std::thread::spawn(move || {
            for _ in 0..40 {
                steady.read_exact(&mut vec![0; LEAST as usize]).unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        assert!(!is_stalled(&watch).await, "it moves");
        reads.join().unwrap();
    }
}
