//! `run`: boots the pod of a manifest or of one image, in the foreground or in the background.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use machine::vm::{Accel, Attachment, DEBUG_CONSOLE, Machine, Qemu, Root};
use pods::run::exec::WRITE;
use pods::run::network::{Network, NetworkMode, Publish};
use pods::run::output::{JsonSink, Sink, TextSink};
use pods::run::sandbox_api::SandboxApi;
use pods::run::state::{Origin, StateError};
use pods::run::terminal::{RawMode, read_stdin};
use pods::run::timing::Timings;
use pods::run::{Input, Pod, RunOptions, StopRequest};
use pods::run::{quantity, scratch};
use store::arch::Arch;
use store::layout::Layout;
use store::text;
use tokio::sync::watch;

use crate::detach;
use crate::exec::resizes;
use crate::global::{Global, exit_code, missing_product, state};
use crate::images::{Fetching, PullPolicy, Unpacking, pack, resolve};
use crate::platform::architecture;
use crate::request::{ContainerArgs, name_of};
use crate::signals::{End, interruptible_for};

/// The flavour whose agent has the sandbox API.
const SANDBOX: &str = "sandbox";
/// How many execs are measured when the table is asked for and nothing else is said.
pub(crate) const BENCH_EXEC: u32 = 20;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The image: a file, a directory, or a name such as nginx:1.27, which is pulled if it is not in the cache.
    #[arg(value_name = "IMAGE", required_unless_present = "file", conflicts_with = "file")]
    image: Option<String>,
    /// The command and its arguments [default: the image's].
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Run the pod of this manifest; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The pod to run if the file has several.
    #[arg(long, value_name = "NAME", requires = "file")]
    pod: Option<String>,
    /// Run the pod in the background. Print its name and return when all containers have started and are ready.
    #[arg(short, long)]
    detach: bool,
    /// Leave nothing behind when the pod has ended. Without this option, `logs`, `inspect` and `restart` still work
    /// until `rm`.
    #[arg(long)]
    rm: bool,
    /// When to pull an image from its registry [default: as the manifest says; otherwise missing].
    #[arg(long, value_name = "WHEN", value_enum)]
    pull: Option<PullPolicy>,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    container: ContainerArgs,
    /// Keep the pod running after its main containers have ended, until `stop`.
    #[arg(long)]
    keep: bool,
    /// Show a table of sizes and times at the end.
    #[arg(help_heading = "Guest", long)]
    timings: bool,
    /// Measure this many execs of /bin/true before the pod ends.
    #[arg(help_heading = "Guest", long, value_name = "N")]
    bench_exec: Option<u32>,
    /// The machine model [default: the smallest that has room for all disks].
    #[arg(help_heading = "Guest", long)]
    machine: Option<Machine>,
    /// The accelerator.
    #[arg(help_heading = "Guest", long, default_value = "auto")]
    accel: Accel,
    /// The guest's memory: a number in MiB, or with a unit such as 1G or 512Mi [default: 512 MiB plus the containers'
    /// limits].
    #[arg(help_heading = "Guest", short, long, value_name = "SIZE", value_parser = mebibytes)]
    memory: Option<u32>,
    /// A disk of this size for what containers write, instead of the guest's memory. The host's file takes only what is
    /// written, and goes with the pod [default: the sum of the limits of ephemeral-storage; without limits no disk].
    #[arg(help_heading = "Guest", long, value_name = "SIZE", value_parser = scratch_size)]
    scratch: Option<u64>,
    /// The number of guest CPUs.
    #[arg(help_heading = "Guest", long, value_name = "N", default_value_t = 1, value_parser = processors)]
    cpus: u32,
    /// Add words to the kernel's command line, for example `agent.log=debug`.
    #[arg(help_heading = "Guest", long, value_name = "WORD")]
    append: Vec<String>,
    /// The pod's network: `user` (QEMU's user-mode network, with published ports), `none`, or `netns=NAME[/LINK]` (a
    /// link of a network namespace; needs root).
    #[arg(help_heading = "Guest", long, value_name = "MODE", default_value = "user")]
    network: NetworkMode,
    /// Publish a port of the pod on this host.
    #[arg(help_heading = "Guest", short, long, value_name = "[HOSTIP:]HOSTPORT:GUESTPORT[/tcp|/udp]")]
    publish: Vec<Publish>,
    /// Switch on the sandbox API (E2B's envd protocol), and serve it at this address of the host. Port 0 selects a free
    /// port. Without a token, everybody who reaches the address is root in the container. Boots the initrd of the
    /// flavour `sandbox`.
    #[arg(help_heading = "Guest", long, value_name = "HOSTIP:PORT", conflicts_with = "uki")]
    sandbox_api: Option<SocketAddr>,
    /// A file whose first line is the access token of the sandbox API; `-` is standard input.
    #[arg(help_heading = "Guest", long, value_name = "FILE", requires = "sandbox_api")]
    sandbox_api_token: Option<PathBuf>,
    /// Switch on the debug console that `console` connects to.
    #[arg(help_heading = "Guest", long)]
    debug_console: bool,
    /// The kernel [default: OUT/vmlinux].
    #[arg(help_heading = "Guest", long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initrd [default: OUT/initrd.img].
    #[arg(help_heading = "Guest", long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// A disk made by `image-builder disk`, instead of an initrd. Its .cmdline file must be beside it.
    #[arg(help_heading = "Guest", long, value_name = "FILE", conflicts_with = "initrd")]
    disk: Option<PathBuf>,
    /// A unified kernel image made by `image-builder uki`, instead of kernel and initrd. Firmware starts it.
    #[arg(help_heading = "Guest", long, value_name = "FILE", conflicts_with_all = ["initrd", "kernel", "disk", "append", "debug_console"])]
    uki: Option<PathBuf>,
    /// The firmware for --uki.
    #[arg(
        help_heading = "Guest",
        long,
        value_name = "FILE",
        default_value = "/usr/share/ovmf/OVMF.fd",
        requires = "uki"
    )]
    firmware: PathBuf,
    /// How to attach the disk of --disk.
    #[arg(help_heading = "Guest", long, value_enum, default_value_t, requires = "disk")]
    disk_as: Attachment,
    #[command(flatten)]
    unpacking: Unpacking,
}

