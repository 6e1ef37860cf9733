use serde_json::{Value, json};
use weft::testing::TestActor;

use super::*;

fn session() -> TestActor<Session> {
    TestActor::new("s-1")
}

fn touch(session: &mut TestActor<Session>, input: &str) -> Value {
    let answer = session.invoke("touch", input).expect("it is touched");
    serde_json::from_slice(&answer).expect("JSON")
}

fn data(session: &mut TestActor<Session>) -> Option<String> {
    let answer = session.invoke("get", "").ok()?;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["data"].as_str().map(str::to_owned)
}

#[test]
fn a_session_keeps_its_data_while_it_is_touched() {
    let mut session = session();
    assert_eq!(data(&mut session), None);
    let touched = touch(&mut session, r#"{"data":"two books","idle_ms":1000}"#);
    let expires_at_ms = session.now_ms() + 1000;
    let expected = json!({ "data": "two books", "expires_at_ms": expires_at_ms });
    assert_eq!(touched, expected);
    for _ in 0..3 {
        assert!(!session.advance(999).expect("nothing is due"));
        session.sleep();
        touch(&mut session, "");
    }
    assert_eq!(data(&mut session).as_deref(), Some("two books"));
}

#[test]
fn the_alarm_ends_an_idle_session() {
    let mut session = session();
    touch(&mut session, r#"{"data":"two books"}"#);
    assert!(!session.advance(IDLE_MS - 1).expect("nothing is due"));
    assert_eq!(data(&mut session).as_deref(), Some("two books"));
    assert!(session.advance(1).expect("it ends"));
    assert!(session.state().is_empty() && session.alarm_ms().is_none());
    assert_eq!(data(&mut session), None);
    touch(&mut session, "{}");
    assert_eq!(data(&mut session).as_deref(), Some(""));
}

#[test]
fn a_session_can_be_ended() {
    let mut session = session();
    touch(&mut session, r#"{"data":"two books"}"#);
    session.invoke("end", "").expect("it ends");
    assert!(session.state().is_empty() && session.alarm_ms().is_none());
    assert_eq!(data(&mut session), None);
}

#[test]
fn malformed_inputs_are_refused() {
    let mut session = session();
    for input in ["5", r#"{"idle":1}"#, r#"{"idle_ms":0}"#, r#"{"data":1}"#] {
        let error = session.invoke("touch", input).expect_err(input);
        assert!(!error.message().is_empty());
    }
    assert!(session.invoke("peek", "").is_err());
    assert!(session.state().is_empty());
}
