//! One connection of a client: HTTP/1.1, or HTTP/2 if its first bytes say so.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

use super::http2::{Streams, idle};
use super::{HEADER_BYTES_MAX, HEADERS_TIMEOUT, STALLED_MS_MAX};

/// The first bytes of HTTP/2: no request of HTTP/1.1 begins so.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause before bytes are looked at again, of a client that sends its first ones one by one.
const PEEK_AGAIN: Duration = Duration::from_millis(5);
/// Requests of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 32;
/// Bytes of bodies that a client of HTTP/2 may send before they are read, on all streams of a connection.
const WINDOW_BYTES: u32 = 256 << 10;
/// How long a connection of HTTP/2 may be without a request, as one of HTTP/1.1 may wait for a head.
const IDLE_TIMEOUT: Duration = HEADERS_TIMEOUT;
/// How long a client may then take for the rest of its answers, before the connection is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(STALLED_MS_MAX as u64);
/// Bytes that an answer holds before the client takes them.
const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;
/// How often a silent client of HTTP/2 is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection until it ends.
pub(super) async fn serve(
    stream: TcpStream,
    router: Router,
    streams: &Streams,
) -> anyhow::Result<()> {
    let starts = tokio::time::timeout(HEADERS_TIMEOUT, speaks_http2(&stream));
    if starts.await?? {
        return serve_http2(stream, router, streams).await;
    }
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    Ok(connection.await?)
}

/// Serves HTTP/2 until the client ends it, or has asked for nothing for a while.
async fn serve_http2(stream: TcpStream, router: Router, streams: &Streams) -> anyhow::Result<()> {
    let executor = streams.executor();
    let mut n_open = executor.n_open();
    let mut server = hyper::server::conn::http2::Builder::new(executor);
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // First the client is told to ask for no more here; it may have done so meanwhile, which begins the time anew.
    for after in [IDLE_TIMEOUT, CLOSE_TIMEOUT] {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = idle(&mut n_open, after) => connection.as_mut().graceful_shutdown(),
        }
    }
    Ok(())
}

/// Waits for the first bytes, and returns whether they are those of HTTP/2. They stay where they are. All of them are
/// waited for, since hyper waits for the rest without a limit.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let n = stream.peek(&mut first).await?;
        if let Some(is_it) = is_preface(&first[..n]) {
            return Ok(is_it);
        }
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}

/// Whether a connection that begins so speaks HTTP/2: none if more bytes decide.
fn is_preface(first: &[u8]) -> Option<bool> {
    match first {
        [] => Some(false),
        _ if first == PREFACE => Some(true),
        _ if PREFACE.starts_with(first) => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_speaks_http2_if_all_of_the_preface_has_come() {
        assert_eq!(is_preface(PREFACE), Some(true));
        for n_bytes in 1..PREFACE.len() {
            assert_eq!(is_preface(&PREFACE[..n_bytes]), None, "{n_bytes}");
        }
        for other in ["", "GET / HTTP/1.1", "PROPFIND", "PRI * HTTP/2.0\r\n\r\nno"] {
            assert_eq!(is_preface(other.as_bytes()), Some(false), "{other}");
        }
    }
}
