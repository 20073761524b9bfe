//! The guest for 64-bit Arm: what it is made of, and its boot under emulation. Where the kernel alone is tested, a program of a few
//! lines stands in for the agent.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fs_image::{Inode, Kind, Tree, cpio};
use products::format::compress::Compression;
use products::manifest::{InitrdPart, KernelPart, Manifest};
use products::{elf, initrd};
use store::arch::Arch;
use store::layout::Layout;

use crate::{layout, options};

const PROFILE: &str = "aarch64";
const COMPILER: &str = "aarch64-linux-gnu-gcc";
const QEMU: &str = "qemu-system-aarch64";

/// How long a guest may take from power-on to power-off: seconds by itself, many times that beside compilers.
const PATIENCE: Duration = Duration::from_secs(180);

fn image() -> Result<PathBuf> {
    let path = layout().kernel_file("Image", PROFILE);
    ensure!(path.is_file(), "{} is missing: run `make images`", path.display());
    Ok(path)
}

fn part() -> Result<KernelPart> {
    let part = Manifest::read(&layout()).kernels.remove(PROFILE);
    part.context("the manifest has no aarch64 kernel: run `make images`")
}

/// Runs a tool that `make setup` installs.
fn tool(command: &mut Command) -> Result<Child> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().with_context(|| format!("{name} is missing: run `make setup`"))
}

/// An initramfs with the program that stands in for the agent.
fn initramfs(directory: &Path) -> Result<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/aarch64-init.c");
    let program = directory.join("init");
    let mut compiler = Command::new(COMPILER);
    compiler.args(["-Wall", "-Werror", "-O2", "-ffreestanding", "-nostdlib", "-static", "-o"]);
    let status = tool(compiler.arg(&program).arg(&source))?.wait()?;
    ensure!(status.success(), "{COMPILER} failed on {}", source.display());
    let mut tree = Tree::default();
    tree.insert("/init", Inode::new(0o755, Kind::File(std::fs::read(&program)?.into())))?;
    // The kernel opens it for the first program.
    let console = Kind::Char { major: 5, minor: 1 };
    tree.insert("/dev/console", Inode::new(0o600, console))?;
    Ok(cpio::archive(&tree)?)
}

/// Ends a VMM that outlives its test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Boots the kernel with these arguments of QEMU's beside, until the machine is off. Answers how QEMU ended, and the serial
/// console.
fn boot(directory: &Path, machine: &str, more: &[&str]) -> Result<(ExitStatus, String)> {
    let (status, console) = boot_until(directory, machine, more, None)?;
    Ok((status.context("the machine is still on")?, console))
}

