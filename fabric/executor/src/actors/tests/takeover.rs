use weft_core::ErrorCode;

use super::fixture::{Fixture, ask, folder, message, opens_once, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_a_shard_has_all_that_was_answered() {
    let folder = folder();
    let first = Fixture::with_lease(folder.path(), opens_once());
    for number in 1..=20 {
        assert_eq!(first.invoke("a", "add", "").await, Ok(number.to_string()));
    }
    let mut delivered = ask("a", "add");
    delivered.message = message(2, 9);
    assert_eq!(first.turn(delivered.clone(), "").await, Ok("21".into()));
    let second = Fixture::with_lease(folder.path(), opens_once());
    assert_eq!(second.number("a").await, "21");
    assert_eq!(second.turn(delivered, "").await, Ok(String::new()));
    assert_eq!(second.invoke("a", "add", "").await, Ok("22".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_lost_a_shard_says_that_nothing_is_known_and_takes_up_what_is_there() {
    let folder = folder();
    let lease = opens_once();
    let first = Fixture::with_lease(folder.path(), lease.clone());
    assert_eq!(first.invoke("a", "add", "").await, Ok("1".into()));
    let second = Fixture::with_lease(folder.path(), opens_once());
    assert_eq!(second.invoke("a", "add", "").await, Ok("2".into()));
    // It still accepts, and does not answer as if that counted.
    let problem = first.invoke("a", "add", "").await;
    let problem = problem.expect_err("the shard was taken");
    assert_eq!(problem.code, ErrorCode::Busy);
    assert!(problem.detail.contains("`Idempotency-Key`"), "{problem}");
    // Its lease is confirmed, so it takes the shard again, and finds what the other one left.
    lease.renewed(u64::MAX, u64::MAX);
    assert_eq!(first.number("a").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_were_not_delivered_are_by_whoever_takes_the_shard() {
    let folder = folder();
    let first = Fixture::with_lease(folder.path(), opens_once());
    for _ in 0..5 {
        let told = first.invoke("a", "tell", "b wait").await;
        told.expect("it is answered");
    }
    until("it is delivered", || {
        first.fake.seen().contains(&"b waits".into())
    })
    .await;
    let second = Fixture::with_lease(folder.path(), opens_once());
    second.fake.gate.add_permits(5);
    second.until_number("b", "5").await;
}
