//! The one instruction that Rust calls unsafe and the boot needs.

/// Reads the time-stamp counter; none on a processor that is not x86.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) fn time_stamp() -> Option<u64> {
    // SAFETY: every x86-64 CPU has RDTSC, it touches no memory, and Linux leaves it enabled for user space.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

/// Reads the time-stamp counter; none on a processor that is not x86.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn time_stamp() -> Option<u64> {
    None
}
