//! Products put where VMMs and shims take them from, and the configuration that names them.
//!
//! Owns what is written outside the product directory. Promises that all of an installation is written or nothing, that what
//! somebody else made is neither replaced nor removed nor followed where it is a link, and that an installation can be removed by
//! its receipt alone. Must never change a file of anybody else.

mod error;
mod install;
pub mod kata;
mod plan;
mod products;
mod receipt;
mod remove;
mod root;
pub mod vmm;

pub use error::DeployError;
pub use install::{How, Kept, Report, install};
pub use plan::{Content, Plan, Planned};
pub use products::{Products, RootKind};
pub use receipt::{Receipt, Written};
pub use remove::remove;
pub use root::Root;

#[cfg(test)]
mod tests;
