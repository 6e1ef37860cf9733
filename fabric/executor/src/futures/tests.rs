//! Futures against an agent that is played here.

use std::sync::Arc;
use std::time::Duration;

use futures::poll;
use tokio::sync::mpsc;
use weft_protocol::{Call, CallTo, FromExecutor};

use super::set::{MAX_FUTURES, MAX_INPUT_BYTES, MAX_RUNNING};
use super::*;
use crate::calls::{Calls, Running};
use crate::executor::Reply;

/// The other end of the executor: what guests call, and the way back.
struct Agent {
    outward: Outward,
    replies: mpsc::Receiver<Reply>,
    calls: Calls,
}

impl Agent {
    fn new() -> Self {
        let (replies, outbox) = mpsc::channel(2 * MAX_RUNNING);
        Self {
            outward: Outward::new(replies),
            replies: outbox,
            calls: Calls::new(1),
        }
    }

    /// An invocation of `bank@1.0.0/sum` that runs, and its futures.
    fn invocation(&self, depth: u32) -> (Running, SpawnedFutures) {
        self.invocation_of(depth, 60_000)
    }

    /// One that has as many milliseconds.
    fn invocation_of(&self, depth: u32, wall_ms: u64) -> (Running, SpawnedFutures) {
        let (mut request, input) = crate::calls::call("bank@1.0.0/sum");
        request.depth = depth;
        request.limits.wall_ms = wall_ms;
        self.calls.push((request, input)).expect("there is room");
        let running = self.calls.take();
        let permit = running.permit(Arc::new(|| {}));
        let request = &running.call.0;
        let (outward, io) = (self.outward.clone(), Handle::current());
        let futures = SpawnedFutures::new(outward, request, permit, io, running.since);
        (running, futures)
    }

    /// The next call that comes, with its function, its depth and its input.
    async fn called(&mut self) -> (u64, String, u32, Vec<u8>) {
        loop {
            match self.replies.recv().await {
                Some((FromExecutor::Call(call), input)) => {
                    let Call { call, to, .. } = *call;
                    let CallTo::Task { function, depth } = to else {
                        panic!("futures call tasks");
                    };
                    return (call, function, depth, input);
                }
                Some((FromExecutor::CancelCall { .. }, _)) => {}
                other => panic!("no call, but {other:?}"),
            }
        }
    }

    async fn cancelled(&mut self) -> u64 {
        match self.replies.recv().await {
            Some((FromExecutor::CancelCall { call }, _)) => call,
            other => panic!("nothing is cancelled, but {other:?}"),
        }
    }

    fn answer(&self, call: u64, output: &[u8]) {
        self.outward.answered(call, Ok(()), output.to_vec());
    }

    fn fail(&self, call: u64, code: ErrorCode) {
        let problem = Problem::new(code, "on purpose");
        self.outward.answered(call, Err(problem), Vec::new());
    }
}

fn told<T: std::fmt::Debug>(asked: Asked<T>) -> String {
    match asked {
        Err(Refusal::Told(message)) => message,
        other => panic!("the guest is not told, but {other:?}"),
    }
}

fn limit<T: std::fmt::Debug>(asked: Asked<T>) -> String {
    match asked {
        Err(Refusal::Stopped(Fault::Limit { kind, value, .. })) => {
            assert_eq!(kind, LimitKind::Futures);
            value
        }
        other => panic!("no limit was reached, but {other:?}"),
    }
}

#[tokio::test]
async fn futures_are_called_by_their_names_and_joined_once() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(2);
    let near = futures.spawn("square", vec![3]).await.expect("it spawns");
    let far = futures.spawn("other/cube", vec![2]).await.expect("it does");
    for _ in 0..2 {
        let (call, function, depth, input) = agent.called().await;
        assert_eq!(depth, 3);
        match function.as_str() {
            "bank/square" => agent.answer(call, &[input[0].pow(2)]),
            "other/cube" => agent.answer(call, &[input[0].pow(3)]),
            other => panic!("`{other}` is called"),
        }
    }
    assert_eq!(futures.join(far).await.expect("it has ended"), [8]);
    assert_eq!(futures.join(near).await.expect("it has ended"), [9]);
    let again = told(futures.join(near).await);
    assert!(again.contains("no future 0"), "{again}");
    let none = told(futures.select(&[]).await);
    assert!(none.contains("no futures"), "{none}");
}

