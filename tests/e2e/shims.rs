//! The sequences of calls that Kata's shims make for a pod, with the requests in the shape in which they send them: a
//! root and files on virtio-fs, shared memory as a storage, namespaces left to the agent, no device rules.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::{AgentClient, MAC};
use protobuf::MessageField;
use protocols::agent::*;
use protocols::health::CheckRequest;
use protocols::{oci, types};
use tempfile::TempDir;
use tests::{Code, Container, ContainerBuilder, Guest, expect_code};

const SHARED: &str = "/run/kata-containers/shared/containers";
const SANDBOX: &str = "5a6f1c9c2d6b4f0f8f0f3b7c1d2e3f405a6f1c9c2d6b4f0f8f0f3b7c1d2e3f40";
const WEB: &str = "web0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4";
const SIDECAR: &str = "car1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5";

/// What the host shares: a root for each container, and files that are mounted into them.
fn shared_directory() -> Result<TempDir> {
    let shared = tempfile::tempdir()?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.context("busybox is missing: run `make setup`")?;
    let applets = Command::new(busybox).arg("--list").output().context("list busybox's applets")?.stdout;
    for id in [SANDBOX, WEB, SIDECAR] {
        let root = shared.path().join(id).join("rootfs");
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "data"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        std::fs::copy(busybox, root.join("bin/busybox"))?;
        for applet in String::from_utf8(applets.clone())?.lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        std::fs::write(shared.path().join(format!("{id}-1f2e-resolv.conf")), "nameserver 10.96.0.10\n")?;
        std::fs::write(
            shared.path().join(format!("{id}-3c4d-hosts")),
            "127.0.0.1 localhost\n10.88.0.7 web\n",
        )?;
        std::fs::write(shared.path().join(format!("{id}-5e6f-termination-log")), "")?;
    }
    Ok(shared)
}

fn sandbox_storages(shared: bool) -> Vec<Storage> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let files = Storage {
        driver: "virtio-fs".into(),
        source: "kataShared".into(),
        fstype: "virtiofs".into(),
        mount_point: format!("{SHARED}/"),
        ..Storage::default()
    };
    let memory = Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        options: words(&["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]),
        mount_point: "/run/kata-containers/sandbox/shm".into(),
        ..Storage::default()
    };
    if shared { vec![files, memory] } else { vec![memory] }
}

/// A container as Kubernetes and a shim make it.
fn container(guest: &Guest, id: &str, name: &str) -> ContainerBuilder {
    let file = |what: &str| format!("{SHARED}/{id}-{what}");
    let bind = ["rbind", "rprivate", "rw"];
    guest
        .container(id)
        .request(|request| request.storages.clear())
        .spec(|spec| {
            spec.Root.mut_or_insert_default().Path = format!("{SHARED}/{id}/rootfs");
            spec.Mounts.retain(|mount| mount.destination != "/dev/shm");
            spec.Annotations = HashMap::from([
                (
                    "io.kubernetes.cri.container-type".to_owned(),
                    if id == SANDBOX { "sandbox" } else { "container" }.to_owned(),
                ),
                ("io.kubernetes.container.name".to_owned(), name.to_owned()),
            ]);
        })
        .mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", &["rbind"])
        .mount("/etc/resolv.conf", "bind", &file("1f2e-resolv.conf"), &bind)
        .mount("/etc/hosts", "bind", &file("3c4d-hosts"), &bind)
        .mount("/dev/termination-log", "bind", &file("5e6f-termination-log"), &bind)
        .linux(|linux| linux.CgroupsPath = format!("/kubepods/besteffort/pod77/{id}"))
        .resources(|resources| {
            let cpu = oci::LinuxCPU { Shares: 2, Quota: 0, Period: 100_000, ..Default::default() };
            resources.CPU = MessageField::some(cpu);
        })
}

fn interface() -> UpdateInterfaceRequest {
    let address = |address: &str, mask: &str, family| types::IPAddress {
        family,
        address: address.into(),
        mask: mask.into(),
        ..Default::default()
    };
    let interface = types::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        hwAddr: MAC.into(),
        mtu: 1450,
        IPAddresses: vec![
            address("10.88.0.7", "16", types::IPFamily::v4.into()),
            address("fd00:88::7", "64", types::IPFamily::v6.into()),
        ],
        ..Default::default()
    };
    UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() }
}

fn routes() -> UpdateRoutesRequest {
    let route = |dest: &str, gateway: &str, scope: u32| types::Route {
        dest: dest.into(),
        gateway: gateway.into(),
        device: "eth0".into(),
        scope,
        family: types::IPFamily::v4.into(),
        ..Default::default()
    };
    let routes = vec![route("", "10.88.0.1", 0), route("10.88.0.0/16", "", 253)];
    UpdateRoutesRequest {
        routes: MessageField::some(Routes { Routes: routes, ..Default::default() }),
        ..Default::default()
    }
}

