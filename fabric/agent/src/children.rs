//! Child processes: this program, executed again.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Context;
use tokio::process::Command;

/// Variables of the environment that children inherit: for debugging, tests, certificates of stores, and the way to
/// them.
const INHERITED: [&str; 13] = [
    "WEFT_LOG",
    "RUST_BACKTRACE",
    "WEFT_FAILPOINTS",
    "WEFT_FAILPOINT_ONCE",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Starts children of this program.
#[derive(Debug, Clone)]
pub(crate) struct Children {
    program: PathBuf,
}

impl Children {
    /// Errors: the path of this program is unknown.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of the program is unknown")?;
        Ok(Self { program })
    }

    /// A child with nothing of this process' environment but [`INHERITED`].
    pub(crate) fn command(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().kill_on_drop(true);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}
