//! Watches of a temporary directory.

use super::event::{Kind, MOST_KEPT};
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

async fn asked(watch: &Watch) -> Vec<Event> {
    watch.events().await.unwrap().collect()
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn each_change_is_told_at_once_and_once() {
    let case = Case::new();
    let watch = case.watch("/", false, false).await.unwrap();
    write(&case.path("f"), "1");
    assert_eq!(told(&asked(&watch).await), [("f", Kind::Create), ("f", Kind::Write)]);
    std::fs::rename(case.path("f"), case.path("g")).unwrap();
    std::fs::remove_file(case.path("g")).unwrap();
    let events = asked(&watch).await;
    assert_eq!(told(&events), [("f", Kind::Rename), ("g", Kind::Create), ("g", Kind::Remove)]);
    assert!(asked(&watch).await.is_empty());
    // Of what is below nothing is told.
    std::fs::create_dir(case.path("d")).unwrap();
    write(&case.path("d/x"), "1");
    assert_eq!(told(&asked(&watch).await), [("d", Kind::Create)]);
    rustix::fs::chmod(case.path(""), rustix::fs::Mode::RWXU | rustix::fs::Mode::RGRP).unwrap();
    assert_eq!(told(&asked(&watch).await), [(".", Kind::Chmod)]);
}

#[tokio::test]
async fn directories_that_appear_below_are_watched_whole() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("old/deep")).unwrap();
    let watch = case.watch("/", true, false).await.unwrap();
    write(&case.path("old/deep/f"), "1");
    assert_eq!(told(&asked(&watch).await), [("old/deep/f", Kind::Create), ("old/deep/f", Kind::Write)]);
    // Made so fast that no watch is in place in time: each is told all the same, and once.
    std::fs::create_dir_all(case.path("new/a/b")).unwrap();
    write(&case.path("new/a/b/f"), "");
    let events = asked(&watch).await;
    let mut names: Vec<&str> =
        events.iter().filter(|e| e.kind == Kind::Create).map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["new", "new/a", "new/a/b", "new/a/b/f"]);
    write(&case.path("new/a/b/f"), "2");
    assert_eq!(told(&asked(&watch).await), [("new/a/b/f", Kind::Write)]);
    std::fs::remove_dir_all(case.path("new")).unwrap();
    let events = asked(&watch).await;
    let removed: Vec<_> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(removed, ["new/a/b/f", "new/a/b", "new/a", "new"]);
    assert_eq!(case.watches.directories.used(), 3);
}

#[tokio::test]
async fn a_directory_that_is_moved_has_its_new_path_and_one_that_leaves_is_forgotten() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("w/a/b")).unwrap();
    let watch = case.watch("/w", true, false).await.unwrap();
    std::fs::rename(case.path("w/a"), case.path("w/c")).unwrap();
    assert_eq!(told(&asked(&watch).await), [("a", Kind::Rename), ("c", Kind::Create)]);
    write(&case.path("w/c/b/f"), "");
    assert_eq!(told(&asked(&watch).await), [("c/b/f", Kind::Create)]);
    std::fs::rename(case.path("w/c"), case.path("out")).unwrap();
    write(&case.path("out/b/f"), "2");
    assert_eq!(told(&asked(&watch).await)[0], ("c", Kind::Rename));
    write(&case.path("out/b/f"), "3");
    assert!(asked(&watch).await.is_empty());
    assert_eq!(case.watches.directories.used(), 1);
    std::fs::rename(case.path("out"), case.path("w/back")).unwrap();
    assert_eq!(told(&asked(&watch).await), [("back", Kind::Create)]);
    write(&case.path("w/back/b/g"), "");
    assert_eq!(told(&asked(&watch).await), [("back/b/g", Kind::Create)]);
}

#[tokio::test]
async fn the_end_of_the_directory_itself_is_told() {
    for recursive in [false, true] {
        let case = Case::new();
        std::fs::create_dir_all(case.path("w/a")).unwrap();
        let watch = case.watch("/w", recursive, false).await.unwrap();
        std::fs::remove_dir_all(case.path("w")).unwrap();
        assert_eq!(told(&asked(&watch).await), [("a", Kind::Remove), (".", Kind::Remove)]);
        // Another one of its name is none of this watch's.
        std::fs::create_dir_all(case.path("w/a")).unwrap();
        assert!(asked(&watch).await.is_empty());
        assert_eq!(case.watches.directories.used(), 0);
    }
}

