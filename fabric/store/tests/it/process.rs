//! A server of a store's protocol, on free ports of the loopback interface, that never outlives the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Looks at a server that starts, and the pause between two.
const LOOKS: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Starts of a server whose ports another process took.
const STARTS: u32 = 3;

/// A running server. Dropping it kills it.
pub(crate) struct ServerProcess {
    process: Child,
    guard: Child,
    port: u16,
    _folder: TempDir,
}

impl ServerProcess {
    /// Starts a server, and returns once the first of its ports answers a request for `path` with a text that begins
    /// with `answer`. `command` gives the program for a folder and ports of its own.
    pub(crate) fn start<const PORTS: usize>(
        command: impl Fn(&Path, &[u16; PORTS]) -> Command,
        (path, answer): (&str, &str),
    ) -> Self {
        (0..STARTS)
            .find_map(|_| Self::try_start(&command, path, answer))
            .expect("the server starts")
    }

    /// Nothing if it ended before it answered.
    fn try_start<const PORTS: usize>(
        command: &impl Fn(&Path, &[u16; PORTS]) -> Command,
        path: &str,
        answer: &str,
    ) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = ports();
        let process = command(folder.path(), &ports)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.expect("the server is installed: `cargo xtask test` does it");
        let guard = guard(process.id());
        let mut server = Self {
            process,
            guard,
            port: ports[0],
            _folder: folder,
        };
        for _ in 0..LOOKS {
            if server.process.try_wait().expect("our child").is_some() {
                return None;
            }
            if server.answers(path, answer) {
                return Some(server);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("the server does not answer");
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn answers(&self, path: &str, expected: &str) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return false;
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with(expected)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.guard] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The program: where the variable says, or below `~/.cache/weft`, where `cargo xtask test` installs it.
pub(crate) fn program(variable: &str, installed: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".cache/weft").join(installed)
        },
        PathBuf::from,
    )
}

/// Ports that nobody listens on.
fn ports<const PORTS: usize>() -> [u16; PORTS] {
    // All at once, so that they differ.
    let listeners = [(); PORTS].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// A process that kills another one when the test's process is gone, however that ended: the pipe between them closes.
fn guard(pid: u32) -> Child {
    let mut guard = Command::new("sh");
    guard.args(["-c", "read -r line; kill -9 \"$1\"", "sh", &pid.to_string()]);
    guard
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    guard.spawn().expect("there is a shell")
}
