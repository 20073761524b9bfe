//! Runs the boot table. Every function here answers the same question for one kind of step: was it there already,
//! is it done now, or why not.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::hostname;
use crate::step::{BootStep, Mount, Need, Node, Step, TABLE};

/// A boot step failed.
#[derive(Debug, Error)]
#[error("{step}")]
pub struct StepError {
    /// The step, printed.
    pub step: String,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

/// How a step ended.
#[derive(Debug)]
pub enum Outcome {
    /// Done now.
    Done,
    /// Nothing to do: the kernel or an earlier run did it.
    Present,
    /// Failed; pods still run without it.
    Warning(StepError),
    /// Failed; the guest is not fit to run containers.
    Failed(StepError),
}

/// What a boot did, step by step.
#[derive(Debug, Default)]
pub struct BootReport {
    /// Each step in the order of [`TABLE`].
    pub steps: Vec<Ran>,
}

/// A step that has run.
#[derive(Debug)]
pub struct Ran {
    /// The step, printed.
    pub step: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, on the kernel's clock since its start (`CLOCK_BOOTTIME`).
    pub ended: Duration,
}

impl BootReport {
    /// The failures pods can live with.
    pub fn warnings(&self) -> impl Iterator<Item = &StepError> {
        self.steps.iter().filter_map(|ran| match &ran.outcome {
            Outcome::Warning(error) => Some(error),
            _ => None,
        })
    }

    /// The failures that leave the guest unfit.
    pub fn failures(&self) -> impl Iterator<Item = &StepError> {
        self.steps.iter().filter_map(|ran| match &ran.outcome {
            Outcome::Failed(error) => Some(error),
            _ => None,
        })
    }
}

/// Runs [`TABLE`] in order, to its end whatever fails on the way.
pub fn boot() -> BootReport {
    run(TABLE, Path::new("/"))
}

/// Runs `table` with every path taken below `root`.
fn run(table: &[BootStep], root: &Path) -> BootReport {
    let mut report = BootReport::default();
    for BootStep { need, step } in table {
        let printed = step.to_string();
        let outcome = match execute(step, root) {
            Ok(outcome) => outcome,
            Err(source) => {
                let error = StepError { step: printed.clone(), source };
                match need {
                    Need::Must => Outcome::Failed(error),
                    Need::Should => Outcome::Warning(error),
                }
            }
        };
        report.steps.push(Ran { step: printed, outcome, ended: since_boot() });
    }
    report
}

/// The time since the kernel's start; zero where the clock cannot be read.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

fn execute(step: &Step, root: &Path) -> io::Result<Outcome> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    match step {
        Step::Dir { path, mode } => make_dir(&at(path), *mode),
        Step::Mount(mount) => mount_on(mount, &at(mount.target)),
        Step::RootMount { proc, through } => mount_root(root, proc, &at(through)),
        Step::Symlink { path, target } => make_link(&at(path), target),
        Step::Node(node) => make_node(node, &at(node.path)),
        Step::ShareMounts { path } => share_mounts(&at(path)),
        Step::DelegateControllers { path } => delegate_controllers(&at(path)),
        Step::Write { path, text } => write_setting(&at(path), text),
        Step::Limit { path, text } => match write_setting(&at(path), text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Outcome::Present),
            result => result,
        },
        Step::Unlimited { resource, .. } => take_away_limit(*resource),
        Step::OpenFiles { soft, hard } => raise_open_files(*soft, *hard),
        Step::Session => lead_session(),
        Step::Hostname { file, default } => name_host(&at(file), default),
    }
}

