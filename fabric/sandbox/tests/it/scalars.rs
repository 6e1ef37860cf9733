//! Scalar functions: what is bound and evaluated, what is refused, and a fiber that would wait.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema};
use weft_core::{ErrorCode, FunctionKind, LimitKind};
use weft_sandbox::{Fault, Guest, GuestSettings, Result, ScalarColumn, at_once};

use crate::support::{
    check_failed, check_limit, check_schema, check_trapped, guest, settings, start,
};

fn numbers(n: i32) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..n));
    RecordBatch::try_from_iter_with_nullable([("arg0", numbers, true)]).expect("a batch")
}

fn returns(nullable: bool) -> FieldRef {
    Arc::new(Field::new("returns", DataType::Int32, nullable))
}

/// Evaluates a function of the hostile guest on three numbers.
async fn evaluate(function: &str) -> Result<ScalarColumn> {
    let mut guest = start("hostile").await;
    let rows = numbers(3);
    guest
        .evaluate_scalar(function, rows, &returns(function == "nulls"))
        .await
}

#[tokio::test]
async fn columns_are_evaluated_and_metered() {
    let settings = settings();
    let account = Arc::clone(&settings.account);
    let mut guest = Guest::start(&guest("hostile"), settings)
        .await
        .expect("it starts");
    let bound = guest.bind_scalar("fine", numbers(1).schema_ref()).await;
    let bound = bound.expect("it binds");
    assert_eq!(bound.arguments, [DataType::Int32]);
    assert_eq!(bound.returns.data_type(), &DataType::Int32);
    let before = account.used_bytes();
    let returned = guest.evaluate_scalar("fine", numbers(3), &bound.returns);
    let returned = returned.await.expect("it returns");
    let values = returned.column.as_primitive::<Int32Type>().values();
    assert_eq!(values, &[7, 7, 7]);
    assert!(returned.reserved.bytes() >= 12 && account.used_bytes() > before);
    // Without arguments there are rows as well.
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    let returned = guest.evaluate_scalar("fine", none.expect("rows"), &bound.returns);
    assert_eq!(returned.await.expect("it returns").column.len(), 5);
    let meters = guest.meters();
    assert_eq!((meters.calls, meters.rows_out), (3, 8));
}

#[tokio::test]
async fn what_is_no_such_column_is_refused() {
    check_schema(evaluate("fewer-rows").await, "2 for 3");
    check_schema(evaluate("more-rows").await, "4 for 3");
    check_schema(evaluate("short-values").await, "column `returns`");
    assert!(evaluate("nulls").await.is_ok());
    let mut guest = start("hostile").await;
    let column = returns(false);
    let nulls = guest.evaluate_scalar("nulls", numbers(3), &column);
    check_schema(nulls.await, "3 nulls");
    let column = returns(true);
    let again = guest.evaluate_scalar("fine", numbers(3), &column);
    assert!(matches!(again.await, Err(Fault::Host(_))), "it was refused");
}

#[tokio::test]
async fn types_that_do_not_fit_are_refused() {
    for (function, part) in [
        ("fewer-arguments", "0 arguments, where 1 are given"),
        ("no-column", "0 columns"),
        ("two-columns", "2 columns"),
    ] {
        let mut guest = start("hostile").await;
        let bound = guest.bind_scalar(function, numbers(1).schema_ref()).await;
        check_schema(bound, part);
    }
    let mut guest = start("hostile").await;
    let refused = guest.bind_scalar("refuse", numbers(1).schema_ref()).await;
    check_failed(refused, &["it takes nothing"]);
}

#[tokio::test]
async fn functions_that_fail_are_told_apart() {
    check_failed(evaluate("fail").await, &["on purpose"]);
    check_trapped(evaluate("panic").await, "unreachable");
    let settings = GuestSettings {
        cpu_limit_ns: 100_000_000,
        ..settings()
    };
    let mut guest = Guest::start(&guest("hostile"), settings)
        .await
        .expect("it starts");
    let column = returns(true);
    let spun = guest.evaluate_scalar("spin", numbers(3), &column);
    check_limit(spun.await, LimitKind::Cpu, "100 ms");
}

/// Evaluates a function of a guest on a fiber, without waiting, as plans of SQL do.
fn evaluate_at_once(function: &str) -> (Guest, Result<ScalarColumn>) {
    let started = at_once(Guest::start(&guest("probe-py"), settings()));
    let mut guest = started.expect("it starts");
    let evaluated = at_once(guest.evaluate_scalar(function, numbers(3), &returns(true)));
    (guest, evaluated)
}

#[tokio::test]
async fn a_fiber_need_not_be_waited_for() {
    for function in ["same", "tell"] {
        let (_, evaluated) = evaluate_at_once(function);
        let column = evaluated.expect("it returns").column;
        assert_eq!(column.as_primitive::<Int32Type>().values(), &[0, 1, 2]);
    }
}

#[tokio::test]
async fn a_fiber_that_waits_is_a_fault_of_the_function() {
    let (mut guest, evaluated) = evaluate_at_once("nap");
    let fault = evaluated.expect_err("it waits");
    assert_eq!(fault, Fault::Waited);
    assert_eq!(fault.problem("probe-py/nap").code, ErrorCode::GuestError);
    let again = at_once(guest.evaluate_scalar("same", numbers(3), &returns(true)));
    assert!(matches!(again, Err(Fault::Host(_))), "it was given up");
}

#[tokio::test]
async fn scalar_functions_are_described_with_the_others() {
    let described = start("probe-py").await.describe().await;
    let described = described.expect("it describes itself");
    let nap = described.functions.iter().find(|one| one.name == "nap");
    let nap = nap.expect("it is listed");
    assert_eq!((nap.kind, nap.deterministic), (FunctionKind::Scalar, false));
}
