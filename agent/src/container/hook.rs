//! Hooks: programs of the guest that run at points of a container's life, with its state on stdin.
//!
//! Owns which hooks a container has, in what order they run, and whose failure counts. They come from two places: the
//! container's own spec (OCI runtime-spec, "POSIX-platform Hooks"), and a directory of the guest that the sandbox was
//! created with (*guest hooks*), whose executable files are hooks of every container. All run in the agent's own
//! namespaces.
//!
//! ```text
//! create ─ root built ─ prestart, createRuntime ─ jail stands ─ start ─ executes ─ poststart ─ … ─ all dead ─ poststop
//!                         │ fails (spec's)                             (beside other commands)      │
//!                         └─ taken back, poststop, error                                   storages go
//! ```
//!
//! Those that belong into the container's own namespaces (createContainer, startContainer) are its process's to run, by its
//! plan; this only gives them a deadline.
//!
//! Promises that a hook ends at its deadline with all it has started, and that it holds up nothing but the container it
//! runs for. Must never change a container, or wait for a child itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{self, Spec};
use rustjail::plan::JailPlan;
use serde_json::json;

use super::id::ContainerId;
use crate::error::{ErrorKind, Kind, chain};
use crate::process::command::{self, Command, CommandError, Commands};

/// How long a hook may take that says nothing of it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A point of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The container's root is built, and not entered yet.
    Prestart,
    /// The same point.
    CreateRuntime,
    /// The program executes.
    Poststart,
    /// All processes have ended.
    Poststop,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Prestart => "prestart",
            Stage::CreateRuntime => "createRuntime",
            Stage::Poststart => "poststart",
            Stage::Poststop => "poststop",
        }
    }

    /// The state that hooks of this point are told (runtime-spec, "State").
    fn status(self) -> &'static str {
        match self {
            Stage::Prestart | Stage::CreateRuntime => "creating",
            Stage::Poststart => "running",
            Stage::Poststop => "stopped",
        }
    }
}

/// Where a hook came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Spec,
    Guest,
}

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hook {
    stage: Stage,
    origin: Origin,
    program: String,
    /// Without the first one, which is the program.
    args: Vec<String>,
    env: Vec<String>,
    deadline: Duration,
}

impl Hook {
    /// Whether its failure is the container's.
    ///
    /// COMPAT(kata): `guest_hooks_that_fail_or_hang_are_no_failure_of_the_container`. A guest hook's failure is logged
    /// and nothing else.
    fn is_decisive(&self) -> bool {
        self.origin == Origin::Spec && matches!(self.stage, Stage::Prestart | Stage::CreateRuntime)
    }
}

/// A hook whose failure is the container's.
#[derive(Debug, thiserror::Error)]
#[error("{} hook {program}", stage.name())]
pub(crate) struct HookError {
    stage: Stage,
    program: String,
    source: CommandError,
}

impl Kind for HookError {
    fn kind(&self) -> ErrorKind {
        match &self.source {
            // The spec names a program that is not there: not a thing that this guest could have.
            CommandError::Missing(_) => ErrorKind::Invalid,
            other => other.kind(),
        }
    }
}

/// The hooks of one container.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    hooks: Vec<Hook>,
    id: String,
    bundle: PathBuf,
    /// Version and annotations of the spec.
    version: String,
    annotations: serde_json::Value,
}

impl Hooks {
    /// The hooks that `spec` names, and after them those of the guest's hook directory. Blocks.
    pub(super) fn of_container(
        id: &ContainerId,
        spec: &Spec,
        bundle: PathBuf,
        directory: Option<&Path>,
    ) -> Hooks {
        let mut hooks = of_spec(spec);
        hooks.extend(directory.map(scan).unwrap_or_default());
        Hooks {
            hooks,
            id: id.to_string(),
            bundle,
            version: spec.version().clone(),
            annotations: json!(spec.annotations().clone().unwrap_or_default()),
        }
    }

    /// Whether there are any of a point.
    pub(super) fn has(&self, stage: Stage) -> bool {
        self.hooks.iter().any(|hook| hook.stage == stage)
    }

