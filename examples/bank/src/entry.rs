//! The history of an account: an entry for each change of its balance.

use serde::{Deserialize, Serialize};
use weft::prelude::*;

/// Entries that are kept.
pub(crate) const HISTORY_ENTRIES: u64 = 100;

const PREFIX: &str = "entry/";

/// A change of the balance.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Entry {
    /// 1 for the first one of the account.
    pub(crate) number: u64,
    #[serde(flatten)]
    pub(crate) kind: Kind,
    pub(crate) amount: u64,
    /// The balance afterwards.
    pub(crate) balance: u64,
}

/// Why the balance changed. `transfer` is the same on both sides of a transfer.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Kind {
    Deposit,
    Sent { transfer: String, to: String },
    Received { transfer: String, from: String },
}

/// The last entries, oldest first.
#[derive(Serialize)]
pub(crate) struct History {
    pub(crate) history: Vec<Entry>,
}

/// Adds an entry, and removes the one that is too old by now.
pub(crate) fn add(entry: &Entry, state: &mut State) -> Result<()> {
    state.put(key(entry.number), serde_json::to_vec(entry)?)?;
    match entry.number.checked_sub(HISTORY_ENTRIES) {
        None | Some(0) => Ok(()),
        Some(old) => state.delete(key(old)),
    }
}

pub(crate) fn history(state: &State) -> Result<History> {
    let entries = state.scan_prefix(PREFIX, HISTORY_ENTRIES as u32)?;
    let mut history = Vec::new();
    for (_, entry) in entries {
        history.push(serde_json::from_slice(&entry)?);
    }
    Ok(History { history })
}

/// Digits enough for the order of bytes to be that of numbers.
fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}
