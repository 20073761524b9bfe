//! The agent as a whole: builds every shared handle, boots, serves, shuts down.
//!
//! ```text
//! main ─ forker? ─ version? ─ boot (PID 1) ─ settings ─ log ─ forker starts ─ runtime
//!                                                                              │
//!   reaper ◄─────────────────────────────────────────────────────────────────┤
//!   loopback up ─ API listens ─ "agent ready" ─ serve … DestroySandbox or signal ─ power off
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use init::mountinfo::{self, MountInfo};
use rustjail::plan::RootSwitch;
use rustjail::start::StartError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, ServerAddr};
use crate::console;
use crate::container::SecurityModules;
use crate::container::{ContainerError, ContainerHandle, CreateRequest, OomWatch};
use crate::device::watch::DeviceWatch;
use crate::error::{ErrorKind, Kind, chain};
use crate::files::Copies;
use crate::guest::clock::Clock;
use crate::guest::details::VERSION;
use crate::guest::memory::MemAgent;
use crate::guest::modules::{self, Loaded};
use crate::listen;
use crate::network::{self, Network};
use crate::observe::log::{self, Log};
use crate::observe::metrics::Metrics;
use crate::process::command::Commands;
use crate::process::launch::Launcher;
use crate::process::passfd;
use crate::process::reaper::Reaper;
use crate::process::stdio;
use crate::process::unread::Unread;
use crate::rpc;
use crate::sandbox::registry::{ContainerId, Registry, RegistryError};
use crate::sandbox::{Sandbox, SandboxError, SandboxRequest};
use crate::storage::StorageRegistry;
use crate::sys::crash;

/// Where the agent keeps things.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Mount point of cgroup2.
    pub(crate) cgroup: PathBuf,
    /// Directory of the containers' own directories.
    pub(crate) state: PathBuf,
}

impl Paths {
    /// The tree that containers mount from, shared with the host or filled by CopyFile.
    pub(crate) fn shared(&self) -> PathBuf {
        self.state.join("shared/containers")
    }

    /// The pod's own directory. Shims put storages of the pod there.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.state.join("sandbox")
    }

    /// A container's own directory. Shims put its storages there, by its id; a container that is called like a directory of
    /// the pod has another, whose name no id can have.
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        let directory = self.state.join(id.as_str());
        let is_the_pods = self.sandbox() == directory || self.shared().starts_with(&directory);
        if is_the_pods { self.state.join(format!(".{id}")) } else { directory }
    }
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { cgroup: "/sys/fs/cgroup".into(), state: "/run/kata-containers".into() }
    }
}

/// What was found out about the guest at the start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// How a container's root becomes `/`.
    pub(crate) root_switch: RootSwitch,
    /// What labels mean something here.
    pub(crate) modules: SecurityModules,
}

impl Facts {
    fn of_guest() -> Facts {
        let mounts = mountinfo::mounts().unwrap_or_default();
        let root_switch = if is_initramfs(&mounts) { RootSwitch::Move } else { RootSwitch::Pivot };
        Facts { root_switch, modules: SecurityModules::of_kernel() }
    }
}

/// Whether the topmost mount on `/` is the kernel's own root, which cannot be pivoted.
fn is_initramfs(mounts: &[MountInfo]) -> bool {
    mounts.iter().rfind(|mount| mount.point == Path::new("/")).is_some_and(|mount| mount.fstype == "rootfs")
}

/// All shared handles. Everything that works on requests has an `Arc` of it; there are no statics, so two agents can
/// live in one process.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) facts: Facts,
    pub(crate) paths: Paths,
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
    pub(crate) storages: StorageRegistry,
    pub(crate) devices: DeviceWatch,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) commands: Arc<Commands>,
    pub(crate) network: Network,
    pub(crate) oom: OomWatch,
    pub(crate) metrics: Metrics,
    pub(crate) copies: Copies,
    #[cfg(feature = "policy")]
    pub(crate) policy: crate::policy::Policy,
    pub(crate) clock: Clock,
    pub(crate) passfd: Arc<passfd::Waiting>,
    pub(crate) unread: Arc<Unread>,
    pub(crate) mem_agent: MemAgent,
    shutdown: watch::Sender<bool>,
}

