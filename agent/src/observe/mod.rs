//! What the agent tells about itself.
//!
//! Owns the log and the metrics. Promises that telling never holds up the work told about. Must never do anything for containers:
//! their output does not pass here.

pub mod log;
pub(crate) mod metrics;