async fn network(guest: &Guest) -> Result<()> {
    let call = AgentClient::call;
    let api = guest.api();
    api.update_interface(call(), &interface()).await.context("UpdateInterface")?;
    api.update_routes(call(), &routes()).await.context("UpdateRoutes")?;
    let neighbour = types::ARPNeighbor {
        toIPAddress: MessageField::some(types::IPAddress {
            address: "10.88.0.1".into(),
            ..Default::default()
        }),
        device: "eth0".into(),
        lladdr: "02:00:00:00:00:01".into(),
        ..Default::default()
    };
    let neighbors = ARPNeighbors { ARPNeighbors: vec![neighbour], ..Default::default() };
    let request = AddARPNeighborsRequest { neighbors: MessageField::some(neighbors), ..Default::default() };
    api.add_arp_neighbors(call(), &request).await.context("AddARPNeighbors")?;
    Ok(())
}

fn create_sandbox(hooks: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        hostname: "web-7d4b9".into(),
        dns: vec!["nameserver 10.96.0.10".into(), "search default.svc.cluster.local".into()],
        storages: sandbox_storages(true),
        sandbox_id: SANDBOX.into(),
        guest_hook_path: hooks.into(),
        ..Default::default()
    }
}

/// An event loop as both shims run it: it ends with the sandbox.
fn watch_memory(guest: &Guest) -> tokio::task::JoinHandle<ttrpc::Result<OOMEvent>> {
    let api = guest.client().agent.clone();
    tokio::spawn(async move { api.get_oom_event(AgentClient::call(), &GetOOMEventRequest::new()).await })
}

/// What a shim reads of a container, what it is told of its end, and how it removes it.
async fn stop(guest: &Guest, container: &Container, expected: i32) -> Result<()> {
    container.signal("", 15).await?;
    let waiter = container.init();
    let waited = tokio::time::timeout(Duration::from_secs(10), waiter.wait()).await;
    container.signal("", 9).await.context("SIGKILL to all")?;
    let status = match waited {
        Ok(status) => status?,
        Err(_) => container.wait().await?,
    };
    ensure!(status == expected, "{} ended with {status}, not {expected}", container.id());
    let request = GetDiagnosticDataRequest {
        log_type: "termination-log".into(),
        container_id: container.id().into(),
        ..Default::default()
    };
    let message = guest.api().get_diagnostic_data(AgentClient::call(), &request).await?.data;
    let wanted = if container.id() == WEB { "bye from web\n" } else { "" };
    ensure!(message == wanted, "termination message {message:?}");
    container.remove().await.context("RemoveContainer")?;
    Ok(())
}

