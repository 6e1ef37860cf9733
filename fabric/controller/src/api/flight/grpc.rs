//! gRPC over HTTP/2: messages with a length in front of each, and a status behind the last one.
//!
//! ```text
//! 0 | length (4 bytes) | message | 0 | length | message | .. | trailers: grpc-status, grpc-message
//! ```

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use prost::Message;
use serde_json::json;
use weft_core::{ErrorCode, Problem};

/// Bytes in front of a message.
pub(super) const PREFIX_BYTES: usize = 5;
/// Bytes of a message that a client sends: a statement of the largest size fits in.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Paths of Flight's service begin so.
pub(super) const SERVICE: &str = "/arrow.flight.protocol.FlightService/";
/// Content type of gRPC; a format or parameters may follow.
const CONTENT_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Weft's own code of a problem.
const WEFT_CODE: HeaderName = HeaderName::from_static("weft-code");

/// Status codes of gRPC, with their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl From<ErrorCode> for Code {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidComponent
            | ErrorCode::UnknownImport
            | ErrorCode::InvalidJob
            | ErrorCode::BadRecord
            | ErrorCode::SchemaMismatch
            | ErrorCode::QueryError => Code::InvalidArgument,
            ErrorCode::VersionConflict | ErrorCode::OutputExists => Code::AlreadyExists,
            ErrorCode::UnknownFunction | ErrorCode::NoInput | ErrorCode::NotFound => Code::NotFound,
            ErrorCode::LimitExceeded | ErrorCode::TooLarge => Code::ResourceExhausted,
            ErrorCode::GuestTrap | ErrorCode::GuestError => Code::Unknown,
            ErrorCode::StoreUnavailable | ErrorCode::Busy => Code::Unavailable,
            ErrorCode::Unauthorized => Code::Unauthenticated,
            ErrorCode::Internal => Code::Internal,
        }
    }
}

/// A status that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: String,
    /// Weft's own code, of a problem.
    weft: Option<String>,
}

impl Status {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            weft: None,
        }
    }

    /// The same, said of a job.
    pub(super) fn of_job(mut self, job: &str) -> Self {
        self.message += &format!(" (job `{job}`)");
        self
    }

    pub(super) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(STATUS, HeaderValue::from(self.code as u16));
        let texts = [
            (MESSAGE, Some(&self.message)),
            (WEFT_CODE, self.weft.as_ref()),
        ];
        for (name, text) in texts {
            // What is escaped is always a header's value.
            if let Some(Ok(value)) = text.map(|text| HeaderValue::try_from(escaped(text))) {
                trailers.insert(name, value);
            }
        }
        trailers
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let word = json!(problem.code);
        let word = word.as_str().unwrap_or("internal");
        Self {
            code: problem.code.into(),
            message: format!("{word}: {problem}"),
            weft: Some(word.to_owned()),
        }
    }
}

impl IntoResponse for Status {
    fn into_response(self) -> Response {
        let mut response = Body::empty().into_response();
        *response.headers_mut() = self.trailers();
        typed(response)
    }
}

/// Text of a status: what is not printable ASCII is percent-encoded.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => escaped.push(char::from(byte)),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

/// Returns whether a request is one of gRPC, as its content type says.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(CONTENT_TYPE.as_bytes()));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Tells a problem to a client of Flight's service as a status. HTTP/1.1 has no place for it.
pub(in crate::api) async fn translate(request: Request, next: Next) -> Response {
    let is_call = request.version() == Version::HTTP_2
        && request.uri().path().starts_with(SERVICE)
        && is_grpc(request.headers());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) if is_call => Status::from(problem).into_response(),
        _ => response,
    }
}

