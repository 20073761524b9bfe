//! Commands that boot a pod and talk to it: each variant is one command.

mod attach;
mod detach;
mod exec;
mod pods;

use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use image_builder::image::Ceiling;
use image_builder::run::exec::WRITE;
use image_builder::run::network::{Network, NetworkMode, Publish};
use image_builder::run::output::{JsonSink, Sink, TextSink};
use image_builder::run::quantity;
use image_builder::run::sandbox_api::SandboxApi;
use image_builder::run::state::StateDir;
use image_builder::run::terminal::{RawMode, read_stdin};
use image_builder::run::timing::Timings;
use image_builder::run::{Input, Pod, RunOptions, StopRequest};
use image_builder::vm::{Accel, Attachment, DEBUG_CONSOLE, Machine, Root};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Global;

/// The flavour whose agent has the sandbox API.
const SANDBOX: &str = "sandbox";
/// How many execs are measured when the table is asked for and nothing else is said.
const BENCH_EXEC: u32 = 20;

/// Commands for pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boot a guest and run a pod in it; exits with the status of its containers.
    Run(RunArgs),
    /// Connect to the standard input of a container that a manifest gives one (`stdin: true`), and show what it writes from
    /// now on. Ends with the container, and with its status; or by a signal, and on a terminal by Ctrl-P Ctrl-Q, while the
    /// container goes on.
    Attach(attach::AttachArgs),
    /// List running pods, or the containers of one with their ids.
    Ps(pods::PsArgs),
    /// Run one more command in a container. Signals are passed on to it; this program ends by SIGTERM or SIGHUP when the
    /// command has not ended 5 s later, and by any when the guest does not take it.
    Exec(exec::ExecArgs),
    /// Show what a container wrote.
    Logs(pods::LogsArgs),
    /// Connect to the debug console of a pod's guest (end with Ctrl-]).
    Console(exec::ConsoleArgs),
    /// End a pod.
    Stop(pods::StopArgs),
    /// Measure execs in a running pod and show its sizes and times.
    Timings(pods::TimingsArgs),
    /// Make a disk of an image, as `run` does, and say where it is.
    Image(ImageArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The pod's manifest; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The pod to run, if the file has several.
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Return as soon as all containers have started; the pod goes on in the background.
    #[arg(short, long)]
    detach: bool,
    /// Keep the pod up after its main containers ended, until `stop`.
    #[arg(long)]
    keep: bool,
    /// Show the table of sizes and times in the end.
    #[arg(long)]
    timings: bool,
    /// Measure this many execs of /bin/true before the pod ends.
    #[arg(long, value_name = "N")]
    bench_exec: Option<u32>,
    /// The machine model [default: the smallest that has room for all disks].
    #[arg(long)]
    machine: Option<Machine>,
    /// The accelerator.
    #[arg(long, default_value = "auto")]
    accel: Accel,
    /// Guest memory [default: 512 plus the containers' limits].
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Guest CPUs.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Words added to the kernel's command line, for example `agent.log=debug`.
    #[arg(long, value_name = "WORD")]
    append: Vec<String>,
    /// How the guest is connected: `user` (QEMU's network: a way out, and published ports in), `none`, or
    /// `netns=NAME[/LINK]` (a link of a network namespace, as root).
    #[arg(long, value_name = "MODE", default_value = "user")]
    network: NetworkMode,
    /// Let a port of the host lead into the pod.
    #[arg(short, long, value_name = "[HOSTIP:]HOSTPORT:GUESTPORT[/tcp|/udp]")]
    publish: Vec<Publish>,
    /// Switch on the sandbox API, which speaks E2B's envd protocol, and serve it at this address of the host; port 0 takes a
    /// free one. Whoever reaches the address is root in the container, unless there is a token. Boots the initrd of the
    /// flavour `sandbox`.
    #[arg(long, value_name = "HOSTIP:PORT", conflicts_with = "uki")]
    sandbox_api: Option<SocketAddr>,
    /// A file whose first line is the access token for the sandbox API; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "sandbox_api")]
    sandbox_api_token: Option<PathBuf>,
    /// Switch on the debug console that `console` connects to.
    #[arg(long)]
    debug_console: bool,
    /// The kernel [default: OUT/vmlinux].
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initrd [default: OUT/initrd.img].
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A disk made by `image-builder disk` in place of an initrd; its .cmdline file lies beside it.
    #[arg(long, value_name = "FILE", conflicts_with = "initrd")]
    disk: Option<PathBuf>,
    /// A unified kernel image made by `image-builder uki`, started by firmware, in place of kernel and initrd.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["initrd", "kernel", "disk", "append", "debug_console"])]
    uki: Option<PathBuf>,
    /// Firmware for it.
    #[arg(long, value_name = "FILE", default_value = "/usr/share/ovmf/OVMF.fd", requires = "uki")]
    firmware: PathBuf,
    /// How that disk is attached.
    #[arg(long, value_enum, default_value_t, requires = "disk")]
    disk_as: Attachment,
    #[command(flatten)]
    unpacking: Unpacking,
}