    /// Runs the hooks of a point, one after the other. One that fails is logged; a decisive one is an error, and those
    /// after it do not run.
    ///
    /// # Errors
    /// [`HookError`] of a decisive hook.
    pub(super) async fn run(
        &self,
        commands: &Arc<Commands>,
        stage: Stage,
        pid: i32,
    ) -> Result<(), HookError> {
        for hook in self.hooks.iter().filter(|hook| hook.stage == stage) {
            let ran = commands.run(self.command(hook, pid)).await;
            let Err(source) = ran.and_then(|output| output.success(&hook.program)) else { continue };
            let failure = HookError { stage, program: hook.program.clone(), source };
            if hook.is_decisive() {
                return Err(failure);
            }
            tracing::warn!(container_id = %self.id, error = %chain(&failure), "a hook failed");
        }
        Ok(())
    }

    fn command(&self, hook: &Hook, pid: i32) -> Command {
        let mut command = Command::new(hook.program.clone(), hook.args.clone());
        command.env = hook.env.clone();
        command.deadline = hook.deadline;
        command.stdin = self.state(hook.stage.status(), pid).to_string().into_bytes();
        // After a failed create it is gone.
        if self.bundle.is_dir() {
            command.cwd = self.bundle.clone();
        }
        command
    }

    /// The state of the container (runtime-spec, "State").
    pub(super) fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut state = json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if status != Stage::Poststop.status() {
            state["pid"] = json!(pid);
        }
        state
    }
}

/// Gives the hooks of a plan that say nothing of it the deadline of all others.
pub(super) fn limit(plan: &mut JailPlan) {
    let hooks = &mut plan.hooks;
    for hook in hooks.create_container.iter_mut().chain(&mut hooks.start_container) {
        hook.timeout = hook.timeout.or(Some(DEADLINE.as_secs()));
    }
}

fn of_spec(spec: &Spec) -> Vec<Hook> {
    let Some(hooks) = spec.hooks() else { return Vec::new() };
    #[allow(deprecated, reason = "specs may still have them")]
    let prestart = hooks.prestart();
    [
        (Stage::Prestart, prestart),
        (Stage::CreateRuntime, hooks.create_runtime()),
        (Stage::Poststart, hooks.poststart()),
        (Stage::Poststop, hooks.poststop()),
    ]
    .into_iter()
    .flat_map(|(stage, list)| list.iter().flatten().map(move |hook| hook_of_spec(stage, hook)))
    .collect()
}

fn hook_of_spec(stage: Stage, hook: &runtime::Hook) -> Hook {
    let seconds = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    Hook {
        stage,
        origin: Origin::Spec,
        program: hook.path().to_string_lossy().into_owned(),
        args: hook.args().iter().flatten().skip(1).cloned().collect(),
        env: hook.env().clone().unwrap_or_default(),
        deadline: seconds.map_or(DEADLINE, Duration::from_secs),
    }
}

/// The hooks of a guest's hook directory: the executable files of one directory for each point, by name.
///
/// COMPAT(kata): `guest_hooks_that_fail_or_hang_are_no_failure_of_the_container`. A directory that is not there is
/// logged and nothing else.
fn scan(directory: &Path) -> Vec<Hook> {
    if !directory.is_dir() {
        tracing::warn!(path = %directory.display(), "there is no such directory of guest hooks");
    }
    [Stage::Prestart, Stage::Poststart, Stage::Poststop]
        .into_iter()
        .flat_map(|stage| {
            executables(&directory.join(stage.name())).into_iter().map(move |path| (stage, path))
        })
        .map(|(stage, program)| Hook {
            stage,
            origin: Origin::Guest,
            program,
            args: Vec::new(),
            env: vec![command::PATH.to_owned()],
            deadline: DEADLINE,
        })
        .collect()
}

fn executables(directory: &Path) -> Vec<String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %directory.display(), %error, "guest hooks cannot be looked at");
            return Vec::new();
        }
    };
    let is_executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(is_executable);
    let mut paths: Vec<_> = paths.filter_map(|path| path.into_os_string().into_string().ok()).collect();
    paths.sort();
    paths
}

