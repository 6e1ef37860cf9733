//! Tasks that spawn futures.

use crate::bindings::exports::weft::fabric::task::Guest;
use crate::bindings::weft::fabric::{state, tasks};
use crate::{Keeper, Params};

/// Spawns a future for each byte, which answers with one byte, and adds these.
fn sum(input: &[u8]) -> Result<Vec<u8>, String> {
    let futures: Vec<u64> = input
        .iter()
        .map(|byte| tasks::spawn("square", &[*byte]))
        .collect::<Result<_, _>>()?;
    let mut sum = 0;
    for future in futures {
        sum += tasks::join(future)?[0];
    }
    Ok(vec![sum])
}

/// Spawns as many, keeps the one that ends first, and cancels the others.
fn first(input: &[u8]) -> Result<Vec<u8>, String> {
    let mut futures: Vec<u64> = input
        .iter()
        .map(|byte| tasks::spawn("other/square", &[*byte]))
        .collect::<Result<_, _>>()?;
    let first = futures.remove(tasks::select(&futures)? as usize);
    for future in futures {
        tasks::cancel(future);
    }
    tasks::join(first)
}

impl Guest for Keeper {
    fn run(function: String, _: Params, _: u32, input: Vec<u8>) -> Result<Vec<u8>, String> {
        match function.as_str() {
            "sum" => sum(&input),
            "first" => first(&input),
            "get" => state::get(&input)?.ok_or_else(|| "nothing".into()),
            other => Err(format!("no task `{other}`")),
        }
    }
}
