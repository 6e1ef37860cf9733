//! Tables and views as statements read them, and the statements that make them.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::ipc::writer::FileWriter;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weft_core::JobId;
use weft_core::job::{BadRecords, InputFormat, OutputFormat, OutputMode, decode};
use weft_protocol::{
    Extended, IfTaken, MAX_KEPT_PARTS, Plan, PlanRequest, TableChange, TableStatement,
    kept_output_key,
};
use weft_sql::Session;
use weft_store::{Grants, MANIFEST, Remote};

use super::*;
use crate::planner::Directive;

/// A folder with files, and tables of a tenant.
struct Desk {
    folder: TempDir,
    /// The cluster's store.
    blobs: Blobs,
    tables: BTreeMap<String, String>,
}

type Planned = (Plan, Option<TableStatement>, Vec<(String, Vec<String>)>);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("a.csv", "x\n1\n"), ("b.csv", "y\n2\n")] {
            std::fs::write(folder.path().join(name), text).expect("it writes");
        }
        let blobs = Blobs::local(&folder.path().join("store")).expect("a folder");
        Self {
            folder,
            blobs,
            tables: BTreeMap::new(),
        }
    }

    /// The same in a cluster whose store is a bucket.
    fn in_bucket() -> Self {
        let remote = Remote::in_memory("s3://cluster/weft").expect("it opens");
        Self {
            blobs: Blobs::of_remote(remote, Grants::default()),
            ..Self::new()
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn plan(&self, sql: &str, extra: Value) -> Result<Planned, Problem> {
        let mut document = json!({
            "name": "query",
            "stage": [{ "name": "query", "sql": sql, "folder": self.path() }],
        });
        if let (Some(document), Value::Object(extra)) = (document.as_object_mut(), extra) {
            document.extend(extra);
        }
        let request = PlanRequest {
            job: JobId::new(1, 2),
            spec: decode(&document)?,
            functions: Vec::new(),
            artefacts: BTreeMap::new(),
            started_ms: 0,
            check: true,
            tables: self.tables.clone(),
            max_kept_bytes: 4_000,
        };
        let blobs = &self.blobs;
        let (session, cancel) = (Session::new(), CancellationToken::new());
        let directive = Directive::of(&request, &session, blobs).await?;
        let request = directive.as_ref().map_or(&request, Directive::request);
        let mut planner = Planner::new(request, blobs, HashMap::new(), &session, cancel);
        let (plan, statement) = planner.plan_job(directive.as_ref()).await?;
        let columns = planner.columns.into_iter().map(|of| {
            let names = of.columns.into_iter().map(|(name, _)| name);
            (of.of, names.collect())
        });
        Ok((plan, statement, columns.collect()))
    }

    /// Names of the columns of a query's rows.
    async fn columns(&self, sql: &str) -> Result<Vec<String>, Problem> {
        let output = json!({ "output": { "out": {
            "from": "query", "format": "arrow", "uri": self.path().join("out"),
        } } });
        let (_, statement, columns) = self.plan(sql, output).await?;
        assert_eq!(statement, None, "{sql} is a query");
        let of_query = columns.into_iter().find(|(of, _)| of == "query");
        Ok(of_query.expect("it was planned").1)
    }

    /// Plans a statement that changes tables.
    async fn change(&self, sql: &str) -> Result<TableChange, Problem> {
        let (_, statement, _) = self.plan(sql, json!({})).await?;
        let change = statement.and_then(|statement| statement.change);
        Ok(change.expect("it changes tables"))
    }

    /// Makes a table or view, as the control plane would.
    async fn create(&mut self, sql: &str) -> Result<(), Problem> {
        match self.change(sql).await? {
            TableChange::Put {
                name, definition, ..
            } => drop(self.tables.insert(name, definition)),
            TableChange::Drop { .. } => panic!("{sql} drops"),
        }
        Ok(())
    }

    /// Makes a table `t` of a column `x` whose rows the cluster keeps, each of another job. Returns their bytes.
    async fn keep(&mut self, jobs: &[JobId]) -> u64 {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("x", column)]).expect("a column");
        let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).expect("it opens");
        writer.write(&batch).expect("it writes");
        let file = writer.into_inner().expect("it ends");
        let bytes = file.len() as u64;
        for job in jobs {
            let folder = kept_output_key(job, "table");
            let manifest = json!({
                "job": job, "output": "table", "format": "arrow", "schema": [["x", "int64"]],
                "rows": 1, "bytes": bytes,
                "files": [{ "name": "part-0.arrow", "rows": 1, "bytes": bytes, "xxh3": "0" }],
            });
            let manifest = manifest.to_string().into_bytes();
            for (name, object) in [("part-0.arrow", file.clone()), (MANIFEST, manifest)] {
                let put = self.blobs.put(&format!("{folder}/{name}"), object).await;
                put.expect("it is written");
            }
        }
        let (first, added) = jobs.split_first().expect("a job");
        let definition = Definition::Kept {
            job: first.clone(),
            output: "table".into(),
            added: added.to_vec(),
            columns: Vec::new(),
        };
        let definition = definition.text().expect("it is plain data");
        self.tables.insert("t".into(), definition);
        bytes * jobs.len() as u64
    }

    #[track_caller]
    fn check(problem: &Problem, code: ErrorCode, words: &[&str]) {
        assert_eq!(problem.code, code, "{problem}");
        for word in words {
            assert!(problem.detail.contains(word), "`{word}`: {problem}");
        }
    }
}

