//! Ids of containers.

use std::fmt;
use std::sync::Arc;

use crate::error::{ErrorKind, Kind};

/// Id of a container: at least two characters, a letter or digit first, then also `.`, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ContainerId(Arc<str>);

/// A text that is no id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "invalid container id {0:?}: letters, digits, '.', '-' and '_', at least two, a letter or digit first"
)]
pub(crate) struct BadId(String);

impl Kind for BadId {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Longest id, in bytes: it becomes a directory's name.
const LONGEST: usize = 255;

impl ContainerId {
    /// Checks an id.
    pub(crate) fn parse(text: &str) -> Result<ContainerId, BadId> {
        let mut chars = text.chars();
        let starts = chars.next().is_some_and(char::is_alphanumeric);
        let goes_on = chars.all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if starts && goes_on && text.chars().nth(1).is_some() && text.len() <= LONGEST {
            Ok(ContainerId(text.into()))
        } else {
            Err(BadId(text.to_owned()))
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
