//! Builds QEMU's command line. Pure: nothing is started here.

use std::ffi::OsString;
use std::path::Path;

use super::accel::Engine;
use super::cmdline::kernel_cmdline;
use super::config::{Attachment, Growth, Root, VmConfig};
use super::error::VmError;
use super::model::{ENOUGH_MEMORY_MIB, LEAST_MEMORY_MIB, Machine, Transport, VsockDevice};
use super::transfer::read_command;
use store::arch::Arch;

/// How many memory modules can be plugged into a machine that can grow.
const MEMORY_SLOTS: u32 = 4;

impl Machine {
    /// The model of an architecture that boots fastest among those with room for all devices of `config`.
    pub fn smallest_for(arch: Arch, config: &VmConfig) -> Self {
        let fastest = Self::fastest(arch);
        if device_count(config) <= fastest.device_limit() { fastest } else { Self::pluggable(arch) }
    }
}

/// Disks (the root's too), shares, network, vsock.
fn device_count(config: &VmConfig) -> usize {
    let root = matches!(config.root, Root::Disk { attachment: Attachment::Blk, .. });
    config.disks.len() + config.shares.len() + config.network.devices() + usize::from(root) + 1
}

/// Refuses what QEMU would refuse less clearly.
pub(super) fn check(config: &VmConfig) -> Result<(), VmError> {
    let limit = config.machine.device_limit();
    if device_count(config) > limit {
        return Err(VmError::Config(format!(
            "{} disks, {} shares and {} network cards do not fit: the machine takes {limit} virtio devices, one of \
             them for vsock{}",
            config.disks.len(),
            config.shares.len(),
            config.network.devices(),
            if config.machine.transport() == Transport::Mmio { "; choose q35" } else { "" }
        )));
    }
    if config.machine == Machine::Virt && config.growth != Growth::default() {
        // QEMU describes new processors and memory by ACPI alone, which a guest has only from firmware here.
        return Err(VmError::Config(
            "a virt machine cannot be given processors or memory while it runs; give it all at the start"
                .to_owned(),
        ));
    }
    for share in &config.shares {
        let is_plain = |c: char| c.is_ascii_graphic() && c != ',';
        if share.tag.is_empty() || share.tag.len() > 36 || !share.tag.chars().all(is_plain) {
            return Err(VmError::Config(format!(
                "the tag {:?} of a share is not 1 to 36 printable characters without a comma",
                share.tag
            )));
        }
    }
    for disk in &config.disks {
        if disk.serial.len() > 20 {
            return Err(VmError::Config(format!(
                "the disk serial {:?} is longer than 20 bytes",
                disk.serial
            )));
        }
        std::fs::metadata(&disk.path)
            .map_err(|source| VmError::io("read", format!("the disk {}", disk.path.display()), source))?;
    }
    let nvdimm = matches!(config.root, Root::Disk { attachment: Attachment::Nvdimm, .. });
    if nvdimm && config.machine != Machine::Q35 {
        return Err(VmError::Config("an NVDIMM as root needs the machine q35".to_owned()));
    }
    let unified = matches!(config.root, Root::Unified { .. });
    if unified && config.machine != Machine::Q35 {
        return Err(VmError::Config("firmware for a unified kernel image needs the machine q35".to_owned()));
    }
    if unified && !config.cmdline.is_empty() {
        return Err(VmError::Config(
            "the command line of a unified kernel image is in it; give words to `image-builder uki --append`"
                .to_owned(),
        ));
    }
    if config.cpus == 0 {
        return Err(VmError::Config("a machine needs at least one CPU".to_owned()));
    }
    check_memory(config.memory_mib)
}

/// Refuses a machine with less memory than the smallest guest needs, in MiB: it would end without saying why. For any monitor.
///
/// # Errors
/// [`VmError::Config`], with how much is enough.
pub fn check_memory(mib: u32) -> Result<(), VmError> {
    if mib < LEAST_MEMORY_MIB {
        return Err(VmError::Config(format!(
            "{mib} MiB of memory are too little: the smallest guest needs {LEAST_MEMORY_MIB} MiB, and one for every flavour \
             {ENOUGH_MEMORY_MIB} MiB"
        )));
    }
    Ok(())
}

