//! The task that takes idle memory from containers, one after the other.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustjail::cgroup::{self, Cgroup, Reclaimed, Stalls};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Target;
use super::decide::{Eviction, History, evict, next_step, stalled_percent};
use super::kernel::Kernel;
use super::settings::Reclaim;
use crate::error::chain;

/// One container as the last look left it.
struct Watched {
    cgroup: Weak<Cgroup>,
    history: History,
    stalls: Stalls,
    since: Instant,
}

/// Looks once a period, and at once when a shorter one has passed already. Never ends while the agent lives.
pub(super) async fn run(
    mut settings: watch::Receiver<Reclaim>,
    kernel: Kernel,
    containers: impl Fn() -> Vec<Target>,
) {
    let mut watched = HashMap::new();
    let mut last = Instant::now();
    loop {
        let now = settings.borrow_and_update().clone();
        if now.disabled {
            // What was seen before says nothing once it is on again.
            watched.clear();
        }
        tokio::select! {
            biased;
            // First: a look is by the settings of now.
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                if now.disabled {
                    last = Instant::now();
                }
                continue;
            }
            () = due(now.disabled, last, now.period) => {}
        }
        watched = look(watched, containers(), &kernel, &settings).await;
        last = Instant::now();
    }
}

/// Waits until a period has passed; for ever while that is off.
pub(super) async fn due(disabled: bool, last: Instant, period: Duration) {
    if disabled {
        pending::<()>().await;
    }
    sleep(period.saturating_sub(last.elapsed())).await;
}

/// Looks at each container and takes what is cold. Containers that are gone are forgotten.
async fn look(
    mut before: HashMap<String, Watched>,
    targets: Vec<Target>,
    kernel: &Kernel,
    settings: &watch::Receiver<Reclaim>,
) -> HashMap<String, Watched> {
    let mut after = HashMap::new();
    for target in targets {
        // A second container of the same name is another one.
        let known = before.remove(&target.name).filter(|known| known.cgroup.ptr_eq(&target.cgroup));
        match one(known, &target, kernel, settings).await {
            Ok(Some(watched)) => drop(after.insert(target.name, watched)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(container_id = %target.name, error = %chain(&error), "memory is not reclaimed");
            }
        }
    }
    after
}

async fn one(
    known: Option<Watched>,
    target: &Target,
    kernel: &Kernel,
    settings: &watch::Receiver<Reclaim>,
) -> Result<Option<Watched>, cgroup::Error> {
    let Some(cgroup) = target.cgroup.upgrade() else { return Ok(None) };
    let reader = kernel.clone();
    let seen =
        on_cgroup(&cgroup, move |cgroup| Ok((cgroup.inactive()?, cgroup.stalls()?, reader.swap_free())));
    let Some((inactive, stalls, swap_free)) = seen.await? else { return Ok(None) };
    let now = Instant::now();
    // The stalls of a container that is new are of its start, so its first look only counts.
    let (mut history, stalled) = match known {
        Some(known) => {
            (known.history, stalled_percent(known.stalls, stalls, now.duration_since(known.since)))
        }
        None => (History::default(), 0),
    };
    history.note(inactive);
    let decided = evict(&settings.borrow(), &history, stalled, swap_free);
    let stalls = match decided {
        None => stalls,
        Some(eviction) => take(&cgroup, &target.name, eviction, stalls, settings).await?,
    };
    Ok(Some(Watched { cgroup: target.cgroup.clone(), history, stalls, since: Instant::now() }))
}

/// Takes memory step by step, and gives the stalls at its end.
async fn take(
    cgroup: &Arc<Cgroup>,
    name: &str,
    eviction: Eviction,
    before: Stalls,
    settings: &watch::Receiver<Reclaim>,
) -> Result<Stalls, cgroup::Error> {
    let begun = Instant::now();
    let (mut left, mut stalls, mut last) = (eviction.bytes, before, Reclaimed::All);
    loop {
        let stalled = stalled_percent(before, stalls, begun.elapsed());
        let Some(bytes) = next_step(&settings.borrow(), left, stalled, last) else {
            let taken = (eviction.bytes - left) >> 10;
            let planned = eviction.bytes >> 10;
            tracing::info!(container_id = %name, taken_kib = taken, planned_kib = planned, "memory reclaimed");
            return Ok(stalls);
        };
        let step = move |cgroup: &Cgroup| Ok((cgroup.reclaim(bytes, eviction.swappiness)?, cgroup.stalls()?));
        match on_cgroup(cgroup, step).await? {
            Some((outcome, now)) => (last, stalls) = (outcome, now),
            None => return Ok(stalls),
        }
        if last == Reclaimed::All {
            left -= bytes;
        }
    }
}

