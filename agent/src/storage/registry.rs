//! Which mount points are in use, by whom how often.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustjail::mount;
use rustjail::plan::MountPlan;

use super::driver::{Keeper, StorageDriver};
use super::drivers::{DRIVERS, driver_names};
use super::request::LOCAL;
use super::{Storage, StorageError, ephemeral, group, local};
use crate::device::watch::DeviceWatch;
use crate::error::chain;

/// A mount point in use.
struct Used {
    driver: &'static dyn StorageDriver,
    storage: Storage,
    users: usize,
    /// Whether it was asked for as one that stays until the sandbox ends, which is one of the users.
    is_pinned: bool,
    /// Whether its mount point was not there before.
    is_ours: bool,
    /// Whether nobody said how large it may get.
    is_sized_here: bool,
    /// What works on it.
    keeper: Option<Keeper>,
}

/// A mount point. Its lock is held for moments only: who mounts or unmounts says so, and works without it.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
    /// Told when the work on it is over.
    settled: Condvar,
}

#[derive(Default)]
enum State {
    /// Nothing is mounted.
    #[default]
    Free,
    /// Somebody mounts or unmounts, which takes as long as a device or a host takes. Nobody has a use of it.
    Busy,
    Used(Box<Used>),
}

/// How long who waits for a slot sleeps before it looks whether it was given up.
const POLL: Duration = Duration::from_millis(100);

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, once nobody works on it any more; none when `devices` is cancelled before.
    fn settled(&self, devices: &DeviceWatch) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        while matches!(*state, State::Busy) {
            if devices.is_cancelled() {
                return None;
            }
            let woken = self.settled.wait_timeout(state, POLL);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state)
    }
}

/// Work on a slot, which is busy until this is dropped. Then it is `next`, also when the work panicked.
struct Work<'a> {
    slot: &'a Slot,
    next: State,
}

impl<'a> Work<'a> {
    /// Begins. The next state is the one that there was, until the work says otherwise.
    fn begin(slot: &'a Slot, mut state: MutexGuard<'_, State>) -> Work<'a> {
        let next = std::mem::replace(&mut *state, State::Busy);
        Work { slot, next }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        *self.slot.state() = std::mem::take(&mut self.next);
        self.slot.settled.notify_all();
    }
}

/// Counts the users of each mount point.
#[derive(Default)]
pub(crate) struct StorageRegistry {
    /// One for each mount point, so that one slow device does not hold up the others.
    slots: Mutex<HashMap<PathBuf, Arc<Slot>>>,
    /// Bytes that a storage in memory may take where nobody says how many; 0 leaves it to the kernel.
    size: AtomicU64,
}

