//! The map of container ids to handles. Its lock is held for a look-up, never across an await.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use crate::container::{BadId, ContainerHandle, ContainerId, Neighbours};
use crate::error::{ErrorKind, Kind};

/// Why an id does not lead to a container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RegistryError {
    /// Not an id.
    #[error(transparent)]
    Id(#[from] BadId),
    /// Taken.
    #[error("container {0} exists already")]
    Exists(ContainerId),
    /// No such container.
    #[error("container {0} not found")]
    NotFound(String),
}

impl Kind for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Id(error) => error.kind(),
            RegistryError::Exists(_) => ErrorKind::Exists,
            RegistryError::NotFound(_) => ErrorKind::NotFound,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    containers: Mutex<HashMap<ContainerId, ContainerHandle>>,
}

impl Registry {
    fn containers(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, ContainerHandle>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an id for a new container. Of two creates with one id, one gets it.
    pub(crate) fn reserve(
        &self,
        id: &ContainerId,
        make: impl FnOnce() -> ContainerHandle,
    ) -> Result<ContainerHandle, RegistryError> {
        match self.containers().entry(id.clone()) {
            Entry::Occupied(_) => Err(RegistryError::Exists(id.clone())),
            Entry::Vacant(place) => Ok(place.insert(make()).clone()),
        }
    }

    /// Finds a container.
    pub(crate) fn get(&self, id: &str) -> Result<ContainerHandle, RegistryError> {
        // An id that could never be one is simply not found: callers that only look up need no other answer.
        let found = ContainerId::parse(id).ok().and_then(|id| self.containers().get(&id).cloned());
        found.ok_or_else(|| RegistryError::NotFound(id.to_owned()))
    }

    /// Frees an id.
    pub(crate) fn remove(&self, id: &ContainerId) {
        self.containers().remove(id);
    }

    /// All containers.
    pub(crate) fn all(&self) -> Vec<ContainerHandle> {
        self.containers().values().cloned().collect()
    }
}

impl Neighbours for Registry {
    fn init_of(&self, name: &str) -> Option<i32> {
        self.all().into_iter().find_map(|container| {
            let is_it = container.name().is_some_and(|its| its == name);
            let init = is_it.then(|| container.process("").ok())??;
            init.exited().is_none().then(|| init.pid())
        })
    }
}
