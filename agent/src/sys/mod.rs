//! All of the crate's unsafe code: one kernel interface per file, one call per function.
#![allow(unsafe_code)]

pub(crate) mod clock;
pub(crate) mod crash;
pub(crate) mod device_mapper;
pub(crate) mod ext4;
#[cfg(feature = "sandbox-api")]
pub(crate) mod fs;
pub(crate) mod heap;
pub(crate) mod link;
pub(crate) mod random;
#[cfg(feature = "sandbox-api")]
pub(crate) mod readable;
pub(crate) mod reset;
pub(crate) mod swap;