impl RunArgs {
    /// As it was before records of pods that have ended were kept.
    #[must_use]
    pub fn without_a_trace(self) -> Self {
        Self { rm: true, ..self }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Anything that keeps a container from being started.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let child = detach::child();
        let is_input = self.file.as_deref() == Some(Path::new("-"));
        ensure!(
            !self.detach || !is_input,
            "--detach needs the manifest in a file, and not from standard input"
        );
        ensure!(
            !self.detach || self.sandbox_api_token.as_deref() != Some(Path::new("-")),
            "--detach needs the token in a file, and not from standard input"
        );
        let pod = self.pod(child.as_deref())?;
        let base = self.base();
        // Said before images are fetched and packed for nothing.
        if child.is_none() {
            if state().find(pod.name()).is_ok() {
                return Err(StateError::Running(pod.name().to_owned()).into());
            }
            // No image is worth a look where there is no guest at all.
            if self.kernel.is_none() && self.uki.is_none() {
                global.products()?;
            }
        }
        let prepared = interruptible_for(async {
            // The child finds what its parent has fetched and packed.
            let policy = if child.is_some() { Some(PullPolicy::Missing) } else { self.pull };
            let sources = resolve(&pod, &base, policy, &self.fetching, global).await?;
            let (wanted, ceiling) = (self.fetching.platform.arch, self.unpacking.ceiling());
            let arch = architecture(&pod, &base, &sources, wanted, ceiling, global).await?;
            if child.is_none() {
                // What is missing is said before images are packed.
                self.products(arch, global)?;
                if arch != Arch::host() && !global.json {
                    let image = self.image.as_deref().unwrap_or_else(|| pod.name());
                    eprintln!(
                        "pith: {} is for {arch}: the guest is emulated, which is slow",
                        text::printable(image)
                    );
                }
                pack(&pod, &base, &sources, arch, ceiling, global).await?;
            }
            Ok((sources, arch))
        });
        let (sources, arch) = match prepared.await? {
            Ok(prepared) => prepared,
            Err(code) => return Ok(code),
        };
        if self.detach && child.is_none() {
            return detach::run(pod.name(), &state(), global).await;
        }
        let options = self.options(global, base, sources, arch)?;
        let names = pod.all().map(|container| container.name.clone()).collect();
        let sink = self.sink(global, names);
        let (input, _raw) = self.input(&pod, global)?;
        let outcome = pods::run::run(pod, options, sink, stop_requests()?, input).await?;
        Ok(exit_code(outcome.code))
    }

