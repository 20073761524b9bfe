//! The configuration of a machine, and of what it boots.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::accel::Accel;
use super::error::VmError;
use super::model::{Disk, Machine};
use super::nic::Nic;
use super::patience;
use super::share::Share;
use store::arch::Arch;

/// What to boot, and in which machine.
#[derive(Debug, Clone)]
pub struct VmConfig {
    /// The machine model.
    pub machine: Machine,
    /// The kernel: a `vmlinux` with a PVH note or a bzImage; an `Image` for a virt.
    pub kernel: PathBuf,
    /// What the guest runs.
    pub root: Root,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest CPUs.
    pub cpus: u32,
    /// Words added to the end of the kernel command line, for example `agent.log=debug`.
    pub cmdline: Vec<String>,
    /// Disks, in the order the guest sees them: the first is `/dev/vda`.
    pub disks: Vec<Disk>,
    /// Directories of the host that the guest can mount by virtio-fs.
    pub shares: Vec<Share>,
    /// What the guest's network card is connected to, if it has one.
    pub network: Nic,
    /// Which accelerator to use.
    pub accel: Accel,
    /// Directory for sockets and logs; made when absent, emptied of our files in the end.
    pub run_dir: PathBuf,
    /// How long the guest may take until its ready line.
    pub deadline: Duration,
    /// What can be plugged in while the guest runs, beside devices.
    pub growth: Growth,
    /// Whether QEMU gives up the system calls that it needs no more (its `-sandbox`). Where it cannot, the guest boots without,
    /// and a note says so.
    pub sandbox: bool,
    /// Whether [`Vm::save`](super::Vm::save) can be asked for. Wants a q35 or a virt where the vsock device is not the kernel's.
    pub savable: bool,
    /// Whether an emulated guest is spared what takes an emulated processor long: it gets its initrd unpacked, and the only
    /// processor of a q35 no timer of its own. Without, it boots as under a monitor that knows nothing of it. A q35 whose ACPI
    /// tables are not QEMU's may have no other timer, and needs it off.
    pub shortcuts: bool,
    /// More arguments for QEMU, as they are: devices that no other field describes.
    pub extra: Vec<OsString>,
}

/// Where the guest's own files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// In an initrd, in any format that the kernel unpacks.
    Initrd(PathBuf),
    /// On a disk that the guest cannot write to.
    Disk {
        /// The raw disk.
        image: PathBuf,
        /// What the kernel must be told to use it.
        cmdline: String,
        /// How it is attached.
        attachment: Attachment,
    },
    /// In the kernel, which is a unified image that firmware starts; its command line is in it, too. Wants a q35.
    Unified {
        /// Firmware with EFI, such as OVMF's.
        firmware: PathBuf,
    },
}

impl Root {
    /// The disk at `image`, with the words beside it that the crate `products` wrote.
    ///
    /// # Errors
    /// [`VmError::Io`] when there are none.
    pub fn disk(image: &Path, attachment: Attachment) -> Result<Self, VmError> {
        let words = store::product::cmdline_path(image);
        let cmdline = fs::read_to_string(&words).map_err(|source| {
            VmError::io("read", format!("{}, the disk's words for the kernel", words.display()), source)
        })?;
        Ok(Self::Disk { image: image.to_path_buf(), cmdline: cmdline.trim().to_owned(), attachment })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Initrd(path) | Self::Disk { image: path, .. } | Self::Unified { firmware: path } => path,
        }
    }
}

/// How a root disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Attachment {
    /// As virtio-blk, after all other disks, so that their names do not change.
    #[default]
    Blk,
    /// As an NVDIMM that shares the host's page cache with the guest. Needs the form `kata-dax` and the machine q35.
    Nvdimm,
}

/// How far a machine can grow while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// Most CPUs; 0 for as many as it has at the start.
    pub cpus: u32,
    /// Most memory, in MiB; 0 for as much as it has at the start.
    pub memory_mib: u32,
}

impl VmConfig {
    /// The host's architecture, the machine that boots fastest, 512 MiB and one CPU, no disks and no network.
    pub fn new(kernel: impl Into<PathBuf>, initrd: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            machine: Machine::fastest(Arch::host()),
            kernel: kernel.into(),
            root: Root::Initrd(initrd.into()),
            memory_mib: 512,
            cpus: 1,
            cmdline: Vec::new(),
            disks: Vec::new(),
            shares: Vec::new(),
            network: Nic::Absent,
            accel: Accel::Auto,
            run_dir: run_dir.into(),
            deadline: patience::BOOT,
            growth: Growth::default(),
            sandbox: true,
            savable: false,
            shortcuts: true,
            extra: Vec::new(),
        }
    }
}
