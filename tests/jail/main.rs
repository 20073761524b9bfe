//! What a process sees and may do inside its jail, in a real guest.
//!
//! One file per noun of the OCI spec. Every test boots a guest of its own; containers have a busybox as their root.

mod capability;
mod cgroup;
mod device;
mod device_rule;
mod escape;
mod live;
mod masked_path;
mod mount;
mod mount_option;
mod namespace;
mod process;
mod program;
mod root;
mod seccomp;
mod sysctl;
mod terminal;
mod user;

use anyhow::{Context as _, Result};
use tests::{ContainerBuilder, Guest, Inspector};

/// Where the tests keep their own files in the guest. The agent does not know it.
const STORE: &str = "/run/jail";

/// Boots a guest with a sandbox and runs a test in it. An error has the console's end in its text.
async fn in_guest(test: impl AsyncFnOnce(&Guest) -> Result<()>) -> Result<()> {
    let guest = Guest::boot().await?;
    let result = match guest.sandbox().await {
        Ok(()) => test(&guest).await,
        refused => refused,
    };
    result.with_context(|| {
        let console = guest.vm().console_log();
        let lines: Vec<&str> = console.lines().collect();
        format!("the console's end:\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
    })
}

/// Prepares a container whose image has more than a busybox: `script` runs in a directory that is laid over it.
async fn with_image(
    guest: &Guest,
    inspector: &Inspector,
    id: &str,
    script: &str,
) -> Result<ContainerBuilder> {
    let make = format!("mkdir -p /guest{STORE}/{id}/upper /guest{STORE}/{id}/work");
    inspector
        .sh(&format!("{make} && cd /guest{STORE}/{id}/upper && {script}"))
        .await
        .with_context(|| format!("prepare the image of {id}"))?;
    Ok(guest.container(id).request(|request| {
        let overlay = request.storages.last_mut().expect("the overlay");
        overlay.driver_options.clear();
        overlay.options.retain(|option| option.starts_with("lowerdir="));
        overlay.options.push(format!("upperdir={STORE}/{id}/upper"));
        overlay.options.push(format!("workdir={STORE}/{id}/work"));
    }))
}

/// Makes files in the guest, below [`STORE`].
async fn store(inspector: &Inspector, script: &str) -> Result<()> {
    inspector.sh(&format!("mkdir -p /guest{STORE} && cd /guest{STORE} && {script}")).await.map(drop)
}

/// A line of `/proc/PID/status` without its name.
fn status<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
}