#[tokio::test]
async fn select_names_the_one_that_has_ended() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let mut numbers = Vec::new();
    for n in 0..3 {
        numbers.push(futures.spawn("f", vec![n]).await.expect("it spawns"));
    }
    let mut second = 0;
    for _ in 0..3 {
        let (call, _, _, input) = agent.called().await;
        if input == [1] {
            second = call;
        }
    }
    {
        let mut select = futures.select(&numbers);
        assert!(poll!(&mut select).is_pending());
        agent.answer(second, b"second");
        assert_eq!(select.await.expect("one has ended"), 1);
    }
    assert_eq!(futures.join(numbers[1]).await.expect("it has"), b"second");
}

#[tokio::test]
async fn the_platforms_failures_are_tried_again_and_the_users_are_told() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let future = futures.spawn("f", vec![1]).await.expect("it spawns");
    for _ in 0..3 {
        let (call, _, _, input) = agent.called().await;
        assert_eq!(input, [1]);
        agent.fail(call, ErrorCode::Busy);
    }
    let (call, ..) = agent.called().await;
    agent.fail(call, ErrorCode::GuestError);
    assert_eq!(told(futures.join(future).await), "on purpose");

    let future = futures.spawn("f", vec![2]).await.expect("it spawns");
    for _ in 0..4 {
        let (call, ..) = agent.called().await;
        agent.fail(call, ErrorCode::StoreUnavailable);
    }
    match futures.join(future).await {
        Err(Refusal::Failed(problem)) => assert_eq!(problem.code, ErrorCode::StoreUnavailable),
        other => panic!("the platform failed, and not {other:?}"),
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_cancelled() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let first = futures.spawn("f", vec![]).await.expect("it spawns");
    let (of_first, ..) = agent.called().await;
    futures.cancel(first);
    assert_eq!(agent.cancelled().await, of_first);
    let gone = told(futures.join(first).await);
    assert!(gone.contains("cancelled"), "{gone}");
    futures.spawn("f", vec![]).await.expect("it spawns");
    let (of_second, ..) = agent.called().await;
    drop(futures);
    assert_eq!(agent.cancelled().await, of_second);
}

#[tokio::test]
async fn one_that_has_ended_is_not_cancelled() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let future = futures.spawn("f", vec![]).await.expect("it spawns");
    let (call, ..) = agent.called().await;
    agent.answer(call, b"done");
    assert_eq!(futures.select(&[future]).await.expect("it ended"), 0);
    futures.cancel(future);
    assert_eq!(futures.join(future).await.expect("it is there"), b"done");
}

/// Calls beyond those that may run wait, and each that ends lets another one begin.
#[tokio::test]
async fn calls_of_one_invocation_are_bounded() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let mut numbers = Vec::new();
    for _ in 0..MAX_RUNNING + 2 {
        numbers.push(futures.spawn("f", vec![]).await.expect("it spawns"));
    }
    let mut calls = Vec::new();
    for _ in 0..MAX_RUNNING {
        calls.push(agent.called().await.0);
    }
    assert_eq!(futures.set.n_running(), MAX_RUNNING);
    assert!(agent.replies.try_recv().is_err(), "the others wait");
    agent.answer(calls[0], b"");
    calls.push(agent.called().await.0);
    // One that is waited for does not wait for its turn.
    let last = numbers[MAX_RUNNING + 1];
    {
        let mut join = futures.join(last);
        assert!(poll!(&mut join).is_pending());
        let (call, ..) = agent.called().await;
        agent.answer(call, b"last");
        assert_eq!(join.await.expect("it has ended"), b"last");
    }
}

