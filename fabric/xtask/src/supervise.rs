//! Stopping what was started, however the verb ends.
//!
//! A program without signal handlers cannot clean up after Ctrl-C, so a verb that leaves servers and folders behind runs as
//! two processes of the same binary:
//!
//! ```text
//! terminal ── Ctrl-C ──▶ front (dies) ── pipe ──▶ worker: end of the pipe means stop
//!                                                   ├─ build, deploy, run     SIGTERM to the group, SIGKILL after 10 s
//!                                                   └─ server                 stopped by its owner in the worker
//! ```
//!
//! The worker and its children each lead process groups of their own, so Ctrl-C reaches the front only. The front dies of
//! whatever signal, even SIGKILL; the kernel closes the pipe; the worker's watch ends the program that the worker waits
//! for, the worker fails, and leaves the way that it always leaves. Children are stopped by process id, and only while the
//! worker has not yet waited for them, so that the id is theirs.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::run;

/// Between two looks whether a program has ended.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long a program may take to stop.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

static IS_WORKER: AtomicBool = AtomicBool::new(false);
static IS_STOPPING: AtomicBool = AtomicBool::new(false);
/// The program that the worker waits for. Held while it is signalled, so that it is not reaped meanwhile.
static WAITED_FOR: Mutex<Option<u32>> = Mutex::new(None);

/// Runs `verb` of this binary as a worker, and stops it when this process dies. Gives the worker's exit code.
pub(crate) fn front(verb: &str, arguments: &[String]) -> Result<ExitCode> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(this);
    command
        .arg(verb)
        .args(arguments)
        .stdin(Stdio::piped())
        .process_group(0);
    let mut worker = command.spawn().context("cannot start the worker")?;
    let life_line = worker.stdin.take().expect("it is piped");
    let status = worker.wait()?;
    drop(life_line);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Makes this process a worker: it stops when its standard input ends.
pub(crate) fn become_worker() {
    IS_WORKER.store(true, Ordering::SeqCst);
    std::thread::spawn(|| {
        let mut nothing = [0];
        while std::io::stdin().read(&mut nothing).is_ok_and(|n| n > 0) {}
        stop();
    });
}

/// True once the front is gone. Long loops ask, and give up.
pub(crate) fn is_stopping() -> bool {
    IS_STOPPING.load(Ordering::SeqCst)
}

/// Puts what a worker starts into a group of its own, away from the terminal's keys.
pub(crate) fn separate(command: &mut Command) {
    if IS_WORKER.load(Ordering::SeqCst) {
        command.process_group(0);
    }
}

/// Makes the worker stop a program while its output is read. [`wait`] must follow.
pub(crate) fn watch(child: &Child) {
    if IS_WORKER.load(Ordering::SeqCst) {
        *waited_for() = Some(child.id());
    }
}

/// Waits for a program; in a worker it is stopped when the worker is.
pub(crate) fn wait(mut child: Child) -> Result<ExitStatus> {
    if !IS_WORKER.load(Ordering::SeqCst) {
        return Ok(child.wait()?);
    }
    *waited_for() = Some(child.id());
    let began = run::now();
    loop {
        let mut id = waited_for();
        if let Some(status) = child.try_wait()? {
            *id = None;
            return Ok(status);
        }
        drop(id);
        // Some of what is waited for is measured: a hundredth of it is lost at most.
        let pause = (began.elapsed() / 100).clamp(PAUSE_MIN, PAUSE_MAX);
        std::thread::sleep(pause);
    }
}

fn waited_for() -> std::sync::MutexGuard<'static, Option<u32>> {
    WAITED_FOR.lock().expect("no one panics while holding it")
}

fn stop() {
    IS_STOPPING.store(true, Ordering::SeqCst);
    for name in ["TERM", "KILL"] {
        if let Some(id) = *waited_for() {
            signal_group(name, id);
        }
        std::thread::sleep(GRACE);
    }
}

/// Stops a server: SIGTERM, and after [`GRACE`] SIGKILL to it and to its children. Gives true if it went by itself.
pub(crate) fn stop_server(server: &mut Child) -> bool {
    if matches!(server.try_wait(), Ok(Some(_))) {
        return true;
    }
    signal("TERM", &server.id().to_string());
    let deadline = run::now() + GRACE;
    while run::now() < deadline {
        if matches!(server.try_wait(), Ok(Some(_))) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    signal_group("KILL", server.id());
    drop(server.wait());
    false
}

fn signal_group(name: &str, leader: u32) {
    signal(name, &format!("-{leader}"));
}

/// The shell's own `kill`, because the program of that name is missing on small systems. Who is gone needs no signal.
fn signal(name: &str, target: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, target]);
    drop(shell.stdin(Stdio::null()).stderr(Stdio::null()).status());
}
