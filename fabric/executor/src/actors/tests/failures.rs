use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use weft_core::{ErrorCode, Problem};
use weft_shard::{Batch, keys};

use super::super::answer::{Asker, Outcome};
use super::super::bounds::MAX_BACKLOG_BYTES;
use super::super::committer::Step;
use super::fixture::{Fixture, PATIENCE, actor, ask, folder};
use crate::lease::Lease;

/// A lease that nobody has renewed or confirmed.
fn not_renewed() -> Lease {
    let (replies, sent) = mpsc::channel(1_024);
    // It must not close, or confirmations would have nobody to ask.
    std::mem::forget(sent);
    Lease::new(replies)
}

/// A turn that the failure undid may have written what it read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_ends_after_its_shard_has_failed_does_not_tell_what_it_read() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let shared = &fixture.actors.0;
    let open = shared.opened(actor("a").shard()).await.expect("it opens");
    let problem = Problem::new(ErrorCode::StoreUnavailable, "it is to fail");
    shared.shard_failed(&open, &problem);
    let (replies, _sent) = mpsc::channel(8);
    let (asker, answered) = Asker::here(replies);
    let read = Outcome::unserved(Ok(b"1".to_vec()));
    open.answer_read(&actor("a"), asker, read, false).await;
    let answer = answered.await.expect("it is answered");
    assert_eq!(answer.map_err(|problem| problem.code), Err(ErrorCode::Busy));
}

#[tokio::test]
async fn what_is_shown_is_durable() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let open = fixture.actors.0.opened(0).await.expect("it opens");
    // As the writer has it before it hands on what waits for it.
    let mut batch = Batch::default();
    batch.put(b"s".to_vec(), b"value".to_vec());
    let written = open.shard.write(batch).await.expect("it is accepted");
    open.settled_so_far().await.expect("the shard is well");
    assert!(matches!(written.durable().now_or_never(), Some(Ok(()))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_not_said_that_there_is_no_actor_while_the_lease_does_not_stand() {
    let folder = folder();
    let lease = not_renewed();
    // Confirmed, so that shards are opened, and over.
    lease.renewed(1, u64::MAX);
    let fixture = Fixture::with_lease(folder.path(), lease.clone());
    let shared = &fixture.actors.0;
    let nobody = actor("nobody");
    shared.opened(nobody.shard()).await.expect("it opens");
    let mut shown = Box::pin(shared.show(&nobody));
    for _ in 0..100 {
        assert!(shown.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    lease.renewed(u64::MAX, u64::MAX);
    let problem = shown.await.expect_err("there is none");
    assert_eq!(problem.code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_given_up_is_answered_also_while_its_shard_does_not_open() {
    let folder = folder();
    let fixture = Fixture::with_lease(folder.path(), not_renewed());
    let begun = fixture.begin_turn(ask("a", "add"), "").await;
    fixture.actors.abandon(begun.0);
    let problem = fixture.end(begun).await.expect_err("it was given up");
    assert!(problem.detail.contains("nothing was written"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_turn_begins_while_the_store_falls_behind() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let open = fixture.actors.0.opened(actor("a").shard()).await;
    let queued = open.expect("it opens").backlog.add(MAX_BACKLOG_BYTES);
    let problem = fixture.invoke("a", "add", "").await;
    let problem = problem.expect_err("too much waits");
    assert_eq!(problem.code, ErrorCode::Busy);
    assert!(problem.detail.contains("falls behind"), "{problem}");
    drop(queued);
    assert_eq!(fixture.invoke("a", "add", "").await, Ok("1".into()));
}

/// More than go with the looks that are made now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_answers_go_as_fast_as_their_time_ends() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let kept_by = actor("a");
    let open = fixture.actors.0.opened(kept_by.shard()).await;
    let open = open.expect("it opens");
    let mut batch = Batch::default();
    let mut keep = |until_ms, digest: &[u8]| {
        batch.put(keys::expiry(until_ms, &kept_by, digest), Vec::<u8>::new());
        batch.put(keys::answer(&kept_by, digest), b"answer".to_vec());
    };
    for number in 0..5_000_u32 {
        keep(1, &number.to_be_bytes());
    }
    keep(u64::MAX / 2, b"one that is kept on");
    open.shard.write(batch).await.expect("it is accepted");
    open.step(Step::Expire).await.expect("the writer is there");
    let left = async {
        loop {
            let left = open.shard.scan(keys::answers(&kept_by), 2).await;
            let left = left.expect("it is read");
            if left.len() < 2 {
                return left;
            }
            tokio::task::yield_now().await;
        }
    };
    let left = timeout(PATIENCE, left).await.expect("not in time");
    let on = keys::answer(&kept_by, b"one that is kept on");
    assert!(left.iter().map(|(key, _)| key).eq([&on]), "{left:?}");
}
