//! The examples, as their READMEs say: job files as they lie there, run by the command line, with results that are
//! known,
//! and actors, whose turns are requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clock::eventually;
use crate::fixture::Place;
use crate::http::{Request, Response};
use crate::job;
use crate::outputs::rows;
use crate::random::Random;
use crate::server::{Server, Setup};

/// A server with an example's component, and a folder with its job file.
struct Example {
    server: Server,
    place: Place,
}

impl Example {
    fn new(name: &str) -> Example {
        let example = Example::deployed(name);
        let place = &example.place;
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../examples")
            .join(name)
            .join("job.toml");
        std::fs::copy(file, place.path("job.toml")).expect("the example has a job file");
        std::fs::create_dir_all(place.path("data")).expect("it is made");
        example
    }

    /// An example without a job file.
    fn deployed(name: &str) -> Example {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        job::deploy(&server, name);
        Example { server, place }
    }

    /// Invokes a method of an actor, or a task.
    fn ask(&self, path: &str, input: &str) -> Response {
        let invoke = Request::post(
            format!("/v1/{path}"),
            "application/octet-stream",
            input.into(),
        );
        self.server.ask(&invoke)
    }

    /// The answer of an actor that answers with JSON.
    fn answer(&self, path: &str, input: &str) -> Value {
        let answer = self.ask(path, input);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("it is JSON")
    }

    /// Writes rows as a Parquet file, by a job.
    fn write_parquet(&self, csv: &str, schema: &[&str], to: &str) {
        job::deploy(&self.server, "mirror");
        let (input, made) = (self.place.path("rows.csv"), self.place.path("made"));
        std::fs::write(&input, csv).expect("it writes");
        let to_parquet = json!({
            "name": "rows",
            "input": { "rows": { "format": "csv", "uri": input, "schema": schema } },
            "stage": [{ "name": "passed", "from": "rows", "map": "mirror/pass" }],
            "output": { "passed": { "from": "passed", "format": "parquet", "uri": made } },
        });
        job::run(&self.server, &to_parquet);
        let part = made.join("part-passed-00000.parquet");
        std::fs::copy(part, self.place.path(to)).expect("it copies");
    }

    /// Runs the job file, and gives the folder of its outputs.
    fn run(&self) -> PathBuf {
        let file = self.place.path("job.toml");
        let file = file.to_str().expect("a name");
        let ran = self.server.cli(&["run", file]).output().expect("it runs");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{said}");
        self.place.path("out")
    }
}

/// Words of a small vocabulary, with blanks doubled here and there.
fn text() -> String {
    let mut random = Random::seeded("words", 3);
    let mut text = String::new();
    for _ in 0..20_000 {
        let word = random.below(300);
        text += &format!("{}{word:o}", "wörd".repeat(1 + word as usize % 3));
        text += match random.below(12) {
            0 => "\n",
            1 => "  ",
            _ => " ",
        };
    }
    text + "end\n"
}

#[test]
fn words_are_counted_the_same_in_rust_and_in_python() {
    let text = text();
    let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
    for word in text.lines().flat_map(|line| line.split(' ')) {
        *expected.entry(word).or_default() += 1;
    }
    let mut expected: Vec<String> = expected
        .iter()
        .map(|(word, n)| format!("{word}|{n}"))
        .collect();
    expected.sort();
    for example in ["wordcount", "wordcount-py"] {
        let example = Example::new(example);
        std::fs::write(example.place.path("data/words.txt"), &text).expect("it writes");
        assert_eq!(rows(&example.run().join("words")), expected);
    }
}

#[test]
fn fares_are_averaged_by_zone_and_hour() {
    let example = Example::new("taxi");
    let trips = "PULocationID,tpep_pickup_datetime,fare_amount\n161,2024-01-01T08:05:00,12.8\n\
                 7,2024-01-01T23:59:00,9.3\n161,2024-01-02T08:40:00,20.5\n161,2024-01-02T09:00:00,7.2\n,2024-01-02T09:00:00,7.2\n";
    let schema = [
        "PULocationID int32",
        "tpep_pickup_datetime timestamp-us",
        "fare_amount float64",
    ];
    example.write_parquet(trips, &schema, "data/yellow_tripdata_2024-01.parquet");
    let zones = rows(&example.run().join("zones"));
    assert_eq!(zones, ["161|8|16.65|2", "161|9|7.2|1", "7|23|9.3|1"]);
}

#[test]
fn payments_are_scored() {
    let example = Example::new("scoring");
    let chrome = "\"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.6099.71 Safari/537.36\"";
    let payments = format!(
        "ua,lat1,lon1,lat2,lon2,amount,hour\n{chrome},48.86,2.35,48.80,2.13,12.5,14\n\
         {chrome},48.86,2.35,40.71,-74.01,950.0,14\ncurl/8.5.0,52.52,13.40,48.14,11.58,600.0,3\n"
    );
    let schema = [
        "ua utf8",
        "lat1 float64",
        "lon1 float64",
        "lat2 float64",
        "lon2 float64",
        "amount float64",
        "hour int32",
    ];
    example.write_parquet(&payments, &schema, "data/payments.parquet");
    let scores = rows(&example.run().join("scores"));
    assert_eq!(scores, ["Chrome|Windows|2|5854|70", "Other|Other|1|503|78"]);
}

