//! What only a host with KVM and the kernel's own vsock can show. `make nested` makes such a host and runs this in it, with
//! many of the other rungs' tests; on a host of that kind, `cargo nextest run -p tests -P nested` does the same.

#![allow(clippy::unwrap_used)]

mod accel;
mod monitors;
mod virtio;
mod vsock;
