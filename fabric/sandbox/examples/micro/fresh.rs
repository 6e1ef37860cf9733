//! A fresh sandbox and a call in it, against bare wasmtime.

use std::collections::VecDeque;
use std::sync::Arc;

use weft_sandbox::{Component, Guest, monotonic_ns};

use crate::probe::Probe;
use crate::report::{Report, cores};
use crate::{Bench, bytes, runtime, settings};

const CALLS: usize = 4000;
const LIVE: usize = 32;

pub(crate) struct Fresh {
    component: Arc<Component>,
    probe: Probe,
}

/// Makes `CALLS` things on each of `n_threads`, of which `n_live` live at a time in all. Gives microseconds for one.
fn churn<T>(n_threads: usize, n_live: usize, make: impl Fn() -> T + Sync) -> f64 {
    let one = || {
        let mut live = VecDeque::new();
        let turn = |live: &mut VecDeque<T>| {
            live.push_back(make());
            if live.len() >= n_live / n_threads {
                live.pop_front();
            }
        };
        for _ in 0..CALLS / 10 {
            turn(&mut live);
        }
        let began_ns = monotonic_ns();
        for _ in 0..CALLS {
            turn(&mut live);
        }
        (monotonic_ns() - began_ns) as f64 / CALLS as f64 / 1000.0
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(one)).collect();
        let times = threads
            .into_iter()
            .map(|thread| thread.join().expect("it runs"));
        times.sum::<f64>() / n_threads as f64
    })
}

impl Fresh {
    pub(crate) fn new(bench: &Bench) -> Fresh {
        Fresh {
            component: bench.component("hello"),
            probe: Probe::new(&bytes("hello")).expect("the probe starts"),
        }
    }

    fn sandboxes(&self, n_threads: usize, n_live: usize) -> f64 {
        let run = async || {
            let started = Guest::start(&self.component, settings()).await;
            let mut guest = started.expect("it starts");
            let answer = guest.run_task("noop", &[], 0, b"").await;
            answer.expect("it answers");
            guest
        };
        thread_local! {
            static RUNTIME: tokio::runtime::Runtime = runtime();
        }
        churn(n_threads, n_live, || {
            RUNTIME.with(|runtime| runtime.block_on(run()))
        })
    }

    fn probes(&self, n_threads: usize, n_live: usize) -> f64 {
        churn(n_threads, n_live, || {
            self.probe.run("noop").expect("it answers")
        })
    }

    pub(crate) fn round(&self, report: &mut Report) {
        for (n_threads, n_live) in [(1, 1), (cores(), LIVE)] {
            let name = |what: &str| {
                format!("fresh sandbox + call, {n_live} live, threads: {n_threads}: {what}")
            };
            let (bare, sandbox) = (
                self.probes(n_threads, n_live),
                self.sandboxes(n_threads, n_live),
            );
            report.add(&name("wasmtime"), "µs", bare);
            report.add(&name("weft"), "µs", sandbox);
            report.add(&name("ratio"), "x (≤ 1.5)", sandbox / bare);
        }
    }
}
