//! Devices of the guest: where they are, and waiting for those that are yet to come.
//!
//! Owns the conversation with sysfs. Finds a device by where it is plugged in, never by the order in which it came.

pub(crate) mod address;
pub(crate) mod cdi;
pub(crate) mod container;
mod error;
mod node;
pub(crate) mod pci;
mod spec;
pub(crate) mod vfio;
pub(crate) mod watch;

pub(crate) use error::{DeviceError, NoDevice};
use node::{entries, number_of, only_entry};
