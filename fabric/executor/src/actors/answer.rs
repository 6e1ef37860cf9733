//! Who waits for the end of a turn, and gets exactly one answer: also where the turn never ends, because its shard has
//! failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, LimitKind, LogLine, Meters, Problem, lock};
use weft_protocol::{FromExecutor, InvokeReply};

use super::bounds::TURN_WALL;

/// Message to the agent, with its payload.
pub(super) type Reply = (FromExecutor, Vec<u8>);

/// Label of what no version served.
const UNSERVED: &str = "actors";

/// Resources that a turn used.
#[derive(Debug, Clone)]
pub(super) struct Used {
    /// `component@version/actor`.
    pub(super) label: String,
    pub(super) meters: Meters,
    pub(super) log: Vec<LogLine>,
    pub(super) log_dropped: u64,
    /// When it began, in Unix nanoseconds. 0 where nothing ran.
    pub(super) began_ns: u64,
}

impl Used {
    /// Those of a turn in which no instance took part.
    pub(super) fn nothing() -> Self {
        Self {
            label: UNSERVED.into(),
            meters: Meters::default(),
            log: Vec::new(),
            log_dropped: 0,
            began_ns: 0,
        }
    }
}

/// End of a turn.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) result: Result<Vec<u8>, Problem>,
    pub(super) used: Used,
}

impl Outcome {
    /// The end of one in which no instance took part.
    pub(super) fn unserved(result: Result<Vec<u8>, Problem>) -> Self {
        Self {
            result,
            used: Used::nothing(),
        }
    }

    /// The message to the agent, with its payload.
    fn into_reply(self, request: u64) -> Reply {
        let (result, output) = match self.result {
            Ok(output) => (Ok(()), output),
            Err(problem) => (Err(problem), Vec::new()),
        };
        let reply = InvokeReply {
            request,
            label: self.used.label,
            result,
            meters: self.used.meters,
            log: self.used.log,
            log_dropped: self.used.log_dropped,
            began_ns: self.used.began_ns,
        };
        (FromExecutor::Invoked(Box::new(reply)), output)
    }
}

/// Questions of the agent that have no answer yet, and what stops each.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<HashMap<u64, CancellationToken>>>);

impl Asked {
    /// Records a question until its answer is given.
    pub(super) fn expect(&self, request: u64) -> (Expected, CancellationToken) {
        let cancel = CancellationToken::new();
        lock(&self.0).insert(request, cancel.clone());
        let asked = self.clone();
        (Expected { request, asked }, cancel)
    }

    /// Stops a question that nobody waits for any more.
    pub(super) fn abandon(&self, request: u64) {
        if let Some(cancel) = lock(&self.0).get(&request) {
            cancel.cancel();
        }
    }
}

/// A question of the agent without an answer.
pub(super) struct Expected {
    request: u64,
    asked: Asked,
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.asked.0).remove(&self.request);
    }
}

enum To {
    /// The runtime takes an answer for which there is no room at once.
    Agent(Expected, Handle),
    Here(oneshot::Sender<Result<Vec<u8>, Problem>>),
}

/// Whoever waits. If it is dropped without an answer, it says that the shard failed.
pub(super) struct Asker {
    to: Option<To>,
    replies: mpsc::Sender<Reply>,
    /// The turn's batch was handed to the store.
    may_be_written: bool,
}

impl Asker {
    /// The agent. To be called on the runtime that drives connections.
    pub(super) fn agent(expected: Expected, replies: mpsc::Sender<Reply>) -> Self {
        Self::new(To::Agent(expected, Handle::current()), replies)
    }

    /// Somebody in this process. The agent hears of what the turn used, under number 0.
    pub(super) fn here(
        replies: mpsc::Sender<Reply>,
    ) -> (Self, oneshot::Receiver<Result<Vec<u8>, Problem>>) {
        let (answer, answered) = oneshot::channel();
        (Self::new(To::Here(answer), replies), answered)
    }

    fn new(to: To, replies: mpsc::Sender<Reply>) -> Self {
        Self {
            to: Some(to),
            replies,
            may_be_written: false,
        }
    }

    /// From now on nobody knows whether the turn counts, until it is durable.
    pub(super) fn may_be_written(&mut self) {
        self.may_be_written = true;
    }

    /// Answers.
    pub(super) async fn answer(mut self, outcome: Outcome) {
        match self.to.take() {
            Some(To::Agent(expected, _)) => self.reply(outcome, expected.request).await,
            Some(To::Here(answer)) => {
                let result = outcome.result.clone();
                if outcome.used.began_ns > 0 {
                    let metered = Outcome {
                        result: outcome.result.map(|_| Vec::new()),
                        ..outcome
                    };
                    self.reply(metered, 0).await;
                }
                // The one who asked may have gone.
                let _ = answer.send(result);
            }
            None => {}
        }
    }

