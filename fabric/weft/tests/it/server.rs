//! A `weft up` on a free port of the loopback interface, that never outlives the test.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::eventually;
use crate::http::{Request, Response};

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) slots: u32,
    /// What its environment has beside that of the tests.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Folders that are file systems of their own, which nobody else sees, and how large they are.
    pub(crate) disks: Vec<(PathBuf, &'static str)>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            slots: 2,
            environment: Vec::new(),
            disks: Vec::new(),
        }
    }
}

impl Setup {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Setup {
        self.environment.push((name, value.into()));
        self
    }

    /// Arms failpoints, for one kill in all processes that have `once` in common: the file is made by the one that does it.
    pub(crate) fn with_failpoints(self, points: &str, once: &Path) -> Setup {
        let once = once.to_str().expect("folders of tests have plain names");
        self.with("WEFT_FAILPOINTS", points)
            .with("WEFT_FAILPOINT_ONCE", once)
    }
}

/// Mounts the folders that come as `FOLDER SIZE` up to `--`, and becomes what comes after it.
const WITH_DISKS: &str = r#"
set -e
while [ "$1" != -- ]; do mount -t tmpfs -o "size=$2" tmpfs "$1"; shift 2; done
shift
exec "$@"
"#;

const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// The binary, with nothing of the tests' environment that it would take for its own.
pub(crate) fn weft() -> Command {
    cleaned(Command::new(WEFT))
}

/// The binary with file systems of its own.
fn weft_with_disks(disks: &[(PathBuf, &'static str)]) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c", WITH_DISKS, "sh"]);
    for (folder, size) in disks {
        std::fs::create_dir_all(folder).expect("a folder can be made");
        unshare.arg(folder).arg(size);
    }
    unshare.args(["--", WEFT]);
    cleaned(unshare)
}

fn cleaned(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("WEFT") || name_text.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    process: Child,
    guard: Child,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts a server on `data` and waits until it is ready.
    pub(crate) fn start(data: &Path, setup: &Setup) -> Server {
        Server::try_start(data, setup).unwrap_or_else(|died| panic!("{died}"))
    }

    /// As [`Server::start`]. Errors: it ended before it was ready, with what it said.
    pub(crate) fn try_start(data: &Path, setup: &Setup) -> Result<Server, String> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = data.parent().expect("a data folder lies in a folder");
        let log = folder.join(format!("server-{number}.log"));
        let output = File::create(&log).expect("a log can be made");
        let mut up = match setup.disks.as_slice() {
            [] => weft(),
            disks => weft_with_disks(disks),
        };
        up.arg("--data")
            .arg(data)
            .args(["up", "--listen", "127.0.0.1:0"]);
        up.args(["--slots", &setup.slots.to_string()]);
        up.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        up.stdout(Stdio::null()).stderr(output);
        let process = up.spawn().expect("the binary starts");
        let guard = guard([process.id().to_string()]);
        let mut server = Server {
            process,
            guard,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            token: String::new(),
            data: data.to_owned(),
            log,
        };
        let ready = eventually("the server is ready", || {
            let ended = server.process.try_wait().expect("it is our child");
            server.ready_address().map(Ok).or(ended.map(Err))
        });
        server.address = ready.map_err(|ended| format!("{ended}: {}", server.log()))?;
        let token =
            std::fs::read_to_string(data.join("token")).expect("a ready server has a token");
        server.token = token.trim().to_owned();
        Ok(server)
    }

    /// The folder as the server sees it, disks of its own included.
    pub(crate) fn sees(&self, folder: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.id()));
        root.join(folder.strip_prefix("/").expect("an absolute path"))
    }

    fn ready_address(&self) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once("weft is ready on http://")?;
        rest.split_once(' ')?.0.parse().ok()
    }

    /// All that the server and its children said so far, unless the folder is gone.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Errors: the server is gone.
    pub(crate) fn try_ask(&self, request: &Request) -> io::Result<Response> {
        request.send(self.address, &self.token)
    }

    /// Asks without waiting for the answer.
    pub(crate) fn start_asking(&self, request: &Request) -> TcpStream {
        let asked = request.start(self.address, &self.token);
        asked.expect("the server listens")
    }

    /// Asks a server that nobody kills.
    pub(crate) fn ask(&self, request: &Request) -> Response {
        self.try_ask(request)
            .unwrap_or_else(|error| panic!("{request:?}: {error}\n{}", self.log()))
    }

    /// A command of the CLI, pointed at this server.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = weft();
        command
            .env("WEFT_ENDPOINT", format!("http://{}", self.address))
            .env("WEFT_DATA", &self.data)
            .args(arguments);
        command
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Process ids of the children that run as `role`.
    pub(crate) fn children(&self, role: &str) -> Vec<Pid> {
        children_of(self.pid(), role)
    }

    /// Ends the server as a crash would, and waits until it is gone, and its children with it.
    pub(crate) fn kill(mut self) {
        let children = self.children("executor");
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it ends");
        wait_until_gone(&children);
    }

    /// Waits for a server that kills itself. Panics where it ends in another way.
    pub(crate) fn wait_until_killed(mut self) {
        let ended = eventually("the server dies", || {
            self.process.try_wait().expect("it is our child")
        });
        assert_eq!(ended.signal(), Some(9), "{ended}\n{}", self.log());
    }

    /// Ends the server as an operator would.
    pub(crate) fn stop(mut self) -> ExitStatus {
        kill_process(self.pid(), Signal::TERM).expect("it runs");
        eventually("the server stops", || {
            self.process.try_wait().expect("it is our child")
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the server:\n{}", self.log());
        }
        // A process that is gone already needs no killing. It is waited for last: until then nobody else gets its number.
        let _ = self.process.kill();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.process.wait();
    }
}

/// A process that kills others when the test's process is gone, however that ended: the pipe between them closes.
pub(crate) fn guard(pids: impl IntoIterator<Item = String>) -> Child {
    let mut guard = Command::new("sh");
    guard.args(["-c", "read -r line; kill -9 \"$@\"", "sh"]);
    guard
        .args(pids)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    guard.spawn().expect("there is a shell")
}

/// A process that never outlives the test.
pub(crate) struct Guarded {
    child: Child,
    guard: Child,
}

impl Guarded {
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Guarded> {
        let child = command.spawn()?;
        let guard = guard([child.id().to_string()]);
        Ok(Guarded { child, guard })
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        for process in [&mut self.child, &mut self.guard] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Children of a process whose first argument is `role`, as `/proc` tells.
pub(crate) fn children_of(parent: Pid, role: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for name in crate::folder::names(Path::new("/proc")) {
        let Some(pid) = name.parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        let folder = Path::new("/proc").join(&name);
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        // `pid (name) state parent ...`, and the name may hold anything.
        let its_parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1));
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let its_role = line.split(|byte| *byte == 0).nth(1);
        if its_parent.and_then(|text| text.parse().ok()) == Some(parent.as_raw_nonzero().get())
            && its_role == Some(role.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// Waits until processes that nobody waits for have ended: a zombie has.
fn wait_until_gone(pids: &[Pid]) {
    eventually("the children of a dead server end", || {
        let runs = |pid: &&Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            stat.is_ok_and(|stat| {
                !stat
                    .rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with('Z'))
            })
        };
        pids.iter().find(runs).is_none().then_some(())
    });
}

/// Kills a process as a crash would.
pub(crate) fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).expect("it runs");
}
