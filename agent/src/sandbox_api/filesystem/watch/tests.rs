//! Watches of a temporary directory.

use super::event::Kind;
use super::tree::MOST_DIRECTORIES;
use super::*;
use crate::cancel::Cancel;
use std::path::Path;

struct Case {
    dir: tempfile::TempDir,
    watches: Watches,
    gone: Cancel,
}

impl Case {
    fn new() -> Case {
        let watches = Watches::new(Workers::default());
        Case { dir: tempfile::tempdir().unwrap(), watches, gone: Cancel::default() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    async fn watch(&self, path: &str, recursive: bool, include_entry: bool) -> Result<Watch, FileError> {
        let root = Root::new(Arc::new(std::fs::File::open(self.dir.path()).unwrap().into()));
        let options = Options { path: path.to_owned(), recursive, include_entry };
        let gone = self.gone.clone();
        self.watches.watch(root, options, false, async move { gone.cancelled().await }).await
    }
}

fn told(events: &[Event]) -> Vec<(&str, Kind)> {
    events.iter().map(|event| (event.name.as_str(), event.kind)).collect()
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn each_change_is_told_at_once_and_once() {
    let case = Case::new();
    let watch = case.watch("/", false, false).await.unwrap();
    write(&case.path("f"), "1");
    assert_eq!(told(&watch.events().await.unwrap()), [("f", Kind::Create), ("f", Kind::Write)]);
    std::fs::rename(case.path("f"), case.path("g")).unwrap();
    std::fs::remove_file(case.path("g")).unwrap();
    let events = watch.events().await.unwrap();
    assert_eq!(told(&events), [("f", Kind::Rename), ("g", Kind::Create), ("g", Kind::Remove)]);
    assert!(watch.events().await.unwrap().is_empty());
    // Of what is below nothing is told.
    std::fs::create_dir(case.path("d")).unwrap();
    write(&case.path("d/x"), "1");
    assert_eq!(told(&watch.events().await.unwrap()), [("d", Kind::Create)]);
    rustix::fs::chmod(case.path(""), rustix::fs::Mode::RWXU | rustix::fs::Mode::RGRP).unwrap();
    assert_eq!(told(&watch.events().await.unwrap()), [(".", Kind::Chmod)]);
}

#[tokio::test]
async fn directories_that_appear_below_are_watched_whole() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("old/deep")).unwrap();
    let watch = case.watch("/", true, false).await.unwrap();
    write(&case.path("old/deep/f"), "1");
    assert_eq!(
        told(&watch.events().await.unwrap()),
        [("old/deep/f", Kind::Create), ("old/deep/f", Kind::Write)]
    );
    // Made so fast that no watch is in place in time: each is told all the same, and once.
    std::fs::create_dir_all(case.path("new/a/b")).unwrap();
    write(&case.path("new/a/b/f"), "");
    let events = watch.events().await.unwrap();
    let mut names: Vec<&str> =
        events.iter().filter(|e| e.kind == Kind::Create).map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["new", "new/a", "new/a/b", "new/a/b/f"]);
    write(&case.path("new/a/b/f"), "2");
    assert_eq!(told(&watch.events().await.unwrap()), [("new/a/b/f", Kind::Write)]);
    std::fs::remove_dir_all(case.path("new")).unwrap();
    let events = watch.events().await.unwrap();
    let removed: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(removed, ["new/a/b/f", "new/a/b", "new/a", "new"]);
    assert_eq!(case.watches.budget.used(), 3);
}

#[tokio::test]
async fn a_directory_that_is_moved_has_its_new_path_and_one_that_leaves_is_forgotten() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("w/a/b")).unwrap();
    let watch = case.watch("/w", true, false).await.unwrap();
    std::fs::rename(case.path("w/a"), case.path("w/c")).unwrap();
    assert_eq!(told(&watch.events().await.unwrap()), [("a", Kind::Rename), ("c", Kind::Create)]);
    write(&case.path("w/c/b/f"), "");
    assert_eq!(told(&watch.events().await.unwrap()), [("c/b/f", Kind::Create)]);
    std::fs::rename(case.path("w/c"), case.path("out")).unwrap();
    write(&case.path("out/b/f"), "2");
    assert_eq!(told(&watch.events().await.unwrap())[0], ("c", Kind::Rename));
    write(&case.path("out/b/f"), "3");
    assert!(watch.events().await.unwrap().is_empty());
    assert_eq!(case.watches.budget.used(), 1);
    std::fs::rename(case.path("out"), case.path("w/back")).unwrap();
    assert_eq!(told(&watch.events().await.unwrap()), [("back", Kind::Create)]);
    write(&case.path("w/back/b/g"), "");
    assert_eq!(told(&watch.events().await.unwrap()), [("back/b/g", Kind::Create)]);
}

