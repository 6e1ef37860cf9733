//! Deeds that no actor and no task should do, each by its name, and `add`, which is honest.

mod deeds;

use weft::prelude::*;
use weft::tasks::spawn;

weft::component! {
    /// Does the deed that the method names.
    actor "brute" = Brute;
    /// Spawns itself without end, and joins nothing.
    task "bomb" = bomb;
    /// Spawns itself, and waits for that.
    task "nest" = nest;
}

/// Honest turns so far.
const TURNS: &str = "turns";
/// Alarms so far.
const FIRES: &str = "fires";

struct Brute;

impl Actor for Brute {
    fn wake(_: &str, _: &State) -> Result<Brute> {
        Ok(Brute)
    }

    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
        match method {
            "add" => add_one(TURNS, cx),
            "turns" => Ok(text(number(TURNS, cx)?)),
            "fires" => Ok(text(number(FIRES, cx)?)),
            "storm" => {
                cx.set_alarm(0)?;
                Ok(vec![])
            }
            deed => deeds::act(deed, &input, cx),
        }
    }

    /// Counts, and wants the next alarm at once.
    fn alarm(&mut self, cx: &mut Context) -> Result<()> {
        add_one(FIRES, cx)?;
        cx.set_alarm(0)
    }
}

fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn number(key: &str, cx: &mut Context) -> Result<u64> {
    match cx.state().get(key)? {
        Some(number) => Ok(String::from_utf8(number)?.parse::<u64>()?),
        None => Ok(0),
    }
}

fn add_one(key: &str, cx: &mut Context) -> Result<Vec<u8>> {
    let sum = text(number(key, cx)? + 1);
    cx.state().put(key, &sum)?;
    Ok(sum)
}

fn bomb(_: Task) -> Result<Vec<u8>> {
    let mut spawned = vec![];
    loop {
        spawned.push(spawn("bomb", "")?);
    }
}

fn nest(_: Task) -> Result<Vec<u8>> {
    spawn("nest", "")?.join()
}
