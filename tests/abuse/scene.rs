//! A guest with somebody who wants to live and somebody who looks, and the questions that are asked after each abuse.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use tests::{Container, ContainerBuilder, Footprint, Guest, Inspector};

/// How long one abuse may take, and one Check, in a guest that is emulated beside compilers: for what hangs.
const HANGS: Duration = Duration::from_secs(400);
/// What the agent's memory may have more after an abuse than before.
const SLACK_KIB: u64 = 1024;
/// What the agent's heap may have more after all abuses than before the first: what it keeps on purpose, such as a backlog of
/// the log and ended processes, each of which has its own bound. What grows without end is found by the soak.
const KEPT_KIB: u64 = 2048;
/// Between two Checks.
const BEAT: Duration = Duration::from_millis(10);

/// See the module.
pub(crate) struct Scene {
    pub(crate) guest: Guest,
    pub(crate) neighbour: Container,
    pub(crate) inspector: Inspector,
    /// For Checks alone: they must not wait behind other calls.
    checks: AgentClient,
    first: Footprint,
    rows: Mutex<Vec<Row>>,
}

/// What was seen of one abuse.
struct Row {
    case: &'static str,
    abuse: &'static str,
    took: Duration,
    longest: Duration,
    before: Footprint,
    after: Footprint,
    outcome: Result<()>,
}

impl Scene {
    /// Makes the pod and the two that live through everything.
    pub(crate) async fn set(guest: Guest) -> Result<Scene> {
        guest.sandbox().await?;
        let inspector = guest.inspector().await?;
        let neighbour = guest.container("neighbour").run().await?;
        let checks = guest.vm().client().await?;
        // Once each in small: code that has never run is no part of what is resident.
        for id in ["warm1", "warm2"] {
            let warm = guest.container(id).script("echo up; sleep 1000").run().await?;
            warm.init().read_until("up").await?;
            ensure!(warm.exec(["sh", "-c", "exit 7"]).run().await?.status == 7);
            ensure!(warm.exec(["/none"]).start().await.is_err());
            warm.remove().await?;
        }
        neighbour.sh("true").await?;
        let first = inspector.footprint().await?;
        Ok(Scene { guest, neighbour, inspector, checks, first, rows: Mutex::default() })
    }

    /// Takes what is held now for what is held before all abuses.
    pub(crate) async fn begin_here(&mut self) -> Result<()> {
        self.first = self.inspector.footprint().await?;
        Ok(())
    }

    /// A container that sees its own cgroup and may write there. What the kernel asks for beyond that, it has not.
    pub(crate) fn with_own_cgroup(&self, id: &str) -> ContainerBuilder {
        self.guest.container(id).spec(|spec| {
            let mount = spec.Mounts.iter_mut().find(|mount| mount.destination == "/sys/fs/cgroup");
            mount.expect("each has one").options.retain(|option| option != "ro");
        })
    }

    /// Whether others go on.
    pub(crate) async fn neighbour_lives(&self) -> Result<()> {
        let said = self.neighbour.sh("echo lives").await.context("the neighbour's exec")?;
        ensure!(said == "lives", "the neighbour said {said:?}");
        Ok(())
    }

    /// Has something done to the guest, and asks the questions. What is answered badly is in the table, and fails the test in
    /// the end: one abuse says nothing of the next. Gives the longest wait of a Check, and what the abuse took.
    pub(crate) async fn survives(
        &self,
        case: &'static str,
        abuse: &'static str,
        act: impl AsyncFnOnce(&Scene) -> Result<()>,
    ) -> (Duration, Duration) {
        let before = self.rows.lock().expect("no panic").last().map_or(self.first, |row| row.after);
        let is_over = AtomicBool::new(false);
        let begun = Instant::now();
        let acted = async {
            let acted = tokio::time::timeout(HANGS, act(self)).await;
            is_over.store(true, Ordering::Relaxed);
            (acted.unwrap_or_else(|_| Err(anyhow::anyhow!("hangs"))), begun.elapsed())
        };
        let ((acted, took), longest) = tokio::join!(acted, self.longest_check(&is_over));
        let lives = self.neighbour_lives().await;
        let after = self.inspector.settled_footprint(&before, SLACK_KIB).await;
        let (longest, checked) = (*longest.as_ref().unwrap_or(&HANGS), longest.map(drop));
        let (after, looked) = match after {
            Ok(after) => (after, Ok(())),
            Err(error) => (before, Err(error)),
        };
        let is_back = if after.is_back_to(&before, SLACK_KIB) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{before:?} became {after:?}"))
        };
        let outcome = acted
            .context("the abuse itself")
            .and(checked)
            .and(lives)
            .and(looked)
            .and(is_back.context("it leaves something behind"));
        let row = Row { case, abuse, took, longest, before, after, outcome };
        println!("{}", row.line());
        self.rows.lock().expect("no panic").push(row);
        (longest, took)
    }

    /// Asks for a sign of life over and over, and gives the longest time that it took to come.
    async fn longest_check(&self, is_over: &AtomicBool) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        while !is_over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let request = CheckRequest::new();
            let check = self.checks.health.check(AgentClient::call(), &request);
            tokio::time::timeout(HANGS, check).await.context("a Check hangs")?.context("a Check")?;
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(BEAT).await;
        }
        Ok(longest)
    }

    /// Shows the table; fails if anything in it did; ends the pod.
    pub(crate) async fn end(self) -> Result<()> {
        let rows = self.rows.into_inner().expect("no panic");
        println!("\n{HEAD}");
        rows.iter().for_each(|row| println!("{}", row.line()));
        let failed: Vec<String> = rows
            .iter()
            .filter_map(|row| {
                let error = row.outcome.as_ref().err()?;
                Some(format!("{} {}: {error:#}", row.case, row.abuse))
            })
            .collect();
        ensure!(failed.is_empty(), "{} of {}:\n{}", failed.len(), rows.len(), failed.join("\n"));
        let heap = rows.last().map_or(self.first.heap_kib, |row| row.after.heap_kib);
        println!("the agent's heap: {} KiB at first, {heap} KiB after all", self.first.heap_kib);
        ensure!(heap <= self.first.heap_kib + KEPT_KIB, "little by little it grew too much");
        self.guest.destroy().await
    }
}

/// Head of the table.
const HEAD: &str =
    "case  abuse                                       took s   longest   agent KiB     fds threads   verdict
                                                           Check ms  before  after";

impl Row {
    fn line(&self) -> String {
        let verdict = if self.outcome.is_ok() { "survived" } else { "FAILED" };
        format!(
            "{:<5} {:<41} {:>8.1} {:>9.1} {:>7} {:>6} {:>7} {:>7}   {verdict}",
            self.case,
            self.abuse,
            self.took.as_secs_f64(),
            self.longest.as_secs_f64() * 1000.0,
            self.before.agent_kib,
            self.after.agent_kib,
            self.after.descriptors,
            self.after.threads,
        )
    }
}
