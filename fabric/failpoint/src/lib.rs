//! Named points at which a test makes a process die, so that crash recovery is tested at the worst moments.
//!
//! `WEFT_FAILPOINTS="publish=kill@2;map=kill-parent"` sends SIGKILL to the process itself the second time that it reaches
//! `publish`, and to its parent the first time that it reaches `map`: that is how an executor's progress decides when the server dies.
//! `WEFT_FAILPOINT_ONCE=FILE` arms the points only while FILE does not exist, and creates it before the kill, so that a
//! process that was started again does not die again. Without the first variable a point costs one load.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, getpid, getppid, kill_process};

struct Armed {
    at: u64,
    parent: bool,
    hits: AtomicU64,
}

static POINTS: OnceLock<HashMap<String, Armed>> = OnceLock::new();

fn parse(text: &str) -> HashMap<String, Armed> {
    let point = |item: &str| {
        let (name, action) = item.trim().split_once('=')?;
        let (action, at) = action.split_once('@').unwrap_or((action, "1"));
        let parent = match action {
            "kill" => false,
            "kill-parent" => true,
            _ => return None,
        };
        Some((
            name.to_owned(),
            Armed {
                at: at.parse().ok()?,
                parent,
                hits: AtomicU64::new(0),
            },
        ))
    };
    text.split(';').filter_map(point).collect()
}

/// Passes the point `name`; ends the process there when the environment asks for it.
pub fn hit(name: &'static str) {
    let points =
        POINTS.get_or_init(|| parse(&std::env::var("WEFT_FAILPOINTS").unwrap_or_default()));
    if points.is_empty() {
        return;
    }
    let Some(armed) = points.get(name) else {
        return;
    };
    if armed.hits.fetch_add(1, Ordering::SeqCst) + 1 != armed.at {
        return;
    }
    if let Ok(file) = std::env::var("WEFT_FAILPOINT_ONCE") {
        // Creating the file is the claim: of several processes that reach the point, one dies.
        if std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)
            .is_err()
        {
            return;
        }
    }
    let victim: Option<Pid> = if armed.parent {
        getppid()
    } else {
        Some(getpid())
    };
    eprintln!(
        "failpoint `{name}`: process {} kills {}",
        std::process::id(),
        if armed.parent { "its parent" } else { "itself" }
    );
    if let Some(victim) = victim {
        // A parent that is gone already needs no killing.
        let _ = kill_process(victim, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_names_and_counts() {
        let points = parse("publish=kill@2; map=kill-parent;nonsense;x=sleep");
        assert_eq!(points.len(), 2);
        assert_eq!((points["publish"].at, points["publish"].parent), (2, false));
        assert_eq!((points["map"].at, points["map"].parent), (1, true));
    }
}