/// Works on a cgroup on a thread. None after a panic, which is in the log.
async fn on_cgroup<T: Send + 'static>(
    cgroup: &Arc<Cgroup>,
    work: impl FnOnce(&Cgroup) -> Result<T, cgroup::Error> + Send + 'static,
) -> Result<Option<T>, cgroup::Error> {
    let cgroup = Arc::clone(cgroup);
    match tokio::task::spawn_blocking(move || work(&cgroup)).await {
        Ok(result) => result.map(Some),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustjail::cgroup::CgroupPath;

    use super::*;

    const IDLE: &str = "inactive_anon 0\ninactive_file 8388608\n";

    fn container(tree: &Path, name: &str) -> Arc<Cgroup> {
        fs::create_dir_all(tree.join(name)).unwrap();
        for (file, text) in [("cgroup.procs", ""), ("memory.stat", IDLE), ("memory.reclaim", "")] {
            fs::write(tree.join(name).join(file), text).unwrap();
        }
        Arc::new(Cgroup::open(tree, &CgroupPath::parse(name, "").unwrap()).unwrap())
    }

    #[tokio::test]
    async fn what_is_idle_at_three_looks_is_taken() {
        let tree = tempfile::tempdir().unwrap();
        let (settings, kernel) = (watch::channel(Reclaim::default()).1, Kernel::new(tree.path()));
        let cgroup = container(tree.path(), "c1");
        let mut watched = HashMap::new();
        for (look_number, expected) in ["", "", "8388608 swappiness=0"].iter().enumerate() {
            watched = look(watched, vec![Target::new("c1".into(), &cgroup)], &kernel, &settings).await;
            let written = fs::read_to_string(tree.path().join("c1/memory.reclaim")).unwrap();
            assert_eq!(written, *expected, "look {look_number}");
        }
    }

    #[tokio::test]
    async fn another_container_of_the_same_name_begins_anew() {
        let tree = tempfile::tempdir().unwrap();
        let settings = watch::channel(Reclaim { looks: 2, ..Reclaim::default() }).1;
        let kernel = Kernel::new(tree.path());
        let cgroup = container(tree.path(), "c1");
        let watched = look(HashMap::new(), vec![Target::new("c1".into(), &cgroup)], &kernel, &settings).await;
        let second = container(tree.path(), "c1");
        let watched = look(watched, vec![Target::new("c1".into(), &second)], &kernel, &settings).await;
        assert_eq!(fs::read_to_string(tree.path().join("c1/memory.reclaim")).unwrap(), "");
        drop(second);
        assert_eq!(watched["c1"].cgroup.upgrade().map(drop), None, "a container that is gone is held");
        assert!(look(watched, vec![], &kernel, &settings).await.is_empty());
    }

    #[tokio::test]
    async fn a_container_that_stalled_is_left_alone() {
        let tree = tempfile::tempdir().unwrap();
        let settings = watch::channel(Reclaim { looks: 1, ..Reclaim::default() }).1;
        let kernel = Kernel::new(tree.path());
        let cgroup = container(tree.path(), "c1");
        fs::write(tree.path().join("c1/memory.stat"), "inactive_file 0\n").unwrap();
        let watched = look(HashMap::new(), vec![Target::new("c1".into(), &cgroup)], &kernel, &settings).await;
        fs::write(tree.path().join("c1/memory.stat"), IDLE).unwrap();
        fs::write(tree.path().join("c1/io.pressure"), "some avg10=0.00 total=9000000\n").unwrap();
        let watched = look(watched, vec![Target::new("c1".into(), &cgroup)], &kernel, &settings).await;
        assert_eq!(fs::read_to_string(tree.path().join("c1/memory.reclaim")).unwrap(), "");
        look(watched, vec![Target::new("c1".into(), &cgroup)], &kernel, &settings).await;
        assert_eq!(
            fs::read_to_string(tree.path().join("c1/memory.reclaim")).unwrap(),
            "8388608 swappiness=0"
        );
    }
}