#[tokio::test]
async fn views_read_views_tables_and_paths() {
    let mut desk = Desk::new();
    for sql in [
        "CREATE EXTERNAL TABLE a STORED AS CSV LOCATION 'a.csv'",
        "CREATE VIEW v AS SELECT x, x + 1 AS next FROM a",
        "CREATE VIEW w (one, two) AS SELECT v.x, b.y FROM v CROSS JOIN 'b.csv' AS b",
    ] {
        desk.create(sql).await.expect(sql);
    }
    assert_eq!(
        desk.columns("SELECT * FROM v").await,
        Ok(vec!["x".into(), "next".into()])
    );
    assert_eq!(
        desk.columns("SELECT w.*, v.next FROM w JOIN v ON v.x = w.one")
            .await,
        Ok(vec!["one".into(), "two".into(), "next".into()])
    );
}

#[tokio::test]
async fn names_of_the_stage_come_first_then_the_tenants_then_paths() {
    let mut desk = Desk::new();
    desk.create("CREATE VIEW a AS SELECT 1 AS of_tenant")
        .await
        .expect("a view");
    desk.create("CREATE VIEW above AS SELECT * FROM a")
        .await
        .expect("a view");
    desk.create("CREATE VIEW \"a.csv\" AS SELECT 1 AS of_tenant")
        .await
        .expect("a view");
    let columns = |sql: &'static str| desk.columns(sql);
    assert_eq!(
        columns("SELECT * FROM 'a.csv'").await,
        Ok(vec!["of_tenant".into()])
    );
    assert_eq!(
        columns("SELECT * FROM './a.csv'").await,
        Ok(vec!["x".into()])
    );
    let stages = json!({
        "input": { "a": { "format": "csv", "uri": desk.path().join("b.csv") } },
        "stage": [
            { "name": "query", "sql": "SELECT a.*, above.* FROM a CROSS JOIN above", "from": ["a"] },
        ],
        "output": { "out": { "from": "query", "format": "arrow", "uri": desk.path().join("out") } },
    });
    let (_, _, columns) = desk.plan("", stages).await.expect("it is planned");
    let of_query = columns.into_iter().find(|(of, _)| of == "query");
    // A view reads what it read when it was created, whatever its reader calls `a`.
    let expected = vec!["y".to_owned(), "of_tenant".to_owned()];
    assert_eq!(of_query.map(|(_, columns)| columns), Some(expected));
}

