//! Inputs on which other systems have given wrong data, or refused what is right: each has its right value, or a
//! reason.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, ListArray, NullArray, RecordBatch, StringArray,
    StructArray, Time32MillisecondArray, TimestampNanosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::fixture::Place;
use crate::http::Request;
use crate::job;
use crate::server::{Server, Setup};

struct Desk {
    place: Place,
    server: Server,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        job::deploy(&server, "mirror");
        Desk { place, server }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.place.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
        fs::write(&path, bytes).expect("it writes");
        path
    }

    fn write_parquet(&self, name: &str, columns: Vec<(Field, ArrayRef)>) -> PathBuf {
        let (fields, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("one length");
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).expect("a writer");
        writer.write(&batch).expect("it writes");
        self.write(name, writer.into_inner().expect("it ends"))
    }

    fn job(&self, input: &Value, out: &str) -> Value {
        let out = self.place.path(out);
        json!({
            "name": "case",
            "input": { "rows": input },
            "stage": [{ "name": "passed", "from": "rows", "map": "mirror/pass" }],
            "output": { "passed": { "from": "passed", "format": "json", "uri": out } },
        })
    }

    /// The rows that come out, as JSON.
    #[track_caller]
    fn reads(&self, case: &str, input: &Value) -> (Vec<Value>, Value) {
        let out = format!("out-{case}");
        let ended = job::run(&self.server, &self.job(input, &out));
        (written(&self.place.path(&out)), ended)
    }

    #[track_caller]
    fn check(&self, case: &str, input: &Value, expected: &[Value]) {
        let (found, _) = self.reads(case, input);
        assert_eq!(found, expected, "{case}");
    }

    /// The job fails, and says why.
    #[track_caller]
    fn check_refused(&self, case: &str, input: &Value, parts: &[&str]) {
        let job = self.job(input, &format!("out-{case}"));
        let ended = job::wait(&self.server, &job::submit(&self.server, &job));
        assert_eq!(ended["status"], "failed", "{case}: {ended:#}");
        let detail = ended["problem"]["detail"].as_str().unwrap_or_default();
        for part in parts {
            assert!(detail.contains(part), "{case}: {detail} lacks {part}");
        }
    }
}

