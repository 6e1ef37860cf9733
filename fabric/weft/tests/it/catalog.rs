//! Tables and views: made by statements, read by statements and job files, kept through kills of servers and leaders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fixture::Place;
use crate::http::Request;
use crate::server::{Server, Setup, weft};
use crate::{folder, job};

fn here(here: PathBuf) -> PathBuf {
    fs::create_dir(&here).expect("it is made");
    fs::write(
        here.join("trips.csv"),
        "city,fare\nBerlin,10\nParis,7\nBerlin,20\n",
    )
    .expect("it writes");
    here
}

fn run(mut command: Command, here: &Path) -> Output {
    command.current_dir(here).output().expect("it starts")
}

/// The document of a command that succeeds.
#[track_caller]
fn document(ran: &Output) -> Value {
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    serde_json::from_slice(&ran.stdout).expect("one document")
}

#[track_caller]
pub(crate) fn done(server: &Server, here: &Path, sql: &str) -> Value {
    document(&run(server.cli(&["sql", "--json", sql]), here))
}

#[track_caller]
pub(crate) fn refused(server: &Server, here: &Path, sql: &str, words: &str) {
    let ran = run(server.cli(&["sql", sql]), here);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{sql}: {said}");
    assert!(said.contains(words), "{sql}: `{words}` is not in {said}");
    assert_eq!(ran.stdout, b"", "{sql}");
}

#[track_caller]
fn names(server: &Server) -> Vec<String> {
    let items = server.ask(&Request::get("/v1/tables")).ok();
    let items = items["items"].as_array().expect("a list").clone();
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.iter().map(name).collect()
}

#[test]
fn tables_and_views_outlive_a_killed_server() {
    let place = Place::new();
    let here = here(place.path("here"));
    let server = Server::start(&place.data(), &Setup::default());
    for sql in [
        "CREATE EXTERNAL TABLE trips (city VARCHAR, fare BIGINT) STORED AS CSV LOCATION 'trips.csv'",
        "/* by city */ CREATE VIEW daily AS SELECT city, sum(fare) AS total FROM trips GROUP BY city",
        "CREATE OR REPLACE VIEW daily (city, total) AS SELECT city, sum(fare) + 1 FROM trips GROUP BY city",
    ] {
        let document = done(&server, &here, sql);
        assert_eq!(document["outputs"], json!([]), "{sql}");
    }
    let query = "SELECT city, total FROM daily WHERE total > 10";
    let rows = json!([["Berlin", 31]]);
    assert_eq!(done(&server, &here, query)["rows"], rows);
    server.kill();
    let server = Server::start(&place.data(), &Setup::default());
    assert_eq!(names(&server), ["daily", "trips"]);
    assert_eq!(done(&server, &here, query)["rows"], rows);
    let listed = done(&server, &here, "SHOW TABLES")["rows"].clone();
    assert_eq!(listed, json!([["daily", "view"], ["trips", "table"]]));
    let described = done(&server, &here, "DESCRIBE trips")["rows"].clone();
    let columns = json!([["city", "utf8", true], ["fare", "int64", true]]);
    assert_eq!(described, columns);
    let described = done(&server, &here, "DESCRIBE SELECT 1 AS one, total FROM daily");
    let columns = json!([["one", "int64", false], ["total", "int64", true]]);
    assert_eq!(described["rows"], columns);
    assert_eq!(
        done(&server, &here, "SHOW COLUMNS FROM 'trips.csv'")["rows"],
        json!([["city", "utf8", true], ["fare", "int64", true]])
    );
    let shown = document(&run(server.cli(&["--json", "tables", "trips"]), &here));
    let columns = json!([{ "name": "city", "type": "utf8" }, { "name": "fare", "type": "int64" }]);
    assert_eq!(shown["definition"]["files"]["columns"], columns);
    let listed = run(server.cli(&["tables"]), &here);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("daily") && listed.contains("trips"),
        "{listed}"
    );

    let drop = Request::get("/v1/tables/daily").method("DELETE");
    assert_eq!(server.ask(&drop).status, 200);
    assert_eq!(server.ask(&drop).status, 404);
    done(&server, &here, "DROP TABLE trips");
    done(&server, &here, "DROP TABLE IF EXISTS trips");
    assert_eq!(names(&server), [] as [&str; 0]);
    assert!(here.join("trips.csv").exists(), "files stay");
}

#[test]
fn what_is_wrong_changes_nothing() {
    let place = Place::new();
    let here = here(place.path("here"));
    let server = Server::start(&place.data(), &Setup::default());
    done(&server, &here, "CREATE VIEW v AS SELECT 1 AS a");
    for (sql, words) in [
        ("CREATE VIEW w AS SELECT none FROM 'trips.csv'", "none"),
        (
            "CREATE VIEW w AS SELECT * FROM nothing",
            "no table `nothing`",
        ),
        ("CREATE VIEW v AS SELECT 2 AS a", "OR REPLACE"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'none.csv'",
            "none.csv",
        ),
        ("CREATE TABLE t (a INT NOT NULL)", "no constraint"),
        ("INSERT INTO v VALUES (1)", "is a view"),
        ("INSERT INTO w VALUES (1)", "no table `w`"),
        ("DROP TABLE v", "is a view"),
        ("DROP VIEW w", "no table or view `w`"),
    ] {
        refused(&server, &here, sql, words);
    }
    assert_eq!(names(&server), ["v"]);
    // A check is no change.
    let ran = run(
        server.cli(&["sql", "--check", "CREATE VIEW w AS SELECT 1 AS a"]),
        &here,
    );
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert_eq!(names(&server), ["v"]);
}

