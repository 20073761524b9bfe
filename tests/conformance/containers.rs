//! The life of containers: create, start, pause, resume, update, statistics, remove.

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent::*;
use protocols::oci;
use tests::{Code, Container};

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Bare "CreateContainer" Failure a_container_without_a_sandbox_is_refused;
    Pod "CreateContainer" Success a_created_container_waits_for_its_start;
    Pod "CreateContainer" Failure an_id_that_is_taken_is_refused_and_its_owner_lives_on;
    Pod "CreateContainer" Failure a_missing_program_fails_the_create_and_leaves_nothing;
    Pod "StartContainer" Success a_started_container_executes;
    Pod "StartContainer" Failure a_container_starts_once;
    Pod "RemoveContainer" Success removing_a_running_container_answers_waiters_and_readers;
    Pod "RemoveContainer" Failure what_is_removed_is_not_found;
    Pod "PauseContainer" Success a_paused_container_stands_still;
    Pod "PauseContainer" Failure what_is_paused_is_not_paused_again;
    Pod "ResumeContainer" Success a_resumed_container_goes_on;
    Pod "ResumeContainer" Failure what_runs_is_not_resumed;
    Pod "UpdateContainer" Success limits_change_while_a_container_lives;
    Pod "UpdateContainer" Success an_update_without_resources_changes_nothing;
    Pod "UpdateContainer" Failure impossible_limits_are_refused;
    Pod "StatsContainer" Success statistics_tell_what_was_used;
    Pod "StatsContainer" Failure statistics_of_nobody_are_not_found;
    Pod "GetOOMEvent" Success every_kill_for_lack_of_memory_is_told;
    Pod "GetOOMEvent" Failure a_wait_for_a_kill_ends_with_its_deadline;
};

/// A request that names a container and nothing else.
macro_rules! of {
    ($request:ident, $id:expr) => {
        $request { container_id: $id.to_owned(), ..Default::default() }
    };
}

/// A creation as the shim would ask for it.
pub(crate) fn creation(world: &World, id: &str) -> CreateContainerRequest {
    let mut sent = CreateContainerRequest::default();
    drop(world.guest.container(id).request(|request| sent = request.clone()));
    sent
}

async fn a_container_without_a_sandbox_is_refused(world: &World) -> Result<()> {
    let request = creation(world, &world.id("early"));
    let text = world.refused("CreateContainer", &request, Code::FAILED_PRECONDITION).await?;
    ensure!(text.contains("no sandbox"), "{text}");
    Ok(())
}

async fn a_created_container_waits_for_its_start(world: &World) -> Result<()> {
    let id = world.id("c");
    let mut request = creation(world, &id);
    let script = ["sh", "-c", "echo executed"].map(str::to_owned).to_vec();
    request.OCI.mut_or_insert_default().Process.mut_or_insert_default().Args = script;
    world.done("CreateContainer", &request).await?;
    let container = world.guest.container(&id).made();
    // A read may come before the start, and blocks.
    let init = container.init();
    let read = tokio::spawn(async move { init.read(100).await });
    ensure!(
        container.stats().await?.cgroup_stats.pids_stats.current == 1,
        "it has another number of processes"
    );
    ensure!(!read.is_finished(), "it executed before its start");
    container.start().await?;
    ensure!(read.await?? == b"executed\n");
    Ok(())
}

async fn an_id_that_is_taken_is_refused_and_its_owner_lives_on(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let before = world.snapshot().await?;
    let request = creation(world, container.id());
    world.refused("CreateContainer", &request, Code::ALREADY_EXISTS).await?;
    ensure!(container.sh("echo alive").await? == "alive");
    world.is_as_before(&before).await
}

async fn a_missing_program_fails_the_create_and_leaves_nothing(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let id = world.id("c");
    let mut request = creation(world, &id);
    request.OCI.mut_or_insert_default().Process.mut_or_insert_default().Args = vec!["/bin/none".into()];
    let text = world.refused("CreateContainer", &request, Code::INVALID_ARGUMENT).await?;
    ensure!(text.contains("/bin/none was not found"), "{text}");
    world.refused("StartContainer", &of!(StartContainerRequest, id), Code::NOT_FOUND).await?;
    world.is_as_before(&before).await
}

