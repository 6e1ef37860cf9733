//! Actors that ask each other in a row, and count turns that went well.

use weft::prelude::*;

weft::component! {
    /// `ask`, `count` and `fail`.
    actor "knot" = Knot;
}

const TURNS: &str = "turns";

struct Knot {
    turns: u64,
}

impl Actor for Knot {
    fn wake(_: &str, state: &State) -> Result<Knot> {
        let turns = match state.get(TURNS)? {
            Some(turns) => String::from_utf8(turns)?.parse::<u64>()?,
            None => 0,
        };
        Ok(Knot { turns })
    }

    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
        match method {
            "ask" => ask(&String::from_utf8(input)?, cx),
            "count" => self.count(cx),
            "fail" => {
                self.count(cx)?;
                Err("a turn that fails after it wrote".into())
            }
            _ => Err(format!("a knot has no method `{method}`").into()),
        }
    }
}

impl Knot {
    fn count(&mut self, cx: &mut Context) -> Result<Vec<u8>> {
        self.turns += 1;
        let turns = self.turns.to_string();
        cx.state().put(TURNS, &turns)?;
        Ok(turns.into_bytes())
    }
}

/// Asks the actor of the first line to ask that of the next one, and so on. The last one answers with its key.
fn ask(keys: &str, cx: &mut Context) -> Result<Vec<u8>> {
    let (next, rest) = keys.split_once('\n').unwrap_or((keys, ""));
    match next {
        "" => Ok(cx.key().as_bytes().to_vec()),
        next => cx.invoke("knot", next, "ask", rest),
    }
}
