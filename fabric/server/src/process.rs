//! What the server and its children ask of the kernel for themselves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where memory is short, the kernel is to take this process rather than the server.
pub(crate) fn expendable() {
    const FIRST_OF_ALL: &str = "1000";
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", FIRST_OF_ALL) {
        tracing::warn!(%error, "the kernel may take the server where memory is short");
    }
}

/// As many open files as the machine allows: connections, components and spilled runs are files.
pub(crate) fn more_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the bound on open files stays as it is");
    }
}