/// The rows of an output in JSON, in the order of its files.
fn written(folder: &Path) -> Vec<Value> {
    let manifest = fs::read(folder.join("_weft.manifest")).expect("it is published");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let files = manifest["files"].as_array().expect("a list");
    let names = files
        .iter()
        .map(|file| file["name"].as_str().expect("text"));
    let texts = names.map(|name| fs::read_to_string(folder.join(name)).expect("text"));
    let text: String = texts.collect();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn input(format: &str, uri: &Path) -> Value {
    json!({ "format": format, "uri": uri })
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

#[test]
fn json_is_read_exactly_or_refused() {
    let desk = Desk::new();
    let path = desk.write(
        "surrogates.json",
        r#"{"\ud842\udfb7": "\ud842\udfb7\u91ce"}"#,
    );
    desk.check(
        "surrogates",
        &input("json", &path),
        &[json!({"𠮷": "𠮷野"})],
    );
    let path = desk.write(
        "large.json",
        "{\"id\": 9007199254740993}\n{\"id\": 12345678901234567890}\n",
    );
    let expected = [
        json!({"id": 9_007_199_254_740_993_u64}),
        json!({"id": 12_345_678_901_234_567_890_u64}),
    ];
    desk.check("large", &input("json", &path), &expected);
    let path = desk.write("empty.json", "{\"id\": 1, \"x\": {}}\n");
    desk.check("empty", &input("json", &path), &[json!({"id": 1})]);

    // Behind the records that columns are inferred from, and in a column that nobody reads.
    let good = "{\"a\": 1, \"x\": [1]}\n".repeat(1_100);
    for (case, bad) in [
        ("commas", "[1,,2]"),
        ("spaces", "[1 000]"),
        ("zeros", "[012]"),
        ("trailing", "{\"x\":1,}"),
    ] {
        let text = format!("{good}{{\"a\": 2, \"x\": {bad}}}\n");
        let path = desk.write(&format!("{case}.json"), text);
        let read = json!({ "format": "json", "uri": path, "schema": ["a int64"] });
        desk.check_refused(case, &read, &["byte 20900", "no JSON object"]);
    }
    let number = |case: &str, text: &str, schema: &str| {
        let path = desk.write(&format!("{case}.json"), format!("{{\"a\": {text}}}\n"));
        json!({ "format": "json", "uri": path, "schema": [schema] })
    };
    desk.check("id", &number("id", "\"7\"", "a int64"), &[json!({"a": 7})]);
    for text in ["\"007\"", "\" 7\"", "\"+7\""] {
        desk.check_refused(
            "code",
            &number("code", text, "a int64"),
            &["is not a valid int64"],
        );
    }
    let date = number("date", "\"20240105\"", "a date32");
    desk.check_refused(
        "date",
        &date,
        &["`20240105` is not a valid date32 (column `a`)"],
    );
    let text = format!("{}{{\"a\": \"007\"}}\n", "{\"a\": 1}\n".repeat(1_000));
    let path = desk.write("inferred.json", text);
    desk.check_refused(
        "inferred",
        &input("json", &path),
        &["`007` is not a valid int64"],
    );
}

#[test]
fn keys_that_no_column_has_are_told() {
    let desk = Desk::new();
    let text = format!(
        "{}{{\"a\": 2, \"late\": 1, \"u\": {{\"n\": \"x\", \"new\": 3}}}}\n",
        "{\"a\": 1, \"u\": {\"n\": \"x\"}}\n".repeat(1_000)
    );
    let path = desk.write("many/1.json", text);
    desk.write("many/2.json", "{\"a\": 3, \"second\": true}\n");
    let all = path.with_file_name("*.json");
    let read = |policy: &str| json!({ "format": "json", "uri": all, "unknown_fields": policy });

    let (found, ended) = desk.reads("ignored", &read("ignore"));
    let last = found.last().expect("there are rows");
    assert_eq!(
        last,
        &json!({"a": 3, "second": true}),
        "keys of all files are columns"
    );
    assert_eq!(ended["stages"][0]["unknown_fields"], 2, "{ended:#}");
    let log = job::log(&desk.server, &job::id_of(&ended));
    assert!(
        log.contains("`late` (1)") && log.contains("`u.new` (1)"),
        "{log}"
    );

    desk.check_refused("refused", &read("fail"), &["no column has the key `late`"]);
    let (found, ended) = desk.reads("kept", &read("rest"));
    let kept: Vec<&Value> = found.iter().filter(|row| row["a"] == 2).collect();
    assert_eq!(kept[0]["rest"], "{\"late\":1}");
    assert_eq!(ended["stages"][0]["unknown_fields"], 1, "the nested one");

    let nested =
        json!({ "format": "json", "uri": path, "schema": ["u struct(n utf8, new int32)"] });
    let (found, _) = desk.reads("nested", &nested);
    assert_eq!(found.last(), Some(&json!({"u": {"n": "x", "new": 3}})));
}

#[test]
fn csv_is_read_exactly_or_refused() {
    let desk = Desk::new();
    let check = |case: &str, text: &str, expected: &[Value]| {
        let path = desk.write(&format!("{case}.csv"), text);
        desk.check(case, &input("csv", &path), expected);
    };
    check(
        "index",
        ",a,b\n0,1,x\n",
        &[json!({"column0": 0, "a": 1, "b": "x"})],
    );
    check("delimiter", "a,b,\n1,x,\n", &[json!({"a": 1, "b": "x"})]);
    check(
        "break",
        "id,\"Total\n(USD)\"\n1,2\n",
        &[json!({"id": 1, "Total\n(USD)": 2})],
    );
    check("blank", "\r\n\na,b\n1,2\n", &[json!({"a": 1, "b": 2})]);
    let text = format!("zip\n{}02134\n", "10001\n".repeat(1_100));
    let path = desk.write("zips.csv", text);
    let code = "`02134` is not a valid int64 (column `zip`)";
    desk.check_refused("zips", &input("csv", &path), &[code]);
    desk.write("columns/1.csv", "a\n1\n");
    desk.write("columns/2.csv", "a,new\n2,x\n3,y\n");
    let columns = input("csv", &desk.place.path("columns/*.csv"));
    let (_, ended) = desk.reads("columns", &columns);
    assert_eq!(ended["stages"][0]["unknown_fields"], 2, "{ended:#}");
    desk.write("heads/1.csv", "a,b\r\n");
    desk.write("heads/2.csv", "a,b\r\nx,1\r\n");
    let heads = input("csv", &desk.place.path("heads/*.csv"));
    desk.check("heads", &heads, &[json!({"a": "x", "b": 1})]);
    check(
        "codes",
        "zip,n\n00501,1\n94103,2\n",
        &[
            json!({"zip": "00501", "n": 1}),
            json!({"zip": "94103", "n": 2}),
        ],
    );
    check(
        "digits",
        "a\n1\n2.5\n9007199254740993\n",
        &[
            json!({"a": "1"}),
            json!({"a": "2.5"}),
            json!({"a": "9007199254740993"}),
        ],
    );
    check("no-date", "a\n2020-02-30\n", &[json!({"a": "2020-02-30"})]);
    check("infinite", "a\n1e400\n", &[json!({"a": "1e400"})]);
    let path = desk.write("time.csv", "d\n2013-10-31 10:20:30\n");
    let declared = |data_type: &str| json!({ "format": "csv", "uri": path, "schema": [format!("d {data_type}")] });
    let time = declared("date32");
    desk.check_refused(
        "time",
        &time,
        &["`2013-10-31 10:20:30` is not a valid date32 (column `d`)"],
    );
    let text = format!("d\n{}2013-10-31 10:20:30\n", "2013-10-31\n".repeat(1_000));
    let path = desk.write("late.csv", text);
    desk.check_refused("late", &input("csv", &path), &["is not a valid date32"]);
    let path = desk.write("whole.csv", "a,b\n1.0,9007199254740993\n1e3,2\n");
    let whole = json!({ "format": "csv", "uri": path, "schema": ["a int64", "b float64"] });
    desk.check_refused(
        "whole",
        &whole,
        &["`9007199254740993` is not a valid float64"],
    );
    let whole = json!({ "format": "csv", "uri": path, "schema": ["a int64"] });
    desk.check("whole-a", &whole, &[json!({"a": 1}), json!({"a": 1000})]);
}

#[test]
fn compressed_files_are_told_by_their_names() {
    let desk = Desk::new();
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("it writes");
        encoder.finish().expect("it ends")
    };
    for (name, text) in [("1", ""), ("2", "\u{feff}\n"), ("3", "a,b\n1,x\n")] {
        desk.write(&format!("z/{name}.csv.gz"), gzip(text));
    }
    desk.write("z/4.CSV.GZIP", gzip("a,b\n2,y\n"));
    let all =
        json!({ "format": "csv", "uri": [desk.place.path("z/*.gz"), desk.place.path("z/*.GZIP")] });
    let expected = [json!({"a": 1, "b": "x"}), json!({"a": 2, "b": "y"})];
    let (mut found, _) = desk.reads("gzip", &all);
    found.sort_by_key(|row| row["a"].as_i64());
    assert_eq!(found, expected);
    let path = desk.write("none.json.gz", "");
    desk.check_refused("none", &input("json", &path), &["has no bytes", "not gzip"]);
    let path = desk.write("text.bz2", "BZh9");
    desk.check_refused(
        "bzip2",
        &input("text", &path),
        &["is compressed by bzip2", "`.gz`"],
    );
}

#[test]
fn parquet_files_of_one_input_differ_in_form_only() {
    let desk = Desk::new();
    let whole = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let required = Field::new("x", DataType::Int64, false);
    desk.write_parquet("nulls/a.parquet", vec![(required, whole(vec![Some(1)]))]);
    desk.write_parquet(
        "nulls/b.parquet",
        vec![(nullable("x", DataType::Int64), whole(vec![None]))],
    );
    desk.write_parquet(
        "nulls/c.parquet",
        vec![(nullable("x", DataType::Null), Arc::new(NullArray::new(1)))],
    );
    let all = |folder: &str| input("parquet", &desk.place.path(&format!("{folder}/*.parquet")));
    desk.check(
        "nulls",
        &all("nulls"),
        &[json!({"x": 1}), json!({}), json!({})],
    );

    let list = |item: Field, values: ArrayRef| -> (Field, ArrayRef) {
        let n = values.len();
        let item = Arc::new(item);
        let list = ListArray::new(
            Arc::clone(&item),
            OffsetBuffer::from_lengths([n]),
            values,
            None,
        );
        (nullable("x", DataType::List(item)), Arc::new(list))
    };
    let item = |name: &str, is_nullable| Field::new(name, DataType::Int64, is_nullable);
    desk.write_parquet(
        "items/a.parquet",
        vec![list(item("item", true), whole(vec![None]))],
    );
    desk.write_parquet(
        "items/b.parquet",
        vec![list(item("element", false), whole(vec![Some(2)]))],
    );
    desk.check(
        "items",
        &all("items"),
        &[json!({"x": [null]}), json!({"x": [2]})],
    );

    let members = |order: [usize; 2]| -> (Field, ArrayRef) {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["s"]));
        let all = [
            (
                Arc::new(nullable("a", DataType::Int64)),
                whole(vec![Some(1)]),
            ),
            (Arc::new(nullable("b", DataType::Utf8)), texts),
        ];
        let members = StructArray::from(order.map(|at| all[at].clone()).to_vec());
        (
            nullable("x", members.data_type().clone()),
            Arc::new(members),
        )
    };
    desk.write_parquet("members/a.parquet", vec![members([0, 1])]);
    desk.write_parquet("members/b.parquet", vec![members([1, 0])]);
    let row = json!({"x": {"a": 1, "b": "s"}});
    desk.check("members", &all("members"), &[row.clone(), row]);

    let other: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    desk.write_parquet(
        "nulls/d.parquet",
        vec![(nullable("x", DataType::Int32), other)],
    );
    desk.check_refused(
        "other",
        &all("nulls"),
        &["d.parquet", "of type int32", "of type int64"],
    );
}

