//! Expressions that the host evaluates: compiled once, in reserved memory, metered, and refused in words.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weft_core::LimitKind;
use weft_sandbox::{Expressions, Guest, GuestSettings, PreparedExpressions, Result, thread_cpu_ns};

use crate::support::{check_failed, check_limit, guest, settings};

/// Expressions that are names of columns, which evaluate to those columns.
#[derive(Default)]
struct Names {
    n_prepared: AtomicUsize,
    n_evaluated: Arc<AtomicUsize>,
    bytes_max: u64,
    held_bytes: u64,
    /// CPU time of one column.
    cpu_ns: u64,
    /// Bytes of the name of a column that results have beside.
    name_bytes: usize,
}

struct Columns {
    positions: Vec<usize>,
    schema: SchemaRef,
    n_evaluated: Arc<AtomicUsize>,
    bytes_max: u64,
    held_bytes: u64,
    cpu_ns: u64,
}

impl Expressions for Names {
    fn prepare(
        &self,
        texts: &[String],
        schema: &SchemaRef,
    ) -> std::result::Result<Arc<dyn PreparedExpressions>, String> {
        self.n_prepared.fetch_add(1, Ordering::Relaxed);
        let positions = texts.iter().map(|text| schema.index_of(text));
        let positions = positions.collect::<std::result::Result<Vec<_>, _>>();
        let positions = positions.map_err(|error| error.to_string())?;
        let projected = schema.project(&positions);
        let mut projected = projected.map_err(|error| error.to_string())?;
        if self.name_bytes > 0 {
            let long = Field::new("n".repeat(self.name_bytes), DataType::Int64, true);
            projected = Schema::new(vec![long]);
        }
        Ok(Arc::new(Columns {
            positions,
            schema: Arc::new(projected),
            n_evaluated: Arc::clone(&self.n_evaluated),
            bytes_max: self.bytes_max,
            held_bytes: self.held_bytes,
            cpu_ns: self.cpu_ns,
        }))
    }
}

impl PreparedExpressions for Columns {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn bytes_max(&self, _batch: &RecordBatch) -> u64 {
        self.bytes_max
    }

