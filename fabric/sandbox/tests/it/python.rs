//! A guest that imports WASI and runs on a fiber: what it sees of the world, and what becomes of it when nobody waits.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use weft_core::LimitKind;
use weft_sandbox::{Fault, Guest, GuestSettings, monotonic_ns};

use crate::support::{check_limit, guest, map, run, run_with, settings, start};

fn seeded(seed: u64) -> GuestSettings {
    GuestSettings { seed, ..settings() }
}

async fn random_bytes(seed: u64) -> Vec<u8> {
    let answer = run_with(seeded(seed), "probe-py", "randomness", "").await;
    answer.expect("it answers")
}

fn numbers() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter([("n", numbers)]).expect("a batch")
}

#[tokio::test]
async fn the_example_maps_like_its_twin() {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Ada"), None]));
    let input = RecordBatch::try_from_iter([("name", names)]).expect("a batch");
    let output = map("hello-py", "greet", std::slice::from_ref(&input)).await;
    assert_eq!(output, map("hello", "greet", &[input]).await);

    let column = |values: [i64; 3]| Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
    let input = [("a", column([12, 7, 0])), ("b", column([18, 5, 9]))];
    let input = RecordBatch::try_from_iter(input).expect("a batch");
    let output = map("hello-py", "gcd", &[input]).await;
    let divisors = output[0].column(2).as_primitive::<Int64Type>();
    assert_eq!(divisors.values(), &[6, 1, 9]);
}

#[tokio::test]
async fn the_wall_clock_stands_at_the_start_of_the_job() {
    let answer = run("probe-py", "clock", "").await.expect("it answers");
    let text = String::from_utf8(answer).expect("text");
    assert_eq!(text, "[1700000000123, 1700000000123]");
}

#[tokio::test]
async fn what_is_printed_is_in_the_log() {
    let settings = settings();
    let log = Arc::clone(&settings.log);
    let said = run_with(settings, "probe-py", "say", "one\ntwo\n\u{1b}[31mthree").await;
    assert_eq!(said, Ok(Vec::new()));
    let (lines, dropped) = log.take();
    let mut lines: Vec<_> = lines
        .iter()
        .map(|line| (line.level.as_str(), line.message.as_str()))
        .collect();
    lines.sort_unstable();
    let expected = [
        ("info", "\\u{1b}[31mthree"),
        ("info", "one"),
        ("info", "two"),
        ("warn", "printed"),
    ];
    assert_eq!((lines.as_slice(), dropped), (&expected[..], 0));
}

#[tokio::test]
async fn an_error_for_want_of_memory_names_the_limit() {
    let settings = settings();
    let limit = format!("{} MiB", settings.account.limit_bytes() >> 20);
    let stopped = run_with(settings, "probe-py", "hoard", "").await;
    check_limit(stopped, LimitKind::Memory, &limit);
}

#[tokio::test]
async fn printing_without_end_is_stopped() {
    let stopped = run("probe-py", "chatter", "").await;
    check_limit(stopped, LimitKind::Log, "64 MiB");
}

#[tokio::test]
async fn randomness_depends_on_the_seed_alone() {
    let (first, again, other) = (
        random_bytes(1).await,
        random_bytes(1).await,
        random_bytes(2).await,
    );
    assert_eq!(first.len(), 128);
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[tokio::test]
async fn the_machine_cannot_be_seen() {
    let answer = run("probe-py", "outside", "").await.expect("it answers");
    let text = String::from_utf8(answer).expect("text");
    for part in [r#""environment": {}"#, r#""arguments": []"#] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("answered"), "{text}");
}

#[tokio::test]
async fn what_is_printed_goes_nowhere() {
    assert_eq!(run("probe-py", "echo", "x").await, Ok(b"x".to_vec()));
}

#[tokio::test]
async fn a_spinning_fiber_is_stopped() {
    let settings = GuestSettings {
        cpu_limit_ns: 300_000_000,
        ..settings()
    };
    let stopped = run_with(settings, "probe-py", "spin", "").await;
    check_limit(stopped, LimitKind::Cpu, "300 ms");
}

#[tokio::test]
async fn a_waiting_fiber_can_be_cancelled() {
    let settings = settings();
    let cancel = settings.cancel.clone();
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    };
    let began_ns = monotonic_ns();
    let sleeping = run_with(settings, "probe-py", "sleep", "");
    let (stopped, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(stopped, Err(Fault::Cancelled));
    assert!(Duration::from_nanos(monotonic_ns() - began_ns) < Duration::from_secs(30));
}

#[tokio::test]
async fn a_call_that_is_dropped_midway_leaves_nothing_behind() {
    let settings = settings();
    let account = Arc::clone(&settings.account);
    let component = guest("probe-py");
    let mut guest = Guest::start(&component, settings).await.expect("it starts");
    let params = [("seconds".to_owned(), "3600".to_owned())];
    let opened = guest.open_mapper("naps", &params, numbers().schema());
    opened.await.expect("it opens");
    let held = account.used_bytes();
    // The guest holds a batch of its own and waits when its caller goes away.
    let dropped = tokio::time::timeout(Duration::from_millis(100), guest.push_mapper(numbers()));
    assert!(dropped.await.is_err(), "it waits for an hour");
    assert!(account.used_bytes() >= held);
    let again = guest.finish_mapper().await;
    assert!(matches!(again, Err(Fault::Host(_))), "{again:?}");
    drop(guest);
    assert_eq!(account.used_bytes(), 0);

    // Others, in the same engine, with the same stacks, know nothing of it.
    for _ in 0..20 {
        let sleeping = run("probe-py", "sleep", "");
        let dropped = tokio::time::timeout(Duration::from_millis(1), sleeping).await;
        assert!(dropped.is_err(), "it waits for an hour");
    }
    let mut guest = start("probe-py").await;
    let params = [("seconds".to_owned(), "0".to_owned())];
    let opened = guest.open_mapper("naps", &params, numbers().schema());
    opened.await.expect("it opens");
    guest
        .push_mapper(numbers())
        .await
        .expect("it takes the batch");
    guest.finish_mapper().await.expect("it finishes");
    assert_eq!(guest.take_output().0, [numbers()]);
}
