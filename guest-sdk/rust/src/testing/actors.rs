//! Turns of an actor in memory.

use std::collections::BTreeMap;

use crate::Result;
use crate::actor::{Actor, Context, State};
use crate::outside::{self, Turn};

pub use crate::outside::Message;

/// The clock of a new [`TestActor`], in Unix milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// Has `answer` stand in for other actors in [`Context::invoke`], on this thread from now on.
pub fn on_invoke(answer: impl Fn(Message) -> Result<Vec<u8>> + 'static) {
    outside::set_answer(std::rc::Rc::new(answer));
}

/// An actor with its state, alarm, clock and messages in memory.
///
/// Turns are as on a host: one that fails leaves nothing behind, and the next one wakes the actor anew.
///
/// ```
/// use weft::prelude::*;
/// use weft::testing::TestActor;
///
/// struct Reminder;
///
/// impl Actor for Reminder {
///     fn wake(_: &str, _: &State) -> Result<Reminder> {
///         Ok(Reminder)
///     }
///
///     fn invoke(&mut self, _: &str, text: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
///         cx.state().put("text", text)?;
///         cx.set_alarm(cx.now_ms() + 1000)?;
///         Ok(vec![])
///     }
///
///     fn alarm(&mut self, cx: &mut Context) -> Result<()> {
///         let text = cx.state().get("text")?.unwrap_or_default();
///         cx.tell("inbox", "ada", "receive", text)
///     }
/// }
///
/// let mut reminder = TestActor::<Reminder>::new("tea");
/// reminder.invoke("remind", "tea is ready").unwrap();
/// assert!(!reminder.advance(999).unwrap());
/// assert!(reminder.advance(1).unwrap());
/// assert_eq!(reminder.take_told()[0].input, b"tea is ready");
/// ```
#[derive(Debug)]
pub struct TestActor<A> {
    key: String,
    awake: Option<A>,
    /// As the last turn that succeeded left it.
    committed: Turn,
}

impl<A: Actor> TestActor<A> {
    /// A new actor. The clock stands at the first of January 2026.
    pub fn new(key: &str) -> TestActor<A> {
        TestActor {
            key: key.into(),
            awake: None,
            committed: Turn {
                now_ms: START_MS,
                ..Turn::default()
            },
        }
    }

    /// Runs a turn: an invocation, or a message that another actor sent.
    pub fn invoke(&mut self, method: &str, input: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let input = input.as_ref().to_vec();
        self.turn(self.committed.clone(), |actor, cx| {
            actor.invoke(method, input, cx)
        })
    }

    /// Moves the clock, and runs the alarm, once, if it is due then. Returns whether it ran. After an error the
    /// alarm is
    /// still set.
    pub fn advance(&mut self, ms: u64) -> Result<bool> {
        self.committed.now_ms += ms;
        let Turn {
            now_ms, alarm_ms, ..
        } = self.committed;
        if alarm_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return Ok(false);
        }
        let start = Turn {
            alarm_ms: None,
            ..self.committed.clone()
        };
        self.turn(start, |actor, cx| actor.alarm(cx))?;
        Ok(true)
    }

    /// Drops the instance, as a host does if the actor is idle: the next turn wakes it.
    pub fn sleep(&mut self) {
        self.awake = None;
    }

    /// The clock, in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.committed.now_ms
    }

    /// The state.
    pub fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.committed.state
    }

    /// The alarm, in Unix milliseconds, if one is set.
    pub fn alarm_ms(&self) -> Option<u64> {
        self.committed.alarm_ms
    }

    /// The messages that were sent since the last call, in order.
    pub fn take_told(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.committed.told)
    }

    fn turn<T>(
        &mut self,
        start: Turn,
        run: impl FnOnce(&mut A, &mut Context) -> Result<T>,
    ) -> Result<T> {
        let awake = self.awake.take();
        let (ended, turn) = outside::in_turn(start, || -> Result<(A, T)> {
            let mut actor = awake.map_or_else(|| A::wake(&self.key, &State::new()), Ok)?;
            let answer = run(&mut actor, &mut Context::new(self.key.clone()))?;
            Ok((actor, answer))
        });
        let (actor, answer) = ended?;
        self.awake = Some(actor);
        self.committed = turn;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the last text, and how many there were.
    struct Last {
        n: usize,
    }

    impl Actor for Last {
        fn wake(key: &str, state: &State) -> Result<Last> {
            assert_eq!(key, "one");
            let n = state.scan_prefix("text/", 1000)?.len();
            Ok(Last { n })
        }

        fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
            self.n += 1;
            cx.state().put(format!("text/{:03}", self.n), &input)?;
            match method {
                "keep" => {}
                "drop" => cx.state().delete(format!("text/{:03}", self.n))?,
                "alarm" => cx.set_alarm(cx.now_ms() + 10)?,
                "tell" => cx.tell("last", "two", "keep", &input)?,
                "invoke" => return cx.invoke("other/last", "two", "keep", &input),
                _ => return Err("no such method".into()),
            }
            Ok(self.n.to_string().into_bytes())
        }

        fn alarm(&mut self, cx: &mut Context) -> Result<()> {
            match cx.state().get("text/002")? {
                Some(_) => Err("not now".into()),
                None => Ok(()),
            }
        }
    }

    fn last() -> TestActor<Last> {
        TestActor::new("one")
    }

    #[test]
    fn turns_that_fail_leave_nothing_behind() {
        let mut actor = last();
        assert_eq!(actor.invoke("keep", "a").expect("keeps"), b"1");
        let before = actor.state().clone();
        assert!(actor.invoke("nothing", "b").is_err());
        assert_eq!(actor.state(), &before);
        // Woken from the state: a field that the failed turn has changed is gone, too.
        assert_eq!(actor.invoke("keep", "c").expect("keeps"), b"2");
        actor.sleep();
        assert_eq!(actor.invoke("drop", "d").expect("drops"), b"3");
        assert_eq!(actor.state().len(), 2);
    }

    #[test]
    fn alarms_fire_when_they_are_due_and_stay_after_an_error() {
        let mut actor = last();
        actor.invoke("alarm", "a").expect("sets it");
        assert_eq!(actor.alarm_ms(), Some(actor.now_ms() + 10));
        assert!(!actor.advance(9).expect("nothing is due"));
        actor.invoke("keep", "b").expect("keeps");
        assert!(actor.advance(1).is_err());
        assert!(actor.alarm_ms().is_some());
        let mut actor = last();
        actor.invoke("alarm", "a").expect("sets it");
        assert!(actor.advance(500).expect("it fires"));
        assert_eq!(actor.alarm_ms(), None);
    }

    #[test]
    fn other_actors_are_told_and_invoked() {
        let mut actor = last();
        actor.invoke("tell", "hi").expect("tells");
        let told = actor.take_told();
        let expected = Message {
            actor: "last".into(),
            key: "two".into(),
            method: "keep".into(),
            input: b"hi".to_vec(),
        };
        assert_eq!(told, [expected]);
        assert!(actor.take_told().is_empty());
        assert!(actor.invoke("invoke", "x").is_err(), "nobody answers yet");
        // A turn within the turn has a state of its own.
        on_invoke(|message| last().invoke(&message.method, message.input));
        assert_eq!(actor.invoke("invoke", "x").expect("answers"), b"1");
        assert_eq!(actor.state().len(), 2);
    }

    #[test]
    fn state_outside_a_turn_is_an_error() {
        let error = State::new().get("n").expect_err("there is no turn");
        assert!(error.message().contains("TestActor"), "{error}");
    }
}
