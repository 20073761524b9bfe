//! The life of one container, from its bundle to its exit status.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{Hooks, Spec};
use rustix::process::{WaitId, WaitIdOptions};
use rustjail::cgroup::{Cgroup, CgroupPath};
use rustjail::plan::{self, Bundle, InitOptions, JailPlan, RootSwitch};
use rustjail::start::{self, Descriptors, Executed, Forker, Starting};
use serde_json::{Value, json};

use crate::Run;
use crate::config;
use crate::hook;
use crate::signal::Signals;
use crate::terminal::Shown;

/// How long the cgroup may take to become empty.
const REMOVE_DEADLINE: Duration = Duration::from_secs(10);

/// A bundle, read.
struct Container {
    id: String,
    bundle: PathBuf,
    spec: Spec,
}

/// Runs the bundle; gives the container's exit status.
pub(crate) fn run(options: &Run) -> Result<u8> {
    let signals = Signals::take()?;
    let container = Container::read(options)?;
    let switch = if options.no_pivot { RootSwitch::Move } else { root_switch()? };
    let bundle = Bundle { id: &container.id, path: &container.bundle.to_string_lossy() };
    let plan = plan::init(&container.spec, InitOptions { switch, bundle, filters: None })?;
    let path = container.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map(|path| path.to_string_lossy()).unwrap_or_default();
    let cgroup = Cgroup::create(&options.cgroup_root, &CgroupPath::parse(&path, &container.id)?)?;
    let status = container.limit(&cgroup).and_then(|()| container.live(&plan, &cgroup, &signals));
    // All that it has started, too; a failure of the container itself says more than one of this.
    let removed = cgroup.remove(REMOVE_DEADLINE).context("remove the cgroup");
    if let Some(hooks) = container.spec.hooks()
        && let Err(error) =
            hook::run("poststop", hooks.poststop(), &container.state("stopped", None), &container.bundle)
    {
        // A warning is all that the runtime spec allows.
        eprintln!("jail: warning: {error:#}");
    }
    let status = status?;
    removed?;
    Ok(status)
}

impl Container {
    fn read(options: &Run) -> Result<Container> {
        let bundle = options
            .bundle
            .canonicalize()
            .with_context(|| format!("open the bundle {}", options.bundle.display()))?;
        let spec = config::read(&bundle)?;
        let name = bundle.file_name().map(|name| name.to_string_lossy().into_owned());
        let id = options.id.clone().or(name).context("the bundle has no name: give --id")?;
        if id.is_empty() || id.contains(['/', '\0']) {
            bail!("the id {id:?} is empty or contains a slash");
        }
        Ok(Container { id, bundle, spec })
    }

    fn limit(&self, cgroup: &Cgroup) -> Result<()> {
        let resources = self.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        if let Some(resources) = resources {
            for warning in cgroup.apply(resources)? {
                eprintln!("jail: warning: {warning}");
            }
        }
        let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        Ok(cgroup.apply_devices(rules)?)
    }

    /// From the first process's birth to its end.
    fn live(&self, plan: &JailPlan, cgroup: &Cgroup, signals: &Signals) -> Result<u8> {
        let forker = Forker::spawn(Path::new("/proc/self/exe"))?;
        let joined = start::open_namespaces(plan)?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let descriptors = Descriptors {
            cgroup: Some(cgroup.dir()),
            streams: match plan.terminal {
                Some(_) => [None; 3],
                None => [Some(stdin.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd())],
            },
            namespaces: joined.iter().map(|(kind, fd)| (*kind, fd.as_fd())).collect(),
        };
        let starting = forker.start(plan, &descriptors)?;
        let hooks = self.spec.hooks().as_ref();
        let terminal = if plan.stop_for_hooks {
            starting.build()?;
            self.runtime_hooks(hooks, starting.pid())?;
            starting.enter()?
        } else {
            starting.prepare()?
        };
        let shown = terminal.map(Shown::begin).transpose()?;
        let status = self.execute(plan, &starting, hooks, signals);
        if let Some(shown) = shown {
            shown.end()?;
        }
        status
    }

    fn runtime_hooks(&self, hooks: Option<&Hooks>, pid: i32) -> Result<()> {
        let Some(hooks) = hooks else { return Ok(()) };
        let state = self.state("creating", Some(pid));
        #[allow(deprecated, reason = "bundles may still have them")]
        hook::run("prestart", hooks.prestart(), &state, &self.bundle)?;
        hook::run("createRuntime", hooks.create_runtime(), &state, &self.bundle)
    }

    fn execute(
        &self,
        plan: &JailPlan,
        starting: &Starting,
        hooks: Option<&Hooks>,
        signals: &Signals,
    ) -> Result<u8> {
        starting.release()?;
        let listener = plan.seccomp.as_ref().and_then(|seccomp| seccomp.listener.as_ref());
        let listen = |fd: OwnedFd| match listener {
            Some(listener) => {
                start::hand_over(listener, &self.state("running", Some(starting.pid())), starting.pid(), fd)
            }
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        if let Executed::Failed(failure) = starting.executed(listen)? {
            wait(starting)?;
            return Err(failure.into());
        }
        if let Some(hooks) = hooks
            && let Err(error) = hook::run(
                "poststart",
                hooks.poststart(),
                &self.state("running", Some(starting.pid())),
                &self.bundle,
            )
        {
            // It is stopped then (runtime-spec, "Lifecycle").
            rustjail::pidfd_signal(starting.pidfd(), 9)?;
            wait(starting)?;
            return Err(error);
        }
        signals.pass_on(starting.pidfd())?;
        wait(starting)
    }

    /// The container's state (runtime-spec, "State").
    fn state(&self, status: &str, pid: Option<i32>) -> Value {
        let mut state = json!({
            "ociVersion": self.spec.version(),
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.spec.annotations().clone().unwrap_or_default(),
        });
        if let Some(pid) = pid {
            state["pid"] = json!(pid);
        }
        state
    }
}

/// Waits for the process's end: its exit status, or 128 and the signal's number.
fn wait(starting: &Starting) -> Result<u8> {
    let ended = rustix::process::waitid(WaitId::PidFd(starting.pidfd()), WaitIdOptions::EXITED)
        .context("wait for the container")?
        .context("wait for the container")?;
    let status = ended.exit_status().or(ended.terminating_signal().map(|signal| 128 + signal));
    status.and_then(|status| u8::try_from(status).ok()).context("the container ended in no known way")
}

/// Whether the root that this runs in can be pivoted: the kernel's first one cannot.
fn root_switch() -> Result<RootSwitch> {
    let mounts = mountinfo::mounts().context("read /proc/self/mountinfo")?;
    Ok(if mountinfo::root_can_be_pivoted(&mounts) { RootSwitch::Pivot } else { RootSwitch::Move })
}
