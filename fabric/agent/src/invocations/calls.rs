//! Calls that guests make, on their way to a controller and back.
//!
//! ```text
//! executor ──Call────────▶ queue of the node ──next_call──▶ controller: pins, routes
//!          ◀─CallAnswered──   by number     ◀─answer_call──
//! ```
//!
//! Numbers are the node's own, because those of executors begin anew with each of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use weft_core::{Epoch, ErrorCode, Problem, TenantId, lock};
use weft_protocol::{Call, CallTo, MAX_TURN_BYTES, Pin, ToExecutor};

use super::{OfTenant, busy};
use crate::executor_process::Outbound;

/// Calls of a node that wait for a controller.
const MAX_WAITING_CALLS: usize = 4_096;
/// Bytes of their inputs.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// Calls of a node without an answer, those that wait included.
const MAX_OPEN_CALLS: usize = 32_768;

/// Calls of the guests of a node.
#[derive(Default)]
pub(super) struct Calls {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    last: u64,
    /// Calls that no controller has, oldest first.
    waiting: BTreeMap<u64, (Call, Bytes)>,
    waiting_bytes: usize,
    /// Calls without an answer.
    open: HashMap<u64, Open>,
    /// Numbers of open calls, by executor and its own number.
    numbers: HashMap<(Epoch, u64), u64>,
}

/// A call without an answer.
struct Open {
    tenant: TenantId,
    executor: Epoch,
    /// The executor's number.
    call: u64,
    /// The answer is a [`Pin`].
    is_pin: bool,
    link: mpsc::Sender<Outbound>,
}

impl Queue {
    fn check_room(&self, input: &Bytes) -> Result<(), Problem> {
        if input.len() > MAX_TURN_BYTES {
            let detail = format!("the input of a call is larger than {MAX_TURN_BYTES} bytes");
            return Err(Problem::new(ErrorCode::TooLarge, detail));
        }
        let waits = self.waiting.len() >= MAX_WAITING_CALLS
            || self.waiting_bytes + input.len() > MAX_WAITING_BYTES;
        if waits || self.open.len() >= MAX_OPEN_CALLS {
            let n_calls = self.open.len();
            return Err(busy(format!(
                "{n_calls} calls of guests are under way on this node; try again"
            )));
        }
        Ok(())
    }

    fn push(&mut self, open: Open, mut call: Call, input: Bytes) {
        self.last += 1;
        call.call = self.last;
        self.numbers.insert((open.executor, open.call), self.last);
        self.open.insert(self.last, open);
        self.waiting_bytes += input.len();
        self.waiting.insert(self.last, (call, input));
    }

    fn pop(&mut self) -> Option<(TenantId, Call, Bytes)> {
        loop {
            let (number, (call, input)) = self.waiting.pop_first()?;
            self.waiting_bytes -= input.len();
            if let Some(open) = self.open.get(&number) {
                return Some((open.tenant.clone(), call, input));
            }
        }
    }

    fn close(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        self.numbers.remove(&(open.executor, open.call));
        if let Some((_, input)) = self.waiting.remove(&number) {
            self.waiting_bytes -= input.len();
        }
        Some(open)
    }
}

impl Calls {
    /// The next call, which nobody else gets. Safe to drop.
    pub(super) async fn next(&self) -> (TenantId, Call, Bytes) {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.pop() {
                return next;
            }
            arrived.await;
        }
    }

    fn pop(&self) -> Option<(TenantId, Call, Bytes)> {
        let mut queue = lock(&self.queue);
        let next = queue.pop()?;
        if !queue.waiting.is_empty() {
            // Of several that arrived before anybody waited, one was announced.
            self.arrived.notify_one();
        }
        Some(next)
    }

    /// Takes a call of the tenant off those without an answer.
    fn close(&self, tenant: &TenantId, number: u64) -> Option<Open> {
        let mut queue = lock(&self.queue);
        if queue.open.get(&number)?.tenant != *tenant {
            return None;
        }
        queue.close(number)
    }

    /// The executor is gone: nobody waits for its calls.
    pub(super) fn forget(&self, executor: Epoch) {
        let mut queue = lock(&self.queue);
        let of_executor = queue.open.iter();
        let of_executor = of_executor.filter(|(_, open)| open.executor == executor);
        let numbers: Vec<u64> = of_executor.map(|(number, _)| *number).collect();
        for number in numbers {
            queue.close(number);
        }
    }
}

impl OfTenant {
    /// A guest makes a call. If too many are under way, it is answered at once.
    pub(crate) fn call(
        &self,
        executor: Epoch,
        call: Call,
        input: Bytes,
        link: &mpsc::Sender<Outbound>,
    ) {
        let calls = &self.shared.calls;
        let open = Open {
            tenant: self.id.clone(),
            executor,
            call: call.call,
            is_pin: matches!(call.to, CallTo::Pin { .. }),
            link: link.clone(),
        };
        let mut queue = lock(&calls.queue);
        match queue.check_room(&input) {
            Ok(()) => {
                queue.push(open, call, input);
                drop(queue);
                calls.arrived.notify_one();
            }
            Err(problem) => {
                drop(queue);
                let answer = ToExecutor::CallAnswered {
                    call: call.call,
                    result: Err(problem),
                };
                // If the queue is full, the caller waits until its deadline.
                let _ = link.try_send((answer, Bytes::new()));
            }
        }
    }

