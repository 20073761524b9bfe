//! The agent as a whole: boots, builds all that requests work on, serves, shuts down.
//!
//! ```text
//! main ─ forker? ─ version? ─ boot (PID 1) ─ settings ─ log ─ forker starts ─ runtime
//!                                                                              │
//!   reaper ◄─────────────────────────────────────────────────────────────────┤
//!   loopback up ─ API listens ─ "agent ready" ─ serve … DestroySandbox or signal ─ power off
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustjail::start::StartError;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ServerAddr};
use crate::console::{self, Console};
use crate::container::{ContainerHandle, Facts, Jails, OomWatch, Paths, Settings, Tools, follow_memory};
use crate::device::watch::DeviceWatch;
use crate::error::chain;
use crate::files::Copies;
use crate::guest::clock::Clock;
use crate::guest::details::VERSION;
use crate::guest::memory::MemAgent;
use crate::heap::Trimmer;
use crate::listen;
use crate::network::{self, Network};
use crate::observe::log::{self, Log};
use crate::observe::metrics::Metrics;
use crate::patience::{self, Patience};
use crate::pod::Pod;
use crate::process::command::Commands;
use crate::process::launch::Launcher;
use crate::process::passfd;
use crate::process::reaper::Reaper;
use crate::process::stdio;
use crate::reserve::Reserve;
use crate::rpc::{self, Api};
use crate::storage::StorageRegistry;
use crate::sys::{self, crash};

/// Builds what all requests work on.
fn build(config: &Config, launcher: &Arc<Launcher>) -> std::io::Result<Api> {
    let paths = Paths::default();
    let (reserve, storages) = (Arc::new(Reserve::new(&paths.cgroup)), Arc::<StorageRegistry>::default());
    let memory_changed = {
        let (reserve, storages) = (Arc::clone(&reserve), Arc::clone(&storages));
        move || follow_memory(&reserve, &storages)
    };
    let devices = DeviceWatch::start(config.hotplug_timeout, memory_changed.clone())?;
    let patience = Patience::for_devices();
    let tools = Arc::new(Tools {
        jailer: Arc::new(Jails::new(Arc::clone(launcher), paths.cgroup.clone(), Arc::clone(&reserve))),
        commands: Arc::new(Commands::new(Arc::clone(launcher), paths.cgroup.clone())),
        storages,
        devices: devices.clone(),
        patience: patience.clone(),
        streams: Arc::default(),
        unread: Arc::default(),
        trimmer: Trimmer::default(),
        memory_events: OomWatch::start(Arc::clone(&reserve), memory_changed)?,
        reserve,
        filters: Default::default(),
        paths,
        facts: Facts::of_guest(),
        settings: Settings {
            pipe_size: stdio::possible_size(config.container_pipe_size) as usize,
            cdi_timeout: config.cdi_timeout,
            visible_cdi_devices: config.visible_cdi_devices,
        },
    });
    Ok(Api {
        pod: Arc::new(Pod::new(Arc::clone(&tools))),
        tools,
        network: Network::new(devices, patience),
        metrics: Metrics::default(),
        copies: Copies::default(),
        copying: Patience::for_copies(),
        #[cfg(feature = "policy")]
        policy: crate::policy::Policy::start(Path::new(crate::policy::DEFAULT_FILE))?,
        clock: Clock::keep(init::is_pid1()),
        mem_agent: MemAgent::new(&config.mem_agent),
        hotplug_timeout: config.hotplug_timeout,
    })
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
    sys::heap::share();
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
        .max_blocking_threads(patience::THREADS)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(RunError::Runtime)?;
    milestone("start the runtime", init::since_boot());
    let ended = runtime.block_on(async {
        if let Some(Err(error)) = log.map(Log::serve) {
            tracing::error!(%error, "the log is not served");
        }
        let ended = serve(config, launcher, reaper, || announce(started, log)).await;
        if let Some(log) = log {
            log.delivered(Duration::from_millis(300)).await;
        }
        ended
    });
    // A thread that hangs in the kernel must not keep the machine on.
    runtime.shutdown_background();
    ended
}

async fn serve(
    config: Config,
    launcher: Arc<Launcher>,
    reaper: Arc<Reaper>,
    announce: impl FnOnce(),
) -> Result<(), RunError> {
    let address = config.server_addr.clone();
    let api = Arc::new(build(&config, &launcher).map_err(RunError::Watch)?);
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
    if let Some(port) = config.console_port {
        let cgroups = api.tools.paths.cgroup.clone();
        let console = config.debug_console.then(|| Console { pod: Arc::clone(&api.pod), launcher, cgroups });
        if let Err(error) = console::start(console, port, api.clock.watcher()) {
            tracing::error!(%error, "the debug console's port is not the agent's");
        }
    }
    if let Some(port) = config.passfd_listener_port
        && let Err(error) = passfd::serve(&api.tools.streams, port.get(), api.clock.watcher())
    {
        tracing::error!(%error, port, "streams cannot be passed");
    }
    #[cfg(feature = "sandbox-api")]
    serve_sandbox(&config, &api);
    api.mem_agent.start({
        let pod = Arc::clone(&api.pod);
        move || pod.containers().iter().filter_map(ContainerHandle::memory).collect()
    });
    let (serving, address) = rpc::serve_somewhere(&api, address)?;
    milestone("listen for calls", init::since_boot());
    if matches!(address, ServerAddr::Vsock { .. }) && !listen::has_vsock_device() {
        tracing::warn!(
            %address,
            "no vsock device: the host cannot call this agent; give the VM a vsock that this kernel can see (virtio over PCI \
             needs PCI on the command line and in the kernel, over MMIO a place that ACPI, a device tree or the command line \
             tells)"
        );
    }
    announce();
    tokio::select! {
        biased;
        // A pod that has ended has nothing left to be destroyed, whatever signals came.
        () = api.pod.ended() => {}
        _ = interrupt.recv() => tracing::info!("interrupted"),
        _ = terminate.recv() => tracing::info!("terminated"),
    }
    if !api.pod.has_ended()
        && let Err(error) = api.pod.destroy().await
    {
        tracing::debug!(error = %chain(&error), "ending without a sandbox");
    }
    serving.stop_listening();
    // The answer to DestroySandbox is on its way through the connection's task and the socket.
    tokio::time::sleep(Duration::from_millis(50)).await;
    tracing::info!("shutdown complete");
    Ok(())
}

/// Serves the sandbox API, if that is asked for. The guest is of use without it.
#[cfg(feature = "sandbox-api")]
fn serve_sandbox(config: &Config, api: &Api) {
    use crate::config::SandboxApi;
    use crate::sandbox_api::{self, Listen, Parts, Sandbox};
    let listen = match config.sandbox_api {
        SandboxApi::Off => return,
        SandboxApi::Vsock => Listen::Vsock,
        SandboxApi::Tcp => Listen::Tcp,
    };
    let sandbox = Sandbox::new(Parts {
        pod: Arc::clone(&api.pod),
        clock: api.clock.clone(),
        trimmer: api.tools.trimmer.clone(),
        #[cfg(feature = "policy")]
        policy: api.policy.clone(),
        container: Some(config.sandbox_api_container.clone()).filter(|id| !id.is_empty()),
    });
    if let Err(error) = sandbox_api::start(&sandbox, listen) {
        tracing::error!(%error, "the sandbox API is not served");
    }
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
