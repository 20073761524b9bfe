//! What the agent holds, in numbers: what a leak would raise.

use anyhow::{Context as _, Result, ensure};

use crate::Inspector;

/// Half seconds that the guest has to get back to what it held.
const PATIENCE: u32 = 60;

/// What the agent and the kernel hold at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory of the agent in KiB (`Rss` of `smaps_rollup`, which is exact; `VmRSS` is not).
    pub agent_kib: u64,
    /// What of it no file stands behind (`Anonymous`).
    pub heap_kib: u64,
    /// Resident memory of the forker in KiB, much of which it shares with the agent.
    pub forker_kib: u64,
    /// Threads of the agent.
    pub threads: u64,
    /// Open descriptors of the agent.
    pub descriptors: u64,
    /// Children of the agent, dead ones that nobody has reaped among them.
    pub children: u64,
    /// Mounts of its mount namespace.
    pub mounts: u64,
    /// Cgroups of the guest.
    pub cgroups: u64,
    /// Cgroups that are removed but still in the kernel's memory.
    pub dying_cgroups: u64,
    /// The kernel's own memory in KiB (`Slab`).
    pub slab_kib: u64,
}

/// A row of all numbers, in the order of the fields. `$1` is the forker.
const LOOK: &str = "field() { sed -n \"s/^$2[: ][^0-9]*\\([0-9]*\\).*/\\1/p\" $1; }; \
    row() { echo $(field proc/1/smaps_rollup Rss) $(field proc/1/smaps_rollup Anonymous) $(field proc/$1/smaps_rollup Rss) \
    $(field proc/1/status Threads) $(ls proc/1/fd | wc -l) $(cat proc/1/task/*/children | wc -w) \
    $(wc -l < proc/1/mountinfo) $(find cgroup -type d | wc -l) \
    $(field cgroup/cgroup.stat nr_dying_descendants) $(field proc/meminfo Slab); }; \
    cd /guest; for p in $(cat proc/1/task/*/children); do \
    grep -qs forker proc/$p/cmdline && set -- $p && break; done; ";

/// By how much what is held may differ from what was held before.
#[derive(Debug, Clone, Copy)]
pub struct Slack {
    /// KiB that the agent and the forker may have more, each.
    pub kib: u64,
    /// Whether descriptors do not count.
    pub any_descriptors: bool,
}

impl Slack {
    /// Memory within so many KiB, all else the same.
    pub fn of_kib(kib: u64) -> Slack {
        Slack { kib, any_descriptors: false }
    }
}

impl Footprint {
    /// Whether this is no more than what was held before. What only the kernel holds is not looked at; it gives that back when
    /// it likes.
    pub fn is_back_to(&self, before: &Footprint, slack: Slack) -> bool {
        self.agent_kib <= before.agent_kib + slack.kib
            && self.forker_kib <= before.forker_kib + slack.kib
            && self.counts(slack) == before.counts(slack)
    }

    /// What has to be the same, by its place in a row of [`LOOK`].
    fn counts(&self, slack: Slack) -> Vec<(usize, u64)> {
        let descriptors = (5, self.descriptors);
        let others = [(4, self.threads), (6, self.children), (7, self.mounts), (8, self.cgroups)];
        others.into_iter().chain((!slack.any_descriptors).then_some(descriptors)).collect()
    }

    fn parse(line: &str) -> Result<Footprint> {
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("{line:?}"))?;
        ensure!(numbers.len() == 10, "a look gives {line:?}");
        Ok(Footprint {
            agent_kib: numbers[0],
            heap_kib: numbers[1],
            forker_kib: numbers[2],
            threads: numbers[3],
            descriptors: numbers[4],
            children: numbers[5],
            mounts: numbers[6],
            cgroups: numbers[7],
            dying_cgroups: numbers[8],
            slab_kib: numbers[9],
        })
    }
}

impl Inspector {
    /// What is held when nothing happens: threads that worked are gone by then.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn footprint(&self) -> Result<Footprint> {
        let line = self.sh(&format!("sleep 4; {LOOK} row $1")).await?;
        Footprint::parse(&line).context("look at the agent")
    }

    /// Looks until no more is held than before (see [`Footprint::is_back_to`]), for half a minute or more, and gives the last look.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub async fn settled_footprint(&self, before: &Footprint, slack: Slack) -> Result<Footprint> {
        let (most, forker) = (before.agent_kib + slack.kib, before.forker_kib + slack.kib);
        let same = before.counts(slack).into_iter().map(|(place, count)| format!("[ ${place} -eq {count} ]"));
        let same = same.collect::<Vec<_>>().join(" && ");
        // It waits within the guest, by one exec: each further one would be more work that leaves threads behind for a while.
        let script = format!(
            "{LOOK} forker=$1; for n in $(seq {PATIENCE}); do set -- $(row $forker); \
             [ $1 -le {most} ] && [ $3 -le {forker} ] && {same} && break; \
             usleep 500000; done; echo $*"
        );
        Footprint::parse(&self.sh(&script).await?).context("look at the agent")
    }
}
