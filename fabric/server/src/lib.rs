//! The server side of the `weft` binary: API, controller, agent, executor and compiler.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What `weft up` was asked for.
#[derive(Debug, Clone)]
pub struct UpSettings {
    /// The data folder.
    pub data: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Slots of the node's executor; as many as there are cores where none is given.
    pub slots: Option<u32>,
}

/// Runs `weft up` until it is told to stop.
pub fn up(_settings: UpSettings) -> anyhow::Result<()> {
    anyhow::bail!("not built")
}

/// Runs an executor child; its socket is standard input.
pub fn executor() -> anyhow::Result<()> {
    anyhow::bail!("not built")
}

/// Runs a compiler child.
pub fn compiler(_component: &std::path::Path, _artefact: &std::path::Path) -> anyhow::Result<()> {
    anyhow::bail!("not built")
}
