//! What the agent tells about itself.
//!
//! Owns the log. Promises that telling never holds up the work told about. Must never do anything for containers:
//! their output does not pass here.

pub mod log;