#[test]
fn times_keep_all_digits_or_are_refused() {
    let desk = Desk::new();
    let nanos = |name: &str, value| {
        let times = TimestampNanosecondArray::from(vec![value]);
        let field = nullable("at", times.data_type().clone());
        input(
            "parquet",
            &desk.write_parquet(name, vec![(field, Arc::new(times))]),
        )
    };
    desk.check(
        "micros",
        &nanos("a.parquet", 1_000),
        &[json!({"at": "1970-01-01T00:00:00.000001"})],
    );
    desk.check_refused(
        "nanos",
        &nanos("b.parquet", 1_001),
        &["1001 ns has more digits than microseconds keep"],
    );
    let time = Time32MillisecondArray::from(vec![2_000]);
    let utc = TimestampNanosecondArray::from(vec![1_000]).with_timezone("Europe/Berlin");
    let columns: Vec<(Field, ArrayRef)> = vec![
        (nullable("t", time.data_type().clone()), Arc::new(time)),
        (nullable("at", utc.data_type().clone()), Arc::new(utc)),
    ];
    let path = desk.write_parquet("t.parquet", columns);
    let expected = json!({"t": "00:00:02", "at": "1970-01-01T00:00:00.000001Z"});
    desk.check("time", &input("parquet", &path), &[expected]);
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let column = vec![(nullable("t", DataType::Int64), whole)];
    let other = desk.write_parquet("whole.parquet", column);
    let both = json!({ "format": "parquet", "uri": [path, other], "columns": ["t"] });
    desk.check_refused("both", &both, &["of type int64", "of type time-of-day"]);
}

