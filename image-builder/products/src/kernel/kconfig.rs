//! Runs kconfig over a tree that has only what kconfig reads, unpacked once per source and kept in the cache.
//!
//! Promises that a check takes seconds, not a full unpacking, and that the cached tree stays untouched: kconfig
//! works out of tree. Must never hand on a configuration that was not verified.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Program;
use crate::source::Tarball;
use store::cache::Cache;
use store::digest::Digest;
use store::progress::Progress;

use super::error::KernelError;
use super::profile::Profile;
use super::toolchain::INSTALL;

/// What kconfig reads of a source tree.
const PATTERNS: &[&str] = &[
    "*/Kconfig*",
    "*/Makefile*",
    "*/Kbuild*",
    "*/scripts/*",
    "*/kernel/configs/*",
    "*/arch/*/configs/*.config",
];

/// Makes the `.config` of a profile and verifies it. Answers the source's version and the text.
pub(super) async fn configure(
    profile: &Profile,
    tarball: &Tarball,
    cache: &Cache,
    progress: Progress,
) -> Result<(String, String), KernelError> {
    let tree = tree(tarball, cache, progress).await?;
    let version = version(&tree)?;
    let expected = &profile.kernel.source.series;
    if version != *expected && !version.starts_with(&format!("{expected}.")) {
        return Err(KernelError::Series { found: version, expected: expected.clone() });
    }
    let work = cache.workspace()?;
    let wanted = work.path().join("wanted");
    let mut text = String::new();
    // The kernel's own fragments that make `tinyconfig`; not every release and architecture has all three.
    let of_arch = format!("arch/{}/configs/tiny.config", profile.arch.linux_directory());
    for name in ["kernel/configs/tiny-base.config", "kernel/configs/tiny.config", &of_arch] {
        text.push_str(&fs::read_to_string(tree.join(name)).unwrap_or_default());
    }
    text.push_str(&profile.requests.to_config());
    fs::write(&wanted, text).map_err(KernelError::io("write", &wanted))?;
    let step = progress.step(&format!("configure {version}"), None);
    let make = |target: &str| {
        super::arch::told(profile.arch, Program::new("make", INSTALL))
            .arg("--directory")
            .arg(&tree)
            .arg(format!("O={}", work.path().display()))
            .env("KCONFIG_ALLCONFIG", &wanted)
            .arg(target)
    };
    for target in ["allnoconfig", "olddefconfig"] {
        make(target).run(|_| ()).await.map_err(KernelError::program("run kconfig"))?;
    }
    let path = work.path().join(".config");
    let config = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
    super::verified::verified(profile, &config)?;
    step.done(&format!("{} options asked for, none lost", profile.requests.len()));
    Ok((version, config))
}

async fn tree(tarball: &Tarball, cache: &Cache, progress: Progress) -> Result<PathBuf, KernelError> {
    let source = tarball.sha256.to_string();
    let key = Digest::of_parts([("source", source.as_bytes()), ("patterns", PATTERNS.join("\n").as_bytes())]);
    if let Some(entry) = cache.entry("kconfig", &key) {
        return Ok(entry);
    }
    let work = cache.workspace()?;
    let dir = work.path().join("tree");
    fs::create_dir(&dir).map_err(KernelError::io("create", &dir))?;
    tarball.unpack(&dir, PATTERNS, progress).await?;
    Ok(cache.publish("kconfig", &key, &dir)?)
}

/// The version by the top Makefile: `6.12.117`.
fn version(tree: &Path) -> Result<String, KernelError> {
    let path = tree.join("Makefile");
    let text = fs::read_to_string(&path).map_err(KernelError::io("read", &path))?;
    Ok(makefile_version(&text))
}

fn makefile_version(text: &str) -> String {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        value.map(str::trim).unwrap_or_default()
    };
    let numbers = [field("VERSION"), field("PATCHLEVEL"), field("SUBLEVEL")];
    let dotted = numbers.iter().filter(|number| !number.is_empty()).copied().collect::<Vec<_>>().join(".");
    dotted + field("EXTRAVERSION")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_makefile() {
        let text = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\nNAME = X\n";
        assert_eq!(makefile_version(text), "6.12.117");
        assert_eq!(makefile_version(&text.replace("EXTRAVERSION =", "EXTRAVERSION = -rc1")), "6.12.117-rc1");
        assert_eq!(makefile_version(""), "");
    }
}