/// Runs the hooks of [`Stage::Poststart`] beside whatever the container is asked for next. Ends when they have.
pub(super) fn poststart(
    commands: &Arc<Commands>,
    hooks: &Arc<Hooks>,
    pid: i32,
) -> tokio::task::JoinHandle<()> {
    let (commands, hooks) = (Arc::clone(commands), Arc::clone(hooks));
    tokio::spawn(async move {
        if let Err(error) = hooks.run(&commands, Stage::Poststart, pid).await {
            tracing::warn!(container_id = %hooks.id, error = %chain(&error), "a hook failed");
        }
    })
}

/// Runs the hooks of [`Stage::Poststop`], none of which can fail a removal.
pub(super) async fn poststop(commands: &Arc<Commands>, hooks: &Hooks) {
    if let Err(error) = hooks.run(commands, Stage::Poststop, 0).await {
        tracing::warn!(container_id = %hooks.id, error = %chain(&error), "a hook failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{HookBuilder, HooksBuilder};

    #[test]
    fn guest_hooks_are_executable_files_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, mode) in [
            ("prestart/20-b", 0o755),
            ("prestart/10-a", 0o755),
            ("prestart/README", 0o644),
            ("poststop/x", 0o700),
        ] {
            put(name, mode);
        }
        std::fs::create_dir_all(dir.path().join("prestart/00-directory")).unwrap();
        std::os::unix::fs::symlink("20-b", dir.path().join("prestart/30-link")).unwrap();
        let hooks = scan(dir.path());
        let seen: Vec<_> = hooks
            .iter()
            .map(|hook| (hook.stage, hook.program.rsplit('/').next().unwrap(), hook.is_decisive()))
            .collect();
        let (first, last) = (Stage::Prestart, Stage::Poststop);
        assert_eq!(
            seen,
            [(first, "10-a", false), (first, "20-b", false), (first, "30-link", false), (last, "x", false)]
        );
        assert_eq!(scan(&dir.path().join("none")), []);
    }

    #[test]
    fn a_specs_hooks_keep_their_order_and_their_weight() {
        let hook = |path: &str| HookBuilder::default().path(path).build().unwrap();
        let mut with_args = hook("/bin/h");
        with_args.set_args(Some(vec!["h".into(), "-v".into()])).set_timeout(Some(3));
        let mut spec = Spec::default();
        let hooks = HooksBuilder::default()
            .create_runtime(vec![with_args, hook("/bin/i")])
            .poststart(vec![hook("/bin/j")])
            .build();
        spec.set_hooks(Some(hooks.unwrap()));
        let hooks = of_spec(&spec);
        let seen: Vec<_> = hooks.iter().map(|hook| (hook.program.as_str(), hook.is_decisive())).collect();
        assert_eq!(seen, [("/bin/h", true), ("/bin/i", true), ("/bin/j", false)]);
        assert_eq!((hooks[0].args.as_slice(), hooks[0].deadline.as_secs()), (&["-v".to_owned()][..], 3));
        assert_eq!(hooks[1].deadline, DEADLINE);
        assert!(of_spec(&Spec::default()).is_empty());
    }

    #[test]
    fn a_hook_is_told_the_state_of_the_runtime_spec() {
        let hooks = Hooks {
            id: "c1".into(),
            bundle: "/run/c1".into(),
            version: "1.2.0".into(),
            annotations: json!({"a": "b"}),
            ..Hooks::default()
        };
        let expected = json!({
            "ociVersion": "1.2.0", "id": "c1", "status": "creating", "pid": 7, "bundle": "/run/c1",
            "annotations": {"a": "b"},
        });
        assert_eq!(hooks.state(Stage::CreateRuntime.status(), 7), expected);
        assert_eq!(hooks.state(Stage::Poststart.status(), 7)["status"], "running");
        let stopped = hooks.state(Stage::Poststop.status(), 7);
        assert_eq!((&stopped["status"], stopped.get("pid")), (&json!("stopped"), None));
    }
}
