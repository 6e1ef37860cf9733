//! The log of the server and its children, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The filter where `WEFT_LOG` says nothing.
const DEFAULT_FILTER: &str = "info";

/// Starts logging, as `WEFT_LOG` asks: `debug`, `warn,weft_controller=debug`. A filter that cannot
/// be read counts as none.
pub(crate) fn start() {
    let filter =
        EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A process that logs already goes on as it does.
    let _ = logging.try_init();
}
