use serde_json::{Value, json};

use super::*;

fn weblog() -> Value {
    json!({
        "name": "weblog-daily",
        "limits": { "memory": "64MiB" },
        "input": { "logs": { "format": "text", "uri": "/data/access-*.log" } },
        "stage": [
            { "name": "visits", "from": "logs", "map": "weblog/parse" },
            { "name": "daily", "from": "visits", "shuffle": { "keys": ["day"], "partitions": 8 }, "combine": "weblog/daily-partial", "reduce": "weblog/daily" },
        ],
        "output": { "daily": { "from": "daily", "format": "parquet", "uri": "file:///out/daily/", "partition_by": [], "mode": "error" } },
    })
}

#[track_caller]
fn check(change: impl FnOnce(&mut Value), expected: &[(&str, &str)]) {
    let mut document = weblog();
    change(&mut document);
    let problem = decode(&document).expect_err("the document is wrong");
    let found: Vec<(String, String)> = problem
        .errors
        .iter()
        .map(|e| {
            (
                e.path.clone(),
                format!("{} {}", e.message, e.suggestion.clone().unwrap_or_default()),
            )
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((path, message), (expected_path, part)) in found.iter().zip(expected) {
        assert!(
            path == expected_path && message.contains(part),
            "{path}: {message}, expected {expected_path}: {part}"
        );
    }
}

#[test]
fn a_good_document_decodes() {
    let spec = decode(&weblog()).expect("it is right");
    assert_eq!(spec.limits.memory_bytes, 64 << 20);
    assert_eq!(spec.stages[1].limits.memory_bytes, 64 << 20);
    assert_eq!(spec.outputs[0].path(), Some("/out/daily/"));
    assert_eq!(
        spec.functions(),
        ["weblog/parse", "weblog/daily-partial", "weblog/daily"]
    );
    let bytes = serde_json::to_vec(&spec).expect("it serialises");
    assert_eq!(
        serde_json::from_slice::<JobSpec>(&bytes).expect("and comes back"),
        spec
    );
}

#[test]
fn unknown_keys_name_the_path_and_the_nearest_key() {
    check(
        |d| d["stage"][1]["shufle"] = json!({}),
        &[("stage[1].shufle", "shuffle")],
    );
    check(
        |d| d["stage"][1]["shuffle"]["partition"] = json!(3),
        &[("stage[1].shuffle.partition", "partitions")],
    );
    check(|d| d["outputs"] = json!({}), &[("outputs", "output")]);
    check(
        |d| d["stage"][0]["count"] = json!(3),
        &[("stage[0].count", "set of tasks")],
    );
}

#[test]
fn everything_wrong_is_listed_at_once() {
    check(
        |d| {
            d["limits"]["memory"] = json!("lots");
            d["input"]["logs"]["format"] = json!("cvs");
            d["stage"][1]["from"] = json!("visit");
            d["output"]["daily"]["from"] = json!("dayly");
        },
        &[
            ("limits.memory", "not a size"),
            ("input.logs.format", "csv"),
            ("stage[1].from", "visits"),
            ("output.daily.from", "daily"),
        ],
    );
    // What follows from an error is none of its own.
    check(
        |d| d["output"]["daily"]["uri"] = json!("ftp://bucket/daily/"),
        &[("output.daily.uri", "`ftp://` is not offered")],
    );
    check(
        |d| d["stage"][1]["from"] = json!(["visits", "visits"]),
        &[("stage[1].from", "must be text, not a list")],
    );
    check(
        |d| drop(d.as_object_mut().map(|d| d.remove("output"))),
        &[("stage[1]", "nothing reads the rows of `daily`")],
    );
}

#[test]
fn paths_have_params_of_the_job() {
    let mut document = weblog();
    document["params"] = json!({ "date": "2026-11-29" });
    document["input"]["logs"]["uri"] = json!("/data/day=${date}/*.log");
    document["output"]["daily"]["uri"] = json!("/out/${date}/");
    let spec = decode(&document).expect("it is right");
    assert_eq!(spec.inputs[0].uris, ["/data/day=2026-11-29/*.log"]);
    assert_eq!(spec.outputs[0].path(), Some("/out/2026-11-29/"));
    document["input"]["logs"]["uri"] = json!("s3://lake//day=${date}/*.log");
    let spec = decode(&document).expect("it is right");
    assert_eq!(spec.inputs[0].uris, ["s3://lake/day=2026-11-29/*.log"]);
    check(
        |d| d["input"]["logs"]["uri"] = json!("s3://key:secret@lake/*.log"),
        &[("input.logs.uri", "settings alone")],
    );
    check(
        |d| {
            d["params"] = json!({ "date": "../.." });
            d["output"]["daily"]["uri"] = json!("/out/${date}/");
        },
        &[("output.daily.uri", "without `..`")],
    );
    check(
        |d| {
            d["params"] = json!({ "date": "x" });
            d["input"]["logs"]["uri"] = json!("/data/${dat}/*.log");
        },
        &[(
            "input.logs.uri",
            "`${dat}` names no param of the job ${date}",
        )],
    );
}

#[test]
fn formats_have_keys_of_their_own() {
    let mut document = weblog();
    document["input"]["logs"] = json!({
        "format": "csv", "uri": "/data/*.csv", "delimiter": ";", "quote": "",
        "schema": ["user id int64", "price decimal128(10, 2)"], "bad_records": { "dead_letter": "/out/bad" },
    });
    document["output"]["daily"]["mode"] = json!("append");
    document["output"]["daily"]["partition_by"] = json!(["day"]);
    let spec = decode(&document).expect("it is right");
    let InputFormat::Csv(csv) = &spec.inputs[0].format else {
        panic!("{:?}", spec.inputs[0]);
    };
    assert_eq!((csv.header, csv.delimiter, csv.quote), (true, b';', None));
    assert_eq!(csv.columns[0].name, "user id");
    let decimal = ColumnType::Decimal128 {
        precision: 10,
        scale: 2,
    };
    assert_eq!(csv.columns[1].data_type, decimal);
    let dead = spec
        .outputs
        .iter()
        .find(|output| spec.is_dead_letters(output));
    assert_eq!(dead.and_then(OutputSpec::path), Some("/out/bad"));

    let csv = |key: &str, value: Value| {
        let key = key.to_owned();
        move |d: &mut Value| {
            d["input"]["logs"]["format"] = json!("csv");
            d["input"]["logs"][key] = value;
        }
    };
    check(
        csv("schema", json!([])),
        &[("input.logs.schema", "names no column")],
    );
    check(
        |d| d["output"]["daily"]["partition_by"] = json!(["day", "page", "day"]),
        &[("output.daily.partition_by", "`day` is there twice")],
    );
    check(
        |d| d["stage"][1]["shuffle"]["keys"] = json!(["day", "day"]),
        &[("stage[1].shuffle.keys", "`day` is there twice")],
    );
    check(
        csv("delimiter", json!("||")),
        &[("input.logs.delimiter", "one character")],
    );
    check(csv("quote", json!(",")), &[("input.logs.quote", "differ")]);
    check(
        csv("header", json!("yes")),
        &[("input.logs.header", "true")],
    );
    check(
        csv("encoding", json!("utf8")),
        &[("input.logs.encoding", "unknown key")],
    );
    check(
        csv("schema", json!(["hits int46"])),
        &[("input.logs.schema", "int64")],
    );
    check(
        csv("bad_records", json!({})),
        &[("input.logs.bad_records.dead_letter", "missing")],
    );
}

#[test]
fn graphs_that_cannot_run_are_refused() {
    check(
        |d| d["stage"][0]["from"] = json!("daily"),
        &[
            ("stage[0].from", "its own rows"),
            ("stage[1].from", "its own rows"),
        ],
    );
    check(
        |d| d["stage"][1]["name"] = json!("logs"),
        &[
            ("stage[1].name", "taken"),
            ("stage[0].from", "its own rows"),
            ("stage[1].from", "its own rows"),
            ("output.daily.from", "there is no input or stage `daily`"),
        ],
    );
    check(
        |d| d["input"]["logs"]["uri"] = json!("data/../../etc/passwd"),
        &[("input.logs.uri", "absolute path")],
    );
    check(
        |d| d["stage"][0]["map"] = json!("weblog"),
        &[("stage[0].map", "component/function")],
    );
    check(
        |d| d["stage"][0]["task"] = json!("weblog/x"),
        &[("stage[0]", "one of")],
    );
}

/// Adds a stage that joins the rows of `daily` with an input, and writes them in its place.
fn join(document: &mut Value) -> &mut Value {
    document["input"]["users"] = json!({ "format": "parquet", "uri": "/data/users/*.parquet" });
    document["output"]["daily"]["from"] = json!("joined");
    let stages = document["stage"].as_array_mut().expect("a list");
    stages.push(json!({ "name": "joined", "from": ["daily", "users"], "sql": "SELECT * FROM daily NATURAL JOIN users" }));
    stages.last_mut().expect("it was added")
}

#[test]
fn sql_stages_read_several() {
    let mut document = weblog();
    let stage = join(&mut document);
    stage["folder"] = json!("file:///jobs/./daily");
    stage["partitions"] = json!(4);
    let spec = decode(&document).expect("it is right");
    let expected = Work::Sql {
        sql: "SELECT * FROM daily NATURAL JOIN users".into(),
        from: vec!["daily".into(), "users".into()],
        folder: Some("/jobs/daily".into()),
        partitions: Some(4),
        functions: Vec::new(),
    };
    let joined = &spec.stages[2];
    assert_eq!((&joined.work, &joined.from), (&expected, &None));
    assert_eq!(joined.reads().collect::<Vec<_>>(), ["daily", "users"]);
    assert_eq!(spec.stages[1].reads().collect::<Vec<_>>(), ["visits"]);
    assert_eq!(spec.functions().len(), 3);
    let bytes = serde_json::to_vec(&spec).expect("it serialises");
    let read = serde_json::from_slice::<JobSpec>(&bytes);
    assert_eq!(read.expect("and comes back"), spec);

    // One name, or none: a statement may read files alone.
    for from in [json!("daily"), json!([]), Value::Null] {
        let mut document = weblog();
        let stage = join(&mut document);
        match from.is_null() {
            true => drop(stage.as_object_mut().map(|stage| stage.remove("from"))),
            false => stage["from"] = from.clone(),
        }
        // Something must read the rows of each stage.
        document["output"]["visits"] =
            json!({ "from": "daily", "format": "csv", "uri": "/out/visits" });
        let spec = decode(&document).expect("it is right");
        let n_read = usize::from(from.is_string());
        assert_eq!(spec.stages[2].reads().count(), n_read, "{from}");
    }
}

#[test]
fn sql_stages_that_are_wrong_are_refused() {
    let set = |key: &'static str, value: Value| move |d: &mut Value| join(d)[key] = value;
    let check_set = |key: &'static str, value: Value, expected: (&str, &str)| {
        check(set(key, value), &[expected]);
    };
    check_set("sql", json!(3), ("stage[2].sql", "must be text"));
    check_set("sql", json!(" \n"), ("stage[2].sql", "is empty"));
    let long = "x".repeat(MAX_SQL_BYTES + 1);
    check_set("sql", json!(long), ("stage[2].sql", "262145 bytes"));
    let path = "stage[2].folder";
    check_set("folder", json!("jobs"), (path, "absolute path"));
    let path = "stage[2].partitions";
    check_set("partitions", json!(0), (path, "from 1 to 10000"));
    for (key, value) in [
        ("map", json!("weblog/parse")),
        ("shuffle", json!({ "keys": ["day"] })),
        ("combine", json!("weblog/daily-partial")),
    ] {
        check_set(key, value, ("stage[2]", "one of"));
    }
    // Keys of SQL stages in others.
    check(
        |d| d["stage"][0]["folder"] = json!("/jobs"),
        &[("stage[0].folder", "with `sql`")],
    );
    check(
        |d| d["stage"][1]["partitions"] = json!(8),
        &[("stage[1].partitions", "belongs to `shuffle`")],
    );
    check(
        |d| d["stage"][1]["join"] = json!("visits"),
        &[("stage[1].join", "written in SQL")],
    );
}

#[test]
fn unions_read_several() {
    let of = |stage: Value| {
        move |document: &mut Value| {
            let joined = join(document);
            *joined = stage.clone();
            joined["name"] = json!("joined");
        }
    };
    let mut document = weblog();
    of(json!({ "union": ["daily", "users"], "partitions": 2 }))(&mut document);
    let spec = decode(&document).expect("it is right");
    let expected = Work::Union {
        from: vec!["daily".into(), "users".into()],
        partitions: Some(2),
    };
    assert_eq!(spec.stages[2].work, expected);
    assert_eq!(
        spec.stages[2].reads().collect::<Vec<_>>(),
        ["daily", "users"]
    );

    let path = "stage[2].union";
    check(
        of(json!({ "union": ["daily"] })),
        &[(path, "less than two")],
    );
    check(
        of(json!({ "union": ["daily", "daily"] })),
        &[(path, "`daily` is there twice")],
    );
    check(
        of(json!({ "union": ["daily", "usrs"] })),
        &[(path, "`usrs` users")],
    );
    check(
        of(json!({ "union": ["daily", "joined"] })),
        &[(path, "by way of `joined`, its own rows")],
    );
    check(
        of(json!({ "union": ["daily", "users"], "from": "daily" })),
        &[("stage[2].from", "leave it out")],
    );
    check(
        of(json!({ "union": ["daily", "users"], "folder": "/a" })),
        &[("stage[2].folder", "with `sql`")],
    );
    for (key, value) in [("map", "weblog/parse"), ("sql", "SELECT 1 AS a")] {
        let mut stage = json!({ "union": ["daily", "users"] });
        stage[key] = json!(value);
        if key == "sql" {
            stage["from"] = json!(["daily", "users"]);
        }
        check(of(stage), &[("stage[2]", "one of")]);
    }
}

#[test]
fn sql_stages_read_what_there_is() {
    let from = |names: &'static [&'static str]| move |d: &mut Value| join(d)["from"] = json!(names);
    let path = "stage[2].from";
    check(
        from(&["daly", "users", "usrs"]),
        &[(path, "`daly` daily"), (path, "`usrs` users")],
    );
    check(
        from(&["daily", "daily"]),
        &[(path, "`daily` is there twice")],
    );
    check(
        |d| join(d)["from"] = json!(vec!["x"; 321]),
        &[(path, "321 names; a job has 320")],
    );
    check(
        |d| join(d)["from"] = json!({ "daily": 1 }),
        &[(path, "text or a list of texts")],
    );
    check(
        from(&["daily", "joined"]),
        &[(path, "by way of `joined`, its own rows")],
    );
    // Around, by way of one of several: the stages of the cycle are told, and the one behind it is not.
    check(
        |d| {
            join(d)["from"] = json!(["users", "daily"]);
            d["stage"][0] =
                json!({ "name": "visits", "from": ["logs", "joined"], "sql": "SELECT 1" });
            let behind = json!({ "name": "behind", "from": "joined", "sql": "SELECT 1" });
            d["stage"].as_array_mut().expect("a list").push(behind);
        },
        &[
            ("stage[0].from", "by way of `joined`, its own rows"),
            ("stage[1].from", "by way of `visits`, its own rows"),
            (path, "by way of `daily`, its own rows"),
        ],
    );
}

