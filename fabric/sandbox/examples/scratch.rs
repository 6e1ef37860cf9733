#![allow(
    clippy::all,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "x"
)]
use arrow::array::*;
use std::sync::Arc;
use weft_sandbox::*;
fn main() {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let engine = Engine::new(Role::Both).unwrap();
    let bytes = std::fs::read(format!(
        "{}/mirror.wasm",
        std::env::var("WEFT_GUESTS").unwrap()
    ))
    .unwrap();
    std::fs::write("/tmp/mirror.art", compile(&bytes).unwrap().artefact).unwrap();
    let c = Component::load(&engine, std::path::Path::new("/tmp/mirror.art")).unwrap();
    let n = 1024;
    let a: ArrayRef = Arc::new(Int32Array::from_iter_values(1..=n));
    let b: ArrayRef = Arc::new(Int32Array::from_iter_values((1..=n).map(|i| 2 * i)));
    let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).unwrap();
    let t = monotonic_ns();
    for _ in 0..100000 {
        std::hint::black_box(thread_cpu_ns());
    }
    println!("thread_cpu_ns {} ns", (monotonic_ns() - t) / 100000);
    let t = monotonic_ns();
    for _ in 0..100000 {
        std::hint::black_box(monotonic_ns());
    }
    println!("monotonic_ns {} ns", (monotonic_ns() - t) / 100000);
    let t = monotonic_ns();
    for _ in 0..100000 {
        rt.block_on(async { std::hint::black_box(1) });
    }
    println!("block_on {} ns", (monotonic_ns() - t) / 100000);
    for (f, calls) in [
        ("pass", 300000),
        ("halve", 100000),
        ("copy", 100000),
        (
            "gcd",
            std::env::args()
                .nth(1)
                .map_or(300000, |n| n.parse().unwrap()),
        ),
    ] {
        rt.block_on(async {
            let s = GuestSettings {
                label: "x".into(),
                account: MemoryAccount::new(1 << 30),
                cpu_limit_ns: u64::MAX,
                output_limit_bytes: u64::MAX,
                log: Default::default(),
                cancel: Default::default(),
                seed: 1,
                started_ms: 0,
            };
            let mut g = Guest::start(&c, s).await.unwrap();
            let out = g.bind(f, &batch.schema(), &[]).await.unwrap();
            g.open_mapper(f, &[], out).await.unwrap();
            let t = monotonic_ns();
            for _ in 0..calls {
                g.push_mapper(batch.clone()).await.unwrap();
                std::hint::black_box(g.take_output());
            }
            println!("{f}: {} ns a call", (monotonic_ns() - t) / calls);
        });
    }
}