async fn a_started_container_executes(world: &World) -> Result<()> {
    let container = world.container().script("echo hello; exit 7").create().await?;
    world.done("StartContainer", &of!(StartContainerRequest, container.id())).await?;
    let finished = container.output().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (7, &b"hello\n"[..]), "{finished:?}");
    Ok(())
}

async fn a_container_starts_once(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let again = of!(StartContainerRequest, container.id());
    world.refused("StartContainer", &again, Code::FAILED_PRECONDITION).await?;
    container.signal("", 9).await?;
    container.wait().await?;
    world.refused("StartContainer", &again, Code::FAILED_PRECONDITION).await?;
    Ok(())
}

async fn removing_a_running_container_answers_waiters_and_readers(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let container = world.container().run().await?;
    let (waits, reads) = (container.init(), container.init());
    let wait = tokio::spawn(async move { waits.wait().await });
    let read = tokio::spawn(async move { reads.read(100).await });
    // A round trip later both are at the agent.
    container.sh("true").await?;
    world.done("RemoveContainer", &of!(RemoveContainerRequest, container.id())).await?;
    ensure!(wait.await?? == 137, "the waiter has another status");
    ensure!(read.await??.is_empty(), "the reader has more than the end");
    world.is_as_before(&before).await
}

async fn what_is_removed_is_not_found(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let request = RemoveContainerRequest { timeout: 30, ..of!(RemoveContainerRequest, container.id()) };
    world.done("RemoveContainer", &request).await?;
    world.refused("RemoveContainer", &request, Code::NOT_FOUND).await?;
    // The id is free.
    world.guest.container(container.id()).run().await?;
    Ok(())
}

/// Processor time that a container has used, in nanoseconds.
async fn used(container: &Container) -> Result<u64> {
    Ok(container.stats().await?.cgroup_stats.cpu_stats.cpu_usage.total_usage)
}

async fn a_paused_container_stands_still(world: &World) -> Result<()> {
    let container = world.container().script("while :; do :; done").run().await?;
    world.done("PauseContainer", &of!(PauseContainerRequest, container.id())).await?;
    let before = used(&container).await?;
    world.shared().await?.sh("sleep 0.3").await?;
    ensure!(used(&container).await? == before, "it goes on");
    // A signal reaches it all the same.
    container.signal("", 9).await?;
    ensure!(container.wait().await? == 137);
    Ok(())
}

async fn what_is_paused_is_not_paused_again(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    let request = of!(PauseContainerRequest, container.id());
    world.done("PauseContainer", &request).await?;
    world.refused("PauseContainer", &request, Code::FAILED_PRECONDITION).await?;
    let (code, text) = tests::refusal(container.exec(["true"]).start().await.map(drop));
    ensure!(code == Code::FAILED_PRECONDITION, "exec in a paused container: {code:?} {text}");
    Ok(())
}

async fn a_resumed_container_goes_on(world: &World) -> Result<()> {
    let container = world.container().script("read line; echo $line").run().await?;
    container.pause().await?;
    world.done("ResumeContainer", &of!(ResumeContainerRequest, container.id())).await?;
    container.init().write(b"goes on\n").await?;
    container.init().read_until("goes on").await?;
    Ok(())
}

async fn what_runs_is_not_resumed(world: &World) -> Result<()> {
    let id = world.shared().await?.id().to_owned();
    world.refused("ResumeContainer", &of!(ResumeContainerRequest, id), Code::FAILED_PRECONDITION).await?;
    Ok(())
}

fn memory(limit: i64) -> oci::LinuxResources {
    let mut resources = oci::LinuxResources::new();
    resources.Memory.mut_or_insert_default().Limit = limit;
    resources
}

fn update(id: &str, resources: oci::LinuxResources) -> UpdateContainerRequest {
    UpdateContainerRequest { resources: MessageField::some(resources), ..of!(UpdateContainerRequest, id) }
}

