//! Known differences, each with its reason. One that is none any more fails the test.

use crate::report::Difference;

/// A difference that is as it should be.
#[derive(Debug)]
pub(crate) struct Known {
    /// Bundles: a name, or `*` for all.
    pub(crate) bundle: &'static str,
    /// `crun`, `runc` or `*`.
    pub(crate) runtime: &'static str,
    /// Place in the report, which may end in `*`.
    pub(crate) place: &'static str,
    /// Why it is so.
    pub(crate) reason: &'static str,
}

impl Known {
    pub(crate) fn covers(&self, bundle: &str, runtime: &str, difference: &Difference) -> bool {
        let fits = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => pattern == text,
        };
        fits(self.bundle, bundle) && fits(self.runtime, runtime) && fits(self.place, &difference.place)
    }
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[];
