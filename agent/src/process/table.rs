//! The processes of one container by exec id. The first process answers to the empty id and to the container's own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::{Process, ProcessError};

/// Ended processes that are kept for a caller who asks again. A probe that runs every second must not fill the guest's
/// memory, so older ones are forgotten once their end has been told.
const KEPT: usize = 64;
/// Ended processes that are kept whose end nobody has asked for.
const UNASKED: usize = 192;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    /// None while the process is being started, which reserves its id.
    processes: HashMap<String, Option<Arc<Process>>>,
    order: Vec<String>,
}

impl ProcessTable {
    /// Takes an id for a process that is about to start. That of a further process is free again once its end was told.
    ///
    /// COMPAT(kata): `an_exec_id_is_free_again_once_its_end_was_told`. Clients of kata-agent use one id for all their probes.
    pub(crate) fn reserve(&mut self, id: &str) -> Result<(), ProcessError> {
        let is_over = |process: &Arc<Process>| process.exited().is_some() && process.is_collected();
        if !id.is_empty() && self.processes.get(id).and_then(Option::as_ref).is_some_and(is_over) {
            self.release(id);
        }
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
        // The first process is the container's own end.
        let ended = self.order.iter().filter(|id| !id.is_empty()).filter_map(|id| {
            let process = self.processes.get(id)?.as_ref()?;
            process.exited().is_some().then(|| (id.clone(), process.is_collected()))
        });
        let (asked, unasked): (Vec<_>, Vec<_>) = ended.partition(|(_, is_collected)| *is_collected);
        for (ids, kept) in [(asked, KEPT), (unasked, UNASKED)] {
            for (id, _) in ids.iter().take(ids.len().saturating_sub(kept)) {
                self.release(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::stdio::{Stdio, pipes};
    use tokio::sync::watch;

    /// A process that ends, or that has.
    fn process(id: &str, status: Option<i32>) -> (watch::Sender<Option<i32>>, Arc<Process>) {
        let (sender, exit) = watch::channel(status);
        let stdio = Stdio::of_pipes(pipes(0).unwrap().0, &exit).unwrap();
        let pidfd = tempfile::tempfile().unwrap().into();
        (sender, Arc::new(Process::new(id.into(), 1, pidfd, exit, stdio)))
    }

    fn insert(
        table: &mut ProcessTable,
        id: &str,
        status: Option<i32>,
    ) -> (watch::Sender<Option<i32>>, Arc<Process>) {
        table.reserve(id).unwrap();
        let (sender, made) = process(id, status);
        table.insert(id, Arc::clone(&made));
        (sender, made)
    }

    #[tokio::test]
    async fn an_exec_id_is_free_again_once_its_end_was_told() {
        let mut table = ProcessTable::default();
        let (_init, init) = insert(&mut table, "", Some(0));
        init.wait().await.unwrap();
        let (end, first) = insert(&mut table, "probe", None);
        assert!(matches!(table.reserve("probe"), Err(ProcessError::Exists(_))));
        end.send(Some(3)).unwrap();
        // It has ended, and somebody may still want to know how.
        assert!(matches!(table.reserve("probe"), Err(ProcessError::Exists(_))));
        assert_eq!(table.get("probe").unwrap().wait().await.unwrap(), 3);
        assert_eq!(first.exited(), Some(3));
        table.reserve("probe").unwrap();
        // While the second one starts it is neither the first, nor free.
        assert!(matches!(table.get("probe"), Err(ProcessError::Unknown(_))));
        assert!(matches!(table.reserve("probe"), Err(ProcessError::Exists(_))));
        let (_end, second) = process("probe", None);
        table.insert("probe", second);
        assert_eq!(table.all().len(), 2);
        // The first process's id is the container's.
        assert!(matches!(table.reserve(""), Err(ProcessError::Exists(_))));
    }

    #[tokio::test]
    async fn ended_processes_are_forgotten_oldest_first_whether_or_not_somebody_asked() {
        let mut table = ProcessTable::default();
        let _init = insert(&mut table, "", Some(0));
        let _living = insert(&mut table, "living", None);
        for number in 0..300 {
            insert(&mut table, &format!("unasked-{number}"), Some(0));
        }
        assert_eq!(table.all().len(), 2 + UNASKED);
        assert!(table.get("unasked-299").is_ok() && table.get("unasked-108").is_ok());
        assert!(matches!(table.get("unasked-107"), Err(ProcessError::Unknown(_))));
        for number in 0..100 {
            let (_exit, asked) = insert(&mut table, &format!("asked-{number}"), Some(0));
            asked.wait().await.unwrap();
        }
        insert(&mut table, "last", None);
        // Each of the latter was one that nobody had asked for yet when it was inserted.
        assert_eq!(table.all().len(), 3 + UNASKED - 1 + KEPT);
        assert!(table.get("asked-36").is_ok() && table.get("asked-35").is_err());
        assert!(table.get("").is_ok() && table.get("living").is_ok());
        // An id that is forgotten is free.
        table.reserve("unasked-0").unwrap();
    }
}
