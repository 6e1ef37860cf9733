//! Limits are enforced, and named.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use weft_core::{ErrorCode, LimitKind};
use weft_sandbox::{Fault, Guest, GuestSettings, MemoryAccount, monotonic_ns};

use crate::support::{
    check_failed, check_limit, check_trapped, guest, load, run, run_with, settings, start,
};

/// A machine that is busy with other tests looks at guests late.
const LATE: Duration = Duration::from_secs(5);

fn with_memory(bytes: u64) -> GuestSettings {
    GuestSettings {
        account: MemoryAccount::new(bytes),
        ..settings()
    }
}

fn numbers() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, true)]).expect("a batch")
}

/// A component whose core module does what `body` says when it starts.
fn starting(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $module {body} (func (export "f")))
            (core instance $instance (instantiate $module))
            (func $f (canon lift (core func $instance "f")))
            (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
            (export "weft:fabric/functions@0.1.0" (instance $functions)))"#
    );
    wat::parse_str(text).expect("it is a component")
}

async fn start_with(body: &str, settings: GuestSettings) -> Result<(), Fault> {
    let component = load(&starting(body));
    Guest::start(&component, settings).await.map(drop)
}

async fn push(function: &str) -> Result<(), Fault> {
    let mut guest = start("hostile").await;
    let output: SchemaRef = numbers().schema();
    guest.open_mapper(function, &[], output).await?;
    guest.push_mapper(numbers()).await
}

#[tokio::test]
async fn a_spinning_guest_is_stopped_soon_after_its_limit() {
    let limit = Duration::from_millis(30);
    let mut soonest = LATE;
    for _ in 0..10 {
        let settings = GuestSettings {
            cpu_limit_ns: 30_000_000,
            ..settings()
        };
        let component = guest("hostile");
        let started = Guest::start(&component, settings).await;
        let mut guest = started.expect("it starts");
        let stopped = guest.run_task("spin", &[], 0, &[]).await;
        check_limit(stopped, LimitKind::Cpu, "30 ms");
        let used = Duration::from_nanos(guest.meters().cpu_ns);
        assert!(used >= limit && used < limit + LATE, "{used:?}");
        soonest = soonest.min(used - limit);
    }
    // Two ticks, where nothing else keeps the thread that counts them from running.
    assert!(soonest <= Duration::from_millis(11), "{soonest:?}");
}

#[tokio::test]
async fn cpu_time_of_many_short_calls_adds_up() {
    let settings = GuestSettings {
        cpu_limit_ns: 2_000_000,
        ..settings()
    };
    let component = guest("mirror");
    let mut guest = Guest::start(&component, settings).await.expect("it starts");
    let mut n_calls = 0;
    let stopped = loop {
        n_calls += 1;
        match guest.run_task("echo", &[], 0, b"x").await {
            Ok(_) if n_calls < 1_000_000 => {}
            result => break result,
        }
    };
    check_limit(stopped, LimitKind::Cpu, "2 ms");
}

#[tokio::test]
async fn a_guest_that_spins_before_it_is_called_is_stopped() {
    let settings = GuestSettings {
        cpu_limit_ns: 50_000_000,
        ..settings()
    };
    let body = "(func $spin (loop $again br $again)) (start $spin)";
    check_limit(start_with(body, settings).await, LimitKind::Cpu, "50 ms");
}

#[tokio::test]
async fn a_cancelled_guest_is_stopped_at_the_next_tick() {
    let settings = settings();
    let cancel = settings.cancel.clone();
    let began_ns = monotonic_ns();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        cancel.cancel();
    });
    let stopped = run_with(settings, "hostile", "spin", "").await;
    assert_eq!(stopped, Err(Fault::Cancelled));
    let took = Duration::from_nanos(monotonic_ns() - began_ns);
    assert!(took < Duration::from_millis(20) + LATE, "{took:?}");
    stopper.join().expect("it cancels");
}

#[tokio::test]
async fn a_cancelled_guest_is_not_called() {
    let settings = settings();
    let cancel = settings.cancel.clone();
    let mut guest = Guest::start(&guest("mirror"), settings)
        .await
        .expect("it starts");
    cancel.cancel();
    let refused = guest.run_task("echo", &[], 0, &[]).await;
    assert_eq!(refused, Err(Fault::Cancelled));
    assert_eq!(guest.meters().calls, 0);
}