fn make_dir(path: &Path, mode: u32) -> io::Result<Outcome> {
    match fs::create_dir(path) {
        Ok(()) => {
            // The mode given to mkdir(2) is cut by the umask.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            Ok(Outcome::Done)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(Outcome::Present),
        Err(error) => Err(error),
    }
}

fn mount_on(mount: &Mount, target: &Path) -> io::Result<Outcome> {
    // A table that cannot be read means that /proc is not mounted yet.
    let mounts = mountinfo::mounts().unwrap_or_default();
    if mountinfo::top(&mounts, target).is_some_and(|top| top.fstype == mount.fstype) {
        return Ok(Outcome::Present);
    }
    let data = Some(mount.data).filter(|data| !data.is_empty());
    nix::mount::mount(Some(mount.fstype), target, Some(mount.fstype), mount.flags, data)?;
    Ok(Outcome::Done)
}

/// Binds the root to another directory, and moves that mount onto the root, as switch_root(8) does. All threads of this process
/// share its root, and so do the kernel's, which start modprobe(8).
fn mount_root(root: &Path, proc: &str, through: &Path) -> io::Result<Outcome> {
    if mountinfo::root_can_be_pivoted(&mountinfo::mounts()?) {
        return Ok(Outcome::Present);
    }
    let mount =
        |from: &Path, to: &Path, flags| nix::mount::mount(Some(from), to, None::<&str>, flags, None::<&str>);
    mount(root, through, MsFlags::MS_BIND)?;
    let proc = proc.trim_start_matches('/');
    mount(&root.join(proc), &through.join(proc), MsFlags::MS_MOVE)?;
    nix::unistd::chdir(through)?;
    mount(Path::new("."), root, MsFlags::MS_MOVE)?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    Ok(Outcome::Done)
}

fn make_link(path: &Path, target: &str) -> io::Result<Outcome> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(Outcome::Present);
    }
    symlink(target, path)?;
    Ok(Outcome::Done)
}

fn make_node(node: &Node, path: &Path) -> io::Result<Outcome> {
    let made =
        mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(node.mode), makedev(node.major, node.minor));
    match made {
        Ok(()) => {
            fs::set_permissions(path, fs::Permissions::from_mode(node.mode))?;
            Ok(Outcome::Done)
        }
        Err(Errno::EEXIST) => Ok(Outcome::Present),
        Err(errno) => Err(errno.into()),
    }
}

fn share_mounts(path: &Path) -> io::Result<Outcome> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SHARED;
    nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    Ok(Outcome::Done)
}

/// Controllers are enabled one by one, since the kernel refuses a line as a whole; all that fail are named.
fn delegate_controllers(cgroup: &Path) -> io::Result<Outcome> {
    let available = fs::read_to_string(cgroup.join("cgroup.controllers"))?;
    let control = cgroup.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control)?;
    let missing = missing_controllers(&available, &enabled);
    let mut refused = String::new();
    for controller in &missing {
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            write!(refused, " {controller} ({error})").map_err(io::Error::other)?;
        }
    }
    match (missing.is_empty(), refused.is_empty()) {
        (_, false) => Err(io::Error::other(format!("the kernel refused{refused}"))),
        (true, true) => Ok(Outcome::Present),
        (false, true) => Ok(Outcome::Done),
    }
}

fn missing_controllers<'a>(available: &'a str, enabled: &str) -> Vec<&'a str> {
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    available.split_whitespace().filter(|controller| !enabled.contains(controller)).collect()
}

fn write_setting(path: &Path, text: &str) -> io::Result<Outcome> {
    if fs::read_to_string(path)?.trim() == text {
        return Ok(Outcome::Present);
    }
    fs::write(path, text)?;
    Ok(Outcome::Done)
}

fn take_away_limit(resource: Resource) -> io::Result<Outcome> {
    if getrlimit(resource)? == (RLIM_INFINITY, RLIM_INFINITY) {
        return Ok(Outcome::Present);
    }
    setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY)?;
    Ok(Outcome::Done)
}

fn raise_open_files(soft: u64, hard: u64) -> io::Result<Outcome> {
    let (soft_now, hard_now) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft_now >= soft && hard_now >= hard {
        return Ok(Outcome::Present);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(soft_now), hard.max(hard_now))?;
    Ok(Outcome::Done)
}

fn lead_session() -> io::Result<Outcome> {
    match nix::unistd::setsid() {
        Ok(_session) => Ok(Outcome::Done),
        // It leads a process group already: a second run, or started as a job of a shell.
        Err(Errno::EPERM) => Ok(Outcome::Present),
        Err(errno) => Err(errno.into()),
    }
}

