//! Rows of outputs on their way to a client: an executor reads and encodes them, as fast as they are taken.
//!
//! ```text
//! client ◀──pieces, at most a window that is not taken── executor ◀── files of the output
//! ```

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use weft_core::{ErrorCode, LimitKind, Problem, lock};
use weft_protocol::{RowsRequest, ToExecutor};
use weft_runtime::link::NoReply;

use super::stream::{Ends, Sent, send};
use super::{OfTenant, busy};

impl OfTenant {
    /// An executor has sent the last rows, or says why there are no more.
    pub(crate) fn rows_sent(&self, request: u64, result: Result<(), Problem>) {
        let mut pending = lock(&self.pending);
        // Nothing comes after the answer.
        pending.streams.remove(&request);
        if let Some(waiting) = pending.rows.remove(&request) {
            let _ = waiting.send(result);
        }
    }

    pub(super) async fn admit_rows(
        &self,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        let most = self.shared.rows_max;
        let _rows = self.shared.rows.try_acquire().map_err(|_| {
            busy(format!(
                "rows of {most} outputs are being read here; try again"
            ))
        })?;
        let name = request.of.name().to_owned();
        let sent = tokio::time::timeout(deadline, self.send_rows(request, client)).await;
        sent.unwrap_or_else(|_| Err(too_slow(&name, deadline).into()))
    }

    async fn send_rows(
        &self,
        mut request: RowsRequest,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        request.request = number;
        let link = lock(&self.pending).link.clone();
        let (executor, link) = link.ok_or_else(|| busy("no executor is ready; try again"))?;
        let abandon = link.clone().reserve_owned().await;
        let mut sent = Sent {
            invocations: self,
            request: number,
            abandon: Some(abandon.map_err(|_| busy("the executor ended; try again"))?),
        };
        let (ends, mut output, _) = Ends::new();
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = lock(&self.pending);
            if pending.link.as_ref().is_none_or(|(id, _)| *id != executor) {
                return Err(busy("the executor ended; try again").into());
            }
            pending.streams.insert(number, ends);
            pending.rows.insert(number, answer);
        }
        send(&link, ToExecutor::Rows(Box::new(request)), Bytes::new()).await?;
        let receiving = async {
            while let Some(piece) = output.recv().await {
                let bytes = piece.len();
                // Waits as long as the client does not take what came before.
                if client.send(piece).await.is_err() {
                    return Err(NoReply::Left);
                }
                let taken = ToExecutor::OutputTaken {
                    request: number,
                    bytes,
                };
                send(&link, taken, Bytes::new()).await?;
            }
            let lost = |_| busy("the executor ended while it sent rows; try again");
            let result = answered.await.map_err(lost)?;
            result.map_err(NoReply::from)
        };
        tokio::select! {
            received = receiving => received?,
            () = client.closed() => return Err(NoReply::Left),
        }
        sent.abandon = None;
        Ok(())
    }
}

fn too_slow(name: &str, deadline: Duration) -> Problem {
    let value = format!("{} s", deadline.as_secs());
    let detail = format!(
        "not all rows of `{name}` were taken within {value}: ask for fewer at a time by `limit` and `offset`"
    );
    Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Wall, value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_core::job::{Destination, OutputFormat, OutputMode, OutputSpec};
    use weft_core::{Epoch, JobId, TenantId};
    use weft_protocol::{OutputRows, RowsFormat, RowsOf};

    use super::super::{Invocations, MAX_ROWS, ROWS_PER_SLOT};
    use super::*;
    use crate::executor_process::Outbound;
    use crate::metrics::Metrics;

    const DEADLINE: Duration = Duration::from_secs(600);

    fn connected() -> (Arc<OfTenant>, mpsc::Receiver<Outbound>) {
        let metrics = Metrics::new(&weft_telemetry::Registry::new());
        let invocations = Invocations::new(1, Arc::new(metrics));
        let of_tenant = invocations.of(&TenantId::default_tenant());
        let (link, executor) = mpsc::channel(64);
        of_tenant.connect(Epoch(1), link);
        (of_tenant, executor)
    }

    fn request() -> RowsRequest {
        RowsRequest {
            request: 0,
            of: RowsOf::Output(Box::new(OutputRows {
                job: JobId::new(1, 2),
                output: OutputSpec {
                    name: "result".into(),
                    from: "query".into(),
                    format: OutputFormat::Arrow,
                    to: Destination::Kept { max_kept_bytes: 1 },
                    partition_by: Vec::new(),
                    mode: OutputMode::Error,
                },
                offset: 0,
                limit: None,
            })),
            format: RowsFormat::File(OutputFormat::Csv),
        }
    }

    #[tokio::test]
    async fn rows_come_in_order_and_each_piece_is_acknowledged() {
        let (of_tenant, mut executor) = connected();
        let (client, mut taken) = mpsc::channel(1);
        let sending = of_tenant.admit_rows(request(), DEADLINE, &client);
        let playing = async {
            let Some((ToExecutor::Rows(asked), _)) = executor.recv().await else {
                panic!("the rows were asked for");
            };
            for piece in ["a", "bc"] {
                of_tenant.output(asked.request, Bytes::from(piece));
                let got = taken.recv().await;
                assert_eq!(got, Some(Bytes::from(piece)));
                let said = executor.recv().await;
                let Some((ToExecutor::OutputTaken { request, bytes }, _)) = said else {
                    panic!("{said:?}");
                };
                assert_eq!((request, bytes), (asked.request, piece.len()));
            }
            let problem = Problem::new(ErrorCode::BadRecord, "it is damaged");
            of_tenant.rows_sent(asked.request, Err(problem));
        };
        let (sent, ()) = tokio::join!(sending, playing);
        match sent {
            Err(NoReply::Failed(problem)) => assert_eq!(problem.detail, "it is damaged"),
            other => panic!("{other:?}"),
        }
        assert!(lock(&of_tenant.pending).is_empty());
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_the_reading() {
        let (of_tenant, mut executor) = connected();
        let (client, taken) = mpsc::channel(1);
        drop(taken);
        let sent = of_tenant.admit_rows(request(), DEADLINE, &client).await;
        assert!(matches!(sent, Err(NoReply::Left)), "{sent:?}");
        let Some((ToExecutor::Rows(asked), _)) = executor.recv().await else {
            panic!("the rows were asked for");
        };
        let said = executor.recv().await;
        assert!(
            matches!(said, Some((ToExecutor::Abandon { request }, _)) if request == asked.request)
        );
        assert!(lock(&of_tenant.pending).is_empty());
    }

    #[tokio::test]
    async fn readers_are_bounded() {
        let (of_tenant, _executor) = connected();
        let most = ROWS_PER_SLOT.min(MAX_ROWS);
        let (client, _taken) = mpsc::channel(1);
        let mut reading = Vec::new();
        for _ in 0..most {
            let mut one = Box::pin(of_tenant.admit_rows(request(), DEADLINE, &client));
            assert!(futures::poll!(&mut one).is_pending());
            reading.push(one);
        }
        let refused = of_tenant.admit_rows(request(), DEADLINE, &client).await;
        match refused {
            Err(NoReply::Failed(problem)) => assert_eq!(problem.code, ErrorCode::Busy),
            other => panic!("{other:?}"),
        }
    }
}
