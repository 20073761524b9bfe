//! A look at the guest from outside of its containers. The guest has no shell, so the look is through a privileged
//! container that has the guest's own `/proc`, cgroups and `/run` bound into it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use crate::{Container, Guest};

/// A container that sees the guest below `/guest`: its cgroups at `cgroups`, those of the pod at `cgroup`.
pub struct Inspector {
    container: Container,
}

/// What the guest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Mount points of the agent's mount namespace.
    pub mounts: BTreeSet<String>,
    /// Directories below the cgroup root.
    pub cgroups: BTreeSet<String>,
    /// Processes that are no kernel threads: `PID STATE COMMAND`, without the inspector's own.
    pub processes: BTreeSet<String>,
    /// Entries of the agent's state directory.
    pub directories: BTreeSet<String>,
    /// Open descriptors of the agent.
    pub descriptors: usize,
}

impl Guest {
    /// Starts an inspector; the sandbox must exist.
    ///
    /// # Errors
    /// When the agent refuses the container.
    pub async fn inspector(&self) -> Result<Inspector> {
        let container = self
            .container("inspector")
            .privileged()
            .mount("/guest/proc", "bind", "/proc", &["rbind", "rslave"])
            .mount("/guest/cgroups", "bind", "/sys/fs/cgroup", &["rbind"])
            .mount("/guest/cgroup", "bind", "/sys/fs/cgroup/pod", &["rbind"])
            .mount("/guest/run", "bind", "/run", &["rbind", "rslave"])
            .run()
            .await
            .context("start the inspector")?;
        Ok(Inspector { container })
    }

    /// The inspector that was started before the guest was saved.
    pub fn attached_inspector(&self) -> Inspector {
        Inspector { container: self.container("inspector").made() }
    }
}

/// A line of [`Snapshot::processes`] without the difference between running and waiting.
fn awake(line: &str) -> String {
    line.split(' ')
        .map(|word| if matches!(word, "R" | "D") { "S" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

impl Inspector {
    /// Runs a script that sees the guest below `/guest`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn sh(&self, script: &str) -> Result<String> {
        self.container.sh(script).await
    }

    async fn lines(&self, script: &str) -> Result<BTreeSet<String>> {
        Ok(self.sh(script).await?.lines().map(str::to_owned).collect())
    }

    /// What the guest holds now.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        // Seen from the inspector's cgroup namespace, its own processes are at the root.
        let processes = "for p in /guest/proc/[0-9]*; do \
            grep -qs '^VmSize\\|^State:.*zombie' $p/status || continue; \
            grep -qs '^0::/$' $p/cgroup && continue; \
            echo ${p##*/} $(sed -n 's/^State:[[:space:]]*\\(.\\).*/\\1/p;s/^Name:[[:space:]]*//p' $p/status); \
            done; true";
        Ok(Snapshot {
            mounts: self.lines("cut -d' ' -f5 /guest/proc/1/mountinfo | sort").await?,
            cgroups: self.lines("cd /guest/cgroups && find . -type d | grep -v inspector | sort").await?,
            // Whether a live process runs or waits at this moment means nothing.
            processes: self.lines(processes).await?.iter().map(|line| awake(line)).collect(),
            directories: self.lines("ls /guest/run/kata-containers").await?,
            descriptors: self.sh("ls /guest/proc/1/fd | wc -l").await?.trim().parse()?,
        })
    }

    /// Looks until the guest holds what it held before, for ten seconds at most, and gives the last look: what a process
    /// used is closed a moment after its end, that of the look before included.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn settled(&self, before: &Snapshot) -> Result<Snapshot> {
        let mut now = self.snapshot().await?;
        for _ in 0..100 {
            if now == *before {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            now = self.snapshot().await?;
        }
        Ok(now)
    }

    /// A number of the agent's `status`.
    async fn status(&self, field: &str) -> Result<u64> {
        let script = format!("sed -n 's/^{field}:[^0-9]*\\([0-9]*\\).*/\\1/p' /guest/proc/1/status");
        let text = self.sh(&script).await?;
        text.parse().with_context(|| format!("{field} {text:?}"))
    }

    /// Resident memory of the agent in KiB (`VmRSS`).
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn agent_rss_kib(&self) -> Result<u64> {
        self.status("VmRSS").await
    }

    /// Threads of the agent.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub async fn agent_threads(&self) -> Result<usize> {
        Ok(self.status("Threads").await?.try_into()?)
    }
}
