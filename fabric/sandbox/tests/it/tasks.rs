//! Guests that behave.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use weft_sandbox::{Fault, Guest};

use crate::support::{guest, map, run, settings, start};

#[tokio::test]
async fn every_task_gets_a_fresh_sandbox() {
    let mut first = start("mirror").await;
    for before in 0..3 {
        let answer = first.run_task("count", &[], 0, &[]).await;
        assert_eq!(answer, Ok(vec![before]), "state lives as long as its task");
    }
    let answer = start("mirror").await.run_task("count", &[], 0, &[]).await;
    assert_eq!(answer, Ok(vec![0]), "and no longer");
    drop(first);
    for _ in 0..300 {
        assert_eq!(run("mirror", "count", "").await, Ok(vec![0]));
    }
}

#[tokio::test]
async fn sandboxes_live_side_by_side() {
    let mut guests = Vec::new();
    for _ in 0..64 {
        guests.push(start("mirror").await);
    }
    for guest in &mut guests {
        assert_eq!(guest.run_task("count", &[], 0, &[]).await, Ok(vec![0]));
    }
}

#[tokio::test]
async fn the_examples_describe_themselves() {
    for (name, functions) in [
        ("hello", vec!["greet", "echo", "noop"]),
        (
            "weblog",
            vec!["parse", "daily-partial", "daily", "top-partial", "top"],
        ),
    ] {
        let found = start(name).await.describe().await.expect("it does");
        assert_eq!(
            (found.name.as_str(), found.version.as_str()),
            (name, "0.1.0")
        );
        let names = found.functions.iter().map(|function| &function.name);
        assert_eq!(names.collect::<Vec<_>>(), functions);
        let functions = found.functions.iter();
        assert!(functions.clone().all(|function| function.deterministic));
        assert!(
            functions
                .clone()
                .all(|function| !function.summary.is_empty())
        );
    }
}

#[tokio::test]
async fn a_map_greets_whoever_comes() {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Ada"), None, Some("Ünal")]));
    let input = RecordBatch::try_from_iter([("name", names)]).expect("a batch");
    let output = map("hello", "greet", &[input]).await;
    let greetings = output[0].column(1).as_string::<i32>();
    let expected = [Some("hello, Ada"), None, Some("hello, Ünal")];
    assert_eq!(greetings.iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn meters_only_grow_and_say_what_was_used() {
    let mut guest = start("mirror").await;
    let started = guest.meters();
    let input = vec![7; 100_000];
    let answer = guest.run_task("echo", &[], 0, &input).await;
    assert_eq!(answer.as_deref(), Ok(&input[..]));
    let used = guest.meters();
    assert_eq!((used.calls, used.bytes_out), (1, 100_000));
    assert!(used.cpu_ns > started.cpu_ns, "{used:?}");
    assert!(
        used.memory_peak_bytes > 100_000 && used.memory_byte_ns > 0,
        "{used:?}"
    );
}

#[tokio::test]
async fn memory_is_given_back_with_the_guest() {
    let settings = settings();
    let account = Arc::clone(&settings.account);
    let mut guest = Guest::start(&guest("mirror"), settings)
        .await
        .expect("it starts");
    let answer = guest.run_task("echo", &[], 0, &[1; 1000]).await;
    assert_eq!(answer.map(|answer| answer.len()), Ok(1000));
    assert!(account.used_bytes() > 0);
    drop(guest);
    assert_eq!(account.used_bytes(), 0);
}

#[tokio::test]
async fn params_and_positions_arrive() {
    let mut guest = start("hello").await;
    let params = [("hello".to_owned(), "hi".to_owned())];
    let names: ArrayRef = Arc::new(StringArray::from(vec!["Ada"]));
    let input = RecordBatch::try_from_iter([("name", names)]).expect("a batch");
    let bound = guest.bind("greet", &input.schema(), &params).await;
    let opened = guest.open_mapper("greet", &params, bound.expect("it binds"));
    opened.await.expect("it opens");
    guest.push_mapper(input).await.expect("it takes the batch");
    let (output, reserved) = guest.take_output();
    assert_eq!(output[0].column(1).as_string::<i32>().value(0), "hi, Ada");
    assert!(reserved.is_some_and(|reserved| reserved.bytes() > 0));
    assert!(guest.take_output().0.is_empty(), "output is taken once");
}

#[tokio::test]
async fn an_unknown_function_is_the_functions_error() {
    let failed = run("hello", "none", "").await;
    let expected = Fault::Failed("no task function `none`".into());
    assert_eq!(failed, Err(expected));
}
