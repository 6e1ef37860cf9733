//! Invocations that other invocations spawned, and wait for. They have bounds of their own, for each depth: behind
//! those that wait for them, they would never be sent.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_protocol::{InvokeRequest, MAX_SPAWN_DEPTH, MAX_TURN_BYTES};
use weft_runtime::link::InvokeAnswer;

use super::{OfTenant, busy, too_late, within};

/// Spawned invocations of one tenant and depth that run or wait.
const MAX_SPAWNED: usize = 1024;
/// Those of one depth that have been sent to the executor, for each of its slots. Each may answer with
/// [`MAX_TURN_BYTES`].
const SENT_PER_SLOT: usize = 4;

/// Bounds of one tenant, by depth from 1 on.
pub(super) struct Spawned(Vec<OfDepth>);

/// Bounds of one depth.
struct OfDepth {
    waiting: Semaphore,
    sent: Semaphore,
}

impl Spawned {
    pub(super) fn new(slots: usize) -> Self {
        let of_depth = |_| OfDepth {
            waiting: Semaphore::new(MAX_SPAWNED),
            sent: Semaphore::new(slots * SENT_PER_SLOT),
        };
        Self((1..=MAX_SPAWN_DEPTH).map(of_depth).collect())
    }

    /// The bounds of a depth. Errors: `limit_exceeded` if nothing may be nested as deeply.
    fn of(&self, depth: u32) -> Result<&OfDepth, Problem> {
        let position = (depth as usize).checked_sub(1);
        let of_depth = position.and_then(|position| self.0.get(position));
        of_depth.ok_or_else(|| {
            let value = format!("{MAX_SPAWN_DEPTH} nested spawners");
            let detail =
                format!("spawned invocations are nested {depth} deep; {value} are allowed");
            Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Futures, value)
        })
    }
}

impl OfTenant {
    pub(super) async fn admit_spawned(
        &self,
        mut request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        let bounds = self.spawned.of(request.depth)?;
        let _waiting = bounds.waiting.try_acquire().map_err(|_| {
            let depth = request.depth;
            busy(format!(
                "{MAX_SPAWNED} spawned invocations that are nested {depth} deep run or wait; try again"
            ))
        })?;
        let label = request.label.clone();
        // Whoever spawned it takes no more.
        let output_bytes = &mut request.limits.output_bytes;
        *output_bytes = (*output_bytes).min(MAX_TURN_BYTES as u64);
        let began = Instant::now();
        let call = async {
            let _sent = bounds.sent.acquire().await;
            let request = within(request, deadline.saturating_sub(began.elapsed()));
            let (reply, output) = self.run(request, input).await?;
            Ok((reply, output.into()))
        };
        tokio::time::timeout(deadline, call)
            .await
            .unwrap_or_else(|_| Err(too_late(label, deadline)))
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::sync::mpsc;
    use weft_core::Epoch;
    use weft_protocol::ToExecutor;

    use super::*;
    use crate::invocations::tests::{of_tenant, request};

    const DEADLINE: Duration = Duration::from_secs(600);

    /// A function that spawns itself comes to its end: what its calls wait for is sent past them.
    #[tokio::test]
    async fn those_that_wait_keep_none_back_that_they_wait_for() {
        let invocations = of_tenant();
        let (link, mut executor) = mpsc::channel(64);
        invocations.connect(Epoch(1), link);
        let call = |depth| {
            let request = InvokeRequest { depth, ..request() };
            Box::pin(invocations.admit(request, Bytes::new(), DEADLINE))
        };
        let mut waiting = Vec::new();
        for depth in [0, 1, 2] {
            for _ in 0..10 {
                let mut one = call(depth);
                assert!(poll!(&mut one).is_pending());
                waiting.push(one);
            }
        }
        let mut sent = [0; 3];
        while let Ok((ToExecutor::Invoke(request), _)) = executor.try_recv() {
            sent[request.depth as usize] += 1;
            let most = MAX_TURN_BYTES as u64;
            assert!(request.depth == 0 || request.limits.output_bytes == most);
        }
        assert_eq!(sent, [2, 4, 4], "some of each depth");
    }

    #[tokio::test]
    async fn an_executor_hears_how_much_time_an_invocation_has() {
        let invocations = of_tenant();
        let (link, mut executor) = mpsc::channel(64);
        invocations.connect(Epoch(1), link);
        // One that is dropped is abandoned, which the executor hears as well.
        let mut waiting = Vec::new();
        for depth in [0, 1] {
            let request = InvokeRequest { depth, ..request() };
            let deadline = Duration::from_secs(3);
            let mut call = Box::pin(invocations.admit(request, Bytes::new(), deadline));
            assert!(poll!(&mut call).is_pending());
            let Ok((ToExecutor::Invoke(sent), _)) = executor.try_recv() else {
                panic!("it is not sent");
            };
            assert!(sent.limits.wall_ms <= 3_000, "{}", sent.limits.wall_ms);
            waiting.push(call);
        }
    }

    #[tokio::test]
    async fn spawned_invocations_are_bounded() {
        let invocations = of_tenant();
        let (link, _executor) = mpsc::channel(64);
        invocations.connect(Epoch(1), link);
        let call = |depth| {
            let request = InvokeRequest { depth, ..request() };
            Box::pin(invocations.admit(request, Bytes::new(), DEADLINE))
        };
        let too_deep = call(MAX_SPAWN_DEPTH + 1).await.expect_err("it is too deep");
        assert_eq!(too_deep.code, ErrorCode::LimitExceeded, "{too_deep}");
        let mut waiting = Vec::new();
        for _ in 0..MAX_SPAWNED {
            let mut one = call(1);
            assert!(poll!(&mut one).is_pending());
            waiting.push(one);
        }
        let refused = call(1).await.expect_err("there is no room");
        assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        assert!(
            poll!(&mut call(2)).is_pending(),
            "those that are waited for have room"
        );
        assert!(poll!(&mut call(0)).is_pending(), "clients have room");
    }
}
