//! `weft actor`: invokes, lists, shows and removes actors.

use serde::Deserialize;
use serde_json::{Value, json};
use weft_client::{Actor, Answer, Call, Client, path, read_value};

use super::invoke::{answered, read_input};
use crate::arguments::{ActorArguments, ActorCommand, ActorInvokeArguments, ActorListArguments};
use crate::failure::Failure;
use crate::terminal::text::{bytes, count, counted};
use crate::terminal::{Output, Side, Table};

/// Bytes of an input: more than that the server refuses.
const MAX_INPUT_BYTES: u64 = 1 << 20;
/// Actors of one page.
const PAGE: usize = 500;

/// Runs `weft actor`.
pub(crate) async fn actor(
    client: &Client,
    command: &ActorCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        ActorCommand::Invoke(of) => invoke(client, of, output).await,
        ActorCommand::List(of) => list(client, of, output).await,
        ActorCommand::Show(of) => show(client, of, output).await,
        ActorCommand::Delete(of) => delete(client, of, output).await,
    }
}

/// Splits `COMPONENT/ACTOR`.
fn function(text: &str) -> Result<(&str, &str), Failure> {
    let parts = text.split_once('/');
    parts.ok_or_else(|| Failure::Usage(format!("`{text}` is not COMPONENT/ACTOR")))
}

/// The path of an actor, or of something of it.
fn path_of(of: &ActorArguments, more: &[&str]) -> Result<String, Failure> {
    let (component, actor) = function(&of.function)?;
    let segments = ["actors", component, actor, &of.key];
    Ok(path(&[&segments[..], more].concat()))
}

async fn invoke(
    client: &Client,
    of: &ActorInvokeArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let path = path_of(&of.of, &[&of.method])?;
    let input = read_input(of.input.as_deref(), MAX_INPUT_BYTES)?.ok_or_else(|| {
        let most = MAX_INPUT_BYTES >> 20;
        Failure::other(format!(
            "the input is larger than the {most} MiB that an actor takes"
        ))
    })?;
    let mut call = Call::post_octets(path, input);
    if let Some(deadline) = of.deadline {
        call = call.query(&[("deadline_ms", deadline.as_millis().to_string())]);
    }
    let answer = send(client, call, of).await?;
    output.raw(&answered(&answer).to_string(), answer.bytes())
}

/// Only an invocation with a key is sent again if the server is busy: another one may have had its effect.
async fn send(
    client: &Client,
    mut call: Call,
    of: &ActorInvokeArguments,
) -> Result<Answer, Failure> {
    let Some(key) = &of.idempotency_key else {
        return Ok(client.send_once(&call).await?);
    };
    call = call.header("idempotency-key", key);
    if let Some(seconds) = of.idempotency_ttl {
        call = call.header("idempotency-key-ttl", seconds.to_string());
    }
    Ok(client.send(&call).await?)
}

/// A page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Page {
    actors: Vec<Value>,
    next: Option<String>,
}

async fn list(
    client: &Client,
    of: &ActorListArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let (component, actor) = function(&of.function)?;
    let (mut actors, mut next) = (Vec::new(), of.after.clone());
    loop {
        let limit = of.limit.saturating_sub(actors.len()).clamp(1, PAGE);
        let mut query = vec![("limit", limit.to_string())];
        query.extend(next.map(|after| ("after", after)));
        let call = Call::get(path(&["actors", component, actor])).query(&query);
        let page: Page = client.send(&call).await?.read()?;
        actors.extend(page.actors);
        next = page.next;
        if next.is_none() || actors.len() >= of.limit {
            break;
        }
    }
    let lines: Vec<Actor> = read_value(Value::Array(actors.clone()))?;
    let document = json!({ "actors": actors, "next": next });
    output.either(&document.to_string(), || table(&lines))?;
    if let (Some(next), false) = (&next, output.is_json()) {
        output.note(&format!(
            "there are more: `--after {next}`, or a higher `--limit`"
        ));
    }
    Ok(())
}

fn table(actors: &[Actor]) -> String {
    let mut table = Table::new(&[
        ("key", Side::Left),
        ("turns", Side::Right),
        ("changed", Side::Left),
        ("alarm", Side::Left),
        ("in memory", Side::Left),
    ]);
    for actor in actors {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let resident = if actor.resident { "yes" } else { "no" };
        table.row([
            actor.key.clone(),
            count(actor.turns),
            or_dash(&actor.changed_at),
            or_dash(&actor.alarm_at),
            resident.into(),
        ]);
    }
    table.render()
}

async fn show(client: &Client, of: &ActorArguments, output: &mut Output) -> Result<(), Failure> {
    let answer = client.send(&Call::get(path_of(of, &[])?)).await?;
    let actor: Actor = answer.read()?;
    output.either(answer.text()?, || shown(&of.function, &actor))
}

fn shown(function: &str, actor: &Actor) -> String {
    let resident = if actor.resident {
        "in memory"
    } else {
        "not in memory"
    };
    let mut lines = vec![format!(
        "{function} {}  shard {}, {resident}",
        actor.key, actor.shard
    )];
    let changed = actor.changed_at.as_deref().unwrap_or("-");
    lines.push(format!(
        "{}, the last one at {changed}",
        counted(actor.turns, "turn")
    ));
    if let (Some(entries), Some(size)) = (actor.entries, actor.state_bytes) {
        let entry = if entries == 1 { "entry" } else { "entries" };
        lines.push(format!("state {} {entry}, {}", count(entries), bytes(size)));
    }
    lines.extend(actor.alarm_at.iter().map(|at| format!("alarm {at}")));
    if !actor.dead_letters.is_empty() {
        let mut table = Table::new(&[
            ("undelivered to", Side::Left),
            ("method", Side::Left),
            ("at", Side::Left),
            ("reason", Side::Left),
        ]);
        for letter in &actor.dead_letters {
            table.row([
                letter.to.clone(),
                letter.method.clone(),
                letter.at.clone().unwrap_or_default(),
                letter.reason.clone(),
            ]);
        }
        lines.extend([String::new(), table.render()]);
    }
    lines.join("\n")
}

async fn delete(client: &Client, of: &ActorArguments, output: &mut Output) -> Result<(), Failure> {
    client.send(&Call::delete(path_of(of, &[])?)).await?;
    let done = json!({ "actor": of.function, "key": of.key, "status": "deleted" });
    output.either(&done.to_string(), || {
        format!("deleted {} {}", of.function, of.key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(document: Value) -> Actor {
        read_value(document).expect("it is one")
    }

    #[test]
    fn an_actor_is_shown_with_what_it_could_not_deliver() {
        let ada = actor(json!({
            "key": "ada", "shard": 3, "resident": true, "alarm_at": null, "turns": 1200,
            "changed_at": "2026-11-30T00:00:00.000Z", "entries": 1, "state_bytes": 2048,
            "dead_letters": [{ "to": "bank/account/bob", "method": "credit", "reason": "no such account",
                "at": "2026-11-30T00:00:01.000Z" }],
        }));
        let expected = "\
bank/account ada  shard 3, in memory
1,200 turns, the last one at 2026-11-30T00:00:00.000Z
state 1 entry, 2.0 KiB

undelivered to    method  at                        reason
bank/account/bob  credit  2026-11-30T00:00:01.000Z  no such account";
        assert_eq!(shown("bank/account", &ada), expected);
        let expected = "\
key  turns  changed                   alarm  in memory
ada  1,200  2026-11-30T00:00:00.000Z  -      yes";
        assert_eq!(table(&[ada]), expected);
    }
}
