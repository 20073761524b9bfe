//! Builds as users' machines treat them: killed at any moment, side by side, on a disk that is full, from a cache that a
//! power failure has cut short.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use products::manifest::Manifest;
use store::digest::Digest;
use store::layout::Layout;

/// Bytes of the program that is packed; they do not compress.
const AGENT: usize = 150_000;

/// A source tree with the flavour that ships, a made-up agent, and a cache of its own.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for dir in ["kernel-config", "rootfs/flavour", "out"] {
            fs::create_dir_all(place.path(dir)).unwrap();
        }
        fs::write(place.path("kernel-config/kernel.toml"), "").unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs/flavour/minimal.toml");
        fs::copy(shipped, place.path("rootfs/flavour/minimal.toml")).unwrap();
        let mut seed = 1;
        fs::write(place.path("out/agent"), (0..AGENT).map(|_| random(&mut seed) as u8).collect::<Vec<_>>())
            .unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, by way of a shell that runs `before`.
    fn command(&self, before: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_image-builder")]);
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("PITH_CACHE", self.path("cache")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn initrd(&self, epoch: u32) -> Command {
        let mut command = self.command("", &["initrd"]);
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        command
    }

    fn right_initrd(&self, epoch: u32) -> Vec<u8> {
        said(&self.initrd(epoch).output().unwrap());
        fs::read(self.path("out/initrd.img")).unwrap()
    }

    /// Whatever is in a directory of this name.
    fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(dir))
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// What a command that succeeded told people.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{:?}: {text}", output.status);
    text
}

/// Marsaglia's xorshift.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn a_build_killed_at_any_moment_is_followed_by_a_right_one() {
    const EPOCHS: u32 = 5;
    let reference = Scratch::new();
    let right: Vec<Vec<u8>> = (0..EPOCHS).map(|epoch| reference.right_initrd(epoch)).collect();
    let place = Scratch::new();
    // The fastest of some, so that moments lie inside of builds also on a machine that was busy at first.
    let timed = |epoch| {
        let begun = Instant::now();
        place.right_initrd(epoch);
        begun.elapsed()
    };
    let whole = (EPOCHS + 2..EPOCHS + 5).map(timed).min().unwrap();
    fs::remove_file(place.path("out/initrd.img")).unwrap();
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
    let started = seed;
    let mut killed = 0;
    for round in 0..50 {
        let mut build = place.initrd(round % EPOCHS).spawn().unwrap();
        let moment = random(&mut seed) % u64::try_from(whole.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(moment));
        build.kill().unwrap();
        let output = build.wait_with_output().unwrap();
        killed += u32::from(output.status.signal() == Some(9));
        assert!(output.status.signal() == Some(9) || output.status.success(), "{}", said(&output));
        // Between products: absent, old or new, never a part.
        let product = fs::read(place.path("out/initrd.img")).ok();
        assert!(product.is_none_or(|product| right.contains(&product)), "seed {started}, round {round}");
        if round % 10 == 9 {
            for (epoch, right) in (0..EPOCHS).zip(&right) {
                assert!(place.right_initrd(epoch) == *right, "seed {started}, round {round}");
            }
            let layout = Layout::new(place.path(""), None);
            let noted = Manifest::read(&layout).products["initrd.img"].sha256;
            assert_eq!(noted, Digest::of(right.last().unwrap()));
            fs::remove_dir_all(place.path("cache/initrd")).unwrap();
        }
    }
    assert!(killed > 5, "only {killed} builds were killed in time: the test tests nothing");
    // What they left is removed once it is old enough to be nobody's. Not every fifty leave such a file; one does.
    fs::write(place.path("out/.new-killed"), "half a product").unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let abandoned = |dir: &str| {
        let names = place
            .names(dir)
            .into_iter()
            .filter(|name| name.starts_with("build-") || name.starts_with(".new-"));
        names.map(|name| place.path(dir).join(name)).collect::<Vec<_>>()
    };
    for path in abandoned("cache/work").into_iter().chain(abandoned("out")) {
        File::open(path).unwrap().set_modified(old).unwrap();
    }
    place.right_initrd(EPOCHS + 1);
    assert_eq!(abandoned("out"), Vec::<PathBuf>::new());
    assert_eq!(abandoned("cache/work"), Vec::<PathBuf>::new());
}

