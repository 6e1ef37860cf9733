//! The answer of an invocation that streams: bytes, and at their end why they are not all.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::client::innermost;
use crate::error::Error;
use crate::problem::ApiProblem;

/// The trailer that tells why an answer is not whole.
const PROBLEM: &str = "x-weft-problem";

/// The body of an answer, piece by piece.
pub struct AnswerStream {
    body: Incoming,
}

impl AnswerStream {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body }
    }

    /// The next piece, or none at the end of a whole answer. Cancel-safe.
    ///
    /// Errors: `Problem` where the server says after the last piece why the answer is not whole,
    /// `Other` where the connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                let why = innermost(&error);
                Error::other(format!(
                    "the answer was cut off ({why}); what came is not all"
                ))
            })?;
            match frame.into_data() {
                Ok(piece) => return Ok(Some(piece)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(problem) = trailers.get(PROBLEM) {
                        let problem = ApiProblem::from_answer(0, problem.as_bytes());
                        return Err(Error::Problem(Box::new(problem)));
                    }
                }
            }
        }
        Ok(None)
    }
}