/// How much an image may become.
#[derive(Debug, Args)]
struct Unpacking {
    /// The most that the files of one image may take, for example 100Gi [default: 64Gi].
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    max_unpacked: Option<u64>,
}

impl Unpacking {
    fn ceiling(&self) -> Ceiling {
        let usual = Ceiling::default();
        Ceiling { bytes: self.max_unpacked.unwrap_or(usual.bytes), ..usual }
    }
}

/// Arguments of `image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// An image as docker, podman, skopeo, buildah, containerd or umoci save it, or a root file system as a directory or a
    /// tar archive; `:NAME` or `@sha256:DIGEST` behind it picks one of several images.
    reference: String,
    #[command(flatten)]
    unpacking: Unpacking,
}

impl Command {
    /// Runs the command; sees to signals itself.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => args.execute(global).await,
            Self::Attach(args) => args.execute().await,
            Self::Ps(args) => args.execute(global),
            Self::Exec(args) => args.execute(global).await,
            Self::Logs(args) => args.execute().await,
            Self::Console(args) => args.execute().await,
            Self::Stop(args) => args.execute().await,
            Self::Timings(args) => args.execute(global).await,
            Self::Image(args) => args.execute(global),
        }
    }
}

/// Where running pods are known.
fn state() -> StateDir {
    StateDir::locate(|name| std::env::var_os(name))
}

/// A process's status as ours. What does not fit in a byte is a failure all the same.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

