//! The map of container ids to handles. Its lock is held for a look-up, never across an await.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::container::ContainerHandle;
use crate::error::{ErrorKind, Kind};

/// Id of a container: at least two characters, a letter or digit first, then also `.`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContainerId(Arc<str>);

/// Why an id does not lead to a container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RegistryError {
    /// Not an id.
    #[error(
        "invalid container id {0:?}: letters, digits, '.', '-' and '_', at least two, a letter or digit first"
    )]
    BadId(String),
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
            RegistryError::BadId(_) => ErrorKind::Invalid,
            RegistryError::Exists(_) => ErrorKind::Exists,
            RegistryError::NotFound(_) => ErrorKind::NotFound,
        }
    }
}

/// Longest id, in bytes: it becomes a directory's name.
const LONGEST: usize = 255;

impl ContainerId {
    /// Checks an id.
    pub(crate) fn parse(text: &str) -> Result<ContainerId, RegistryError> {
        let mut chars = text.chars();
        let starts = chars.next().is_some_and(char::is_alphanumeric);
        let goes_on = chars.all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if starts && goes_on && text.chars().nth(1).is_some() && text.len() <= LONGEST {
            Ok(ContainerId(text.into()))
        } else {
            Err(RegistryError::BadId(text.to_owned()))
        }
    }

    /// The id's text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids() {
        for good in ["ab", "0-_.", "ngïnx", &"a".repeat(64)] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ".a", "-ab", "a/b", "a b", "..", "a\0b", &"a".repeat(256)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_always_one_path_component(text in ".{0,40}") {
            if let Ok(id) = ContainerId::parse(&text) {
                prop_assert_eq!(std::path::Path::new(id.as_str()).components().count(), 1);
                prop_assert_ne!(id.as_str(), "..");
            }
        }
    }
}
