//! Hostile containers and hostile clients, many of them in one guest, one after the other. After each the same is asked: did
//! the agent answer all the while, does another container's exec work, does the agent hold what it held before.
//!
//! A new abuse is a function, and a line in the test whose guest it shares. The tables are shown whether the tests pass or not.

mod clients;
mod containers;
mod files;
mod kernel;
mod limits;
mod output;
mod sandbox;
mod scene;

use anyhow::{Result, ensure};
use tests::Guest;

use scene::Scene;

/// Options that cannot be had, or of which two want the same: the boot goes on.
const OPTIONS: [&str; 5] = [
    "agent.log_vport=1024",
    "agent.passfd_listener_port=1024",
    "agent.server_addr=unix:///nowhere/agent.sock",
    "agent.container_pipe_size=2147483647",
    "agent.hotplug_timeout=4294967295",
];

/// All ports that a guest can have.
const PORTS: [&str; 4] = [
    "agent.log_vport=1025",
    "agent.debug_console",
    "agent.debug_console_vport=1026",
    "agent.passfd_listener_port=1027",
];

/// What comes late is waited for, for ten minutes.
const PATIENT: [&str; 2] = ["agent.cdi_timeout=600", "agent.hotplug_timeout=600"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_harms_nobody_but_itself() -> Result<()> {
    let guest = Guest::builder().memory(768).cmdline(&OPTIONS).boot().await?;
    let console = guest.vm().console_log();
    for warned in [
        "agent.log_vport=1024: the port of agent.server_addr",
        "agent.passfd_listener_port=1024: the port of agent.server_addr",
        "agent.server_addr cannot be had",
    ] {
        ensure!(console.contains(warned), "no word of {warned:?}:\n{console}");
    }
    let scene = Scene::set(guest).await?;
    scene.survives("B1", "ends by every signal", containers::ends_by_signal).await;
    scene.survives("B17", "an argv[0] of 40,000 bytes", containers::long_names).await;
    scene.survives("B21", "escape sequences in argv", containers::forged_names).await;
    scene.survives("B19", "a limit too low to start", limits::no_memory).await;
    scene.survives("B25", "memory up to its limit", limits::memory_hogs).await;
    scene.survives("B18", "its own cgroup frozen", containers::frozen).await;
    scene.survives("B24", "the exec that joins stopped", containers::stopped).await;
    scene.survives("B7", "ids with the pod's names", containers::names_of_the_pod).await;
    scene.survives("B11", "the guest's console", containers::consoles).await;
    scene.survives("B26", "a fork bomb", limits::fork_bomb).await;
    let console = scene.guest.vm().console_log();
    ensure!(console.contains("agent.container_pipe_size cannot be had"), "{console}");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_fills_is_emptied() -> Result<()> {
    let guest = Guest::builder().memory(768).cmdline(&PORTS).program("/probe", "probe")?.boot().await?;
    let scene = Scene::set(guest).await?;
    scene.survives("B22", "listening on the agent's ports", kernel::listens).await;
    scene.survives("B12", "what the kernel counts", kernel::hoards).await;
    scene.survives("B11", "the kernel's log", kernel::log).await;
    scene.survives("B26", "3,000 cgroups, and deep ones", limits::cgroups).await;
    let container = files::many(&scene).await?;
    let (longest, took) =
        scene.survives("B6", "60,000 files at removal", async |_| Ok(container.remove().await?)).await;
    // One that had to wait for the files waited for nearly all of it.
    ensure!(longest < took * 3 / 4, "a Check waited for {longest:?} of {took:?}");
    scene.survives("B26", "directories 20,000 deep", files::deep).await;
    scene.survives("B8", "output that nobody reads", output::talks).await;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_harms_nobody_but_itself() -> Result<()> {
    let guest = Guest::builder().memory(768).cmdline(&PORTS).cmdline(&PATIENT).boot().await?;
    // Creates that wait have a thread each, which leaves holes in the heap that others fill.
    let scene = Scene::set(guest).await?.keeping(4096);
    scene.survives("B5", "80 creates whose device never comes", containers::waiting_creates).await;
    scene.survives("B8", "120 execs, never read, never waited for", output::unread_output).await;
    scene.survives("B8", "single bytes, never read", output::small_writes).await;
    scene.survives("B9", "answers that are not read", clients::unread_answers).await;
    scene.survives("B9", "1,100 calls that wait", clients::waits).await;
    scene.survives("B9", "one stream id for all", clients::one_stream_id).await;
    scene.survives("B9", "frames that never end", clients::half_frames).await;
    scene.survives("B9", "requests that mean nothing", clients::garbage).await;
    scene.survives("B9", "500 connections", clients::connections).await;
    scene.survives("B5", "gone amid its calls", clients::vanishes).await;
    scene.survives("B8", "copies that are never finished", clients::unfinished_copies).await;
    scene.survives("B8", "streams that nobody claims", clients::unclaimed_streams).await;
    scene.survives("B22", "60 console sessions", clients::console_sessions).await;
    scene.survives("B9", "readers of the log that do not read", clients::log_readers).await;
    scene.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_sandbox_api_harms_nobody() -> Result<()> {
    let guest = Guest::builder().memory(768).flavour("sandbox").cmdline(&["agent.sandbox_api=vsock"]);
    // A thousand commands leave holes in the heap, which others fill: more than that does not come.
    let scene = Scene::set(guest.boot().await?).await?.keeping(4096);
    scene.survives("S1", "a thousand commands", sandbox::thousand_commands).await;
    scene.survives("S2", "200 idle connections", sandbox::idle_connections).await;
    scene.survives("S3", "a reader that stalls", sandbox::stalled_reader).await;
    scene.survives("S5", "heads and bodies without an end", sandbox::broken_requests).await;
    scene.survives("S6", "files without an end", sandbox::files_without_an_end).await;
    scene.survives("S1", "a thousand more", sandbox::thousand_commands).await;
    scene.survives_but_for_connections("S4", "clients that are killed", sandbox::killed_clients).await;
    scene.end().await
}