#[tokio::test]
async fn a_directory_that_is_moved_itself_is_watched_but_not_what_is_made_in_it() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("w/a")).unwrap();
    let watch = case.watch("/w", true, false).await.unwrap();
    std::fs::rename(case.path("w"), case.path("v")).unwrap();
    write(&case.path("v/a/f"), "");
    assert!(matches!(watch.events().await, Err(FileError::Exhausted(_))));
    assert_eq!(told(&asked(&watch).await), [(".", Kind::Rename), ("a/f", Kind::Create)]);
}

#[tokio::test]
async fn entries_come_along_if_asked_for() {
    let case = Case::new();
    std::fs::create_dir(case.path("w")).unwrap();
    let watch = case.watch("/w", false, true).await.unwrap();
    write(&case.path("w/f"), "123");
    std::fs::rename(case.path("w/f"), case.path("w/g")).unwrap();
    let events = asked(&watch).await;
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
    assert_eq!(told(&events.collect::<Vec<_>>()), [("f", Kind::Create)]);
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
    assert_eq!(case.watches.directories.used(), 0);
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
    assert_eq!(case.watches.directories.used(), 0);
    std::fs::remove_dir(case.path("0")).unwrap();
    let watch = case.watch("/", true, false).await.unwrap();
    // One more than can be watched: it is told, and what cannot be told is said.
    std::fs::create_dir(case.path("0")).unwrap();
    assert!(matches!(watch.events().await, Err(FileError::Exhausted(_))));
    assert_eq!(told(&asked(&watch).await), [("0", Kind::Create)]);
    assert!(asked(&watch).await.is_empty());
}

/// Fills what one watcher may keep.
async fn flood(case: &Case) {
    let name = |n: usize| format!("{n:06}-{}", "x".repeat(200));
    let path = case.path(&name(0));
    write(&path, "");
    let mut last = path;
    for number in 1..MOST_KEPT / 200 {
        let next = case.path(&name(number));
        std::fs::rename(&last, &next).unwrap();
        last = next;
        if number % 64 == 0 {
            // The kernel's own queue is not what is tried here.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    std::fs::remove_file(last).unwrap();
}

#[tokio::test]
async fn a_flood_of_events_is_bounded_and_the_loss_is_told() {
    let case = Case::new();
    let (polled, streamed) =
        (case.watch("/", false, false).await.unwrap(), case.watch("/", false, false).await.unwrap());
    flood(&case).await;
    // Who asks hears of the loss first, and then of what was kept.
    assert!(matches!(polled.events().await, Err(FileError::Exhausted(_))));
    write(&case.path("between"), "");
    let events = polled.events().await.unwrap();
    assert!((10_000..60_000).contains(&events.len()), "{}", events.len());
    assert_eq!(events.json_bytes(), events.map(|event| event.to_json().to_string().len()).sum::<usize>());
    while polled.events().await.is_err() {}
    write(&case.path("after"), "");
    assert_eq!(told(&asked(&polled).await), [("after", Kind::Create)]);
    // A stream hears of it after what was kept, and ends. What the kernel still has is read first: it is what has no room.
    while streamed.inner.drain() {}
    assert!(streamed.next().await.unwrap().len() > 10_000);
    assert!(matches!(streamed.next().await, Err(FileError::Exhausted(_))));
}

#[tokio::test]
async fn a_tree_that_appears_at_once_is_told_whole() {
    let case = Case::new();
    let watch = case.watch("/", true, false).await.unwrap();
    for directory in 0..100 {
        std::fs::create_dir_all(case.path(&format!("out/{directory}"))).unwrap();
        for file in 0..100 {
            write(&case.path(&format!("out/{directory}/{file}")), "");
        }
    }
    let mut names: Vec<String> = asked(&watch).await.into_iter().map(|event| event.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 1 + 100 + 100 * 100);
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
