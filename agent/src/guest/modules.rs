//! Kernel modules that the host wants to be there.
//!
//! Owns how a module is known to be there, and what loads one that is not. A module that is built into the kernel has a
//! directory in sysfs (if it has parameters or a version at all) and only gets its parameters; another one is the
//! business of the guest's `modprobe`, where its flavour carries one. Promises that a failure, of this or of what comes
//! after it ([`Loaded::take_back`]), leaves parameters and modules as they were.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Kind, chain, kind_of_errno};
use crate::process::command::{Command, CommandError, Commands};

/// The program that loads modules.
const MODPROBE: &str = "/sbin/modprobe";
/// How long it may take: a module may wait for its hardware.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The request is at fault.
    #[error("kernel module {name:?}: {problem}")]
    Invalid {
        /// Its name as given.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Neither in the kernel nor to be loaded.
    #[error(
        "kernel module {0:?}: this kernel has no such module built in that could be found, and this guest has no \
         {MODPROBE}; use a kernel that has it built in (kernel-config/feature), or a kernel and a flavour with modules"
    )]
    Absent(String),
    /// A parameter was not taken.
    #[error("set parameter {parameter:?} of kernel module {name:?}")]
    Parameter {
        /// The module.
        name: String,
        /// The parameter with its value.
        parameter: String,
        /// Why not.
        source: io::Error,
    },
    /// It was not loaded.
    #[error("load kernel module {name:?}")]
    Load {
        /// The module.
        name: String,
        /// Why not.
        source: CommandError,
    },
    /// The pod is going before it was loaded.
    #[error("kernel module {0:?} is not loaded: the sandbox is being destroyed")]
    Cancelled(String),
    /// The work on it panicked.
    #[error("the work on kernel module {0:?} panicked")]
    Panicked(String),
}

impl Kind for ModuleError {
    fn kind(&self) -> ErrorKind {
        match self {
            ModuleError::Invalid { .. } => ErrorKind::Invalid,
            ModuleError::Absent(_) => ErrorKind::Unsupported,
            ModuleError::Parameter { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                ErrorKind::Invalid
            }
            ModuleError::Parameter { source, .. } => kind_of_errno(source.raw_os_error()),
            ModuleError::Load { source, .. } => source.kind(),
            ModuleError::Cancelled(_) => ErrorKind::Cancelled,
            ModuleError::Panicked(_) => ErrorKind::Internal,
        }
    }
}

/// A module and its parameters, `NAME=VALUE` or `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    name: String,
    parameters: Vec<String>,
}

impl Module {
    /// Takes a name and parameters that can be a module's: nothing that would be another file, or an option of
    /// `modprobe`.
    pub(crate) fn parse(name: &str, parameters: Vec<String>) -> Result<Module, ModuleError> {
        let invalid = |problem: String| Err(ModuleError::Invalid { name: name.to_owned(), problem });
        let is_name = |text: &str| {
            !text.starts_with('-')
                && !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if name.is_empty() {
            return invalid("the name is empty".into());
        }
        if !is_name(name) {
            return invalid("a name has letters, digits, - and _ only".into());
        }
        let parameter_name = |text: &str| text.split('=').next().unwrap_or_default().replace('.', "_");
        if let Some(bad) =
            parameters.iter().find(|text| !is_name(&parameter_name(text)) || text.contains('\0'))
        {
            return invalid(format!("{bad:?} is no parameter, which is NAME=VALUE"));
        }
        Ok(Module { name: name.to_owned(), parameters })
    }

    /// Its directory in sysfs, where - and _ are the same.
    fn directory(&self, sysfs: &Path) -> PathBuf {
        sysfs.join("module").join(self.name.replace('-', "_"))
    }
}

/// What loading modules has changed.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    changes: Vec<Change>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Parameter { path: PathBuf, before: String },
    Module(String),
}

/// Sees to it that all modules are there, until `cancel` says that nobody wants them any more. A failure takes back what was
/// done for those before.
pub(crate) async fn load(
    commands: &Arc<Commands>,
    sysfs: &Path,
    modules: &[Module],
    cancel: &Cancel,
) -> Result<Loaded, ModuleError> {
    let mut loaded = Loaded::default();
    for module in modules {
        if let Err(error) = load_one(commands, sysfs, module, &mut loaded, cancel).await {
            loaded.take_back(commands).await;
            return Err(error);
        }
    }
    Ok(loaded)
}

