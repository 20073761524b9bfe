//! The life of a pod, as a pure state machine.
//!
//! ```text
//! none ── begin ──► creating ── made ──► running
//!  ▲                 │   │                  │
//!  └──── failed ─────┘   └──── destroy ─────┴──► destroyed
//! ```
//!
//! A pod that is destroyed while it is created stays destroyed.

use std::path::PathBuf;

use super::error::PodError;
use crate::container::SharedNamespaces;

/// See the module.
#[derive(Debug, Default)]
pub(super) enum Life {
    /// CreateSandbox was not called, or failed.
    #[default]
    None,
    /// CreateSandbox is at work.
    Creating,
    /// Containers can be created.
    Running(Running),
    /// DestroySandbox was called.
    Destroyed,
}

/// What a running pod has.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// Its id.
    pub(super) id: String,
    /// Namespaces that its containers share.
    pub(super) namespaces: SharedNamespaces,
    /// Mount points of its storages, in the order in which they were mounted.
    pub(super) storages: Vec<PathBuf>,
    /// Directory of hooks for every container.
    pub(super) hooks: Option<PathBuf>,
}

impl Life {
    /// A create begins.
    ///
    /// # Errors
    /// [`PodError::Exists`] and [`PodError::Destroyed`].
    pub(super) fn begin(&mut self) -> Result<(), PodError> {
        match self {
            Life::None => {
                *self = Life::Creating;
                Ok(())
            }
            Life::Creating | Life::Running(_) => Err(PodError::Exists),
            Life::Destroyed => Err(PodError::Destroyed),
        }
    }

    /// A create has failed. Only what it began may it end: a destroy in between stands.
    pub(super) fn failed(&mut self) {
        if matches!(self, Life::Creating) {
            *self = Life::None;
        }
    }

    /// A create has made the pod.
    ///
    /// # Errors
    /// [`PodError::Destroyed`], with nothing changed, when it was destroyed meanwhile.
    pub(super) fn made(&mut self, running: Running) -> Result<(), PodError> {
        match self {
            Life::Creating => {
                *self = Life::Running(running);
                Ok(())
            }
            _ => Err(PodError::Destroyed),
        }
    }

    /// The pod, if containers can be created in it.
    ///
    /// # Errors
    /// [`PodError::NotCreated`] and [`PodError::Destroyed`].
    pub(super) fn running(&self) -> Result<&Running, PodError> {
        match self {
            Life::Running(running) => Ok(running),
            Life::None | Life::Creating => Err(PodError::NotCreated),
            Life::Destroyed => Err(PodError::Destroyed),
        }
    }

    /// Ends the pod. Gives the mount points of its storages. A shim that gives up early destroys what was never created:
    /// the VM is to end all the same.
    ///
    /// # Errors
    /// [`PodError::Destroyed`] the second time.
    pub(super) fn destroy(&mut self) -> Result<Vec<PathBuf>, PodError> {
        match std::mem::replace(self, Life::Destroyed) {
            Life::Running(running) => Ok(running.storages),
            Life::None | Life::Creating => Ok(Vec::new()),
            Life::Destroyed => Err(PodError::Destroyed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn running() -> Running {
        let fd = || Arc::new(tempfile::tempfile().unwrap().into());
        let namespaces = SharedNamespaces { ipc: fd(), uts: fd(), pid: Arc::default() };
        Running { id: "pod".into(), namespaces, storages: vec!["/run/volume".into()], hooks: None }
    }

    #[test]
    fn nothing_works_before_it_exists_or_after_its_end() {
        let mut life = Life::default();
        assert!(matches!(life.running(), Err(PodError::NotCreated)));
        life.begin().unwrap();
        assert!(matches!(life.running(), Err(PodError::NotCreated)));
        assert!(matches!(life.begin(), Err(PodError::Exists)));
        life.made(running()).unwrap();
        assert_eq!(life.running().unwrap().id, "pod");
        assert!(matches!(life.begin(), Err(PodError::Exists)));
        assert_eq!(life.destroy().unwrap(), [PathBuf::from("/run/volume")]);
        assert!(matches!(life.running(), Err(PodError::Destroyed)));
        assert!(matches!(life.begin(), Err(PodError::Destroyed)));
        assert!(matches!(life.destroy(), Err(PodError::Destroyed)));
    }

    #[test]
    fn a_failed_create_can_be_tried_again() {
        let mut life = Life::default();
        life.begin().unwrap();
        life.failed();
        life.begin().unwrap();
        life.made(running()).unwrap();
        life.failed();
        assert!(life.running().is_ok());
    }

    #[test]
    fn a_pod_destroyed_while_it_is_made_stays_destroyed() {
        for made in [true, false] {
            let mut life = Life::default();
            life.begin().unwrap();
            assert!(life.destroy().unwrap().is_empty());
            if made {
                assert!(matches!(life.made(running()), Err(PodError::Destroyed)));
            } else {
                life.failed();
            }
            assert!(matches!(life.running(), Err(PodError::Destroyed)));
        }
    }
}
