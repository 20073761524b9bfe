//! What `make release` checks, in a small repository of its own, with a release of one file.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A repository that is ready for release 1.2.3.
struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self { dir: tempfile::tempdir().unwrap() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/release");
        std::fs::create_dir(repository.path(".ci")).unwrap();
        std::fs::copy(script, repository.path(".ci/release")).unwrap();
        for (name, text) in [
            (
                "Cargo.toml",
                "[workspace]\n\n[workspace.package]\nversion = \"1.2.3\"\n\n[dependencies]\nversion = \"9\"\n",
            ),
            (
                "Cargo.lock",
                "version = 4\n\n[[package]]\nname = \"ours\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"other\"\n\
                 version = \"7.0.0\"\nsource = \"registry\"\n",
            ),
            ("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-30\n\n- It works.\n"),
            (".gitignore", "/out\n"),
            (
                "Makefile",
                "dist:\n\tmkdir -p out/dist\n\techo pith >out/dist/file\n\tcd out/dist && sha256sum file >SHA256SUMS\n",
            ),
        ] {
            repository.write(name, text);
        }
        repository.git(&["init", "--quiet"]);
        repository.commit();
        repository.git(&["tag", "v1.2.3"]);
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        let who = ["-c", "user.name=Jane", "-c", "user.email=jane@example.org", "-c", "commit.gpgsign=false"];
        let output =
            Command::new("git").args(who).args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
    }

    fn release(&self, version: &str, key: &Path) -> Output {
        let mut command = Command::new(self.path(".ci/release"));
        command.args([version.as_ref(), key.as_os_str()]).env_remove("MAKEFLAGS").output().unwrap()
    }

    /// What is wrong, one line for each.
    fn problems(&self, version: &str, key: &Path) -> Vec<String> {
        let output = self.release(version, key);
        assert!(!output.status.success(), "it was released");
        assert!(!self.path("out").exists(), "something was built");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().map(|line| line.strip_prefix("release: ").unwrap_or(line).to_owned()).collect()
    }
}

fn ssh_key(dir: &Path) -> PathBuf {
    let key = dir.join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    key
}

#[test]
fn a_release_that_is_ready_is_built_and_signed_with_the_key_that_was_brought() {
    let repository = Repository::new();
    let keys = tempfile::tempdir().unwrap();
    let key = ssh_key(keys.path());
    let output = repository.release("1.2.3", &key);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let public = std::fs::read_to_string(keys.path().join("key.pub")).unwrap();
    let signers = keys.path().join("allowed_signers");
    std::fs::write(&signers, format!("jane@example.org {public}")).unwrap();
    let verify = |text: &str| {
        std::fs::write(keys.path().join("text"), text).unwrap();
        // As docs/release.md has it.
        let mut command = Command::new("ssh-keygen");
        command.args(["-Y", "verify", "-I", "jane@example.org", "-n", "pith-release", "-f"]).arg(&signers);
        command.arg("-s").arg(repository.path("out/dist/SHA256SUMS.sig"));
        command.stdin(std::fs::File::open(keys.path().join("text")).unwrap());
        command.output().unwrap().status.success()
    };
    let sums = std::fs::read_to_string(repository.path("out/dist/SHA256SUMS")).unwrap();
    assert!(verify(&sums));
    assert!(!verify(&sums.replace("file", "evil")));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_nothing_is_built() {
    let repository = Repository::new();
    let key = repository.path(".git/key");
    std::fs::write(&key, "a key\n").unwrap();
    assert_eq!(repository.problems("1.2", &key), ["VERSION is '1.2'; give one such as VERSION=0.2.0"]);
    assert_eq!(
        repository.problems("1.2.3", Path::new("")),
        ["KEY is missing; give a secret key of minisign, or a key of ssh"]
    );
    assert_eq!(repository.problems("1.2.3", Path::new("/no/such/key")), ["/no/such/key cannot be read"]);
    assert_eq!(
        repository.problems("1.3.0", &key),
        [
            "Cargo.toml has version 1.2.3; set it to 1.3.0",
            "Cargo.lock has another version of our own crates; run `cargo update --workspace`",
            "the newest version in CHANGELOG.md is '## [1.2.3] - 2026-11-30'; it must be '## [1.3.0] - YYYY-MM-DD'",
            "there is no tag v1.3.0; `git tag --annotate v1.3.0` makes it",
        ]
    );
    repository.write("CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n- More.\n\n## [1.2.3]\n");
    assert_eq!(
        repository.problems("1.2.3", &key),
        [
            "the newest version in CHANGELOG.md is '## [1.2.3]'; it must be '## [1.2.3] - YYYY-MM-DD'",
            "CHANGELOG.md has changes under Unreleased; move them under 1.2.3",
            "there are changes that are not committed: git status",
        ]
    );
    repository.git(&["checkout", "--quiet", "."]);
    repository.commit();
    assert_eq!(repository.problems("1.2.3", &key), ["the tag v1.2.3 is at another commit than HEAD"]);
}

#[test]
fn a_release_is_built_of_the_last_commit_and_of_nothing_else() {
    let repository = Repository::new();
    let out = tempfile::tempdir().unwrap();
    // A stand-in for image-builder: it tells how it is called.
    let builder = out.path().join("image-builder");
    std::fs::write(&builder, "#!/bin/sh\necho $SOURCE_DATE_EPOCH \"$@\"\n").unwrap();
    std::fs::set_permissions(&builder, std::fs::Permissions::from_mode(0o755)).unwrap();
    repository.write(".ci/wheel", "#!/bin/sh\necho the-wheel\n");
    let wheel = repository.path(".ci/wheel");
    std::fs::set_permissions(&wheel, std::fs::Permissions::from_mode(0o755)).unwrap();
    repository.commit();
    let dist = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/dist");
        let mut command = Command::new(script);
        command.arg(repository.dir.path()).arg(out.path().join("dist")).arg(&builder);
        command.env_remove("SOURCE_DATE_EPOCH").env_remove("MAINTAINER").output().unwrap()
    };
    let output = dist();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packed = String::from_utf8(output.stdout).unwrap();
    let (epoch, arguments) = packed.split_once(' ').unwrap();
    assert!(epoch.parse::<u64>().unwrap() > 1_700_000_000, "{packed}");
    assert!(arguments.contains(" dist --maintainer Jane <jane@example.org> "), "{packed}");
    assert!(arguments.contains(" --add the-wheel "), "{packed}");
    let built = String::from_utf8(output.stderr).unwrap();
    assert!(built.contains("uki --all\n"), "{built}");
    // Every kernel is in a release.
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel-config/profile");
    for profile in std::fs::read_dir(profiles).unwrap().map(|entry| entry.unwrap().path()) {
        let name = profile.file_stem().unwrap().to_str().unwrap();
        // Those that ship are built with the rest of their guests.
        let by = match name {
            "kata" => "products build\n".to_owned(),
            "aarch64" => "build --arch aarch64\n".to_owned(),
            _ => format!("kernel build --profile {name}\n"),
        };
        let is_built = built.contains(&by);
        assert!(is_built, "{name}: {built}");
    }
    for (name, text) in [("CHANGELOG.md", "changed"), ("new.rs", "new")] {
        repository.write(name, text);
        let output = dist();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains("not committed") && said.contains(name) && said.lines().count() == 2, "{said}");
        repository.git(&["stash", "--quiet", "--include-untracked"]);
    }
    assert!(dist().status.success());
}
