//! Turns of an actor: what it sees of its state, what limits it, and how a turn ends.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, FunctionKind, LimitKind, Problem};
use weft_sandbox::{
    Asked, Fault, Guest, GuestSettings, Refusal, Result, TaskLog, Turn, TurnSettings, thread_cpu_ns,
};

use crate::support::{check_failed, check_limit, check_trapped, guest, settings, start};

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// Takes 100 ms of the thread's CPU time.
fn burn() {
    let until = thread_cpu_ns() + 100_000_000;
    while thread_cpu_ns() < until {
        std::hint::spin_loop();
    }
}

/// A turn over values in memory. Some of its keys do what no value does.
#[derive(Default)]
struct InMemory {
    values: Values,
    alarm: Option<Option<u64>>,
    told: Vec<String>,
    early: bool,
    cancel: CancellationToken,
}

#[async_trait]
impl Turn for InMemory {
    async fn get(&mut self, key: &[u8]) -> Asked<Option<Bytes>> {
        match key {
            b"told" => Err(Refusal::Told("it is told".into())),
            b"failed" => {
                let problem = Problem::new(ErrorCode::StoreUnavailable, "no store");
                Err(Refusal::Failed(problem))
            }
            b"burns" => {
                // Something else that runs on the thread while the guest waits.
                let mut others = JoinSet::new();
                others.spawn(async { burn() });
                others.join_next().await;
                Ok(None)
            }
            b"works" => {
                burn();
                Ok(None)
            }
            b"for-ever" => {
                self.cancel.cancel();
                std::future::pending().await
            }
            key => Ok(self.values.get(key).cloned().map(Bytes::from)),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Asked<()> {
        if value.len() > 1_000 {
            let fault = Fault::limit(LimitKind::State, "1000 bytes".into());
            return Err(Refusal::Stopped(fault));
        }
        self.values.insert(key, value);
        Ok(())
    }

    fn delete(&mut self, key: Vec<u8>) -> Asked<()> {
        self.values.remove(&key);
        Ok(())
    }

    async fn scan(
        &mut self,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        limit: u32,
    ) -> Asked<Vec<(Vec<u8>, Vec<u8>)>> {
        tokio::task::yield_now().await;
        let found = self.values.range(start..);
        let found = found.take_while(|(key, _)| end.as_ref().is_none_or(|end| *key < end));
        let found = found.map(|(key, value)| (key.clone(), value.clone()));
        Ok(found.take(limit as usize).collect())
    }

    fn answer_early(&mut self) -> Asked<()> {
        self.early = true;
        Ok(())
    }

    fn set_alarm(&mut self, at_ms: Option<u64>) -> Asked<()> {
        self.alarm = Some(at_ms);
        Ok(())
    }

    fn tell(&mut self, actor: &str, key: String, method: String, input: Vec<u8>) -> Asked<()> {
        let input = String::from_utf8_lossy(&input).into_owned();
        self.told.push(format!("{actor} {key} {method} {input}"));
        Ok(())
    }

    async fn invoke(
        &mut self,
        actor: &str,
        key: String,
        method: String,
        input: Vec<u8>,
    ) -> Asked<Vec<u8>> {
        tokio::task::yield_now().await;
        let answer = format!("{actor} {key} {method} ");
        Ok([answer.into_bytes(), input].concat())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Settings of a turn with a second of CPU time.
fn turn(turn: InMemory) -> TurnSettings {
    TurnSettings {
        cancel: turn.cancel.clone(),
        turn: Box::new(turn),
        cpu_limit_ns: 1_000_000_000,
        log: Arc::new(TaskLog::default()),
        now_ms: 1_700_000_000_000,
    }
}

fn end(guest: &mut Guest) -> InMemory {
    let turn = guest.end_turn().expect("a turn began").into_any();
    let turn = turn.downcast::<InMemory>();
    *turn.expect("it is what it was")
}

/// An actor that is awake, outside a turn.
async fn awake() -> Guest {
    let mut guest = start("keeper").await;
    guest.begin_turn(turn(InMemory::default()));
    guest.wake("account", "alice").await.expect("it wakes");
    end(&mut guest);
    guest
}

/// Invokes a method in a turn of its own.
async fn invoke(guest: &mut Guest, method: &str, input: &str) -> (Result<Vec<u8>>, InMemory) {
    guest.begin_turn(turn(InMemory::default()));
    let result = guest.invoke_actor(method, input.as_bytes()).await;
    (result, end(guest))
}

fn text(result: Result<Vec<u8>>) -> String {
    String::from_utf8(result.expect("it answers")).expect("a text")
}

#[test]
fn actors_move_between_threads() {
    fn can_move<T: Send>() {}
    can_move::<Guest>();
    can_move::<GuestSettings>();
}

#[tokio::test]
async fn actors_describe_themselves() {
    let found = start("keeper").await.describe().await.expect("it does");
    let actors = found.functions.iter();
    let actors = actors.filter(|one| one.kind == FunctionKind::Actor);
    let actors: Vec<_> = actors
        .map(|one| (one.name.as_str(), one.deterministic))
        .collect();
    assert_eq!(actors, [("account", false), ("session", false)]);
    assert_eq!(found.functions.len(), 4);
}

#[tokio::test]
async fn state_is_the_turns_and_memory_the_instances() {
    let mut guest = awake().await;
    let mut values = Values::new();
    for sum in ["1", "2", "3"] {
        let state = InMemory {
            values,
            ..InMemory::default()
        };
        guest.begin_turn(turn(state));
        assert_eq!(text(guest.invoke_actor("add", b"n").await), sum);
        assert_eq!(text(guest.invoke_actor("key", b"").await), "alice");
        values = end(&mut guest).values;
    }
    assert_eq!(values[&b"n"[..]], b"3");
    assert!(guest.end_turn().is_none(), "a turn ends once");
    let (fresh, _) = invoke(&mut guest, "add", "n").await;
    assert_eq!(text(fresh), "1", "another turn sees another state");
}

#[tokio::test]
async fn every_call_reaches_the_turn() {
    let mut guest = awake().await;
    let entries = ["a", "b", "c"].map(|key| (key.as_bytes().to_vec(), b"x".to_vec()));
    let state = InMemory {
        values: entries.into(),
        ..InMemory::default()
    };
    guest.begin_turn(turn(state));
    for (method, input, answer) in [
        ("scan", "a c", "a b"),
        ("scan", "b ", "b c"),
        ("delete", "b", ""),
        ("scan", "a ", "a c"),
        ("put", "value", ""),
        ("get", "put", "value"),
        ("answer-early", "", ""),
        ("set-alarm", "77", ""),
        ("tell", "hello", ""),
        ("invoke", "hello", "actor key method hello"),
    ] {
        let found = guest.invoke_actor(method, input.as_bytes()).await;
        assert_eq!(text(found), answer, "{method} {input}");
    }
    guest.alarm().await.expect("it rings");
    let after = end(&mut guest);
    assert_eq!(after.values[&b"alarm"[..]], b"rang");
    assert_eq!((after.alarm, after.early), (Some(Some(77)), true));
    assert_eq!(after.told, ["other/actor key method hello"]);
    let (cleared, after) = invoke(&mut guest, "clear-alarm", "").await;
    cleared.expect("it clears");
    assert_eq!(after.alarm, Some(None));
}

#[tokio::test]
async fn waking_may_read_state_and_may_fail() {
    let mut guest = start("keeper").await;
    let state = InMemory {
        values: [(b"known".to_vec(), b"alice".to_vec())].into(),
        ..InMemory::default()
    };
    guest.begin_turn(turn(state));
    guest.wake("account", "reads").await.expect("it wakes");
    assert_eq!(text(guest.invoke_actor("key", b"").await), "alice");
    let mut guest = start("keeper").await;
    guest.begin_turn(turn(InMemory::default()));
    let refused = guest.wake("account", "refused").await;
    check_failed(refused, &["`account` has no such key"]);
}

#[tokio::test]
async fn there_is_nothing_outside_a_turn() {
    let mut guest = awake().await;
    for method in ["get", "put", "tell", "invoke", "scan"] {
        let refused = guest.invoke_actor(method, b" ").await;
        check_failed(refused, &["only the turn of an actor"]);
    }
    let mut guest = start("keeper").await;
    let refused = guest.run_task("get", &[], 0, b"a").await;
    check_failed(refused, &["only the turn of an actor"]);
}

#[tokio::test]
async fn refusals_are_told_stop_or_answer() {
    let mut guest = awake().await;
    let (told, _) = invoke(&mut guest, "get", "told").await;
    check_failed(told, &["it is told"]);
    // The guest goes on after that.
    let (failed, _) = invoke(&mut guest, "get", "failed").await;
    let fault = failed.expect_err("it is stopped");
    let problem = fault.problem("keeper@0.1.0/account");
    assert_eq!(
        problem,
        Problem::new(ErrorCode::StoreUnavailable, "no store")
    );
    for method in ["put", "swallow"] {
        let mut guest = awake().await;
        let (stopped, _) = invoke(&mut guest, method, &"x".repeat(1_001)).await;
        check_limit(stopped, LimitKind::State, "1000 bytes");
    }
}

#[tokio::test]
async fn turns_end_after_faults() {
    let mut guest = awake().await;
    let (failed, _) = invoke(&mut guest, "fail", "").await;
    check_failed(failed, &["on purpose"]);
    let (trapped, turn) = invoke(&mut guest, "panic", "").await;
    check_trapped(trapped, "unreachable");
    assert!(turn.values.is_empty());
    let (again, _) = invoke(&mut guest, "key", "").await;
    assert!(matches!(again, Err(Fault::Host(_))), "{again:?}");
}

#[tokio::test]
async fn the_limit_of_cpu_time_is_a_turns() {
    let mut guest = awake().await;
    let limited = |ms: u64| TurnSettings {
        cpu_limit_ns: ms * 1_000_000,
        ..turn(InMemory::default())
    };
    let before = guest.meters().cpu_ns;
    // More in all than one turn may use.
    for _ in 0..4 {
        guest.begin_turn(limited(200));
        guest.invoke_actor("spend", b"60").await.expect("it may");
    }
    let used = guest.meters().cpu_ns - before;
    assert!(used >= 240_000_000, "the meters go on: {used} ns");
    guest.begin_turn(limited(50));
    let stopped = guest.invoke_actor("spin", b"").await;
    check_limit(stopped, LimitKind::Cpu, "50 ms");
}

#[tokio::test]
async fn waiting_is_not_charged() {
    let mut guest = awake().await;
    let before = guest.meters().cpu_ns;
    let limited = TurnSettings {
        cpu_limit_ns: 60_000_000,
        ..turn(InMemory::default())
    };
    guest.begin_turn(limited);
    for _ in 0..3 {
        let nothing = guest.invoke_actor("get", b"burns").await;
        check_failed(nothing, &["nothing"]);
    }
    let used = guest.meters().cpu_ns - before;
    assert!(used < 60_000_000, "{used} ns");
}

/// Calls that are answered at once are not free.
#[tokio::test]
async fn work_of_the_host_is_charged() {
    let mut guest = awake().await;
    let before = guest.meters().cpu_ns;
    let limited = TurnSettings {
        cpu_limit_ns: 60_000_000,
        ..turn(InMemory::default())
    };
    guest.begin_turn(limited);
    let mut stopped = guest.invoke_actor("get", b"works").await;
    if matches!(stopped, Err(Fault::Failed(_))) {
        // No tick came before its end.
        stopped = guest.invoke_actor("key", b"").await;
    }
    check_limit(stopped, LimitKind::Cpu, "60 ms");
    let used = guest.meters().cpu_ns - before;
    assert!(used >= 100_000_000, "{used} ns");
}

#[tokio::test]
async fn a_turn_that_waits_can_be_cancelled() {
    let mut guest = awake().await;
    let (cancelled, _) = invoke(&mut guest, "get", "for-ever").await;
    assert_eq!(cancelled, Err(Fault::Cancelled));
}

#[tokio::test]
async fn each_turn_has_its_log() {
    let mut guest = awake().await;
    for message in ["one", "two"] {
        let settings = turn(InMemory::default());
        let log = Arc::clone(&settings.log);
        guest.begin_turn(settings);
        let logged = guest.invoke_actor("log", message.as_bytes()).await;
        logged.expect("it logs");
        let (lines, dropped) = log.take();
        let lines: Vec<_> = lines.into_iter().map(|line| line.message).collect();
        assert_eq!((lines, dropped), (vec![message.to_owned()], 0));
    }
}

/// Answers are bounded one by one: an instance lives for many.
#[tokio::test]
async fn answers_have_a_bound() {
    let settings = GuestSettings {
        output_limit_bytes: 1_000,
        ..settings()
    };
    let started = Guest::start(&guest("keeper"), settings).await;
    let mut guest = started.expect("it starts");
    for _ in 0..3 {
        let (answer, _) = invoke(&mut guest, "answer", "1000").await;
        assert_eq!(answer.map(|answer| answer.len()), Ok(1_000));
    }
    let (left, _) = invoke(&mut guest, "left", "").await;
    assert_eq!(text(left), "1000", "of each turn");
    let (answer, _) = invoke(&mut guest, "answer", "1001").await;
    check_limit(answer, LimitKind::Output, "1000 bytes");
}