#[tokio::test]
async fn a_wrong_view_is_refused_when_it_is_created() {
    let mut desk = Desk::new();
    for (sql, code, words) in [
        (
            "CREATE VIEW v AS SELECT none FROM 'a.csv'",
            ErrorCode::InvalidJob,
            &["none"][..],
        ),
        (
            "CREATE VIEW v AS SELECT * FROM none",
            ErrorCode::InvalidJob,
            &["no table `none`"],
        ),
        (
            "CREATE VIEW v AS SELECT * FROM v",
            ErrorCode::InvalidJob,
            &["its own rows"],
        ),
        (
            "CREATE VIEW v AS SELECT 1 AS a, 2 AS a",
            ErrorCode::InvalidJob,
            &["name"],
        ),
        (
            "CREATE VIEW v (a, b) AS SELECT 1",
            ErrorCode::InvalidJob,
            &[],
        ),
        (
            "CREATE VIEW v AS SELECT * FROM 'none.csv'",
            ErrorCode::NoInput,
            &["none.csv"],
        ),
    ] {
        let problem = desk.change(sql).await.expect_err(sql);
        Desk::check(&problem, code, words);
        assert!(problem.detail.contains("stage `query`"), "{problem}");
    }
    desk.create("CREATE VIEW one AS SELECT 1 AS a")
        .await
        .expect("a view");
    desk.create("CREATE VIEW two AS SELECT * FROM one")
        .await
        .expect("a view");
    let sql = "CREATE OR REPLACE VIEW one AS SELECT * FROM two";
    let problem = desk.change(sql).await.expect_err("a circle");
    Desk::check(
        &problem,
        ErrorCode::InvalidJob,
        &["`one` would read, by way of `two`, its own rows"],
    );
}

/// A view as the control plane keeps it, whatever it reads.
fn view(sql: &str) -> String {
    let view = Definition::View {
        sql: sql.into(),
        folder: None,
        columns: Vec::new(),
    };
    view.text().expect("it is plain data")
}

#[tokio::test]
async fn views_that_became_a_circle_are_refused_when_they_are_read() {
    let mut desk = Desk::new();
    desk.tables.insert("one".into(), view("SELECT * FROM two"));
    desk.tables.insert("two".into(), view("SELECT * FROM one"));
    let refused = desk.columns("SELECT * FROM one").await;
    let problem = refused.expect_err("a circle");
    let words = ["`one`", "by way of `two`", "its own rows"];
    Desk::check(&problem, ErrorCode::InvalidJob, &words);
}

/// Runs `check` on a stack of the size that executors give to planning: threads of tests have 2 MiB.
fn with_stack<F: Future<Output = ()>>(check: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(check());
        };
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        let thread = thread.spawn_scoped(scope, run).expect("a thread starts");
        thread.join().expect("the check holds");
    });
}

#[test]
fn depth_of_views_is_bounded() {
    with_stack(|| async {
        let mut desk = Desk::new();
        desk.tables.insert("v1".into(), view("SELECT 1 AS a"));
        for level in 2..=MAX_VIEW_DEPTH {
            let below = view(&format!("SELECT * FROM v{}", level - 1));
            desk.tables.insert(format!("v{level}"), below);
        }
        let deepest = format!("SELECT * FROM v{MAX_VIEW_DEPTH}");
        assert_eq!(desk.columns(&deepest).await, Ok(vec!["a".into()]));
        let refused = desk.change(&format!("CREATE VIEW more AS {deepest}")).await;
        let problem = refused.expect_err("too deep");
        Desk::check(&problem, ErrorCode::TooLarge, &["levels of views"]);
    });
}

#[tokio::test]
async fn a_statement_is_as_large_as_all_views_that_it_reads() {
    let mut desk = Desk::new();
    desk.tables.insert("v0".into(), view("SELECT 1 AS a"));
    for power in 1..10 {
        let before = format!("v{}", power - 1);
        let twice = format!("SELECT l.a FROM {before} AS l, {before}");
        desk.tables.insert(format!("v{power}"), view(&twice));
    }
    assert_eq!(desk.columns("SELECT * FROM v2").await, Ok(vec!["a".into()]));
    let refused = desk.columns("SELECT * FROM v9").await;
    let problem = refused.expect_err("it doubles each time");
    Desk::check(
        &problem,
        ErrorCode::TooLarge,
        &["with its views", "tables and selects"],
    );
}

