//! WASI 0.2 for guests whose toolchain needs it, with everything denied: no files, sockets, environment or arguments; the wall
//! clock stands still at the job's start; randomness is seeded. What a guest prints goes nowhere: it has a log.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::host::Host;

/// Bytes of randomness that one call may ask for.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// A WASI context that is made when it is first asked for: most guests never do.
pub(crate) struct Wasi {
    seed: u64,
    started_ms: u64,
    context: Option<Box<WasiCtx>>,
}

struct FrozenClock(Duration);

impl HostWallClock for FrozenClock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl Wasi {
    pub(crate) fn new(seed: u64, started_ms: u64) -> Self {
        Self {
            seed,
            started_ms,
            context: None,
        }
    }

    fn build(&self) -> WasiCtx {
        WasiCtxBuilder::new()
            .wall_clock(FrozenClock(Duration::from_millis(self.started_ms)))
            .secure_random(StdRng::seed_from_u64(self.seed))
            .insecure_random(StdRng::seed_from_u64(self.seed ^ 1))
            .insecure_random_seed(u128::from(self.seed))
            .max_random_size(RANDOM_BYTES_MAX)
            .allow_tcp(false)
            .allow_udp(false)
            .build()
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.context.is_none() {
            self.wasi.context = Some(Box::new(self.wasi.build()));
        }
        let ctx = self
            .wasi
            .context
            .as_deref_mut()
            .expect("it was made a line above");
        WasiCtxView {
            ctx,
            table: &mut self.table,
        }
    }
}
