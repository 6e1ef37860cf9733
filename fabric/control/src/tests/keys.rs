//! Idempotency keys of invocations: time to live, bounds by bytes, and the index behind them.

use serde_json::json;
use weft_core::{ErrorCode, Meters};

use super::support::{Machine, envelope};
use crate::{
    Answer, Begun, CallOutcome, Command, Envelope, HeldKeys, IDEMPOTENCY_MS, InlineOutput,
    KeyedCalls, MAX_KEY_BYTES, MAX_STORED_OUTPUT_BYTES,
};

const MIB: u64 = 1 << 20;

fn begin(key: &str, request: &str, ttl_s: Option<u32>) -> Command {
    Command::BeginCall {
        key: key.into(),
        request: request.into(),
        by: "me".into(),
        ttl_s,
    }
}

fn end(key: &str, outcome: CallOutcome) -> Command {
    Command::EndCall {
        key: key.into(),
        by: "me".into(),
        outcome: Some(outcome),
    }
}

/// An outcome whose output is small.
fn small() -> CallOutcome {
    CallOutcome {
        label: "a@1.0.0/b".into(),
        problem: None,
        output: None,
        output_bytes: 0,
        inline: InlineOutput::new(b"ok"),
        meters: Meters::default(),
    }
}

/// An outcome whose output is stored in an object.
fn stored(bytes: u64) -> CallOutcome {
    CallOutcome {
        output: Some(format!("invocations/{bytes}")),
        output_bytes: bytes,
        inline: None,
        ..small()
    }
}

fn begun(machine: &mut Machine, command: Command) -> Begun {
    match machine.apply(command).0 {
        Answer::Call { begun } => begun,
        other => panic!("a call was begun with {other:?}"),
    }
}

/// A call that begins and ends.
fn make(machine: &mut Machine, key: &str, request: &str, ttl_s: Option<u32>, outcome: CallOutcome) {
    assert_eq!(begun(machine, begin(key, request, ttl_s)), Begun::New);
    machine.effects(end(key, outcome));
}

/// Time passes, and a command that concerns no key tells.
fn pass(machine: &mut Machine, ms: u64) {
    machine.at_ms += ms;
    machine.effects(Command::ExpireOrigins { before_ms: 0 });
}

fn held(machine: &Machine) -> HeldKeys {
    machine.tenant().calls.held(machine.at_ms)
}

#[test]
fn an_answer_is_kept_for_as_long_as_the_client_says() {
    for (ttl_s, kept_ms) in [
        (Some(5), 5_000),
        (Some(u32::MAX), IDEMPOTENCY_MS),
        (None, IDEMPOTENCY_MS),
    ] {
        let mut machine = Machine::new();
        let again = || begin("key", "request", None);
        make(&mut machine, "key", "request", ttl_s, small());
        machine.at_ms += kept_ms - 1;
        let ended = Begun::Ended(Box::new(small()));
        assert_eq!(begun(&mut machine, again()), ended, "{ttl_s:?}");
        machine.at_ms += 1;
        assert_eq!(held(&machine), HeldKeys::default());
        assert_eq!(begun(&mut machine, again()), Begun::New, "{ttl_s:?}");
    }
}

#[test]
fn time_to_live_begins_with_the_answer() {
    let mut machine = Machine::new();
    let again = || begin("key", "request", Some(1));
    assert_eq!(begun(&mut machine, again()), Begun::New);
    machine.at_ms += 600_000;
    assert_eq!(begun(&mut machine, again()), Begun::Running);
    machine.effects(end("key", small()));
    machine.at_ms += 999;
    assert!(matches!(begun(&mut machine, again()), Begun::Ended(_)));
    machine.at_ms += 1;
    assert_eq!(begun(&mut machine, again()), Begun::New);
}

#[test]
fn keys_are_bounded_by_bytes_and_say_when_there_is_room() {
    let mut machine = Machine::new();
    let large = "r".repeat(1 << 20);
    // What else there is in a record leaves no room for one more.
    let most = MAX_KEY_BYTES / MIB - 1;
    for number in (0..most).rev() {
        let ttl_s = Some(60 + number as u32);
        make(
            &mut machine,
            &format!("key-{number}"),
            &large,
            ttl_s,
            small(),
        );
    }
    let full = held(&machine);
    assert_eq!((full.keys, full.output_bytes), (most, 0));
    assert!(full.key_bytes > most * MIB && full.key_bytes <= MAX_KEY_BYTES);
    let more = || begin("one-more", &large, None);
    let problem = machine.refusal(more());
    assert_eq!(
        (problem.code, problem.retry_after_s),
        (ErrorCode::Busy, Some(60))
    );
    for said in ["Idempotency-Key-TTL", &full.key_bytes.to_string(), "60 s"] {
        assert!(problem.detail.contains(said), "{}", problem.detail);
    }
    // A known key is answered, and a small one finds room.
    let known = begun(&mut machine, begin("key-7", &large, None));
    assert!(matches!(known, Begun::Ended(_)));
    assert_eq!(begun(&mut machine, begin("small", "r", None)), Begun::New);
    pass(&mut machine, 59_001);
    assert_eq!(machine.refusal(more()).retry_after_s, Some(1), "rounded up");
    pass(&mut machine, 999);
    assert_eq!(held(&machine).keys, most, "one has expired");
    assert_eq!(begun(&mut machine, more()), Begun::New);
    assert_eq!(held(&machine).keys, most + 1);
}