#[tokio::test]
async fn the_go_shims_pod() -> Result<()> {
    let shared = shared_directory()?;
    let guest = Guest::builder().network().share(shared.path(), "kataShared").boot().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    guest.client().health.check(call(), &CheckRequest::new()).await?;
    network(&guest).await?;
    api.create_sandbox(call(), &create_sandbox("")).await.context("CreateSandbox")?;
    let details = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    let details = api.get_guest_details(call(), &details).await?;
    ensure!(details.agent_details.storage_handlers.iter().any(|name| name == "virtio-fs"));
    // Without it the shim refuses every container, as soon as guest seccomp is not disabled.
    ensure!(details.agent_details.supports_seccomp);
    let online = OnlineCPUMemRequest { nb_cpus: 1, cpu_only: true, ..Default::default() };
    api.online_cpu_mem(call(), &online).await?;

    let own_id = |id: &str| {
        let id = id.to_owned();
        move |request: &mut CreateContainerRequest| request.exec_id = id
    };
    let pause =
        container(&guest, SANDBOX, "POD").args(["sleep", "100000"]).request(own_id(SANDBOX)).run().await?;
    let events = watch_memory(&guest);
    let script = "trap 'echo bye from web > /dev/termination-log; exit 0' TERM; echo started; cat /etc/hosts; \
                  while :; do sleep 0.1; done";
    let web = container(&guest, WEB, "web").script(script).request(own_id(WEB)).create().await?;
    // Reads are out before the start.
    let early = web.init();
    let early = tokio::spawn(async move { early.read_until("10.88.0.7 web\n").await });
    web.start().await?;
    ensure!(early.await??.starts_with("started\n"));
    let sidecar = container(&guest, SIDECAR, "sidecar")
        .args(["sleep", "100000"])
        .request(own_id(SIDECAR))
        .run()
        .await?;

    // One pod: one name, one network, one /dev/shm, and files of the host.
    ensure!(web.sh("hostname").await? == "web-7d4b9");
    web.sh("echo shared > /dev/shm/x").await?;
    ensure!(sidecar.sh("cat /dev/shm/x; cat /etc/resolv.conf").await? == "shared\nnameserver 10.96.0.10");
    ensure!(web.sh("ip -o -4 addr show eth0").await?.contains("10.88.0.7/16"));
    ensure!(web.sh("ip route").await?.contains("default via 10.88.0.1"));
    web.sh("echo seen by the host > /data/file").await?;
    let on_host = std::fs::read_to_string(shared.path().join(WEB).join("rootfs/data/file"))?;
    ensure!(on_host == "seen by the host\n");
    std::fs::write(shared.path().join(format!("{WEB}-3c4d-hosts")), "changed\n")?;
    ensure!(web.sh("sleep 1; cat /etc/hosts").await? == "changed");

    // An exec with a terminal and a fresh UUID.
    let exec = web.exec(["sh"]).id("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0").terminal().start().await?;
    exec.resize(24, 80).await?;
    exec.write(b"stty size; exit 3\n").await?;
    exec.read_until("24 80").await?;
    ensure!(exec.finish().await?.status == 3);
    web.pause().await?;
    web.resume().await?;
    let stats = web.stats().await?;
    ensure!(stats.cgroup_stats.cpu_stats.cpu_usage.total_usage > 0);
    let grown = Storage {
        options: vec![
            "noexec".into(),
            "nosuid".into(),
            "nodev".into(),
            "mode=1777".into(),
            "size=33554432".into(),
        ],
        ..sandbox_storages(false).remove(0)
    };
    let resize = UpdateEphemeralMountsRequest { storages: vec![grown], ..Default::default() };
    api.update_ephemeral_mounts(call(), &resize).await?;
    ensure!(web.sh("df -k /dev/shm | tail -1 | awk '{print $2}'").await? == "32768");

    stop(&guest, &web, 0).await?;
    std::fs::remove_dir_all(shared.path().join(WEB))?;
    api.remove_stale_virtiofs_share_mounts(call(), &RemoveStaleVirtiofsShareMountsRequest::new()).await?;
    stop(&guest, &sidecar, 137).await?;
    stop(&guest, &pause, 137).await?;
    api.remove_stale_virtiofs_share_mounts(call(), &RemoveStaleVirtiofsShareMountsRequest::new()).await?;
    guest.destroy().await?;
    ensure!(events.await?.is_err(), "an OOM event out of nowhere");
    Ok(())
}

#[tokio::test]
async fn the_rust_shims_pod() -> Result<()> {
    let shared = shared_directory()?;
    let guest = Guest::builder().network().share(shared.path(), "kataShared").boot().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    network(&guest).await?;
    api.create_sandbox(call(), &create_sandbox("")).await.context("CreateSandbox")?;
    api.get_guest_details(call(), &GuestDetailsRequest { mem_block_size: true, ..Default::default() })
        .await?;
    let events = watch_memory(&guest);
    guest.client().health.version(call(), &CheckRequest::new()).await?;
    let online = OnlineCPUMemRequest { nb_cpus: 1, ..Default::default() };
    api.online_cpu_mem(call(), &online).await?;
    // It leaves the cgroup namespace in, with an empty path, and names no exec id.
    let with_cgroup_namespace = |linux: &mut oci::Linux| {
        linux.Namespaces.push(oci::LinuxNamespace { Type: "cgroup".into(), ..Default::default() });
    };
    let pause = container(&guest, SANDBOX, "POD")
        .args(["sleep", "100000"])
        .linux(with_cgroup_namespace)
        .run()
        .await?;
    let echo = "echo bye from web > /dev/termination-log; while read line; do echo got $line; done; echo end";
    let web = container(&guest, WEB, "web").script(echo).linux(with_cgroup_namespace).run().await?;
    web.init().write(b"one\ntwo\n").await?;
    // No more: an empty write.
    web.init().write(b"").await?;
    let finished = web.output().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (0, &b"got one\ngot two\nend\n"[..]));
    // A lost answer is asked for again.
    ensure!(web.wait().await? == 0);
    web.signal("", 9).await?;
    stop(&guest, &web, 0).await?;
    pause.signal("", 9).await?;
    pause.remove().await?;
    ensure!(!events.is_finished());
    guest.client().health.check(call(), &CheckRequest::new()).await?;
    Ok(())
}

