//! A proxy in front of a store that does to requests what networks and overloaded stores do.
//!
//! Each connection carries one request: nothing about connections that are kept can confuse what is seen.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// Pieces of an answer that comes slowly, and the pause between two.
const SLOW_PIECES: usize = 20;
const SLOW_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Faults that requests meet at random.
const FAULTS: [Fault; 8] = [
    Fault::Refused(500),
    Fault::Refused(503),
    Fault::Refused(429),
    Fault::DoneThen(503),
    Fault::DoneThenClosed,
    Fault::DoneThenReset,
    Fault::CutInBody,
    Fault::Slow,
];

/// A fault that one request meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused with this status, and the store never hears of it.
    Refused(u16),
    /// The store does it; the answer is this status instead of its own.
    DoneThen(u16),
    /// The store does it; the connection is closed without an answer.
    DoneThenClosed,
    /// The store does it; the connection is reset.
    DoneThenReset,
    /// Half of the answer's body comes, then the connection is reset.
    CutInBody,
    /// The answer comes in many pieces.
    Slow,
}

/// A proxy that serves until the test's process ends.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    upstream: String,
    /// Faults of the next requests of a method, in order.
    armed: Mutex<VecDeque<(&'static str, Fault)>>,
    /// Which other requests meet a fault.
    chance: Mutex<Chance>,
    /// Faults that happened.
    happened: Mutex<Vec<Fault>>,
}

/// Faults at random.
#[derive(Default)]
struct Chance {
    /// How many of a hundred requests meet one.
    percent: u64,
    /// State of SplitMix64 (Steele, Lea, Flood 2014).
    state: u64,
}

impl Chance {
    fn draw(&mut self) -> Option<Fault> {
        let is_met = self.below(100) < self.percent;
        let fault = usize::try_from(self.below(FAULTS.len() as u64));
        is_met.then(|| FAULTS[fault.expect("there are few")])
    }

    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % n
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy in front of an address.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            ..State::default()
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&serving);
                // What a client that went away makes of it is its own affair.
                std::thread::spawn(move || drop(state.serve(connection)));
            }
        });
        Self { port, state }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Has the next requests of a method meet these faults, one each.
    pub(crate) fn arm(&self, method: &'static str, faults: &[Fault]) {
        let faults = faults.iter().map(|fault| (method, *fault));
        lock(&self.state.armed).extend(faults);
    }

    /// From now on, `percent` of a hundred requests meet a fault. Equal seeds draw equal faults, in the order in which
    /// requests come.
    pub(crate) fn fail(&self, percent: u64, seed: u64) {
        *lock(&self.state.chance) = Chance {
            percent,
            state: seed,
        };
    }

    /// Faults that happened, which are forgotten.
    pub(crate) fn take_happened(&self) -> Vec<Fault> {
        std::mem::take(&mut *lock(&self.state.happened))
    }

    /// Checks that all faults happened that requests were to meet, and forgets them.
    pub(crate) fn assert_happened(&self, expected: &[Fault]) {
        assert!(lock(&self.state.armed).is_empty(), "faults are left");
        assert_eq!(self.take_happened(), expected);
    }
}

impl State {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let (head, body) = request(&mut client)?;
        let method = head.split(' ').next().unwrap_or_default();
        let fault = self.fault_of(method);
        if let Some(Fault::Refused(status)) = fault {
            return client.write_all(answer(status).as_bytes());
        }
        let got = self.forwarded(&head, &body)?;
        match fault {
            Some(Fault::DoneThen(status)) => client.write_all(answer(status).as_bytes()),
            Some(Fault::DoneThenClosed) => Ok(()),
            Some(Fault::DoneThenReset) => Ok(set_socket_linger(&client, Some(Duration::ZERO))?),
            Some(Fault::CutInBody) => {
                let head = end_of_head(&got).unwrap_or(got.len());
                client.write_all(&got[..head + (got.len() - head) / 2])?;
                client.flush()?;
                // What was sent arrives before the reset does.
                std::thread::sleep(SLOW_PAUSE);
                Ok(set_socket_linger(&client, Some(Duration::ZERO))?)
            }
            Some(Fault::Slow) => got
                .chunks(got.len().div_ceil(SLOW_PIECES).max(1))
                .try_for_each(|piece| {
                    client.write_all(piece)?;
                    std::thread::sleep(SLOW_PAUSE);
                    Ok(())
                }),
            Some(Fault::Refused(_)) | None => client.write_all(&got),
        }
    }

    fn fault_of(&self, method: &str) -> Option<Fault> {
        let armed = {
            let mut armed = lock(&self.armed);
            let position = armed.iter().position(|(of, _)| *of == method);
            position.and_then(|position| armed.remove(position))
        };
        let fault = match armed {
            Some((_, fault)) => fault,
            None => lock(&self.chance).draw()?,
        };
        lock(&self.happened).push(fault);
        Some(fault)
    }

    /// The store's answer.
    fn forwarded(&self, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        let lines = head.trim_end().lines();
        let lines = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head: String = lines.map(|line| format!("{line}\r\n")).collect();
        upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        upstream.write_all(body)?;
        let mut got = Vec::new();
        upstream.read_to_end(&mut got)?;
        Ok(got)
    }
}

/// Reads a request: its head, and its body, whose length the head says.
fn request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let end = loop {
        if let Some(end) = end_of_head(&read) {
            break end;
        }
        let n = client.read(&mut piece)?;
        if n == 0 || read.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&piece[..n]);
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = read.split_off(end);
    let missing = length.unwrap_or(0).saturating_sub(body.len());
    let mut rest = vec![0; missing];
    client.read_exact(&mut rest)?;
    body.extend(rest);
    Ok((head, body))
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A server that answers all requests alike. Returns its address.
pub(crate) fn canned(status: u16, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} No\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // A client that went away gets nothing.
            if request(&mut connection).is_ok() {
                let _ = connection.write_all(answer.as_bytes());
            }
        }
    });
    format!("http://{address}")
}