/// Invocations with futures share what may be under way: none is refused because of another one's.
#[tokio::test]
async fn invocations_share_what_may_be_under_way() {
    let agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let others: Vec<_> = (0..7).map(|_| futures.permit.seat()).collect();
    assert!(others.iter().all(Option::is_some));
    for _ in 0..MAX_RUNNING {
        futures.spawn("f", vec![]).await.expect("it spawns");
    }
    assert_eq!(futures.set.n_running(), 64);
    drop(others);
    futures.spawn("f", vec![]).await.expect("it spawns");
    assert_eq!(futures.set.n_running(), MAX_RUNNING);
}

#[tokio::test]
async fn futures_have_bounds() {
    let agent = Agent::new();
    let (running, mut deep) = agent.invocation(MAX_SPAWN_DEPTH);
    assert_eq!(limit(deep.spawn("f", vec![]).await), "16 nested spawners");
    drop(deep);
    drop(running);
    let (_running, mut futures) = agent.invocation(0);
    let large = vec![0; MAX_TURN_BYTES + 1];
    let refused = told(futures.spawn("f", large).await);
    assert!(refused.contains("it may have 1 MiB"), "{refused}");
    let long = "f".repeat(MAX_FUNCTION_BYTES + 1);
    assert!(told(futures.spawn(&long, vec![]).await).contains("1 to 256 bytes"));
    for _ in 0..MAX_FUTURES {
        futures.spawn("f", vec![]).await.expect("it spawns");
    }
    let refused = limit(futures.spawn("f", vec![]).await);
    assert_eq!(refused, "16384 futures that are not joined");
}

#[tokio::test]
async fn spawning_waits_while_inputs_take_too_much() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let input = vec![7; MAX_TURN_BYTES];
    for _ in 0..MAX_INPUT_BYTES / MAX_TURN_BYTES {
        futures.spawn("f", input.clone()).await.expect("it spawns");
    }
    let mut spawn = futures.spawn("f", input);
    assert!(poll!(&mut spawn).is_pending());
    let (call, ..) = agent.called().await;
    agent.answer(call, b"");
    spawn.await.expect("there is room again");
}

#[tokio::test]
async fn answers_are_bounded() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation(0);
    let future = futures.spawn("f", vec![]).await.expect("it spawns");
    let (call, ..) = agent.called().await;
    agent.answer(call, &vec![0; MAX_TURN_BYTES + 1]);
    let refused = told(futures.join(future).await);
    assert!(refused.contains("`bank/f` answered"), "{refused}");
}

/// With one slot, a function that spawns itself gets to its end: whoever waits gives its room away.
#[tokio::test]
async fn a_parent_waits_without_its_room() {
    let mut agent = Agent::new();
    let (parent, mut futures) = agent.invocation(0);
    let future = futures.spawn("sum", vec![]).await.expect("it spawns");
    let (call, ..) = agent.called().await;
    let mut join = futures.join(future);
    assert!(poll!(&mut join).is_pending());
    // The room is there: otherwise this would wait for ever.
    let (child, _none) = agent.invocation(1);
    drop(child);
    agent.answer(call, b"5");
    let joined = tokio::time::timeout(Duration::from_secs(60), &mut join).await;
    assert_eq!(joined.expect("in time").expect("it has ended"), b"5");
    drop(join);
    drop(parent);
}

/// A function that spawns itself ends with the time of the first one.
#[tokio::test]
async fn futures_have_no_more_time_than_their_spawner() {
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation_of(0, 3_000);
    futures.spawn("f", vec![]).await.expect("it spawns");
    let Some((FromExecutor::Call(call), _)) = agent.replies.recv().await else {
        panic!("nothing is called");
    };
    assert!(call.deadline_ms <= 3_000, "{}", call.deadline_ms);
    let mut agent = Agent::new();
    let (_running, mut futures) = agent.invocation_of(0, 0);
    let late = futures.spawn("f", vec![]).await.expect("it spawns");
    let told = told(futures.join(late).await);
    assert!(told.contains("deadline of its spawner"), "{told}");
    assert!(agent.replies.try_recv().is_err(), "nothing is called");
}
