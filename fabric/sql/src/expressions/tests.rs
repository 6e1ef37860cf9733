//! Values, types and names of expressions, what is refused, and bounds that hold.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, lit};
use weft_core::{ErrorCode, Problem};

use super::Expressions;
use super::cost::Cost;
use crate::Session;

/// Views become plain columns, as guests see them, and times have microseconds.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => other.clone(),
    }
}

fn rides() -> RecordBatch {
    let tags = [Some(vec![Some(1)]), None, Some(vec![])];
    let columns: [(&str, ArrayRef); 5] = [
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
        ),
        ("fare", Arc::new(Float64Array::from(vec![10.0, 2.5, 0.0]))),
        (
            "zone",
            Arc::new(StringArray::from(vec!["Soho", "east Side", ""])),
        ),
        (
            "taken",
            Arc::new(TimestampMicrosecondArray::from(vec![
                0,
                1_700_000_000_000_000,
                1,
            ])),
        ),
        (
            "tags",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(tags)),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("of one length")
}

fn compile(texts: &[&str]) -> Result<Expressions, Problem> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    Session::new().expressions(&texts, &rides().schema(), plain)
}

/// Evaluates one expression, and checks that its bound holds.
#[track_caller]
fn eval(text: &str) -> (String, DataType, Vec<String>) {
    let compiled = compile(&[text]).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let batch = rides();
    let found = compiled.evaluate(&batch, &mut || true);
    let found = found.unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let column = found.column(0);
    let bytes = column
        .to_data()
        .get_slice_memory_size()
        .expect("it has a size") as u64;
    let most = compiled.bytes_max(&batch);
    // A column that is passed on takes nothing.
    let is_shared = batch.columns().iter().any(|one| Arc::ptr_eq(one, column));
    assert!(bytes <= most || is_shared, "{text}: {bytes} of {most}");
    let value = |row| match column.is_null(row) {
        true => "null".to_owned(),
        false => array_value_to_string(column, row).expect("it can be shown"),
    };
    let field = compiled.schema().field(0).clone();
    assert_eq!(field.data_type(), column.data_type(), "{text}");
    let values = (0..batch.num_rows()).map(value).collect();
    (field.name().clone(), field.data_type().clone(), values)
}

#[test]
fn values_have_types_and_names() {
    for (text, name, data_type, values) in [
        (
            "fare * 1.2 AS total",
            "total",
            DataType::Float64,
            ["12.0", "3.0", "0.0"],
        ),
        ("n + 1", "n + 1", DataType::Int64, ["2", "null", "4"]),
        ("n", "n", DataType::Int64, ["1", "null", "3"]),
        ("n AS \"N\"", "N", DataType::Int64, ["1", "null", "3"]),
        (
            "upper(zone) AS zone",
            "zone",
            DataType::Utf8,
            ["SOHO", "EAST SIDE", ""],
        ),
        (
            "zone || '-' || zone AS z",
            "z",
            DataType::Utf8,
            ["Soho-Soho", "east Side-east Side", "-"],
        ),
        (
            "CAST(n AS VARCHAR) AS n",
            "n",
            DataType::Utf8,
            ["1", "null", "3"],
        ),
        (
            "substr(zone, 1, 2) AS z",
            "z",
            DataType::Utf8,
            ["So", "ea", ""],
        ),
        ("coalesce(n, 7) AS n", "n", DataType::Int64, ["1", "7", "3"]),
        (
            "CASE WHEN fare > 5 THEN 'dear' ELSE zone END AS c",
            "c",
            DataType::Utf8,
            ["dear", "east Side", ""],
        ),
        (
            "fare > 1 AND n IS NOT NULL AS b",
            "b",
            DataType::Boolean,
            ["true", "false", "false"],
        ),
        (
            "zone ~ '^[A-Z]' AS b",
            "b",
            DataType::Boolean,
            ["true", "false", "false"],
        ),
        (
            "zone LIKE '%Side' AS b",
            "b",
            DataType::Boolean,
            ["false", "true", "false"],
        ),
        (
            "regexp_replace(zone, '([a-z])o', '\\1\\1') AS z",
            "z",
            DataType::Utf8,
            ["Sohh", "east Side", ""],
        ),
        (
            "regexp_replace(zone, 's', '<$0$0>', 'i') AS z",
            "z",
            DataType::Utf8,
            ["<SS>oho", "ea<ss>t Side", ""],
        ),
        (
            "trim(both 'SoO' from zone) AS z",
            "z",
            DataType::Utf8,
            ["h", "east Side", ""],
        ),
        (
            "date_part('year', taken) AS y",
            "y",
            DataType::Int32,
            ["1970", "2023", "1970"],
        ),
        (
            "n IN (1, 2) AS b",
            "b",
            DataType::Boolean,
            ["true", "null", "false"],
        ),
        (
            "repeat(zone, 2) AS z",
            "z",
            DataType::Utf8,
            ["SohoSoho", "east Sideeast Side", ""],
        ),
        (
            "lpad(zone, 5, '.') AS z",
            "z",
            DataType::Utf8,
            [".Soho", "east ", "....."],
        ),
        (
            "replace(zone, 'o', '00') AS z",
            "z",
            DataType::Utf8,
            ["S00h00", "east Side", ""],
        ),
        (
            "round(fare) AS r",
            "r",
            DataType::Float64,
            ["10.0", "3.0", "0.0"],
        ),
        ("1 AS one", "one", DataType::Int64, ["1", "1", "1"]),
    ] {
        let found = eval(text);
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        assert_eq!(found, (name.to_owned(), data_type, values), "{text}");
    }
    // Lists are passed on.
    assert_eq!(eval("tags").0, "tags");
    assert_eq!(eval("tags IS NULL AS b").2, ["false", "true", "false"]);
}