    /// What paths of images and volumes are relative to.
    fn base(&self) -> PathBuf {
        let parent =
            self.file.as_deref().and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new(".")).to_path_buf()
    }

    /// The user's own standard input, for the first container that wants one; and the terminal's raw mode while it lasts, if
    /// that container has a terminal.
    fn input(&self, pod: &Pod, global: &Global) -> anyhow::Result<(Option<Input>, Option<RawMode>)> {
        let Some(container) = pod.all().find(|container| container.stdin) else { return Ok((None, None)) };
        // The manifest came from there.
        if detach::child().is_some() || self.file.as_deref() == Some(Path::new("-")) {
            return Ok((None, None));
        }
        let raw = if container.tty && !global.json {
            RawMode::enter().context("cannot set up the terminal")?
        } else {
            None
        };
        let resizes = if container.tty { Some(resizes()?) } else { None };
        let input = Input { bytes: read_stdin(WRITE), resizes, raw: raw.is_some() };
        Ok((Some(input), raw))
    }

    /// The pod to run. `name` is what the parent of this process has called it.
    fn pod(&self, name: Option<&str>) -> anyhow::Result<Pod> {
        if let Some(image) = &self.image {
            let name = match (name, &self.container.name) {
                (Some(name), _) => name.to_owned(),
                (None, Some(name)) => name.clone(),
                (None, None) => name_of(image, number()),
            };
            return self.container.pod(&name, image, &self.command, |name| std::env::var_os(name));
        }
        let file = self.file.as_deref().unwrap_or(Path::new("-"));
        if let Some(option) = self.container.given() {
            anyhow::bail!(
                "{option} is for `run IMAGE`; the manifest {} says that for its containers",
                file.display()
            );
        }
        Pod::parse_named(&read(file)?, self.pod.as_deref()).with_context(|| file.display().to_string())
    }

    /// Refuses what guests of an architecture cannot have on this host.
    fn check(&self, arch: Arch) -> anyhow::Result<()> {
        if let Some(machine) = self.machine.filter(|machine| machine.arch() != arch) {
            anyhow::bail!(
                "the machine of --machine is for {}, and the guest is for {arch}; leave --machine out, or take images for \
                 the other architecture",
                machine.arch()
            );
        }
        ensure!(
            self.uki.is_none() || arch == Arch::X86_64,
            "the guest is for {arch}, and firmware starts unified kernel images for {} only; leave --uki out",
            Arch::X86_64
        );
        let qemu = Qemu::of(arch);
        if arch != Arch::host() {
            ensure!(
                self.accel != Accel::Kvm,
                "the guest is for {arch}, which KVM cannot run here; leave --accel out"
            );
            qemu.needed().with_context(|| format!("the guest is for {arch}"))?;
        }
        Ok(())
    }

    /// The kernel, and what the guest runs.
    fn products(&self, arch: Arch, global: &Global) -> anyhow::Result<(PathBuf, Root)> {
        self.check(arch)?;
        let product = |given: &Option<PathBuf>, pick: fn(&Layout) -> PathBuf| match given {
            Some(path) => Ok(path.clone()),
            None => global.products().map(|layout| pick(&layout.for_arch(arch))),
        };
        let given = [&self.kernel, &self.uki, &self.initrd, &self.disk];
        let kernel =
            product(self.uki.as_ref().map_or(&self.kernel, |_| &self.uki), |layout| layout.kernel())?;
        let root = match (&self.disk, &self.uki) {
            (_, Some(_)) => {
                ensure!(
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
            if path.is_file() {
                continue;
            }
            let is_given = given.iter().any(|given| given.as_deref() == Some(path));
            ensure!(!is_given, "there is no file {}", path.display());
            bail!(missing_product(path, arch));
        }
        Ok((kernel, root))
    }

    fn options(
        &self,
        global: &Global,
        base: PathBuf,
        sources: BTreeMap<String, String>,
        arch: Arch,
    ) -> anyhow::Result<RunOptions> {
        let (kernel, root) = self.products(arch, global)?;
        let layout = global.products().map(|layout| layout.for_arch(arch));
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        let in_out = |pick: fn(&Layout) -> PathBuf| size(&pick(layout.as_ref().ok()?));
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
        Ok(RunOptions {
            kernel,
            root,
            arch,
            machine: if self.uki.is_some() { self.machine.or(Some(Machine::Q35)) } else { self.machine },
            accel: self.accel,
            memory_mib: self.memory,
            cpus: self.cpus,
            scratch: self.scratch,
            cmdline,
            network: Network::new(&self.network, &self.publish)?,
            sandbox_api: self.sandbox_api()?,
            base,
            cache: global.cache()?,
            state: state(),
            keep: self.keep,
            bench_exec: self.bench_exec.unwrap_or(if self.timings { BENCH_EXEC } else { 0 }),
            sizes,
            table: self.timings && detach::child().is_none(),
            ceiling: self.unpacking.ceiling(),
            sources,
            leave_record: !self.rm,
            origin: origin(),
            verbatim: self.is_alone() && !global.json && !std::io::stdout().is_terminal(),
        })
    }

    fn sandbox_api(&self) -> anyhow::Result<Option<SandboxApi>> {
        let Some(address) = self.sandbox_api else { return Ok(None) };
        let token = self.sandbox_api_token.as_deref().map(read_token).transpose()?;
        Ok(Some(SandboxApi { address, token }))
    }

    fn sink(&self, global: &Global, names: Vec<String>) -> Arc<dyn Sink> {
        if detach::child().is_some() {
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
        let sink = TextSink::new(names, colour, out, err).on_terminals(terminals.0, terminals.1);
        Arc::new(if self.is_alone() { sink.alone() } else { sink })
    }

    /// Whether the pod is one container that is shown as if it ran right here.
    fn is_alone(&self) -> bool {
        self.image.is_some() && detach::child().is_none()
    }
}

/// The text of a file; `-` is standard input.
fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("cannot read standard input");
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// The first line of a file, which a token is kept in so that no list of processes shows it.
fn read_token(file: &Path) -> anyhow::Result<String> {
    let (name, text) = (file.display(), read(file)?);
    let token = text.lines().next().unwrap_or_default().trim();
    ensure!(!token.is_empty(), "{name} has no token in its first line");
    ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "the token in {name} has blanks or letters that no HTTP header holds; use printable ASCII"
    );
    Ok(token.to_owned())
}

/// Turns signals into requests to stop: the first one politely, the second one at once.
fn stop_requests() -> anyhow::Result<watch::Receiver<StopRequest>> {
    let mut end = End::listen()?;
    let (ask, asked) = watch::channel(StopRequest::No);
    tokio::spawn(async move {
        loop {
            end.next().await;
            ask.send_modify(|request| {
                *request = if *request == StopRequest::No { StopRequest::Graceful } else { StopRequest::Now };
            });
        }
    });
    Ok(asked)
}

/// A number for a name.
fn number() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Seeded anew in each process.
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u16
}