#[test]
fn function_references() {
    assert_eq!(
        FunctionRef::parse("a/b"),
        Some(FunctionRef {
            component: "a".into(),
            version: None,
            function: "b".into()
        })
    );
    assert_eq!(
        FunctionRef::parse("a@1.0.0-dev/b-c").and_then(|f| f.version),
        Some("1.0.0-dev".into())
    );
    for bad in ["a", "a/", "/b", "a@1/b", "A/b", "a/b/c"] {
        assert_eq!(FunctionRef::parse(bad), None, "{bad}");
    }
}

#[test]
fn columns_have_nested_types() {
    let parse = |text: &str| {
        ColumnSpec::parse(text).map(|column| (column.name, column.data_type.to_string()))
    };
    for (text, name, data_type) in [
        ("user id int64", "user id", "int64"),
        (
            "user struct(name utf8, tags list(utf8))",
            "user",
            "struct(name utf8, tags list(utf8))",
        ),
        (
            "a b list( decimal128(10,2) )",
            "a b",
            "list(decimal128(10, 2))",
        ),
        ("m list (list(int8))", "m", "list(list(int8))"),
    ] {
        assert_eq!(
            parse(text),
            Some((name.to_owned(), data_type.to_owned())),
            "{text}"
        );
    }
    for wrong in [
        "int64",
        "x list(utf8",
        "x list()",
        "x struct()",
        "x struct(a utf8, a utf8)",
        "x struct(utf8)",
        "x decimal128(39, 0)",
        &format!("x {}int8{}", "list(".repeat(17), ")".repeat(17)),
    ] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
}

