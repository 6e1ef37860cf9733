//! What the server and its children ask of the kernel for themselves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where memory is short, the kernel is to take this process rather than the server.
pub fn expendable() {
    const FIRST_OF_ALL: &str = "1000";
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", FIRST_OF_ALL) {
        tracing::warn!(%error, "the kernel may take the server where memory is short");
    }
}

/// Has the allocator give memory back: left to itself it keeps an arena for each thread, and what is freed inside, so that a
/// server which lives long holds many times what it uses.
#[cfg(target_env = "gnu")]
pub fn thrifty_heap() {
    /// The threads that serve are two.
    const ARENAS: libc::c_int = 2;
    /// Larger blocks are mapped, and unmapped when they are freed; so much stays free at an arena's end.
    const KEPT_BYTES: libc::c_int = 128 << 10;
    let settings = [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, KEPT_BYTES),
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
    ];
    // SAFETY: sets numbers of the C library's own, before there are other threads.
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    let done = settings.map(|(name, value)| unsafe { libc::mallopt(name, value) });
    if done.contains(&0) {
        tracing::warn!("the allocator keeps memory that is free");
    }
}

/// Other C libraries' allocators have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn thrifty_heap() {}

/// As many open files as the machine allows: connections, components and spilled runs are files.
pub fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the bound on open files stays as it is");
    }
}