/// As [`boot`], or until there is a text on the serial console.
fn boot_until(
    directory: &Path,
    machine: &str,
    more: &[&str],
    text: Option<&str>,
) -> Result<(Option<ExitStatus>, String)> {
    let (console, errors) = (directory.join("console"), directory.join("errors"));
    // QEMU makes it a moment after its start.
    File::create(&console)?;
    let image = image()?;
    let mut command = Command::new(QEMU);
    command
        .args(["-machine", machine, "-cpu", "cortex-a57", "-accel", "tcg", "-smp", "2", "-m", "256"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-kernel")
        .arg(&image)
        .args(["-append", "console=ttyAMA0"])
        .args(more)
        .stderr(File::create(&errors)?);
    let mut vmm = Machine(tool(&mut command)?);
    let begin = Instant::now();
    let said = || anyhow::Ok(String::from_utf8_lossy(&std::fs::read(&console)?).into_owned());
    let status = loop {
        if let Some(status) = vmm.0.try_wait()? {
            break Some(status);
        }
        if let Some(text) = text
            && said()?.contains(text)
        {
            break None;
        }
        if begin.elapsed() > PATIENCE {
            bail!("the machine is still on after {PATIENCE:?}; its console:\n{}", said()?);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("{machine}: {} after {:?}", text.unwrap_or("off"), begin.elapsed());
    let errors = std::fs::read_to_string(&errors)?;
    ensure!(errors.is_empty(), "{QEMU}: {errors}");
    Ok((status, said()?))
}

/// The products for it.
fn arm() -> Layout {
    layout().for_arch(Arch::Aarch64)
}

/// The ingredients of its initrd.
fn initrd_part() -> Result<InitrdPart> {
    let part = Manifest::read(&arm()).flavours.remove("minimal-aarch64");
    part.context("the manifest has no initrd for aarch64: run `make images`")
}

#[test]
fn the_aarch64_kernel_is_in_the_manifest_with_its_compiler() -> Result<()> {
    let part = part()?;
    assert!(part.toolchain.compiler.starts_with(COMPILER), "{}", part.toolchain.compiler);
    let size = image()?.metadata()?.len();
    println!("Image: {size} bytes");
    assert_eq!(Manifest::read(&layout()).products["Image-aarch64"].size, size);
    Ok(())
}

#[test]
fn the_aarch64_kernel_starts_a_program_and_powers_off() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, initramfs(directory.path())?)?;
    let disk = directory.path().join("disk");
    File::create(&disk)?.set_len(1 << 20)?;
    let initrd = initrd.display().to_string();
    let drive = |id: &str| format!("if=none,format=raw,read-only=on,id={id},file={}", disk.display());
    let release = part()?.release;
    // Both versions of the interrupt controller; a disk on each of the two transports.
    for machine in ["virt,gic-version=2", "virt,gic-version=3"] {
        let (bus, slot) = (drive("bus"), drive("slot"));
        let more = [
            ["-initrd", &initrd],
            ["-drive", &bus],
            ["-device", "virtio-blk-pci,drive=bus"],
            ["-drive", &slot],
            ["-device", "virtio-blk-device,drive=slot"],
        ];
        let (status, console) = boot(directory.path(), machine, more.as_flattened())?;
        for expected in [
            format!("init: Linux {release} on aarch64"),
            "psci: PSCIv".to_string(),
            "smp: Brought up 1 node, 2 CPUs".to_string(),
            "rtc-pl031".to_string(),
            "[vda]".to_string(),
            "[vdb]".to_string(),
            "reboot: Power down".to_string(),
        ] {
            ensure!(console.contains(&expected), "{machine}: {expected:?} is not on the console:\n{console}");
        }
        ensure!(status.success() && !console.contains("still there"), "{machine}: {status}\n{console}");
    }
    Ok(())
}

#[test]
fn the_aarch64_kernel_without_a_root_panics_and_ends_the_machine() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_, console) = boot(directory.path(), "virt", &[])?;
    ensure!(console.contains("VFS: Unable to mount root fs"), "{console}");
    Ok(())
}

#[test]
fn the_aarch64_guest_is_in_the_manifest_by_its_processor() -> Result<()> {
    let (layout, manifest) = (arm(), Manifest::read(&arm()));
    let agent = manifest.agents.get("agent-aarch64").context("no agent for aarch64: run `make images`")?;
    assert_eq!(agent.arch(), Some(Arch::Aarch64));
    assert_eq!(initrd_part()?.arch, Arch::Aarch64);
    let program = std::fs::read(layout.agent())?;
    assert_eq!((elf::machine(&program)?, elf::interpreter(&program)?), (Arch::Aarch64.elf_machine(), None));
    for path in [layout.agent(), layout.initrd()] {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = path.metadata()?.len();
        assert_eq!(manifest.products[&name].size, size);
        println!("{name}: {size} bytes");
    }
    Ok(())
}

#[test]
fn the_aarch64_initrd_packed_again_is_the_one_in_out() -> Result<()> {
    let layout = arm();
    let again = initrd::pack(&layout, &options("minimal", Compression::Zstd))?;
    assert!(again.image() == std::fs::read(layout.initrd())?, "it has other bytes than its recipe");
    Ok(())
}

#[test]
fn the_aarch64_guest_boots_to_the_ready_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let initrd = arm().initrd();
    ensure!(initrd.is_file(), "{} is missing: run `make images`", initrd.display());
    let initrd = initrd.display().to_string();
    let (_, console) = boot_until(directory.path(), "virt", &["-initrd", &initrd], Some("agent ready: "))?;
    ensure!(console.contains("agent ready: "), "{console}");
    Ok(())
}
