use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use weft_core::{Epoch, ErrorCode};
use weft_protocol::{ActorAsk, ActorStatus, FromExecutor};

use super::fixture::{Fixture, actor, ask, folder, once, pin, until};
use crate::lease::Lease;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_an_actor_run_one_after_the_other() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let mut begun = Vec::new();
    for _ in 0..50 {
        for key in ["a", "b", "c"] {
            begun.push((key, fixture.begin_turn(ask(key, "add"), "").await));
        }
    }
    let mut numbers = std::collections::BTreeMap::<_, Vec<u64>>::new();
    for (key, begun) in begun {
        let number = fixture.end(begun).await.expect("it is answered");
        let number = number.parse().expect("a number");
        numbers.entry(key).or_default().push(number);
    }
    let expected: Vec<u64> = (1..=50).collect();
    for (key, mut of_key) in numbers {
        of_key.sort_unstable();
        assert_eq!(of_key, expected, "{key}: each turn saw the one before");
    }
    assert_eq!(fixture.fake.started.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_fails_leaves_nothing_and_its_instance_goes() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    fixture
        .invoke("a", "add", "")
        .await
        .expect("it is answered");
    let problem = fixture.invoke("a", "fail", "").await.expect_err("it fails");
    assert_eq!(problem.code, ErrorCode::GuestError);
    assert_eq!(fixture.number("a").await, "1");
    assert_eq!(fixture.fake.started.load(Ordering::Relaxed), 2);
    let status = fixture.show("a").await.expect("it is there");
    assert_eq!(
        (status.turns, status.entries, status.state_bytes),
        (1, Some(1), Some(2))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_starts_an_instance_of_its_own() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    for (version, number) in [(1, "1"), (1, "2"), (2, "3"), (2, "4")] {
        let mut invoke = ask("a", "add");
        invoke.pin = pin(version);
        assert_eq!(fixture.turn(invoke, "").await, Ok(number.into()));
    }
    assert_eq!(fixture.fake.started.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invocation_with_a_key_is_made_once() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let with = |key: &str, digest: &str, method: &str| {
        let mut invoke = ask("a", method);
        invoke.once = once(key, digest);
        invoke
    };
    for _ in 0..3 {
        assert_eq!(
            fixture.turn(with("k", "d", "add"), "").await,
            Ok("1".into())
        );
    }
    let problem = fixture.turn(with("k", "other", "add"), "").await;
    let problem = problem.expect_err("the key was used");
    assert_eq!(problem.code, ErrorCode::VersionConflict);
    assert_eq!(
        fixture.turn(with("k2", "d", "add"), "").await,
        Ok("2".into())
    );
    // An error of the guest is an answer as well.
    let first = fixture.turn(with("k3", "d", "fail"), "").await;
    let again = fixture.turn(with("k3", "d", "fail"), "").await;
    assert!(first.is_err() && first == again);
    let fails = fixture.fake.seen().into_iter();
    assert_eq!(fails.filter(|seen| seen == "a fail failed").count(), 1);
    // Another actor has keys of its own.
    let mut other = with("k", "d", "add");
    other.actor = actor("b");
    assert_eq!(fixture.turn(other, "").await, Ok("1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nobody_waits_for_any_more_does_not_run() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let first = fixture.begin_turn(ask("a", "wait"), "").await;
    until("the first runs", || fixture.fake.seen() == ["a waits"]).await;
    let second = fixture.begin_turn(ask("a", "add"), "").await;
    fixture.actors.abandon(second.0);
    fixture.fake.gate.add_permits(1);
    assert_eq!(fixture.end(first).await, Ok("1".into()));
    assert!(fixture.end(second).await.is_err());
    // One that runs is stopped, and leaves nothing.
    let third = fixture.begin_turn(ask("a", "wait"), "").await;
    until("the third runs", || fixture.fake.seen().len() == 3).await;
    fixture.actors.abandon(third.0);
    let problem = fixture.end(third).await.expect_err("it was given up");
    assert!(problem.detail.contains("nothing was written"), "{problem}");
    assert_eq!(fixture.number("a").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_leaves_while_the_lease_does_not_stand() {
    let folder = folder();
    let (replies, _kept) = mpsc::channel(1_024);
    let lease = Lease::new(replies);
    // Confirmed, so that shards are opened, and over.
    lease.renewed(1, u64::MAX);
    let fixture = Fixture::with_lease(folder.path(), lease.clone());
    let write = fixture.begin_turn(ask("a", "add"), "").await;
    until("it ran", || fixture.fake.seen() == ["a add ok"]).await;
    let read = fixture.begin_turn(ask("b", "get"), "n").await;
    until("it ran", || fixture.fake.seen().len() == 2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (write, mut write_answer) = write;
    let (read, mut read_answer) = read;
    assert!(write_answer.try_recv().is_err() && read_answer.try_recv().is_err());
    lease.renewed(u64::MAX, u64::MAX);
    assert_eq!(fixture.end((write, write_answer)).await, Ok("1".into()));
    assert_eq!(fixture.end((read, read_answer)).await, Ok("none".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_to_another_executor_are_not_answered_here() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let show = ActorAsk::Show(actor("a"));
    let (_, answered) = fixture.begin_of(Epoch(6), 0, show, "").await;
    let answer = answered.await.expect("it comes");
    assert!(matches!(answer, FromExecutor::NotHere { .. }), "{answer:?}");
}

/// Keys of a page of actors.
async fn list(fixture: &Fixture, shard: u32, after: Option<String>, limit: u32) -> Vec<String> {
    let list = ActorAsk::List {
        component: "bank".into(),
        actor: "account".into(),
        after,
        limit,
    };
    let found = fixture.ask(shard, list).await.expect("it is answered");
    let found: Vec<ActorStatus> = serde_json::from_str(&found).expect("a list");
    found.into_iter().map(|status| status.key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_are_listed_by_key() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let shard = actor("x").shard();
    let of_shard = (0..).map(|n| format!("key-{n}"));
    let keys: Vec<String> = of_shard
        .filter(|key| actor(key).shard() == shard)
        .take(5)
        .collect();
    for key in &keys {
        fixture
            .invoke(key, "add", "")
            .await
            .expect("it is answered");
    }
    // It has kept nothing.
    fixture
        .invoke("x", "get", "n")
        .await
        .expect("it is answered");
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(list(&fixture, shard, None, 100).await, sorted);
    assert_eq!(list(&fixture, shard, None, 2).await, sorted[..2]);
    let second = Some(sorted[1].clone());
    assert_eq!(list(&fixture, shard, second, 100).await, sorted[2..]);
    let problem = fixture.show("x").await.expect_err("it has kept nothing");
    assert_eq!(problem.code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_actor_begins_anew() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    // More than are removed as one.
    let filled = fixture.invoke("a", "fill", "1000").await;
    filled.expect("it is answered");
    let status = fixture.show("a").await.expect("it is there");
    assert_eq!(status.entries, Some(1_000));
    let later = u64::MAX / 2;
    fixture
        .invoke("a", "alarm_at", &later.to_string())
        .await
        .expect("it is answered");
    let mut begun = Vec::new();
    let delete = || ActorAsk::Delete(actor("a"));
    let shard = actor("a").shard();
    for _ in 0..5 {
        for _ in 0..3 {
            begun.push(fixture.begin_turn(ask("a", "add"), "").await);
        }
        begun.push(fixture.begin(shard, delete(), "").await);
    }
    let mut answers = Vec::new();
    for begun in begun {
        answers.push(fixture.end(begun).await.expect("it is answered"));
    }
    // Between two deletions an actor counts from the start.
    assert_eq!(answers, ["1", "2", "3", ""].repeat(5));
    let problem = fixture.show("a").await.expect_err("it is gone");
    assert_eq!(problem.code, ErrorCode::NotFound);
    assert_eq!(fixture.ask(shard, delete()).await, Ok(String::new()));
}
