//! `doctor`: checks what this host has for running pods, and says what is missing and what to type.
//!
//! Must never change anything.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use machine::vm::{Qemu, VIRTIOFSD_FIX, VSOCK_FIX, find_tool, find_virtiofsd};
use serde::Serialize;
use store::arch::Arch;
use store::cache::Cache;

use crate::global::{Global, columns, state};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It is there.
    Fine,
    /// Pods run without it, slower or with less.
    Optional,
    /// No pod runs without it.
    Missing,
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn fine(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Fine, found: found.into(), fix: None }
    }

    fn lacks(what: &'static str, verdict: Verdict, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, verdict, found: found.into(), fix: Some(fix.into()) }
    }
}

impl DoctorArgs {
    /// Runs the command. Its status is 1 when no pod can run.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let findings = look(global);
        let is_able = findings.iter().all(|finding| finding.verdict != Verdict::Missing);
        let places: Vec<_> = global.places();
        let value = serde_json::json!({"able": is_able, "findings": findings, "product_places": places});
        global.print(&value, || words(&findings, is_able))?;
        Ok(if is_able { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn words(findings: &[Finding], is_able: bool) -> String {
    let rows: Vec<[String; 3]> = findings
        .iter()
        .map(|finding| {
            let mark = match finding.verdict {
                Verdict::Fine => "ok",
                Verdict::Optional => "--",
                Verdict::Missing => "MISSING",
            };
            [mark.to_owned(), finding.what.to_owned(), finding.found.clone()]
        })
        .collect();
    let mut text = columns(&rows);
    let fixes = findings.iter().filter_map(|finding| Some((finding.what, finding.fix.as_ref()?)));
    for (number, (what, fix)) in fixes.enumerate() {
        text += &format!("{}\n{what}: {fix}", if number == 0 { "\n" } else { "" });
    }
    let end = if is_able { "Pods can run here." } else { "No pod can run here yet." };
    format!("{text}\n\n{end}")
}

fn look(global: &Global) -> Vec<Finding> {
    let mut findings = vec![products(global)];
    let qemu = Qemu::of(Arch::host());
    findings.push(tool("QEMU", qemu.find(), qemu.name, qemu.variable, Verdict::Missing, qemu.fix));
    findings.push(device(
        "KVM",
        Path::new("/dev/kvm"),
        "guests run under emulation, which is slow",
        "in a VM, switch nested virtualization on for it; else `modprobe kvm_intel` or `modprobe kvm_amd`",
    ));
    findings.push(vsock());
    findings.push(tool(
        "virtiofsd",
        find_virtiofsd(),
        "virtiofsd",
        "PITH_VIRTIOFSD",
        Verdict::Optional,
        &format!("{VIRTIOFSD_FIX} (without it, `-v` and hostPath volumes do not work)"),
    ));
    findings.push(disks());
    findings
        .extend(Arch::ALL.into_iter().filter(|arch| *arch != Arch::host()).map(|arch| foreign(arch, global)));
    findings.push(cache());
    findings.push(pods());
    findings
}

fn products(global: &Global) -> Finding {
    const WHAT: &str = "kernel and initrd";
    match global.products() {
        Ok(layout) if layout.initrd().is_file() => Finding::fine(WHAT, layout.out().display().to_string()),
        Ok(layout) => Finding::lacks(
            WHAT,
            Verdict::Missing,
            format!("there is no {}", layout.initrd().display()),
            "build it with `make build` in the source tree, or fetch the guest again",
        ),
        Err(error) => {
            let text = error.to_string();
            let (found, fix) = text.split_once("\nFetch").unwrap_or((&text, ""));
            let found = found.replace("looked for\n", "looked for ").replace('\n', ",");
            Finding::lacks(
                WHAT,
                Verdict::Missing,
                found.replace("  ", " "),
                format!("fetch{fix}").replace('\n', " "),
            )
        }
    }
}

/// Whether images of an architecture that is not the host's can run, by emulation.
fn foreign(arch: Arch, global: &Global) -> Finding {
    let what = match arch {
        Arch::X86_64 => "images for x86_64",
        Arch::Aarch64 => "images for aarch64",
    };
    let qemu = Qemu::of(arch);
    let products = global.products().map(|layout| layout.for_arch(arch));
    let lacking = products.map_or_else(
        |_| Some("a kernel and an initrd".to_owned()),
        |layout| {
            let needed = [layout.kernel(), layout.initrd()];
            needed.into_iter().find(|path| !path.is_file()).map(|path| path.display().to_string())
        },
    );
    let lacks = |found: String, fix: String| {
        let fix = format!("{fix} (without it, pods of such images do not run)");
        Finding::lacks(what, Verdict::Optional, found, fix)
    };
    match (qemu.find(), lacking) {
        (Some(program), None) if program.is_file() => {
            Finding::fine(what, format!("emulated by {}, which is slow", program.display()))
        }
        (_, Some(product)) => lacks(
            format!("there is no {product}"),
            format!("build it with `make build ARCH={arch}` in the source tree"),
        ),
        (None, None) => lacks(format!("no {} on PATH", qemu.name), qemu.fix.to_owned()),
        (Some(path), None) => lacks(
            format!("{} names {}, which is no file", qemu.variable, path.display()),
            qemu.fix.to_owned(),
        ),
    }
}

fn tool(
    what: &'static str,
    found: Option<PathBuf>,
    name: &str,
    variable: &str,
    verdict: Verdict,
    fix: &str,
) -> Finding {
    match found {
        Some(path) if path.is_file() => Finding::fine(what, path.display().to_string()),
        Some(path) => Finding::lacks(
            what,
            verdict,
            format!("{variable} names {}, which is no file", path.display()),
            fix,
        ),
        None => Finding::lacks(what, verdict, format!("no {name} on PATH"), fix),
    }
}

/// What makes the disks that `--scratch` wants. Debian has it where only root's PATH leads.
fn disks() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    match places.map(|place| place.join("mke2fs")).find(|candidate| candidate.is_file()) {
        Some(path) => Finding::fine("mke2fs", path.display().to_string()),
        None => Finding::lacks(
            "mke2fs",
            Verdict::Optional,
            "no mke2fs on PATH, in /usr/sbin or in /sbin",
            "apt-get install e2fsprogs; without it no pod can have a disk to write to (--scratch)",
        ),
    }
}

/// Whether a device can be opened; why not, in words.
fn opens(path: &Path) -> Result<(), String> {
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no {}", path.display()),
            std::io::ErrorKind::PermissionDenied => format!("{} is not for this user", path.display()),
            _ => format!("{}: {error}", path.display()),
        }),
    }
}

