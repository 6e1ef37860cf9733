use arrow::datatypes::TimeUnit;
use arrow::util::display::array_value_to_string;

use super::*;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn decoder(fields: Vec<Field>, unknown_fields: UnknownFields, is_declared: bool) -> Decoder {
    let schema = with_rest(&Schema::new(fields), unknown_fields);
    Decoder::new(&schema, unknown_fields, is_declared)
}

/// The rows of some lines, values joined by `|`.
fn rows(decoder: &mut Decoder) -> Vec<String> {
    let Some(batch) = decoder.take().expect("columns of one length") else {
        return Vec::new();
    };
    let value = |row: usize| {
        let columns = batch.columns().iter();
        let values: Result<Vec<_>, _> = columns
            .map(|column| array_value_to_string(column, row))
            .collect();
        values.expect("text").join("|")
    };
    (0..batch.num_rows()).map(value).collect()
}

#[track_caller]
fn check(data_type: DataType, value: &str, expected: &str) {
    let mut decoder = decoder(vec![field("a", data_type)], UnknownFields::Ignore, false);
    let line = format!("{{\"a\": {value}}}");
    if let Err(reason) = decoder.decode(line.as_bytes()) {
        panic!("{value}: {}", reason.what);
    }
    assert_eq!(rows(&mut decoder), [expected], "{value}");
}

#[track_caller]
fn check_bad(data_type: DataType, value: &str, expected: &str) {
    let mut decoder = decoder(vec![field("a", data_type)], UnknownFields::Ignore, false);
    let line = format!("{{\"a\": {value}}}");
    let reason = decoder.decode(line.as_bytes()).expect_err(value);
    assert!(reason.what.contains(expected), "{value}: {}", reason.what);
    assert!(rows(&mut decoder).is_empty());
}

