//! The one instruction that Rust calls unsafe and the boot needs.

/// Reads the time-stamp counter.
#[allow(unsafe_code)]
pub(super) fn time_stamp() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, it touches no memory, and Linux leaves it enabled for user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}