fn device(what: &'static str, path: &Path, without: &str, fix: &str) -> Finding {
    match opens(path) {
        Ok(()) => Finding::fine(what, path.display().to_string()),
        Err(problem) => {
            let fix = if problem.contains("this user") {
                format!("`sudo usermod -aG kvm $USER`, then log in again ({without})")
            } else {
                format!("{fix} ({without})")
            };
            Finding::lacks(what, Verdict::Optional, problem, fix)
        }
    }
}

/// The host's own vsock, or the program that stands in for it.
fn vsock() -> Finding {
    const WHAT: &str = "vsock";
    const PROGRAM: &str = "vhost-device-vsock";
    match (opens(Path::new("/dev/vhost-vsock")), find_tool(PROGRAM, "PITH_VHOST_DEVICE_VSOCK")) {
        (Ok(()), _) => Finding::fine(WHAT, "/dev/vhost-vsock"),
        (Err(_), Some(path)) if path.is_file() => Finding::fine(WHAT, path.display().to_string()),
        (Err(problem), _) => Finding::lacks(
            WHAT,
            Verdict::Missing,
            format!("{problem}, and no {PROGRAM}"),
            format!("`sudo modprobe vhost_vsock` makes the device; or get {PROGRAM}: {VSOCK_FIX}"),
        ),
    }
}