#[tokio::test]
async fn entries_come_along_if_asked_for() {
    let case = Case::new();
    std::fs::create_dir(case.path("w")).unwrap();
    let watch = case.watch("/w", false, true).await.unwrap();
    write(&case.path("w/f"), "123");
    std::fs::rename(case.path("w/f"), case.path("w/g")).unwrap();
    let events = watch.events().await.unwrap();
    let last = events.last().unwrap();
    let entry = last.entry.as_ref().unwrap();
    assert_eq!((entry.path.as_str(), entry.size, entry.name.as_str()), ("/w/g", 3, "g"));
    // The old name leads nowhere.
    assert!(events.iter().filter(|event| event.name == "f").all(|event| event.entry.is_none()));
}

#[tokio::test]
async fn a_stream_is_told_by_itself() {
    let case = Case::new();
    let watch = case.watch("/", false, false).await.unwrap();
    write(&case.path("f"), "");
    let events = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
    assert_eq!(told(&events), [("f", Kind::Create)]);
    case.gone.cancel();
    assert!(tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().is_err());
}

#[tokio::test]
async fn only_directories_are_watched() {
    let case = Case::new();
    write(&case.path("f"), "");
    let error = case.watch("/f", false, false).await.unwrap_err();
    assert!(error.to_string().starts_with("path /f not a directory"), "{error}");
    assert!(matches!(case.watch("/none", true, false).await, Err(FileError::Missing(_))));
    assert_eq!(case.watches.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn watches_have_a_bound_and_a_forgotten_one_makes_room() {
    let case = Case::new();
    let mut ids = Vec::new();
    for _ in 0..MOST_WATCHES {
        ids.push(case.watches.keep(case.watch("/", false, false).await.unwrap()));
    }
    assert!(matches!(case.watch("/", false, false).await, Err(FileError::Exhausted(_))));
    tokio::time::advance(FORGOTTEN).await;
    for id in &ids[1..] {
        case.watches.events(id).await.unwrap();
    }
    let next = case.watch("/", false, false).await.unwrap();
    assert!(matches!(case.watches.events(&ids[0]).await, Err(FileError::NoWatcher(_))));
    assert!(matches!(case.watch("/", false, false).await, Err(FileError::Exhausted(_))));
    case.watches.remove(&ids[1]).unwrap();
    assert!(matches!(case.watches.remove(&ids[1]), Err(FileError::NoWatcher(_))));
    drop((case.watch("/", false, false).await.unwrap(), next));
}

#[tokio::test]
async fn watched_directories_have_a_bound() {
    let case = Case::new();
    for number in 0..MOST_DIRECTORIES {
        std::fs::create_dir(case.path(&number.to_string())).unwrap();
    }
    let error = case.watch("/", true, false).await.unwrap_err();
    assert!(matches!(error, FileError::Exhausted(_)), "{error}");
    assert_eq!(case.watches.budget.used(), 0);
    std::fs::remove_dir(case.path("0")).unwrap();
    let watch = case.watch("/", true, false).await.unwrap();
    // One more than can be watched: it is told, and what cannot be told is said.
    std::fs::create_dir(case.path("0")).unwrap();
    assert_eq!(told(&watch.events().await.unwrap()), [("0", Kind::Create)]);
    assert!(matches!(watch.events().await, Err(FileError::Exhausted(_))));
    assert!(watch.events().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_of_events_is_bounded_and_the_loss_is_told() {
    let case = Case::new();
    let watch = case.watch("/", false, false).await.unwrap();
    for number in 0..20_000 {
        let path = case.path(&format!("file-{number}"));
        write(&path, "");
        std::fs::remove_file(path).unwrap();
    }
    let events = watch.events().await.unwrap();
    assert!((100..20_000).contains(&events.len()), "{}", events.len());
    assert!(matches!(watch.events().await, Err(FileError::Exhausted(_))));
    write(&case.path("after"), "");
    assert_eq!(told(&watch.events().await.unwrap()), [("after", Kind::Create)]);
}

#[tokio::test]
async fn a_watch_ends_with_its_container() {
    let case = Case::new();
    let id = case.watches.keep(case.watch("/", false, false).await.unwrap());
    case.gone.cancel();
    for _ in 0..1000 {
        if case.watches.events(&id).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(matches!(case.watches.events(&id).await, Err(FileError::NoWatcher(_))));
}
