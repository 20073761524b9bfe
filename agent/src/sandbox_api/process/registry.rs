//! The commands that run, and those that ended a moment ago.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sandbox_api::connect::{Code, Error};
use tokio::sync::{Notify, watch};

use super::command::{Command, Held, Running, not_found};
use crate::error::chain;
use crate::heap::Trimmer;
use crate::sandbox_api::task;

/// Most commands that run at once.
const RUNNING: usize = 1024;
/// Most ended ones that are kept.
const ENDED: usize = 1024;
/// How long an ended one is kept: who was away for a moment still learns how it ended.
const KEPT: Duration = Duration::from_secs(30);

/// How long /freeze waits for commands that are being started.
const STARTING: Duration = Duration::from_secs(10);

/// What names a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    /// Its process id in its container.
    Pid(u32),
    /// The name that its caller gave it.
    Tag(String),
}

impl Selector {
    fn is(&self, command: &Command) -> bool {
        match self {
            Selector::Pid(pid) => command.pid == *pid,
            Selector::Tag(tag) => command.config.tag.as_ref() == Some(tag),
        }
    }

    fn not_found(&self) -> Error {
        match self {
            Selector::Pid(pid) => not_found(*pid),
            Selector::Tag(tag) => Error::not_found(format!("process with tag {tag} not found")),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(in crate::sandbox_api) struct Commands {
    all: Mutex<Table>,
    held: Held,
    /// For commands that are forgotten: they leave holes in the heap.
    trimmer: Trimmer,
    /// Told when a command was started, or was not, and when commands may be started again.
    changed: Notify,
    /// Held by whoever freezes commands or lets them go on: the last word counts.
    sweep: Mutex<()>,
}

#[derive(Default)]
struct Table {
    /// Oldest first.
    commands: Vec<Arc<Command>>,
    /// Commands that are being started.
    starting: usize,
    /// Whether all commands stand still, and none is started.
    is_frozen: bool,
    /// Numbers for exec ids.
    next: u64,
}

/// A place for a command that starts.
pub(super) struct Place {
    commands: Arc<Commands>,
    /// The exec id that it is to have.
    pub(super) exec_id: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.commands.table().starting -= 1;
        self.commands.changed.notify_waiters();
    }
}

impl Commands {
    /// None yet.
    pub(in crate::sandbox_api) fn new(trimmer: Trimmer) -> Self {
        Self { trimmer, ..Self::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what commands hold is counted.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Takes a place for a command, once commands are not frozen.
    ///
    /// # Errors
    /// `resource_exhausted` if too many run.
    pub(super) async fn place(self: &Arc<Self>) -> Result<Place, Error> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.table().is_frozen {
                return self.place_now();
            }
            changed.await;
        }
    }

    fn place_now(self: &Arc<Self>) -> Result<Place, Error> {
        let mut table = self.table();
        let running = table.commands.iter().filter(|command| command.is_running()).count();
        if running + table.starting >= RUNNING {
            let text = format!("{RUNNING} processes run already");
            return Err(Error::new(Code::ResourceExhausted, text));
        }
        table.starting += 1;
        table.next += 1;
        let exec_id = format!("sandbox-api-{}", table.next);
        drop(table);
        Ok(Place { commands: Arc::clone(self), exec_id })
    }

    /// Takes a command in, and runs it; `ended` is called once it has ended. Ended ones of the same name are forgotten.
    pub(super) fn run(
        self: &Arc<Self>,
        command: Arc<Command>,
        running: Running,
        streams_end: watch::Sender<Option<i32>>,
        ended: Box<dyn FnOnce() + Send>,
    ) {
        let mut table = self.table();
        table.commands.retain(|other| {
            let is_same = other.container == command.container
                && (other.pid == command.pid
                    || (command.config.tag.is_some() && other.config.tag == command.config.tag));
            other.is_running() || !is_same
        });
        table.commands.push(Arc::clone(&command));
        let is_late = table.is_frozen;
        drop(table);
        if is_late && let Err(error) = self.apply_frozen() {
            tracing::warn!(error, "a command that was being started is not frozen");
        }
        let commands = Arc::clone(self);
        drop(task::spawn(async move {
            Arc::clone(&command).run(running, streams_end).await;
            ended();
            commands.bound();
            let tidy = task::spawn({
                let command = Arc::clone(&command);
                async move { command.tidy().await }
            });
            tokio::time::sleep(KEPT).await;
            commands.table().commands.retain(|other| !Arc::ptr_eq(other, &command));
            drop(command);
            drop(tidy.await);
            commands.trimmer.trim_soon();
        }));
    }

    /// Forgets the oldest of too many ended ones.
    fn bound(&self) {
        let mut table = self.table();
        let ended = table.commands.iter().filter(|command| !command.is_running()).count();
        let mut surplus = ended.saturating_sub(ENDED);
        table.commands.retain(|command| {
            let goes = surplus > 0 && !command.is_running();
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// The commands of a container that run.
    pub(super) fn running(&self, container: &str) -> Vec<Arc<Command>> {
        let table = self.table();
        let of_it = table.commands.iter().filter(|command| command.container == container);
        of_it.filter(|command| command.is_running()).cloned().collect()
    }

    /// Freezes all commands that run, or lets them go on; gives how many. While they are frozen, none is started: those that
    /// are being started are waited for, for a while, and frozen too.
    ///
    /// # Errors
    /// The first failure, once all were tried.
    pub(in crate::sandbox_api) async fn set_frozen(
        self: &Arc<Self>,
        is_frozen: bool,
    ) -> Result<usize, String> {
        self.table().is_frozen = is_frozen;
        self.changed.notify_waiters();
        if is_frozen {
            // What takes longer is frozen when it is there.
            drop(tokio::time::timeout(STARTING, self.started()).await);
        }
        let commands = Arc::clone(self);
        let work = task::blocking(move || commands.apply_frozen());
        work.await.unwrap_or_else(|_| Err("freezing panicked".to_owned()))
    }

    /// Waits until no command is being started.
    async fn started(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.table().starting == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Does what was said last. Blocks.
    fn apply_frozen(&self) -> Result<usize, String> {
        let _sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let (commands, is_frozen) = {
            let table = self.table();
            (table.commands.clone(), table.is_frozen)
        };
        let (mut count, mut failed) = (0, None);
        for command in commands.iter().filter(|command| command.is_running()) {
            count += 1;
            if let Err(error) = command.set_frozen(is_frozen) {
                failed.get_or_insert(chain(&error));
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// A command that runs.
    ///
    /// # Errors
    /// `not_found`.
    pub(super) fn find(&self, container: &str, selector: &Selector) -> Result<Arc<Command>, Error> {
        let found = self.find_kept(container, selector)?;
        if found.is_running() { Ok(found) } else { Err(selector.not_found()) }
    }

    /// A command that runs, or that ended a moment ago.
    ///
    /// # Errors
    /// `not_found`.
    pub(super) fn find_kept(&self, container: &str, selector: &Selector) -> Result<Arc<Command>, Error> {
        let table = self.table();
        let of_it = || {
            table
                .commands
                .iter()
                .rev()
                .filter(|command| command.container == container && selector.is(command))
        };
        let found = of_it().find(|command| command.is_running()).or_else(|| of_it().next());
        found.cloned().ok_or_else(|| selector.not_found())
    }
}