#[tokio::test]
async fn memory_growth_is_refused_and_a_guest_may_live_with_it() {
    let mut guest = Guest::start(&guest("hostile"), with_memory(16 << 20))
        .await
        .expect("it starts");
    let pages = guest
        .run_task("grow", &[], 0, &[])
        .await
        .expect("it ends well");
    let pages: u32 = String::from_utf8_lossy(&pages).parse().expect("a number");
    assert!((200..256).contains(&pages), "{pages} pages of 64 KiB");
    // A fault that has nothing to do with memory is not put down to it.
    let trapped = guest.run_task("unreachable", &[], 0, &[]).await;
    check_trapped(trapped, "unreachable");
}

#[tokio::test]
async fn a_guest_that_needs_more_memory_hits_the_memory_limit() {
    let fault = run_with(with_memory(16 << 20), "hostile", "allocate", "").await;
    check_limit(fault.clone(), LimitKind::Memory, "16 MiB");
    let problem = fault.expect_err("it failed").problem("hostile/allocate");
    assert_eq!(problem.code, ErrorCode::LimitExceeded);
    assert_eq!(problem.limit.as_deref(), Some("memory"));
    assert_eq!(problem.value.as_deref(), Some("16 MiB"));
    for part in [
        "`hostile/allocate`",
        "`memory` limit of 16 MiB",
        "`limits.memory`",
    ] {
        assert!(problem.detail.contains(part), "{}", problem.detail);
    }
}

#[tokio::test]
async fn a_component_that_starts_too_large_hits_the_memory_limit() {
    let one = start_with("(memory 512)", with_memory(16 << 20)).await;
    check_limit(one, LimitKind::Memory, "16 MiB");
    let two = start_with("(memory 160) (memory 160)", with_memory(16 << 20)).await;
    check_limit(two, LimitKind::Memory, "16 MiB");
    let fits = start_with("(memory 100) (memory 100)", with_memory(16 << 20)).await;
    assert_eq!(fits, Ok(()));
}

#[tokio::test]
async fn tasks_share_one_memory_limit_between_their_guests() {
    let settings = with_memory(16 << 20);
    let account = Arc::clone(&settings.account);
    let held = account.try_reserve(12 << 20).expect("there is room");
    let fault = run_with(settings, "hostile", "allocate", "").await;
    check_limit(fault, LimitKind::Memory, "16 MiB");
    drop(held);
    assert_eq!(account.used_bytes(), 0);
    assert!(account.peak_bytes() <= 16 << 20);
}

#[tokio::test]
async fn a_guests_own_maximum_is_not_our_limit() {
    let body = "(memory 1 2) (func $grow (if (i32.eq (memory.grow (i32.const 5)) (i32.const -1)) (then unreachable))) (start $grow)";
    check_trapped(start_with(body, settings()).await, "unreachable");
}

#[tokio::test]
async fn tables_have_a_limit() {
    let grow = |tables: &str| {
        format!(
            r#"{tables} (func $grow
                (loop $again (br_if $again (i32.ne (table.grow 0 (ref.null func) (i32.const 10000)) (i32.const -1))))
                unreachable) (start $grow)"#
        )
    };
    let value = "100000 elements of a table, 200000 of all";
    let one = start_with(&grow("(table 0 funcref)"), settings()).await;
    check_limit(one, LimitKind::Tables, value);
    let three = grow("(table 0 funcref) (table 90000 funcref) (table 90000 funcref)");
    check_limit(
        start_with(&three, settings()).await,
        LimitKind::Tables,
        value,
    );
}

#[tokio::test]
async fn the_stack_has_a_limit() {
    check_limit(
        run("hostile", "recurse", "").await,
        LimitKind::Stack,
        "512 KiB",
    );
}

#[tokio::test]
async fn output_has_a_limit_also_where_the_guest_does_not_care() {
    check_limit(push("flood").await, LimitKind::Output, "1048576 bytes");
    let mut guest = start("hostile").await;
    let limit = guest.run_task("answer", &[], (1 << 20) + 1, &[]).await;
    check_limit(limit, LimitKind::Output, "1048576 bytes");
    let mut guest = start("hostile").await;
    let fits = guest.run_task("answer", &[], 1 << 20, &[]).await;
    assert_eq!(fits.map(|answer| answer.len()), Ok(1 << 20));
}

#[tokio::test]
async fn tiny_batches_are_not_free() {
    let settings = GuestSettings {
        output_limit_bytes: u64::MAX,
        ..with_memory(16 << 20)
    };
    let account = Arc::clone(&settings.account);
    let mut guest = Guest::start(&guest("hostile"), settings)
        .await
        .expect("it starts");
    let opened = guest.open_mapper("drizzle", &[], numbers().schema());
    opened.await.expect("it opens");
    let fault = guest.push_mapper(numbers()).await;
    check_limit(fault, LimitKind::Memory, "16 MiB");
    let n_batches = guest.take_output().0.len();
    assert!((1_000..40_000).contains(&n_batches), "{n_batches} batches");
    drop(guest);
    assert_eq!(account.used_bytes(), 0);
}

