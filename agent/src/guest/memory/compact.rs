//! The task that has the kernel compact free memory.
//!
//! The kernel's own threads do it (`kcompactd`), woken and stopped through `vm.compaction_proactiveness`: unlike a write
//! to `vm.compact_memory`, that can be ended at any time. So while this is on, the setting is ours: 0 between two
//! compactions, 100 during one. When it is switched off, what the kernel had before is put back.

use std::io;
use std::time::Duration;

use rustjail::cgroup::Stalls;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::decide::{Compactions, End, ends, stalled_percent};
use super::kernel::Kernel;
use super::reclaim::due;
use super::settings::Compaction;

/// Between two looks at a compaction under way.
const LOOK: Duration = Duration::from_secs(1);

const QUIET: &str = "0";
const EAGER: &str = "100";

/// Looks once a period, and at once when a shorter one has passed already. Never ends while the agent lives.
pub(super) async fn run(mut settings: watch::Receiver<Compaction>, kernel: Kernel) {
    // What the kernel had, while the setting is ours.
    let mut kernels_own: Option<String> = None;
    let mut compactions = Compactions::default();
    let mut last = Instant::now();
    let mut stalls = kernel.stalls();
    loop {
        let now = settings.borrow_and_update().clone();
        if let Err(error) = take_or_give(&kernel, now.disabled, &mut kernels_own) {
            tracing::warn!(%error, "the kernel's compaction is not steered");
        }
        tokio::select! {
            () = due(now.disabled, last, now.period) => {}
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                if now.disabled {
                    (last, stalls) = (Instant::now(), kernel.stalls());
                    compactions = Compactions::default();
                }
                continue;
            }
        }
        let (scattered, current) = observe(&kernel, now.order).await;
        let stalled = stalled_percent(stalls, current, last.elapsed());
        if let Some(cause) = compactions.decide(&now, scattered, stalled) {
            let begun = Instant::now();
            match compact(&kernel, &settings, scattered, current).await {
                Ok((left, end)) => {
                    let seconds = begun.elapsed().as_secs();
                    tracing::info!(
                        ?cause,
                        ?end,
                        seconds,
                        before = scattered,
                        after = left,
                        "memory compacted"
                    );
                    compactions.compacted(left);
                }
                Err(error) => tracing::warn!(%error, "memory is not compacted"),
            }
        }
        (last, stalls) = (Instant::now(), observe(&kernel, now.order).await.1);
    }
}

/// Makes the kernel's setting ours, or gives it back.
fn take_or_give(kernel: &Kernel, disabled: bool, kernels_own: &mut Option<String>) -> io::Result<()> {
    match (disabled, kernels_own.take()) {
        (false, None) => {
            let found = kernel.proactiveness()?;
            kernel.set_proactiveness(QUIET)?;
            *kernels_own = Some(found);
        }
        (true, Some(found)) => kernel.set_proactiveness(&found)?,
        (_, unchanged) => *kernels_own = unchanged,
    }
    Ok(())
}

/// Scattered pages and stalls. On a thread: to count free blocks the kernel locks out who allocates.
async fn observe(kernel: &Kernel, order: u8) -> (u64, Stalls) {
    let kernel = kernel.clone();
    tokio::task::spawn_blocking(move || (kernel.scattered(order), kernel.stalls())).await.unwrap_or_default()
}

/// Compacts until it [`ends`]; gives what is scattered then, and why it ended.
async fn compact(
    kernel: &Kernel,
    settings: &watch::Receiver<Compaction>,
    scattered: u64,
    stalls: Stalls,
) -> io::Result<(u64, End)> {
    kernel.set_proactiveness(EAGER)?;
    let (begun, mut scattered, mut stalls, mut fruitless) = (Instant::now(), scattered, stalls, 0);
    let end = loop {
        sleep(LOOK).await;
        let now = settings.borrow().clone();
        let (left, current) = observe(kernel, now.order).await;
        fruitless = if left < scattered { 0 } else { fruitless + 1 };
        let stalled = stalled_percent(stalls, current, LOOK);
        (scattered, stalls) = (left, current);
        if let Some(end) = ends(&now, begun.elapsed(), stalled, fruitless) {
            break end;
        }
    };
    kernel.set_proactiveness(QUIET)?;
    Ok((scattered, end))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const FILE: &str = "sys/vm/compaction_proactiveness";

    fn guest(scattered: u64) -> (tempfile::TempDir, Kernel) {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("sys/vm")).unwrap();
        fs::write(tree.path().join(FILE), "20\n").unwrap();
        free(tree.path(), scattered);
        let kernel = Kernel::new(tree.path());
        (tree, kernel)
    }

    fn free(tree: &Path, pages: u64) {
        fs::write(tree.join("buddyinfo"), format!("Node 0, zone Normal {pages} 0 0\n")).unwrap();
    }

    fn setting(tree: &Path) -> String {
        fs::read_to_string(tree.join(FILE)).unwrap()
    }

    #[test]
    fn the_kernels_setting_is_taken_once_and_given_back() {
        let (tree, kernel) = guest(0);
        let mut own = None;
        for _ in 0..2 {
            take_or_give(&kernel, false, &mut own).unwrap();
            assert_eq!((setting(tree.path()).as_str(), own.as_deref()), ("0", Some("20")));
        }
        for _ in 0..2 {
            take_or_give(&kernel, true, &mut own).unwrap();
            assert_eq!((setting(tree.path()).as_str(), own.as_deref()), ("20", None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_compaction_goes_on_while_it_brings_something() {
        let (tree, kernel) = guest(5000);
        let (_sender, settings) = watch::channel(Compaction::default());
        let work = compact(&kernel, &settings, 6000, Stalls::default());
        let (left, end) = work.await.unwrap();
        // The first look finds fewer, then nothing changes any more.
        assert_eq!((left, end), (5000, End::Done));
        assert_eq!(setting(tree.path()), "0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_compaction_can_be_switched_off() {
        let (tree, kernel) = guest(5000);
        let (sender, settings) = watch::channel(Compaction::default());
        sender.send_modify(|settings| settings.disabled = true);
        let (_, end) = compact(&kernel, &settings, 5000, Stalls::default()).await.unwrap();
        assert_eq!((end, setting(tree.path()).as_str()), (End::Disabled, "0"));
    }

    #[tokio::test(start_paused = true)]
    async fn pressure_ends_a_compaction() {
        let (tree, kernel) = guest(5000);
        fs::create_dir(tree.path().join("pressure")).unwrap();
        fs::write(tree.path().join("pressure/memory"), "some total=60000\n").unwrap();
        let (_sender, settings) = watch::channel(Compaction::default());
        let (_, end) = compact(&kernel, &settings, 5000, Stalls::default()).await.unwrap();
        assert_eq!((end, setting(tree.path()).as_str()), (End::Stalled, "0"));
    }
}
