//! Guests boot, whatever the machine and the command line, and go off when told to.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use machine::vm::{AgentClient, LEAST_MEMORY_MIB, Vm, VmConfig};
use protocols::agent::GuestDetailsRequest;
use protocols::health::CheckRequest;
use protocols::health::health_check_response::ServingStatus;
use store::layout::Layout;
use tests::{Guest, Machine};

async fn boots_and_answers(machine: Machine) -> Result<()> {
    let guest = Guest::builder().machine(machine).boot().await?;
    let check = guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await?;
    assert_eq!(check.status.enum_value(), Ok(ServingStatus::SERVING));
    let version = guest.client().health.version(AgentClient::call(), &CheckRequest::new()).await?;
    assert_eq!(version.grpc_version, "0.0.1");
    assert_eq!(version.agent_version, env!("CARGO_PKG_VERSION"));
    assert_eq!(guest.vm().ready().version, version.agent_version);
    guest.destroy().await
}

#[tokio::test]
async fn a_q35_boots_answers_and_goes_off() -> Result<()> {
    boots_and_answers(Machine::Q35).await
}

#[tokio::test]
async fn a_microvm_boots_answers_and_goes_off() -> Result<()> {
    boots_and_answers(Machine::Microvm).await
}

#[tokio::test]
async fn a_microvm_with_acpi_boots_answers_and_goes_off() -> Result<()> {
    boots_and_answers(Machine::MicrovmAcpi).await
}

#[tokio::test]
async fn a_sandbox_that_is_destroyed_takes_running_containers_with_it() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let deaf =
        guest.container("deaf").script("trap '' TERM INT HUP; while :; do sleep 1; done").run().await?;
    deaf.exec(["sleep", "1000"]).start().await?;
    guest.container("waits").create().await?;
    guest.destroy().await?;
    let console = guest.vm().console_log();
    assert!(!console.contains("Kernel panic"), "{console}");
    Ok(())
}

#[tokio::test]
async fn guest_details_say_what_the_guest_is() -> Result<()> {
    let guest = Guest::boot().await?;
    let request = GuestDetailsRequest {
        mem_block_size: true,
        mem_hotplug_probe: true,
        ..GuestDetailsRequest::default()
    };
    let details = guest.api().get_guest_details(AgentClient::call(), &request).await?;
    assert!(details.mem_block_size_bytes >= 1 << 20, "{}", details.mem_block_size_bytes);
    let agent = details.agent_details.unwrap();
    assert!(agent.init_daemon);
    for driver in ["9p", "blk", "erofs.multi-layer", "scsi", "virtio-fs", "watchable-bind"] {
        assert!(agent.storage_handlers.iter().any(|name| name == driver), "{driver}");
    }
    assert!(agent.storage_handlers.is_sorted(), "{:?}", agent.storage_handlers);
    let kinds = ["blk", "mmioblk", "nvdimm", "scsi", "vfio-pci", "vfio-pci-gk"];
    assert_eq!(agent.device_handlers, kinds);
    // What is refused is in neither list.
    let unknown = guest.container("c1").request(|request| {
        let device = protocols::agent::Device { type_: "none".into(), ..Default::default() };
        request.devices.push(device);
    });
    guest.sandbox().await?;
    let text = tests::expect_code(unknown.try_create().await, tests::Code::UNIMPLEMENTED);
    assert!(text.contains(&kinds.join(", ")), "{text}");
    assert!(agent.supports_seccomp);
    assert_eq!(agent.extra_features, ["seccomp"]);
    Ok(())
}

#[tokio::test]
async fn options_that_make_no_sense_warn_and_stop_no_boot() -> Result<()> {
    let words =
        ["agent.log=loud", "agent.hotplug_timeout=-1", "agent.no_such_option=1", "agent.server_addr=tcp://x"];
    let guest = Guest::builder().cmdline(&words).boot().await?;
    guest.sandbox().await?;
    assert_eq!(guest.container("c1").script("exit 3").run().await?.wait().await?, 3);
    let console = guest.vm().console_log();
    for option in
        ["agent.log=loud", "agent.hotplug_timeout=-1", "agent.no_such_option=1", "agent.server_addr=tcp://x"]
    {
        assert!(console.contains(option), "{option} is not warned about:\n{console}");
    }
    Ok(())
}

#[tokio::test]
async fn the_debug_console_answers_only_when_asked_for() -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let guest = Guest::builder().cmdline(&["agent.debug_console"]).boot().await?;
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    let mut console = guest.vm().dial(1026).await?;
    console.write_all(b"containers\nenter c1\n").await?;
    console.write_all(b"echo inside $((40 + 2)); exit 5\n").await?;
    let mut all = String::new();
    let mut buffer = [0; 4096];
    while !all.contains("ended with status 5") {
        let count = console.read(&mut buffer).await?;
        assert!(count > 0, "the console ended: {all}");
        all.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(all.contains("running") && all.contains("inside 42"), "{all}");
    drop(console);
    let without = Guest::boot().await?;
    // The port is the agent's all the same, so that no container can sit there in its place.
    let mut answer = String::new();
    without.vm().dial(1026).await?.read_to_string(&mut answer).await?;
    assert!(answer.starts_with(machine::vm::CONSOLE_OFF), "{answer:?}");
    Ok(())
}

/// With less the kernel ends before it has a console: the host must say what is missing.
#[tokio::test]
async fn the_least_memory_boots_and_less_is_refused() -> Result<()> {
    let layout = Layout::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), None);
    let directory = tempfile::tempdir()?;
    let config = |kernel: &str, machine, mib| {
        let kernel = layout.out().join(kernel);
        let mut config = VmConfig::new(kernel, layout.initrd(), directory.path().join("vm"));
        (config.machine, config.memory_mib) = (machine, mib);
        config
    };
    for (kernel, machine) in
        [("vmlinux", Machine::Q35), ("vmlinux", Machine::Microvm), ("vmlinux-sandbox", Machine::Microvm)]
    {
        let vm = Vm::boot(config(kernel, machine, LEAST_MEMORY_MIB)).await;
        vm.with_context(|| format!("{kernel} on {machine:?}"))?.stop().await?;
    }
    let refusal = Vm::boot(config("vmlinux", Machine::Q35, 32)).await.map(drop);
    let text = refusal.err().context("32 MiB were not refused")?.to_string();
    ensure!(text.contains("needs 48 MiB"), "{text}");
    Ok(())
}