/// Why a container could not be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// See [`RegistryError`].
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// See [`ContainerError`].
    #[error(transparent)]
    Container(#[from] ContainerError),
}

impl Kind for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Registry(error) => error.kind(),
            CreateError::Container(error) => error.kind(),
        }
    }
}

impl Agent {
    fn new(mut config: Config, launcher: Arc<Launcher>) -> std::io::Result<Arc<Agent>> {
        config.container_pipe_size = stdio::possible_size(config.container_pipe_size);
        let paths = Paths::default();
        let devices = DeviceWatch::start(config.hotplug_timeout)?;
        Ok(Arc::new(Agent {
            mem_agent: MemAgent::new(&config.mem_agent),
            config,
            facts: Facts::of_guest(),
            commands: Arc::new(Commands::new(Arc::clone(&launcher), paths.cgroup.clone())),
            paths,
            registry: Registry::default(),
            sandbox: Sandbox::default(),
            storages: StorageRegistry::default(),
            launcher,
            network: Network::new(devices.clone()),
            devices,
            oom: OomWatch::start()?,
            metrics: Metrics::default(),
            copies: Copies::default(),
            #[cfg(feature = "policy")]
            policy: crate::policy::Policy::start(Path::new(crate::policy::DEFAULT_FILE))?,
            clock: Clock::keep(init::is_pid1()),
            passfd: Arc::default(),
            unread: Arc::default(),
            shutdown: watch::channel(false).0,
        }))
    }