#[test]
fn a_list_reads_only_its_columns() {
    let compiled = compile(&["n * 2 AS twice", "n"]).expect("it compiles");
    assert_eq!(compiled.reads, [0]);
    let batch = compiled
        .evaluate(&rides(), &mut || true)
        .expect("it evaluates");
    let names: Vec<&str> = batch
        .schema_ref()
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["twice", "n"]);
    // Without rows as well.
    let none = compiled
        .evaluate(&rides().slice(0, 0), &mut || true)
        .expect("it evaluates");
    assert_eq!((none.num_rows(), none.num_columns()), (0, 2));
}

#[track_caller]
fn refused(texts: &[&str], code: ErrorCode, words: &[&str]) {
    let problem = compile(texts).map(drop).expect_err("it is refused");
    assert_eq!(problem.code, code, "{texts:?}: {problem}");
    for word in words {
        let detail = &problem.detail;
        assert!(
            detail.contains(word),
            "{texts:?}: `{word}` is not in {detail}"
        );
    }
}

#[test]
fn what_needs_other_rows_or_has_no_bound_is_refused_by_name() {
    for (text, words) in [
        ("sum(n)", &["`sum(n)`", "`sum` is an aggregate"][..]),
        ("count(*)", &["`count` is an aggregate"]),
        ("lag(n) OVER (ORDER BY n)", &["over a window"]),
        ("(SELECT 1)", &["subquery"]),
        ("n IN (SELECT 1)", &["subquery"]),
        ("EXISTS (SELECT 1)", &["subquery"]),
        ("random()", &["`random` has another value each time"]),
        ("n + random()", &["`random` has another value each time"]),
        ("uuid()", &["`uuid` has another value"]),
        ("now()", &["`now` has another value"]),
        ("CURRENT_DATE", &["`current_date` has another value"]),
        ("geo.km(1, 2)", &["`geo.km` is a function of a component"]),
        ("levenshtein(zone, zone)", &["`levenshtein` is not offered"]),
        ("make_array(n)", &["make_array"]),
        (
            "repeat(zone, n)",
            &["argument 2 of `repeat` must be a literal"],
        ),
        ("lpad(zone, n)", &["argument 2 of `lpad` must be a literal"]),
        ("regexp_like(zone, zone)", &["argument 2 of `regexp_like`"]),
        ("zone ~ zone", &["must be a literal"]),
        ("btrim(zone, zone)", &["argument 2 of `btrim` must be"]),
        ("ltrim(zone, zone)", &["argument 2 of `ltrim` must be"]),
        ("rtrim(zone, zone)", &["argument 2 of `rtrim` must be"]),
        // What finds all matches may read the rest of a text again for each.
        (
            "regexp_count(zone, 'a')",
            &["`regexp_count` is not offered"],
        ),
        (
            "regexp_instr(zone, 'a')",
            &["`regexp_instr` is not offered"],
        ),
        ("regexp_replace(zone, 'a', 'b', 'gi')", &["the flag `g`"]),
        (
            "regexp_like(zone, 'a', 'i)(?s')",
            &["the flags of `regexp_like`"],
        ),
        ("zone LIKE zone", &["must be a literal"]),
        ("zone ~ '('", &["is not a regular expression"]),
        ("nowhere + 1", &["`nowhere + 1`", "nowhere"]),
        ("n +", &["cannot be parsed"]),
        ("", &["cannot be parsed"]),
        ("n; n", &["cannot be parsed"]),
        ("n AS \"\"", &["its name must have"]),
    ] {
        refused(&[text], ErrorCode::InvalidJob, words);
    }
    refused(
        &["n", "n"],
        ErrorCode::InvalidJob,
        &["two expressions are called `n`"],
    );
}

