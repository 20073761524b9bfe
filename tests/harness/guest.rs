//! A booted guest.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fs_image::{Inode, Kind, Tree, cpio};
use images::image::Ceiling;
use machine::vm::{AgentClient, Disk, Growth, Machine, Nic, Root, Share, Snapshot, Vm, VmConfig};
use protocols::agent::{CreateSandboxRequest, DestroySandboxRequest, Storage};
use protocols::agent_ttrpc::AgentServiceClient;
use store::arch::Arch;
use store::cache::Cache;
use store::layout::Layout;
use tempfile::TempDir;

use crate::container::ContainerBuilder;

/// How long a guest may take to get ready or to go off: long enough beside compilers, where it is many times slower.
const READY: Duration = Duration::from_secs(300);

/// Id of the sandbox that [`Guest::sandbox`] makes.
const SANDBOX: &str = "pod";

/// A running guest with a busybox disk at `/dev/vda`.
pub struct Guest {
    vm: Option<Vm>,
    client: AgentClient,
    /// Of the guest's own files, and of those that it was booted from.
    directories: Vec<Arc<TempDir>>,
}

/// A guest on a file, to be continued as often as wanted.
pub struct Saved {
    snapshot: Snapshot,
    directories: Vec<Arc<TempDir>>,
}

/// The variable that names the architecture of all guests whose test names none.
const ARCH: &str = "PITH_TEST_ARCH";

/// The architecture of guests: the one that `PITH_TEST_ARCH` names, or the host's.
///
/// # Panics
/// When it names none.
pub fn arch() -> Arch {
    match std::env::var(ARCH) {
        Ok(name) if !name.is_empty() => Arch::ALL
            .into_iter()
            .find(|arch| arch.to_string() == name)
            .unwrap_or_else(|| panic!("{ARCH} is {name:?}; there are {:?}", Arch::ALL)),
        _ => Arch::host(),
    }
}

/// How a guest is to be booted.
#[derive(Debug, Clone, Default)]
pub struct GuestBuilder {
    arch: Option<Arch>,
    machine: Machine,
    words: Vec<String>,
    network: bool,
    cpus: Option<u32>,
    memory_mib: Option<u32>,
    disks: Vec<PathBuf>,
    flavour: Option<String>,
    kernel: Option<String>,
    image: Option<PathBuf>,
    products: Option<PathBuf>,
    root: Option<Root>,
    shares: Vec<Share>,
    files: Tree,
    growth: Growth,
    savable: bool,
    plain: bool,
    deadline: Option<Duration>,
    qemu: Vec<OsString>,
}

impl GuestBuilder {
    /// For another architecture than [`arch`] says.
    #[must_use]
    pub fn arch(mut self, arch: Arch) -> GuestBuilder {
        self.arch = Some(arch);
        self
    }