#[test]
fn folders_may_have_names_like_patterns() {
    let desk = Desk::new();
    let path = desk.write("d[1] *?/in.csv", "a\n1\n");
    let jobs = path.parent().expect("a folder");
    let file = |name: &str, input: &str, out: &str| {
        let text = format!(
            "name = \"brackets\"\n[input.rows]\nformat = \"{input}\"\nuri = \"{}\"\n[[stage]]\nname = \"passed\"\nfrom = \"rows\"\nmap = \"mirror/pass\"\n[output.passed]\nfrom = \"passed\"\nformat = \"parquet\"\nuri = \"{out}/\"\n",
            if input == "csv" { "in.csv" } else { "first/" }
        );
        let path = jobs.join(name);
        fs::write(&path, text).expect("it writes");
        path
    };
    for (name, input, out) in [("1.toml", "csv", "first"), ("2.toml", "parquet", "second")] {
        let path = file(name, input, out);
        let ran = desk
            .server
            .cli(&["run", path.to_str().expect("text")])
            .output();
        let ran = ran.expect("it runs");
        assert!(
            ran.status.success(),
            "{}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
}

#[test]
fn an_output_may_read_an_input() {
    let desk = Desk::new();
    let path = desk.write("in.csv", "a,b\n1,x\n2,\n");
    let out = |name: &str| desk.place.path(name);
    let job = json!({
        "name": "conversion",
        "input": { "rows": { "format": "csv", "uri": path, "bad_records": { "dead_letter": out("bad") } } },
        "output": {
            "json": { "from": "rows", "format": "json", "uri": out("json") },
            "parquet": { "from": "rows", "format": "parquet", "uri": out("parquet") },
        },
    });
    let ended = job::run(&desk.server, &job);
    assert_eq!(ended["stages"][0]["name"], "rows", "{ended:#}");
    let expected = [json!({"a": 1, "b": "x"}), json!({"a": 2})];
    assert_eq!(written(&out("json")), expected);
    let name = out("parquet").join("part-rows-00000.parquet");
    assert!(name.is_file(), "{}", name.display());
    let receipt = format!("/v1/jobs/{}/receipt", job::id_of(&ended));
    let receipt = desk.server.ask(&Request::get(&receipt)).ok();
    let usage = desk.server.ask(&Request::get("/v1/usage")).ok();
    assert_eq!(
        receipt["amount_micro"], usage["amount_micro"],
        "bills add up"
    );
}
