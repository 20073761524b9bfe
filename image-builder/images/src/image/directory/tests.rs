//! Directories that are packed as they are, and ones that change meanwhile.

use super::*;
use crate::image::Ceiling;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

fn spool() -> Spool {
    Spool::new(&std::env::temp_dir(), Ceiling::default()).unwrap()
}

fn filled(dir: &Path, mut spool: Spool) -> Result<Vec<Vec<u8>>, ImageError> {
    let mut tree = Tree::new();
    fill(dir, &mut tree, &mut spool)?;
    let file = |name: &[u8]| {
        let bytes = tree.file(name).unwrap().bytes().map(std::borrow::Cow::into_owned);
        bytes.map_err(|error| ImageError::io("read", dir, error))
    };
    let content = vec![file(b"swapped")?, file(b"sub/file")?];
    settle(&mut spool)?;
    Ok(content)
}

/// A directory in which a file and a directory change places with links to a secret, all the time.
#[test]
fn what_is_swapped_for_a_link_is_never_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("file"), "secret").unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("swapped"), "plain").unwrap();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/file"), "plain").unwrap();
    std::os::unix::fs::symlink(outside.path().join("file"), at("other")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("another")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{RenameFlags, renameat_with};
            let swap = |a: &Path, b: &Path| {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).ok();
            };
            while !stop.load(Ordering::Relaxed) {
                swap(&at("swapped"), &at("other"));
                swap(&at("sub"), &at("another"));
            }
        });
        for _ in 0..300 {
            let mut copies = spool();
            drop(fill(dir.path(), &mut Tree::new(), &mut copies));
            // "secret" is in none of the content that was taken, whether the packing succeeded or not.
            let taken = copies.content();
            assert!(!taken.bytes().unwrap().windows(6).any(|window| window == b"secret"));
            let mut tree = Tree::new();
            drop(fill(dir.path(), &mut tree, &mut spool().referring()));
            for name in [&b"swapped"[..], b"sub/file"] {
                if let Some(Ok(bytes)) = tree.file(name).map(|content| content.bytes()) {
                    assert_eq!(&*bytes, b"plain");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_directory_that_changes_while_it_is_packed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for name in ["swapped", "sub/file"] {
        fs::write(dir.path().join(name), "plain").unwrap();
    }
    for spool in [spool(), spool().referring()] {
        assert_eq!(filled(dir.path(), spool).unwrap(), [b"plain", b"plain"]);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::write(dir.path().join("swapped"), "plain").unwrap();
            }
        });
        let changed = |spool| match filled(dir.path(), spool) {
            Err(error) => format!("{:?}", anyhow::Error::from(error)).contains(CHANGED),
            Ok(_) => false,
        };
        // Times of files are as coarse as the kernel's ticks, and on a busy machine the other thread waits for its turn.
        let begun = std::time::Instant::now();
        let mut tries = std::iter::repeat(()).take_while(|()| begun.elapsed().as_secs() < 60);
        let is_noticed = tries.any(|()| changed(spool()));
        let is_noticed_later = tries.any(|()| changed(spool().referring()));
        stop.store(true, Ordering::Relaxed);
        assert!(is_noticed && is_noticed_later);
    });
}

#[test]
fn content_that_stays_where_it_is_counts() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), [b'a'; 6]).unwrap();
    fs::write(dir.path().join("b"), [b'b'; 6]).unwrap();
    for (bytes, is_fine) in [(12, true), (11, false)] {
        let ceiling = Ceiling { bytes, ..Ceiling::default() };
        let mut spool = Spool::new(&std::env::temp_dir(), ceiling).unwrap().referring();
        let filled = fill(dir.path(), &mut Tree::new(), &mut spool);
        assert_eq!(filled.is_ok(), is_fine, "{bytes}: {filled:?}");
    }
}

#[test]
fn a_member_is_found_where_paths_end() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(250);
    let mut at = PathBuf::new();
    let root = open_top(dir.path()).unwrap();
    for _ in 0..20 {
        let parent = enter(&root, &at).unwrap();
        rustix::fs::mkdirat(&parent, long.as_str(), Mode::RWXU).unwrap();
        at.push(&long);
    }
    let parent = enter(&root, &at).unwrap();
    fs::write(itself(&parent).join("file"), "deep").unwrap();
    let file = open_below(&root, &at.join("file"), OFlags::empty()).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "deep");
    std::os::unix::fs::symlink("file", itself(&parent).join("link")).unwrap();
    assert!(open_below(&root, &at.join("link"), OFlags::empty()).is_err());
    let rm = std::process::Command::new("rm").arg("-rf").arg(dir.path().join(&long)).status().unwrap();
    assert!(rm.success());
}

#[test]
fn a_directory_too_deep_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // By descriptors, since no path leads there; removed in the same way.
    let mut chain = vec![File::open(dir.path()).unwrap()];
    for _ in 0..MAX_DEPTH + 1 {
        let at = chain.last().unwrap();
        rustix::fs::mkdirat(at, "d", Mode::RWXU).unwrap();
        let next = open_name(at, c"d", OFlags::PATH | OFlags::DIRECTORY).unwrap();
        // Two at a time are enough, but for the way back.
        chain.push(next);
        if chain.len() > 900 {
            chain.drain(1..450);
        }
    }
    let error = fill(dir.path(), &mut Tree::new(), &mut spool()).unwrap_err();
    let text = format!("{:?}", anyhow::Error::from(error));
    assert!(text.contains("directories deep"), "{text}");
    // As no path leads to the end, not everything can remove it.
    assert!(
        std::process::Command::new("rm").arg("-rf").arg(dir.path().join("d")).status().unwrap().success()
    );
}