    /// On another machine model than a microvm. On another architecture there is only one, with what a q35 has.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> GuestBuilder {
        self.machine = machine;
        self
    }

    /// With words added to the kernel's command line.
    #[must_use]
    pub fn cmdline(mut self, words: &[&str]) -> GuestBuilder {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With a virtio-net interface.
    #[must_use]
    pub fn network(mut self) -> GuestBuilder {
        self.network = true;
        self
    }

    /// With this many processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> GuestBuilder {
        self.cpus = Some(cpus);
        self
    }

    /// With this much memory, in MiB.
    #[must_use]
    pub fn memory(mut self, mib: u32) -> GuestBuilder {
        self.memory_mib = Some(mib);
        self
    }

    /// With a further disk, writable: the first of them is `/dev/vdb`.
    #[must_use]
    pub fn disk(mut self, path: &Path) -> GuestBuilder {
        self.disks.push(path.to_owned());
        self
    }

    /// With room for more processors and memory than it has at the start; 0 for none.
    #[must_use]
    pub fn growth(mut self, cpus: u32, memory_mib: u32) -> GuestBuilder {
        self.growth = Growth { cpus, memory_mib };
        self
    }

    /// On a machine that [`Guest::save`] can save, a q35.
    #[must_use]
    pub fn savable(mut self) -> GuestBuilder {
        self.machine = Machine::Q35;
        self.savable = true;
        self
    }

    /// Booted as by a monitor that takes no shortcuts under emulation: the guest unpacks its initrd itself.
    #[must_use]
    pub fn plain(mut self) -> GuestBuilder {
        self.plain = true;
        self
    }

    /// With another time to get ready in.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> GuestBuilder {
        self.deadline = Some(deadline);
        self
    }

    /// With more arguments for QEMU.
    #[must_use]
    pub fn qemu(mut self, arguments: &[&str]) -> GuestBuilder {
        self.qemu.extend(arguments.iter().map(OsString::from));
        self
    }

    /// With a directory of the host, for virtio-fs under a tag.
    #[must_use]
    pub fn share(mut self, directory: &Path, tag: &str) -> GuestBuilder {
        self.shares.push(Share { directory: directory.to_owned(), tag: tag.to_owned() });
        self
    }

    /// From the initrd of another flavour than `minimal`: `out/initrd-NAME.img`.
    #[must_use]
    pub fn flavour(mut self, name: &str) -> GuestBuilder {
        self.flavour = Some(name.to_owned());
        self
    }

    /// From a disk in the place of an initrd.
    #[must_use]
    pub fn root(mut self, root: Root) -> GuestBuilder {
        self.root = Some(root);
        self
    }

    /// With any kernel, or a unified image.
    #[must_use]
    pub fn image(mut self, path: &Path) -> GuestBuilder {
        self.image = Some(path.to_owned());
        self
    }

    /// With the kernel of another profile than the one that ships: `out/vmlinux-NAME`.
    #[must_use]
    pub fn kernel(mut self, profile: &str) -> GuestBuilder {
        self.kernel = Some(profile.to_owned());
        self
    }

    /// With kernel and initrd from the `out/` of another tree.
    #[must_use]
    pub fn products(mut self, directory: &Path) -> GuestBuilder {
        self.products = Some(directory.to_owned());
        self
    }

    /// With a file in the initrd, in the place of the flavour's.
    ///
    /// # Panics
    /// When the path is none.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> GuestBuilder {
        self.files.insert(path, Inode::new(0o644, Kind::File(text.into()))).expect("each file once");
        self
    }

    /// With anything else in the initrd, in the place of the flavour's.
    ///
    /// # Panics
    /// When the path is none.
    #[must_use]
    pub fn node(mut self, path: &str, inode: Inode) -> GuestBuilder {
        self.files.insert(path, inode).expect("each file once");
        self
    }

    /// With a static program of the workspace (`image-builder program NAME`) in the initrd.
    ///
    /// # Errors
    /// When it was not built.
    pub fn program(self, path: &str, name: &str) -> Result<GuestBuilder> {
        let arch = self.arch.unwrap_or_else(arch);
        let file = existing(layout(None).for_arch(arch).program(name))
            .with_context(|| format!("run `image-builder program {name}`"))?;
        let content = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(self.node(path, Inode::new(0o755, Kind::File(content.into()))))
    }

    /// Boots, and waits for the agent.
    ///
    /// # Errors
    /// When a product is missing, or the guest does not get ready; the console's end is in the text.
    pub async fn boot(self) -> Result<Guest> {
        let directory = tempfile::tempdir().context("make a directory for the guest")?;
        let arch = self.arch.unwrap_or_else(arch);
        let layout = layout(self.products.clone()).for_arch(arch);
        let initrd = match &self.flavour {
            Some(name) => existing(layout.flavour_initrd(name))?,
            None => existing(layout.initrd())?,
        };
        let initrd = self.with_files(initrd, directory.path())?;
        let kernel = match (self.image, &self.kernel) {
            (Some(path), _) => path,
            (None, Some(profile)) => existing(layout.kernel_file("vmlinux", profile))?,
            (None, None) => existing(layout.kernel())?,
        };
        let mut config = VmConfig::new(kernel, initrd, directory.path());
        config.root = self.root.unwrap_or(config.root);
        config.machine = if arch == Arch::X86_64 { self.machine } else { Machine::fastest(arch) };
        config.network = if self.network { Nic::User { forwards: Vec::new() } } else { Nic::Absent };
        config.memory_mib = self.memory_mib.unwrap_or(config.memory_mib);
        config.cpus = self.cpus.unwrap_or(1);
        config.cmdline = self.words;
        config.deadline = self.deadline.unwrap_or(READY);
        config.shares = self.shares;
        config.growth = self.growth;
        config.savable = self.savable;
        config.shortcuts = !self.plain;
        config.extra = self.qemu;
        config.disks.push(Disk { path: busybox_for(arch)?, readonly: true, serial: "busybox".into() });
        config.disks.extend(self.disks.into_iter().enumerate().map(|(at, path)| Disk {
            path,
            readonly: false,
            serial: format!("extra{at}"),
        }));
        let vm = Vm::boot(config).await.context("boot a guest")?;
        let client = vm.client().await.context("dial the agent")?;
        Ok(Guest { vm: Some(vm), client, directories: vec![Arc::new(directory)] })
    }
}

impl GuestBuilder {
    /// The kernel unpacks archives that follow one another, each over what the ones before it left.
    fn with_files(&self, initrd: PathBuf, directory: &Path) -> Result<PathBuf> {
        if self.files.is_empty() {
            return Ok(initrd);
        }
        let mut bytes = std::fs::read(&initrd).context("read the initrd")?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(cpio::archive(&self.files).context("pack the test's files")?);
        let path = directory.join("initrd.img");
        std::fs::write(&path, bytes).context("write the initrd")?;
        Ok(path)
    }
}