#[test]
fn what_is_too_large_is_refused_before_it_is_planned() {
    let chain = vec!["n"; 60].join(" + ");
    refused(&[&chain], ErrorCode::TooLarge, &["48 levels"]);
    let words = vec!["n"; 600].join(" + ");
    refused(&[&words], ErrorCode::TooLarge, &["1199 words"]);
    let nested = format!("{}n{}", "(".repeat(200), ")".repeat(200));
    refused(&[&nested], ErrorCode::TooLarge, &[]);
    let long = format!("zone LIKE '{}' AS found", "x".repeat(2000));
    refused(&[&long], ErrorCode::TooLarge, &["2000 bytes"]);
    let heavy = "zone ~ '(.{100}){100}'";
    refused(&[heavy], ErrorCode::TooLarge, &["when it is compiled"]);
    // Spaces that a flag takes away.
    let heavy = "regexp_like(zone, '(.{100}) {100}', 'x')";
    refused(&[heavy], ErrorCode::TooLarge, &["when it is compiled"]);
    let long = format!("btrim(zone, '{}') AS trimmed", "x".repeat(2000));
    refused(&[&long], ErrorCode::TooLarge, &["2000 bytes"]);
}

/// An expression within itself, `levels` times.
fn nested(levels: usize, before: &str, inner: &str, after: &str) -> String {
    format!("{}{inner}{}", before.repeat(levels), after.repeat(levels))
}

#[test]
fn what_repeats_its_parts_at_each_level_is_refused_before_they_are_made() {
    let words = &["10000 parts", "coalesce"];
    for name in ["coalesce", "nvl", "ifnull"] {
        let text = nested(20, &format!("{name}("), "n", ", 7)");
        refused(&[&text], ErrorCode::TooLarge, words);
    }
    let text = nested(20, "(", "n BETWEEN 1 AND 2", ") BETWEEN false AND true");
    refused(&[&text], ErrorCode::TooLarge, words);
    let few = nested(4, "(", "n BETWEEN 1 AND 2", ") BETWEEN false AND true");
    assert_eq!(eval(&format!("{few} AS b")).2, ["true", "null", "true"]);
    // All of a list count: each of these has some 4,000.
    let some = nested(10, "coalesce(", "n", ", 7)");
    let list: Vec<String> = (0..4).map(|n| format!("{some} AS n{n}")).collect();
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    let one = compile(&list[..1]).expect("it compiles");
    assert!(one.held_bytes() > 500 * 1_000, "{}", one.held_bytes());
    refused(&list, ErrorCode::TooLarge, words);
    // The last value is not repeated.
    let last = nested(20, "coalesce(n, ", "7", ")");
    assert_eq!(eval(&format!("{last} AS n")).2, ["1", "7", "3"]);
}

#[test]
fn parts_that_are_shared_count_as_often_as_they_are_evaluated() {
    let schema = rides().schema();
    let doubled = |levels| {
        let mut shared: Arc<dyn PhysicalExpr> = lit(true);
        for _ in 0..levels {
            let twice = BinaryExpr::new(Arc::clone(&shared), Operator::And, shared);
            shared = Arc::new(twice);
        }
        Cost::of(&shared, &schema).map(drop)
    };
    doubled(8).expect("511 nodes");
    let problem = doubled(14).expect_err("32,767 nodes");
    assert_eq!(problem.code, ErrorCode::TooLarge, "{problem}");
}

#[test]
fn bounds_grow_with_what_is_computed_and_nothing_is_computed_for_them() {
    let most = |text: &str| compile(&[text]).expect("it compiles").bytes_max(&rides());
    // 1 TB, of which nothing is there yet.
    assert!(most("repeat(repeat(zone, 1000000), 1000000) AS z") > 1 << 40);
    assert!(most("lpad(zone, 1000000) AS z") > 3 << 20);
    assert!(most("repeat(repeat('x', 1000000), 1000000) AS z") > 1 << 40);
    // The longest text that replaces one of 13 bytes, one by one.
    let replaced = most(&format!("replace(zone, 'o', '{}') AS z", "x".repeat(1000)));
    assert!((13_000..100_000).contains(&replaced), "{replaced}");
    // A column of 13,000 bytes, a builder that doubles, and the longest value.
    assert!(most("repeat(zone, 1000) AS z") > 3 * 13_000 + 9_000);
    // What pads it, and where its characters start.
    assert!(most("lpad(zone, 1000) AS z") > 3 * 3 * 4_000 + 3 * 4_000);
    // Durations have a form of their own, whatever the format is.
    assert!(most("to_char(taken, '') AS t") > 3 * 3 * 128);
    assert_eq!(most("n"), 0);
    assert!(most("n + 1 AS n") < 4096);
}

#[test]
fn values_that_cannot_be_computed_are_errors() {
    let divided = compile(&["n / 0 AS n"]).expect("it compiles");
    let problem = divided
        .evaluate(&rides(), &mut || true)
        .expect_err("a division by zero");
    assert_eq!(problem.code, ErrorCode::QueryError, "{problem}");
    assert!(problem.detail.contains("zero"), "{problem}");
    let cast = compile(&["CAST(zone AS INT) AS n"]).expect("it compiles");
    let problem = cast
        .evaluate(&rides(), &mut || true)
        .expect_err("no number");
    assert!(problem.detail.contains("Soho"), "{problem}");
    assert_eq!(
        eval("TRY_CAST(zone AS INT) AS n").2,
        ["null", "null", "null"]
    );
}
