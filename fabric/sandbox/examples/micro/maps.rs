//! Calls of a map that computes greatest common divisors, against the same loop in native code.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use weft_sandbox::{Guest, monotonic_ns};

use crate::report::Report;
use crate::{Bench, runtime, settings};

const ROWS: usize = 1024;
/// Rows that a row of the report computes in all.
const TOTAL_ROWS: usize = 4 << 20;

pub(crate) struct Maps {
    runtime: tokio::runtime::Runtime,
    /// Opened on `int32`, and on `int64`.
    guests: RefCell<(Guest, Guest)>,
}

fn gcd_32(mut a: i32, mut b: i32) -> i32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn gcd_64(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `i` and `2i`.
fn doubles() -> (Vec<i32>, Vec<i32>) {
    let numbers = 1..=ROWS as i32;
    (numbers.clone().collect(), numbers.map(|i| 2 * i).collect())
}

/// Numbers whose divisors take a dozen steps.
fn scattered(rows: usize) -> (Vec<i64>, Vec<i64>) {
    let numbers = 0..rows as i64;
    (
        numbers.clone().map(|x| (x * 7919) % 10007 + 1).collect(),
        numbers.map(|x| (x * 104_729) % 9973 + 1).collect(),
    )
}

/// Microseconds that `call` takes.
fn time(calls: usize, call: impl FnMut(usize)) -> f64 {
    let began_ns = monotonic_ns();
    (0..calls).for_each(call);
    (monotonic_ns() - began_ns) as f64 / calls as f64 / 1000.0
}

fn batch(a: ArrayRef, b: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("a", a), ("b", b)]).expect("equally long")
}

impl Maps {
    pub(crate) fn new(bench: &Bench) -> Maps {
        let component = bench.component("mirror");
        let runtime = runtime();
        let open = async |input: RecordBatch| {
            let started = Guest::start(&component, settings()).await;
            let mut guest = started.expect("it starts");
            let bound = guest.bind("gcd", &input.schema(), &[]).await;
            let opened = guest.open_mapper("gcd", &[], bound.expect("it binds"));
            opened.await.expect("it opens");
            guest
        };
        let none_32: ArrayRef = Arc::new(Int32Array::from(Vec::<i32>::new()));
        let none_64: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let guests = (
            runtime.block_on(open(batch(Arc::clone(&none_32), none_32))),
            runtime.block_on(open(batch(Arc::clone(&none_64), none_64))),
        );
        Maps {
            runtime,
            guests: RefCell::new(guests),
        }
    }

    /// Microseconds of a call, over the batches in turn, `calls` in all.
    fn time(&self, guest: &mut Guest, batches: &[RecordBatch], calls: usize) -> f64 {
        self.runtime.block_on(async {
            let began_ns = monotonic_ns();
            for batch in batches.iter().cycle().take(calls) {
                let pushed = guest.push_mapper(batch.clone()).await;
                pushed.expect("it takes the batch");
                black_box(guest.take_output());
            }
            (monotonic_ns() - began_ns) as f64 / calls as f64 / 1000.0
        })
    }

    pub(crate) fn round(&self, report: &mut Report) {
        let mut guests = self.guests.borrow_mut();
        self.doubles(&mut guests.0, report);
        for (n_batches, rows) in [(1, ROWS), (64, ROWS), (1, 64 * ROWS)] {
            self.scattered(&mut guests.1, n_batches, rows, report);
        }
    }

    /// The same batch again and again.
    fn doubles(&self, guest: &mut Guest, report: &mut Report) {
        let calls = TOTAL_ROWS / ROWS;
        let (a, b) = doubles();
        let native = time(calls, |_| {
            let pairs = black_box(&a).iter().zip(black_box(&b));
            black_box(pairs.map(|(a, b)| gcd_32(*a, *b)).collect::<Vec<_>>());
        });
        let input = batch(
            Arc::new(Int32Array::from(a.clone())),
            Arc::new(Int32Array::from(b.clone())),
        );
        let call = self.time(guest, &[input], calls);
        let name = |what: &str| format!("gcd(i, 2i), 1024 rows of int32: {what}");
        report.add(&name("native"), "µs", native);
        report.add(&name("map call"), "µs", call);
        report.add(&name("overhead"), "µs (≤ 5)", call - native);
    }

    /// `n_batches` of `rows` in turn. Where there is but one small one, processors learn its branches by heart.
    fn scattered(&self, guest: &mut Guest, n_batches: usize, rows: usize, report: &mut Report) {
        let calls = TOTAL_ROWS / rows;
        let (a, b) = scattered(n_batches * rows);
        let native = time(calls, |call| {
            let rows = rows * (call % n_batches)..rows * (call % n_batches + 1);
            let pairs = black_box(&a[rows.clone()]).iter().zip(black_box(&b[rows]));
            black_box(pairs.map(|(a, b)| gcd_64(*a, *b)).collect::<Vec<_>>());
        });
        let all = batch(
            Arc::new(Int64Array::from(a.clone())),
            Arc::new(Int64Array::from(b.clone())),
        );
        let inputs: Vec<_> = (0..n_batches).map(|n| all.slice(n * rows, rows)).collect();
        let call = self.time(guest, &inputs, calls);
        let name = |what: &str| format!("gcd, {n_batches} x {rows} rows of int64: {what}");
        report.add(&name("native"), "µs", native);
        report.add(&name("map call"), "µs", call);
        report.add(&name("ratio"), "x (≤ 2)", call / native);
    }
}
