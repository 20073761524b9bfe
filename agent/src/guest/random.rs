//! The kernel's random generator: seeded anew by the host, as after a VM was cloned from a template whose clones would
//! all give the same numbers.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use crate::error::{ErrorKind, Kind};
use crate::sys;

const POOL: &str = "/dev/random";
/// Most bytes of a seed: more than the generator's state could take in.
const LONGEST: usize = 64 * 1024;

/// Why the generator could not be seeded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RandomError {
    /// Nothing to seed it with.
    #[error("a seed has 1 to {LONGEST} bytes, not {0}")]
    Length(usize),
    /// The kernel refused.
    #[error("{operation} {POOL}")]
    Pool {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Kind for RandomError {
    fn kind(&self) -> ErrorKind {
        match self {
            RandomError::Length(_) => ErrorKind::Invalid,
            RandomError::Pool { .. } => ErrorKind::Internal,
        }
    }
}

/// Mixes a seed into the pool, counts it as full entropy, and makes the generator use it at once (random(4)).
pub(crate) fn reseed(seed: &[u8]) -> Result<(), RandomError> {
    if seed.is_empty() || seed.len() > LONGEST {
        return Err(RandomError::Length(seed.len()));
    }
    let failed = |operation| move |source| RandomError::Pool { operation, source };
    let mut pool = OpenOptions::new().write(true).open(POOL).map_err(failed("open"))?;
    pool.write_all(seed).map_err(failed("write to"))?;
    let bits = i32::try_from(seed.len() * 8).unwrap_or(i32::MAX);
    sys::random::credit(pool.as_fd(), bits).map_err(failed("count the entropy of"))?;
    sys::random::reseed(pool.as_fd()).map_err(failed("reseed from"))
}

/// Makes the generator's next numbers differ from those of another copy of this machine, as far as the processor and
/// `known` differ: what is known is mixed in without being counted as entropy, and new seed is taken at once.
pub(crate) fn stir(known: &[u8]) -> Result<(), RandomError> {
    let failed = |operation| move |source| RandomError::Pool { operation, source };
    let mut pool = OpenOptions::new().write(true).open(POOL).map_err(failed("open"))?;
    pool.write_all(known).map_err(failed("write to"))?;
    sys::random::reseed(pool.as_fd()).map_err(failed("reseed from"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_is_none_is_refused_before_the_pool_is_touched() {
        assert_eq!(reseed(&[]).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(reseed(&vec![1; LONGEST + 1]).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
