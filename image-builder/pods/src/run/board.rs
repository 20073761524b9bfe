//! The state of a run while it lasts: in memory, on disk for other processes, and on the user's screen.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::error::RunError;
use super::journal::Journal;
use super::options::Outcome;
use super::output::{Event, Stream};
use super::pod::Pod;
use super::screen::Screen;
use super::state::{ContainerPhase, ContainerRecord, ContainerRole, Phase, PodDir, PodRecord};

/// Of a run that could not go on.
const FAILED: i32 = 1;
/// 128 and SIGKILL.
const KILLED: i32 = 137;
/// 128 and SIGINT.
const INTERRUPTED: i32 = 130;

/// The record of the run: in memory, on disk, and on the sink.
#[derive(Clone)]
pub(super) struct Board {
    dir: Arc<PodDir>,
    record: Arc<Mutex<PodRecord>>,
    screen: Screen,
    journal: Journal,
    /// A status that counts more than those of containers.
    forced: Arc<OnceLock<i32>>,
}

impl Board {
    /// Writes the first record.
    pub(super) fn new(
        dir: PodDir,
        record: PodRecord,
        screen: Screen,
        journal: Journal,
    ) -> Result<Self, RunError> {
        let record = Arc::new(Mutex::new(record));
        let board = Self { dir: Arc::new(dir), record, screen, journal, forced: Arc::default() };
        board.change(|_| {})?;
        board.tell(&json!({"event": "starting"}));
        Ok(board)
    }

    /// Writes what happened into the journal of all pods.
    fn tell(&self, what: &serde_json::Value) {
        let pod = self.read(|record| record.name.clone());
        self.journal.add(&pod, what);
    }

