//! WASI 0.2 for guests whose toolchain needs it, with everything denied: no files, sockets, environment or arguments; the wall
//! clock stands still at the job's start, or at the turn's; randomness is seeded. What a guest prints goes to its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::host::Host;
use crate::log::{Flood, TaskLog};
use crate::printed::Printed;

/// Bytes of randomness that one call may ask for.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// A WASI context that is made when it is first asked for: most guests never do.
pub(crate) struct Wasi {
    seed: u64,
    /// Time at which the wall clock stands, in Unix milliseconds.
    now_ms: Arc<AtomicU64>,
    context: Option<Box<Context>>,
}

struct Context {
    wasi: WasiCtx,
    printed: [Printed; 2],
}

struct FrozenClock(Arc<AtomicU64>);

impl HostWallClock for FrozenClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Wasi {
    pub(crate) fn new(seed: u64, started_ms: u64) -> Self {
        Self {
            seed,
            now_ms: Arc::new(AtomicU64::new(started_ms)),
            context: None,
        }
    }

    /// The wall clock, in Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// From now on the clock stands there, and what is printed goes to this log.
    pub(crate) fn begin_turn(&self, now_ms: u64, log: &Arc<TaskLog>) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        for printed in self.context.iter().flat_map(|context| &context.printed) {
            printed.print_to(log);
        }
    }

    fn build(&self, log: &Arc<TaskLog>, function: &str) -> Context {
        let printed =
            ["info", "warn"].map(|level| Printed::new(Arc::clone(log), function.to_owned(), level));
        let [stdout, stderr] = printed.clone();
        let wasi = WasiCtxBuilder::new()
            .stdout(stdout)
            .stderr(stderr)
            .wall_clock(FrozenClock(Arc::clone(&self.now_ms)))
            .secure_random(StdRng::seed_from_u64(self.seed))
            .insecure_random(StdRng::seed_from_u64(self.seed ^ 1))
            .insecure_random_seed(u128::from(self.seed))
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        Context { wasi, printed }
    }

    /// Ends the lines that a call printed and did not end.
    pub(crate) fn end_lines(&self) -> Result<(), Flood> {
        let mut printed = self.context.iter().flat_map(|context| &context.printed);
        printed.try_for_each(Printed::end_line)
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.context.is_none() {
            let context = self.wasi.build(&self.log, &self.function);
            self.wasi.context = Some(Box::new(context));
        }
        let context = self
            .wasi
            .context
            .as_deref_mut()
            .expect("it was made a line above");
        WasiCtxView {
            ctx: &mut context.wasi,
            table: &mut self.table,
        }
    }
}
