//! Memory that containers do not use goes back, to the guest and through its balloon to the host.
//!
//! Two tasks that sleep a period each: [`reclaim`] takes from every container what has lain idle, [`compact`] puts
//! free memory together into blocks large enough to be given back. What they do is decided in [`decide`], by pure
//! functions. Both hold back when pressure stall information says that somebody waits. docs/memory.md tells the rest.
//!
//! Off unless the command line says `agent.mem_agent_enable`; then the settings can be changed at any time, and the
//! change counts at once, also for what is being done. Must never: know containers other than by their cgroups, or
//! block the runtime.

mod compact;
mod decide;
mod kernel;
mod reclaim;
mod settings;
mod target;

use tokio::sync::watch;

pub(crate) use settings::{CompactionChange, ReclaimChange};
pub(crate) use target::Target;

use crate::config;
use crate::error::{ErrorKind, Kind};
use kernel::Kernel;
use settings::{Compaction, Reclaim, SettingsError};

/// Why settings do not change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemAgentError {
    /// The command line did not ask for it.
    #[error("mem-agent is disabled")]
    Disabled,
    /// See [`SettingsError`].
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl Kind for MemAgentError {
    fn kind(&self) -> ErrorKind {
        match self {
            // COMPAT(kata): `settings_of_what_is_off_are_refused`: not FAILED_PRECONDITION.
            MemAgentError::Disabled => ErrorKind::Internal,
            MemAgentError::Settings(error) => error.kind(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct MemAgent {
    enabled: bool,
    reclaim: watch::Sender<Reclaim>,
    compaction: watch::Sender<Compaction>,
}

impl MemAgent {
    /// With the settings of the command line. Nothing happens yet.
    pub(crate) fn new(config: &config::MemAgent) -> MemAgent {
        let (reclaim, mut refused) = Reclaim::from_config(config);
        let (compaction, others) = Compaction::from_config(config);
        refused.extend(others);
        for error in refused {
            tracing::warn!("kernel command line: memory: {error}, keeping the default");
        }
        MemAgent {
            enabled: config.enable,
            reclaim: watch::channel(reclaim).0,
            compaction: watch::channel(compaction).0,
        }
    }

    /// Starts the tasks, if the command line asks for them. `containers` is asked at each look.
    pub(crate) fn start(&self, containers: impl Fn() -> Vec<Target> + Send + 'static) {
        if !self.enabled {
            return;
        }
        let kernel = Kernel::new("/proc");
        if !kernel.tells_pressure() {
            tracing::warn!(
                "this kernel tells no pressure (CONFIG_PSI): memory is reclaimed regardless of it"
            );
        }
        tokio::spawn(reclaim::run(self.reclaim.subscribe(), kernel.clone(), containers));
        tokio::spawn(compact::run(self.compaction.subscribe(), kernel));
    }

    /// Changes what is set about reclaim.
    pub(crate) fn set_reclaim(&self, change: &ReclaimChange) -> Result<(), MemAgentError> {
        self.change(&self.reclaim, |settings| settings.with(change))
    }

    /// Changes what is set about compaction.
    pub(crate) fn set_compaction(&self, change: &CompactionChange) -> Result<(), MemAgentError> {
        self.change(&self.compaction, |settings| settings.with(change))
    }

    fn change<S: PartialEq + std::fmt::Debug>(
        &self,
        settings: &watch::Sender<S>,
        with: impl FnOnce(&S) -> Result<S, SettingsError>,
    ) -> Result<(), MemAgentError> {
        if !self.enabled {
            return Err(MemAgentError::Disabled);
        }
        let mut refused = None;
        settings.send_if_modified(|now| match with(now) {
            Ok(new) if new != *now => {
                tracing::info!(settings = ?new, "memory settings changed");
                *now = new;
                true
            }
            Ok(_) => false,
            Err(error) => {
                refused = Some(error);
                false
            }
        });
        refused.map_or(Ok(()), |error| Err(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_only_where_it_is_on() {
        let change = ReclaimChange { period_secs: Some(5), ..Default::default() };
        let wrong = CompactionChange { compact_order: Some(64), ..Default::default() };
        let off = MemAgent::new(&config::MemAgent::default());
        let error = off.set_reclaim(&change).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Internal, "mem-agent is disabled")
        );
        assert_eq!(off.set_compaction(&wrong).unwrap_err().kind(), ErrorKind::Internal);
        let on = MemAgent::new(&config::MemAgent { enable: true, ..config::MemAgent::default() });
        on.set_reclaim(&change).unwrap();
        assert_eq!(on.reclaim.borrow().period.as_secs(), 5);
        assert_eq!(on.set_compaction(&wrong).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(*on.compaction.borrow(), Compaction::default());
    }

    #[tokio::test]
    async fn a_change_that_changes_nothing_wakes_nobody() {
        let on = MemAgent::new(&config::MemAgent { enable: true, ..config::MemAgent::default() });
        let mut watched = on.reclaim.subscribe();
        on.set_reclaim(&ReclaimChange { period_secs: Some(600), ..Default::default() }).unwrap();
        assert!(!watched.has_changed().unwrap());
        on.set_reclaim(&ReclaimChange { period_secs: Some(60), ..Default::default() }).unwrap();
        watched.changed().await.unwrap();
        assert_eq!(watched.borrow().period.as_secs(), 60);
    }
}
