//! Sessions: an actor for each, which ends when it was idle for too long.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use weft::prelude::*;

weft::component! {
    /// A session: `touch`, `get` and `end`. Expires when it is idle.
    actor "session" = Session;
}

/// Idle time after which a session expires, unless it has one of its own.
const IDLE_MS: u64 = 30 * 60 * 1000;
/// Longest idle time of a session: 30 days.
const MAX_IDLE_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// The key of a session's state.
const STATE: &str = "session";

/// The instance of a key: a session, or none yet or any more.
struct Session {
    open: Option<Open>,
}

#[derive(Deserialize, Serialize)]
struct Open {
    data: String,
    idle_ms: u64,
    expires_at_ms: u64,
}

/// Input of `touch`. Fields that are left out stay as they are.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Touch {
    data: Option<String>,
    idle_ms: Option<u64>,
}

#[derive(Serialize)]
struct Shown<'a> {
    data: &'a str,
    expires_at_ms: u64,
}

impl Actor for Session {
    fn wake(_: &str, state: &State) -> Result<Session> {
        let open = match state.get(STATE)? {
            Some(open) => Some(serde_json::from_slice(&open)?),
            None => None,
        };
        Ok(Session { open })
    }

    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
        self.forget_expired(cx);
        match method {
            "touch" => self.touch(parse(&input)?, cx),
            "get" => self.get(cx),
            "end" => self.end(cx),
            _ => Err(format!("a session has no method `{method}`").into()),
        }
    }

    /// Ends the session, unless it was touched after the alarm was set.
    fn alarm(&mut self, cx: &mut Context) -> Result<()> {
        self.forget_expired(cx);
        match &self.open {
            Some(open) => cx.set_alarm(open.expires_at_ms),
            None => cx.state().delete(STATE),
        }
    }
}

impl Session {
    /// The alarm may be late: a session is not shown after its time.
    fn forget_expired(&mut self, cx: &Context) {
        self.open.take_if(|open| open.expires_at_ms <= cx.now_ms());
    }

    fn touch(&mut self, touch: Touch, cx: &mut Context) -> Result<Vec<u8>> {
        let (old_data, old_idle_ms) = match self.open.take() {
            Some(open) => (open.data, open.idle_ms),
            None => (String::new(), IDLE_MS),
        };
        let idle_ms = touch.idle_ms.unwrap_or(old_idle_ms);
        if !(1..=MAX_IDLE_MS).contains(&idle_ms) {
            return Err(format!("`idle_ms` is 1 to {MAX_IDLE_MS}, not {idle_ms}").into());
        }
        let open = Open {
            data: touch.data.unwrap_or(old_data),
            idle_ms,
            expires_at_ms: cx.now_ms() + idle_ms,
        };
        cx.state().put(STATE, serde_json::to_vec(&open)?)?;
        cx.set_alarm(open.expires_at_ms)?;
        self.open = Some(open);
        self.get(cx)
    }

    fn get(&self, cx: &Context) -> Result<Vec<u8>> {
        let Some(open) = &self.open else {
            let key = cx.key();
            return Err(
                format!("no session `{key}`: it was never touched, or it has expired").into(),
            );
        };
        let shown = Shown {
            data: &open.data,
            expires_at_ms: open.expires_at_ms,
        };
        Ok(serde_json::to_vec(&shown)?)
    }

    fn end(&mut self, cx: &mut Context) -> Result<Vec<u8>> {
        self.open = None;
        cx.clear_alarm()?;
        cx.state().delete(STATE)?;
        Ok(vec![])
    }
}

fn parse(input: &[u8]) -> Result<Touch> {
    if input.trim_ascii().is_empty() {
        return Ok(Touch::default());
    }
    serde_json::from_slice(input)
        .map_err(|error| Error::new(format!("the input of `touch` is invalid: {error}")))
}
