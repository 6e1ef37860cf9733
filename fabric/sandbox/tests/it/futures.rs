//! Futures that guests spawn, join, select and cancel.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use weft_core::{LimitKind, lock};
use weft_sandbox::{Asked, Fault, Futures, GuestSettings, Refusal};

use crate::support::{check_failed, check_limit, run, run_with, settings};

/// Answers with squares. Says what was asked.
struct Squares {
    asked: Arc<Mutex<Vec<String>>>,
    inputs: Vec<u8>,
}

impl Squares {
    fn ask(&self, what: String) {
        lock(&self.asked).push(what);
    }
}

#[async_trait]
impl Futures for Squares {
    async fn spawn(&mut self, function: &str, input: Vec<u8>) -> Asked<u64> {
        if input == [0] {
            let fault = Fault::limit(LimitKind::Futures, "no zeros".into());
            return Err(Refusal::Stopped(fault));
        }
        self.ask(format!("spawn {function}"));
        self.inputs.extend(input);
        Ok(self.inputs.len() as u64 - 1)
    }

    async fn join(&mut self, future: u64) -> Asked<Vec<u8>> {
        tokio::task::yield_now().await;
        self.ask(format!("join {future}"));
        match self.inputs[future as usize] {
            99 => Err(Refusal::Told("too large".into())),
            input => Ok(vec![input * input]),
        }
    }

    async fn select(&mut self, futures: &[u64]) -> Asked<u32> {
        tokio::task::yield_now().await;
        self.ask(format!("select {futures:?}"));
        Ok(1)
    }

    fn cancel(&mut self, future: u64) {
        self.ask(format!("cancel {future}"));
    }
}

/// Settings with futures, and what is asked of these.
fn with_futures() -> (GuestSettings, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let squares = Squares {
        asked: Arc::clone(&asked),
        inputs: Vec::new(),
    };
    let settings = GuestSettings {
        futures: Some(Box::new(squares)),
        ..settings()
    };
    (settings, asked)
}

#[tokio::test]
async fn futures_are_joined() {
    let (settings, asked) = with_futures();
    let sum = run_with(settings, "keeper", "sum", "\x01\x02\x03").await;
    assert_eq!(sum, Ok(vec![14]));
    let asked = lock(&asked);
    let (spawned, joined) = asked.split_at(3);
    assert!(spawned.iter().all(|one| one == "spawn square"));
    assert_eq!(joined, ["join 0", "join 1", "join 2"]);
}

#[tokio::test]
async fn futures_are_selected_and_cancelled() {
    let (settings, asked) = with_futures();
    let first = run_with(settings, "keeper", "first", "\x02\x03").await;
    assert_eq!(first, Ok(vec![9]));
    let asked = lock(&asked);
    assert_eq!(asked[0], "spawn other/square");
    assert_eq!(asked[2..], ["select [0, 1]", "cancel 0", "join 1"]);
}

#[tokio::test]
async fn futures_that_fail_are_the_guests_to_handle() {
    let (settings, _) = with_futures();
    let failed = run_with(settings, "keeper", "sum", "\x01\x63").await;
    check_failed(failed, &["too large"]);
}

#[tokio::test]
async fn futures_have_limits() {
    let (settings, _) = with_futures();
    let stopped = run_with(settings, "keeper", "sum", "\x01\0").await;
    check_limit(stopped, LimitKind::Futures, "no zeros");
}

#[tokio::test]
async fn who_may_spawn_none_is_told() {
    let refused = run("keeper", "sum", "\x01").await;
    check_failed(refused, &["futures are spawned by invoked tasks"]);
}
