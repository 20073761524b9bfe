//! The daemon `vhost-device-vsock`, which gives guests a vsock where the host's kernel has none. A release ships it.
//!
//! Promises a static program that knows no path of this machine, built from one version of the crate as its authors locked it.
//! Must never build another version: the machine's use of its options was tried with this one.

use std::path::{Path, PathBuf};

use store::arch::Arch;
use store::layout::Layout;
use store::progress::Progress;

use crate::agent::{self, AgentError, INSTALL, TOOLS_PROFILE, cargo_home, cargo_name, places, rust_flags};
use crate::install::{self, InstallError};
use crate::program::Program;

/// The crate and its program.
pub const NAME: &str = "vhost-device-vsock";
/// The crate's version.
pub const VERSION: &str = "0.3.0";

/// Builds the daemon with `cargo install`, which fetches its crates, and puts it into `directory`. Gives its path.
///
/// # Errors
/// When cargo fails, or when the outcome is not a static program.
pub async fn build(layout: &Layout, directory: &Path, progress: Progress) -> Result<PathBuf, AgentError> {
    let mut step = progress.step(&format!("compile {NAME} {VERSION}"), None);
    let work =
        tempfile::tempdir().map_err(|source| AgentError::Read { path: std::env::temp_dir(), source })?;
    let (root, target) = (work.path().join("root"), work.path().join("target"));
    let places = places(&target, cargo_home().as_deref(), &target);
    let flags = format!("{}\x1f-C\x1fstrip=symbols", rust_flags(TOOLS_PROFILE, &places));
    Program::new(&cargo_name(), INSTALL)
        // The compiler is the one that the source tree selects.
        .current_dir(layout.root())
        .args([
            "install",
            "--locked",
            "--no-track",
            "--target",
            Arch::host().rust(),
            "--version",
            VERSION,
            NAME,
        ])
        .args(["--root".as_ref(), root.as_os_str(), "--target-dir".as_ref(), target.as_os_str()])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS")
        .run(|line| step.advance_if(line.trim_start().strip_prefix("Compiling ")))
        .await
        .map_err(|source| AgentError::Program { operation: "compile vhost-device-vsock", source })?;
    let built = root.join("bin").join(NAME);
    agent::check_static(&built)?;
    let program = directory.join(NAME);
    install::Source::File(&built).put(&program).map_err(InstallError::from)?;
    let crates = step.count();
    step.done(&format!("{crates} crates"));
    Ok(program)
}

/// Where cargo has unpacked the crate, with the lock file of its authors: in this directory of cargo's, once it was built.
pub fn source() -> Option<PathBuf> {
    source_in(&cargo_home()?)
}

fn source_in(home: &Path) -> Option<PathBuf> {
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let crates = registries.flatten().map(|registry| registry.path().join(format!("{NAME}-{VERSION}")));
    crates.filter(|path| path.join("Cargo.lock").is_file()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_setup_installs_the_same_version() {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/setup");
        let setup = std::fs::read_to_string(setup).unwrap();
        assert!(setup.contains(&format!("wanted {NAME} {VERSION}\n")));
    }

    #[test]
    fn its_source_is_where_cargo_unpacks_crates() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(source_in(home.path()), None);
        let other = home.path().join("registry/src/index-1/vhost-device-vsock-0.2.0");
        let right = home.path().join("registry/src/index-1/vhost-device-vsock-0.3.0");
        for directory in [&other, &right] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join("Cargo.lock"), "version = 4\n").unwrap();
        }
        assert_eq!(source_in(home.path()), Some(right));
    }
}
