//! Filters of the last profiles. The containers of a pod nearly always have the same one, of some 400 names: to compile it takes
//! longer than all other planning.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::LinuxSeccomp;

use super::{Filter, compile};
use crate::plan::PlanError;

/// Most profiles that are kept.
const MOST: usize = 2;
/// Most system calls that a profile which is kept can name. Docker's names some 400.
const MOST_NAMES: usize = 1024;
/// Most bytes of all these names.
const MOST_BYTES: usize = 32 << 10;

/// Keeps the filters of the last profiles. Two profiles of the usual size take some 60 KiB.
#[derive(Debug, Default)]
pub struct Filters(Mutex<VecDeque<(LinuxSeccomp, Filter)>>);

impl Filters {
    /// The filter of a profile, as [`compile`] makes it. A profile that is one of the last two that were compiled is not compiled
    /// again.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn of(&self, profile: &LinuxSeccomp) -> Result<Filter, PlanError> {
        if !is_small(profile) {
            return compile(profile);
        }
        if let Some(filter) = self.find(profile) {
            return Ok(filter);
        }
        // Not under the lock. Two who ask at the same time both compile.
        let filter = compile(profile)?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| other != profile);
        kept.truncate(MOST - 1);
        kept.push_front((profile.clone(), filter.clone()));
        Ok(filter)
    }

    fn find(&self, profile: &LinuxSeccomp) -> Option<Filter> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(other, _)| other == profile).map(|(_, filter)| filter.clone())
    }
}

fn is_small(profile: &LinuxSeccomp) -> bool {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let (count, bytes) = names.fold((0, 0), |(count, bytes), name| (count + 1, bytes + name.len()));
    // A rule needs no name.
    let rules = profile.syscalls().as_ref().map_or(0, Vec::len);
    let conditions =
        profile.syscalls().iter().flatten().filter_map(|rule| rule.args().as_ref()).map(Vec::len);
    count + rules + conditions.sum::<usize>() <= MOST_NAMES && bytes <= MOST_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder, LinuxSyscallBuilder};

    use super::*;

    fn profile(names: &[&str]) -> LinuxSeccomp {
        let rule = LinuxSyscallBuilder::default()
            .names(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .action(LinuxSeccompAction::ScmpActErrno)
            .build()
            .unwrap();
        LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActAllow)
            .syscalls([rule])
            .build()
            .unwrap()
    }

    #[test]
    fn the_last_profiles_share_a_program() {
        let filters = Filters::default();
        let [one, two, three] = ["mount", "umount2", "chroot"].map(|name| profile(&[name]));
        let first = filters.of(&one).unwrap();
        assert_eq!(first, compile(&one).unwrap());
        assert!(Arc::ptr_eq(&filters.of(&one).unwrap().program, &first.program));
        assert_eq!(filters.of(&two).unwrap(), compile(&two).unwrap());
        assert!(Arc::ptr_eq(&filters.of(&one).unwrap().program, &first.program));
        filters.of(&three).unwrap();
        assert_eq!(filters.0.lock().unwrap().len(), MOST);
        let again = filters.of(&one).unwrap();
        assert_eq!(again, first);
        assert!(!Arc::ptr_eq(&again.program, &first.program), "it was kept for ever");
    }

    #[test]
    fn a_large_profile_is_not_kept() {
        let filters = Filters::default();
        let long = "x".repeat(MOST_BYTES + 1);
        for names in [vec!["mount"; MOST_NAMES], vec!["mount", &long]] {
            let profile = profile(&names);
            assert_eq!(filters.of(&profile).unwrap(), compile(&profile).unwrap());
            assert!(filters.0.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn a_wrong_profile_is_an_error_each_time() {
        let filters = Filters::default();
        let rule = LinuxSyscallBuilder::default()
            .names(["mount".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(100_000u32)
            .build()
            .unwrap();
        let wrong = LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActAllow)
            .syscalls([rule])
            .build()
            .unwrap();
        for _ in 0..2 {
            filters.of(&wrong).unwrap_err();
        }
        assert!(filters.0.lock().unwrap().is_empty());
    }
}