async fn load_one(
    commands: &Arc<Commands>,
    sysfs: &Path,
    module: &Module,
    loaded: &mut Loaded,
    cancel: &Cancel,
) -> Result<(), ModuleError> {
    let (of, sysfs) = (module.clone(), sysfs.to_owned());
    // A parameter's file is code of the module: it may take its time.
    let built_in = on_a_thread(move || {
        of.directory(&sysfs).is_dir().then(|| {
            let mut changes = Vec::new();
            (set_parameters(&of, &sysfs, &mut changes), changes)
        })
    });
    let panicked = || ModuleError::Panicked(module.name.clone());
    if let Some((result, changes)) = built_in.await.ok_or_else(panicked)? {
        loaded.changes.extend(changes);
        return result;
    }
    let args = ["-v", "--", &module.name].into_iter().chain(module.parameters.iter().map(String::as_str));
    let mut command = Command::new(MODPROBE, args);
    command.deadline = DEADLINE;
    let output = tokio::select! {
        biased;
        // A module that is loaded is taken back, also if nobody wants it any more.
        output = commands.run(command) => output.and_then(|output| output.success(MODPROBE)),
        () = cancel.cancelled() => return Err(ModuleError::Cancelled(module.name.clone())),
    };
    match output {
        Ok(_) => {
            tracing::info!(name = module.name, "kernel module loaded");
            loaded.changes.push(Change::Module(module.name.clone()));
            Ok(())
        }
        Err(CommandError::Missing(_)) => Err(ModuleError::Absent(module.name.clone())),
        Err(source) => Err(ModuleError::Load { name: module.name.clone(), source }),
    }
}

/// Work on files, beside the runtime's thread; none when it panicked.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Writes the parameters that can be written. The others were decided when the kernel started. Blocks.
fn set_parameters(module: &Module, sysfs: &Path, changes: &mut Vec<Change>) -> Result<(), ModuleError> {
    for parameter in &module.parameters {
        // A name alone switches something on, as on the kernel's command line.
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, "1"));
        let path = module.directory(sysfs).join("parameters").join(name);
        let is_writable = std::fs::metadata(&path).is_ok_and(|file| file.permissions().mode() & 0o222 != 0);
        if !is_writable {
            tracing::warn!(
                module = module.name,
                parameter,
                "a parameter of a built-in module cannot be set now; the kernel's command line can (MODULE.NAME=VALUE)"
            );
            continue;
        }
        let failed = |source| ModuleError::Parameter {
            name: module.name.clone(),
            parameter: parameter.clone(),
            source,
        };
        let before = std::fs::read_to_string(&path).map_err(failed)?;
        std::fs::write(&path, value).map_err(failed)?;
        changes.push(Change::Parameter { path, before: before.trim_end().to_owned() });
    }
    Ok(())
}

impl Loaded {
    /// Makes parameters and modules what they were, newest first. What fails is logged.
    pub(crate) async fn take_back(self, commands: &Arc<Commands>) {
        for change in self.changes.into_iter().rev() {
            match change {
                Change::Parameter { path, before } => {
                    let restore = move || {
                        if let Err(error) = std::fs::write(&path, before) {
                            tracing::error!(path = %path.display(), %error, "a module's parameter is not restored");
                        }
                    };
                    if on_a_thread(restore).await.is_none() {
                        tracing::error!("restoring a module's parameter panicked");
                    }
                }
                Change::Module(name) => {
                    let command = Command::new(MODPROBE, ["-r", "--", &name]);
                    let removed = commands.run(command).await.and_then(|output| output.success(MODPROBE));
                    if let Err(error) = removed {
                        tracing::error!(name, error = %chain(&error), "a kernel module is not removed");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, parameters: &[&str]) -> Result<Module, ModuleError> {
        Module::parse(name, parameters.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn what_cannot_be_a_module_is_refused() {
        for name in ["", "-r", "../x", "a b", "a/b", "nul\0"] {
            let error = module(name, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name:?}");
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        for parameter in ["", "=1", "../x=1", "-f", "a=\0"] {
            assert_eq!(module("m", &[parameter]).unwrap_err().kind(), ErrorKind::Invalid, "{parameter:?}");
        }
        assert!(module("nf-tables", &["hashsize=16", "verbose", "path=/a b", "a.b=1"]).is_ok());
    }

    #[test]
    fn a_built_in_module_gets_the_parameters_that_can_be_written() {
        let sysfs = tempfile::tempdir().unwrap();
        let parameters = sysfs.path().join("module/nf_x/parameters");
        std::fs::create_dir_all(&parameters).unwrap();
        for (name, mode) in [("size", 0o644), ("fixed", 0o444), ("flag", 0o600)] {
            std::fs::write(parameters.join(name), "old\n").unwrap();
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(parameters.join(name), permissions).unwrap();
        }
        let module = module("nf-x", &["size=16", "fixed=2", "unknown=3", "flag"]).unwrap();
        assert!(module.directory(sysfs.path()).is_dir());
        let mut changes = Vec::new();
        set_parameters(&module, sysfs.path(), &mut changes).unwrap();
        let read = |name: &str| std::fs::read_to_string(parameters.join(name)).unwrap();
        assert_eq!([read("size"), read("fixed"), read("flag")], ["16", "old\n", "1"]);
        let change = |name: &str| Change::Parameter { path: parameters.join(name), before: "old".into() };
        assert_eq!(changes, [change("size"), change("flag")]);
    }
}
