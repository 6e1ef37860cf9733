//! State, actors and futures for native builds: a turn in memory, and stand-ins that tests set.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use crate::functions::Task;
use crate::{Error, Result};

/// A message or an invocation of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// An actor of the same component, or `component/actor`.
    pub actor: String,
    /// The key of the instance.
    pub key: String,
    /// The method.
    pub method: String,
    /// The input of the method.
    pub input: Vec<u8>,
}

impl Message {
    fn new(actor: &str, key: &str, method: &str, input: &[u8]) -> Message {
        Message {
            actor: actor.into(),
            key: key.into(),
            method: method.into(),
            input: input.into(),
        }
    }
}

/// An actor as a turn sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) now_ms: u64,
    pub(crate) state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) alarm_ms: Option<u64>,
    pub(crate) told: Vec<Message>,
}

/// Runs spawned tasks instead of the host.
pub(crate) type Run = dyn Fn(&str, Task) -> Result<Vec<u8>>;

/// Answers for other actors.
pub(crate) type Answer = dyn Fn(Message) -> Result<Vec<u8>>;

/// Futures of this thread: all of them have ended.
struct Futures {
    n_spawned: u64,
    results: BTreeMap<u64, Result<Vec<u8>>>,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
    static RUN: RefCell<Option<Rc<Run>>> = const { RefCell::new(None) };
    static ANSWER: RefCell<Option<Rc<Answer>>> = const { RefCell::new(None) };
    static FUTURES: RefCell<Futures> = const {
        RefCell::new(Futures {
            n_spawned: 0,
            results: BTreeMap::new(),
        })
    };
}

/// Sets what runs spawned tasks on this thread.
pub(crate) fn set_run(run: Rc<Run>) {
    RUN.set(Some(run));
}

/// Sets what answers for other actors on this thread.
pub(crate) fn set_answer(answer: Rc<Answer>) {
    ANSWER.set(Some(answer));
}

/// Runs a turn, also within another one, and returns it as it is afterwards.
pub(crate) fn in_turn<T>(turn: Turn, run: impl FnOnce() -> T) -> (T, Turn) {
    let outer = TURN.replace(Some(turn));
    let answer = run();
    let turn = TURN.replace(outer);
    (answer, turn.expect("turns within this one put it back"))
}

fn turn<T>(run: impl FnOnce(&mut Turn) -> T) -> Result<T> {
    TURN.with_borrow_mut(|turn| turn.as_mut().map(run)).ok_or_else(|| {
        Error::new(
            "state and other actors are there in the turn of an actor; in tests, `weft::testing::TestActor` runs one",
        )
    })
}

pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    turn(|turn| turn.state.get(key).cloned())
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<()> {
    turn(|turn| drop(turn.state.insert(key.into(), value.into())))
}

pub(crate) fn delete(key: &[u8]) -> Result<()> {
    turn(|turn| drop(turn.state.remove(key)))
}

pub(crate) fn scan(
    start: &[u8],
    end: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // A map would panic.
    if end.is_some_and(|end| end <= start) {
        return Ok(vec![]);
    }
    let end = end.map_or(Bound::Unbounded, Bound::Excluded);
    turn(|turn| {
        let range = turn.state.range::<[u8], _>((Bound::Included(start), end));
        let entries = range.map(|(key, value)| (key.clone(), value.clone()));
        entries.take(limit as usize).collect()
    })
}

/// Nothing waits for durable writes here.
pub(crate) fn answer_early() -> Result<()> {
    turn(|_| ())
}

pub(crate) fn now_ms() -> u64 {
    turn(|turn| turn.now_ms).unwrap_or(0)
}

pub(crate) fn set_alarm(at_ms: u64) -> Result<()> {
    turn(|turn| turn.alarm_ms = Some(at_ms.max(turn.now_ms)))
}

pub(crate) fn clear_alarm() -> Result<()> {
    turn(|turn| turn.alarm_ms = None)
}

pub(crate) fn tell(actor: &str, key: &str, method: &str, input: &[u8]) -> Result<()> {
    turn(|turn| turn.told.push(Message::new(actor, key, method, input)))
}

pub(crate) fn invoke(actor: &str, key: &str, method: &str, input: &[u8]) -> Result<Vec<u8>> {
    // Not borrowed while it runs: it may invoke, too.
    match ANSWER.with_borrow(Clone::clone) {
        Some(answer) => answer(Message::new(actor, key, method, input)),
        None => Err(Error::new(
            "other actors answer on a host; in tests, `weft::testing::on_invoke` stands in for them",
        )),
    }
}

pub(crate) fn spawn(function: &str, input: &[u8]) -> Result<u64> {
    // Not borrowed while it runs: it may spawn, too.
    let Some(run) = RUN.with_borrow(Clone::clone) else {
        return Err(Error::new(
            "the host runs spawned tasks; in tests, `weft::testing::on_spawn` stands in for it",
        ));
    };
    let result = run(function, Task::new(input));
    FUTURES.with_borrow_mut(|futures| {
        futures.n_spawned += 1;
        futures.results.insert(futures.n_spawned, result);
        Ok(futures.n_spawned)
    })
}

pub(crate) fn join(future: u64) -> Result<Vec<u8>> {
    let result = FUTURES.with_borrow_mut(|futures| futures.results.remove(&future));
    result.unwrap_or_else(|| Err(Error::new("the future was spawned on another thread")))
}

pub(crate) fn select(futures: &[u64]) -> Result<u32> {
    match futures {
        [] => Err(Error::new("there is no future to wait for")),
        _ => Ok(0),
    }
}

pub(crate) fn cancel(future: u64) {
    FUTURES.with_borrow_mut(|futures| drop(futures.results.remove(&future)));
}
