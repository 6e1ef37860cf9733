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
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    let began_ns = monotonic_ns();
    (0..calls).for_each(|_| call());
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

    fn push(&self, guest: &mut Guest, batch: &RecordBatch) {
        let pushed = self.runtime.block_on(guest.push_mapper(batch.clone()));
        pushed.expect("it takes the batch");
        black_box(guest.take_output());
    }

    pub(crate) fn round(&self, report: &mut Report) {
        let mut guests = self.guests.borrow_mut();
        let (a, b) = doubles();
        let native = time(TOTAL_ROWS / ROWS, || {
            let pairs = black_box(&a).iter().zip(black_box(&b));
            black_box(pairs.map(|(a, b)| gcd_32(*a, *b)).collect::<Vec<_>>());
        });
        let input = batch(
            Arc::new(Int32Array::from(a.clone())),
            Arc::new(Int32Array::from(b.clone())),
        );
        let call = time(TOTAL_ROWS / ROWS, || self.push(&mut guests.0, &input));
        report.add("gcd(i, 2i), 1024 rows of int32: native", "µs", native);
        report.add("gcd(i, 2i), 1024 rows of int32: map call", "µs", call);
        let overhead = call - native;
        report.add(
            "gcd(i, 2i), 1024 rows of int32: overhead",
            "µs (≤ 5)",
            overhead,
        );
        for rows in [ROWS, 64 * ROWS] {
            self.compare(&mut guests.1, rows, report);
        }
    }

    fn compare(&self, guest: &mut Guest, rows: usize, report: &mut Report) {
        let calls = TOTAL_ROWS / rows;
        let (a, b) = scattered(rows);
        let native = time(calls, || {
            let pairs = black_box(&a).iter().zip(black_box(&b));
            black_box(pairs.map(|(a, b)| gcd_64(*a, *b)).collect::<Vec<_>>());
        });
        let input = batch(
            Arc::new(Int64Array::from(a.clone())),
            Arc::new(Int64Array::from(b.clone())),
        );
        let call = time(calls, || self.push(guest, &input));
        let name = |what: &str| format!("gcd, {rows} rows of int64: {what}");
        report.add(&name("native"), "µs", native);
        report.add(&name("map call"), "µs", call);
        report.add(&name("ratio"), "x (≤ 2)", call / native);
    }
}