async fn limits(container: &Container) -> Result<(u64, u64)> {
    let stats = container.stats().await?.cgroup_stats.unwrap_or_default();
    Ok((stats.memory_stats.usage.limit, stats.pids_stats.limit))
}

async fn limits_change_while_a_container_lives(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    world.done("UpdateContainer", &update(container.id(), memory(64 << 20))).await?;
    let mut pids = oci::LinuxResources::new();
    pids.Pids.mut_or_insert_default().Limit = 9;
    world.done("UpdateContainer", &update(container.id(), pids)).await?;
    let now = limits(&container).await?;
    ensure!(now == (64 << 20, 9), "memory and pids are {now:?}");
    Ok(())
}

async fn an_update_without_resources_changes_nothing(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    container.update(Some(memory(48 << 20))).await?;
    let before = limits(&container).await?;
    world.done("UpdateContainer", &of!(UpdateContainerRequest, container.id())).await?;
    ensure!(limits(&container).await? == before);
    Ok(())
}

async fn impossible_limits_are_refused(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    container.update(Some(memory(48 << 20))).await?;
    let before = limits(&container).await?;
    let mut processors = oci::LinuxResources::new();
    processors.CPU.mut_or_insert_default().Cpus = "nonsense".into();
    world.refused("UpdateContainer", &update(container.id(), processors), Code::INVALID_ARGUMENT).await?;
    ensure!(limits(&container).await? == before, "limits changed with a refused update");
    let nobody = of!(UpdateContainerRequest, "nobody");
    world.refused("UpdateContainer", &nobody, Code::NOT_FOUND).await?;
    Ok(())
}

async fn statistics_tell_what_was_used(world: &World) -> Result<()> {
    let container = world.container().run().await?;
    container.sh("i=0; while [ $i -lt 500 ]; do i=$((i+1)); done").await?;
    let request = of!(StatsContainerRequest, container.id());
    let stats: StatsContainerResponse = world.ok("StatsContainer", &request).await?;
    let stats = &stats.cgroup_stats;
    ensure!(stats.cpu_stats.cpu_usage.total_usage > 0, "no processor time");
    ensure!(stats.memory_stats.usage.usage > 0, "no memory");
    ensure!(stats.memory_stats.stats.contains_key("anon"), "memory.stat is not there");
    ensure!(stats.memory_stats.usage.limit == u64::MAX, "no limit is {}", stats.memory_stats.usage.limit);
    // Who asks for no limit has a half of the pod's, which is 1024 at least.
    ensure!(stats.pids_stats.current == 1 && stats.pids_stats.limit >= 512, "{:?}", stats.pids_stats);
    Ok(())
}

async fn statistics_of_nobody_are_not_found(world: &World) -> Result<()> {
    world.refused("StatsContainer", &of!(StatsContainerRequest, "nobody"), Code::NOT_FOUND).await?;
    Ok(())
}

async fn every_kill_for_lack_of_memory_is_told(world: &World) -> Result<()> {
    const EAT: &str = "x=0123456789abcdef; while :; do x=$x$x; done";
    let limited = |resources: &mut oci::LinuxResources| {
        resources.Memory.mut_or_insert_default().Limit = 8 << 20;
    };
    let container = world.container().resources(limited).run().await?;
    for _ in 0..2 {
        ensure!(container.exec(["sh", "-c", EAT]).run().await?.status == 137, "it was not killed");
    }
    for _ in 0..2 {
        let event: OOMEvent = world.ok("GetOOMEvent", &GetOOMEventRequest::new()).await?;
        ensure!(event.container_id == container.id(), "the event is of {}", event.container_id);
    }
    Ok(())
}

async fn a_wait_for_a_kill_ends_with_its_deadline(world: &World) -> Result<()> {
    let answer = world.send_timed("GetOOMEvent", Vec::new(), 50_000_000).await?;
    crate::world::expect("GetOOMEvent", answer, Code::DEADLINE_EXCEEDED)?;
    Ok(())
}
