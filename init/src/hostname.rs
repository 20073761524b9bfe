//! The guest's own host name.

use std::io;
use std::path::Path;

use thiserror::Error;

/// What the kernel reports before anybody set a host name (CONFIG_DEFAULT_HOSTNAME).
const UNSET: &str = "(none)";

/// The longest host name the kernel takes, in bytes (`__NEW_UTS_LEN`).
const LONGEST: usize = 64;

/// A host name could not be set.
#[derive(Debug, Error)]
pub enum HostnameError {
    /// Empty, too long, or with bytes no host name has.
    #[error("host name {name:?} is not 1 to {LONGEST} visible ASCII characters")]
    Malformed {
        /// The name as given.
        name: String,
    },
    /// The kernel refused.
    #[error("set host name {name:?}")]
    Set {
        /// The name as given.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Sets the host name of this process's UTS namespace.
///
/// # Errors
/// When the name is not 1 to 64 visible ASCII characters, or the kernel refuses it.
pub fn set_hostname(name: &str) -> Result<(), HostnameError> {
    if name.is_empty() || name.len() > LONGEST || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HostnameError::Malformed { name: name.to_owned() });
    }
    nix::unistd::sethostname(name)
        .map_err(|errno| HostnameError::Set { name: name.to_owned(), source: errno.into() })
}

/// Whether a host name was set by the kernel command line or by anybody else.
pub(crate) fn is_set() -> bool {
    nix::unistd::gethostname().is_ok_and(|name| !name.is_empty() && name != UNSET)
}

/// The first word of `file`, or `default` when the file is missing or empty.
pub(crate) fn configured(file: &Path, default: &str) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().unwrap_or(default).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_no_kernel_takes_are_refused_before_asking() {
        for name in ["", "a b", "a\nb", "\u{e9}", &"x".repeat(65)] {
            let error = set_hostname(name).expect_err(name);
            assert!(matches!(error, HostnameError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn the_first_word_of_the_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hostname");
        assert_eq!(configured(&file, "localhost"), "localhost");
        std::fs::write(&file, "\n  guest-1 other\n").unwrap();
        assert_eq!(configured(&file, "localhost"), "guest-1");
        std::fs::write(&file, " \n").unwrap();
        assert_eq!(configured(&file, "localhost"), "localhost");
    }
}
