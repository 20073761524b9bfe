//! Options that must not be set, and why.
//!
//! Pure. Must never be empty by accident: unknown keys in the file are errors.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::data::DataError;

/// Forbidden options with the reason of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forbidden(BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    forbid: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    options: Vec<String>,
    why: String,
}

impl Forbidden {
    /// Reads the list; `path` is its name in messages.
    ///
    /// # Errors
    /// When the text is not TOML of the expected shape.
    pub fn parse(path: &Path, text: &str) -> Result<Self, DataError> {
        let file: File = toml::from_str(text).map_err(|source| DataError::toml(path, source))?;
        let pairs = file
            .forbid
            .into_iter()
            .flat_map(|Group { options, why }| options.into_iter().map(move |option| (option, why.clone())));
        Ok(Self(pairs.collect()))
    }

    /// The list without the options that a profile allows.
    ///
    /// # Errors
    /// Names the first allowed option that was not forbidden to begin with.
    pub fn allowing(mut self, path: &Path, allowed: &[String]) -> Result<Self, DataError> {
        for option in allowed {
            if self.0.remove(option).is_none() {
                return Err(DataError::Allow { path: path.to_path_buf(), option: option.clone() });
            }
        }
        Ok(self)
    }

    /// All forbidden options with their reasons, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(symbol, why)| (symbol.as_str(), why.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "[[forbid]]\noptions = [\"CONFIG_A\", \"CONFIG_B\"]\nwhy = \"w\"\n";

    #[test]
    fn a_profile_allows_by_name_and_only_what_is_forbidden() {
        let list = Forbidden::parse(Path::new("f"), LIST).unwrap();
        let fewer = list.clone().allowing(Path::new("p"), &["CONFIG_A".into()]).unwrap();
        assert_eq!(fewer.iter().collect::<Vec<_>>(), [("CONFIG_B", "w")]);
        let error = list.allowing(Path::new("p"), &["CONFIG_C".into()]).unwrap_err();
        assert_eq!(error.to_string(), "p: allows CONFIG_C, which is not forbidden");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = Forbidden::parse(Path::new("f"), "[[forbid]]\noptions = []\nwhy = \"w\"\nbecause = 1")
            .unwrap_err();
        assert!(format!("{error:?}").contains("because"), "{error:?}");
    }
}
