//! How a compiler steps back behind those who serve.
//!
//! A low priority is not enough. Linux chooses anew who runs on a core when a thread wakes up there, and at its tick, some
//! milliseconds later. A thread that wakes up after a short sleep, as all do that serve calls, is passed over for the share
//! that it has just had, and then waits for the tick, however low the priority is of who runs meanwhile. So each thread of a
//! compiler has a timer that interrupts it once in a [`TURN`], to yield: then the kernel chooses. By yielding a thread gives
//! up the rest of its slice, so that is made as long as the turn: beside guests that use up all cores a compiler still has the
//! share that its priority gives it.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};

/// Priority, as a nice value.
const NICE: i32 = 10;
/// How long others wait for a core that a compiler has.
const TURN: Duration = Duration::from_micros(200);

/// Lowers the priority of this process, and has the threads that compile, of which this is one, yield once in a turn.
///
/// To be called before anything is compiled. Where the kernel does not know of slices, threads get less by yielding.
pub(super) fn step_back() -> Result<()> {
    rustix::process::nice(NICE)?;
    yield_when_told().context("no handler for the timers of threads that compile")?;
    yield_in_turns();
    rayon::ThreadPoolBuilder::new()
        .start_handler(|_| yield_in_turns())
        .build_global()
        .context("no threads to compile")
}

/// Without a timer a thread compiles all the same, and others wait for it longer.
fn yield_in_turns() {
    if let Err(error) = set_slice().and_then(|()| start_timer()) {
        tracing::warn!(%error, "calls wait for a compiler longer than they should");
    }
}

extern "C" fn on_turn(_: libc::c_int) {
    rustix::thread::sched_yield();
}

/// Makes the signal of the timers a yield. What is interrupted by it goes on by itself.
#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn yield_when_told() -> io::Result<()> {
    // SAFETY: all bytes 0 are a valid `sigaction`, the handler makes one system call, and the kernel copies what it is given.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_turn as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut())
    };
    checked(done)
}

/// Starts a timer that sends the signal to this thread, until the process ends.
#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn start_timer() -> io::Result<()> {
    let turn = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(TURN.subsec_nanos()),
    };
    let turns = libc::itimerspec {
        it_interval: turn,
        it_value: turn,
    };
    // SAFETY: all bytes 0 are a valid `sigevent` and a valid place for a timer's id; the kernel copies what it is given.
    let done = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer: libc::timer_t = std::mem::zeroed();
        match libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) {
            0 => libc::timer_settime(timer, 0, &turns, std::ptr::null_mut()),
            failed => failed,
        }
    };
    checked(done)
}

/// Gives this thread slices of a turn.
#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn set_slice() -> io::Result<()> {
    // SAFETY: all bytes 0 are a valid `sched_attr`, which says its own size; the kernel copies it.
    let done = unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        attributes.size = size_of::<libc::sched_attr>() as u32;
        attributes.sched_policy = libc::SCHED_OTHER as u32;
        attributes.sched_nice = NICE;
        attributes.sched_runtime = u64::from(TURN.subsec_nanos());
        libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0)
    };
    checked(if done == 0 { 0 } else { -1 })
}

fn checked(returned: libc::c_int) -> io::Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
