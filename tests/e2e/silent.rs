//! Guests that nobody hears: without the console that the command line names, or without a vsock.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use machine::vm::{AgentClient, Machine, Vm, VmConfig};
use protocols::agent::{CreateSandboxRequest, DestroySandboxRequest};
use protocols::health::CheckRequest;
use store::layout::Layout;
use tests::Silent;

/// What Kata's Go shim makes on a nested host: `console=hvc0`, and a console device that the kernel has no driver for.
#[tokio::test]
async fn a_guest_without_its_console_boots_and_ends() -> Result<()> {
    let (mut guest, client) = Silent::boot("console=hvc0 panic=1 no_timer_check cryptomgr.notests").await?;
    client.health.check(AgentClient::call(), &CheckRequest::new()).await?;
    let request = CreateSandboxRequest { sandbox_id: "pod".into(), ..Default::default() };
    client.agent.create_sandbox(AgentClient::call(), &request).await?;
    client.agent.destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await?;
    guest.ended(Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_guest_without_a_vsock_says_so() -> Result<()> {
    let layout = Layout::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), None);
    let directory = tempfile::tempdir()?;
    let mut config = VmConfig::new(layout.vmlinux(), layout.initrd(), directory.path().join("vm"));
    config.machine = Machine::Q35;
    // The device is there, and the kernel does not look for it.
    config.cmdline = vec!["pci=off".into()];
    let vm = Vm::boot(config).await?;
    let console = vm.console_log();
    let lines: Vec<&str> = console.lines().filter(|line| line.contains("no vsock device")).collect();
    ensure!(lines.len() == 1 && lines[0].contains("vsock://-1:1024"), "{console}");
    vm.stop().await?;
    let config = VmConfig::new(layout.vmlinux(), layout.initrd(), directory.path().join("vm"));
    let vm = Vm::boot(config).await?;
    ensure!(!vm.console_log().contains("no vsock device"), "{}", vm.console_log());
    Ok(vm.stop().await?)
}