#[test]
fn json_says_what_happens_to_unknown_fields() {
    let json = |key: &str, value: Value| {
        let key = key.to_owned();
        move |d: &mut Value| {
            d["input"]["logs"]["format"] = json!("json");
            d["input"]["logs"][key] = value;
        }
    };
    let mut document = weblog();
    json("unknown_fields", json!("rest"))(&mut document);
    let spec = decode(&document).expect("it is right");
    let InputFormat::Json { unknown_fields, .. } = spec.inputs[0].format else {
        panic!("{:?}", spec.inputs[0]);
    };
    assert_eq!(unknown_fields, UnknownFields::Rest);
    check(
        json("unknown_fields", json!("drop")),
        &[("input.logs.unknown_fields", "`drop` is not one of")],
    );
    check(
        |d| {
            json("unknown_fields", json!("rest"))(d);
            d["input"]["logs"]["schema"] = json!(["rest utf8"]);
        },
        &[("input.logs.schema", "the column `rest` is made by")],
    );
    check(
        |d| {
            d["input"]["logs"]["format"] = json!("csv");
            d["input"]["logs"]["schema"] = json!(["tags list(utf8)"]);
        },
        &[("input.logs.schema", "which CSV cannot hold")],
    );
}

#[test]
fn values_of_a_filter_may_be_quoted() {
    for (text, expected) in [
        ("name = 'it''s'", "it's"),
        ("name = ''", ""),
        ("name = it's", "it's"),
        ("name = '", "'"),
        ("n >= 5", "5"),
    ] {
        let comparison: Comparison = text.parse().expect("a comparison");
        assert_eq!(comparison.value, expected, "{text}");
    }
}

