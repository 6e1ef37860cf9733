//! Deeds of a turn, by their names.

use std::hint::black_box;

use weft::prelude::*;

const MIB: usize = 1 << 20;
/// Bytes of a key, of which one more is too many.
const KEY_BYTES: usize = 1 << 10;
/// Messages that a turn may send.
const MESSAGES: usize = 100;

pub(crate) fn act(deed: &str, input: &[u8], cx: &mut Context) -> Result<Vec<u8>> {
    match deed {
        "spin" => spin(),
        "eat" => eat(),
        "put" => put(cx),
        "fill" => fill(cx),
        "store" => store(cx),
        "large-value" => done(cx.state().put("value", vec![7u8; MIB + 1])),
        "large-key" => done(cx.state().put(vec![7u8; KEY_BYTES + 1], "")),
        "large-answer" => Ok(vec![7; MIB + 1]),
        "large-scan" => cx.state().scan("", None, u32::MAX).map(|_| vec![]),
        "tell" => tell(cx),
        "flood" => flood(cx),
        "ask-self" => ask("turns", cx.key().to_owned(), input, cx),
        "ring" => ring(input, cx),
        _ => Err(format!("there is no deed `{deed}`").into()),
    }
}

fn done(did: Result<()>) -> Result<Vec<u8>> {
    did.map(|()| vec![])
}

fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory, and touches it, until there is no more.
fn eat() -> ! {
    let mut eaten = vec![];
    loop {
        eaten.push(black_box(vec![1u8; MIB]));
    }
}

/// Writes small values without end.
fn put(cx: &mut Context) -> Result<Vec<u8>> {
    let mut n = 0u64;
    loop {
        cx.state().put(n.to_be_bytes(), "value")?;
        n += 1;
    }
}

/// Writes values that are as large as they may be, without end.
fn fill(cx: &mut Context) -> Result<Vec<u8>> {
    let value = vec![7u8; MIB];
    let mut n = 0u64;
    loop {
        cx.state().put(n.to_be_bytes(), &value)?;
        n += 1;
    }
}

/// Writes as many large values as one turn may.
fn store(cx: &mut Context) -> Result<Vec<u8>> {
    let value = vec![7u8; MIB];
    for key in ["one", "two", "three"] {
        cx.state().put(key, &value)?;
    }
    Ok(vec![])
}

/// Tells another one without end.
fn tell(cx: &mut Context) -> Result<Vec<u8>> {
    let other = format!("{}-told", cx.key());
    loop {
        cx.tell("brute", &other, "add", "")?;
    }
}

/// Tells itself to do the same, as often as one turn may.
fn flood(cx: &mut Context) -> Result<Vec<u8>> {
    let key = cx.key().to_owned();
    for _ in 0..MESSAGES {
        cx.tell("brute", &key, "flood", "")?;
    }
    Ok(vec![])
}

fn ask(method: &str, key: String, input: &[u8], cx: &mut Context) -> Result<Vec<u8>> {
    cx.invoke("brute", &key, method, input)
}

/// `NAME-POSITION` asks the next one of a ring of as many as the input says to do the same.
fn ring(input: &[u8], cx: &mut Context) -> Result<Vec<u8>> {
    let n = str::from_utf8(input)?.parse::<u64>()?;
    let key = cx.key().rsplit_once('-');
    let (name, position) = key.ok_or("the key of a ring's actor is `NAME-POSITION`")?;
    let next = (position.parse::<u64>()? + 1) % n;
    ask("ring", format!("{name}-{next}"), input, cx)
}
