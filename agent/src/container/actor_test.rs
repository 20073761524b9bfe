//! Lives of containers in odd orders, with another [`Jailer`](super::super::launch::Jailer).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use oci_spec::runtime::ProcessBuilder;
use tokio::task::JoinHandle;

use super::super::exec::ExecRequest;
use super::super::fake::{Course, Fake, namespaces, request, tools, waiting_request};
use super::super::handle::ContainerHandle;
use super::super::id::ContainerId;
use super::super::user::UserNames;
use super::super::view::{Neighbours, PodView};
use super::*;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Kind as _};
use crate::process::passfd::Ports;

struct Alone;

impl Neighbours for Alone {
    fn init_of(&self, _: &str) -> Option<i32> {
        None
    }
}

/// A container that nobody has created yet, and its world.
struct World {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    container: ContainerHandle,
    pod: Cancel,
    is_forgotten: Arc<AtomicBool>,
}

fn world(courses: &[Course]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (tools, fake) = tools(dir.path(), courses);
    let (pod, is_forgotten) = (Cancel::default(), Arc::new(AtomicBool::new(false)));
    let forgotten = Arc::clone(&is_forgotten);
    let forget = move || forgotten.store(true, Ordering::SeqCst);
    let id = ContainerId::parse("c1").unwrap();
    let container = ContainerHandle::spawn(id, &tools, pod.child(), forget);
    World { dir, fake, container, pod, is_forgotten }
}

fn exec(id: &str) -> Box<ExecRequest> {
    let process = ProcessBuilder::default().args(["true".to_owned()]).cwd("/").build().unwrap();
    Box::new(ExecRequest {
        exec_id: id.into(),
        process,
        user: UserNames::default(),
        ports: Ports::default(),
        apart: None,
    })
}

fn view() -> PodView {
    PodView { id: "pod".into(), namespaces: namespaces(), hooks: None, neighbours: Arc::new(Alone) }
}

impl World {
    async fn create(&self) -> Result<(), ContainerError> {
        self.container.create(request(), view()).await
    }