/// Refuses a machine that shall be saved and could not: QEMU does not save `vhost-user-vsock`, which must be unplugged first.
pub(super) fn check_savable(config: &VmConfig) -> Result<(), VmError> {
    if config.savable && config.machine != Machine::pluggable(config.machine.arch()) {
        return Err(VmError::Config(
            "without /dev/vhost-vsock a machine that can be saved is a q35: its vsock device must be plugged out"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Name of the vsock device.
pub(super) const VSOCK: &str = "vsock";
/// Name of the port that it can be plugged out of, where the machine is to be saved.
const VSOCK_PORT: &str = "vsockport";
/// Its place on q35 and virt: the highest that the machine itself leaves free.
const VSOCK_PORT_ADDRESS: &str = "0x1e";

/// The vsock device of a savable machine, as QMP's `device_add` takes it.
pub(super) fn vsock_to_plug() -> serde_json::Value {
    serde_json::json!({ "driver": "vhost-user-vsock-pci", "id": VSOCK, "chardev": VSOCK, "bus": VSOCK_PORT })
}

/// Where a machine takes orders.
pub(super) fn qmp_socket(run_dir: &Path) -> std::path::PathBuf {
    run_dir.join("qmp.sock")
}

/// All of QEMU's arguments.
pub(super) fn arguments(
    config: &VmConfig,
    engine: Engine,
    vsock: &VsockDevice,
    tsc_khz: Option<u64>,
    run_dir: &Path,
    incoming: Option<&Path>,
) -> Vec<OsString> {
    let mut args = Arguments(Vec::new());
    args.push("-nodefaults");
    args.push("-no-user-config");
    // A guest that reboots has come to its end: with panic=-1 that includes a kernel panic.
    args.push("-no-reboot");
    args.pair("-display", "none");
    if config.sandbox {
        // What is saved or read goes through a program that QEMU starts.
        let spawn = if config.savable || incoming.is_some() { "allow" } else { "deny" };
        args.pair(
            "-sandbox",
            format!("on,obsolete=deny,elevateprivileges=deny,spawn={spawn},resourcecontrol=deny"),
        );
    }
    args.pair("-machine", machine_option(config, engine));
    match engine {
        Engine::Kvm => {
            args.pair("-accel", "kvm");
            args.pair("-cpu", "host");
        }
        Engine::Tcg => {
            args.pair("-accel", "tcg,thread=multi");
            args.pair("-cpu", emulated(config));
        }
    }
    args.pair("-smp", processors(config));
    if config.growth.cpus > 0 && engine == Engine::Tcg {
        // A kernel that sees no hypervisor ignores the tables' places for more CPUs; it knows this one by its serial
        // number, and asks it for nothing.
        args.pair("-smbios", "type=1,serial=VMware-42");
    }
    args.pair("-m", memory(config));
    // vhost-user needs memory that the device's process can map too.
    args.pair("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", config.memory_mib));
    args.pair("-qmp", {
        let mut socket = joined("unix:", &escaped(&qmp_socket(run_dir)));
        socket.push(",server=on,wait=off");
        socket
    });
    args.pair("-chardev", "stdio,id=console,signal=off");
    args.pair("-serial", "chardev:console");
    args.pair("-kernel", config.kernel.as_os_str());
    match &config.root {
        Root::Initrd(path) => args.pair("-initrd", path.as_os_str()),
        Root::Unified { firmware } => args.pair("-bios", firmware.as_os_str()),
        Root::Disk { .. } => {}
    }
    // What is said here would take the place of what a unified image has in it.
    if !matches!(config.root, Root::Unified { .. }) {
        args.pair("-append", kernel_cmdline(config, engine, tsc_khz));
    }
    let suffix = match config.machine.transport() {
        Transport::Pci => "pci",
        Transport::Mmio => "device",
    };
    match vsock {
        VsockDevice::Vhost { cid } => {
            args.pair("-device", format!("vhost-vsock-{suffix},id={VSOCK},guest-cid={cid}"));
        }
        VsockDevice::VhostUser { socket } => {
            args.pair("-chardev", joined(&format!("socket,id={VSOCK},path="), &escaped(socket)));
            let mut device = format!("vhost-user-vsock-{suffix},id={VSOCK},chardev={VSOCK}");
            if config.savable {
                let port = format!("pcie-root-port,id={VSOCK_PORT},chassis=30,addr={VSOCK_PORT_ADDRESS}");
                args.pair("-device", port);
                device.push_str(&format!(",bus={VSOCK_PORT}"));
            }
            // It is not in what was saved, and is plugged in later.
            if incoming.is_none() {
                args.pair("-device", device);
            }
        }
    }
    if let Some(file) = incoming {
        args.pair("-incoming", read_command(file));
    }
    if !config.shares.is_empty() && config.machine.transport() == Transport::Mmio {
        // What a microvm offers by default is older than what virtiofsd speaks.
        args.pair("-global", "virtio-mmio.force-legacy=false");
    }
    for (index, share) in config.shares.iter().enumerate() {
        let socket = super::share::socket(run_dir, index);
        args.pair("-chardev", joined(&format!("socket,id=share{index},path="), &escaped(&socket)));
        args.pair("-device", format!("vhost-user-fs-{suffix},chardev=share{index},tag={}", share.tag));
    }
    args.0.extend(config.network.arguments(suffix));
    // All three models hand out slots in the order of the command line, and the guest looks in that order.
    for (index, disk) in config.disks.iter().enumerate() {
        let (readonly, discard) = if disk.readonly { ("on", "") } else { ("off", "discard=unmap,") };
        let mut drive =
            OsString::from(format!("if=none,id=disk{index},format=raw,readonly={readonly},{discard}file="));
        drive.push(escaped(&disk.path));
        args.pair("-drive", drive);
        let serial = if disk.serial.is_empty() { String::new() } else { format!(",serial={}", disk.serial) };
        // Where the host's own disk is full, the guest is told; to stop it would help nobody.
        let errors = if disk.readonly { "" } else { ",werror=report,rerror=report" };
        args.pair("-device", format!("virtio-blk-{suffix},drive=disk{index}{serial}{errors}"));
    }
    if let Root::Disk { image, attachment, .. } = &config.root {
        args.root_disk(image, *attachment, suffix);
    }
    args.0.extend(config.extra.iter().cloned());
    args.0
}

/// The model of an emulated processor.
fn emulated(config: &VmConfig) -> String {
    match config.machine.arch() {
        Arch::X86_64 => {
            // The string instructions that erms and fsrm advertise are the slow way under TCG.
            let hidden = if config.growth.cpus > 0 { ",-hypervisor" } else { "" };
            format!("max,-erms,-fsrm{hidden}")
        }
        // The architecture's own way to sign pointers takes half of a guest's time when it is emulated; QEMU has a faster one.
        Arch::Aarch64 => "max,pauth-impdef=on".to_owned(),
    }
}

fn processors(config: &VmConfig) -> String {
    let most = config.growth.cpus.max(config.cpus);
    if most == config.cpus {
        return config.cpus.to_string();
    }
    format!("{},sockets={most},cores=1,threads=1,maxcpus={most}", config.cpus)
}

fn memory(config: &VmConfig) -> String {
    let mut most = config.growth.memory_mib;
    if let Root::Disk { image, attachment: Attachment::Nvdimm, .. } = &config.root {
        // An NVDIMM takes a slot and its place among what can be plugged in.
        let size = std::fs::metadata(image).map_or(0, |metadata| metadata.len());
        most = most.max(config.memory_mib) + u32::try_from(size.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    }
    if most <= config.memory_mib {
        return format!("{}M", config.memory_mib);
    }
    format!("{}M,slots={MEMORY_SLOTS},maxmem={most}M", config.memory_mib)
}

fn machine_option(config: &VmConfig, engine: Engine) -> String {
    let model = match config.machine {
        Machine::Q35 if config.growth.cpus > 0 => "q35,vmport=on",
        Machine::Q35 => "q35",
        // Option ROMs only serve firmware that boots from disks; without the RTC the kernel polls for it for seconds.
        Machine::Microvm => "microvm,acpi=off,x-option-roms=off,rtc=on",
        Machine::MicrovmAcpi => "microvm,acpi=on,x-option-roms=off,rtc=on",
        // The guest gets a device tree; tables would be for firmware. The interrupt controller of version 3 is for more than eight
        // CPUs, and under KVM it is the host's.
        Machine::Virt if engine == Engine::Kvm => "virt,acpi=off,gic-version=host",
        Machine::Virt => "virt,acpi=off,gic-version=3",
    };
    let nvdimm = match config.root {
        Root::Disk { attachment: Attachment::Nvdimm, .. } => ",nvdimm=on",
        _ => "",
    };
    format!("{model},memory-backend=mem{nvdimm}")
}

/// QEMU splits option lists at commas; a doubled one stands for itself.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        out.push(byte);
        if byte == b',' {
            out.push(byte);
        }
    }
    OsString::from_vec(out)
}

fn joined(head: &str, tail: &std::ffi::OsStr) -> OsString {
    let mut whole = OsString::from(head);
    whole.push(tail);
    whole
}

struct Arguments(Vec<OsString>);

impl Arguments {
    fn push(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.push(option);
        self.push(value);
    }

    fn root_disk(&mut self, image: &Path, attachment: Attachment, suffix: &str) {
        match attachment {
            Attachment::Blk => {
                let drive = joined("if=none,id=root,format=raw,readonly=on,file=", &escaped(image));
                self.pair("-drive", drive);
                self.pair("-device", format!("virtio-blk-{suffix},drive=root"));
            }
            Attachment::Nvdimm => {
                let size = std::fs::metadata(image).map_or(0, |metadata| metadata.len());
                let backend =
                    format!("memory-backend-file,id=root,share=on,readonly=on,size={size},mem-path=");
                self.pair("-object", joined(&backend, &escaped(image)));
                self.pair("-device", "nvdimm,id=rootdimm,memdev=root,unarmed=on");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::model::{Disk, disk_node};

    fn config(machine: Machine) -> VmConfig {
        let mut config = VmConfig::new("/k", "/i", "/run");
        config.machine = machine;
        config
    }

    fn text(config: &VmConfig, engine: Engine, vsock: &VsockDevice) -> String {
        let args = arguments(config, engine, vsock, Some(2_600_000), Path::new("/run"), None);
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn disk(name: &str) -> Disk {
        Disk { path: format!("/d/{name}").into(), readonly: true, serial: name.to_owned() }
    }

    #[test]
    fn microvm_under_tcg() {
        let line = text(
            &config(Machine::Microvm),
            Engine::Tcg,
            &VsockDevice::VhostUser { socket: "/run/v,1.sock".into() },
        );
        for part in [
            "-machine microvm,acpi=off,x-option-roms=off,rtc=on,memory-backend=mem",
            "-accel tcg,thread=multi",
            "memory-backend-memfd,id=mem,size=512M,share=on",
            "socket,id=vsock,path=/run/v,,1.sock",
            "vhost-user-vsock-device,id=vsock,chardev=vsock",
            "tsc_early_khz=2600000 tsc=reliable nolapic_timer",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn one_processor_that_stays_alone_needs_no_timer_of_its_own() {
        for (machine, cpus, most, expected) in [
            (Machine::Q35, 1, 0, true),
            (Machine::Q35, 1, 1, true),
            (Machine::Q35, 1, 4, false),
            (Machine::Q35, 2, 0, false),
            (Machine::Microvm, 1, 0, true),
            (Machine::Microvm, 2, 0, false),
            (Machine::MicrovmAcpi, 1, 0, false),
        ] {
            let mut config = config(machine);
            (config.cpus, config.growth.cpus) = (cpus, most);
            let line = text(&config, Engine::Tcg, &VsockDevice::Vhost { cid: 9 });
            assert_eq!(line.contains("nolapic_timer"), expected, "{machine:?}, {cpus} of {most}");
        }
        let mut config = config(Machine::Q35);
        config.shortcuts = false;
        let line = text(&config, Engine::Tcg, &VsockDevice::Vhost { cid: 9 });
        assert!(!line.contains("nolapic_timer"), "{line}");
    }

    #[test]
    fn q35_under_kvm_keeps_the_kernel_its_own_master() {
        let line = text(&config(Machine::Q35), Engine::Kvm, &VsockDevice::Vhost { cid: 9 });
        assert!(line.contains("vhost-vsock-pci,id=vsock,guest-cid=9") && line.contains("-cpu host"));
        for word in ["nokaslr", "tsc_early_khz", "nolapic_timer"] {
            assert!(!line.contains(word), "{word} in {line}");
        }
    }

    #[test]
    fn a_virt_is_for_the_other_architecture_and_has_its_words() {
        let mut config = config(Machine::Virt);
        let vsock = VsockDevice::VhostUser { socket: "/run/v".into() };
        let line = text(&config, Engine::Tcg, &vsock);
        for part in [
            "-machine virt,acpi=off,gic-version=3,memory-backend=mem ",
            "-cpu max,pauth-impdef=on ",
            "vhost-user-vsock-pci,id=vsock",
            "-append console=ttyAMA0 dummy.numdummies=0 quiet panic=-1 cryptomgr.notests nokaslr",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        for word in ["ttyS0", "tsc", "no_timer_check", "reboot=t", "erms"] {
            assert!(!line.contains(word), "{word} in {line}");
        }
        let line = text(&config, Engine::Kvm, &VsockDevice::Vhost { cid: 9 });
        assert!(
            line.contains("-machine virt,acpi=off,gic-version=host,") && line.contains("-cpu host "),
            "{line}"
        );
        config.growth.cpus = 2;
        assert!(check(&config).unwrap_err().to_string().contains("at the start"));
        config.growth = Growth::default();
        config.disks = (0..30).map(|number| disk(&number.to_string())).collect();
        let text = check(&config).unwrap_err().to_string();
        assert!(text.contains("takes 28 virtio devices") && !text.contains("q35"), "{text}");
    }

    #[test]
    fn the_smallest_machine_is_one_of_the_architecture() {
        let mut config = config(Machine::Microvm);
        let both = |config: &VmConfig| Arch::ALL.map(|arch| Machine::smallest_for(arch, config));
        assert_eq!(both(&config), [Machine::Microvm, Machine::Virt]);
        config.disks = (0..9).map(|number| disk(&number.to_string())).collect();
        assert_eq!(both(&config), [Machine::Q35, Machine::Virt]);
    }

    #[test]
    fn a_savable_machine_waits_for_its_state_without_the_device_that_is_not_in_it() {
        let mut config = config(Machine::Q35);
        config.savable = true;
        let vsock = VsockDevice::VhostUser { socket: "/run/v".into() };
        let line = text(&config, Engine::Tcg, &vsock);
        assert!(line.contains("vhost-user-vsock-pci,id=vsock,chardev=vsock,bus=vsockport"), "{line}");
        let line = |vsock| {
            let file = Path::new("/s/it's");
            let args = arguments(&config, Engine::Tcg, vsock, None, Path::new("/run"), Some(file));
            args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        let restored = line(&vsock);
        assert!(restored.contains("-incoming exec:cat '/s/it'\\''s'"), "{restored}");
        assert!(restored.contains("id=vsockport") && !restored.contains("vhost-user-vsock"), "{restored}");
        assert!(line(&VsockDevice::Vhost { cid: 3 }).contains("vhost-vsock-pci"));
        config.machine = Machine::Microvm;
        assert!(check_savable(&config).unwrap_err().to_string().contains("q35"));
    }

    #[test]
    fn the_first_disk_is_named_first() {
        let vsock = VsockDevice::Vhost { cid: 3 };
        for machine in [Machine::Q35, Machine::Microvm, Machine::MicrovmAcpi] {
            let mut config = config(machine);
            config.disks = vec![disk("one"), disk("two")];
            let line = text(&config, Engine::Tcg, &vsock);
            assert!(line.find("serial=one").unwrap() < line.find("serial=two").unwrap());
        }
    }

    #[test]
    fn disks_are_lettered_like_the_kernel_does() {
        assert_eq!(disk_node(0), "/dev/vda");
        assert_eq!(disk_node(25), "/dev/vdz");
        assert_eq!(disk_node(26), "/dev/vdaa");
    }

    #[test]
    fn too_many_disks_say_what_to_do() {
        let mut config = config(Machine::Microvm);
        config.disks = (0..8).map(|number| disk(&number.to_string())).collect();
        assert!(check(&config).unwrap_err().to_string().contains("choose q35"));
    }

    #[test]
    fn too_little_memory_says_how_much_is_enough() {
        let mut config = config(Machine::Microvm);
        for mib in [0, 24, LEAST_MEMORY_MIB - 1] {
            config.memory_mib = mib;
            let text = check(&config).unwrap_err().to_string();
            assert!(text.contains("48 MiB") && text.contains("128 MiB"), "{text}");
        }
        config.memory_mib = LEAST_MEMORY_MIB;
        assert!(check(&config).is_ok());
    }

    #[test]
    fn a_machine_that_can_grow_has_places_for_it() {
        let mut config = config(Machine::Q35);
        let vsock = VsockDevice::Vhost { cid: 3 };
        assert!(text(&config, Engine::Kvm, &vsock).contains("-smp 1 -m 512M "));
        config.growth = crate::vm::Growth { cpus: 3, memory_mib: 1024 };
        config.extra = vec!["-device".into(), "x".into()];
        let line = text(&config, Engine::Tcg, &vsock);
        assert!(line.contains("-smp 1,sockets=3,cores=1,threads=1,maxcpus=3 "), "{line}");
        assert!(line.contains("-m 512M,slots=4,maxmem=1024M ") && line.ends_with("-device x"), "{line}");
    }
}
