//! malloc_trim(3) and mallopt(3).

/// Gives what the allocator keeps for later back to the kernel, of all its arenas. Without it a heap stays as large as it has
/// ever been: what is allocated last lies on top of what was freed, and each thread that allocated has an arena of its own. Takes
/// as long as the heap is large, and others who allocate wait meanwhile. Other C libraries than glibc do this by themselves.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number only, and locks what it works on.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Lets all threads allocate from one heap. Threads come and go with blocking work, a heap for each of them would keep what it
/// cannot give back, and none of them allocates so much that it had to wait. Call it before there are threads.
pub(crate) fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers only.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}