#[test]
fn an_output_without_a_folder_is_kept_by_the_cluster() {
    let mut document = weblog();
    document["output"]["daily"] = json!({ "from": "daily" });
    document["output"]["visits"] = json!({ "from": "visits", "format": "csv" });
    let mut spec = decode(&document).expect("it is right");
    for (output, format) in spec
        .outputs
        .iter()
        .zip([OutputFormat::Arrow, OutputFormat::Csv])
    {
        assert_eq!((output.path(), output.format), (None, format));
        assert_eq!(output.max_kept_bytes(), Some(MAX_KEPT_BYTES));
    }
    spec.bound_kept(7);
    assert_eq!(spec.outputs[0].max_kept_bytes(), Some(7));
    let bytes = serde_json::to_vec(&spec).expect("it serialises");
    let read: JobSpec = serde_json::from_slice(&bytes).expect("and comes back");
    assert_eq!(read, spec);

    let set = |key: &str, value: Value| {
        let key = key.to_owned();
        move |d: &mut Value| {
            d["output"]["daily"] = json!({ "from": "daily" });
            d["output"]["daily"][key] = value;
        }
    };
    for (key, value) in [("mode", json!("append")), ("partition_by", json!(["day"]))] {
        let path = format!("output.daily.{key}");
        check(set(key, value), &[(path.as_str(), "needs a `uri`")]);
    }
    check(
        set("uri", json!(3)),
        &[
            ("output.daily.uri", "must be text"),
            ("output.daily.format", "is missing"),
        ],
    );
}

