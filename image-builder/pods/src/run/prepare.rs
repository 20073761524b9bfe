//! Prepares everything that a pod needs, so that errors are found before a VM is started.

use std::path::PathBuf;

use protocols::agent::Storage;

use super::board::Board;
use super::container::Blueprint;
use super::error::RunError;
use super::facts::{Facts, Surroundings};
use super::files::{self, GuestFile};
use super::folder;
use super::network::Connection;
use super::options::RunOptions;
use super::output::Event;
use super::pod::{Container, Handler, Pod, Probe};
use super::scratch::{self, Scratch};
use super::spec::{self, SpecError};
use images::image::{self, Image};
use machine::vm::{Disk, Machine, Share, VmConfig, disk_node};

/// Memory for the guest itself and what containers write, beside their limits.
const BASE_MEMORY_MIB: u64 = 512;
/// SIGTERM.
const USUAL_STOP: u32 = 15;
/// Where a pod without an address is reached from inside.
const LOOPBACK: &str = "127.0.0.1";

/// What a pod needs on the host and in the guest.
pub(super) struct Prepared {
    pub(super) connection: Connection,
    disks: Vec<PathBuf>,
    /// The directories of hostPath volumes.
    shares: Vec<Share>,
    /// What the guest mounts for the whole pod.
    pub(super) storages: Vec<Storage>,
    /// What is copied into the guest.
    pub(super) files: Vec<GuestFile>,
    /// Lines of the pod's `resolv.conf`.
    pub(super) dns: Vec<String>,
    /// All containers, in the pod's order.
    pub(super) blueprints: Vec<Blueprint>,
    /// Where probes reach the pod.
    pub(super) address: String,
    memory_mib: u32,
    /// The disk for what containers write, if there is one.
    scratch: Option<Scratch>,
}

/// Makes disks of images, opens the network, finds folders, and decides about every container.
pub(super) async fn prepare(pod: &Pod, options: &RunOptions, board: &Board) -> Result<Prepared, RunError> {
    let (pod, options, board) = (pod.clone(), options.clone(), board.clone());
    let work = move || work(&pod, &options, &board);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(RunError::io("prepare", "images", std::io::Error::other(error.to_string())))
    })
}

fn work(pod: &Pod, options: &RunOptions, board: &Board) -> Result<Prepared, RunError> {
    let connection = Connection::open(&options.network)?;
    let memory_mib = options.memory_mib.unwrap_or_else(|| usual_memory(pod));
    let facts = facts(pod, &connection, options.cpus, memory_mib);
    let dns = files::resolv_conf(&pod.dns, &connection.dns());
    let around = Surroundings { facts: &facts, base: &options.base, resolves: !dns.is_empty() };
    let folders = folder::of(pod, &around)?;
    let mut storages = spec::volume_storages(pod, &around)?;
    storages.extend(folders.storages);
    let files = files::of(pod, &facts)?;

    let size = options.scratch.or_else(|| scratch_size(pod));
    let scratch = size.map(|size| Scratch::make(options.cache.root(), size)).transpose()?;
    let mut disks = Vec::new();
    let mut blueprints = Vec::new();
    for container in pod.all() {
        let image = image(container, options, board)?;
        let node = disk_node(disk(&mut disks, &image.disk));
        let described = spec::describe(pod, container, &image.config, &around)?;
        let id = spec::container_id(pod, container);
        blueprints.push(Blueprint {
            container: container.clone(),
            storages: spec::root_storages(&id, &node, scratch.is_some()),
            id,
            spec: described.spec,
            home_is_default: described.home_is_default,
            stop_signal: stop_signal(container, &image)?,
            shares_pids: pod.share_processes,
        });
    }
    if scratch.is_some() {
        // It comes after all images. What is mounted on it comes after it.
        storages.insert(0, spec::scratch_storage(&disk_node(disks.len())));
    }
    let address = facts.pod_ips.first().cloned().unwrap_or_else(|| LOOPBACK.to_owned());
    Ok(Prepared {
        connection,
        disks,
        shares: folders.shares,
        storages,
        files,
        dns,
        blueprints,
        address,
        memory_mib,
        scratch,
    })
}

fn image(container: &Container, options: &RunOptions, board: &Board) -> Result<Image, RunError> {
    let reference = match options.sources.get(&container.image) {
        Some(source) => source.clone(),
        None => options.base.join(&container.image).display().to_string(),
    };
    let image = image::prepare_for(&reference, Some(options.arch), &options.cache, options.ceiling)
        .map_err(|source| RunError::Image { container: container.name.clone(), source: Box::new(source) })?;
    board.show(Event::Image {
        container: container.name.clone(),
        image: container.image.clone(),
        bytes: image.size,
        cached: image.cached,
    });
    Ok(image)
}

/// The position of a disk, which is added when it is new: containers of one image share its disk.
fn disk(disks: &mut Vec<PathBuf>, path: &PathBuf) -> usize {
    disks.iter().position(|known| known == path).unwrap_or_else(|| {
        disks.push(path.clone());
        disks.len() - 1
    })
}

/// The signal that asks a container to end: the manifest's, else the image's, else SIGTERM.
fn stop_signal(container: &Container, image: &Image) -> Result<u32, SpecError> {
    let wanted = container.lifecycle.stop_signal.as_deref().unwrap_or(&image.config.stop_signal);
    match wanted {
        "" => Ok(USUAL_STOP),
        name => image::signal_number(name)
            .ok_or_else(|| SpecError::Signal { container: container.name.clone(), name: name.to_owned() }),
    }
}

