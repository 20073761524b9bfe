//! A guest with somebody who wants to live and somebody who looks, and the questions that are asked after each abuse.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Checks, Container, ContainerBuilder, Footprint, Guest, Inspector, Slack};

/// How long one abuse may take in a guest that is emulated beside compilers: for what hangs.
const HANGS: Duration = Duration::from_secs(400);
/// What the agent's resident memory, and the forker's, may have more after any abuse than before the first: what it keeps on
/// purpose, such as the backlog of the log (256 KiB) and ended processes, holes that these have left in the heap, and code that
/// has run for the first time. docs/architecture/bounds.md has the bound; what grows without end is found here or by the soak.
const KEPT_KIB: u64 = 2048;

/// See the module.
pub(crate) struct Scene {
    pub(crate) guest: Guest,
    pub(crate) neighbour: Container,
    pub(crate) inspector: Inspector,
    checks: Checks,
    first: Footprint,
    /// See [`KEPT_KIB`].
    kept_kib: u64,
    rows: Mutex<Vec<Row>>,
}

/// What was seen of one abuse.
struct Row {
    case: &'static str,
    abuse: &'static str,
    took: Duration,
    /// Of a Check; none where one was not answered.
    longest: Option<Duration>,
    after: Footprint,
    outcome: Result<()>,
}

impl Scene {
    /// Makes the pod and the two that live through everything.
    pub(crate) async fn set(guest: Guest) -> Result<Scene> {
        guest.sandbox().await?;
        let inspector = guest.inspector().await?;
        let neighbour = guest.container("neighbour").run().await?;
        let checks = guest.checks().await?;
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
        Ok(Scene { guest, neighbour, inspector, checks, first, kept_kib: KEPT_KIB, rows: Mutex::default() })
    }

    /// The same, where more is kept on purpose: in KiB.
    pub(crate) fn keeping(self, kept_kib: u64) -> Scene {
        Scene { kept_kib, ..self }
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
    /// the end: one abuse says nothing of the next. What is held is compared with what was held before the first: else each
    /// could add a little. Gives the longest wait of a Check, and what the abuse took.
    pub(crate) async fn survives(
        &self,
        case: &'static str,
        abuse: &'static str,
        act: impl AsyncFnOnce(&Scene) -> Result<()>,
    ) -> (Duration, Duration) {
        self.survives_within(Slack::of_kib(self.kept_kib), case, abuse, act).await
    }

    /// As [`Scene::survives`], without a look at descriptors: vhost-device-vsock does not always tell the guest that a client
    /// is gone. To be the last, since those may be held from then on.
    pub(crate) async fn survives_but_for_connections(
        &self,
        case: &'static str,
        abuse: &'static str,
        act: impl AsyncFnOnce(&Scene) -> Result<()>,
    ) {
        let slack = Slack { kib: self.kept_kib, any_descriptors: true };
        self.survives_within(slack, case, abuse, act).await;
    }

    async fn survives_within(
        &self,
        slack: Slack,
        case: &'static str,
        abuse: &'static str,
        act: impl AsyncFnOnce(&Scene) -> Result<()>,
    ) -> (Duration, Duration) {
        let begun = Instant::now();
        let acted = async {
            let acted = tokio::time::timeout(HANGS, act(self)).await;
            acted.unwrap_or_else(|_| Err(anyhow::anyhow!("hangs")))?;
            Ok(begun.elapsed())
        };
        let (acted, longest) = self.checks.beside(abuse, acted, false).await;
        let took = *acted.as_ref().unwrap_or(&begun.elapsed());
        let lives = self.neighbour_lives().await;
        let first = self.first;
        let after = self.inspector.settled_footprint(&first, slack).await;
        let (longest, checked) = (longest.as_ref().ok().copied(), longest.map(drop));
        let (after, looked) = match after {
            Ok(after) => (after, Ok(())),
            Err(error) => (first, Err(error)),
        };
        let is_back = if after.is_back_to(&first, slack) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{first:?} became {after:?}"))
        };
        let outcome = acted
            .map(drop)
            .context("the abuse itself")
            .and(checked)
            .and(lives)
            .and(looked)
            .and(is_back.context("it leaves something behind"));
        let row = Row { case, abuse, took, longest, after, outcome };
        println!("{}", row.line());
        self.rows.lock().expect("no panic").push(row);
        (longest.unwrap_or(HANGS), took)
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
        let most =
            |of: fn(&Footprint) -> u64| rows.iter().map(|row| of(&row.after)).max().unwrap_or_default();
        println!(
            "before the first, the agent had {} KiB, {} of them heap; after any {} KiB at most, {} of them heap",
            self.first.agent_kib,
            self.first.heap_kib,
            most(|held| held.agent_kib),
            most(|held| held.heap_kib)
        );
        self.guest.destroy().await
    }
}

/// Head of the table.
const HEAD: &str =
    "case  abuse                                       took s   longest   agent    heap    fds threads   verdict
                                                           Check ms     KiB     KiB";

impl Row {
    fn line(&self) -> String {
        let verdict = if self.outcome.is_ok() { "survived" } else { "FAILED" };
        format!(
            "{:<5} {:<41} {:>8.1} {:>9} {:>7} {:>7} {:>6} {:>7}   {verdict}",
            self.case,
            self.abuse,
            self.took.as_secs_f64(),
            self.longest.map_or("none".to_owned(), |wait| format!("{:.1}", wait.as_secs_f64() * 1000.0)),
            self.after.agent_kib,
            self.after.heap_kib,
            self.after.descriptors,
            self.after.threads,
        )
    }
}