/// A job of one set of tasks, whose stage has these keys, too.
fn tasks(keys: Value) -> Value {
    let mut stage = json!({ "name": "set", "task": "hello/echo" });
    if let (Value::Object(stage), Value::Object(keys)) = (&mut stage, keys) {
        stage.extend(keys);
    }
    json!({
        "name": "tasks",
        "input": { "rows": { "format": "csv", "uri": "/data/rows.csv" } },
        "stage": [stage],
        "output": { "results": { "from": "set" } },
    })
}

#[test]
fn sets_of_tasks_have_an_input_or_run_for_rows() {
    let work = |keys: Value| {
        let spec = decode(&tasks(keys)).expect("it is right");
        let bytes = serde_json::to_vec(&spec).expect("it serialises");
        let again: JobSpec = serde_json::from_slice(&bytes).expect("and comes back");
        assert_eq!(again, spec);
        let stage = spec.stages.into_iter().next().expect("one");
        let reads: Vec<String> = stage.reads().map(str::to_owned).collect();
        (stage.work, reads)
    };
    let function = || "hello/echo".to_owned();
    let set = |input: &[u8]| Work::Tasks {
        function: function(),
        count: 3,
        input: input.to_vec(),
    };
    assert_eq!(work(json!({ "count": 3 })), (set(b""), vec![]));
    let text = json!({ "count": 3, "input": "hi" });
    assert_eq!(work(text), (set(b"hi"), vec![]));
    let base64 = json!({ "count": 3, "input_base64": "/wA=" });
    assert_eq!(work(base64), (set(b"\xff\0"), vec![]));
    let each = |each, partitions| Work::ForEach {
        function: function(),
        each,
        partitions,
    };
    let rows = || vec!["rows".to_owned()];
    let row = json!({ "for_each": "rows" });
    assert_eq!(work(row), (each(EachInput::Row, None), rows()));
    let row = json!({ "for_each": "rows", "each": "row", "partitions": 5 });
    assert_eq!(work(row), (each(EachInput::Row, Some(5)), rows()));
    let batch = json!({ "for_each": "rows", "each": "batch" });
    let of = |rows| EachInput::Batch { rows };
    assert_eq!(work(batch), (each(of(1_024), None), rows()));
    let batch = json!({ "for_each": "rows", "each": "batch", "batch_rows": 7 });
    assert_eq!(work(batch), (each(of(7), None), rows()));
}

