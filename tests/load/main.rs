//! Many at once, and many in a row: nobody waits for ever, and nothing accumulates. Each test prints what it measured.

mod crowd;
mod profile;
mod soak;
