//! The verbs of `pith`, as a library: `image-builder` had them first, and still answers to their old names.
//!
//! One file per verb or family of verbs. Each parses its own arguments and calls [`pods`], [`registry`] or [`images`]. Must
//! never decide anything that a user of those libraries would have to decide again.

pub mod attach;
pub mod cli;
pub mod complete;
pub mod copy;
mod detach;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod global;
pub mod images;
pub mod life;
pub mod logs;
pub mod look;
pub mod request;
pub mod run;
pub mod signals;
pub mod stats;
pub mod time;
pub mod vm;
pub mod volume;