#[test]
fn stored_outputs_have_a_bound_of_their_own() {
    let mut machine = Machine::new();
    make(&mut machine, "brief", "r", Some(2), small());
    let n_fitting = MAX_STORED_OUTPUT_BYTES / (8 * MIB);
    for number in 1..n_fitting {
        let key = format!("key-{number}");
        make(&mut machine, &key, "r", Some(100), stored(8 * MIB));
    }
    for key in ["last", "late", "small"] {
        assert_eq!(begun(&mut machine, begin(key, "r", None)), Begun::New);
    }
    machine.effects(end("last", stored(8 * MIB)));
    assert_eq!(held(&machine).output_bytes, MAX_STORED_OUTPUT_BYTES);
    // Both began while there was room; only the one whose output is stored needs it.
    let problem = machine.refusal(end("late", stored(8 * MIB)));
    assert_eq!(
        (problem.code, problem.retry_after_s),
        (ErrorCode::Busy, Some(100))
    );
    machine.effects(end("small", small()));
    let problem = machine.refusal(begin("one-more", "r", None));
    assert_eq!(problem.retry_after_s, Some(100), "not that of `brief`");
    let late = begun(&mut machine, begin("late", "r", None));
    assert_eq!(late, Begun::Running);
    machine.at_ms += 100_000;
    assert_eq!(held(&machine).output_bytes, 8 * MIB);
    machine.effects(end("late", stored(8 * MIB)));
    let again = begun(&mut machine, begin("one-more", "r", None));
    assert_eq!(again, Begun::New);
    assert_eq!(held(&machine).output_bytes, 16 * MIB);
}

#[test]
fn expired_keys_go_with_the_usage_of_others() {
    let mut machine = Machine::new();
    make(&mut machine, "key", "r", Some(1), stored(5));
    assert_eq!(machine.tenant().calls.outputs(machine.at_ms).count(), 1);
    machine.at_ms += 1_000;
    let usage = Vec::new();
    machine.effects(Command::MeterInvocations { usage });
    assert_eq!(machine.tenant().calls, KeyedCalls::default());
}

#[test]
fn a_snapshot_brings_back_bytes_and_expiry() {
    let mut machine = Machine::new();
    make(&mut machine, "brief", "r", Some(1), stored(300));
    make(&mut machine, "long", "r", Some(100), small());
    begun(&mut machine, begin("running", "r", Some(1)));
    let before = machine.state.clone();
    let snapshot = serde_json::to_vec(&machine.state).expect("it is plain data");
    machine.state = serde_json::from_slice(&snapshot).expect("it is read");
    assert_eq!(machine.state, before);
    let all = held(&machine);
    assert_eq!((all.keys, all.output_bytes), (3, 300));
    machine.at_ms += 1_000;
    let left = held(&machine);
    assert_eq!((left.keys, left.output_bytes), (2, 0));
    assert_eq!(
        begun(&mut machine, begin("brief", "other", None)),
        Begun::New
    );
    let long = begun(&mut machine, begin("long", "r", None));
    assert_eq!(long, Begun::Ended(Box::new(small())));
}

#[test]
fn keys_of_earlier_versions_are_read() {
    let outcome = json!({
        "label": "a@1.0.0/b",
        "problem": null,
        "output": "invocations/1",
        "meters": Meters::default(),
    });
    let call = json!({ "request": "r", "by": "dead", "until_ms": 5_000, "outcome": outcome });
    let calls = json!({ "calls": { "old": call }, "pruned_ms": 7 });
    let calls: KeyedCalls = serde_json::from_value(calls).expect("it is read");
    assert_eq!(calls.outputs(4_999).collect::<Vec<_>>(), ["invocations/1"]);
    assert_eq!((calls.held(4_999).keys, calls.held(5_000).keys), (1, 0));
}

#[test]
fn commands_without_a_time_to_live_are_those_of_earlier_versions() {
    for ttl_s in [None, Some(60)] {
        let envelope = envelope(1_000, 1, begin("key", "r", ttl_s));
        let value = serde_json::to_value(&envelope).expect("it is plain data");
        let ttl = &value["command"]["begin_call"]["ttl_s"];
        assert_eq!(ttl.as_u64(), ttl_s.map(u64::from));
        assert_eq!(ttl.is_null(), ttl_s.is_none());
        let read = Envelope::decode(value.to_string().as_bytes());
        assert_eq!(read, Ok(envelope));
    }
}