    /// Makes the sandbox.
    pub(crate) async fn create_sandbox(
        self: &Arc<Self>,
        request: SandboxRequest,
    ) -> Result<(), SandboxError> {
        let agent = Arc::clone(self);
        tracing::info!(sandbox_id = %request.id, hostname = %request.hostname, "creating the sandbox");
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let mut loaded = Loaded::default();
            let load = || modules::load(&agent.commands, Path::new("/sys"), &request.modules);
            let made = agent.sandbox.create(
                &request,
                &agent.paths.sandbox(),
                || runtime.block_on(load()).map(|modules| loaded = modules),
                |storage| agent.storages.acquire(storage, &agent.devices),
                |point| agent.release_storage(point),
            );
            if made.is_err() {
                runtime.block_on(loaded.take_back(&agent.commands));
            }
            made
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
            let source = std::io::Error::other("panicked");
            Err(SandboxError::Namespaces { operation: "create the sandbox".into(), source })
        })
    }

    /// Makes a container. Its id is reserved first, so of two creates with one id one is refused.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        id: ContainerId,
        request: CreateRequest,
    ) -> Result<(), CreateError> {
        let sandbox = self.sandbox.id().map_err(ContainerError::from)?;
        tracing::info!(sandbox_id = %sandbox, container_id = %id, "creating a container");
        let handle = self.registry.reserve(&id, || ContainerHandle::spawn(id.clone(), self))?;
        Ok(handle.create(request).await?)
    }

    /// Removes all containers and storages, and asks the agent to end. The answer leaves before the guest does.
    pub(crate) async fn destroy_sandbox(&self) -> Result<(), SandboxError> {
        let storages = self.sandbox.destroy()?;
        tracing::info!("destroying the sandbox");
        for container in self.registry.all() {
            if let Err(error) = container.remove(0).await {
                tracing::error!(error = %chain(&error), "a container is not removed");
            }
        }
        for point in storages.iter().rev() {
            self.release_storage(point);
        }
        self.storages.release_pinned();
        self.shutdown.send_replace(true);
        Ok(())
    }

    /// Waits until the sandbox is destroyed.
    pub(crate) async fn ended(&self) {
        let mut shutdown = self.shutdown.subscribe();
        // The sender is the agent's own, so the channel does not close.
        drop(shutdown.wait_for(|ended| *ended).await.map(drop));
    }

    fn release_storage(&self, point: &Path) {
        if let Err(error) = self.storages.release(point) {
            tracing::error!(path = %point.display(), error = %chain(&error), "a storage is not released");
        }
    }
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("start the forker")]
    Forker(#[from] StartError),
    #[error("start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("watch for out-of-memory kills")]
    Watch(#[source] std::io::Error),
    #[error("handle signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Serve(#[from] rpc::ServeError),
}

/// Priority of the agent's threads, as nice(1) counts: about nine times the share of an ordinary process.
const NICENESS: i32 = -10;

/// Milliseconds since the kernel started to count time.
fn kernel_milliseconds() -> u64 {
    u64::try_from(init::since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// Notes when a part of the start was done: what `image-builder bootchart` draws.
fn milestone(step: &str, ended: Duration) {
    tracing::debug!(step, microseconds = u64::try_from(ended.as_micros()).unwrap_or(u64::MAX), "boot step");
}

/// Runs the agent. As PID 1 it never returns while the machine runs.
pub(crate) fn run() -> ExitCode {
    let started = kernel_milliseconds();
    let is_init = init::is_pid1();
    let boot = is_init.then(init::boot);
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let (mut config, warnings) = if is_init { Config::parse(&line) } else { Config::parse("") };
    let mut bad_address = None;
    if let Ok(address) = std::env::var("KATA_AGENT_SERVER_ADDR") {
        match address.parse::<ServerAddr>() {
            Ok(address) => config.server_addr = address,
            Err(error) => bad_address = Some(format!("KATA_AGENT_SERVER_ADDR={address}: {}", chain(&error))),
        }
    }
    // Another agent of this process may have set logging up; without a log the agent works all the same.
    let log = log::init(config.log, config.log_vport).ok();
    log::log_panics();
    for ran in boot.iter().flat_map(|report| &report.steps) {
        milestone(&ran.step, ran.ended);
    }
    milestone("read the options, start the log", init::since_boot());
    if is_init && let Err(error) = crash::ends_the_machine(init::End::of_this_machine()) {
        tracing::warn!(%error, "a crash of the agent will be a panic of the kernel");
    }
    for step in boot.iter().flat_map(|report| report.failures()) {
        tracing::error!(step = %step.step, error = %chain(step), "a boot step failed");
    }
    for step in boot.iter().flat_map(|report| report.warnings()) {
        tracing::warn!(step = %step.step, error = %chain(step), "a boot step failed");
    }
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if let Some(text) = bad_address {
        tracing::error!("{text}");
        if !is_init {
            eprintln!("agent: {text}");
            return ExitCode::from(2);
        }
    }
    if !config.unused.is_empty() {
        tracing::info!(options = config.unused.join(" "), "options without a function in this agent");
    }
    let outcome = serve_until_the_end(config, started, log.as_ref());
    let code = match &outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(error), "the agent cannot work");
            eprintln!("agent: {}", chain(error));
            ExitCode::FAILURE
        }
    };
    if let Some(log) = log {
        log.flush(Duration::from_millis(500));
    }
    if is_init {
        let error = init::power_off();
        eprintln!("agent: {}", chain(&error));
        // PID 1 must not end: the kernel would panic.
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
    code
}

fn serve_until_the_end(config: Config, started: u64, log: Option<&Log>) -> Result<(), RunError> {
    let reaper = Arc::new(Reaper::default());
    // Before the runtime and its threads.
    let launcher = Arc::new(Launcher::new(Path::new("/proc/self/exe"), Arc::clone(&reaper))?);
    milestone("start the forker", init::since_boot());
    if init::is_pid1() {
        // What containers do must not hold up answers about them. The forker has left before, and starts programs as ever.
        if let Err(errno) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::warn!(%errno, "the agent has no higher priority than containers");
        }
    } else {
        // Elsewhere the orphans of containers would go to another init.
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%errno, "cannot become a subreaper");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(RunError::Runtime)?;
    milestone("start the runtime", init::since_boot());
    runtime.block_on(async {
        if let Some(Err(error)) = log.map(Log::serve) {
            tracing::error!(%error, "the log is not served");
        }
        let ended = serve(config, launcher, reaper, || announce(started, log)).await;
        if let Some(log) = log {
            log.delivered(Duration::from_millis(300)).await;
        }
        ended
    })
}