    /// The pod is over. Its record and its logs stay, or nothing does.
    pub(super) fn end(&self, result: Result<&Outcome, &RunError>, stays: bool) -> Result<(), RunError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let code = result.map_or(FAILED, |outcome| outcome.code);
        let error = result.err().map(ToString::to_string);
        self.tell(&json!({"event": "ended", "code": code, "error": error}));
        if !stays {
            return Ok(());
        }
        let mut record = self.read(PodRecord::clone);
        (record.phase, record.ended, record.endpoint) = (Phase::Ended, Some(now), None);
        (record.exit_code, record.error) = (Some(code), error);
        for container in &mut record.containers {
            container.ready = false;
            if container.phase == ContainerPhase::Running {
                container.exit_code.get_or_insert(KILLED);
                container.phase = ContainerPhase::Exited;
            }
        }
        Ok(self.dir.keep(&record)?)
    }

    /// The pod's directory.
    pub(super) fn dir(&self) -> &PodDir {
        &self.dir
    }

    /// Shows an event.
    pub(super) fn show(&self, event: Event) {
        if let Ok(what) = serde_json::to_value(&event)
            && !matches!(event, Event::Timings(_))
        {
            self.tell(&what);
        }
        self.screen.show(event);
    }

    /// Shows a line of a container's output, once there is room for it.
    pub(super) async fn output(&self, container: &str, stream: Stream, text: String) {
        let len = text.len();
        self.screen.output(Event::Output { container: container.to_owned(), stream, text }, len).await;
    }

    /// Shows bytes of a container's output as they are, once there is room for them.
    pub(super) async fn piece(&self, container: &str, stream: Stream, bytes: Vec<u8>) {
        let len = bytes.len();
        self.screen.output(Event::Piece { container: container.to_owned(), stream, bytes }, len).await;
    }

    /// Makes a status the run's, whatever containers end with.
    pub(super) fn force(&self, code: i32) {
        self.forced.get_or_init(|| code);
    }

    /// Changes the record and writes it for others to read.
    pub(super) fn change(&self, change: impl FnOnce(&mut PodRecord)) -> Result<(), RunError> {
        // Held while writing, so that the file never goes back in time.
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut record);
        Ok(self.dir.write(&record)?)
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&PodRecord) -> T) -> T {
        look(&self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn change_container(
        &self,
        name: &str,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), RunError> {
        self.change(|record| {
            if let Some(container) = record.containers.iter_mut().find(|container| container.name == name) {
                change(container);
            }
        })
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        self.show(Event::Note { text: text.into() });
    }

    /// An init container that failed, else the first failure of a main container.
    pub(super) fn outcome(&self, pod: &Pod) -> Outcome {
        self.read(|record| {
            let failed = |code: &i32| *code != 0;
            let containers = || record.containers.iter();
            let init = containers().filter(|container| container.role == ContainerRole::Init);
            let init = init.filter_map(|container| container.exit_code).find(failed);
            let main = containers().filter(|container| pod.main.contains(&container.name));
            // What never ended by itself was killed with its machine.
            let main = main.map(|container| container.exit_code.unwrap_or(KILLED)).find(failed);
            let code = self.forced.get().copied().or(init).or(main).unwrap_or(0);
            Outcome { code, timings: record.timings.clone() }
        })
    }

    /// What comes of a run that was stopped before any container existed.
    pub(super) fn interrupted(&self) -> Outcome {
        Outcome { code: INTERRUPTED, timings: self.read(|record| record.timings.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::output::JsonSink;
    use crate::run::state::StateDir;

    fn code_of(exits: &[Option<i32>], main: &[&str]) -> i32 {
        board_of(exits, main, None).1.code
    }

    fn board_of(
        exits: &[Option<i32>],
        main: &[&str],
        init: Option<i32>,
    ) -> (Board, Outcome, tempfile::TempDir) {
        let names = ["a", "b", "c"];
        let manifest: String =
            names[..exits.len()].iter().map(|name| format!("{{name: {name}, image: i}}, ")).collect();
        let mut pod = Pod::parse(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{initContainers: [{{name: i, image: i}}], \
             containers: [{manifest}]}}\n"
        ))
        .unwrap();
        pod.main = main.iter().map(|&name| name.to_owned()).collect();
        let exits: Vec<Option<i32>> = [init].into_iter().chain(exits.iter().copied()).collect();
        let containers = pod.all().zip(&exits);
        let record = PodRecord {
            containers: containers
                .map(|(container, exit_code)| ContainerRecord {
                    exit_code: *exit_code,
                    ..crate::run::container::waiting(&pod, container)
                })
                .collect(),
            ..PodRecord::sample("web")
        };
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let screen = Screen::new(Arc::new(JsonSink::new(std::io::sink())));
        let board = Board::new(state.reserve("web").unwrap(), record, screen, Journal::of(&state)).unwrap();
        let outcome = board.outcome(&pod);
        board.force(124);
        assert_eq!(board.outcome(&pod).code, 124);
        (board, outcome, dir)
    }

    #[test]
    fn an_init_container_that_failed_is_why_the_others_did_not_run() {
        assert_eq!(board_of(&[None], &["a"], Some(3)).1.code, 3);
        assert_eq!(board_of(&[Some(4)], &["a"], Some(0)).1.code, 4);
    }

    #[test]
    fn the_end_is_written_down_and_what_never_ended_was_killed() {
        let (board, outcome, _dir) = board_of(&[Some(4)], &["a"], Some(0));
        board
            .change_container("a", |record| {
                (record.phase, record.exit_code) = (ContainerPhase::Running, None)
            })
            .unwrap();
        let state = StateDir::new(board.dir().path().parent().unwrap().to_path_buf());
        board.end(Ok(&outcome), true).unwrap();
        let (_, record) = state.find_any("web").unwrap();
        assert_eq!((record.phase, record.exit_code, record.error), (Phase::Ended, Some(4), None));
        assert_eq!(record.containers[1].exit_code, Some(KILLED));
        let events: Vec<String> = Journal::of(&state)
            .read()
            .unwrap()
            .iter()
            .map(|line| line["event"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(events, ["starting", "ended"]);
    }

    #[test]
    fn the_status_is_the_first_failure_of_a_main_container() {
        assert_eq!(code_of(&[Some(0), Some(0)], &["a", "b"]), 0);
        assert_eq!(code_of(&[Some(0), Some(7), Some(9)], &["a", "b", "c"]), 7);
        assert_eq!(code_of(&[Some(1), Some(0)], &["b"]), 0, "a is not a main container");
        assert_eq!(code_of(&[None, Some(0)], &["a", "b"]), 137);
    }
}
