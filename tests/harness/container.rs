//! Containers as a shim would ask for them: no pid and no network namespace is named, the agent decides.

use anyhow::{Context as _, Result};
use machine::vm::AgentClient;
use protobuf::{Message as _, MessageField};
use protocols::agent::{
    CreateContainerRequest, PauseContainerRequest, RemoveContainerRequest, ResumeContainerRequest,
    SignalProcessRequest, StartContainerRequest, StatsContainerRequest, StatsContainerResponse, Storage,
    UpdateContainerRequest,
};
use protocols::oci;

use crate::process::{Exec, Running};
use crate::raw::Frame;

const RUN: &str = "/run/kata-containers";
/// What Docker lets a container do.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A container to be created.
#[derive(Clone)]
pub struct ContainerBuilder {
    client: AgentClient,
    request: CreateContainerRequest,
}

/// A mount as the wire has it.
pub fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.into(),
        type_: kind.into(),
        source: source.into(),
        options: options.iter().map(|word| (*word).to_owned()).collect(),
        ..oci::Mount::default()
    }
}

impl ContainerBuilder {
    /// Describes a container of any guest that has the busybox disk at `/dev/vda`; nothing happens yet.
    pub fn new(client: AgentClient, id: &str) -> ContainerBuilder {
        let mut request =
            CreateContainerRequest { container_id: id.into(), ..CreateContainerRequest::default() };
        request.storages = storages(id);
        request.OCI = MessageField::some(spec(id));
        ContainerBuilder { client, request }
    }

    /// What it runs; `sleep 1000` if not said.
    #[must_use]
    pub fn args<T: Into<String>>(self, args: impl IntoIterator<Item = T>) -> ContainerBuilder {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        self.process(|process| process.Args = args)
    }

    /// A shell script that it runs.
    #[must_use]
    pub fn script(self, text: &str) -> ContainerBuilder {
        self.args(["sh", "-c", text])
    }

    /// With a terminal.
    #[must_use]
    pub fn terminal(self) -> ContainerBuilder {
        self.process(|process| process.Terminal = true)
    }

    /// Changes the process.
    #[must_use]
    pub fn process(self, change: impl FnOnce(&mut oci::Process)) -> ContainerBuilder {
        self.spec(|spec| change(spec.Process.mut_or_insert_default()))
    }

    /// Changes the part that is Linux's.
    #[must_use]
    pub fn linux(self, change: impl FnOnce(&mut oci::Linux)) -> ContainerBuilder {
        self.spec(|spec| change(spec.Linux.mut_or_insert_default()))
    }

    /// Changes the resources.
    #[must_use]
    pub fn resources(self, change: impl FnOnce(&mut oci::LinuxResources)) -> ContainerBuilder {
        self.linux(|linux| change(linux.Resources.mut_or_insert_default()))
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> ContainerBuilder {
        let mount = mount(destination, kind, source, options);
        self.spec(|spec| spec.Mounts.push(mount))
    }

    /// Changes the spec.
    #[must_use]
    pub fn spec(self, change: impl FnOnce(&mut oci::Spec)) -> ContainerBuilder {
        self.request(|request| change(request.OCI.mut_or_insert_default()))
    }

    /// Changes the request.
    #[must_use]
    pub fn request(mut self, change: impl FnOnce(&mut CreateContainerRequest)) -> ContainerBuilder {
        change(&mut self.request);
        self
    }

    /// All capabilities, all devices, nothing masked.
    #[must_use]
    pub fn privileged(self) -> ContainerBuilder {
        let all: Vec<String> = (0..=40).filter_map(capability).map(str::to_owned).collect();
        let set = oci::LinuxCapabilities {
            Bounding: all.clone(),
            Effective: all.clone(),
            Permitted: all.clone(),
            Inheritable: all,
            ..oci::LinuxCapabilities::default()
        };
        self.process(|process| process.Capabilities = MessageField::some(set))
            .linux(|linux| {
                linux.MaskedPaths.clear();
                linux.ReadonlyPaths.clear();
            })
            .resources(|resources| {
                resources.Devices.push(oci::LinuxDeviceCgroup {
                    Allow: true,
                    Access: "rwm".into(),
                    ..oci::LinuxDeviceCgroup::default()
                });
            })
    }

    /// The call that asks for it, as a frame.
    pub fn call(&self, stream: u32) -> Frame {
        let payload = self.request.write_to_bytes().expect("no required fields");
        Frame::request(stream, "grpc.AgentService", "CreateContainer", payload, 0)
    }

    /// The same, asked for over another connection.
    #[must_use]
    pub fn over(mut self, client: &AgentClient) -> ContainerBuilder {
        self.client = client.clone();
        self
    }

    /// The container of this id, which somebody else has created.
    pub fn made(&self) -> Container {
        Container { client: self.client.clone(), id: self.request.container_id.clone() }
    }

    /// Asks for it, and gives the agent's answer as it is.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn try_create(&self) -> ttrpc::Result<Container> {
        self.client.agent.create_container(AgentClient::call(), &self.request).await?;
        Ok(self.made())
    }

    /// Creates it.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn create(&self) -> Result<Container> {
        self.try_create().await.with_context(|| format!("create {}", self.request.container_id))
    }

    /// Creates and starts it.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn run(&self) -> Result<Container> {
        let container = self.create().await?;
        container.start().await.with_context(|| format!("start {}", self.request.container_id))?;
        Ok(container)
    }
}

