//! `pith` as a user types it: see the harness.

pub(crate) use tests::{Pods, busybox_image, root};