#[tokio::test]
async fn a_share_that_is_not_there_is_named_and_leaves_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    let text = expect_code(api.create_sandbox(call(), &create_sandbox("")).await, Code::INVALID_ARGUMENT);
    assert!(text.contains("kataShared"), "{text}");
    guest.sandbox().await?;
    let here = guest
        .container("c1")
        .mount("/run-of-guest", "bind", "/run/kata-containers", &["rbind", "ro"])
        .run()
        .await?;
    // What files are copied to, which is the guest's own memory.
    assert_eq!(here.sh("ls /run-of-guest/shared").await?, "containers");
    assert_eq!(
        here.sh("ls -A /run-of-guest/shared/containers; grep -c virtiofs /proc/mounts || true").await?,
        "0"
    );
    Ok(())
}

#[tokio::test]
async fn ephemeral_storages_are_changed_together_or_not_at_all() -> Result<()> {
    let guest = Guest::boot().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    let request = CreateSandboxRequest {
        storages: sandbox_storages(false),
        sandbox_id: "pod".into(),
        ..Default::default()
    };
    api.create_sandbox(call(), &request).await?;
    let shm = "/run/kata-containers/sandbox/shm";
    let container = guest.container("c1").mount("/pod-shm", "bind", shm, &["rbind"]).run().await?;
    let size = || container.sh("df -k /pod-shm | tail -1 | awk '{print $2}'");
    assert_eq!(size().await?, "65536");
    let change = |point: &str, size: &str| Storage {
        options: vec!["nosuid".into(), format!("size={size}")],
        mount_point: point.into(),
        ..sandbox_storages(false).remove(0)
    };
    let update = |storages: Vec<Storage>| {
        let request = UpdateEphemeralMountsRequest { storages, ..Default::default() };
        async move { api.update_ephemeral_mounts(call(), &request).await.map(drop) }
    };
    update(vec![change(shm, "16m")]).await?;
    assert_eq!(size().await?, "16384");
    expect_code(update(vec![change(shm, "8m"), change("/run/none", "8m")]).await, Code::NOT_FOUND);
    expect_code(update(vec![change(shm, "8m"), change("relative", "8m")]).await, Code::INVALID_ARGUMENT);
    let other = Storage { driver: "local".into(), ..change(shm, "8m") };
    expect_code(update(vec![change(shm, "8m"), other]).await, Code::INVALID_ARGUMENT);
    expect_code(update(vec![change(shm, "plenty")]).await, Code::INVALID_ARGUMENT);
    // What the kernel refuses takes back what it took before.
    expect_code(update(vec![change(shm, "8m"), change(shm, "plenty")]).await, Code::INVALID_ARGUMENT);
    assert_eq!(size().await?, "16384");
    update(Vec::new()).await?;
    Ok(())
}

#[tokio::test]
async fn a_mount_of_one_container_is_shown_in_another() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let named = |name: &str| {
        let name = name.to_owned();
        move |spec: &mut oci::Spec| {
            spec.Annotations.insert("io.kubernetes.container.name".into(), name);
        }
    };
    let late =
        "mkdir -p /export; sleep 1; mount -t tmpfs tmpfs /export; echo hello > /export/file; sleep 1000";
    let source = guest.container("source").privileged().spec(named("mounter")).script(late).run().await?;
    let shared = |source: &str, from: &str, to: &str| SharedMount {
        name: "m1".into(),
        src_ctr: source.into(),
        src_path: from.into(),
        dst_ctr: "user".into(),
        dst_path: to.into(),
        ..Default::default()
    };
    let user = |mount: SharedMount| {
        guest.container("user").spec(named("user")).request(|request| request.shared_mounts.push(mount))
    };
    let container = user(shared("mounter", "/export", "/tmp")).run().await?;
    assert_eq!(container.sh("sleep 0.5; cat /tmp/file").await?, "hello");
    container.sh("echo back > /tmp/answer").await?;
    assert_eq!(source.sh("cat /export/answer").await?, "back");
    container.remove().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let text =
        expect_code(user(shared("nobody", "/export", "/tmp")).try_create().await, Code::INVALID_ARGUMENT);
    assert!(text.contains("nobody"), "{text}");
    expect_code(
        user(shared("mounter", "/export", "/no/such/place")).try_create().await,
        Code::INVALID_ARGUMENT,
    );
    // A mount that never comes; others are served meanwhile.
    let waiting = user(shared("mounter", "/proc/self", "/tmp"));
    let waiting = tokio::spawn(async move { waiting.try_create().await.map(drop) });
    assert_eq!(source.sh("echo served").await?, "served");
    expect_code(waiting.await?, Code::DEADLINE_EXCEEDED);
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