/// The image as a read-only disk, and a writable layer on it.
fn storages(id: &str) -> Vec<Storage> {
    let base = format!("{RUN}/{id}");
    let disk = Storage {
        driver: "blk".into(),
        source: "/dev/vda".into(),
        fstype: "erofs".into(),
        options: vec!["ro".into()],
        mount_point: format!("{base}/image"),
        ..Storage::default()
    };
    let make = |name: &str| format!("io.katacontainers.volume.overlayfs.create_directory={base}/{name}");
    let overlay = Storage {
        driver: "overlayfs".into(),
        source: "overlay".into(),
        fstype: "overlay".into(),
        options: vec![
            format!("lowerdir={base}/image"),
            format!("upperdir={base}/upper"),
            format!("workdir={base}/work"),
        ],
        driver_options: vec![make("upper"), make("work")],
        mount_point: format!("{base}/rootfs"),
        ..Storage::default()
    };
    vec![disk, overlay]
}

fn spec(id: &str) -> oci::Spec {
    let strings = |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
    let capabilities = strings(&CAPABILITIES);
    let process = oci::Process {
        Args: strings(&["sleep", "1000"]),
        Env: strings(&["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]),
        Cwd: "/".into(),
        User: MessageField::some(oci::User::default()),
        Capabilities: MessageField::some(oci::LinuxCapabilities {
            Bounding: capabilities.clone(),
            Effective: capabilities.clone(),
            Permitted: capabilities,
            ..oci::LinuxCapabilities::default()
        }),
        NoNewPrivileges: true,
        ..oci::Process::default()
    };
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..oci::LinuxNamespace::default() };
    let linux = oci::Linux {
        CgroupsPath: format!("/test/{id}"),
        Namespaces: ["ipc", "uts", "mount"].map(namespace).to_vec(),
        MaskedPaths: strings(&[
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/scsi",
            "/sys/firmware",
        ]),
        ReadonlyPaths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..oci::Linux::default()
    };
    oci::Spec {
        Version: "1.2.0".into(),
        Process: MessageField::some(process),
        Root: MessageField::some(oci::Root { Path: format!("{RUN}/{id}/rootfs"), ..oci::Root::default() }),
        Hostname: id.into(),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        Linux: MessageField::some(linux),
        ..oci::Spec::default()
    }
}

/// Name of a capability by its number.
fn capability(number: usize) -> Option<&'static str> {
    // include/uapi/linux/capability.h, in order.
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
        NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
        SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
        AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
        CHECKPOINT_RESTORE";
    NAMES.split_whitespace().nth(number)
}

/// A created container.
#[derive(Clone)]
pub struct Container {
    client: AgentClient,
    id: String,
}

impl Container {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Lets its first process execute.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn start(&self) -> ttrpc::Result<()> {
        let request = StartContainerRequest { container_id: self.id.clone(), ..Default::default() };
        self.client.agent.start_container(AgentClient::call(), &request).await.map(drop)
    }

    /// Its first process.
    pub fn init(&self) -> Running {
        Running::of(&self.client, &self.id, "")
    }

    /// Waits for its first process, and gives the exit status.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn wait(&self) -> ttrpc::Result<i32> {
        self.init().wait().await
    }

    /// All of stdout of its first process, then its exit status.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn output(&self) -> Result<crate::Finished> {
        self.init().finish().await
    }

    /// Describes a further process.
    pub fn exec<T: Into<String>>(&self, args: impl IntoIterator<Item = T>) -> Exec {
        Exec::new(self.client.clone(), &self.id, args.into_iter().map(Into::into).collect())
    }

    /// Runs a shell script in it and gives what it printed, without the last line's end.
    ///
    /// # Errors
    /// When it ends with another status than 0; the text has its stderr.
    pub async fn sh(&self, script: &str) -> Result<String> {
        self.exec(["sh", "-c", script]).run().await?.success()
    }

    /// PCI slot of a disk on the root bus, in hexadecimal.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn pci_slot(&self, disk: &str) -> Result<String> {
        self.sh(&format!("readlink /sys/block/{disk} | sed 's/.*0000:00:\\([0-9a-f]*\\)\\.0.*/\\1/'")).await
    }

    /// Sends a signal to a process; the empty id is the first one.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn signal(&self, exec_id: &str, signal: u32) -> ttrpc::Result<()> {
        let request = SignalProcessRequest {
            container_id: self.id.clone(),
            exec_id: exec_id.into(),
            signal,
            ..Default::default()
        };
        self.client.agent.signal_process(AgentClient::call(), &request).await.map(drop)
    }

    /// Statistics of its cgroup.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn stats(&self) -> ttrpc::Result<StatsContainerResponse> {
        let request = StatsContainerRequest { container_id: self.id.clone(), ..Default::default() };
        self.client.agent.stats_container(AgentClient::call(), &request).await
    }

    /// Freezes it.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn pause(&self) -> ttrpc::Result<()> {
        let request = PauseContainerRequest { container_id: self.id.clone(), ..Default::default() };
        self.client.agent.pause_container(AgentClient::call(), &request).await.map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn resume(&self) -> ttrpc::Result<()> {
        let request = ResumeContainerRequest { container_id: self.id.clone(), ..Default::default() };
        self.client.agent.resume_container(AgentClient::call(), &request).await.map(drop)
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn update(&self, resources: Option<oci::LinuxResources>) -> ttrpc::Result<()> {
        let request = UpdateContainerRequest {
            container_id: self.id.clone(),
            resources: resources.into(),
            ..Default::default()
        };
        self.client.agent.update_container(AgentClient::call(), &request).await.map(drop)
    }

    /// Removes it, running or not.
    ///
    /// # Errors
    /// The agent's refusal.
    pub async fn remove(&self) -> ttrpc::Result<()> {
        let request = RemoveContainerRequest { container_id: self.id.clone(), ..Default::default() };
        self.client.agent.remove_container(AgentClient::call(), &request).await.map(drop)
    }
}
