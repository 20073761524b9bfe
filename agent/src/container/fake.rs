//! Another [`Jailer`] for tests: directories for cgroups, sleeping programs for processes.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use oci_spec::runtime::{LinuxResources, RootBuilder, Spec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustjail::cgroup::{self, Cgroup, CgroupPath, Warning};
use rustjail::plan::{JailPlan, RootSwitch};
use rustjail::start::StartError;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::create::CreateRequest;
use super::label::SecurityModules;
use super::launch::{Handshake, Jailer, Newborn};
use super::oom::OomWatch;
use super::tools::{Facts, Paths, Settings, Tools};
use super::user::UserNames;
use super::view::SharedNamespaces;
use crate::device::container::Device;
use crate::device::watch::DeviceWatch;
use crate::heap::Trimmer;
use crate::patience::Patience;
use crate::process::command::Commands;
use crate::process::launch::{Launch, LaunchError, Launcher, Listening};
use crate::process::passfd::Ports;
use crate::reserve::Reserve;
use crate::storage::Storage;

/// How a launch goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Course {
    Lives,
    Fails,
    Panics,
    Hangs,
    /// Its end is never told.
    EndsUnheard,
}

pub(crate) struct Fake {
    cgroups: PathBuf,
    /// Of the next launches; those after them live.
    courses: Mutex<VecDeque<Course>>,
    /// Of all launches.
    pub(crate) plans: Mutex<Vec<JailPlan>>,
}

impl Jailer for Fake {
    fn cgroup(
        &self,
        path: &CgroupPath,
        _: Option<&LinuxResources>,
    ) -> Result<(Cgroup, Vec<Warning>), cgroup::Error> {
        Ok((Cgroup::create(&self.cgroups, path)?, Vec::new()))
    }

    fn launch(&self, launch: Launch) -> BoxFuture<'static, Result<Newborn, LaunchError>> {
        let course = self.courses.lock().unwrap().pop_front().unwrap_or(Course::Lives);
        self.plans.lock().unwrap().push(launch.plan);
        match course {
            Course::Fails => std::future::ready(Err(LaunchError::Panicked)).boxed(),
            Course::Panics => async { panic!("a bug") }.boxed(),
            Course::Hangs => std::future::pending().boxed(),
            Course::Lives => std::future::ready(Ok(born(&launch.cgroup, true))).boxed(),
            Course::EndsUnheard => std::future::ready(Ok(born(&launch.cgroup, false))).boxed(),
        }
    }
}

/// A process that dies with its cgroup, as the kernel would have it.
fn born(cgroup: &OwnedFd, is_heard: bool) -> Newborn {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id() as i32;
    let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let (told, exit) = watch::channel(None);
    let cgroup = fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).unwrap();
    let is_given_up = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&is_given_up);
    std::thread::spawn(move || {
        let status = end(child, || !cgroup.exists() || gone.load(Ordering::SeqCst));
        if is_heard {
            told.send_replace(Some(status));
        } else {
            // Kept, so that the end stays unknown.
            std::mem::forget(told);
        }
    });
    Newborn {
        pid,
        pidfd,
        inner_pid: Some(pid),
        exit,
        cause: Default::default(),
        terminal: None,
        handshake: Box::new(Hand { is_given_up, is_released: false.into() }),
    }
}

fn end(mut child: Child, is_over: impl Fn() -> bool) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        }
        if is_over() {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Hand {
    is_given_up: Arc<AtomicBool>,
    is_released: AtomicBool,
}

impl Handshake for Hand {
    fn enter(&self) -> Result<Option<OwnedFd>, StartError> {
        Ok(None)
    }

    fn release(&self) -> Result<(), StartError> {
        self.is_released.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn watch(self: Box<Self>, _: String, _: Option<Listening>) -> JoinHandle<Result<(), StartError>> {
        self.is_released.store(true, Ordering::SeqCst);
        tokio::spawn(std::future::ready(Ok(())))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if !self.is_released.load(Ordering::SeqCst) {
            self.is_given_up.store(true, Ordering::SeqCst);
        }
    }
}

/// Tools that make fakes below `dir`, and the fake; `courses` are those of the first launches.
pub(crate) fn tools(dir: &Path, courses: &[Course]) -> (Arc<Tools>, Arc<Fake>) {
    let (cgroups, state) = (dir.join("cgroup"), dir.join("state"));
    fs::create_dir(&cgroups).unwrap();
    let courses = Mutex::new(courses.iter().copied().collect());
    let fake = Arc::new(Fake { cgroups: cgroups.clone(), courses, plans: Mutex::default() });
    // Never asked.
    let launcher = Arc::new(Launcher::new(Path::new("/bin/true"), Arc::default()).unwrap());
    let reserve = Arc::new(Reserve::new(&cgroups));
    let tools = Arc::new(Tools {
        jailer: Arc::clone(&fake) as _,
        commands: Arc::new(Commands::new(launcher, cgroups.clone())),
        storages: Arc::default(),
        devices: DeviceWatch::deaf(Path::new("/nonexistent"), Duration::from_secs(600)),
        patience: Patience::for_devices(),
        streams: Arc::default(),
        unread: Arc::default(),
        trimmer: Trimmer::default(),
        memory_events: OomWatch::start(Arc::clone(&reserve), || ()).unwrap(),
        reserve,
        filters: Default::default(),
        paths: Paths { cgroup: cgroups, state },
        facts: Facts { root_switch: RootSwitch::Pivot, modules: SecurityModules::of_kernel() },
        settings: Settings {
            pipe_size: 0,
            cdi_timeout: Duration::from_secs(600),
            visible_cdi_devices: false,
        },
    });
    (tools, fake)
}

/// A container that needs nothing.
pub(crate) fn request() -> Box<CreateRequest> {
    let mut spec = Spec::default();
    spec.set_root(Some(RootBuilder::default().path("/nonexistent/rootfs").build().unwrap()));
    Box::new(CreateRequest {
        spec,
        devices: Vec::new(),
        storages: Vec::new(),
        shared_mounts: Vec::new(),
        shared_pid_namespace: false,
        user: UserNames::default(),
        ports: Ports::default(),
    })
}

/// A container whose device never comes, and before which a volume of `dir` is mounted.
pub(crate) fn waiting_request(dir: &Path) -> Box<CreateRequest> {
    let device = Device {
        id: "1f/1f".into(),
        kind: "blk".into(),
        container_path: "/dev/data".into(),
        ..Device::default()
    };
    let storage = Storage {
        driver: "local".into(),
        source: "local".into(),
        mount_point: dir.join("volume"),
        ..Storage::default()
    };
    Box::new(CreateRequest { devices: vec![device], storages: vec![storage], ..*request() })
}

/// What stands for the namespaces of a pod.
pub(crate) fn namespaces() -> SharedNamespaces {
    let fd = || Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
    SharedNamespaces { ipc: fd(), uts: fd(), pid: Arc::default() }
}