/// How this process was started, so that the pod can be started again. Nothing where it cannot be: the manifest came from
/// standard input.
fn origin() -> Option<Origin> {
    let arguments: Option<Vec<String>> =
        std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    let arguments = arguments?;
    if arguments.iter().any(|word| word == "-") {
        return None;
    }
    Some(Origin { arguments, directory: std::env::current_dir().ok()? })
}

/// Reads a value of `--cpus`.
pub(crate) fn processors(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=255).contains(number));
    number.ok_or_else(|| "a guest has whole processors, from 1 to 255".to_owned())
}

/// Reads a value of `--memory`: a plain number is in MiB.
pub(crate) fn mebibytes(text: &str) -> Result<u32, String> {
    let mib = match text.parse::<u64>() {
        Ok(mib) => mib,
        Err(_) => bytes(text)?.div_ceil(1 << 20),
    };
    u32::try_from(mib).map_err(|_| format!("{text:?} is more memory than a guest can have"))
}

/// Reads a number of bytes with a unit.
fn bytes(text: &str) -> Result<u64, String> {
    // As docker writes it: `512m` and `512mb` are no thousandths here.
    let docker = [('k', "Ki"), ('m', "Mi"), ('g', "Gi"), ('t', "Ti")];
    let short = text.strip_suffix(['b', 'B']).filter(|short| short.ends_with(char::is_alphabetic));
    let short = short.unwrap_or(text);
    let found = docker.iter().find_map(|(unit, name)| Some((short.strip_suffix(*unit)?, name)));
    let is_known = match found {
        Some((number, name)) => quantity::bytes(&format!("{number}{name}")),
        None => quantity::bytes(short),
    };
    is_known.map_err(|_| format!("{text:?} is no size such as 512m, 64Mi or 1.5G"))
}

/// Reads a value of `--scratch`.
fn scratch_size(text: &str) -> Result<u64, String> {
    if text.parse::<u64>().is_ok() {
        return Err(format!("{text:?} has no unit; write for example {text}Gi"));
    }
    let size = bytes(text)?;
    scratch::check(size).map(|()| size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_for_what_is_written_has_a_unit_and_bounds() {
        for (text, size) in [
            ("10Gi", 10 << 30),
            ("10g", 10 << 30),
            ("0.5g", 1 << 29),
            ("512mb", 512 << 20),
            ("20GiB", 20 << 30),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(scratch_size(text), Ok(size), "{text}");
        }
        for text in ["10", "", "1Ki", "100Ti", "x"] {
            assert!(scratch_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_given_in_mebibytes_or_with_a_unit() {
        for (text, mib) in
            [("512", 512), ("1G", 954), ("1Gi", 1024), ("256m", 256), ("2g", 2048), ("300M", 287)]
        {
            assert_eq!(mebibytes(text), Ok(mib), "{text}");
        }
        for text in ["", "x", "-1", "1.5x", "99999999999999"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
    }
}
