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
            biased;
            // First: a look is by the settings of now.
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
            () = due(now.disabled, last, now.period) => {}
        }
        let seen = observe(&kernel, now.order).await;
        let stalled = stalled_percent(stalls, seen.stalls, last.elapsed());
        if let Some(cause) = compactions.decide(&now, seen.scattered, stalled) {
            let begun = Instant::now();
            match compact(&kernel, &settings, seen).await {
                Ok((left, end)) => {
                    let (seconds, moved) = (begun.elapsed().as_secs(), left.moved.saturating_sub(seen.moved));
                    let (before, after) = (seen.scattered, left.scattered);
                    tracing::info!(?cause, ?end, seconds, moved, before, after, "memory compacted");
                    compactions.compacted(after);
                }
                Err(error) => tracing::warn!(%error, "memory is not compacted"),
            }
        }
        (last, stalls) = (Instant::now(), observe(&kernel, now.order).await.stalls);
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

/// What a look sees.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    scattered: u64,
    /// Pages moved since the start of time.
    moved: u64,
    stalls: Stalls,
}

/// Looks. On a thread: to count free blocks the kernel locks out who allocates.
async fn observe(kernel: &Kernel, order: u8) -> Seen {
    let kernel = kernel.clone();
    let look =
        move || Seen { scattered: kernel.scattered(order), moved: kernel.moved(), stalls: kernel.stalls() };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

/// Compacts until it [`ends`]; gives what is seen then, and why it ended.
async fn compact(
    kernel: &Kernel,
    settings: &watch::Receiver<Compaction>,
    mut last: Seen,
) -> io::Result<(Seen, End)> {
    kernel.set_proactiveness(EAGER)?;
    let (begun, mut idle) = (Instant::now(), 0);
    let end = loop {
        sleep(LOOK).await;
        let now = settings.borrow().clone();
        let seen = observe(kernel, now.order).await;
        idle = if seen.moved == last.moved { idle + 1 } else { 0 };
        let stalled = stalled_percent(last.stalls, seen.stalls, LOOK);
        last = seen;
        if let Some(end) = ends(&now, begun.elapsed(), stalled, idle) {
            break end;
        }
    };
    kernel.set_proactiveness(QUIET)?;
    Ok((last, end))
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
    async fn a_compaction_goes_on_while_pages_are_moved() {
        let (tree, kernel) = guest(5000);
        fs::write(tree.path().join("vmstat"), "compact_isolated 40\n").unwrap();
        let (_sender, settings) = watch::channel(Compaction::default());
        let before = Seen { scattered: 6000, moved: 30, ..Seen::default() };
        let begun = Instant::now();
        let (left, end) = compact(&kernel, &settings, before).await.unwrap();
        // The first look finds some moved, three more none.
        assert!(begun.elapsed() >= 4 * LOOK, "{:?}", begun.elapsed());
        assert_eq!((left.scattered, left.moved, end), (5000, 40, End::Done));
        assert_eq!(setting(tree.path()), "0");
    }

    #[tokio::test(start_paused = true)]
    async fn a_compaction_can_be_switched_off() {
        let (tree, kernel) = guest(5000);
        let (sender, settings) = watch::channel(Compaction::default());
        sender.send_modify(|settings| settings.disabled = true);
        let (_, end) = compact(&kernel, &settings, Seen::default()).await.unwrap();
        assert_eq!((end, setting(tree.path()).as_str()), (End::Disabled, "0"));
    }

    #[tokio::test(start_paused = true)]
    async fn pressure_ends_a_compaction() {
        let (tree, kernel) = guest(5000);
        fs::create_dir(tree.path().join("pressure")).unwrap();
        fs::write(tree.path().join("pressure/memory"), "some total=60000\n").unwrap();
        let (_sender, settings) = watch::channel(Compaction::default());
        let (_, end) = compact(&kernel, &settings, Seen::default()).await.unwrap();
        assert_eq!((end, setting(tree.path()).as_str()), (End::Stalled, "0"));
    }
}
