//! Whether a guest runs on the CPU itself (KVM) or in QEMU's translator (TCG).
//!
//! A `/dev/kvm` that can be opened does not prove that KVM works: on some hosts a kernel never boots in such a VM. So after
//! each boot of the host, the first guest is started with KVM and a short deadline. The result is remembered until the host
//! boots again. A failure is remembered only if the same guest then boots under TCG within the time that KVM had. Otherwise the
//! guest may be broken, or the host busy, and that says nothing about KVM.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VmError;
use store::arch::Arch;
use store::cache;

/// Which accelerator to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Accel {
    /// KVM if a guest really boots with it, otherwise TCG.
    #[default]
    Auto,
    /// KVM. It is an error if KVM does not work.
    Kvm,
    /// QEMU's emulation: slow, works everywhere.
    Tcg,
}

/// An accelerator, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Kvm,
    Tcg,
}

impl Engine {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What to try for guests of an architecture, in order, each with whether it is only a trial that may fail.
///
/// # Errors
/// When KVM is wanted for another architecture than the host's.
pub(super) fn candidates(wanted: Accel, arch: Arch, memory: &Memory) -> Result<Vec<(Engine, bool)>, VmError> {
    if arch != Arch::host() {
        return foreign(wanted, arch);
    }
    let kvm_opens = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
    Ok(decide(wanted, kvm_opens, memory.kvm_boots()))
}

/// Processors of another architecture than the host's can only be emulated.
fn foreign(wanted: Accel, arch: Arch) -> Result<Vec<(Engine, bool)>, VmError> {
    match wanted {
        Accel::Kvm => Err(VmError::Config(format!(
            "KVM runs guests of the host's architecture, which is {}; this guest is for {arch}: use --accel tcg or auto",
            Arch::host()
        ))),
        Accel::Auto | Accel::Tcg => Ok(vec![(Engine::Tcg, false)]),
    }
}

fn decide(wanted: Accel, kvm_opens: impl Fn() -> bool, known: Option<bool>) -> Vec<(Engine, bool)> {
    match (wanted, known) {
        (Accel::Kvm, _) => vec![(Engine::Kvm, false)],
        (Accel::Tcg, _) | (Accel::Auto, Some(false)) => vec![(Engine::Tcg, false)],
        (Accel::Auto, _) if !kvm_opens() => vec![(Engine::Tcg, false)],
        (Accel::Auto, Some(true)) => vec![(Engine::Kvm, false)],
        (Accel::Auto, None) => vec![(Engine::Kvm, true), (Engine::Tcg, false)],
    }
}

/// What a trial of KVM that failed means, now that the same guest took this long under TCG: remembers it where it means
/// something, and gives notes for the user.
pub(super) fn conclude(failure: &VmError, under_tcg: Duration, memory: &Memory) -> Vec<String> {
    let headline = failure.headline();
    if !says_something(failure, under_tcg) {
        return vec![format!(
            "{headline}; under TCG it took {} s, so KVM is tried again next time",
            under_tcg.as_secs()
        )];
    }
    let mut notes = vec![format!("KVM is offered here but the guest does not boot in it: {headline}")];
    notes.extend(memory.remember(false));
    notes
}

/// A guest that was too late under KVM has shown nothing if TCG would have been too late as well.
fn says_something(failure: &VmError, under_tcg: Duration) -> bool {
    match failure {
        VmError::Deadline { seconds, .. } => under_tcg < Duration::from_secs(*seconds),
        _ => true,
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    host_boot: String,
    kvm_boots: bool,
}

/// What earlier boots of guests on this boot of the host showed.
#[derive(Debug)]
pub(super) struct Memory {
    file: Option<PathBuf>,
    host_boot: String,
}

impl Memory {
    pub(super) fn of_this_host() -> Self {
        Self {
            file: super::host::cache_root().map(|root| root.join("kvm.json")),
            host_boot: super::host::read_trimmed("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        }
    }

    fn kvm_boots(&self) -> Option<bool> {
        let text = fs::read(self.file.as_ref()?).ok()?;
        let remembered: Remembered = serde_json::from_slice(&text).ok()?;
        (remembered.host_boot == self.host_boot).then_some(remembered.kvm_boots)
    }

    /// Writes the result down; a note for the user when that fails or when it will be of use.
    pub(super) fn remember(&self, kvm_boots: bool) -> Option<String> {
        let file = self.file.as_ref()?;
        let remembered = Remembered { host_boot: self.host_boot.clone(), kvm_boots };
        let written = serde_json::to_vec(&remembered)
            .map_err(std::io::Error::from)
            .and_then(|text| cache::replace(file, &text).map_err(std::io::Error::other));
        match written {
            Ok(()) if kvm_boots => None,
            Ok(()) => Some(format!("using TCG from now on; delete {} to try KVM again", file.display())),
            Err(error) => Some(format!("cannot remember that in {}: {error}", file.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_tries_kvm_only_while_nothing_is_known() {
        let open = || true;
        assert_eq!(decide(Accel::Auto, open, None), [(Engine::Kvm, true), (Engine::Tcg, false)]);
        assert_eq!(decide(Accel::Auto, open, Some(true)), [(Engine::Kvm, false)]);
        assert_eq!(decide(Accel::Auto, open, Some(false)), [(Engine::Tcg, false)]);
        assert_eq!(decide(Accel::Auto, || false, Some(true)), [(Engine::Tcg, false)]);
    }

    #[test]
    fn a_wish_is_obeyed() {
        assert_eq!(decide(Accel::Kvm, || false, Some(false)), [(Engine::Kvm, false)]);
        assert_eq!(decide(Accel::Tcg, || true, Some(true)), [(Engine::Tcg, false)]);
    }

    #[test]
    fn a_guest_of_another_architecture_is_emulated() {
        let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::host()).unwrap();
        let memory = Memory { file: None, host_boot: "one".into() };
        for wanted in [Accel::Auto, Accel::Tcg] {
            assert_eq!(candidates(wanted, other, &memory).unwrap(), [(Engine::Tcg, false)]);
        }
        let text = candidates(Accel::Kvm, other, &memory).unwrap_err().to_string();
        assert!(text.contains(&format!("this guest is for {other}")), "{text}");
        assert_eq!(candidates(Accel::Kvm, Arch::host(), &memory).unwrap(), [(Engine::Kvm, false)]);
    }

    #[test]
    fn a_late_guest_counts_only_if_tcg_is_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory { file: Some(dir.path().join("kvm.json")), host_boot: "one".into() };
        let late = VmError::Deadline { engine: "kvm", seconds: 30, console: String::new() };
        let notes = conclude(&late, Duration::from_secs(45), &memory);
        assert!(notes[0].ends_with("under TCG it took 45 s, so KVM is tried again next time"), "{notes:?}");
        assert_eq!(memory.kvm_boots(), None);
        conclude(&late, Duration::from_secs(2), &memory);
        assert_eq!(memory.kvm_boots(), Some(false));
        let (status, text) = ("exit status 1".to_owned(), String::new());
        let ended = VmError::Ended { engine: "kvm", status, messages: text.clone(), console: text };
        assert!(says_something(&ended, Duration::from_secs(45)));
    }

    #[test]
    fn memory_lasts_until_the_host_boots_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("sub/kvm.json"));
        let memory = Memory { file: file.clone(), host_boot: "one".into() };
        assert_eq!(memory.kvm_boots(), None);
        assert!(memory.remember(false).unwrap().contains("kvm.json"));
        assert_eq!(memory.kvm_boots(), Some(false));
        assert_eq!(Memory { file, host_boot: "two".into() }.kvm_boots(), None);
    }
}