#[tokio::test]
async fn external_tables_are_inputs() {
    let desk = Desk::new();
    let sql = "CREATE EXTERNAL TABLE t (\"X\" BIGINT) STORED AS CSV LOCATION '*.csv' \
               OPTIONS (has_header false, delimiter ';', bad_records 'skip')";
    let TableChange::Put {
        name,
        kind,
        definition,
        if_taken,
        extends: None,
    } = desk.change(sql).await.expect("a table")
    else {
        panic!("it drops");
    };
    assert_eq!(
        (&*name, kind, if_taken),
        ("t", TableKind::Table, IfTaken::Refuse)
    );
    let Definition::Files { input, columns, .. } =
        Definition::read("t", &definition).expect("JSON")
    else {
        panic!("it is a view");
    };
    assert_eq!(
        columns,
        [ColumnText {
            name: "X".into(),
            r#type: "int64".into()
        }]
    );
    let InputFormat::Csv(csv) = &input.format else {
        panic!("{input:?}");
    };
    assert_eq!((csv.header, csv.delimiter), (false, b';'));
    assert_eq!(input.bad_records, BadRecords::Skip);
    assert_eq!(input.uris, [format!("{}/*.csv", desk.path().display())]);

    for (sql, words) in [
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'a.csv' OPTIONS (colour 'red')",
            "colour",
        ),
        (
            "CREATE EXTERNAL TABLE t STORED AS AVRO LOCATION 'a.csv'",
            "format",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INTERVAL) STORED AS CSV LOCATION 'a.csv'",
            "type",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT) STORED AS PARQUET LOCATION 'a.csv'",
            "leave the list out",
        ),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/a.csv'",
            "s3://",
        ),
    ] {
        let problem = desk.change(sql).await.expect_err(sql);
        assert!(problem.detail.contains(words), "{sql}: {problem}");
    }
}

#[tokio::test]
async fn a_location_finds_no_files_with_other_endings() {
    let desk = Desk::new();
    std::fs::write(desk.path().join("a.csv.bak"), "x\n0\n").expect("it writes");
    std::fs::remove_file(desk.path().join("b.csv")).expect("it is there");
    let create = async |location: &str| {
        let sql = format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION {location}");
        desk.change(&sql).await
    };
    for location in ["'*.csv*'", "'./'", "('a.csv', '*.csv*')"] {
        let problem = create(location).await.expect_err(location);
        Desk::check(&problem, ErrorCode::InvalidJob, &["a.csv.bak`", "*.csv"]);
    }
    for location in ["'*.csv'", "'a.csv'", "'*.bak'", "'a.csv.bak'"] {
        create(location).await.expect(location);
    }
}

#[tokio::test]
async fn headers_are_compared_when_a_table_is_created() {
    let desk = Desk::new();
    let create = async |header: &str, columns: &str| {
        for (name, text) in [("1", "x,y"), ("2", ""), ("3", "y,x"), ("4", header)] {
            let path = desk.path().join(format!("{name}.csv"));
            std::fs::write(path, format!("{text}\n")).expect("it writes");
        }
        let sql = format!("CREATE EXTERNAL TABLE t {columns} STORED AS CSV LOCATION '[1-4].csv'");
        desk.change(&sql).await
    };
    create("x,y", "").await.expect("columns in any order");
    for (header, columns, words) in [
        ("x", "", ["4.csv` has no column", "`y`"]),
        (
            "x,y,z",
            "",
            ["4.csv` has the column `z`", "List the columns"],
        ),
        ("y,z", "(x BIGINT)", ["4.csv` has no column", "`x`"]),
    ] {
        let problem = create(header, columns).await.expect_err(header);
        Desk::check(&problem, ErrorCode::SchemaMismatch, &words);
    }
    let chosen = create("x,y,z", "(x BIGINT)").await;
    chosen.expect("columns that the list leaves out may be anything");
}