    /// Starts a job and lets it get as far as it can.
    fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(ContainerHandle) -> BoxFuture<'static, T>,
    ) -> JoinHandle<T> {
        tokio::spawn(job(self.container.clone()))
    }

    async fn launched(&self, count: usize) {
        while self.fake.plans.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Nothing of the container is left.
    #[track_caller]
    fn is_clean(&self) {
        let entries = |name: &str| fs::read_dir(self.dir.path().join(name)).into_iter().flatten().count();
        assert_eq!((entries("cgroup"), entries("state"), entries("volume")), (0, 0, 0));
        assert!(self.is_forgotten.load(Ordering::SeqCst), "the id is not free");
        assert_eq!(self.container.state(), State::Removed);
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, ContainerError>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn a_life_in_its_order() {
    let world = world(&[]);
    let container = &world.container;
    world.create().await.unwrap();
    assert_eq!(container.state(), State::Created);
    container.exec(exec("before")).await.unwrap();
    container.start().await.unwrap();
    assert_eq!(container.state(), State::Running);
    container.exec(exec("e1")).await.unwrap();
    let waiter = world.begin(|container| async move { container.process("").unwrap().wait().await }.boxed());
    container.signal("e1", 9).await.unwrap();
    assert_eq!(container.process("e1").unwrap().wait().await.unwrap(), 137);
    container.remove(0).await.unwrap();
    // Whoever waited learns the status.
    assert_eq!(waiter.await.unwrap().unwrap(), 137);
    world.is_clean();
    assert_eq!(world.fake.plans.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn what_comes_in_the_wrong_order_is_refused_and_harms_nothing() {
    let world = world(&[]);
    let container = &world.container;
    assert_eq!(kind(container.start().await), ErrorKind::State);
    assert_eq!(kind(container.exec(exec("e1")).await), ErrorKind::State);
    assert_eq!(kind(container.pause().await), ErrorKind::State);
    world.create().await.unwrap();
    assert_eq!(kind(world.create().await), ErrorKind::State);
    container.start().await.unwrap();
    container.remove(0).await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn ids_are_used_once_and_a_start_happens_once() {
    let world = world(&[]);
    let container = &world.container;
    world.create().await.unwrap();
    assert_eq!(kind(container.resume().await), ErrorKind::State);
    container.start().await.unwrap();
    assert_eq!(kind(container.start().await), ErrorKind::State);
    container.exec(exec("e1")).await.unwrap();
    assert_eq!(kind(container.exec(exec("e1")).await), ErrorKind::Exists);
    assert_eq!(kind(container.exec(exec("c1")).await), ErrorKind::Exists);
    container.process("").unwrap().signal(9).unwrap();
    assert_eq!(container.process("").unwrap().wait().await.unwrap(), 137);
    assert_eq!(container.state(), State::Stopped);
    assert_eq!(kind(container.exec(exec("e2")).await), ErrorKind::State);
    container.remove(0).await.unwrap();
    assert_eq!(kind(container.remove(0).await), ErrorKind::NotFound);
    assert_eq!(kind(container.start().await), ErrorKind::NotFound);
    world.is_clean();
}

#[tokio::test]
async fn a_container_that_was_never_started_is_removed() {
    let world = world(&[]);
    world.create().await.unwrap();
    world.container.remove(5).await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn a_create_that_fails_or_panics_leaves_nothing() {
    for course in [Course::Fails, Course::Panics] {
        let world = world(&[course]);
        assert_eq!(kind(world.create().await), ErrorKind::Internal, "{course:?}");
        world.is_clean();
    }
    let world = world(&[]);
    let mut request = request();
    request.spec.set_process(None);
    assert_eq!(kind(world.container.create(request, view()).await), ErrorKind::Invalid);
    world.is_clean();
}

#[tokio::test]
async fn an_exec_that_fails_or_panics_leaves_its_id_free_and_the_container_alive() {
    let world = world(&[Course::Lives, Course::Fails, Course::Panics]);
    let container = &world.container;
    world.create().await.unwrap();
    container.start().await.unwrap();
    assert_eq!(kind(container.exec(exec("e1")).await), ErrorKind::Internal);
    assert_eq!(kind(container.exec(exec("e1")).await), ErrorKind::Internal);
    container.exec(exec("e2")).await.unwrap();
    container.exec(exec("e1")).await.unwrap();
    container.remove(0).await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn a_removal_gives_up_a_create_that_waits_for_a_device() {
    let world = world(&[]);
    let request = waiting_request(world.dir.path());
    let create = world.begin(|container| async move { container.create(request, view()).await }.boxed());
    while !world.dir.path().join("state/c1").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    world.container.remove(0).await.unwrap();
    assert_eq!(kind(create.await.unwrap()), ErrorKind::Cancelled);
    // The device has ten minutes.
    assert!(began.elapsed() < Duration::from_secs(60));
    world.is_clean();
}

#[tokio::test]
async fn the_end_of_the_pod_gives_up_a_create_that_waits_for_its_process() {
    let world = world(&[Course::Hangs]);
    let create = world.begin(|container| async move { container.create(request(), view()).await }.boxed());
    world.launched(1).await;
    world.pod.cancel();
    assert_eq!(kind(create.await.unwrap()), ErrorKind::Cancelled);
    world.is_clean();
}

#[tokio::test]
async fn a_container_has_so_much_to_do_and_no_more() {
    const QUEUE: usize = 64;
    let world = world(&[Course::Lives, Course::Hangs]);
    world.create().await.unwrap();
    world.container.start().await.unwrap();
    let mut waiting = vec![world.begin(|container| async move { container.exec(exec("e0")).await }.boxed())];
    world.launched(2).await;
    for number in 1..=QUEUE {
        waiting.push(world.begin(move |container| {
            async move { container.exec(exec(&format!("e{number}"))).await }.boxed()
        }));
        tokio::task::yield_now().await;
    }
    let refused = world.container.exec(exec("one-too-many")).await;
    assert_eq!(kind(refused), ErrorKind::Busy);
    world.container.remove(0).await.unwrap_or_default();
    world.pod.cancel();
    for job in waiting {
        assert!(job.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_removal_gives_up_an_exec_and_what_waits_behind_it() {
    let world = world(&[Course::Lives, Course::Hangs]);
    world.create().await.unwrap();
    world.container.start().await.unwrap();
    let first = world.begin(|container| async move { container.exec(exec("e1")).await }.boxed());
    world.launched(2).await;
    let second = world.begin(|container| async move { container.exec(exec("e2")).await }.boxed());
    tokio::task::yield_now().await;
    world.container.remove(0).await.unwrap();
    assert_eq!(kind(first.await.unwrap()), ErrorKind::Cancelled);
    assert_eq!(kind(second.await.unwrap()), ErrorKind::Cancelled);
    world.is_clean();
}

#[tokio::test]
async fn a_process_whose_end_nobody_hears_of_does_not_keep_the_container() {
    let world = world(&[Course::EndsUnheard]);
    world.create().await.unwrap();
    world.container.start().await.unwrap();
    world.container.remove(0).await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn of_two_removals_one_wins() {
    let world = world(&[]);
    world.create().await.unwrap();
    world.container.start().await.unwrap();
    let (first, second) = tokio::join!(world.container.remove(0), world.container.remove(0));
    // Whose signals come first decides, and they are sent by threads.
    let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
    won.unwrap();
    assert_eq!(kind(lost), ErrorKind::NotFound);
    world.is_clean();
}

#[tokio::test]
async fn execs_have_the_filter_of_the_container() {
    let world = world(&[]);
    let mut request = request();
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let mut linux = request.spec.linux().clone().unwrap();
    linux.set_seccomp(Some(serde_json::from_str(profile).unwrap()));
    request.spec.set_linux(Some(linux));
    world.container.create(request, view()).await.unwrap();
    world.container.exec(exec("e1")).await.unwrap();
    world.container.exec(exec("e2")).await.unwrap();
    world.container.remove(0).await.unwrap();
    let plans = world.fake.plans.lock().unwrap();
    let filters: Vec<_> = plans.iter().map(|plan| &plan.seccomp.as_ref().unwrap().filter.program).collect();
    assert_eq!(filters.len(), 3);
    // The same one, not an equal one: that would have been compiled again.
    assert!(filters.iter().all(|filter| Arc::ptr_eq(filter, filters[0])));
}

#[tokio::test]
async fn an_actor_that_waits_for_jobs_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let (tools, _fake) = tools(dir.path(), &[]);
    let (_jobs, queue) = mpsc::channel(1);
    let id = ContainerId::parse("c1").unwrap();
    let shared = Arc::new(Shared::new(id, Cancel::default(), Arc::clone(&tools.unread)));
    let actor = run(shared, tools, queue, Box::new(|| ()));
    let size = std::mem::size_of_val(&actor);
    // Each container has one as long as it lives.
    assert!(size < 2048, "{size} bytes");
}