    fn evaluate(
        &self,
        batch: &RecordBatch,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> std::result::Result<RecordBatch, String> {
        for _ in &self.positions {
            if !goes_on() {
                return Err("stopped".to_owned());
            }
            let end_ns = thread_cpu_ns() + self.cpu_ns;
            while thread_cpu_ns() < end_ns {
                std::hint::spin_loop();
            }
        }
        self.n_evaluated.fetch_add(1, Ordering::Relaxed);
        let projected = batch.project(&self.positions);
        projected.map_err(|error| error.to_string())
    }
}

async fn start(names: &Arc<Names>, cpu_limit_ns: u64) -> Guest {
    let expressions = Arc::clone(names);
    let settings = GuestSettings {
        expressions: Some(expressions),
        cpu_limit_ns,
        ..settings()
    };
    let started = Guest::start(&guest("mirror"), settings).await;
    started.expect("the guest starts")
}

/// Has a guest evaluate texts over `rows` rows of a number `n` and a text `word`, `times` times.
async fn eval(guest: &mut Guest, texts: &str, rows: u32, times: u32) -> Result<String> {
    let params = [
        ("rows".to_owned(), rows.to_string()),
        ("times".to_owned(), times.to_string()),
    ];
    let answer = guest.run_task("eval", &params, 0, texts.as_bytes()).await?;
    Ok(String::from_utf8(answer).expect("a text"))
}

const NO_LIMIT: u64 = 10_000_000_000;

#[tokio::test]
async fn a_list_is_compiled_once_and_evaluated_in_pieces() {
    let names = Arc::new(Names::default());
    let mut guest = start(&names, NO_LIMIT).await;
    let answer = eval(&mut guest, "word\nn", 20_000, 3).await;
    let expected = "word utf8: word 0, word 1, word 2\nn int64: 0, 1, 2\n20000 rows\n";
    assert_eq!(answer.as_deref(), Ok(expected));
    let n = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    // Three pieces of at most 8,192 rows, three times.
    assert_eq!((n(&names.n_prepared), n(&names.n_evaluated)), (1, 9));
    // Other texts are another list, and the first one is kept.
    eval(&mut guest, "n", 1, 1).await.expect("it evaluates");
    eval(&mut guest, "word\nn", 1, 1)
        .await
        .expect("it evaluates");
    assert_eq!(n(&names.n_prepared), 2);
    let none = eval(&mut guest, "n", 0, 1).await;
    assert_eq!(none.as_deref(), Ok("n int64: \n0 rows\n"));
}

#[tokio::test]
async fn a_guest_on_a_fiber_evaluates_too() {
    let settings = GuestSettings {
        expressions: Some(Arc::new(Names::default())),
        ..settings()
    };
    let answer = crate::support::run_with(settings, "probe-py", "evaluate", "n").await;
    assert_eq!(answer, Ok(vec![1, 2]));
}

#[tokio::test]
async fn memory_is_reserved_before_anything_is_computed() {
    let names = Arc::new(Names {
        bytes_max: 1 << 30,
        ..Names::default()
    });
    let mut guest = start(&names, NO_LIMIT).await;
    let refused = eval(&mut guest, "n", 3, 1).await;
    check_limit(refused, LimitKind::Memory, "64 MiB");
    assert_eq!(names.n_evaluated.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn evaluation_is_native_time_under_the_limit_of_the_function() {
    let names = Arc::new(Names {
        cpu_ns: 50_000_000,
        ..Names::default()
    });
    let mut guest = start(&names, NO_LIMIT).await;
    eval(&mut guest, "n", 3, 2).await.expect("it evaluates");
    let meters = guest.meters();
    assert!(meters.native_cpu_ns >= 100_000_000, "{meters:?}");
    assert!(meters.thread_cpu_ns >= 100_000_000, "{meters:?}");
    let both = meters.cpu_ns + meters.native_cpu_ns;
    assert!(both >= meters.thread_cpu_ns, "{meters:?}");
    // A batch of 20 pieces takes a second: it is stopped between two of them.
    let mut guest = start(&names, 200_000_000).await;
    let stopped = eval(&mut guest, "n", 160_000, 1).await;
    check_limit(stopped, LimitKind::Cpu, "200 ms");
    let n_evaluated = names.n_evaluated.load(Ordering::Relaxed);
    assert!(n_evaluated < 2 + 10, "{n_evaluated} pieces");
}

#[tokio::test]
async fn limits_are_looked_at_between_columns() {
    let names = Arc::new(Names {
        cpu_ns: 300_000_000,
        ..Names::default()
    });
    let mut guest = start(&names, 200_000_000).await;
    let stopped = eval(&mut guest, "word\nn", 3, 1).await;
    check_limit(stopped, LimitKind::Cpu, "200 ms");
    assert_eq!(names.n_evaluated.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn lists_that_are_kept_are_reserved_with_their_schemas() {
    let of_schema = Names {
        name_bytes: 80 << 20,
        ..Names::default()
    };
    let of_nodes = Names {
        held_bytes: 80 << 20,
        ..Names::default()
    };
    for names in [of_schema, of_nodes].map(Arc::new) {
        let mut guest = start(&names, NO_LIMIT).await;
        let refused = eval(&mut guest, "n", 3, 1).await;
        check_limit(refused, LimitKind::Memory, "64 MiB");
        assert_eq!(names.n_evaluated.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_said_to_the_guest() {
    let names = Arc::new(Names::default());
    let mut guest = start(&names, NO_LIMIT).await;
    check_failed(eval(&mut guest, "m", 3, 1).await, &["m"]);
    check_failed(eval(&mut guest, "", 3, 1).await, &["0 expressions"]);
    let long = "n".repeat(5000);
    let refused = eval(&mut guest, &long, 3, 1).await;
    check_failed(refused, &["of 5000 bytes", "4096 are allowed"]);
    let many = "n\n".repeat(300);
    let refused = eval(&mut guest, &many, 3, 1).await;
    check_failed(refused, &["300 expressions"]);
    let mut guest = crate::support::start("mirror").await;
    let refused = eval(&mut guest, "n", 3, 1).await;
    check_failed(refused, &["not while a job is planned"]);
}