#[test]
fn texts_are_what_the_writer_wrote() {
    check(DataType::Utf8, r#""\ud842\udfb7""#, "\u{20bb7}");
    check(DataType::Utf8, r#""\u00e9\n\"\/\\""#, "\u{e9}\n\"/\\");
    check(DataType::Utf8, "1.50", "1.50");
    check(DataType::Utf8, "true", "true");
    check_bad(DataType::Utf8, r#""\ud842""#, "half of a surrogate pair");
    check_bad(
        DataType::Utf8,
        "[1]",
        "`[1]` is not a valid utf8 (column `a`)",
    );
    let mut keys = decoder(
        vec![field("\u{20bb7}", DataType::Int64)],
        UnknownFields::Ignore,
        false,
    );
    assert!(keys.decode(br#"{"\ud842\udfb7": 7}"#).is_ok());
    assert_eq!(rows(&mut keys), ["7"]);
}

#[test]
fn numbers_are_kept_or_refused() {
    check(DataType::Int64, "1.0", "1");
    check(DataType::Int64, "1e3", "1000");
    check(
        DataType::Int64,
        "-9223372036854775808",
        "-9223372036854775808",
    );
    check(
        DataType::UInt64,
        "18446744073709551615",
        "18446744073709551615",
    );
    check(
        DataType::Decimal128(38, 0),
        "18446744073709551616",
        "18446744073709551616",
    );
    check(DataType::Float64, "0.1", "0.1");
    check(DataType::Float32, "0.1", "0.1");
    check(DataType::Boolean, "false", "false");
    for wrong in ["1.5", "9223372036854775808", "\"7\"", "true", "{}", "[]"] {
        check_bad(DataType::Int64, wrong, "is not a valid int64 (column `a`)");
    }
    check_bad(DataType::Int8, "128", "`128` is not a valid int8");
    check_bad(DataType::UInt8, "-1", "`-1` is not a valid uint8");
    check_bad(
        DataType::Float64,
        "9007199254740993",
        "is not a valid float64",
    );
    check_bad(DataType::Float64, "1e400", "is not a valid float64");
    check_bad(DataType::Boolean, "1", "`1` is not a valid boolean");
}

#[test]
fn a_text_is_a_number_where_the_column_is_declared() {
    let mut declared = decoder(
        vec![field("a", DataType::Int64)],
        UnknownFields::Ignore,
        true,
    );
    assert!(declared.decode(br#"{"a": "-7"}"#).is_ok());
    for wrong in ["007", " 7", "+7", "7.0", "-0", ""] {
        let line = format!("{{\"a\": \"{wrong}\"}}");
        assert!(declared.decode(line.as_bytes()).is_err(), "{wrong}");
    }
    assert_eq!(rows(&mut declared), ["-7"]);
}

#[test]
fn times_are_iso() {
    let micros = || DataType::Timestamp(TimeUnit::Microsecond, None);
    check(DataType::Date32, "\"2024-01-05\"", "2024-01-05");
    check(
        micros(),
        "\"2024-01-05T01:00:00+01:00\"",
        "2024-01-05T00:00:00",
    );
    check(micros(), "1000000", "1970-01-01T00:00:01");
    for wrong in [
        "\"20240105\"",
        "20240105",
        "\"2024-01-05 10:00:00\"",
        "\"\"",
    ] {
        check_bad(DataType::Date32, wrong, "is not a valid date32");
    }
    check_bad(
        micros(),
        "\"2024-01-05T00:00:00.0000001\"",
        "is not a valid timestamp-us",
    );
}

#[test]
fn records_are_json_wherever_somebody_looks() {
    let mut decoder = decoder(
        vec![field("a", DataType::Int64)],
        UnknownFields::Ignore,
        false,
    );
    for wrong in [
        r#"{"a": 1, "x": [1,,2]}"#,
        r#"{"a": 1, "x": [1 000]}"#,
        r#"{"a": 1, "x": [012]}"#,
        r#"{"a": 1, "x": {"x":1,}}"#,
        r#"{"a": 1, "x": NaN}"#,
        r#"{"a": 1, "x": 1.}"#,
        r#"{"a": 1, "x": "\x"}"#,
        r#"{"a": 1,}"#,
        r#"{"a": 1} {"a": 2}"#,
        r#"{"a": 1} x"#,
        r#"{"a": 01}"#,
        r#"{'a': 1}"#,
        r#"{a: 1}"#,
        r#"[{"a": 1}]"#,
        r#"{"a": 1, "a": 2}"#,
        "{\"a\": 1, \"x\": \"\u{1}\"}",
        "7",
        "null",
        "{",
    ] {
        assert!(decoder.decode(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(decoder.decode(b"{\"a\": 1, \"x\": \"\xff\"}").is_err());
    for fine in [
        "",
        " \t\r",
        r#" {"x": {"y": [1e5, -0.0, "\u0000"]}, "a": 7} "#,
        "{}",
    ] {
        assert!(decoder.decode(fine.as_bytes()).is_ok(), "{fine}");
    }
    assert_eq!(rows(&mut decoder), ["7", ""]);
}

#[test]
fn nested_values_and_bad_ones_among_them() {
    let item = DataType::Struct(Fields::from(vec![
        field("x", DataType::Int64),
        field(
            "tags",
            DataType::List(Arc::new(field("item", DataType::Utf8))),
        ),
    ]));
    let columns = vec![
        field("id", DataType::Int64),
        field("items", DataType::List(Arc::new(field("item", item)))),
    ];
    let mut decoder = decoder(columns, UnknownFields::Ignore, false);
    let lines = [
        (
            r#"{"id": 1, "items": [{"x": 1, "tags": ["a", null]}, null, {}]}"#,
            true,
        ),
        (
            r#"{"id": 2, "items": [{"x": 2, "tags": ["b", [1]]}]}"#,
            false,
        ),
        (r#"{"items": [], "id": 3}"#, true),
        (r#"{"id": 4, "items": {"x": 1}}"#, false),
        (r#"{"id": 5, "items": [{"x": "one"}]}"#, false),
        (r#"{"id": 6, "items": null}"#, true),
    ];
    for (line, fits) in lines {
        let decoded = decoder.decode(line.as_bytes());
        assert_eq!(decoded.is_ok(), fits, "{line}");
        if line.contains("one") {
            let what = decoded.map_err(|reason| reason.what).expect_err("a text");
            assert_eq!(what, "`one` is not a valid int64 (column `items.item.x`)");
        }
    }
    let expected = ["1|[{x: 1, tags: [a, ]}, , {x: , tags: }]", "3|[]", "6|"];
    assert_eq!(rows(&mut decoder), expected);
    assert!(rows(&mut decoder).is_empty());
}

#[test]
fn unknown_keys_are_counted_kept_or_refused() {
    let user = DataType::Struct(Fields::from(vec![field("name", DataType::Utf8)]));
    let columns = || vec![field("id", DataType::Int64), field("user", user.clone())];
    let line = br#"{"new\n": [1, 2], "id": 1, "user": {"name": "x", "age": 7}, "old": null}"#;
    let mut ignore = decoder(columns(), UnknownFields::Ignore, false);
    assert!(ignore.decode(line).is_ok() && ignore.decode(line).is_ok());
    assert!(ignore.decode(br#"{"id": "x", "bad": 1}"#).is_err());
    let many = format!(
        "{{{}}}",
        (0..200)
            .map(|n| format!("\"k{n}\": 1"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    let mut counted = decoder(columns(), UnknownFields::Ignore, false);
    assert!(counted.decode(many.as_bytes()).is_ok());
    assert_eq!(
        counted.unknown.count(),
        200,
        "those that are not named are counted"
    );
    assert_eq!(ignore.unknown.count(), 6);
    let summary = ignore.unknown.summary().expect("there are some");
    assert_eq!(summary, "`new\n` (2), `old` (2), `user.age` (2)");
    assert_eq!(rows(&mut ignore), ["1|{name: x}", "1|{name: x}"]);

    let mut fail = decoder(columns(), UnknownFields::Fail, false);
    let reason = fail.decode(line).expect_err("a key is unknown");
    assert!(
        reason.what.starts_with("no column has the key `new"),
        "{}",
        reason.what
    );
    assert!(fail.decode(br#"{"id": 1, "user": {"age": 7}}"#).is_err());
    assert!(fail.decode(br#"{"id": 1}"#).is_ok());

    let mut rest = decoder(columns(), UnknownFields::Rest, false);
    assert!(rest.decode(line).is_ok() && rest.decode(br#"{"id": 2}"#).is_ok());
    assert_eq!(rest.unknown.count(), 1, "the one within `user`");
    assert_eq!(
        rows(&mut rest),
        [r#"1|{name: x}|{"new\n":[1, 2],"old":null}"#, "2||"]
    );
}

#[test]
fn columns_are_inferred_without_loss() {
    let infer = |lines: &[&str]| {
        let mut shape = Shape::default();
        lines.iter().try_for_each(|line| shape.add_record(line))?;
        let schema = shape.schema()?;
        let fields = schema.fields().iter();
        let texts = fields.map(|field| {
            format!(
                "{} {}",
                field.name(),
                weft_sandbox::type_name(field.data_type())
            )
        });
        Ok::<_, String>(texts.collect::<Vec<_>>().join(", "))
    };
    let check = |lines: &[&str], expected: &str| {
        assert_eq!(infer(lines).as_deref(), Ok(expected), "{lines:?}");
    };
    check(&[r#"{"a": 1}"#, r#"{"a": 9007199254740993}"#], "a int64");
    check(
        &[r#"{"a": 1}"#, r#"{"a": 9223372036854775808}"#],
        "a uint64",
    );
    check(
        &[r#"{"a": -1}"#, r#"{"a": 9223372036854775808}"#],
        "a decimal128(38, 0)",
    );
    check(&[r#"{"a": 1.5}"#, r#"{"a": 9007199254740993}"#], "a utf8");
    check(&[r#"{"a": 1.5}"#, r#"{"a": 1}"#], "a float64");
    check(&[r#"{"a": null}"#, r#"{"b": true}"#], "a utf8, b boolean");
    check(&[r#"{"a": true}"#, r#"{"a": 1}"#], "a utf8");
    check(&[r#"{"a": {}, "b": 1}"#], "b int64");
    check(
        &[r#"{"a": {}}"#, r#"{"a": {"x": [{"y": 1}, {"z": "s"}]}}"#],
        "a struct(x list(struct(y int64, z utf8)))",
    );
    check(&[r#"{"a": []}"#], "a list(utf8)");
    check(&[r#"{"at": "2024-01-05"}"#], "at utf8");
    for conflict in [
        ["{\"a\": 1}", "{\"a\": [1]}"],
        ["{\"a\": {\"x\": 1}}", "{\"a\": [1]}"],
        ["{\"a\": {\"x\": 1}}", "{\"a\": \"x\"}"],
    ] {
        let what = infer(&conflict).expect_err("no column holds both");
        assert!(what.starts_with("`a` holds "), "{what}");
    }
}
