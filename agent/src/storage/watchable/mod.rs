//! `watchable-bind`: a small directory (or file) of the host's that changes while the pod runs, as config maps and secrets
//! do, so that programs in the guest are told of changes.
//!
//! On a shared file system the guest is not: inotify hears nothing of what the host does. So the directory is copied into a
//! tmpfs, and looked at every two seconds; what changed there is changed in the copy, and a symlink that the host replaced in
//! one step is replaced in one step. What is too large for that is bound instead, and is not watched.
//!
//! ```text
//!  host writes ─► source (virtio-fs) ── every 2 s: listing ── diff ──► copy (tmpfs) ─► inotify in the container
//! ```

mod copy;
mod listing;

use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use self::copy::Copy;
use self::listing::{Listing, Root};
use super::{Keeper, Storage, StorageDriver, StorageError};
use crate::device::watch::DeviceWatch;
use crate::error::chain;

/// How often the source is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// What is larger is bound. Kubernetes keeps config maps below the second.
const MOST_FILES: usize = 16;
const MOST_BYTES: u64 = 1 << 20;
/// What the copy may grow to once it is there.
const TMPFS: &str = "size=16m";
/// Below which sources may lie; the part behind it is `watchable`, or `passthrough/watchable`.
const SHARED: &str = "/run/kata-containers/shared/containers";

/// See the module.
pub(super) struct WatchableBind;

impl StorageDriver for WatchableBind {
    fn name(&self) -> &'static str {
        "watchable-bind"
    }

    fn acquire(&self, storage: &Storage, _devices: &DeviceWatch) -> Result<(), StorageError> {
        storage.no_driver_options()?;
        check_source(storage)?;
        let source = Path::new(&storage.source);
        let io = |operation, source: std::io::Error| StorageError::Io {
            operation,
            path: storage.source.clone(),
            source,
        };
        let root = Root::open(source).map_err(|error| io("open", error))?;
        let now = root.list().map_err(|error| io("list", error))?;
        if now.files() > MOST_FILES || now.bytes() > MOST_BYTES {
            let (files, bytes) = (now.files(), now.bytes());
            tracing::warn!(source = %storage.source, files, bytes, "too large to be watched, so it is bound");
            return bind(source, &storage.mount_point);
        }
        let place = Destination::of(storage, root.is_file());
        super::mount_at("tmpfs", "watchable", &[TMPFS.to_owned(), "mode=755".to_owned()], &place.copy)?;
        let filled = Copy::open(&place.copy, root.is_file())
            .and_then(|copy| copy.become_like(&root, &Listing::default(), &now))
            .map_err(|error| io("copy", error));
        let shown = filled.and_then(|()| match &place.file {
            Some(file) => bind(file, &storage.mount_point),
            None => Ok(()),
        });
        shown.inspect_err(|_| {
            if let Err(error) = super::unmount(&place.copy) {
                tracing::error!(error = %chain(&error), "a copy stays mounted");
            }
        })
    }

    fn keep(&self, storage: &Storage) -> Option<Keeper> {
        let root = Root::open(Path::new(&storage.source)).ok()?;
        let place = Destination::of(storage, root.is_file());
        // What is bound needs nobody.
        let is_copy = mountinfo::mounts()
            .ok()?
            .iter()
            .any(|mount| mount.point == place.copy && mount.fstype == "tmpfs");
        if !is_copy {
            return None;
        }
        // From nothing: what changed since the first copy is found, too.
        let watcher = Watcher { source: storage.source.clone().into(), copy: place.copy, known: None };
        let (stop, stopped) = channel::<()>();
        let (end, ended) = channel::<()>();
        let name = "watchable".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let (mut watcher, _end) = (watcher, end);
            while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                watcher.look();
            }
        });
        match thread {
            Ok(_) => Some(Box::new(Running { stop: Some(stop), ended })),
            Err(error) => {
                tracing::error!(source = %storage.source, %error, "changes of a volume are not seen");
                None
            }
        }
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        let place = Destination::of(storage, storage.mount_point.is_file());
        super::detach(&storage.mount_point)?;
        if place.file.is_some() {
            super::unmount(&place.copy)?;
            super::bind::remove(&storage.mount_point);
        }
        super::remove_mount_point(&storage.mount_point);
        Ok(())
    }
}

