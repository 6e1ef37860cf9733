//! Traps, errors and schemas that are not the bound ones.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use weft_core::ErrorCode;
use weft_sandbox::{Fault, Guest, Result};

use crate::support::{check_failed, check_schema, check_trapped, load, run, settings, start};

fn numbers() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter_with_nullable([("n", numbers, true)]).expect("a batch")
}

/// Pushes three numbers into a map that is bound to hand back a column of numbers, with nulls or without.
async fn push(function: &str, nullable: bool) -> Result<()> {
    let mut guest = start("hostile").await;
    let output = Schema::new(vec![Field::new("n", DataType::Int32, nullable)]);
    guest.open_mapper(function, &[], Arc::new(output)).await?;
    guest.push_mapper(numbers()).await
}

#[tokio::test]
async fn traps_are_the_guests_own() {
    for (function, part) in [("unreachable", "unreachable"), ("panic", "unreachable")] {
        let fault = run("hostile", function, "").await;
        check_trapped(fault.clone(), part);
        let problem = fault.expect_err("it trapped").problem("hostile/f");
        assert_eq!(problem.code, ErrorCode::GuestTrap);
        assert!(!problem.code.is_platform_fault(), "it is billed");
    }
    // The next sandbox knows nothing of it.
    assert_eq!(run("mirror", "echo", "fine").await, Ok(b"fine".to_vec()));
}

#[tokio::test]
async fn a_guest_is_not_called_again_after_it_trapped() {
    let mut guest = start("hostile").await;
    check_trapped(guest.run_task("panic", &[], 0, &[]).await, "unreachable");
    let again = guest.run_task("meter", &[], 0, &[]).await;
    assert!(matches!(again, Err(Fault::Host(_))), "{again:?}");
}

#[tokio::test]
async fn a_guest_goes_on_after_an_error() {
    let mut guest = start("hostile").await;
    let failed = guest.run_task("none", &[], 0, &[]).await;
    check_failed(failed, &["no task `none`"]);
    assert!(guest.run_task("meter", &[], 0, &[]).await.is_ok());
}

#[tokio::test]
async fn names_that_a_guest_chose_do_not_decide_whose_fault_it_is() {
    let name = "maximum concurrent limit reached, the call waited too long";
    let text = format!(
        r#"(component
            (core module $module
                (func $start (@name "{name}") unreachable)
                (start $start)
                (func (export "f")))
            (core instance $instance (instantiate $module))
            (func $f (canon lift (core func $instance "f")))
            (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
            (export "weft:fabric/functions@0.1.0" (instance $functions)))"#
    );
    let component = load(&wat::parse_str(text).expect("it is a component"));
    let fault = Guest::start(&component, settings()).await.map(drop);
    check_trapped(fault, name);
}

#[tokio::test]
async fn long_errors_are_cut() {
    let errors = [
        run("hostile", "error", "").await.expect_err("it fails"),
        push("error", true).await.expect_err("it fails"),
    ];
    for error in errors {
        let Fault::Failed(message) = error else {
            panic!("{error:?}")
        };
        assert!(message.starts_with("eee") && message.ends_with('…'));
        assert!(message.len() < 4096, "{} bytes", message.len());
    }
}

#[tokio::test]
async fn output_that_was_not_bound_is_refused() {
    for function in ["another-name", "another-type", "more-columns", "swallow"] {
        check_schema(push(function, true).await, "bound to (n int32)");
    }
    assert_eq!(push("pass", true).await, Ok(()));
    assert_eq!(push("nulls", true).await, Ok(()));
    check_schema(push("nulls", false).await, "non-nullable");
    // Nulls that could be there, but are not, do no harm.
    assert_eq!(push("pass", false).await, Ok(()));
}

#[tokio::test]
async fn a_task_has_no_output_to_emit_to() {
    check_failed(run("hostile", "emit", "").await, &["no output"]);
}

#[tokio::test]
async fn a_reducer_is_held_to_its_schema_too() {
    let mut guest = start("hostile").await;
    let opened = guest.open_reducer("another-name", &[], numbers().schema());
    opened.await.expect("it opens");
    let pushed = guest.push_reducer(numbers(), &[3], false).await;
    check_schema(pushed, "bound to (n int32)");
}

#[tokio::test]
async fn what_is_not_exported_is_named() {
    let text = r#"(component
        (core module $module (func (export "f")))
        (core instance $instance (instantiate $module))
        (func $f (canon lift (core func $instance "f")))
        (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
        (export "weft:fabric/functions@0.1.0" (instance $functions)))"#;
    let component = load(&wat::parse_str(text).expect("it is a component"));
    let mut guest = Guest::start(&component, settings())
        .await
        .expect("it starts");
    let fault = guest.run_task("f", &[], 0, &[]).await;
    assert_eq!(fault, Err(Fault::NotExported("task")));
    // And what is exported with another type cannot be called.
    let mut guest = Guest::start(&component, settings())
        .await
        .expect("it starts");
    check_trapped(guest.describe().await, "type");
}
