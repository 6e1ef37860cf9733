//! From an artefact in a file, which the machine's page cache may hold, to the first answer.

use weft_sandbox::{Component, Guest, monotonic_ns};

use crate::{Bench, runtime, settings};

pub(crate) fn round(bench: &mut Bench) {
    for (name, task) in [("hello", "noop"), ("hello-py", "noop")] {
        let path = bench.artefact(name);
        let began_ns = monotonic_ns();
        let component = Component::load(&bench.engine, &path).expect("it loads");
        let loaded_ns = monotonic_ns();
        runtime().block_on(async {
            let started = Guest::start(&component, settings()).await;
            let mut guest = started.expect("it starts");
            let answer = guest.run_task(task, &[], 0, b"").await;
            answer.expect("it answers");
        });
        let ms = |from: u64, to: u64| (to - from) as f64 / 1e6;
        let row = |what: &str| format!("cold {name}: {what}");
        let load = ms(began_ns, loaded_ns);
        bench.report.add(&row("load of the artefact"), "ms", load);
        let all = ms(began_ns, monotonic_ns());
        bench
            .report
            .add(&row("load, sandbox and call"), "ms (≤ 5)", all);
    }
}
