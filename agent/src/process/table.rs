//! The processes of one container by exec id. The first process answers to the empty id and to the container's own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{Process, ProcessError};

/// Ended processes that are kept for a caller who asks again. A probe that runs every second must not fill the guest's
/// memory, so older ones are forgotten once their end has been told.
const KEPT: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    /// None while the process is being started, which reserves its id.
    processes: HashMap<String, Option<Arc<Process>>>,
    order: Vec<String>,
}

impl ProcessTable {
    /// Takes an id for a process that is about to start.
    pub(crate) fn reserve(&mut self, id: &str) -> Result<(), ProcessError> {
        match self.processes.entry(id.to_owned()) {
            Entry::Occupied(_) => Err(ProcessError::Exists(id.to_owned())),
            Entry::Vacant(place) => {
                place.insert(None);
                self.order.push(id.to_owned());
                Ok(())
            }
        }
    }

    /// Frees an id whose process could not be started.
    pub(crate) fn release(&mut self, id: &str) {
        self.processes.remove(id);
        self.order.retain(|other| other != id);
    }

    /// Fills a reserved id, and forgets the oldest of many ended processes.
    pub(crate) fn insert(&mut self, id: &str, process: Arc<Process>) {
        process.release_at_exit();
        self.processes.insert(id.to_owned(), Some(process));
        self.forget_old();
    }

    /// Finds a process.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Process>, ProcessError> {
        self.processes.get(id).and_then(Clone::clone).ok_or_else(|| ProcessError::Unknown(id.to_owned()))
    }

    /// All started processes.
    pub(crate) fn all(&self) -> Vec<Arc<Process>> {
        self.processes.values().flatten().cloned().collect()
    }

    fn forget_old(&mut self) {
        let is_old = |id: &String| {
            self.processes.get(id).is_some_and(|p| p.as_ref().is_some_and(|process| process.is_collected()))
        };
        let old: Vec<String> = self.order.iter().filter(|id| is_old(id)).cloned().collect();
        for id in old.iter().take(old.len().saturating_sub(KEPT)) {
            self.release(id);
        }
    }
}
