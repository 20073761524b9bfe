//! What no well-behaved client does. Every case looks at what the guest holds before and after: it must be the same.

pub(crate) mod deadlines;
pub(crate) mod frames;
pub(crate) mod ids;
pub(crate) mod order;
pub(crate) mod vanish;