fn name_host(file: &Path, default: &str) -> io::Result<Outcome> {
    if hostname::is_set() {
        return Ok(Outcome::Present);
    }
    hostname::set_hostname(&hostname::configured(file, default)).map_err(io::Error::other)?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(need: Need, step: Step) -> BootStep {
        BootStep { need, step }
    }

    fn tidy(report: &BootReport) -> Vec<String> {
        report.steps.iter().map(|ran| format!("{:?}", ran.outcome).chars().take(7).collect()).collect()
    }

    #[test]
    fn a_second_run_finds_everything_present() {
        let root = tempfile::tempdir().unwrap();
        let table = [
            entry(Need::Must, Step::Dir { path: "/var", mode: 0o755 }),
            entry(Need::Must, Step::Dir { path: "/var/tmp", mode: 0o1777 }),
            entry(Need::Must, Step::Symlink { path: "/var/run", target: "/run" }),
        ];
        assert_eq!(tidy(&run(&table, root.path())), ["Done", "Done", "Done"]);
        assert_eq!(tidy(&run(&table, root.path())), ["Present", "Present", "Present"]);
        let mode = fs::metadata(root.path().join("var/tmp")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o1777);
        assert_eq!(fs::read_link(root.path().join("var/run")).unwrap(), Path::new("/run"));
    }

    #[test]
    fn a_failure_is_named_by_need_and_does_not_stop_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let table = [
            entry(Need::Should, Step::Dir { path: "/missing/a", mode: 0o755 }),
            entry(Need::Must, Step::Symlink { path: "/missing/b", target: "x" }),
            entry(Need::Must, Step::Dir { path: "/c", mode: 0o755 }),
        ];
        let report = run(&table, root.path());
        let warnings: Vec<_> = report.warnings().map(ToString::to_string).collect();
        let failures: Vec<_> = report.failures().map(ToString::to_string).collect();
        assert_eq!(warnings, ["make directory /missing/a (0755)"]);
        assert_eq!(failures, ["link /missing/b to x"]);
        assert!(root.path().join("c").is_dir());
    }

    #[test]
    fn a_file_where_a_directory_should_be_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("run"), "").unwrap();
        let report = run(&[entry(Need::Must, Step::Dir { path: "/run", mode: 0o755 })], root.path());
        assert_eq!(report.failures().count(), 1);
    }

    #[test]
    fn a_link_never_replaces_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("ptmx"), "device").unwrap();
        let table = [entry(Need::Must, Step::Symlink { path: "/ptmx", target: "pts/ptmx" })];
        assert_eq!(tidy(&run(&table, root.path())), ["Present"]);
        assert_eq!(fs::read(root.path().join("ptmx")).unwrap(), b"device");
    }

    #[test]
    fn only_controllers_that_are_off_are_enabled() {
        assert_eq!(
            missing_controllers("cpuset cpu io memory pids\n", "cpu pids\n"),
            ["cpuset", "io", "memory"]
        );
        assert!(missing_controllers("cpu\n", "cpu\n").is_empty());
        assert!(missing_controllers("", "").is_empty());
    }

    #[test]
    fn controllers_are_written_with_a_plus() {
        let cgroup = tempfile::tempdir().unwrap();
        fs::write(cgroup.path().join("cgroup.controllers"), "memory\n").unwrap();
        fs::write(cgroup.path().join("cgroup.subtree_control"), "\n").unwrap();
        let table = [entry(Need::Must, Step::DelegateControllers { path: "/" })];
        assert_eq!(tidy(&run(&table, cgroup.path())), ["Done"]);
        assert_eq!(fs::read_to_string(cgroup.path().join("cgroup.subtree_control")).unwrap(), "+memory");
    }

    #[test]
    fn a_limit_of_what_is_not_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let table = [
            entry(Need::Should, Step::Limit { path: "/keys", text: "0" }),
            entry(Need::Should, Step::Limit { path: "/pipes", text: "0" }),
        ];
        fs::write(root.path().join("pipes"), "64\n").unwrap();
        assert_eq!(tidy(&run(&table, root.path())), ["Present", "Done"]);
        assert!(!root.path().join("keys").exists());
        assert_eq!(fs::read_to_string(root.path().join("pipes")).unwrap(), "0");
    }

    #[test]
    fn a_setting_that_is_right_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("adj"), "0\n").unwrap();
        let table = [entry(Need::Should, Step::Write { path: "/adj", text: "-999" })];
        assert_eq!(tidy(&run(&table, root.path())), ["Done"]);
        assert_eq!(tidy(&run(&table, root.path())), ["Present"]);
    }
}
