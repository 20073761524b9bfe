//! Disks as roots: the same bytes twice, whole pods on a root that cannot be written to, and guests that refuse what was
//! changed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use machine::vm::{AgentClient, Attachment, Machine, Root, Vm, VmConfig};
use products::disk::{self, FileSystem, Form, MADE, Options};
use products::manifest::{DiskPart, Manifest};
use products::recipe;
use protocols::agent::CreateSandboxRequest;
use tests::Guest;

use crate::{TWICE, layout};

/// A disk in the form for shims, with the usual file system.
const KATA: Kind = (Form::Kata, FileSystem::Erofs);

/// What a disk looks like, and what its root is formatted as.
type Kind = (Form, FileSystem);

fn made(flavour: &str, (form, root_fs): Kind) -> Result<PathBuf> {
    let path = layout().disk(flavour, form, root_fs);
    ensure!(path.is_file(), "{} is missing: run `make images`", path.display());
    Ok(path)
}

fn part(flavour: &str, kind: Kind) -> Result<DiskPart> {
    let name = made(flavour, kind)?.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Manifest::read(&layout()).disks.remove(&name).with_context(|| format!("{name} is not in the manifest"))
}

/// The machine and the way of attaching that a form is for.
fn place(form: Form) -> (Machine, Attachment) {
    match form {
        Form::KataDax => (Machine::Q35, Attachment::Nvdimm),
        _ => (Machine::Microvm, Attachment::Blk),
    }
}

async fn boot(root: Root, machine: Machine) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut config = VmConfig::new(layout().vmlinux(), "", directory.path().join("vm"));
    (config.root, config.machine) = (root, machine);
    Vm::boot(config).await?.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_disk_of_every_flavour_and_form_packed_again_is_the_one_in_out() -> Result<()> {
    for flavour in recipe::known(&layout()) {
        for kind @ (form, root_fs) in MADE {
            let twice = flavour == TWICE;
            let options = Options { flavour: flavour.as_str().into(), form, root_fs, epoch: 0, twice };
            let again = disk::pack(&layout(), &options)?;
            let path = made(&flavour, kind)?;
            ensure!(
                again.image() == std::fs::read(&path)?,
                "{} has other bytes than its recipe",
                path.display()
            );
            assert_eq!(*again.part(), part(&flavour, kind)?);
            println!("{}: {} bytes", path.display(), again.image().len());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_runs_on_a_root_of_every_form() -> Result<()> {
    for kind @ (form, root_fs) in MADE {
        let (machine, attachment) = place(form);
        let root = Root::disk(&made("minimal", kind)?, attachment)?;
        let boot = Guest::builder().root(root).machine(machine).boot();
        let guest = boot.await.with_context(|| format!("{form}, {root_fs}"))?;
        let request = CreateSandboxRequest {
            sandbox_id: "pod".into(),
            dns: vec!["nameserver 10.9.8.7".into()],
            ..CreateSandboxRequest::default()
        };
        guest.api().create_sandbox(AgentClient::call(), &request).await?;
        // The guest's own file is on the disk, so the pod's lines cannot be written into it.
        let container = guest.container("c1").mount("/guest", "bind", "/etc", &["rbind", "ro"]).run().await?;
        assert_eq!(container.sh("cat /guest/resolv.conf").await?, "nameserver 10.9.8.7");
        let mounted = container.sh("grep ' /guest ' /proc/mounts").await?;
        assert!(mounted.contains(&format!(" {root_fs} ro")), "{mounted}");
        let refused = container.sh("touch /guest/x 2>&1; echo; ls /guest/x 2>/dev/null | wc -l").await?;
        assert!(refused.ends_with('0'), "{refused}");
        container.remove().await?;
        guest.destroy().await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_flavour_boots_from_a_checked_disk() -> Result<()> {
    for flavour in recipe::known(&layout()) {
        let root = Root::disk(&made(&flavour, KATA)?, Attachment::Blk)?;
        boot(root, Machine::Microvm).await.with_context(|| flavour)?;
    }
    Ok(())
}

/// What Kata's shims make of `kernel_verity_params`, with the device's name as they know it.
#[tokio::test]
async fn the_line_for_shims_boots_as_they_write_it() -> Result<()> {
    let part = part("minimal", KATA)?;
    let line = part.kernel_verity_params.context("a checked disk has parameters")?;
    let value = |key: &str| {
        let field = line.split(',').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        field.with_context(|| format!("{key} is not in {line}"))
    };
    let (blocks, size): (u64, u64) = (value("data_blocks")?.parse()?, value("data_block_size")?.parse()?);
    let cmdline = format!(
        "dm-mod.create=\"dm-verity,,,ro,0 {} verity 1 /dev/vda1 /dev/vda2 {size} {} {blocks} 0 sha256 {} {}\" \
         root=/dev/dm-0 rootfstype=erofs rootflags=ro ro",
        blocks * size / 512,
        value("hash_block_size")?,
        value("root_hash")?,
        value("salt")?
    );
    for machine in [Machine::Microvm, Machine::Q35] {
        let image = made("minimal", KATA)?;
        let root = Root::Disk { image, cmdline: cmdline.clone(), attachment: Attachment::Blk };
        boot(root, machine).await?;
    }
    Ok(())
}

/// A copy of a disk with one bit of one byte flipped, its words beside it.
fn flipped(disk: &Path, at: usize, directory: &Path) -> Result<PathBuf> {
    let mut bytes = std::fs::read(disk)?;
    bytes[at] ^= 1;
    let copy = directory.join("disk.img");
    std::fs::write(&copy, bytes)?;
    std::fs::copy(disk::cmdline_path(disk), disk::cmdline_path(&copy))?;
    Ok(copy)
}

/// Where the agent begins on a disk, and a byte of its header that nobody reads.
fn unused_byte(disk: &Path) -> Result<usize> {
    let bytes = std::fs::read(disk)?;
    let header = bytes.chunks(4096).position(|block| block.starts_with(b"\x7fELF"));
    Ok(header.context("no program begins at a block of the disk")? * 4096 + 12)
}

#[tokio::test]
async fn a_disk_with_one_bit_flipped_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for kind @ (form, root_fs) in MADE.into_iter().filter(|(form, _)| form.is_verified()) {
        let (machine, attachment) = place(form);
        let disk = made("minimal", kind)?;
        let hashes = usize::try_from(part("minimal", kind)?.partitions[1].start)?;
        for (what, at) in [("data", unused_byte(&disk)?), ("hashes", hashes)] {
            let root = Root::disk(&flipped(&disk, at, directory.path())?, attachment)?;
            let error = format!("{:#}", boot(root, machine).await.expect_err("a changed disk boots"));
            assert!(
                error.contains("verity") && error.contains("corrupted"),
                "{form}, {root_fs}, {what}: {error}"
            );
        }
    }
    // Without hashes nobody notices: it is they that refuse, not the program that was changed.
    let plain = made("minimal", (Form::Plain, FileSystem::Erofs))?;
    let root = Root::disk(&flipped(&plain, unused_byte(&plain)?, directory.path())?, Attachment::Blk)?;
    boot(root, Machine::Microvm).await
}