#[test]
fn rows_are_written_to_folders_that_statements_name() {
    let place = Place::new();
    let here = here(place.path("here"));
    let server = Server::start(&place.data(), &Setup::default());
    let copied = done(
        &server,
        &here,
        "COPY (SELECT fare FROM 'trips.csv') TO 'copied/' STORED AS JSON",
    );
    let folder = here.join("copied");
    assert_eq!(copied["outputs"], json!([folder]));
    assert_eq!(copied["written"][0]["format"], "json");
    assert!(!folder::names(&folder).is_empty());
    let sql =
        "CREATE TABLE fares STORED AS PARQUET LOCATION 'fares/' AS SELECT fare FROM 'trips.csv'";
    done(&server, &here, sql);
    let sum = "SELECT sum(fare) AS total FROM fares";
    assert_eq!(done(&server, &here, sum)["rows"], json!([[37]]));
    // The folder holds files now: nothing is written and nothing changes.
    refused(
        &server,
        &here,
        "CREATE TABLE other STORED AS PARQUET LOCATION 'fares/' AS SELECT 1 AS a",
        "holds files",
    );
    // A query that fails leaves no table.
    let fails = "CREATE TABLE broken STORED AS PARQUET LOCATION 'broken/' AS SELECT 1 / (fare - fare) AS a FROM fares";
    refused(&server, &here, fails, "zero");
    assert_eq!(names(&server), ["fares"]);
    // Stages of job files read tables without `from`.
    let out = here.join("out");
    let document = json!({
        "name": "of-table",
        "stage": [{ "name": "all", "sql": "SELECT * FROM fares" }],
        "output": { "all": { "from": "all", "format": "csv", "uri": out } },
    });
    let ended = job::run(&server, &document);
    assert_eq!(ended["outputs"][0]["rows"], 3, "{ended:#}");
}

#[test]
fn rows_are_added_to_the_folder_of_a_table() {
    let place = Place::new();
    let here = here(place.path("here"));
    let server = Server::start(&place.data(), &Setup::default());
    let sql = "CREATE TABLE fares STORED AS PARQUET LOCATION 'fares/' AS SELECT city, fare FROM 'trips.csv'";
    done(&server, &here, sql);
    let added = done(
        &server,
        &here,
        "INSERT INTO fares VALUES ('Oslo', 5), ('Rome', 6)",
    );
    assert_eq!(added["outputs"], json!([here.join("fares")]));
    done(
        &server,
        &here,
        "INSERT INTO fares (fare) SELECT fare * 2 FROM fares WHERE city = 'Paris'",
    );
    done(&server, &here, "INSERT INTO fares SELECT 'Bonn', '8'");
    // Both columns of the query would have one name.
    done(
        &server,
        &here,
        "INSERT INTO fares SELECT '100', '100' LIMIT 1",
    );
    let rows = "SELECT city, sum(fare) AS total FROM fares GROUP BY city ORDER BY city NULLS FIRST";
    let rows_now = json!([
        [null, 14],
        ["100", 100],
        ["Berlin", 30],
        ["Bonn", 8],
        ["Oslo", 5],
        ["Paris", 7],
        ["Rome", 6]
    ]);
    assert_eq!(done(&server, &here, rows)["rows"], rows_now);

    done(&server, &here, "CREATE TABLE kept AS SELECT 1 AS a");
    let sql = "CREATE TABLE times AS SELECT TIME '12:00:00' AS a";
    done(&server, &here, sql);
    let sql = "CREATE EXTERNAL TABLE trips STORED AS CSV LOCATION 'trips.csv'";
    done(&server, &here, sql);
    for sql in [
        "CREATE EXTERNAL TABLE loose (city VARCHAR, fare BIGINT) STORED AS CSV LOCATION './'",
        "CREATE EXTERNAL TABLE inferred STORED AS CSV LOCATION './'",
    ] {
        done(&server, &here, sql);
    }
    for (sql, words) in [
        ("INSERT INTO fares VALUES ('Oslo')", "columns"),
        (
            "INSERT INTO fares (town) VALUES ('Oslo')",
            "no column `town`",
        ),
        ("INSERT INTO fares VALUES ('Oslo', 'x')", "'x'"),
        (
            "INSERT INTO fares SELECT city, 1 / (fare - fare) FROM fares",
            "zero",
        ),
        ("INSERT INTO kept VALUES (1, 2)", "columns"),
        (
            "INSERT INTO times SELECT * FROM times",
            "a time of day, a duration",
        ),
        ("INSERT INTO trips VALUES ('Oslo', 5)", "LOCATION"),
        ("INSERT INTO loose VALUES ('Oslo', 5)", "no manifest"),
        (
            "INSERT INTO inferred VALUES ('Oslo', 5)",
            "a list of columns",
        ),
    ] {
        refused(&server, &here, sql, words);
    }
    assert_eq!(done(&server, &here, rows)["rows"], rows_now);
}