impl StorageRegistry {
    fn slot(&self, mount_point: &Path) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(mount_point.to_owned()).or_default())
    }

    /// Forgets a slot that nobody uses, or is about to use: requests may name any number of mount points.
    fn forget_idle(&self, mount_point: &Path, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Two references are the map's and ours.
        if Arc::strong_count(slot) == 2 && matches!(*slot.state(), State::Free) {
            slots.remove(mount_point);
        }
    }

    /// Mounts a storage, or counts one more user of it. Blocks: for its device, and while somebody else mounts or unmounts
    /// the same. Both waits end early when `devices` is cancelled.
    pub(crate) fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        check(storage)?;
        let slot = self.slot(&storage.mount_point);
        let acquired = self.acquire_in(&slot, storage, devices);
        if acquired.is_err() {
            self.forget_idle(&storage.mount_point, &slot);
        }
        acquired
    }

    /// Has storages in memory without a size of their own take so many bytes at most: those to come, and those that are
    /// there. One that has more in it already keeps its size.
    pub(crate) fn resize(&self, bytes: u64) {
        self.size.store(bytes, Ordering::Relaxed);
        let slots: Vec<Arc<Slot>> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.values().cloned().collect()
        };
        for slot in slots {
            // One that is being mounted asks for the size itself.
            let mut state = slot.state();
            let State::Used(used) = &mut *state else { continue };
            if !used.is_sized_here {
                continue;
            }
            let storage = with_size(&used.storage, bytes);
            let resized = memory_plan(&storage).and_then(|plan| {
                let failed = |error| StorageError::Mount(storage.mount_point.display().to_string(), error);
                mount::reconfigure(&plan).map_err(failed)
            });
            match resized {
                Ok(()) => used.storage = storage,
                Err(error) => tracing::warn!(error = %chain(&error), "a storage in memory keeps its size"),
            }
        }
    }

    /// The storage as it is mounted, and whether its size is chosen here.
    fn sized(&self, storage: &Storage) -> (Storage, bool) {
        let bytes = self.size.load(Ordering::Relaxed);
        let is_sized_here = bytes > 0 && is_in_memory(storage) && !says_size(storage);
        (if is_sized_here { with_size(storage, bytes) } else { storage.clone() }, is_sized_here)
    }

    fn acquire_in(&self, slot: &Slot, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        let given_up = || StorageError::Cancelled(storage.mount_point.display().to_string());
        let mut state = slot.settled(devices).ok_or_else(given_up)?;
        if let State::Used(used) = &mut *state {
            let has_same_layers =
                used.storage.layers.iter().map(origin).eq(storage.layers.iter().map(origin));
            if origin(&used.storage) != origin(storage) || !has_same_layers {
                let other = format!("{} {}", used.storage.driver, used.storage.source);
                return Err(StorageError::Conflict(storage.mount_point.display().to_string(), other));
            }
            used.users += 1;
            if storage.shared && !used.is_pinned {
                used.is_pinned = true;
                used.users += 1;
            }
            return Ok(());
        }
        let driver = *DRIVERS
            .iter()
            .find(|driver| driver.name() == storage.driver)
            .ok_or_else(|| StorageError::UnknownDriver(storage.driver.clone(), driver_names().join(", ")))?;
        let mut work = Work::begin(slot, state);
        let is_ours = !storage.mount_point.exists();
        let (storage, is_sized_here) = self.sized(storage);
        let storage = &storage;
        driver.acquire(storage, devices)?;
        if let Some(group) = &storage.fs_group
            && let Err(error) = group::give(&storage.mount_point, group, storage.is_readonly())
        {
            if let Err(error) = driver.release(storage, is_ours) {
                tracing::error!(error = %chain(&error), "a storage stays mounted");
            }
            return Err(error);
        }
        let keeper = driver.keep(storage);
        // A shared storage has the sandbox as one more user.
        let users = if storage.shared { 2 } else { 1 };
        work.next = State::Used(Box::new(Used {
            driver,
            storage: storage.clone(),
            users,
            is_pinned: storage.shared,
            is_ours,
            // A directory that was there before, or is on a disk, stays what it was.
            is_sized_here: is_sized_here
                && (storage.driver != LOCAL || is_ours && local::is_mounted(&storage.mount_point)),
            keeper,
        }));
        Ok(())
    }

    /// Gives the file systems of ephemeral storages new options, as when the pod's memory has grown: all of them, or none
    /// when one of them cannot be right.
    pub(crate) fn update(&self, storages: &[Storage]) -> Result<(), StorageError> {
        let mut changes = Vec::new();
        for storage in storages {
            check(storage)?;
            if storage.driver != ephemeral::NAME {
                return Err(storage.invalid("only ephemeral storages can be changed".to_owned()));
            }
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.get(&storage.mount_point).map(Arc::clone);
            drop(slots);
            let before = slot.as_ref().and_then(|slot| match &*slot.state() {
                State::Used(used) if used.storage.driver == ephemeral::NAME => Some(used.storage.clone()),
                _ => None,
            });
            let (Some(before), Some(slot)) = (before, slot) else {
                return Err(StorageError::NotMounted(storage.mount_point.display().to_string()));
            };
            changes.push((slot, storage, ephemeral::change(storage)?, ephemeral::change(&before)?));
        }
        for (at, (_, _, plan, _)) in changes.iter().enumerate() {
            let Err(error) = mount::reconfigure(plan) else { continue };
            for (_, _, _, before) in changes[..at].iter().rev() {
                if let Err(error) = mount::reconfigure(before) {
                    tracing::error!(%error, "a storage keeps options of a change that failed");
                }
            }
            return Err(StorageError::Mount(plan.destination.display().to_string(), error));
        }
        for (slot, storage, ..) in changes {
            if let State::Used(used) = &mut *slot.state() {
                used.is_sized_here &= !says_size(storage);
                let bytes = self.size.load(Ordering::Relaxed);
                used.storage.options = if used.is_sized_here {
                    with_size(storage, bytes).options
                } else {
                    storage.options.clone()
                };
            }
        }
        Ok(())
    }

    /// Counts one user less; the last one unmounts, and blocks meanwhile. A mount point that is not in use is no error: it was
    /// released. Nor is one that somebody works on: the caller has no use of that.
    pub(crate) fn release(&self, mount_point: &Path) -> Result<(), StorageError> {
        let slot = self.slot(mount_point);
        let mut state = slot.state();
        match &mut *state {
            State::Used(used) if used.users > 1 => {
                used.users -= 1;
                // Before the slot is looked at once more, below.
                drop(state);
            }
            State::Used(_) => {
                let mut work = Work::begin(&slot, state);
                if let State::Used(last) = &mut work.next {
                    // What cannot be unmounted stays known: nothing else is mounted over it, and a release can be tried again.
                    last.keeper = None;
                    last.driver.release(&last.storage, last.is_ours)?;
                }
                work.next = State::Free;
            }
            State::Free | State::Busy => drop(state),
        }
        self.forget_idle(mount_point, &slot);
        Ok(())
    }

    /// Releases what was to stay until the sandbox ends: it does now. Those that others mounted later go first.
    pub(crate) fn release_pinned(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pinned: Vec<PathBuf> = slots.keys().cloned().collect();
        drop(slots);
        // What is mounted below another mount point is longer.
        pinned.sort_by_key(|point| std::cmp::Reverse(point.as_os_str().len()));
        for point in pinned {
            let slot = self.slot(&point);
            let is_pinned = match &mut *slot.state() {
                State::Used(used) => std::mem::take(&mut used.is_pinned),
                State::Free | State::Busy => false,
            };
            if !is_pinned {
                self.forget_idle(&point, &slot);
                continue;
            }
            drop(slot);
            if let Err(error) = self.release(&point) {
                tracing::error!(path = %point.display(), error = %chain(&error), "a storage is not released");
            }
        }
    }
}

