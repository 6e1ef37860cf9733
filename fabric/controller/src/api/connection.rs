//! One connection of a client: HTTP/1.1, or HTTP/2 if its first bytes say so.

use std::io;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;

use super::{HEADER_BYTES_MAX, HEADERS_TIMEOUT};

/// The first bytes of HTTP/2: no method of HTTP/1.1 begins so.
const HTTP2: [u8; 3] = *b"PRI";
/// Pause before bytes are looked at again, of a client that sends its first three one by one.
const PEEK_AGAIN: Duration = Duration::from_millis(5);
/// Requests of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 128;
/// Bytes that an answer holds before the client takes them.
const SEND_BUFFER_BYTES_MAX: usize = 256 << 10;
/// How often a silent client of HTTP/2 is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection until it ends.
pub(super) async fn serve(stream: TcpStream, router: Router) -> anyhow::Result<()> {
    let service = TowerToHyperService::new(router);
    let starts = tokio::time::timeout(HEADERS_TIMEOUT, speaks_http2(&stream));
    if starts.await?? {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        return Ok(connection.await?);
    }
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

/// Waits for the first bytes, and returns whether they are those of HTTP/2. They stay where they are.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2.len()];
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || first[..n] != HTTP2[..n] {
            return Ok(false);
        }
        if n == HTTP2.len() {
            return Ok(true);
        }
        tokio::time::sleep(PEEK_AGAIN).await;
    }
}