/// A file that `make build` makes.
///
/// # Errors
/// When it is missing.
pub fn product(name: &str) -> Result<PathBuf> {
    existing(Path::new(env!("CARGO_MANIFEST_DIR")).join("../out").join(name))
}

/// The products: in the tree's `out/`, or in another directory.
fn layout(out: Option<PathBuf>) -> Layout {
    Layout::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), out)
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run `make build`", path.display());
    Ok(path)
}

/// The disk of the busybox image that `make samples` makes.
///
/// # Errors
/// When it is missing.
pub fn busybox() -> Result<PathBuf> {
    busybox_for(arch())
}

/// The same for an architecture.
fn busybox_for(arch: Arch) -> Result<PathBuf> {
    let cache = Cache::locate(|name| std::env::var_os(name)).context("find the cache")?;
    let image =
        images::image::prepare_for(&sample(arch, "busybox")?, Some(arch), &cache, Ceiling::default())?;
    Ok(image.disk)
}

/// A sample image that `make samples` makes for an architecture, as an argument of `pith`.
///
/// # Errors
/// When it is missing.
pub fn sample(arch: Arch, name: &str) -> Result<String> {
    let path = product(&format!("images{}/{name}", arch.suffix()))
        .with_context(|| format!("the sample images are missing: run `make samples ARCH={arch}`"))?;
    Ok(path.canonicalize().context("find the sample images")?.display().to_string())
}

impl Guest {
    /// Boots the machine that does so fastest.
    ///
    /// # Errors
    /// As [`GuestBuilder::boot`].
    pub async fn boot() -> Result<Guest> {
        Guest::builder().boot().await
    }

    /// To boot something else.
    pub fn builder() -> GuestBuilder {
        GuestBuilder::default()
    }

    /// The virtual machine.
    ///
    /// # Panics
    /// Never: it is there as long as the guest is.
    pub fn vm(&self) -> &Vm {
        self.vm.as_ref().expect("present until the guest is dropped")
    }

    /// The agent's services, over the guest's first connection.
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    /// The agent's main service.
    pub fn api(&self) -> &AgentServiceClient {
        &self.client.agent
    }

    /// Makes a sandbox named `pod`.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn sandbox(&self) -> Result<()> {
        self.sandbox_with(Vec::new()).await
    }

    /// Makes a sandbox named `pod` that has storages.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn sandbox_with(&self, storages: Vec<Storage>) -> Result<()> {
        let request = CreateSandboxRequest {
            sandbox_id: SANDBOX.into(),
            hostname: SANDBOX.into(),
            storages,
            ..CreateSandboxRequest::default()
        };
        self.api().create_sandbox(AgentClient::call(), &request).await.context("CreateSandbox")?;
        Ok(())
    }

    /// Describes a container; nothing happens yet.
    pub fn container(&self, id: &str) -> ContainerBuilder {
        ContainerBuilder::new(self.client.clone(), id)
    }

    /// Destroys the sandbox and waits for the machine to go off.
    ///
    /// # Errors
    /// When it stays on.
    pub async fn destroy(&self) -> Result<()> {
        let destroyed = self.api().destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await;
        destroyed.context("DestroySandbox")?;
        ensure!(self.vm().wait_off(READY).await, "the machine stays on");
        Ok(())
    }
}

impl Guest {
    /// Writes the guest to a file and ends it. All connections to it end with it.
    ///
    /// # Errors
    /// When it was not booted as [`GuestBuilder::savable`], or QEMU refuses.
    pub async fn save(mut self, file: &Path) -> Result<Saved> {
        let vm = self.vm.take().context("the guest is gone")?;
        let snapshot = vm.save(file).await.context("save the guest")?;
        Ok(Saved { snapshot, directories: std::mem::take(&mut self.directories) })
    }
}

impl Saved {
    /// Continues the guest in a machine of its own. Containers go on where they were.
    ///
    /// # Errors
    /// When QEMU does not take it, or the agent does not answer.
    pub async fn restore(&self) -> Result<Guest> {
        let directory = Arc::new(tempfile::tempdir().context("make a directory for the guest")?);
        let vm = self.snapshot.restore(directory.path()).await.context("restore the guest")?;
        let client = vm.client().await.context("dial the agent")?;
        let directories = [directory].into_iter().chain(self.directories.iter().cloned()).collect();
        Ok(Guest { vm: Some(vm), client, directories })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(vm) = &self.vm
        {
            eprintln!("--- console ---\n{}\n---------------", vm.console_log());
        }
    }
}
