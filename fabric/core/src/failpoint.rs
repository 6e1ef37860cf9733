//! Named points at which a test makes a process die, so that crash recovery is tested at the worst moments.
//!
//! `WEFT_FAILPOINTS="publish=kill@2;map=kill"` kills the process with SIGKILL-like suddenness (`abort` without unwinding) the
//! second time `publish` is reached, and the first time `map` is. `WEFT_FAILPOINT_ONCE=FILE` arms the points only while FILE
//! does not exist, and creates it on the kill, so that a restarted child does not die again. Without the variable a point
//! costs one load.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

struct Armed {
    at: u64,
    hits: AtomicU64,
}

static POINTS: OnceLock<HashMap<String, Armed>> = OnceLock::new();

fn parse(text: &str) -> HashMap<String, Armed> {
    let point = |item: &str| {
        let (name, action) = item.trim().split_once('=')?;
        let at = match action.split_once('@') {
            Some(("kill", at)) => at.parse().ok()?,
            None if action == "kill" => 1,
            _ => return None,
        };
        Some((name.to_owned(), Armed { at, hits: AtomicU64::new(0) }))
    };
    text.split(';').filter_map(point).collect()
}

/// Passes the point `name`; ends the process there when the environment asks for it.
pub fn hit(name: &'static str) {
    let points = POINTS.get_or_init(|| parse(&std::env::var("WEFT_FAILPOINTS").unwrap_or_default()));
    if points.is_empty() {
        return;
    }
    let Some(armed) = points.get(name) else { return };
    if armed.hits.fetch_add(1, Ordering::SeqCst) + 1 != armed.at {
        return;
    }
    if let Ok(file) = std::env::var("WEFT_FAILPOINT_ONCE") {
        // Creating the file is the claim: of several processes that reach the point, one dies.
        if std::fs::OpenOptions::new().write(true).create_new(true).open(file).is_err() {
            return;
        }
    }
    eprintln!("failpoint `{name}`: killed process {}", std::process::id());
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_and_counts() {
        let points = parse("publish=kill@2; map=kill;nonsense;x=sleep");
        assert_eq!(points.len(), 2);
        assert_eq!((points["publish"].at, points["map"].at), (2, 1));
    }
}