    /// Nobody waits for a call any more. One that a controller makes already comes to its end.
    pub(crate) fn cancel_call(&self, executor: Epoch, call: u64) {
        let mut queue = lock(&self.shared.calls.queue);
        if let Some(number) = queue.numbers.get(&(executor, call)).copied() {
            queue.close(number);
        }
    }

    /// A controller answers a call, by the node's number.
    pub(super) async fn call_answered(&self, number: u64, answer: Result<Bytes, Problem>) {
        let Some(open) = self.shared.calls.close(&self.id, number) else {
            return;
        };
        if let (true, Ok(output)) = (open.is_pin, &answer)
            && let Ok(pin) = serde_json::from_slice::<Pin>(output)
        {
            self.know(&pin.label);
        }
        let (result, output) = match answer {
            Ok(output) => (Ok(()), output),
            Err(problem) => (Err(problem), Bytes::new()),
        };
        let call = open.call;
        let answered = ToExecutor::CallAnswered { call, result };
        // The executor may have ended.
        let _ = open.link.send((answered, output)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Invocations;
    use super::*;
    use crate::metrics::Metrics;

    fn node() -> (Invocations, Arc<OfTenant>) {
        let metrics = Metrics::new(&weft_telemetry::Registry::new());
        let node = Invocations::new(1, Arc::new(metrics));
        let of_tenant = node.of(&TenantId::default_tenant());
        (node, of_tenant)
    }

    fn pin(call: u64) -> Call {
        Call {
            call,
            to: CallTo::Pin {
                function: "bank/account".into(),
            },
            deadline_ms: 1_000,
        }
    }

    fn answer(said: Option<Outbound>) -> (u64, Result<(), Problem>, Bytes) {
        match said {
            Some((ToExecutor::CallAnswered { call, result }, output)) => (call, result, output),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_call_is_handed_out_once_and_answered_by_its_executors_number() {
        let (node, of_tenant) = node();
        let (link, mut executor) = mpsc::channel(8);
        for call in [7, 8] {
            of_tenant.call(Epoch(1), pin(call), Bytes::from("in"), &link);
        }
        let (tenant, first, input) = node.shared.calls.next().await;
        assert_eq!((&tenant, &input[..]), (&of_tenant.id, &b"in"[..]));
        let (_, second, _) = node.shared.calls.next().await;
        assert_ne!(first.call, second.call);
        assert!(futures::poll!(Box::pin(node.shared.calls.next())).is_pending());
        let busy = busy("no");
        of_tenant
            .call_answered(second.call, Err(busy.clone()))
            .await;
        of_tenant.call_answered(first.call, Ok("out".into())).await;
        // A repeated answer goes nowhere.
        of_tenant
            .call_answered(first.call, Ok("again".into()))
            .await;
        assert_eq!(answer(executor.recv().await), (8, Err(busy), Bytes::new()));
        assert_eq!(answer(executor.recv().await), (7, Ok(()), "out".into()));
        assert!(executor.try_recv().is_err());
    }

    /// Numbers of executors begin anew: an answer for an earlier one's call must not be taken for a later one's.
    #[tokio::test]
    async fn an_answer_for_an_executor_that_is_gone_is_dropped() {
        let (node, of_tenant) = node();
        let (link, _earlier) = mpsc::channel(8);
        of_tenant.call(Epoch(1), pin(1), Bytes::new(), &link);
        let (_, of_earlier, _) = node.shared.calls.next().await;
        node.shared.calls.forget(Epoch(1));
        let (link, mut later) = mpsc::channel(8);
        of_tenant.call(Epoch(2), pin(1), Bytes::new(), &link);
        let (_, of_later, _) = node.shared.calls.next().await;
        of_tenant
            .call_answered(of_earlier.call, Ok("old".into()))
            .await;
        of_tenant
            .call_answered(of_later.call, Ok("new".into()))
            .await;
        assert_eq!(answer(later.recv().await), (1, Ok(()), "new".into()));
    }

    #[tokio::test]
    async fn a_call_that_is_cancelled_is_not_handed_out() {
        let (node, of_tenant) = node();
        let (link, _executor) = mpsc::channel(8);
        for call in [1, 2] {
            of_tenant.call(Epoch(1), pin(call), Bytes::from("in"), &link);
        }
        of_tenant.cancel_call(Epoch(1), 1);
        of_tenant.cancel_call(Epoch(2), 2);
        node.shared.calls.next().await;
        let queue = lock(&node.shared.calls.queue);
        assert_eq!((queue.waiting.len(), queue.waiting_bytes), (0, 0));
        assert_eq!((queue.open.len(), queue.numbers.len()), (1, 1));
    }

    #[tokio::test]
    async fn calls_that_wait_are_bounded() {
        let (_node, of_tenant) = node();
        let (link, mut executor) = mpsc::channel(8);
        for call in 0..MAX_WAITING_CALLS as u64 {
            of_tenant.call(Epoch(1), pin(call), Bytes::new(), &link);
        }
        assert!(executor.try_recv().is_err());
        of_tenant.call(Epoch(1), pin(77_777), Bytes::new(), &link);
        let (call, refused, _) = answer(executor.recv().await);
        let refused = refused.expect_err("there is no room");
        assert_eq!((call, refused.code), (77_777, ErrorCode::Busy));
        let large = vec![0; MAX_TURN_BYTES + 1];
        of_tenant.call(Epoch(1), pin(77_778), large.into(), &link);
        let (_, refused, _) = answer(executor.recv().await);
        assert_eq!(refused.expect_err("too large").code, ErrorCode::TooLarge);
    }
}
