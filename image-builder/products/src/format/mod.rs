//! File formats that the builder writes: pure functions from trees and bytes to bytes.
//!
//! Promises that the same input gives the same bytes on every host. Must never read a clock, the environment or the
//! file system.

pub mod compress;
pub mod dax;
pub mod label;
pub mod pe;
pub mod verity;