#[test]
fn visitors_and_pages_are_counted_by_day() {
    let example = Example::new("weblog");
    let line = |address: &str, second: u32, page: &str| {
        format!(
            "{address} - - [10/Jul/2025:13:55:{second} +0000] \"GET {page} HTTP/1.1\" 200 512 \"-\" \"curl/8\"\n"
        )
    };
    let log = [
        line("10.0.0.1", 36, "/b?x=1"),
        line("10.0.0.2", 37, "/a"),
        line("10.0.0.1", 38, "/b"),
        "garbage\n".into(),
    ];
    std::fs::write(example.place.path("data/access-1.log"), log.concat()).expect("it writes");
    let out = example.run();
    assert_eq!(rows(&out.join("daily")), ["2025-07-10|2"]);
    assert_eq!(
        rows(&out.join("top")),
        ["2025-07-10|1|/b|2", "2025-07-10|2|/a|1"]
    );
    let logs = example
        .server
        .cli(&["logs", "last"])
        .output()
        .expect("it runs");
    let logs = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert!(logs.contains("skipped 1 malformed lines of 4"), "{logs}");
}

#[test]
fn orders_near_their_users_are_summed() {
    let example = Example::new("geo");
    let orders =
        "user_id,lat,lon,amount\n1,52.52,13.405,10\n1,52.4,13.06,20\n1,48.86,2.35,30\n2,,,40\n";
    std::fs::write(example.place.path("data/orders.csv"), orders).expect("it writes");
    let users = "user_id,lat,lon,country\n1,52.52,13.405,de\n2,48.86,2.35,fr\n";
    std::fs::write(example.place.path("data/users.csv"), users).expect("it writes");
    let near = rows(&example.run().join("near"));
    // 26.9 km to Potsdam.
    assert!(
        near.len() == 1 && near[0].starts_with("de,30,26."),
        "{near:?}"
    );
}

#[test]
fn a_thousand_tasks_do_nothing() {
    Example::new("hello").run();
}

#[test]
fn money_moves_between_accounts_once() {
    let example = Example::deployed("bank");
    let account = |key: &str, method: &str| format!("actors/bank/account/{key}/{method}");
    let deposited = example.answer(&account("alice", "deposit"), r#"{"amount":100}"#);
    assert_eq!(deposited, json!({ "balance": 100 }));
    let pay = r#"{"to":"bob","amount":30}"#;
    let paid = example.answer(&account("alice", "transfer"), pay);
    assert_eq!(paid, json!({ "balance": 70 }));
    eventually("the transfer arrives", || {
        let balance = example.answer(&account("bob", "balance"), "");
        (balance == json!({ "balance": 30 })).then_some(())
    });
    let overdraft = example.ask(&account("bob", "transfer"), r#"{"to":"alice","amount":31}"#);
    assert!(
        overdraft.status != 200 && overdraft.text().contains("does not cover"),
        "{}",
        overdraft.text()
    );
    let history = |key: &str| example.answer(&account(key, "history"), "")["history"].clone();
    let (alice, bob) = (history("alice"), history("bob"));
    assert_eq!(alice[1]["transfer"], "alice/1");
    assert_eq!(
        bob,
        json!([{
            "number": 1, "kind": "received", "transfer": "alice/1", "from": "alice", "amount": 30, "balance": 30,
        }])
    );
}

#[test]
fn idle_sessions_expire() {
    let example = Example::deployed("sessions");
    let touched = example.answer(
        "actors/sessions/session/s-1/touch",
        r#"{"data":"two books","idle_ms":500}"#,
    );
    assert_eq!(touched["data"], "two books");
    let other = example.answer("actors/sessions/session/s-2/touch", "");
    assert_eq!(other["data"], "");
    // Not asked of the session itself, which looks at the time, too.
    let status = Request::get("/v1/actors/sessions/session/s-1");
    eventually("the alarm ends the session", || {
        let status = example.server.ask(&status).ok();
        (status["entries"] == 0 && status["alarm_ms"].is_null()).then_some(())
    });
    let gone = example.ask("actors/sessions/session/s-1/get", "");
    assert!(gone.text().contains("no session `s-1`"), "{}", gone.text());
    assert_eq!(
        example.answer("actors/sessions/session/s-2/get", "")["data"],
        ""
    );
}

#[test]
fn a_thousand_spawned_tasks_answer() {
    let example = Example::deployed("fanout");
    let sum = example.ask("invoke/fanout/sum", "");
    assert_eq!(sum.text(), "333833500");
    assert_eq!(example.ask("invoke/fanout/sum", "10").text(), "385");
    let refused = example.ask("invoke/fanout/sum", "ten");
    assert!(refused.text().contains("not a whole number"));
}