const SIZE: &str = "size=";

/// Whether what is written to a storage is the guest's memory, and can be bounded.
fn is_in_memory(storage: &Storage) -> bool {
    match storage.driver.as_str() {
        LOCAL => true,
        ephemeral::NAME => ephemeral::is_tmpfs(storage),
        _ => false,
    }
}

fn says_size(storage: &Storage) -> bool {
    storage.mount_options().iter().any(|option| option.starts_with(SIZE))
}

fn with_size(storage: &Storage, bytes: u64) -> Storage {
    let mut storage = storage.clone();
    storage.options.retain(|option| !option.starts_with(SIZE));
    storage.options.push(format!("{SIZE}{bytes}"));
    storage
}

fn memory_plan(storage: &Storage) -> Result<MountPlan, StorageError> {
    if storage.driver == LOCAL { local::plan(storage) } else { ephemeral::change(storage) }
}

/// What a storage is of.
fn origin(storage: &Storage) -> (&str, &str) {
    (&storage.driver, &storage.source)
}

fn check(storage: &Storage) -> Result<(), StorageError> {
    let invalid = |reason: &str| storage.invalid(reason.to_owned());
    let point = &storage.mount_point;
    if !point.is_absolute() || point == Path::new("/") {
        return Err(invalid("the mount point is not an absolute path below /"));
    }
    if point.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("the mount point contains \"..\""));
    }
    Ok(())
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod tests;