/// Ends the thread when it is dropped, and waits for its end, but not for ever: the host may not answer.
struct Running {
    stop: Option<Sender<()>>,
    /// Says nothing; it is closed when the thread ends.
    ended: Receiver<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        if self.ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the source of a watched volume does not answer; its watcher is left behind");
        }
    }
}

/// Where the copy is, and where it is shown.
struct Destination {
    copy: PathBuf,
    /// The copied file, where the source is one; it is bound to the mount point.
    file: Option<PathBuf>,
}

impl Destination {
    fn of(storage: &Storage, is_file: bool) -> Destination {
        if !is_file {
            return Destination { copy: storage.mount_point.clone(), file: None };
        }
        let mut name = storage.mount_point.file_name().unwrap_or_default().to_owned();
        name.push("-watched");
        let copy = storage.mount_point.with_file_name(name);
        Destination { file: Some(copy.join(listing::ONLY)), copy }
    }
}

struct Watcher {
    source: PathBuf,
    copy: PathBuf,
    known: Option<Listing>,
}

impl Watcher {
    /// Brings the copy up to date. A source that is gone, or changes while it is looked at, leaves it as it is.
    fn look(&mut self) {
        let work = || -> std::io::Result<Option<Listing>> {
            let root = Root::open(&self.source)?;
            let now = root.list()?;
            if self.known.as_ref() == Some(&now) {
                return Ok(None);
            }
            let copy = Copy::open(&self.copy, root.is_file())?;
            let before = match &self.known {
                Some(known) => known.clone(),
                None => Root::open(&self.copy)?.list()?,
            };
            copy.become_like(&root, &before, &now)?;
            Ok(Some(now))
        };
        match work() {
            Ok(Some(now)) => self.known = Some(now),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(source = %self.source.display(), %error, "a volume is not copied this time")
            }
        }
    }
}

fn check_source(storage: &Storage) -> Result<(), StorageError> {
    let below = Path::new(&storage.source).strip_prefix(SHARED).ok();
    let parts: Option<Vec<_>> = below.map(|path| path.components().collect());
    let is_watchable = |part: Option<&Component<'_>>| matches!(part, Some(Component::Normal(name)) if name.to_string_lossy().starts_with("watchable"));
    let is_allowed = parts.is_some_and(|parts| {
        let is_plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
        let first = if parts.first() == Some(&Component::Normal("passthrough".as_ref())) { 1 } else { 0 };
        is_plain && is_watchable(parts.get(first))
    });
    if is_allowed {
        return Ok(());
    }
    Err(storage.invalid(format!(
        "source {:?} is not below {SHARED}/watchable or {SHARED}/passthrough/watchable",
        storage.source
    )))
}

fn bind(source: &Path, point: &Path) -> Result<(), StorageError> {
    super::bind::attach(source, point, &["bind".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_below_what_is_shared_for_it() {
        let check = |source: &str| check_source(&Storage { source: source.into(), ..Storage::default() });
        assert!(check("/run/kata-containers/shared/containers/watchable/c1-config").is_ok());
        assert!(check("/run/kata-containers/shared/containers/passthrough/watchable/x/y").is_ok());
        for bad in [
            "",
            "/etc",
            "/run/kata-containers/shared/containers",
            "/run/kata-containers/shared/containers/passthrough/c1",
            "/run/kata-containers/shared/containers/watchable/../../../../etc",
            "run/kata-containers/shared/containers/watchable",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_copy_follows_the_source_and_outlives_it() {
        let (source, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = source.path().to_owned();
        std::fs::write(path.join("a"), "1").unwrap();
        let mut watcher = Watcher { source: path.clone(), copy: copy.path().to_owned(), known: None };
        watcher.look();
        let read = |name: &str| std::fs::read_to_string(copy.path().join(name)).ok();
        assert_eq!(read("a").as_deref(), Some("1"));
        std::fs::write(path.join("a"), "22").unwrap();
        std::fs::create_dir(path.join("d")).unwrap();
        std::fs::write(path.join("d/b"), "b").unwrap();
        watcher.look();
        assert_eq!((read("a").as_deref(), read("d/b").as_deref()), (Some("22"), Some("b")));
        std::fs::remove_dir_all(path.join("d")).unwrap();
        watcher.look();
        assert!(!copy.path().join("d").exists());
        drop(source);
        watcher.look();
        assert_eq!(read("a").as_deref(), Some("22"));
    }
}
