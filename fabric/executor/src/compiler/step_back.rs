//! How a compiler steps back behind those who serve.
//!
//! It runs as what Linux calls idle: where a thread of the same session wakes up, it has the core at once, and a core that only
//! compiles is as good as a free one. Threads of other sessions do not see that, nor a low priority. Linux chooses anew who runs
//! on a core when a thread wakes up there, and at its tick, some milliseconds later. A thread that wakes up after a short sleep,
//! as all do that serve calls, is passed over for the share that it has just had, and then waits for the tick. So each thread
//! of a compiler has a timer that interrupts it once in a [`TURN`], to yield: then the kernel chooses. From Linux 6.18 on a
//! thread that yields gives up the rest of its slice, so that is made as long as the turn.
//!
//! Where a compiler hardly runs, because guests use up all cores, it gives up, and another one starts over that does not step
//! back. It cannot change its own mind: without privileges nobody leaves what is idle.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// How long others wait at most for a core that a compiler has.
const TURN: Duration = Duration::from_micros(200);
/// How often a compiler looks at how much it has run.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One that runs less than this part of the time is starved. On an idle core, and beside calls, it runs more.
const SHARE_MIN: u32 = 4;
/// It gives up once it was starved for this part of its time: early where little is lost, and not for a moment later on.
const STARVED_MIN: u32 = 10;

/// True once it is compiled, or given up.
static DONE: AtomicBool = AtomicBool::new(false);

/// Ends the turns when it is dropped: what is interrupted so often is slow to write.
pub(super) struct Turns;

/// Has this thread and those that it starts run behind all others, and yield once in a turn. To be called before anything is
/// compiled. `starved` is called, at most once, where that leaves them hardly any time.
pub(super) fn step_back(starved: impl FnOnce() + Send + 'static) -> Result<Turns> {
    // Not one of those that step back: it would not see in time that they starve.
    std::thread::Builder::new()
        .name("share".into())
        .spawn(|| watch_share(starved))
        .context("no thread that watches over the turns")?;
    on_turn(yield_core as *const () as libc::sighandler_t)
        .context("no handler for the timers of threads that compile")?;
    step_back_thread();
    Ok(Turns)
}

impl Drop for Turns {
    fn drop(&mut self) {
        while DONE.swap(true, Ordering::Relaxed) {
            // It was given up just now, and the process ends.
            std::thread::park();
        }
        // Where it fails the turns go on, which is slower and not wrong.
        let _ = on_turn(libc::SIG_IGN);
    }
}

/// Looks at how much this process runs until that is too little.
fn watch_share(starved: impl FnOnce()) {
    let now = || {
        let clocks = [ClockId::Monotonic, ClockId::ProcessCPUTime];
        clocks.map(|clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default())
    };
    let [mut wall, mut ran] = now();
    // Looks since it began, and how many of the last ones found it starved.
    let (mut looks, mut starved_looks) = (0, 0);
    loop {
        std::thread::sleep(LOOK_EVERY);
        let [wall_now, ran_now] = now();
        looks += 1;
        match (ran_now - ran) * SHARE_MIN < wall_now - wall {
            true => starved_looks += 1,
            false => starved_looks = 0,
        }
        if DONE.load(Ordering::Relaxed) {
            return;
        }
        if starved_looks * STARVED_MIN >= looks && !DONE.swap(true, Ordering::Relaxed) {
            return starved();
        }
        (wall, ran) = (wall_now, ran_now);
    }
}

/// Has this thread step back. Where it cannot it compiles all the same, and others wait for it longer.
pub(super) fn step_back_thread() {
    static TOLD: Once = Once::new();
    let started = set_idle()
        .map_err(|error| ("sched_setattr", error))
        .and_then(|()| start_timer().map_err(|error| ("timer_create", error)));
    if let Err((call, error)) = started {
        TOLD.call_once(|| {
            tracing::warn!(call, %error, "refused: calls wait longer beside a compiler");
        });
    }
}

extern "C" fn yield_core(_: libc::c_int) {
    rustix::thread::sched_yield();
}

/// Says what the signal of the timers does. System calls that it interrupts go on by themselves.
#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn on_turn(handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all bytes 0 are a valid `sigaction`; the handler, where it is one, makes one system call; the kernel copies.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
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

/// Gives this thread slices of a turn, and makes it idle. Slices are for threads that are not idle yet, and stay. Kernels before
/// 6.12 know of none.
fn set_idle() -> io::Result<()> {
    set_policy(libc::SCHED_OTHER, TURN)?;
    set_policy(libc::SCHED_IDLE, Duration::ZERO)
}

/// Sets policy and slice of this thread; its priority, which must be said, too, stays.
#[expect(unsafe_code, reason = "there is no safe wrapper")]
fn set_policy(policy: libc::c_int, slice: Duration) -> io::Result<()> {
    let nice = rustix::process::getpriority_process(None)?;
    // SAFETY: all bytes 0 are a valid `sched_attr`, which says its own size; the kernel copies it.
    let done = unsafe {
        let mut attributes: libc::sched_attr = std::mem::zeroed();
        attributes.size = size_of::<libc::sched_attr>() as u32;
        attributes.sched_policy = policy as u32;
        attributes.sched_nice = nice;
        attributes.sched_runtime = u64::from(slice.subsec_nanos());
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