/// The time that a client waits, if it says so: at most eight digits, and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = u64::from(number.parse::<u32>().ok()?);
    Some(match unit {
        "H" => Duration::from_secs(3_600 * number),
        "M" => Duration::from_secs(60 * number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Reads the first message of a request. What follows is not read.
///
/// Errors: `ResourceExhausted` if it is too large, `InvalidArgument` if it is cut off or no such message,
/// `Unimplemented` if it is compressed.
pub(super) async fn message<M: Message + Default>(mut body: Body) -> Result<M, Status> {
    let invalid = |what: String| Status::new(Code::InvalidArgument, what);
    let mut bytes = BytesMut::new();
    loop {
        if let Some([is_compressed, length @ ..]) = bytes.first_chunk::<PREFIX_BYTES>() {
            if *is_compressed != 0 {
                let what = "the message is compressed: send it as it is";
                return Err(Status::new(Code::Unimplemented, what));
            }
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > MAX_REQUEST_BYTES {
                let most = MAX_REQUEST_BYTES >> 20;
                let what = format!("the message is larger than {most} MiB");
                return Err(Status::new(Code::ResourceExhausted, what));
            }
            if bytes.len() >= PREFIX_BYTES + length {
                let message = bytes
                    .split_to(PREFIX_BYTES + length)
                    .split_off(PREFIX_BYTES);
                let message = M::decode(message.freeze());
                return message
                    .map_err(|error| invalid(format!("the message cannot be read: {error}")));
            }
        }
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(invalid(format!("the message is cut off: {error}"))),
            None => return Err(invalid("the message is cut off".into())),
        }
    }
}

/// Bytes in front of a message of this length.
pub(super) fn prefix(length: u32) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [0, a, b, c, d]
}

/// An answer of one message.
pub(super) fn one(message: &impl Message) -> Response {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("messages that are written here are short");
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_slice(&prefix(length));
    bytes.put_slice(&message);
    let frames = [Frame::data(bytes.freeze()), Frame::trailers(succeeded())];
    answer(futures::stream::iter(frames.map(Ok)))
}

/// An answer without a message.
pub(super) fn none() -> Response {
    answer(futures::stream::iter([Ok(Frame::trailers(succeeded()))]))
}

/// An answer of frames, of which the last one are the trailers.
pub(super) fn answer(
    frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Response {
    typed(Body::new(StreamBody::new(frames)).into_response())
}

/// Trailers of an answer that is whole.
pub(super) fn succeeded() -> HeaderMap {
    HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))])
}

fn typed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Text {
        #[prost(string, tag = "1")]
        text: String,
    }

    async fn read(pieces: &[&'static [u8]]) -> Result<Text, Code> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(*piece))
            .collect();
        let body = Body::from_stream(futures::stream::iter(pieces));
        message(body).await.map_err(|status| status.code)
    }

    #[tokio::test]
    async fn the_first_message_is_read_however_it_comes() {
        let expected = || Ok(Text { text: "ab".into() });
        let whole: &[u8] = b"\0\0\0\0\x04\x0a\x02ab";
        assert_eq!(read(&[whole]).await, expected());
        assert_eq!(
            read(&[&whole[..3], &whole[3..7], &whole[7..]]).await,
            expected()
        );
        assert_eq!(read(&[whole, b"\0\0\0\0\x04more"]).await, expected());
        for (cut, code) in [
            (&whole[..8], Code::InvalidArgument),
            (&b""[..], Code::InvalidArgument),
            (&b"\x01\0\0\0\0"[..], Code::Unimplemented),
            (&b"\0\x7f\0\0\0"[..], Code::ResourceExhausted),
            (&b"\0\0\0\0\x02\xff\xff"[..], Code::InvalidArgument),
        ] {
            assert_eq!(read(&[cut]).await, Err(code), "{cut:?}");
        }
    }

    #[test]
    fn the_content_type_of_grpc_is_told_from_longer_ones() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, expected) in [
            ("2S", Some(2_000)),
            ("90m", Some(90)),
            ("1H", Some(3_600_000)),
            ("S", None),
            ("-1S", None),
            ("1h", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            let expected = expected.map(Duration::from_millis);
            assert_eq!(timeout(&headers), expected, "{text}");
        }
    }

    #[test]
    fn a_problem_keeps_its_code_and_text() {
        let problem = Problem::new(ErrorCode::QueryError, "1 % 0 é");
        let trailers = Status::from(problem).of_job("j").trailers();
        let text = |name: HeaderName| trailers[name].to_str().expect("ASCII").to_owned();
        assert_eq!(text(STATUS), "3");
        assert_eq!(text(MESSAGE), "query_error: 1 %25 0 %C3%A9 (job `j`)");
        assert_eq!(text(WEFT_CODE), "query_error");
    }
}
