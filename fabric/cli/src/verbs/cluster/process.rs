//! A process of a cluster: started so that it outlives this command, found again by its pid.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process that was started. Pids come again: the moment of its start tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks between the machine's start and its own.
    started_ticks: u64,
}

impl Process {
    /// Starts this program with `arguments`, its output going to the end of the file `log`.
    pub(super) fn start(arguments: &[&Path], log: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let open =
            || -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(log) };
        let (out, error) = (open()?, open()?);
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error)
            // Ctrl-C at the terminal is not for it.
            .process_group(0)
            .spawn()
            .context("the process does not start")?;
        let pid = i32::try_from(child.id()).context("its pid is out of range")?;
        let started_ticks = started_ticks(pid).context("it ended at once")?;
        Ok(Self { pid, started_ticks })
    }

    /// Returns whether it lives.
    pub(super) fn lives(&self) -> bool {
        started_ticks(self.pid) == Some(self.started_ticks)
    }

    /// Returns whether it is stopped by a signal.
    pub(super) fn is_paused(&self) -> bool {
        self.lives() && stat(self.pid).is_some_and(|stat| stat.state == 'T')
    }

    pub(super) fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    pub(super) fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)
    }

    pub(super) fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid).context("the pid is none")?;
        kill_process(pid, signal).with_context(|| format!("process {}", self.pid))
    }
}

/// The part of `/proc/PID/stat` that is needed.
struct Stat {
    state: char,
    started_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses, and may hold any.
    let fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let fields: Vec<&str> = fields.collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        started_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// When a process that is no zombie was started.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = stat(pid)?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.started_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        let started_ticks = started_ticks(pid).expect("it lives");
        let process = Process { pid, started_ticks };
        assert!(process.lives() && !process.is_paused());
        let other = Process {
            started_ticks: started_ticks + 1,
            ..process
        };
        assert!(!other.lives(), "another process has its pid now");
    }
}