/// Sets of tasks as earlier releases wrote them.
#[test]
fn sets_of_tasks_of_earlier_releases_are_read() {
    let earlier = json!({ "tasks": { "function": "hello/noop", "count": 2 } });
    let work: Work = serde_json::from_value(earlier.clone()).expect("it is read");
    assert_eq!(serde_json::to_value(work).expect("and written"), earlier);
}

#[test]
fn sets_of_tasks_that_say_too_much_or_too_little_are_refused() {
    let refused = |keys: Value, expected: &[(&str, &str)]| {
        check(|document| *document = tasks(keys.clone()), expected);
    };
    refused(json!({}), &[("stage[0].count", "is missing")]);
    refused(json!({ "count": 0 }), &[("stage[0].count", "from 1 to")]);
    refused(
        json!({ "count": 1, "from": "rows" }),
        &[("stage[0].from", "for_each")],
    );
    refused(
        json!({ "for_each": "row" }),
        &[("stage[0].for_each", "rows")],
    );
    refused(
        json!({ "for_each": "set" }),
        &[("stage[0].for_each", "its own rows")],
    );
    refused(
        json!({ "for_each": ["rows"] }),
        &[("stage[0].for_each", "must be text")],
    );
    refused(
        json!({ "for_each": "rows", "from": "rows" }),
        &[("stage[0].from", "leave it out")],
    );
    let leave_out = "a task for each row";
    refused(
        json!({ "for_each": "rows", "count": 2, "input": "x" }),
        &[("stage[0].count", leave_out), ("stage[0].input", leave_out)],
    );
    refused(
        json!({ "for_each": "rows", "each": "bach" }),
        &[("stage[0].each", "batch")],
    );
    refused(
        json!({ "for_each": "rows", "batch_rows": 2 }),
        &[("stage[0].batch_rows", "each = \"batch\"")],
    );
    refused(
        json!({ "count": 1, "each": "row" }),
        &[("stage[0].each", "with `for_each`")],
    );
    refused(
        json!({ "count": 1, "partitions": 2 }),
        &[("stage[0].partitions", "`for_each`")],
    );
    refused(
        json!({ "for_each": "rows", "map": "hello/greet" }),
        &[("stage[0]", "one of")],
    );
    refused(
        json!({ "count": 1, "input": "x", "input_base64": "eA==" }),
        &[("stage[0].input_base64", "leave one out")],
    );
    refused(
        json!({ "count": 1, "input_base64": "?" }),
        &[("stage[0].input_base64", "not base64")],
    );
    let long = "x".repeat(MAX_TASK_INPUT_BYTES + 1);
    refused(
        json!({ "count": 1, "input": long }),
        &[("stage[0].input", "262145 bytes")],
    );
    check(
        |d| d["stage"][0]["for_each"] = json!("logs"),
        &[
            ("stage[0].from", "leave it out"),
            ("stage[0]", "one of"),
            ("stage[0].task", "is missing"),
        ],
    );
}