impl RunArgs {
    async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let pod = self.pod()?;
        if self.detach && !detach::is_detached() {
            anyhow::ensure!(self.file != Path::new("-"), "--detach needs the manifest in a file");
            return detach::run(pod.name(), &state()).await;
        }
        let options = self.options(global)?;
        let names = pod.all().map(|container| container.name.clone()).collect();
        let sink = self.sink(global, names);
        let (input, _raw) = self.input(&pod, global)?;
        let outcome = image_builder::run::run(pod, options, sink, stop_requests()?, input).await?;
        Ok(exit_code(outcome.code))
    }

    /// The user's own standard input, for the first container that wants one; and the terminal's raw mode while it lasts, if
    /// that container has a terminal.
    fn input(&self, pod: &Pod, global: &Global) -> anyhow::Result<(Option<Input>, Option<RawMode>)> {
        let Some(container) = pod.all().find(|container| container.stdin) else { return Ok((None, None)) };
        // The manifest came from there.
        if detach::is_detached() || self.file == Path::new("-") {
            return Ok((None, None));
        }
        let raw = if container.tty && !global.json {
            RawMode::enter().context("cannot set up the terminal")?
        } else {
            None
        };
        let resizes = if container.tty { Some(exec::resizes()?) } else { None };
        let input = Input { bytes: read_stdin(WRITE), resizes, raw: raw.is_some() };
        Ok((Some(input), raw))
    }

    fn pod(&self) -> anyhow::Result<Pod> {
        let mut text = String::new();
        let name = self.file.display();
        if self.file == Path::new("-") {
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        } else {
            text = std::fs::read_to_string(&self.file).with_context(|| format!("cannot read {name}"))?;
        }
        Pod::parse_named(&text, self.pod.as_deref()).with_context(|| name.to_string())
    }

    fn options(&self, global: &Global) -> anyhow::Result<RunOptions> {
        let layout = global.products();
        let product = |given: &Option<PathBuf>, pick: fn(&image_builder::layout::Layout) -> PathBuf| match (
            given, &layout,
        ) {
            (Some(path), _) => Ok(path.clone()),
            (None, Ok(layout)) => Ok(pick(layout)),
            (None, Err(error)) => Err(anyhow::anyhow!("{error:#}; or name files with --kernel and --initrd")),
        };
        let kernel =
            product(self.uki.as_ref().map_or(&self.kernel, |_| &self.uki), |layout| layout.vmlinux())?;
        let root = match (&self.disk, &self.uki) {
            (_, Some(_)) => {
                anyhow::ensure!(
                    self.firmware.is_file(),
                    "there is no {}; install the Debian package ovmf, or name firmware with --firmware",
                    self.firmware.display()
                );
                Root::Unified { firmware: self.firmware.clone() }
            }
            (Some(disk), None) => Root::disk(disk, self.disk_as)?,
            (None, None) if self.sandbox_api.is_some() => {
                Root::Initrd(product(&self.initrd, |layout| layout.flavour_initrd(SANDBOX))?)
            }
            (None, None) => Root::Initrd(product(&self.initrd, |layout| layout.initrd())?),
        };
        for path in [kernel.as_path(), root.path()] {
            anyhow::ensure!(path.is_file(), "there is no {}; `image-builder build` makes it", path.display());
        }
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        let in_out = |pick: fn(&image_builder::layout::Layout) -> PathBuf| size(&pick(layout.as_ref().ok()?));
        let sizes = Timings {
            vmlinuz_bytes: in_out(|layout| layout.vmlinuz()),
            initrd_bytes: size(root.path()),
            agent_bytes: in_out(|layout| layout.agent()),
            ..Timings::default()
        };
        let mut cmdline = self.append.clone();
        if self.debug_console {
            cmdline.extend(DEBUG_CONSOLE.map(str::to_owned));
        }
        let parent =
            self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(RunOptions {
            kernel,
            root,
            machine: if self.uki.is_some() { self.machine.or(Some(Machine::Q35)) } else { self.machine },
            accel: self.accel,
            memory_mib: self.memory,
            cpus: self.cpus,
            cmdline,
            network: Network::new(&self.network, &self.publish)?,
            sandbox_api: self.sandbox_api()?,
            base: parent.to_path_buf(),
            cache: global.cache()?,
            state: state(),
            keep: self.keep,
            bench_exec: self.bench_exec.unwrap_or(if self.timings { BENCH_EXEC } else { 0 }),
            sizes,
            table: self.timings && !detach::is_detached(),
            ceiling: self.unpacking.ceiling(),
        })
    }

    fn sandbox_api(&self) -> anyhow::Result<Option<SandboxApi>> {
        let Some(address) = self.sandbox_api else { return Ok(None) };
        let token = self.sandbox_api_token.as_deref().map(read_token).transpose()?;
        Ok(Some(SandboxApi { address, token }))
    }

    fn sink(&self, global: &Global, names: Vec<String>) -> Arc<dyn Sink> {
        if detach::is_detached() {
            return Arc::new(detach::NotesOnly(TextSink::new(
                names,
                false,
                std::io::sink(),
                std::io::stderr(),
            )));
        }
        if global.json {
            return Arc::new(JsonSink::new(std::io::stdout()));
        }
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let terminals = (out.is_terminal(), err.is_terminal());
        Arc::new(TextSink::new(names, colour, out, err).on_terminals(terminals.0, terminals.1))
    }
}

/// The first line of a file, which a token is kept in so that no list of processes shows it.
fn read_token(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?
    };
    let token = text.lines().next().unwrap_or_default().trim();
    anyhow::ensure!(!token.is_empty(), "{name} has no token in its first line");
    anyhow::ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "the token in {name} has blanks or letters that no HTTP header holds; use printable ASCII"
    );
    Ok(token.to_owned())
}

/// Turns signals into requests to stop: the first one politely, the second one at once.
fn stop_requests() -> anyhow::Result<watch::Receiver<StopRequest>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut interrupt: Signal = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let (ask, asked) = watch::channel(StopRequest::No);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            ask.send_modify(|request| {
                *request = if *request == StopRequest::No { StopRequest::Graceful } else { StopRequest::Now };
            });
        }
    });
    Ok(asked)
}

impl ImageArgs {
    fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let ceiling = self.unpacking.ceiling();
        let image = image_builder::image::prepare_within(&self.reference, &global.cache()?, ceiling)?;
        let value = serde_json::json!({
            "disk": image.disk, "bytes": image.size, "cached": image.cached, "config": image.config,
        });
        global.print(&value, || format!("{} ({} bytes)", image.disk.display(), image.size))?;
        Ok(ExitCode::SUCCESS)
    }
}
