use weft_core::{ErrorCode, Problem, SHARDS};

use super::super::bounds::MAX_WAITING_TURNS;
use super::fixture::{Fixture, actor, ask, folder, message, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_delivered_once_whichever_shard_their_receiver_is_in() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let keys: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    let mut shards: Vec<u32> = keys.iter().map(|key| actor(key).shard()).collect();
    shards.sort_unstable();
    shards.dedup();
    assert!(shards.len() > 4, "they are spread over {SHARDS} shards");
    for key in keys.iter().chain(&keys) {
        let told = fixture
            .invoke("sender", "tell", &format!("{key} add"))
            .await;
        told.expect("it is answered");
    }
    for key in &keys {
        fixture.until_number(key, "2").await;
    }
    let adds = fixture.fake.seen().into_iter();
    assert_eq!(adds.filter(|seen| seen.ends_with(" add ok")).count(), 40);
}

/// Delivers a message of shard 3 to `a`.
async fn deliver(fixture: &Fixture, number: u64, method: &str) -> Result<String, Problem> {
    let mut invoke = ask("a", method);
    invoke.message = message(3, number);
    fixture.turn(invoke, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_again_is_not_applied_again() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    assert_eq!(deliver(&fixture, 7, "add").await, Ok("1".into()));
    for number in [7, 6, 1] {
        assert_eq!(deliver(&fixture, number, "add").await, Ok(String::new()));
    }
    // One that fails may come again.
    assert!(deliver(&fixture, 8, "fail").await.is_err());
    assert_eq!(deliver(&fixture, 8, "add").await, Ok("2".into()));
    assert_eq!(deliver(&fixture, 9, "get").await, Ok("none".into()));
    assert_eq!(
        deliver(&fixture, 9, "add").await,
        Ok(String::new()),
        "reading applies it, too"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_turn_that_fails_are_not_sent() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let told = fixture
        .invoke("a", "tell", &format!("b {}", "m".repeat(999)))
        .await;
    let problem = told.expect_err("the method's name is too long");
    assert_eq!(problem.code, ErrorCode::GuestError);
    let told = fixture.invoke("a", "tell", "b add").await;
    told.expect("it is answered");
    fixture.until_number("b", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_refused_is_kept_for_people() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let told = fixture.invoke("a", "tell", "b fail").await;
    told.expect("it is answered");
    // Behind it in the same lane.
    let told = fixture.invoke("a", "tell", "b add").await;
    told.expect("it is answered");
    fixture.until_number("b", "1").await;
    let status = fixture.show("a").await.expect("it is there");
    let [letter] = &status.dead_letters[..] else {
        panic!("one was given up: {status:?}");
    };
    assert_eq!(
        (letter.to.key.as_str(), letter.method.as_str()),
        ("b", "fail")
    );
    assert!(letter.reason.contains("it is to fail"), "{}", letter.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_invokes_another_one_and_not_itself() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    assert_eq!(fixture.invoke("a", "invoke", "b add").await, Ok("1".into()));
    assert_eq!(
        fixture.invoke("a", "invoke", "b invoke c add").await,
        Ok("1".into())
    );
    let circle = fixture.invoke("a", "invoke", "b invoke a add").await;
    let problem = circle.expect_err("it would wait for itself");
    let names = "bank/account/a → bank/account/b → bank/account/a";
    assert!(problem.detail.contains(names), "{problem}");
    assert_eq!(fixture.number("a").await, "none");
}

/// More turns wait for one actor than there are threads: those that may wait get their answers, and the others are
/// told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_that_wait_leave_threads_for_those_they_wait_for() {
    let folder = folder();
    let fixture = Fixture::over(folder.path());
    let mut begun = Vec::new();
    for number in 0..200 {
        let invoke = ask(&format!("w{number}"), "invoke");
        begun.push(fixture.begin_turn(invoke, "slow wait").await);
    }
    until("it is waited for", || {
        fixture.fake.seen().iter().any(|seen| seen == "slow waits")
    })
    .await;
    fixture.fake.gate.add_permits(200);
    let mut n_answered = 0;
    for begun in begun {
        match fixture.end(begun).await {
            Ok(_) => n_answered += 1,
            Err(problem) => {
                let limit = format!("{MAX_WAITING_TURNS} turns wait");
                assert!(problem.detail.contains(&limit), "{problem}");
            }
        }
    }
    assert!(n_answered > 0);
    assert_eq!(fixture.number("slow").await, n_answered.to_string());
}
