//! The kernel's command line: what a machine model wants, and what an emulated processor is spared.

use super::accel::Engine;
use super::config::{Root, VmConfig};
use super::model::Machine;
use store::arch::Arch;

/// The kernel's command line.
pub(super) fn kernel_cmdline(config: &VmConfig, engine: Engine, tsc_khz: Option<u64>) -> String {
    let arch = config.machine.arch();
    let of_arch: &[&str] = match arch {
        Arch::X86_64 => &["console=ttyS0", "reboot=t"],
        // This kernel cannot have words of its own, and its dummy driver makes a `dummy0` unless it is told not to.
        Arch::Aarch64 => &["console=ttyAMA0", "dummy.numdummies=0"],
    };
    let mut words: Vec<String> = of_arch
        .iter()
        .chain(&["quiet", "panic=-1", "cryptomgr.notests"])
        .map(|word| (*word).to_owned())
        .collect();
    if config.machine == Machine::Microvm {
        // There is neither; the kernel would search, and complain.
        words.extend(["acpi=off", "pci=off"].map(str::to_owned));
    }
    if engine == Engine::Tcg {
        words.push("nokaslr".to_owned());
    }
    if engine == Engine::Tcg && arch == Arch::X86_64 {
        words.push("no_timer_check".to_owned());
        if let Some(khz) = tsc_khz {
            words.push(format!("tsc_early_khz={khz}"));
            words.push("tsc=reliable".to_owned());
        }
        // Calibrating the APIC timer takes 220 ms and more here; for one CPU the HPET or the PIT does. If more CPUs can be
        // plugged in, each needs a timer of its own.
        let alone = config.cpus == 1 && config.growth.cpus <= 1;
        if alone && (config.machine == Machine::Microvm || config.machine == Machine::Q35 && config.shortcuts)
        {
            words.push("nolapic_timer".to_owned());
        }
    }
    if let Root::Disk { cmdline, .. } = &config.root {
        words.push(cmdline.clone());
    }
    words.extend(config.cmdline.iter().cloned());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_words_come_last() {
        let mut config = VmConfig::new("/k", "/i", "/run");
        config.machine = Machine::Q35;
        config.cmdline = vec!["agent.log=debug".into()];
        let line = kernel_cmdline(&config, Engine::Tcg, None);
        assert!(line.contains(" no_timer_check ") && line.ends_with(" agent.log=debug"), "{line}");
    }
}
