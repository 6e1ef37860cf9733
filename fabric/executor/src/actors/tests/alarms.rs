use std::sync::atomic::Ordering;

use weft_core::{ErrorCode, SHARDS};
use weft_protocol::ActorAsk;
use weft_shard::keys;

use super::fixture::{Fixture, actor, folder, opens_once, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_a_turn_and_is_metered() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    for key in ["a", "b", "c"] {
        let set = fixture.invoke(key, "alarm_at", "0").await;
        set.expect("it is answered");
    }
    for key in ["a", "b", "c"] {
        fixture.until_number(key, "1").await;
        let status = fixture.show(key).await.expect("it is there");
        assert_eq!(status.alarm_ms, None);
    }
    until("they are metered", || {
        fixture.metered.load(Ordering::Relaxed) >= 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_fires_after_its_shard_was_opened_anew() {
    let folder = folder();
    let first = Fixture::with_lease(folder.path(), opens_once());
    // There it never comes to anything.
    first
        .fake
        .failing_alarms
        .store(usize::MAX, Ordering::Relaxed);
    let set = first.invoke("a", "alarm_at", "0").await;
    set.expect("it is answered");
    // Another executor takes the shard, and nobody asks it for the actor.
    let second = Fixture::with_lease(folder.path(), opens_once());
    until("it fires", || {
        second.fake.seen().contains(&"a alarm".into())
    })
    .await;
    second.until_number("a", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_fails_leaves_nothing_and_comes_again() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    fixture.fake.failing_alarms.store(1, Ordering::Relaxed);
    fixture
        .invoke("a", "alarm_at", "0")
        .await
        .expect("it is answered");
    until("it fails", || {
        fixture.fake.seen().contains(&"a alarm".into())
    })
    .await;
    fixture.until_number("a", "1").await;
    let fired = fixture.fake.seen().into_iter();
    assert_eq!(fired.filter(|seen| seen == "a alarm").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_actor_has_no_alarm() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let later = (u64::MAX / 2).to_string();
    for key in ["a", "b"] {
        let set = fixture.invoke(key, "alarm_at", &later).await;
        set.expect("it is answered");
    }
    assert_eq!(alarms(&fixture).await, ["a", "b"]);
    let delete = ActorAsk::Delete(actor("a"));
    let deleted = fixture.ask(actor("a").shard(), delete).await;
    deleted.expect("it is answered");
    assert_eq!(alarms(&fixture).await, ["b"]);
    let problem = fixture.show("a").await.expect_err("it is gone");
    assert_eq!(problem.code, ErrorCode::NotFound);
}

/// Keys of actors with alarms, in order, as the shards hold them.
async fn alarms(fixture: &Fixture) -> Vec<String> {
    let mut found = Vec::new();
    for shard in 0..SHARDS {
        let open = fixture.actors.0.opened(shard).await.expect("it opens");
        let entries = open.shard.scan(keys::alarms(), 10).await;
        let entries = entries.expect("it is read").into_iter();
        found.extend(entries.filter_map(|(key, _)| keys::due_of(&key)));
    }
    let mut keys: Vec<String> = found.into_iter().map(|(_, actor)| actor.key).collect();
    keys.sort();
    keys
}
