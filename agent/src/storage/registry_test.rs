//! Users of mount points: counted, refused, waiting for one another.

use super::*;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Kind as _};

fn devices() -> DeviceWatch {
    DeviceWatch::deaf(Path::new("/sys"), Duration::ZERO)
}

fn local(point: &Path) -> Storage {
    Storage {
        driver: "local".into(),
        source: "local".into(),
        mount_point: point.into(),
        ..Storage::default()
    }
}

#[test]
fn the_last_user_releases() {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("a/b");
    let registry = StorageRegistry::default();
    let storage = local(&point);
    registry.acquire(&storage, &devices()).unwrap();
    registry.acquire(&storage, &devices()).unwrap();
    registry.release(&point).unwrap();
    assert!(point.is_dir());
    registry.release(&point).unwrap();
    assert!(!point.exists());
    registry.release(&point).unwrap();
    assert!(registry.slots.lock().unwrap().is_empty());
}

#[test]
fn what_is_refused_is_not_remembered() {
    let registry = StorageRegistry::default();
    for number in 0..3 {
        let storage = Storage { driver: "none".into(), ..local(&PathBuf::from(format!("/none/{number}"))) };
        assert!(registry.acquire(&storage, &devices()).is_err());
        let ephemeral = Storage { driver: ephemeral::NAME.into(), ..storage };
        assert!(matches!(registry.update(&[ephemeral]), Err(StorageError::NotMounted(_))));
    }
    assert!(registry.slots.lock().unwrap().is_empty());
}

#[test]
fn a_directory_that_was_there_stays_with_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "kept").unwrap();
    let registry = StorageRegistry::default();
    registry.acquire(&local(dir.path()), &devices()).unwrap();
    registry.release(dir.path()).unwrap();
    assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"kept");
}

/// A disk that never comes.
fn late(point: &Path) -> Storage {
    Storage {
        driver: "blk".into(),
        source: "1f/1f".into(),
        fstype: "ext4".into(),
        mount_point: point.into(),
        ..Storage::default()
    }
}

#[test]
fn who_waits_for_another_users_mount_can_give_up_and_others_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, point) = (StorageRegistry::default(), dir.path().join("late"));
    let patient = DeviceWatch::deaf(&dir.path().join("sys"), Duration::from_secs(600));
    let (first, second) = (Cancel::default(), Cancel::default());
    let acquire = |cancel: &Cancel| registry.acquire(&late(&point), &patient.until(cancel)).unwrap_err();
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| acquire(&first));
        while !matches!(*registry.slot(&point).state(), State::Busy) {
            std::thread::yield_now();
        }
        let waiting = scope.spawn(|| acquire(&second));
        // None of these may wait for the disk.
        registry.resize(4096);
        registry.release(&point).unwrap();
        registry.release_pinned();
        let change = Storage { driver: ephemeral::NAME.into(), ..late(&point) };
        assert!(matches!(registry.update(&[change]), Err(StorageError::NotMounted(_))));
        registry.acquire(&local(&dir.path().join("other")), &patient).unwrap();
        assert!(!mounting.is_finished() && !waiting.is_finished());
        second.cancel();
        assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Cancelled);
        assert!(!mounting.is_finished());
        first.cancel();
        patient.look_again();
        assert_eq!(mounting.join().unwrap().kind(), ErrorKind::Timeout);
    });
    registry.release(&dir.path().join("other")).unwrap();
    assert!(registry.slots.lock().unwrap().is_empty());
}

#[test]
fn who_waited_mounts_when_the_first_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let (registry, point) = (StorageRegistry::default(), dir.path().join("late"));
    let patient = DeviceWatch::deaf(&dir.path().join("sys"), Duration::from_secs(600));
    let first = Cancel::default();
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| registry.acquire(&late(&point), &patient.until(&first)));
        while !matches!(*registry.slot(&point).state(), State::Busy) {
            std::thread::yield_now();
        }
        let waiting = scope.spawn(|| registry.acquire(&local(&point), &devices()));
        first.cancel();
        patient.look_again();
        assert!(mounting.join().unwrap().is_err());
        waiting.join().unwrap().unwrap();
    });
    assert!(point.is_dir());
    registry.release(&point).unwrap();
    assert!(registry.slots.lock().unwrap().is_empty());
}

#[test]
fn a_shared_storage_outlives_its_users() {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("s");
    let registry = StorageRegistry::default();
    registry.acquire(&local(&point), &devices()).unwrap();
    for _ in 0..2 {
        registry.acquire(&Storage { shared: true, ..local(&point) }, &devices()).unwrap();
        registry.release(&point).unwrap();
    }
    registry.release(&point).unwrap();
    assert!(point.is_dir());
    registry.release_pinned();
    assert!(!point.exists());
    assert!(registry.slots.lock().unwrap().is_empty());
}

#[test]
fn a_size_is_chosen_where_none_is_said() {
    let registry = StorageRegistry::default();
    let storage = |driver: &str, fstype: &str, options: &[&str]| Storage {
        driver: driver.into(),
        fstype: fstype.into(),
        options: options.iter().map(|&option| option.into()).collect(),
        ..local(Path::new("/run/x"))
    };
    assert!(!registry.sized(&storage("local", "", &[])).1);
    registry.resize(4096);
    let sized = |driver: &str, fstype: &str, options: &[&str]| {
        let (storage, is_sized_here) = registry.sized(&storage(driver, fstype, options));
        (storage.options.join(" "), is_sized_here)
    };
    assert_eq!(sized("local", "", &["mode=0700"]), ("mode=0700 size=4096".into(), true));
    assert_eq!(sized("ephemeral", "tmpfs", &[]), ("size=4096".into(), true));
    assert_eq!(sized("ephemeral", "tmpfs", &["rw,size=1m"]), ("rw,size=1m".into(), false));
    assert_eq!(sized("ephemeral", "hugetlbfs", &["pagesize=2M"]), ("pagesize=2M".into(), false));
    assert_eq!(sized("blk", "ext4", &[]), (String::new(), false));
    assert_eq!(with_size(&storage("local", "", &["size=1"]), 9).options, ["size=9"]);
}

#[test]
fn a_mount_point_has_one_source() {
    let dir = tempfile::tempdir().unwrap();
    let registry = StorageRegistry::default();
    let storage = local(&dir.path().join("x"));
    registry.acquire(&storage, &devices()).unwrap();
    let other = Storage { source: "other".into(), ..storage };
    assert_eq!(registry.acquire(&other, &devices()).unwrap_err().kind(), ErrorKind::State);
}

#[test]
fn bad_requests_are_refused_before_anything_is_made() {
    let registry = StorageRegistry::default();
    let refuse = |storage: Storage| registry.acquire(&storage, &devices()).unwrap_err();
    assert_eq!(refuse(local(Path::new("/"))).kind(), ErrorKind::Invalid);
    assert_eq!(refuse(local(Path::new("rel"))).kind(), ErrorKind::Invalid);
    assert_eq!(refuse(local(Path::new("/run/../etc"))).kind(), ErrorKind::Invalid);
    let unknown = refuse(Storage { driver: "floppy".into(), ..local(Path::new("/run/x")) });
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    assert!(unknown.to_string().contains("overlayfs"), "{unknown}");
}