#[test]
fn rows_of_a_table_without_a_folder_are_kept_until_it_is_dropped() {
    let place = Place::new();
    let here = here(place.path("here"));
    let mut server = Server::start(&place.data(), &Setup::default());
    let sql = "CREATE TABLE fares AS SELECT city, fare FROM 'trips.csv'";
    let made = done(&server, &here, sql);
    assert_eq!(made["outputs"], json!([]));
    let folder_of = |made: &Value| {
        let job = made["job"].as_str().expect("an id");
        place.data().join("store/outputs").join(job)
    };
    let mut folders = vec![folder_of(&made)];
    fs::remove_file(here.join("trips.csv")).expect("it is removed");
    server.kill();
    server = Server::start(&place.data(), &Setup::default());
    let sum = "SELECT sum(fare) AS total FROM fares";
    assert_eq!(done(&server, &here, sum)["rows"], json!([[37]]));
    for (sql, total) in [
        (
            "CREATE OR REPLACE TABLE fares AS SELECT fare + 1 AS fare FROM fares",
            40,
        ),
        ("INSERT INTO fares VALUES (2), (3)", 45),
        ("INSERT INTO fares (fare) SELECT max(fare) FROM fares", 66),
    ] {
        folders.push(folder_of(&done(&server, &here, sql)));
        assert_eq!(done(&server, &here, sum)["rows"], json!([[total]]), "{sql}");
    }
    let left = || folders.iter().filter(|folder| folder.is_dir()).count();
    assert!(left() >= 3, "a table has the rows of three jobs");
    done(&server, &here, "DROP TABLE fares");
    // A start removes what nothing refers to. A job that was not archived by then is, and its rows go with the next.
    for _ in 0..3 {
        server.kill();
        server = Server::start(&place.data(), &Setup::default());
        if left() == 0 {
            break;
        }
    }
    assert_eq!(left(), 0, "{folders:?}");
}

#[test]
fn statements_add_to_a_table_at_the_same_time() {
    let place = Place::new();
    let here = here(place.path("here"));
    let server = Server::start(&place.data(), &Setup::default());
    done(&server, &here, "CREATE TABLE numbers (n INT, word VARCHAR)");
    let described = done(&server, &here, "DESCRIBE numbers");
    let columns = json!([["n", "int32", true], ["word", "utf8", true]]);
    assert_eq!(described["rows"], columns);
    let sum = "SELECT count(*) AS lines, sum(n) AS total FROM numbers";
    assert_eq!(done(&server, &here, sum)["rows"], json!([[0, null]]));
    // One that loses against each of the others has lost three times, and succeeds the fourth time.
    let inserts = [1, 2, 3, 4].map(|n| {
        let sql = format!("INSERT INTO numbers (n) VALUES ({n})");
        let mut command = server.cli(&["sql", "--json", &sql]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(&here).spawn().expect("it starts")
    });
    for insert in inserts {
        document(&insert.wait_with_output().expect("it ends"));
    }
    assert_eq!(done(&server, &here, sum)["rows"], json!([[4, 10]]));

    let listed = server.ask(&Request::get("/v1/tables")).ok();
    let bytes = listed["items"][0]["kept_bytes"].as_u64();
    assert!(bytes.is_some_and(|bytes| bytes > 0), "{listed}");
    let listed = run(server.cli(&["tables"]), &here);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.starts_with("name"), "{listed}");
    assert!(listed.contains("  kept\n"), "{listed}");
}

#[test]
fn a_cluster_has_its_tables_after_the_leader_was_killed() {
    let cluster = Cluster::start(3, 1);
    let here = here(cluster.root.path().join("here"));
    let endpoints: Vec<String> = cluster
        .controllers
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let sql = |sql: &str| {
        let mut command = weft();
        command
            .args([
                "--endpoint",
                &endpoints.join(","),
                "--token",
                &cluster.token,
            ])
            .args(["sql", "--json", sql]);
        document(&run(command, &here))
    };
    sql("CREATE EXTERNAL TABLE trips STORED AS CSV LOCATION 'trips.csv'");
    sql("CREATE VIEW fares AS SELECT sum(fare) AS total FROM trips");
    cluster.run("kill", &["leader"]);
    assert_eq!(sql("SELECT total FROM fares")["rows"], json!([[37]]));
    let listed = cluster.ask_any(&Request::get("/v1/tables")).ok();
    let listed = listed["items"].as_array().expect("a list");
    assert_eq!(listed.len(), 2, "{listed:?}");
}
