//! Installations in temporary directories: what they leave alone, what they take back, and two of them together.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use super::*;
use store::digest::Digest;

const GO_ON: How<'static> = How { force: false, dry_run: false, stop: &|| false };
const FORCE: How<'static> = How { force: true, ..GO_ON };
const LOOK: How<'static> = How { dry_run: true, ..GO_ON };

/// A directory that stands for `/`, and products to install.
struct FakeHost(tempfile::TempDir);

impl FakeHost {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.0.path().join("root")).unwrap();
        fs::write(place.0.path().join("kernel"), "kernel").unwrap();
        place
    }

    fn root(&self) -> Root {
        Root::new(Some(self.0.path().join("root")))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().at(Path::new(path))
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, text).unwrap();
        at
    }

    /// An installation of one product and one text.
    fn plan(&self, name: &str, config: &str, text: &str) -> Plan {
        let mut plan = Plan::new(name, Path::new("/opt/pith"), Path::new(config), self.root()).unwrap();
        let kernel = self.0.path().join("kernel");
        let digest = Digest::of_file(&kernel).unwrap().0;
        plan.copy(kernel, digest, "/opt/pith/vmlinuz".into());
        plan.text(Path::new(config).join("config.d/50-pith.toml"), text);
        plan
    }

    fn one(&self) -> Plan {
        self.plan("one", "/etc/kata-containers/one", "a = 1\n")
    }

    fn remove(&self, name: &str, how: How<'_>) -> Result<Report, DeployError> {
        remove(&self.root(), Path::new("/opt/pith"), name, how)
    }

    /// Everything below the root: paths, kinds, modes and contents.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        fn walk(directory: &Path, top: &Path, tree: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let content = if metadata.is_dir() {
                    walk(&path, top, tree);
                    "a directory".to_owned()
                } else if metadata.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                let name = path.strip_prefix(top).unwrap().to_path_buf();
                tree.insert(name, format!("{:o} {content}", metadata.mode()));
            }
        }
        let mut tree = BTreeMap::new();
        let top = self.at("/");
        walk(&top, &top, &mut tree);
        tree
    }
}

#[test]
fn what_was_installed_is_removed_again_and_nothing_else() {
    let place = FakeHost::new();
    place.write("/etc/kata-containers/other", "");
    fs::create_dir_all(place.at("/opt/pith")).unwrap();
    let before = place.tree();
    let plan = place.one();
    let wanted: Vec<PathBuf> = plan.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(install(&plan, LOOK).unwrap().written, wanted);
    assert_eq!(place.tree(), before, "a dry run wrote something");
    assert_eq!(install(&plan, GO_ON).unwrap().written, wanted);
    assert_eq!(install(&plan, GO_ON).unwrap().unchanged, wanted);
    assert_eq!(fs::read(place.at("/opt/pith/vmlinuz")).unwrap(), b"kernel");
    let text = fs::read_to_string(place.at("/etc/kata-containers/one/config.d/50-pith.toml")).unwrap();
    assert!(text.starts_with("# Written by image-builder") && text.ends_with("\na = 1\n"), "{text}");
    assert_eq!(place.remove("one", LOOK).unwrap().removed.len(), 2);
    assert_eq!(place.remove("one", GO_ON).unwrap().removed.len(), 2);
    // The directory that was there before is there and empty; those that were made are gone.
    assert_eq!(place.tree(), before);
    let again = place.remove("one", GO_ON).unwrap_err();
    assert!(matches!(&again, DeployError::NotInstalled { known, .. } if known.is_empty()), "{again}");
}

/// Case H6: products are as foreign as texts.
#[test]
fn files_of_somebody_else_are_neither_replaced_nor_removed() {
    for path in ["/opt/pith/vmlinuz", "/etc/kata-containers/one/config.d/50-pith.toml"] {
        for text in ["foreign", "kernel"] {
            let place = FakeHost::new();
            let at = place.write(path, text);
            let before = place.tree();
            for how in [GO_ON, FORCE, LOOK] {
                let refused = install(&place.one(), how).unwrap_err();
                assert!(matches!(&refused, DeployError::Foreign(path) if *path == at), "{refused}");
                assert_eq!(place.tree(), before);
            }
            assert!(place.remove("one", FORCE).is_err());
            assert_eq!(place.tree(), before);
        }
    }
}