#[tokio::test]
async fn a_flood_of_log_lines_is_dropped_and_then_stopped() {
    let settings = settings();
    let log = Arc::clone(&settings.log);
    let fault = run_with(settings, "hostile", "log-flood", "").await;
    check_limit(fault, LimitKind::Log, "64 MiB");
    let (lines, dropped) = log.take();
    let kept: usize = lines.iter().map(|line| line.message.len()).sum();
    assert!(kept <= weft_sandbox::LOG_BYTES_MAX, "{kept} bytes");
    assert!(dropped > 1000, "{dropped} lines");
}

#[tokio::test]
async fn log_lines_are_data() {
    let settings = settings();
    let log = Arc::clone(&settings.log);
    let line = "a\u{1b}[31m\nb";
    let logged = run_with(settings, "hostile", "log", line).await;
    assert_eq!(logged, Ok(Vec::new()));
    let (lines, _) = log.take();
    assert_eq!(lines[0].level, "info");
    assert_eq!(lines[0].function, "guest@0.1.0/function");
    assert_eq!(lines[0].message, r"a\u{1b}[31m\nb");
}

#[tokio::test]
async fn handles_have_a_limit() {
    for function in ["hold", "hold-projected"] {
        let fault = run("hostile", function, "").await;
        check_limit(fault, LimitKind::Handles, "4096 batches");
    }
}

#[tokio::test]
async fn batches_that_are_kept_count_and_are_the_guests_fault() {
    let mut guest = Guest::start(&guest("hostile"), with_memory(256 << 20))
        .await
        .expect("it starts");
    let opened = guest.open_mapper("keep", &[], numbers().schema());
    opened.await.expect("it opens");
    let mut pushed = Ok(());
    for _ in 0..5000 {
        pushed = guest.push_mapper(numbers()).await;
        if pushed.is_err() {
            break;
        }
    }
    check_limit(pushed, LimitKind::Handles, "4096 batches");
}

#[tokio::test]
async fn batches_that_are_kept_take_memory() {
    let large: ArrayRef = Arc::new(Int32Array::from(vec![7; 1 << 18]));
    let batch = RecordBatch::try_from_iter_with_nullable([("n", large, true)]).expect("a batch");
    let mut guest = Guest::start(&guest("hostile"), with_memory(16 << 20))
        .await
        .expect("it starts");
    let opened = guest.open_mapper("keep", &[], batch.schema());
    opened.await.expect("it opens");
    let mut n_pushed = 0;
    let fault = loop {
        match guest.push_mapper(batch.clone()).await {
            Ok(()) if n_pushed < 100 => n_pushed += 1,
            result => break result,
        }
    };
    check_limit(fault, LimitKind::Memory, "16 MiB");
    assert!((8..16).contains(&n_pushed), "{n_pushed} batches of 1 MiB");
}

#[tokio::test]
async fn schemas_that_are_kept_take_memory() {
    let fault = run("hostile", "hold-schemas", "").await;
    check_limit(fault, LimitKind::Memory, "64 MiB");
}

#[tokio::test]
async fn what_the_host_would_compute_is_reserved_first() {
    let settings = settings();
    let account = Arc::clone(&settings.account);
    // A million times a text of a MiB.
    let fault = run_with(settings, "hostile", "take-again-and-again", "").await;
    check_limit(fault, LimitKind::Memory, "64 MiB");
    assert!(account.peak_bytes() <= 64 << 20);
    let failed = run("hostile", "project-again-and-again", "").await;
    check_failed(failed, &["1048576 columns", "4096"]);
}

#[tokio::test]
async fn one_call_hands_over_so_much_and_no_more() {
    let fault = run_with(with_memory(1 << 30), "hostile", "huge-column", "").await;
    check_trapped(fault, "too much data is being copied");
}

#[tokio::test]
async fn a_guest_can_ask_what_is_left() {
    let answer = run("hostile", "meter", "").await.expect("it answers");
    let text = String::from_utf8(answer).expect("text");
    let numbers: Vec<u64> = text
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let [cpu, memory, output, cpu_left, memory_left, output_left] = numbers[..] else {
        panic!("{text}")
    };
    assert!(
        cpu > 0 && cpu_left > 9_000_000_000 && cpu_left < 10_000_000_000,
        "{text}"
    );
    assert_eq!(memory + memory_left, 64 << 20);
    assert_eq!((output, output_left), (0, 1 << 20));
}