async fn serve(
    config: Config,
    launcher: Arc<Launcher>,
    reaper: Arc<Reaper>,
    announce: impl FnOnce(),
) -> Result<(), RunError> {
    let address = config.server_addr.clone();
    let agent = Agent::new(config, launcher).map_err(RunError::Watch)?;
    milestone("start watching devices and memory", init::since_boot());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    tokio::spawn(async move {
        if let Err(error) = reaper.run().await {
            tracing::error!(%error, "children are not reaped");
        }
    });
    if init::is_pid1()
        && let Err(error) = network::loopback_up()
    {
        tracing::error!(error = %chain(&error), "the loopback interface is down");
    }
    milestone("set up the loopback link", init::since_boot());
    // Before the ready line, after which somebody may call.
    if let Err(error) = console::start(Arc::clone(&agent)) {
        tracing::error!(%error, "the debug console's port is not the agent's");
    }
    if let Some(port) = agent.config.passfd_listener_port
        && let Err(error) = passfd::serve(&agent.passfd, port.get(), agent.clock.watcher())
    {
        tracing::error!(%error, port, "streams cannot be passed");
    }
    agent.mem_agent.start({
        let agent = Arc::clone(&agent);
        move || agent.registry.all().iter().filter_map(ContainerHandle::memory).collect()
    });
    let (mut server, address) = rpc::serve_somewhere(&agent, address).await?;
    milestone("listen for calls", init::since_boot());
    if matches!(address, ServerAddr::Vsock { .. }) && !listen::has_vsock_device() {
        tracing::warn!(
            %address,
            "no vsock device: the host cannot call this agent; give the VM a vsock that this kernel can see (virtio over PCI \
             needs PCI on the command line and in the kernel, over MMIO a place that ACPI or the command line tells)"
        );
    }
    announce();
    let mut shutdown = agent.shutdown.subscribe();
    tokio::select! {
        _ = shutdown.wait_for(|ended| *ended) => {}
        _ = interrupt.recv() => tracing::info!("interrupted"),
        _ = terminate.recv() => tracing::info!("terminated"),
    }
    if !*agent.shutdown.borrow()
        && let Err(error) = agent.destroy_sandbox().await
    {
        tracing::debug!(error = %chain(&error), "ending without a sandbox");
    }
    server.stop_listen().await;
    // The answer to DestroySandbox is on its way through the server's writer task and the socket.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tracing::info!("shutdown complete");
    Ok(())
}

/// Tells the console that calls are accepted, in one line that `image-builder` and the tests wait for.
fn announce(started: u64, log: Option<&Log>) {
    let line = format!(
        "agent ready: {} ms since kernel start (init at {started} ms), version {VERSION}",
        kernel_milliseconds()
    );
    match log {
        // In order with the records, and without harm where the console is gone.
        Some(log) => log.print(&line),
        None => println!("{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_container_has_a_directory_of_the_pod() {
        let paths = Paths::default();
        let directory = |id: &str| paths.container(&ContainerId::parse(id).unwrap());
        assert_eq!(directory("c1"), Path::new("/run/kata-containers/c1"));
        for id in ["sandbox", "shared"] {
            let own = directory(id);
            for of_the_pod in [paths.sandbox(), paths.shared()] {
                assert!(!of_the_pod.starts_with(&own) && !own.starts_with(&of_the_pod), "{}", own.display());
            }
            let name = own.file_name().unwrap().to_str().unwrap();
            assert!(ContainerId::parse(name).is_err(), "a container may be called {name}");
        }
    }

    #[test]
    fn an_initramfs_is_known_by_its_root() {
        let line = |fs: &str| format!("1 1 0:2 / / rw shared:1 - {fs} {fs} rw");
        let is_initramfs = |table: &str| is_initramfs(&mountinfo::parse_table(table));
        assert!(is_initramfs(&line("rootfs")));
        assert!(!is_initramfs(&line("ext4")));
        assert!(!is_initramfs(&format!("{}\n{}", line("rootfs"), line("erofs"))));
        assert!(!is_initramfs("22 1 0:20 / /proc rw - proc proc rw"));
    }
}
