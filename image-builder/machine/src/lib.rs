//! The virtual machine that a guest runs in: started, reached over vsock, saved and switched off.
//!
//! Must never know what runs in the guest, beside its agent.

pub mod vm;