    async fn reply(&self, outcome: Outcome, request: u64) {
        // Where nobody reads replies any more, the process ends.
        let _ = self.replies.send(outcome.into_reply(request)).await;
    }

    /// Answers with a problem before anything ran.
    pub(super) async fn refuse(self, problem: Problem) {
        self.answer(Outcome::unserved(Err(problem))).await;
    }

    fn failed(&self) -> Problem {
        let detail = match self.may_be_written {
            true => {
                "the shard of the actor failed before the turn's writes were known to be durable, so its outcome is \
                 unknown: look at the actor before you try again, and give an `Idempotency-Key` to be able to try \
                 again blindly"
            }
            false => {
                "the shard of the actor failed or was closed before the turn counted: nothing was written; try again"
            }
        };
        Problem::new(ErrorCode::Busy, detail)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let failed = self.failed();
        match self.to.take() {
            Some(To::Agent(expected, io)) => {
                let reply = Outcome::unserved(Err(failed)).into_reply(expected.request);
                if let Err(TrySendError::Full(reply)) = self.replies.try_send(reply) {
                    // All that wait for a shard are dropped at once, and they may be more than fit.
                    let replies = self.replies.clone();
                    io.spawn(async move { replies.send(reply).await });
                }
            }
            Some(To::Here(answer)) => drop(answer.send(Err(failed))),
            None => {}
        }
    }
}

/// The problem of a request that found too much before it.
pub(super) fn too_many(detail: String) -> Problem {
    Problem::new(ErrorCode::Busy, detail)
}

/// The problem of a turn that ran until its deadline.
pub(super) fn too_late(label: &str) -> Problem {
    let value = format!(
        "{} s, or the deadline of its invocation",
        TURN_WALL.as_secs()
    );
    let detail = format!(
        "`{label}`: the turn was stopped at its deadline: do less in one turn, or invoke with a later deadline"
    );
    Problem::new(ErrorCode::LimitExceeded, detail)
        .of_function(label)
        .of_limit(LimitKind::Wall, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(sent: &mut mpsc::Receiver<Reply>) -> InvokeReply {
        match sent.try_recv() {
            Ok((FromExecutor::Invoked(reply), _)) => *reply,
            other => panic!("no answer came: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_question_has_one_answer_also_where_its_turn_is_dropped() {
        let (replies, mut sent) = mpsc::channel(8);
        let asked = Asked::default();
        let ask = |number| Asker::agent(asked.expect(number).0, replies.clone());
        let output = Outcome::unserved(Ok(vec![1]));
        ask(1).answer(output).await;
        assert_eq!(reply(&mut sent).result, Ok(()));
        drop(ask(2));
        let problem = reply(&mut sent).result.expect_err("it was dropped");
        assert!(problem.detail.contains("nothing was written"), "{problem}");
        let mut third = ask(3);
        third.may_be_written();
        drop(third);
        let problem = reply(&mut sent).result.expect_err("it was dropped");
        assert!(problem.detail.contains("`Idempotency-Key`"), "{problem}");
        assert!(sent.try_recv().is_err() && lock(&asked.0).is_empty());
    }

    #[tokio::test]
    async fn answers_to_turns_that_are_dropped_wait_for_room() {
        let (replies, mut sent) = mpsc::channel(1);
        let asked = Asked::default();
        for number in 1..=3 {
            drop(Asker::agent(asked.expect(number).0, replies.clone()));
        }
        drop(replies);
        let mut answered = Vec::new();
        while let Some((FromExecutor::Invoked(reply), _)) = sent.recv().await {
            answered.push(reply.request);
        }
        answered.sort_unstable();
        assert_eq!(answered, [1, 2, 3]);
    }

    #[tokio::test]
    async fn turns_that_nobody_outside_asked_for_are_metered() {
        let (replies, mut sent) = mpsc::channel(8);
        let (asker, answered) = Asker::here(replies);
        let used = Used {
            label: "bank@1.0.0/account".into(),
            began_ns: 1,
            ..Used::nothing()
        };
        let result = Ok(vec![1]);
        asker.answer(Outcome { result, used }).await;
        assert_eq!(answered.await.expect("it came"), Ok(vec![1]));
        let metered = reply(&mut sent);
        assert_eq!(
            (metered.request, metered.label.as_str()),
            (0, "bank@1.0.0/account")
        );
    }
}
