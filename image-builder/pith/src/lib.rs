//! The verbs of `pith`, as a library. `image-builder` uses it too, because it had these verbs first and still accepts the old
//! names.
//!
//! There is one file per verb or family of verbs. Each parses its own arguments and calls [`pods`], [`registry`] or [`images`].
//! Must never contain logic that another user of those libraries would need as well.

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
mod platform;
pub mod request;
pub mod run;
pub mod signals;
pub mod stats;
pub mod time;
pub mod vm;
pub mod volume;
