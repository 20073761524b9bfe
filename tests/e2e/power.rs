//! How a guest ends: on machines that can be switched off, on those that cannot, and by a crash; and how it does not.
//!
//! QEMU is started with `-no-reboot`, so a guest that restarts has ended too. One that halts stays.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use machine::vm::AgentClient;
use protocols::agent::DestroySandboxRequest;
use tests::{Guest, GuestBuilder, Machine, Pods, Tables, busybox_image};

/// From the answer to DestroySandbox to the end of QEMU.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until a guest's QEMU has ended.
async fn ended(guest: &Guest, patience: Duration) -> Result<()> {
    ensure!(guest.vm().wait_off(patience).await, "QEMU runs on:\n{}", guest.vm().console_log());
    Ok(())
}

/// Destroys the sandbox of a guest that has one.
async fn ends_with_its_sandbox(guest: &Guest) -> Result<()> {
    guest.api().destroy_sandbox(AgentClient::call(), &DestroySandboxRequest::new()).await?;
    ended(guest, PATIENCE).await
}

async fn boot_and_end(builder: GuestBuilder) -> Result<String> {
    let guest = builder.boot().await?;
    guest.sandbox().await?;
    ends_with_its_sandbox(&guest).await?;
    Ok(guest.vm().console_log())
}

#[tokio::test]
async fn a_machine_without_acpi_restarts() -> Result<()> {
    let console = boot_and_end(Guest::builder()).await?;
    ensure!(console.contains("reboot: Restarting system"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_machine_without_acpi_and_without_the_keyboard_controller_restarts_all_the_same() -> Result<()> {
    // What Firecracker is told; a microvm has no such controller, so the kernel goes on to its other ways.
    let console = boot_and_end(Guest::builder().cmdline(&["reboot=k"])).await?;
    ensure!(console.contains("reboot: Restarting system"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_machine_of_reduced_hardware_powers_off() -> Result<()> {
    let console = boot_and_end(Guest::builder().machine(Machine::MicrovmAcpi)).await?;
    ensure!(console.contains("reboot: Power down"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_q35_powers_off() -> Result<()> {
    let console = boot_and_end(Guest::builder().machine(Machine::Q35).cmdline(&["reboot=k"])).await?;
    ensure!(console.contains("reboot: Power down"), "{console}");
    Ok(())
}

#[tokio::test]
async fn tables_without_a_power_off_make_the_machine_restart() -> Result<()> {
    let guest = Guest::builder().machine(Machine::Q35).boot().await?;
    guest.sandbox().await?;
    let tables = Tables::of(&guest).await?;
    drop(guest);
    // Values but no way to use them (as Firecracker's, by the flag), no values, neither; with the keyboard controller, which
    // Firecracker has, and without.
    let shapes = [
        (tables.clone(), "i8042=on", "reboot=k", "reboot: Power down"),
        (tables.clone().without_s5()?, "i8042=on", "reboot=t", "reboot: Restarting system"),
        (tables.clone().reduced(), "i8042=off", "reboot=t", "reboot: Restarting system"),
        (tables.clone().without_s5()?.reduced(), "i8042=on", "reboot=k", "reboot: Restarting system"),
        (tables.without_s5()?.reduced(), "i8042=off", "reboot=k", "reboot: Restarting system"),
    ];
    // The kernel takes a machine of reduced hardware for one without the old interrupt controller; a q35 has one, and only a
    // bzImage silences it at its start.
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/vmlinuz");
    for (number, (tables, controller, word, said)) in shapes.into_iter().enumerate() {
        let directory = tempfile::tempdir()?;
        let arguments = tables.arguments(directory.path())?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // By tables of reduced hardware, the kernel has no timer but the processor's own, which `pith` would switch off.
        let builder = Guest::builder().machine(Machine::Q35).plain();
        let builder = builder.image(&kernel).qemu(&arguments).cmdline(&[word]);
        let console = boot_and_end(builder.qemu(&["-machine", controller])).await;
        let console = console.map_err(|error| error.context(format!("shape {number}")))?;
        ensure!(console.contains(said), "shape {number} does not say {said:?}:\n{console}");
    }
    Ok(())
}

/// Under Cloud Hypervisor a guest that restarts boots again. QEMU does the same, unless told otherwise.
#[tokio::test]
async fn a_crash_of_the_agent_does_not_boot_again() -> Result<()> {
    let boots_again = ["-action", "reboot=reset"];
    let guest = Guest::builder().machine(Machine::Q35).qemu(&boots_again).boot().await?;
    guest.sandbox().await?;
    // Takes the agent's stack away: it has nowhere to return to.
    let script = "set -- $(cat /guest/proc/1/syscall); while [ $# -lt 9 ]; do set -- $(cat /guest/proc/1/syscall); done; \
                  dd if=/dev/zero of=/guest/proc/1/mem bs=4096 count=1 oflag=seek_bytes seek=$(($8)) conv=notrunc";
    // No answer can come from it.
    let inspector = guest.inspector().await?;
    drop(tokio::time::timeout(Duration::from_secs(10), inspector.sh(script)).await);
    ended(&guest, Duration::from_secs(30)).await?;
    let console = guest.vm().console_log();
    ensure!(console.contains("agent: crashed by signal 11; the machine ends"), "{console}");
    ensure!(console.matches("agent ready: ").count() == 1, "it booted again:\n{console}");
    Ok(())
}

/// A privileged container can write on the console whatever the kernel would.
#[test]
fn what_a_container_writes_on_the_console_does_not_end_its_pod() -> Result<()> {
    const WORDS: [&str; 3] = ["reboot: Power down", "reboot: System halted", "reboot: machine restart"];
    let pods = Pods::new()?;
    let image = busybox_image();
    let run = ["run", "--detach", "--name", "liar", "--privileged", &image, "sleep", "1000"];
    pods.success(&run)?;
    let mut script = String::from(
        "set -e; cd /dev; [ -e kmsg ] || mknod kmsg c 1 11; [ -e ttyS0 ] || mknod ttyS0 c 4 64; ",
    );
    for words in WORDS {
        script += &format!("echo '<0>{words}' > kmsg; echo '{words}' > ttyS0; ");
    }
    pods.success(&["exec", "liar", "--", "sh", "-c", &script])?;
    let log = pods.path().join("pods/liar/vm/console.log.0");
    let console = (0..300).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let text = String::from_utf8_lossy(&std::fs::read(&log).ok()?).into_owned();
        WORDS.iter().all(|words| text.matches(words).count() == 2).then_some(text)
    });
    ensure!(console.is_some(), "the words are not in {}", log.display());
    // What would end the pod needs a moment to do so.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(pods.success(&["exec", "liar", "--", "echo", "lives"])?, "lives\n");
    let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
    assert_eq!(listed[0]["phase"], "running", "{listed}");
    pods.success(&["stop", "liar"])?;
    pods.nothing_is_left()
}
