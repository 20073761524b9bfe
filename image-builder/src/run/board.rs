//! What is known of a run while it lasts: in memory, on disk for other processes, and on the user's screen.

use std::sync::{Arc, Mutex, PoisonError};

use super::output::{Event, Stream};
use super::pod::Pod;
use super::screen::Screen;
use super::state::{ContainerRecord, PodDir, PodRecord};
use super::{Outcome, RunError};

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
}

impl Board {
    /// Writes the first record.
    pub(super) fn new(dir: PodDir, record: PodRecord, screen: Screen) -> Result<Self, RunError> {
        let board = Self { dir: Arc::new(dir), record: Arc::new(Mutex::new(record)), screen };
        board.change(|_| {})?;
        Ok(board)
    }

    /// The pod's directory.
    pub(super) fn dir(&self) -> &PodDir {
        &self.dir
    }

    /// Shows an event.
    pub(super) fn show(&self, event: Event) {
        self.screen.show(event);
    }

    /// Shows a line of a container's output, once there is room for it.
    pub(super) async fn output(&self, container: &str, stream: Stream, text: String) {
        let len = text.len();
        self.screen.output(Event::Output { container: container.to_owned(), stream, text }, len).await;
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
        self.screen.show(Event::Note { text: text.into() });
    }

    pub(super) fn outcome(&self, pod: &Pod) -> Outcome {
        self.read(|record| {
            let main = record.containers.iter().filter(|container| pod.main.contains(&container.name));
            // What never ended by itself was killed with its machine.
            let code = main.map(|container| container.exit_code.unwrap_or(KILLED)).find(|&code| code != 0);
            Outcome { code: code.unwrap_or(0), timings: record.timings.clone() }
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
    use crate::run::state::{Phase, StateDir};
    use crate::run::timing::Timings;

    fn code_of(exits: &[Option<i32>], main: &[&str]) -> i32 {
        let names = ["a", "b", "c"];
        let manifest: String =
            names[..exits.len()].iter().map(|name| format!("{{name: {name}, image: i}}, ")).collect();
        let mut pod = Pod::parse(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{manifest}]}}\n"
        ))
        .unwrap();
        pod.main = main.iter().map(|&name| name.to_owned()).collect();
        let containers = pod.containers.iter().zip(exits);
        let record = PodRecord {
            name: "web".into(),
            pid: 1,
            phase: Phase::Running,
            stop_within: 0,
            started: 0,
            accel: None,
            endpoint: None,
            ports: Vec::new(),
            containers: containers
                .map(|(container, exit_code)| ContainerRecord {
                    exit_code: *exit_code,
                    ..crate::run::container::waiting(&pod, container)
                })
                .collect(),
            timings: Timings::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        let screen = Screen::new(Arc::new(JsonSink::new(std::io::sink())));
        Board::new(state.reserve("web").unwrap(), record, screen).unwrap().outcome(&pod).code
    }

    #[test]
    fn the_status_is_the_first_failure_of_a_main_container() {
        assert_eq!(code_of(&[Some(0), Some(0)], &["a", "b"]), 0);
        assert_eq!(code_of(&[Some(0), Some(7), Some(9)], &["a", "b", "c"]), 7);
        assert_eq!(code_of(&[Some(1), Some(0)], &["b"]), 0, "a is not a main container");
        assert_eq!(code_of(&[None, Some(0)], &["a", "b"]), 137);
    }
}