#[test]
fn builds_side_by_side_are_all_right() {
    let place = Scratch::new();
    let right = place.right_initrd(7);
    for round in 0..3 {
        // All of them find the same broken entry, or none.
        if round == 1 {
            cut_short(&place.path("cache/initrd"), "image", 10);
        } else {
            fs::remove_dir_all(place.path("cache/initrd")).unwrap();
        }
        let builds: Vec<_> = (0..4).map(|_| place.initrd(7).spawn().unwrap()).collect();
        for build in builds {
            said(&build.wait_with_output().unwrap());
        }
        assert!(fs::read(place.path("out/initrd.img")).unwrap() == right, "round {round}");
    }
    assert_eq!(place.names("cache/initrd").len(), 1);
    assert!(place.names("cache/work").is_empty());
}

/// Leaves `length` bytes of the file of this name in the only entry of a kind.
fn cut_short(kind: &Path, name: &str, length: u64) {
    let entries: Vec<PathBuf> = fs::read_dir(kind).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    File::options().write(true).open(entry.join(name)).unwrap().set_len(length).unwrap();
}

#[test]
fn what_a_power_failure_cut_short_is_made_anew_with_a_note() {
    let place = Scratch::new();
    let right = place.right_initrd(0);
    for length in [0, 1000] {
        cut_short(&place.path("cache/initrd"), "image", length);
        let noted = said(&place.initrd(0).output().unwrap());
        assert!(noted.contains("is broken: image has") && noted.contains("it is made anew"), "{noted}");
        assert!(fs::read(place.path("out/initrd.img")).unwrap() == right);
        let noted = said(&place.initrd(0).output().unwrap());
        assert!(!noted.contains("broken"), "{noted}");
    }

    fs::create_dir_all(place.path("image/bin")).unwrap();
    fs::write(place.path("image/bin/sh"), "#!").unwrap();
    let image = || {
        let output = place.command("", &["--json", "image", "image"]).output().unwrap();
        let noted = said(&output);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (noted, fs::read(told["disk"].as_str().unwrap()).unwrap(), told)
    };
    let (_, right, told) = image();
    assert_eq!(image().2["cached"], true);
    for (name, length) in [("disk.erofs", 0), ("disk.erofs", 4096), ("image.json", 0)] {
        cut_short(&place.path("cache/images"), name, length);
        let (noted, disk, again) = image();
        assert!(noted.contains("it is made anew"), "{noted}");
        assert!(disk == right && again["bytes"] == told["bytes"] && again["cached"] == false);
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_place_and_leaves_nothing_half() {
    let place = Scratch::new();
    fs::create_dir_all(place.path("image")).unwrap();
    fs::write(place.path("image/large"), vec![7; 300_000]).unwrap();
    // No file may be larger than 64 blocks of 512 bytes; the system says so in the same places where a disk is full.
    let before = "trap '' XFSZ; ulimit -f 64;";
    for (arguments, named) in [
        (&["initrd"][..], "cache/work/build-"),
        (&["initrd", "--compression", "none", "--output", "here.img"][..], "cache/work/build-"),
        (&["image", "image"][..], "cache/work/build-"),
    ] {
        let output = place.command(before, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("File too large") && text.contains(named), "{arguments:?}: {text}");
        assert_eq!(place.names("out"), ["agent"], "{arguments:?}");
        assert_eq!(place.names(""), ["cache", "image", "kernel-config", "out", "rootfs"], "{arguments:?}");
        assert!(place.names("cache/work").is_empty() && place.names("cache/initrd").is_empty());
    }
    // The cache has room, the product directory has not.
    let right = place.right_initrd(0);
    fs::remove_file(place.path("out/initrd.img")).unwrap();
    let mut command = place.command(before, &["initrd"]);
    let output = command.env("SOURCE_DATE_EPOCH", "0").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("out/initrd.img"), "{text}");
    assert_eq!(place.names("out"), ["agent", "manifest.json"]);
    assert!(place.right_initrd(0) == right);
}

#[test]
fn two_signals_end_a_command_that_waits_for_its_reader() {
    use nix::sys::signal::{Signal, kill};
    let place = Scratch::new();
    let (_reader, mut full) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    while std::io::Write::write(&mut full, &[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&full, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut build = place.initrd(0).stdout(full).spawn().unwrap();
    let until = |what: &dyn Fn(&mut std::process::Child) -> bool, build: &mut std::process::Child| {
        let begun = Instant::now();
        while !what(build) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let manifest = place.path("out/manifest.json");
    until(&|_| manifest.exists(), &mut build);
    std::thread::sleep(Duration::from_millis(300));
    for _ in 0..2 {
        assert!(
            build.try_wait().unwrap().is_none(),
            "it does not wait for its reader: the test tests nothing"
        );
        kill(nix::unistd::Pid::from_raw(build.id().cast_signed()), Signal::SIGTERM).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    until(&|build| build.try_wait().unwrap().is_some(), &mut build);
}
