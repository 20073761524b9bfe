//! The guest as a whole: what it is and what its kernel can do.
//!
//! Owns facts about the machine and, in time, what changes it as a whole: clock, entropy, hotplug. Promises to read
//! them from the kernel when asked. Must never do anything to a container.

pub(crate) mod clock;
pub mod details;
pub(crate) mod hotplug;
pub(crate) mod memory;
pub(crate) mod modules;
pub(crate) mod random;
pub(crate) mod resize;
pub(crate) mod swap;
pub(crate) mod volume;