/// Case H6: a link in the place of a file, or of a directory of the installation.
#[test]
fn links_are_not_followed() {
    let place = FakeHost::new();
    let target = place.0.path().join("precious");
    fs::write(&target, "precious").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    let unharmed = || {
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    };
    fs::create_dir_all(place.at("/opt/pith")).unwrap();
    symlink(&target, place.at("/opt/pith/vmlinuz")).unwrap();
    assert!(matches!(install(&place.one(), FORCE), Err(DeployError::Foreign(_))));
    unharmed();
    // One that came after the installation stays, and so does what it leads to.
    fs::remove_file(place.at("/opt/pith/vmlinuz")).unwrap();
    install(&place.one(), GO_ON).unwrap();
    fs::remove_file(place.at("/opt/pith/vmlinuz")).unwrap();
    symlink(&target, place.at("/opt/pith/vmlinuz")).unwrap();
    assert!(matches!(install(&place.one(), FORCE), Err(DeployError::Foreign(_))));
    let report = place.remove("one", FORCE).unwrap();
    assert_eq!((report.removed.len(), report.kept.len()), (1, 1));
    unharmed();
    assert!(place.at("/opt/pith/vmlinuz").is_symlink());
    fs::remove_file(place.at("/opt/pith/vmlinuz")).unwrap();
    // A directory: below a staging directory no link at all, elsewhere none inside of the installation.
    let outside = place.0.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(place.at("/etc/kata-containers/one")).unwrap();
    symlink(&outside, place.at("/etc/kata-containers/one/config.d")).unwrap();
    assert!(matches!(install(&place.one(), FORCE), Err(DeployError::Link(_))));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let real = |name: &str| place.0.path().join(name);
    symlink(&outside, real("above")).unwrap();
    let mut plan = Plan::new("two", &real("above/pith"), &real("above/config"), Root::default()).unwrap();
    plan.text(real("above/config/x.toml"), "");
    install(&plan, GO_ON).unwrap();
    assert!(outside.join("config/x.toml").is_file(), "an administrator may have links above");
    remove(&plan.root, &plan.prefix, "two", GO_ON).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_was_changed_since_is_kept_unless_forced() {
    let place = FakeHost::new();
    let config = "/etc/kata-containers/one/config.d/50-pith.toml";
    install(&place.one(), GO_ON).unwrap();
    place.write(config, "mine = 1\n");
    let next = place.plan("one", "/etc/kata-containers/one", "a = 2\n");
    assert!(
        matches!(install(&next, GO_ON), Err(DeployError::Edited(path)) if path.ends_with("50-pith.toml"))
    );
    install(&next, FORCE).unwrap();
    assert!(fs::read_to_string(place.at(config)).unwrap().ends_with("a = 2\n"));
    place.write(config, "mine = 1\n");
    let report = place.remove("one", GO_ON).unwrap();
    assert_eq!(report.kept[0].path, Path::new(config));
    assert!(report.kept[0].reason.contains("--force"), "{report:?}");
    assert_eq!(fs::read_to_string(place.at(config)).unwrap(), "mine = 1\n");
    assert!(!place.at("/opt/pith").exists());
    fs::remove_dir_all(place.at("/etc")).unwrap();
    install(&place.one(), GO_ON).unwrap();
    place.write(config, "mine = 1\n");
    place.remove("one", FORCE).unwrap();
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

#[test]
fn files_that_the_next_installation_does_not_have_go() {
    let place = FakeHost::new();
    let mut first = place.one();
    first.text("/etc/kata-containers/one/config.d/10-host-a.toml".into(), "");
    first.text("/etc/kata-containers/one/config.d/10-host-b.toml".into(), "");
    install(&first, GO_ON).unwrap();
    let edited = place.write("/etc/kata-containers/one/config.d/10-host-b.toml", "mine = 1\n");
    let report = install(&place.one(), GO_ON).unwrap();
    assert_eq!(report.removed, [Path::new("/etc/kata-containers/one/config.d/10-host-a.toml")]);
    assert_eq!(report.kept.len(), 1);
    assert!(edited.is_file());
    place.remove("one", FORCE).unwrap();
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

/// Case H20.
#[test]
fn two_installations_share_a_prefix_and_each_is_removed_alone() {
    for order in [["one", "two"], ["two", "one"]] {
        let place = FakeHost::new();
        let plan = |name: &str| place.plan(name, &format!("/etc/kata-containers/{name}"), "a = 1\n");
        install(&plan("one"), GO_ON).unwrap();
        install(&plan("two"), GO_ON).unwrap();
        let [first, last] = order;
        let report = place.remove(first, GO_ON).unwrap();
        assert!(report.kept[0].reason.contains(last), "{report:?}");
        assert_eq!(fs::read(place.at("/opt/pith/vmlinuz")).unwrap(), b"kernel");
        assert!(place.at(&format!("/etc/kata-containers/{last}/config.d/50-pith.toml")).is_file());
        assert!(!place.at(&format!("/etc/kata-containers/{first}")).exists());
        place.remove(last, GO_ON).unwrap();
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

#[test]
fn a_product_that_another_installation_uses_is_not_changed_under_it() {
    let place = FakeHost::new();
    install(&place.one(), GO_ON).unwrap();
    fs::write(place.0.path().join("kernel"), "newer").unwrap();
    let two = place.plan("two", "/etc/kata-containers/two", "");
    let before = place.tree();
    for how in [GO_ON, FORCE] {
        let refused = install(&two, how).unwrap_err();
        assert!(matches!(&refused, DeployError::Shared { other, .. } if other == "one"), "{refused}");
    }
    assert_eq!(place.tree(), before);
    install(&place.one(), GO_ON).unwrap();
    install(&two, GO_ON).unwrap();
}

/// Runs `work` with a stop at its `n`th question, by `die` in place of an answer if it is to be as if killed. Says whether the
/// question was asked.
fn stopped_at(n: usize, die: bool, work: impl FnOnce(How<'_>) -> Result<Report, DeployError>) -> bool {
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        if die && asked.get() == n {
            std::panic::resume_unwind(Box::new("killed"));
        }
        asked.get() >= n
    };
    let how = How { stop: &stop, ..GO_ON };
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| work(how)));
    let reached = asked.get() >= n;
    match result {
        Err(_) => assert!(die && reached),
        Ok(Ok(_)) => assert!(!reached),
        Ok(Err(error)) => assert!(!die && matches!(error, DeployError::Stopped), "{error}"),
    }
    reached
}

#[test]
fn an_installation_that_is_stopped_leaves_all_as_it_was() {
    for upgrade in [false, true] {
        for n in 1.. {
            let place = FakeHost::new();
            place.write("/etc/kata-containers/other", "");
            if upgrade {
                let mut first = place.one();
                first.text("/etc/kata-containers/one/config.d/10-host-a.toml".into(), "");
                install(&first, GO_ON).unwrap();
                fs::write(place.0.path().join("kernel"), "newer").unwrap();
            }
            let before = place.tree();
            let next = place.plan("one", "/etc/kata-containers/one", "a = 2\n");
            let reached = stopped_at(n, false, |how| install(&next, how));
            if !reached {
                assert!(n > 5, "the end is asked for at {} places only", n - 1);
                break;
            }
            assert_eq!(place.tree(), before, "stopped at {n}, upgrade {upgrade}");
        }
    }
}

#[test]
fn an_installation_that_is_killed_can_be_removed_and_can_be_made_again() {
    for (upgrade, again) in [(false, false), (false, true), (true, false), (true, true)] {
        for n in 1.. {
            let place = FakeHost::new();
            let other = place.write("/etc/kata-containers/other", "");
            if upgrade {
                install(&place.one(), GO_ON).unwrap();
                fs::write(place.0.path().join("kernel"), "newer").unwrap();
            }
            let next = place.plan("one", "/etc/kata-containers/one", "a = 2\n");
            if !stopped_at(n, true, |how| install(&next, how)) {
                break;
            }
            // Before there is a receipt there may be empty directories, which nobody can know the maker of.
            let early = !place.at("/opt/pith/installed/one.json").exists();
            if again {
                install(&next, GO_ON).unwrap();
                let kernel = fs::read(place.0.path().join("kernel")).unwrap();
                assert_eq!(fs::read(place.at("/opt/pith/vmlinuz")).unwrap(), kernel);
            }
            match place.remove("one", GO_ON) {
                Err(DeployError::NotInstalled { .. }) => assert!(early && !again),
                result => drop(result.unwrap()),
            }
            if early {
                for directory in ["/opt/pith/installed", "/opt/pith", "/opt"] {
                    drop(fs::remove_dir(place.at(directory)));
                }
            }
            let left: Vec<_> = place.tree().into_keys().collect();
            assert_eq!(
                left,
                ["etc", "etc/kata-containers", "etc/kata-containers/other"].map(PathBuf::from),
                "killed at {n}"
            );
            assert!(other.is_file());
        }
    }
}

#[test]
fn a_removal_that_was_cut_short_is_done_by_the_next() {
    let files = place_and_files().1;
    for cut in 0..=files.len() {
        let (place, files) = place_and_files();
        for path in &files[..cut] {
            fs::remove_file(place.root().at(path)).unwrap();
        }
        assert_eq!(place.remove("one", GO_ON).unwrap().removed.len(), files.len() - cut);
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

/// An installation, and its files in the order in which they are removed.
fn place_and_files() -> (FakeHost, Vec<PathBuf>) {
    let place = FakeHost::new();
    install(&place.one(), GO_ON).unwrap();
    let files = place.remove("one", LOOK).unwrap().removed;
    (place, files)
}

#[test]
fn who_waits_for_the_lock_can_be_stopped() {
    use nix::fcntl::{Flock, FlockArg};
    let place = FakeHost::new();
    install(&place.one(), GO_ON).unwrap();
    let before = place.tree();
    let held = fs::File::open(place.at("/opt/pith")).unwrap();
    let _held = Flock::lock(held, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let stop = How { stop: &|| true, ..GO_ON };
    assert!(matches!(place.remove("one", stop), Err(DeployError::Stopped)));
    let once = Cell::new(false);
    let two = place.plan("two", "/etc/kata-containers/two", "");
    let stop = How { stop: &|| once.replace(true), ..GO_ON };
    assert!(matches!(install(&two, stop), Err(DeployError::Stopped)));
    assert_eq!(place.tree(), before);
}

#[test]
fn no_unfinished_file_is_in_a_directory_that_shims_read() {
    let drop_in = Path::new("/etc/x/config.d/50-pith.toml");
    for name in [super::install::new_name(drop_in, "one"), super::install::old_name(drop_in, "one")] {
        assert_eq!(name.parent(), Some(Path::new("/etc/x")), "{name:?}");
    }
}

#[test]
fn a_product_that_changes_meanwhile_is_not_installed() {
    let place = FakeHost::new();
    let plan = place.one();
    fs::write(place.0.path().join("kernel"), "other").unwrap();
    assert!(matches!(install(&plan, GO_ON), Err(DeployError::Changed { .. })));
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

#[test]
fn what_no_path_and_no_handler_can_be_called_is_refused() {
    let place = FakeHost::new();
    for name in ["", "../x", "a/b", "A", "-a", "a-", "a b", "a\"", &"a".repeat(64)] {
        let refused = Plan::new(name, Path::new("/opt/pith"), Path::new("/etc/x"), place.root());
        assert!(matches!(refused, Err(DeployError::Name(_))), "{name:?}");
        assert!(matches!(place.remove(name, GO_ON), Err(DeployError::Name(_))), "{name:?}");
    }
    for path in ["opt", "/", "/opt/../etc", ""] {
        let refused = Plan::new("one", Path::new(path), Path::new("/etc/x"), place.root());
        assert!(matches!(refused, Err(DeployError::NotAbsolute(_))), "{path:?}");
    }
}

#[test]
fn a_receipt_that_cannot_be_read_stops_everything() {
    let place = FakeHost::new();
    install(&place.one(), GO_ON).unwrap();
    place.write("/opt/pith/installed/two.json", "{}");
    let before = place.tree();
    assert!(
        matches!(install(&place.one(), GO_ON), Err(DeployError::BadReceipt { path, .. }) if path.ends_with("two.json"))
    );
    assert!(matches!(place.remove("one", GO_ON), Err(DeployError::BadReceipt { .. })));
    assert_eq!(place.tree(), before);
}
