//! An actor whose methods are the calls of its host.

use std::cell::RefCell;
use std::hint::black_box;

use crate::Keeper;
use crate::bindings::exports::weft::fabric::actor::{Guest, Kind};
use crate::bindings::weft::fabric::{actors, log, meter, state};

thread_local! {
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

fn number(bytes: &[u8]) -> Result<u64, String> {
    text(bytes)?.parse().map_err(|_| "no number".to_owned())
}

/// Adds one to the value of a key, and returns the sum.
fn add(key: &[u8]) -> Result<Vec<u8>, String> {
    let before = state::get(key)?;
    let sum = before.map_or(Ok(0), |value| number(&value))? + 1;
    let sum = sum.to_string().into_bytes();
    state::put(key, &sum)?;
    Ok(sum)
}

/// The keys from one on and before another, which are separated by a space.
fn scan(range: &str) -> Result<Vec<u8>, String> {
    let (start, end) = range.split_once(' ').ok_or("no range")?;
    let end = (!end.is_empty()).then_some(end.as_bytes());
    let entries = state::scan(start.as_bytes(), end, 100)?;
    let keys: Vec<String> = entries
        .iter()
        .map(|(key, _)| text(key))
        .collect::<Result<_, _>>()?;
    Ok(keys.join(" ").into_bytes())
}

fn spin(until: impl Fn() -> bool) {
    let mut n = 0u64;
    while !until() {
        for _ in 0..10_000 {
            n = black_box(n.wrapping_mul(31) + 1);
        }
    }
}

fn invoke(method: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let done = |result: Result<(), String>| result.map(|()| vec![]);
    match method {
        "key" => Ok(KEY.with_borrow(String::clone).into_bytes()),
        "add" => add(input),
        "get" => state::get(input)?.ok_or_else(|| "nothing".into()),
        "put" => done(state::put(b"put", input)),
        "delete" => done(state::delete(input)),
        "scan" => scan(&text(input)?),
        "answer-early" => done(state::answer_early()),
        "set-alarm" => done(actors::set_alarm(number(input)?)),
        "clear-alarm" => done(actors::clear_alarm()),
        "tell" => done(actors::tell("other/actor", "key", "method", input)),
        "invoke" => actors::invoke("actor", "key", "method", input),
        "swallow" => {
            drop(state::put(b"put", input));
            Ok(b"swallowed".to_vec())
        }
        // Milliseconds of the turn's CPU time.
        "spend" => {
            let ns = number(input)? * 1_000_000;
            spin(|| meter::spent().cpu_ns >= ns);
            Ok(vec![])
        }
        "spin" => {
            spin(|| false);
            Ok(vec![])
        }
        "answer" => Ok(vec![7; number(input)? as usize]),
        "left" => Ok(meter::remaining().output_bytes.to_string().into_bytes()),
        "log" => {
            log::write(log::Level::Info, &text(input)?);
            Ok(vec![])
        }
        "fail" => Err("on purpose".into()),
        "panic" => panic!("on purpose"),
        other => Err(format!("no method `{other}`")),
    }
}

impl Guest for Keeper {
    fn describe() -> Vec<Kind> {
        let kind = |name: &str, summary: &str| Kind {
            name: name.into(),
            summary: summary.into(),
        };
        vec![kind("account", "Keeps numbers."), kind("session", "")]
    }

    fn wake(actor: String, key: String) -> Result<(), String> {
        match key.as_str() {
            "refused" => Err(format!("`{actor}` has no such key")),
            "reads" => {
                let known = state::get(b"known")?.ok_or("nothing is known")?;
                KEY.set(text(&known)?);
                Ok(())
            }
            _ => {
                KEY.set(key);
                Ok(())
            }
        }
    }

    fn invoke(method: String, input: Vec<u8>) -> Result<Vec<u8>, String> {
        invoke(&method, &input)
    }

    fn alarm() -> Result<(), String> {
        state::put(b"alarm", b"rang")
    }
}