/// What a pod needs: the guest's own, and what containers may take.
fn usual_memory(pod: &Pod) -> u32 {
    // Those that run one after the other never take theirs at the same time; to add them up is the simple upper bound.
    let limits: u64 = pod.all().filter_map(|container| container.memory).fold(0, u64::saturating_add);
    u32::try_from(BASE_MEMORY_MIB.saturating_add(limits.div_ceil(1 << 20))).unwrap_or(u32::MAX)
}

/// What containers may write, where their limits say it.
fn scratch_size(pod: &Pod) -> Option<u64> {
    let sum = pod.all().filter_map(|container| container.storage).fold(0, u64::saturating_add);
    (sum > 0).then(|| sum.max(scratch::LEAST))
}

fn facts(pod: &Pod, connection: &Connection, cpus: u32, memory_mib: u32) -> Facts {
    // Each reading of the first is another uid.
    let kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Facts {
        uid: pod.meta.uid.clone().or_else(|| kernel("random/uuid")).unwrap_or_default(),
        node: kernel("hostname").unwrap_or_else(|| "localhost".to_owned()),
        pod_ips: connection.addresses(),
        host_ip: connection.host(),
        cpu_millis: u64::from(cpus) * 1000,
        memory: u64::from(memory_mib) << 20,
    }
}

/// Whether the pod needs a container of its own: for processes that are shared, for questions to ports, or to see when
/// published ports answer.
pub(super) fn needs_companion(pod: &Pod, publishes: bool) -> bool {
    let is_port = |handler: &Handler| matches!(handler, Handler::Tcp { .. } | Handler::Http(_));
    let asks = |container: &Container| {
        let probes = &container.probes;
        let of_probe = |probe: &Option<Probe>| probe.as_ref().is_some_and(|probe| is_port(&probe.handler));
        let of_hook = |hook: &Option<Handler>| hook.as_ref().is_some_and(is_port);
        of_probe(&probes.startup)
            || of_probe(&probes.liveness)
            || of_probe(&probes.readiness)
            || of_hook(&container.lifecycle.post_start)
            || of_hook(&container.lifecycle.pre_stop)
    };
    publishes || pod.share_processes || pod.all().any(asks)
}

impl Prepared {
    /// The machine to start.
    pub(super) fn machine(&self, options: &RunOptions, board: &Board) -> VmConfig {
        let mut config = VmConfig::new(&options.kernel, "", board.dir().vm());
        config.root = options.root.clone();
        config.memory_mib = self.memory_mib;
        config.cpus = options.cpus;
        config.accel = options.accel;
        config.cmdline = options.cmdline.clone();
        config.network = self.connection.nic();
        let disk = |(index, path): (usize, &PathBuf)| Disk {
            path: path.clone(),
            readonly: true,
            serial: format!("pith-{index}"),
        };
        config.disks = self.disks.iter().enumerate().map(disk).collect();
        config.disks.extend(self.scratch.iter().map(|scratch| Disk {
            path: scratch.path(),
            readonly: false,
            serial: "pith-scratch".to_owned(),
        }));
        config.shares = self.shares.clone();
        config.machine = options.machine.unwrap_or_else(|| Machine::smallest_for(options.arch, &config));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_share_a_disk() {
        let mut disks = Vec::new();
        let paths = ["/a", "/b", "/a"].map(PathBuf::from);
        assert_eq!(paths.each_ref().map(|path| disk(&mut disks, path)), [0, 1, 0]);
        assert_eq!(disks, [PathBuf::from("/a"), "/b".into()]);
    }

    fn pod(spec: &str) -> Pod {
        Pod::parse(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n")).unwrap()
    }

    #[test]
    fn only_what_asks_for_it_has_a_companion() {
        let of = |container: &str| {
            needs_companion(&pod(&format!("{{containers: [{{name: a, image: i{container}}}]}}")), false)
        };
        assert!(!of("") && !of(", livenessProbe: {exec: {command: [x]}}"));
        assert!(!of(", lifecycle: {preStop: {sleep: {seconds: 1}}}"));
        assert!(of(", readinessProbe: {tcpSocket: {port: 80}}"));
        assert!(of(", lifecycle: {postStart: {httpGet: {port: 80}}}"));
        let alone = "{containers: [{name: a, image: i}]}";
        assert!(needs_companion(&pod(alone), true));
        let shares = "{shareProcessNamespace: true, containers: [{name: a, image: i}]}";
        assert!(needs_companion(&pod(shares), false));
    }

    #[test]
    fn memory_is_the_guests_and_what_containers_may_take() {
        let limit = |text: &str| format!("resources: {{limits: {{memory: {text}}}}}");
        let text = format!(
            "{{initContainers: [{{name: i, image: i, {}}}], containers: [{{name: a, image: i, {}}}]}}",
            limit("1"),
            limit("128Mi")
        );
        assert_eq!(usual_memory(&pod(&text)), 512 + 129);
        assert_eq!(scratch_size(&pod(&text)), None);
        let text = text.replace("memory: 1}", "memory: 1, ephemeral-storage: 1Gi}");
        let text = text.replace("128Mi}", "128Mi, ephemeral-storage: 2Gi}");
        assert_eq!(scratch_size(&pod(&text)), Some(3 << 30));
        assert_eq!(scratch_size(&pod(&text.replace("Gi}", "}"))), Some(scratch::LEAST));
    }
}
