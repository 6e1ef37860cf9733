//! Instances without a sandbox, which do what a method's name says.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use weft_core::lock;
use weft_sandbox::{Fault, Refusal};

use super::*;

/// Source of fake instances.
pub(in super::super) struct FakeInstances {
    /// Turns of method `wait` go on once there is a permit.
    pub(in super::super) gate: Semaphore,
    /// Deeds of turns, in order.
    pub(in super::super) seen: Mutex<Vec<String>>,
    /// Instances that were started.
    pub(in super::super) started: AtomicUsize,
    /// Alarms that are to fail.
    pub(in super::super) failing_alarms: AtomicUsize,
}

impl FakeInstances {
    pub(in super::super) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            seen: Mutex::default(),
            started: AtomicUsize::new(0),
            failing_alarms: AtomicUsize::new(0),
        })
    }

    pub(in super::super) fn seen(&self) -> Vec<String> {
        lock(&self.seen).clone()
    }

    fn see(&self, what: String) {
        lock(&self.seen).push(what);
    }
}

/// [`Instances`] that share one [`FakeInstances`].
pub(in super::super) struct Fakes(pub(in super::super) Arc<FakeInstances>);

#[async_trait(?Send)]
impl Instances for Fakes {
    async fn start(&self, _: Start<'_>) -> std::result::Result<Box<dyn Instance>, Problem> {
        self.0.started.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FakeGuest {
            of: Arc::clone(&self.0),
            turn: None,
            cancel: CancellationToken::new(),
            key: String::new(),
            bytes: 0,
        }))
    }
}

/// A fake instance.
pub(in super::super) struct FakeGuest {
    of: Arc<FakeInstances>,
    turn: Option<Box<dyn Turn>>,
    cancel: CancellationToken,
    key: String,
    bytes: u64,
}

fn fault(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Told(text) => Fault::Failed(text),
        Refusal::Stopped(fault) => fault,
        Refusal::Failed(problem) => Fault::Refused(Box::new(problem)),
    }
}

/// The parts of `key method input`.
fn parts(text: &str) -> (String, String, Vec<u8>) {
    let mut parts = text.splitn(3, ' ').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next().into_bytes())
}

impl FakeGuest {
    pub(in super::super) fn of_bytes(bytes: u64) -> Self {
        Self {
            of: FakeInstances::new(),
            turn: None,
            cancel: CancellationToken::new(),
            key: String::new(),
            bytes,
        }
    }

    /// Adds 1 to the number under `n`, and returns it.
    async fn add(&mut self) -> Result<Vec<u8>> {
        let turn = self.turn.as_mut().expect("it is in a turn");
        let found = turn.get(b"n").await.map_err(fault)?;
        let number: u64 = found.map_or(0, |found| {
            let text = std::str::from_utf8(&found).expect("it is text");
            text.parse().expect("it is a number")
        });
        let text = (number + 1).to_string().into_bytes();
        turn.put(b"n".to_vec(), text.clone()).map_err(fault)?;
        Ok(text)
    }

    async fn wait(&mut self) -> Result<Vec<u8>> {
        let of = Arc::clone(&self.of);
        of.see(format!("{} waits", self.key));
        let cancel = self.cancel.clone();
        tokio::select! {
            permit = of.gate.acquire() => permit.expect("it stays open").forget(),
            () = cancel.cancelled() => return Err(Fault::Cancelled),
        }
        self.add().await
    }

    async fn perform(&mut self, method: &str, input: &[u8]) -> Result<Vec<u8>> {
        let text = std::str::from_utf8(input).expect("tests send text");
        match method {
            "add" => return self.add().await,
            "wait" => return self.wait().await,
            _ => {}
        }
        let turn = self.turn.as_mut().expect("it is in a turn");
        match method {
            "get" => {
                let found = turn.get(input).await.map_err(fault)?;
                Ok(found.map_or_else(|| b"none".to_vec(), |found| found.to_vec()))
            }
            "put" => {
                let (key, value, _) = parts(text);
                turn.put(key.into_bytes(), value.into_bytes())
                    .map_err(fault)?;
                Ok(Vec::new())
            }
            "fill" => {
                let n: u32 = text.parse().expect("a number");
                for number in 0..n {
                    let key = number.to_be_bytes().to_vec();
                    turn.put(key, vec![0; 8]).map_err(fault)?;
                }
                Ok(Vec::new())
            }
            "fail" => {
                turn.put(b"n".to_vec(), b"999".to_vec()).map_err(fault)?;
                Err(Fault::Failed("it is to fail".into()))
            }
            "alarm_at" => {
                let at_ms = text.parse().expect("a number");
                turn.set_alarm(Some(at_ms)).map_err(fault)?;
                Ok(Vec::new())
            }
            "tell" => {
                let (key, method, input) = parts(text);
                turn.tell("account", key, method, input).map_err(fault)?;
                Ok(Vec::new())
            }
            "invoke" => {
                let (key, method, input) = parts(text);
                turn.invoke("account", key, method, input)
                    .await
                    .map_err(fault)
            }
            other => panic!("no test asks for `{other}`"),
        }
    }
}

#[async_trait(?Send)]
impl Instance for FakeGuest {
    fn begin_turn(&mut self, settings: TurnSettings) {
        self.turn = Some(settings.turn);
        self.cancel = settings.cancel;
    }

    fn end_turn(&mut self) -> Option<Box<dyn Turn>> {
        self.turn.take()
    }

    async fn wake(&mut self, _: &str, key: &str) -> Result<()> {
        self.key = key.to_owned();
        Ok(())
    }

    async fn invoke(&mut self, method: &str, input: &[u8]) -> Result<Vec<u8>> {
        let ended = self.perform(method, input).await;
        let how = if ended.is_ok() { "ok" } else { "failed" };
        self.of.see(format!("{} {method} {how}", self.key));
        ended
    }

    async fn alarm(&mut self) -> Result<()> {
        self.of.see(format!("{} alarm", self.key));
        let failing = &self.of.failing_alarms;
        let left = failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(Fault::Failed("the alarm is to fail".into())),
            Err(_) => self.add().await.map(drop),
        }
    }

    fn meters(&self) -> GuestMeters {
        GuestMeters::default()
    }

    fn held_bytes(&self) -> u64 {
        self.bytes
    }
}
