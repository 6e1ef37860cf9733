//! Bodies of invocations, taken in as they come, within a bound on all of them.

use std::fmt;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use weft_core::{ErrorCode, Problem};

use super::BODY_TIMEOUT;
use super::invoke::BODY_BYTES_MAX;
use crate::metrics::Metrics;
use weft_runtime::{Room, Taken};

/// Bytes of inputs that have come in and whose calls have not ended, of all calls together.
const HELD_BYTES_MAX: usize = 256 << 20;

/// Room for bodies. Clones share it.
#[derive(Clone)]
pub(crate) struct Bodies {
    room: Room,
}

impl Bodies {
    pub(crate) fn new(metrics: &Metrics) -> Bodies {
        let held = metrics.input_held.clone();
        let room = Room::new(HELD_BYTES_MAX, move |change| {
            held.inc_by(change);
        });
        Bodies { room }
    }

    /// Takes a whole body in. Errors: `too_large`, `busy` where there is no room for it, `invalid_job` where it is cut off.
    pub(crate) async fn take_in(&self, mut body: Body) -> Result<(Bytes, Option<Taken>), Problem> {
        let too_large = || {
            let most = BODY_BYTES_MAX >> 20;
            let detail = format!("the input of a call is larger than {most} MiB");
            Problem::new(ErrorCode::TooLarge, detail)
        };
        // What is announced as too large is refused before any of it is held.
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        let mut held: Option<Taken> = None;
        let (mut first, mut more) = (Bytes::new(), BytesMut::new());
        loop {
            let n_bytes = first.len() + more.len();
            let cut_off = |why: &dyn fmt::Display| {
                let detail = format!("the input was cut off after {n_bytes} bytes: {why}");
                Problem::new(ErrorCode::InvalidJob, detail)
            };
            let frame = tokio::time::timeout(BODY_TIMEOUT, body.frame()).await;
            let frame = frame.map_err(|_| {
                cut_off(&format_args!(
                    "nothing came for {} s",
                    BODY_TIMEOUT.as_secs()
                ))
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| cut_off(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if n_bytes + data.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            let room = self.room_for(data.len())?;
            match &mut held {
                Some(held) => held.merge(room),
                none => *none = Some(room),
            }
            // Most bodies come in one piece, and are not copied.
            match n_bytes {
                0 => first = data,
                _ => more.extend_from_slice(&data),
            }
        }
        if !more.is_empty() {
            first = [first, more.freeze()].concat().into();
        }
        Ok((first, held))
    }

    fn room_for(&self, n_bytes: usize) -> Result<Taken, Problem> {
        self.room.try_take(n_bytes).ok_or_else(|| {
            let most = HELD_BYTES_MAX >> 20;
            let detail = format!("calls that run or wait hold {most} MiB of input; try again");
            Problem::new(ErrorCode::Busy, detail)
        })
    }
}