fn cache() -> Finding {
    const WHAT: &str = "cache";
    let problem = |text: String| {
        Finding::lacks(WHAT, Verdict::Missing, text, "name a directory that you can write to in PITH_CACHE")
    };
    match Cache::locate(|name| std::env::var_os(name)) {
        Err(error) => problem(error.to_string()),
        Ok(cache) => match writable(cache.root()) {
            Ok(()) => Finding::fine(WHAT, cache.root().display().to_string()),
            Err(text) => problem(text),
        },
    }
}

fn pods() -> Finding {
    const WHAT: &str = "state of pods";
    let state = state();
    match state.all() {
        Ok(_) => match writable(state.root()) {
            Ok(()) => Finding::fine(WHAT, state.root().display().to_string()),
            Err(text) => {
                Finding::lacks(WHAT, Verdict::Missing, text, "name a directory of your own in PITH_STATE")
            }
        },
        Err(error) => Finding::lacks(
            WHAT,
            Verdict::Missing,
            format!("{:#}", anyhow::Error::from(error)),
            "name a directory of your own in PITH_STATE",
        ),
    }
}

/// Whether files can be made in a directory, or in the nearest one above it that is there.
fn writable(path: &Path) -> Result<(), String> {
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return Err(format!("{} cannot be made", path.display()));
    };
    use nix::unistd::{AccessFlags, access};
    access(there, AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|errno| format!("cannot write to {}: {}", there.display(), errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_what_to_type() {
        let findings = [
            Finding::fine("QEMU", "/usr/bin/qemu"),
            Finding::lacks("KVM", Verdict::Optional, "there is no /dev/kvm", "switch it on"),
            Finding::lacks("vsock", Verdict::Missing, "none", "install it"),
        ];
        let text = words(&findings, false);
        assert!(text.starts_with("ok       QEMU   /usr/bin/qemu\n--       KVM"), "{text}");
        assert!(
            text.contains("\n\nKVM: switch it on\nvsock: install it\n\nNo pod can run here yet."),
            "{text}"
        );
        assert!(words(&findings[..1], true).ends_with("Pods can run here."));
    }

    #[test]
    fn products_that_are_nowhere_are_missing_and_the_places_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { json: false, out: Some(dir.path().join("none")) };
        let finding = products(&global);
        assert_eq!(finding.verdict, Verdict::Missing);
        assert!(finding.found.contains("/none") && finding.fix.unwrap().contains("--out"));
        std::fs::write(dir.path().join("vmlinux"), "").unwrap();
        let global = Global { json: false, out: Some(dir.path().into()) };
        assert!(products(&global).found.contains("initrd.img"));
        std::fs::write(dir.path().join("initrd.img"), "").unwrap();
        assert_eq!(products(&global).verdict, Verdict::Fine);
    }

    #[test]
    fn images_for_another_architecture_need_products_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let arch = Arch::ALL.into_iter().find(|arch| *arch != Arch::host()).unwrap();
        let global = Global { json: false, out: Some(dir.path().into()) };
        std::fs::write(dir.path().join("vmlinux"), "").unwrap();
        let finding = foreign(arch, &global);
        assert_eq!(finding.verdict, Verdict::Optional);
        let layout = global.products().unwrap().for_arch(arch);
        assert!(finding.found.contains(&layout.kernel().display().to_string()), "{}", finding.found);
        assert!(finding.fix.unwrap().contains(&format!("make build ARCH={arch}")));
        std::fs::write(layout.kernel(), "").unwrap();
        assert!(foreign(arch, &global).found.contains(&layout.initrd().display().to_string()));
        std::fs::write(layout.initrd(), "").unwrap();
        let finding = foreign(arch, &global);
        let is_there = Qemu::of(arch).find().is_some();
        assert_eq!(finding.verdict == Verdict::Fine, is_there, "{}", finding.found);
    }

    #[test]
    fn a_device_that_does_not_open_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let finding = device("KVM", &dir.path().join("kvm"), "slow", "load the module");
        assert_eq!(finding.verdict, Verdict::Optional);
        assert!(finding.fix.unwrap().contains("load the module"));
        std::fs::write(dir.path().join("kvm"), "").unwrap();
        assert_eq!(device("KVM", &dir.path().join("kvm"), "slow", "x").verdict, Verdict::Fine);
    }
}