#[tokio::test]
async fn folders_of_a_location_are_columns_of_the_table() {
    let mut desk = Desk::new();
    for day in [1, 2] {
        let folder = desk.path().join(format!("sales/day={day}"));
        std::fs::create_dir_all(&folder).expect("it is made");
        std::fs::write(folder.join("x.csv"), "amount\n1\n").expect("it writes");
    }
    for sql in [
        "CREATE EXTERNAL TABLE days STORED AS CSV LOCATION 'sales/day=*/'",
        "CREATE EXTERNAL TABLE files STORED AS CSV LOCATION 'sales/**/*.csv'",
        "CREATE EXTERNAL TABLE two STORED AS CSV LOCATION ('sales/day=1/', 'sales/day=2/')",
        "CREATE VIEW later AS SELECT * FROM days WHERE day > 1",
    ] {
        desk.create(sql).await.expect(sql);
    }
    for (table, expected) in [
        ("days", &["amount", "day"][..]),
        ("files", &["amount"]),
        ("two", &["amount"]),
        ("later", &["amount", "day"]),
    ] {
        let columns = desk.columns(&format!("SELECT * FROM {table}")).await;
        assert_eq!(columns.expect(table), expected, "{table}");
    }
    // The columns may be told by the statement, too: those of the folders stand behind them.
    let sql = "CREATE EXTERNAL TABLE t (amount INT) STORED AS CSV LOCATION 'sales/day=1/x.csv'";
    let change = desk.change(sql).await.expect("a table");
    let TableChange::Put { definition, .. } = change else {
        panic!("it drops");
    };
    let Definition::Files { columns, .. } = Definition::read("t", &definition).expect("JSON")
    else {
        panic!("it is a view");
    };
    let columns: Vec<_> = columns
        .iter()
        .map(|column| (&*column.name, &*column.r#type))
        .collect();
    assert_eq!(columns, [("amount", "int32"), ("day", "int64")]);
}

#[tokio::test]
async fn rows_go_to_an_output_of_the_statement() {
    let desk = Desk::new();
    let sql = "CREATE TABLE t STORED AS PARQUET LOCATION 'out/t/' AS SELECT x FROM 'a.csv'";
    let (plan, statement, _) = desk.plan(sql, json!({})).await.expect("a table");
    assert!(!plan.stages.is_empty());
    let statement = statement.expect("it changes tables");
    let path = format!("{}/out/t", desk.path().display());
    let outputs = statement.outputs.iter();
    let outputs: Vec<_> = outputs.map(|one| (one.path(), one.mode)).collect();
    assert_eq!(outputs, [(Some(&*path), OutputMode::Error)]);
    let Some(TableChange::Put { definition, .. }) = &statement.change else {
        panic!("{statement:?}");
    };
    let Definition::Files { input, columns, .. } = Definition::read("t", definition).expect("JSON")
    else {
        panic!("it is a view");
    };
    assert_eq!(input.uris, [format!("{path}/*.parquet")]);
    assert_eq!(
        columns,
        [ColumnText {
            name: "x".into(),
            r#type: "int64".into()
        }]
    );

    let copied = desk
        .plan(
            "COPY (SELECT x FROM 'a.csv') TO 'out/c' STORED AS CSV",
            json!({}),
        )
        .await;
    let (plan, statement, _) = copied.expect("rows");
    assert!(!plan.stages.is_empty());
    let statement = statement.expect("it has an output");
    assert_eq!((statement.outputs.len(), statement.change), (1, None));
    for (to, format) in [
        ("'out/d'", OutputFormat::Parquet),
        ("'out/d.csv'", OutputFormat::Csv),
        ("'out/d.csv' STORED AS JSON", OutputFormat::Json),
    ] {
        let sql = format!("COPY (SELECT 1 AS a) TO {to}");
        let (_, statement, _) = desk.plan(&sql, json!({})).await.expect("rows");
        let outputs = statement.expect("it has an output").outputs;
        assert_eq!(outputs[0].format, format, "{to}");
    }
}

#[tokio::test]
async fn a_name_that_is_there_is_kept_without_work() {
    let mut desk = Desk::new();
    desk.create("CREATE VIEW t AS SELECT 1 AS a")
        .await
        .expect("a view");
    let sql = "CREATE TABLE IF NOT EXISTS t STORED AS PARQUET LOCATION 'out/' AS SELECT 1 AS a";
    let (plan, statement, _) = desk.plan(sql, json!({})).await.expect("nothing");
    assert_eq!((plan.stages.len(), statement), (0, None));
}

#[tokio::test]
async fn such_a_statement_is_a_job_of_its_own() {
    let desk = Desk::new();
    let output = json!({ "output": { "out": {
        "from": "query", "format": "arrow", "uri": desk.path().join("out"),
    } } });
    let problem = desk
        .plan("DROP VIEW v", output)
        .await
        .expect_err("it has no rows");
    Desk::check(&problem, ErrorCode::InvalidJob, &["the output `out`"]);
    let input = json!({ "input": { "a": { "format": "csv", "uri": desk.path().join("a.csv") } } });
    let problem = desk
        .plan("DROP VIEW v", input)
        .await
        .expect_err("it is not alone");
    Desk::check(&problem, ErrorCode::InvalidJob, &["a job of its own"]);
    let problem = desk
        .plan("SELECT 1 AS a", json!({}))
        .await
        .expect_err("rows are lost");
    Desk::check(
        &problem,
        ErrorCode::InvalidJob,
        &["nothing reads the rows of `query`"],
    );
}

#[tokio::test]
async fn tables_are_listed_by_a_query() {
    let mut desk = Desk::new();
    let listed = desk.columns("SHOW TABLES").await;
    assert_eq!(listed, Ok(vec!["name".into(), "kind".into()]));
    desk.create("CREATE VIEW \"it's\" AS SELECT 1 AS a")
        .await
        .expect("a view");
    let listed = desk.columns("SHOW TABLES").await;
    assert_eq!(listed, Ok(vec!["name".into(), "kind".into()]));
}

#[tokio::test]
async fn columns_of_tables_views_and_queries_are_listed_by_a_query() {
    let mut desk = Desk::new();
    desk.create("CREATE VIEW v AS SELECT x AS \"it's\" FROM 'a.csv'")
        .await
        .expect("a view");
    let expected = || -> Vec<String> { vec!["name".into(), "type".into(), "nullable".into()] };
    for sql in [
        "DESCRIBE v",
        "DESC SELECT * FROM v CROSS JOIN 'b.csv'",
        "SHOW COLUMNS FROM 'a.csv'",
    ] {
        assert_eq!(desk.columns(sql).await, Ok(expected()), "{sql}");
        let output = json!({ "output": { "out": {
            "from": "query", "format": "arrow", "uri": desk.path().join("out"),
        } } });
        let (plan, ..) = desk.plan(sql, output).await.expect(sql);
        assert_eq!(plan.input_bytes, 0, "{sql} reads no file");
    }
    let refused = desk.columns("DESCRIBE nothing").await;
    let problem = refused.expect_err("it is not there");
    Desk::check(&problem, ErrorCode::InvalidJob, &["no table `nothing`"]);
}

#[tokio::test]
async fn rows_without_a_folder_are_kept_by_the_cluster() {
    let mut desk = Desk::new();
    let sql = "CREATE TABLE t AS SELECT x FROM 'a.csv'";
    let (_, statement, _) = desk.plan(sql, json!({})).await.expect("a table");
    let statement = statement.expect("it changes tables");
    assert_eq!(statement.outputs.len(), 1);
    assert_eq!(statement.outputs[0].path(), None);
    // The controller's bound.
    assert_eq!(statement.outputs[0].max_kept_bytes(), Some(4_000));
    let Some(TableChange::Put {
        definition, kind, ..
    }) = statement.change
    else {
        panic!("it puts no table");
    };
    let kept = Definition::Kept {
        job: JobId::new(1, 2),
        output: statement.outputs[0].name.clone(),
        added: Vec::new(),
        columns: vec![ColumnText {
            name: "x".into(),
            r#type: "int64".into(),
        }],
    };
    assert_eq!(Definition::read("t", &definition), Ok(kept));
    assert_eq!(kind, TableKind::Table);
    // Its rows are looked for in the store, where this job has not written them.
    desk.tables.insert("t".into(), definition);
    let refused = desk.columns("SELECT * FROM t").await;
    Desk::check(&refused.expect_err("no rows"), ErrorCode::NoInput, &[]);
}

/// Ids of jobs other than the one that is planned.
fn jobs(n: usize) -> Vec<JobId> {
    let first = 10;
    let ids = first..first + n as u128;
    ids.map(|number| JobId::new(1, number)).collect()
}

/// Plans an INSERT into `t`. Returns the bound of its bytes, the rows that it goes on from, and the jobs of the table.
async fn insert(desk: &Desk) -> (Option<u64>, Option<Extended>, Vec<JobId>) {
    let planned = desk.plan("INSERT INTO t VALUES (2)", json!({})).await;
    let (plan, statement, _) = planned.expect("it adds rows");
    assert!(!plan.stages.is_empty());
    let statement = statement.expect("it changes the table");
    let Some(TableChange::Put {
        definition,
        if_taken: IfTaken::Replace,
        extends,
        ..
    }) = statement.change
    else {
        panic!("it puts no table");
    };
    let Definition::Kept { job, added, .. } = Definition::read("t", &definition).expect("JSON")
    else {
        panic!("{definition}");
    };
    let bytes = statement.outputs[0].max_kept_bytes();
    (bytes, extends, parts(job, added))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_cluster_keeps_are_read_and_added_to_in_folders_and_buckets() {
    for mut desk in [Desk::new(), Desk::in_bucket()] {
        let mut expected = jobs(2);
        let bytes = desk.keep(&expected).await;
        assert_eq!(desk.columns("SELECT * FROM t").await, Ok(vec!["x".into()]));
        // All rows of the table have one bound.
        let (most, extends, now) = insert(&desk).await;
        assert_eq!(most, Some(4_000 - bytes));
        let last = expected[1].clone();
        assert_eq!(extends, Some(Extended { last, stay: true }));
        expected.push(JobId::new(1, 2));
        assert_eq!(now, expected);
    }
}

/// Each statement that reads the table opens the rows of all of its jobs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_many_jobs_are_written_anew_as_those_of_one() {
    for mut desk in [Desk::new(), Desk::in_bucket()] {
        let all = jobs(MAX_KEPT_PARTS);
        desk.keep(&all).await;
        let (most, extends, now) = insert(&desk).await;
        assert_eq!(most, Some(4_000));
        let last = all[MAX_KEPT_PARTS - 1].clone();
        assert_eq!(extends, Some(Extended { last, stay: false }));
        assert_eq!(now, [JobId::new(1, 2)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_swept_and_those_that_nobody_names_are_not_read() {
    for mut desk in [Desk::new(), Desk::in_bucket()] {
        let jobs = jobs(2);
        desk.keep(&jobs).await;
        let key = kept_output_key(&jobs[1], "table");
        if desk.blobs.remote().is_some() {
            let named = format!("SELECT * FROM 's3://cluster/weft/{key}/part-0.arrow'");
            let refused = desk.columns(&named).await;
            let problem = refused.expect_err("no job may use it");
            Desk::check(&problem, ErrorCode::InvalidJob, &["jobs may use"]);
        }
        let deleted = desk.blobs.delete_prefix(&key).await;
        deleted.expect("it is swept");
        let refused = desk.columns("SELECT * FROM t").await;
        let problem = refused.expect_err("some rows are gone");
        Desk::check(
            &problem,
            ErrorCode::NoInput,
            &["`t`", "dropped or replaced"],
        );
    }
}
