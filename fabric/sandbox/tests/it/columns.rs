//! Columns and schemas that lie: every lie is found before anything is computed with it, and named.

use crate::support::{check_failed, check_schema, run, start};

#[tokio::test]
async fn columns_that_lie_are_refused_whichever_way_they_come() {
    for (lie, part) in [
        ("short-values", "Int32"),
        ("short-bits", "Boolean"),
        ("short-validity", "validity bitmap has 1 bytes for 9 rows"),
        ("short-offsets", "offsets have 12 bytes for 3 rows"),
        ("no-offsets", "offsets have 0 bytes for 1 rows"),
        ("offsets-go-back", "ffset"),
        ("offsets-below-zero", "ffset"),
        ("offsets-past-the-end", "ffset"),
        ("bad-utf8", "UTF8"),
        ("split-character", "utf-8"),
        ("list-past-the-end", "ffset"),
        ("list-goes-back", "ffset"),
        ("decimal-too-large", "123"),
        ("too-few-buffers", "fewer buffers"),
        ("too-many-buffers", "more nodes or buffers"),
        ("no-nodes", "fewer nodes"),
        ("too-few-nodes", "fewer nodes"),
        ("too-many-nodes", "more nodes or buffers"),
        ("huge-rows", "4294967295 rows"),
        ("huge-struct", "length"),
        ("uneven-struct", "length"),
        ("nulls-where-none-may-be", "non-nullable"),
        ("nulls-in-a-required-member", "non-nullable"),
        ("another-type", "offsets have 16 bytes for 4 rows"),
    ] {
        let failed = run("hostile", "lie", lie).await;
        let Err(weft_sandbox::Fault::Failed(message)) = &failed else {
            panic!("{lie}: {failed:?}")
        };
        let (created, added) = message.split_once(" | ").expect("two answers");
        for answer in [created, added] {
            assert!(answer.contains(part), "{lie}: `{answer}` lacks `{part}`");
            assert!(!answer.contains("took it"), "{lie}: {answer}");
        }
    }
}

#[tokio::test]
async fn null_counts_are_counted_not_believed() {
    let answer = run("hostile", "lie", "wrong-null-count").await;
    assert_eq!(answer, Ok(b"2 2".to_vec()));
}

#[tokio::test]
async fn positions_past_the_end_are_refused() {
    for (function, part) in [
        ("take-past-the-end", "no row 3; the batch has 3"),
        ("short-mask", "the mask has 1 bytes for 9 rows"),
        ("project-past-the-end", "1"),
        ("column-past-the-end", "no column 1; the batch has 1"),
    ] {
        check_failed(run("hostile", function, "").await, &[part]);
    }
}

#[tokio::test]
async fn schemas_that_do_not_hold_together_are_refused() {
    let mut guest = start("hostile").await;
    let input = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    for (lie, part) in [
        ("twice", "`c` stands twice"),
        ("unnamed", "name has 0 bytes"),
        ("long-name", "name has 100000 bytes"),
        ("childless-list", "has 0 children"),
        ("list-of-two", "has 2 children"),
        ("missing-children", "lacks its children"),
        ("endless-children", "lacks its children"),
        ("empty-struct", "no members"),
        ("number-with-children", "has 1 children"),
        ("too-deep", "deeper than 16"),
        ("too-many", "5000 fields"),
        ("precision-0", "decimal(0, 0)"),
        ("precision-39", "decimal(39, 0)"),
        ("scale-above-precision", "decimal(3, 4)"),
        ("scale-below-zero", "decimal(3, -1)"),
    ] {
        check_schema(guest.bind(lie, &input, &[]).await, part);
    }
    let honest = guest.bind("honest", &input, &[]).await;
    assert_eq!(honest, Ok(input));
}
