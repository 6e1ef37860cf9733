//! Calls a function over and over on connections that stay open, and tells how fast it answers.
//!
//! ```text
//! cargo run --release -p weft --example invoke_load ADDRESS TOKEN COMPONENT/FUNCTION CONNECTIONS SECONDS
//! ```
//!
//! Each connection is a thread that sends a call when the last one was answered. The load's own share of the CPU is told, too.

#![expect(clippy::print_stdout, reason = "a bench tells what it found")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use weft_sandbox::{monotonic_ns, thread_cpu_ns};

/// Nanoseconds of each call, and CPU time of the thread that made them.
fn calls(address: &str, request: &[u8], until_ns: u64) -> (Vec<u64>, u64) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let (mut times, cpu_began, mut line) = (Vec::new(), thread_cpu_ns(), String::new());
    while monotonic_ns() < until_ns {
        let began = monotonic_ns();
        stream.write_all(request).expect("it takes the request");
        line.clear();
        reader.read_line(&mut line).expect("it answers");
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).expect("a head");
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        times.push(monotonic_ns() - began);
    }
    (times, thread_cpu_ns() - cpu_began)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token, function, connections, seconds] = &arguments[..] else {
        panic!("ADDRESS TOKEN COMPONENT/FUNCTION CONNECTIONS SECONDS");
    };
    let connections: usize = connections.parse().expect("a number");
    let seconds = Duration::from_secs(seconds.parse().expect("a number"));
    let request = format!(
        "POST /v1/invoke/{function} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: 5\r\n\r\nhello"
    );
    let began = monotonic_ns();
    let until = began + u64::try_from(seconds.as_nanos()).expect("a short time");
    let (mut times, mut cpu_ns) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| calls(address, request.as_bytes(), until)))
            .collect();
        for thread in threads {
            let (more, cpu) = thread.join().expect("it ends");
            times.extend(more);
            cpu_ns += cpu;
        }
    });
    let wall = (monotonic_ns() - began) as f64;
    times.sort_unstable();
    let at = |fraction: f64| times[((times.len() - 1) as f64 * fraction) as usize] as f64 / 1e6;
    println!(
        "{connections} connections: {:.0} calls/s, p50 {:.3} ms, p99 {:.3} ms, load's CPU {:.2} cores",
        times.len() as f64 / wall * 1e9,
        at(0.5),
        at(0.99),
        cpu_ns as f64 / wall
    );
}
