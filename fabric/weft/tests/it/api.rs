//! The shapes of what the API answers, and the CLI on top of it.

use std::fs;

use serde_json::{Value, json};

use crate::clock::{eventually, until_empty};
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::server::{Server, Setup, kill};
use crate::{folder, job, outputs};

/// Items of a full page.
const PAGE: usize = 500;

fn start(fixture: &Fixture) -> (Place, Server) {
    let place = Place::with_components(fixture);
    let server = Server::start(&place.data(), &Setup::default());
    (place, server)
}

/// The pages of a list, one after the other.
fn pages(server: &Server, path: &str) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = path.to_owned();
    loop {
        let page = server.ask(&Request::get(next)).ok();
        pages.push(page["items"].as_array().expect("a page has items").clone());
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}?cursor={cursor}"),
            None => return pages,
        }
    }
}

fn sizes(pages: &[Vec<Value>]) -> Vec<usize> {
    pages.iter().map(Vec::len).collect()
}

#[test]
fn lists_come_in_pages() {
    let (_place, server) = start(&Fixture::shared());
    let ended = job::run(&server, &job::noop(1_234));
    let path = format!("/v1/jobs/{}/tasks", job::id_of(&ended));
    let tasks = pages(&server, &path);
    assert_eq!(sizes(&tasks), [PAGE, PAGE, 234]);
    let numbers = tasks.iter().flatten().map(|task| task["task"].as_u64());
    assert!(numbers.eq((0..1_234).map(Some)), "each task once, in order");
    let components = pages(&server, "/v1/components");
    assert_eq!(sizes(&components), [3]);
    let names: Vec<_> = components[0]
        .iter()
        .map(|component| component["name"].clone())
        .collect();
    assert_eq!(names, ["hello", "vandal", "weblog"]);
    let one = server
        .ask(&Request::get("/v1/components/weblog/0.1.0"))
        .ok();
    assert_eq!(one, components[0][2]);
}

#[test]
fn jobs_are_listed_newest_first() {
    let (_place, server) = start(&Fixture::shared());
    let before: usize = sizes(&pages(&server, "/v1/jobs")).iter().sum();
    let mut submitted = Vec::new();
    for _ in 0..PAGE {
        let id = job::submit(&server, &job::noop(1));
        // One at a time: how many may be under way has a limit.
        job::wait(&server, &id);
        submitted.push(id);
    }
    submitted.reverse();
    let listed = pages(&server, "/v1/jobs");
    assert_eq!(sizes(&listed), [PAGE, before]);
    let ids: Vec<String> = listed[0].iter().map(job::id_of).collect();
    assert_eq!(ids, submitted);
    assert!(listed[0].iter().all(|job| job["status"] == "succeeded"));
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn receipt(server: &Server, id: &str) -> Value {
    server
        .ask(&Request::get(format!("/v1/jobs/{id}/receipt")))
        .ok()
}

/// The sum of a number over the lines of a receipt.
fn sum(receipt: &Value, pointer: &str) -> u64 {
    let lines = receipt["lines"].as_array().expect("a receipt has lines");
    lines
        .iter()
        .map(|line| number(line.pointer(pointer).unwrap_or(&Value::Null)))
        .sum()
}

#[test]
fn a_receipt_adds_up() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let ended = job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    let receipt = receipt(&server, &job::id_of(&ended));
    assert_eq!(receipt["provisional"], false);
    for amount in ["amount_micro", "amount_per_millisecond_micro"] {
        assert_eq!(
            sum(&receipt, &format!("/{amount}")),
            number(&receipt[amount]),
            "{receipt:#}"
        );
        assert!(number(&receipt[amount]) > 0, "{receipt:#}");
    }
    for meter in [
        "guest_cpu_ns",
        "native_cpu_ns",
        "rows_in",
        "bytes_read",
        "shuffle_bytes_written",
        "guest_calls",
    ] {
        let billed = number(&receipt["billed"][meter]);
        assert_eq!(
            sum(&receipt, &format!("/billed/{meter}")),
            billed,
            "{meter}"
        );
        assert!(billed > 0, "{meter}: {receipt:#}");
        assert_eq!(receipt["platform"][meter], 0, "nothing was lost: {meter}");
    }
    let functions = receipt["lines"].as_array().expect("lines").iter();
    let functions: Vec<_> = functions
        .map(|line| line["function"].as_str().unwrap_or(""))
        .collect();
    for function in [
        "weblog@0.1.0/parse",
        "weblog@0.1.0/daily",
        "weblog@0.1.0/top",
        "-",
    ] {
        assert!(functions.contains(&function), "{function}: {functions:?}");
    }
    let parsed = receipt["lines"].as_array().expect("lines").iter();
    let parsed = parsed
        .filter(|line| line["function"] == "weblog@0.1.0/parse" && line["billed"]["rows_in"] != 0);
    let rows: u64 = parsed.map(|line| number(&line["billed"]["rows_in"])).sum();
    assert_eq!(rows, fixture.log.n_lines, "each line was parsed once");
}

#[test]
fn what_a_lost_executor_cost_is_the_platforms() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let setup = Setup::default().with_failpoints("shuffle-commit=kill@2", &place.path("once"));
    let server = Server::start(&place.data(), &setup);
    let ended = job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    assert!(place.path("once").exists(), "the executor was killed");
    let retries: u64 = ended["stages"]
        .as_array()
        .expect("stages")
        .iter()
        .map(|stage| number(&stage["retries"]))
        .sum();
    assert!(retries > 0, "{ended:#}");
    let receipt = receipt(&server, &job::id_of(&ended));
    assert_eq!(sum(&receipt, "/platform_attempts"), retries, "{receipt:#}");
    assert_eq!(
        sum(&receipt, "/amount_micro"),
        number(&receipt["amount_micro"])
    );
}

/// The guest of a failed job is billed: what it did is the user's.
#[test]
fn what_a_guest_wasted_is_billed() {
    let (place, server) = start(&Fixture::shared());
    let input = place.path("lines.txt");
    std::fs::write(&input, "one\n").expect("it writes");
    let mut spin = job::map(
        "vandal/misbehave",
        &json!({ "deed": "spin" }),
        &input,
        &place.out(),
    );
    spin["limits"] = json!({ "cpu": "200ms" });
    let ended = job::wait(&server, &job::submit(&server, &spin));
    let receipt = receipt(&server, &job::id_of(&ended));
    assert!(
        number(&receipt["billed"]["guest_cpu_ns"]) >= 200_000_000,
        "{receipt:#}"
    );
    assert!(
        number(&receipt["billed"]["guest_cpu_ns"]) < 400_000_000,
        "{receipt:#}"
    );
    assert_eq!(receipt["platform"]["guest_cpu_ns"], 0);
}

/// The events of a stream: name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |block: &str| {
        let field = |name: &str| {
            block
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let data = serde_json::from_str(field("data:")?).expect("events are JSON");
        Some((field("event:")?.to_owned(), data))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[test]
fn events_tell_of_progress_and_end_with_the_job() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let id = job::submit(&server, &job::weblog(&fixture.logs(), &place.out()));
    let path = format!("/v1/jobs/{id}/events");
    let answer = server.ask(&Request::get(path.as_str()));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = events(&answer.text());
    let (last, earlier) = events.split_last().expect("there are events");
    assert_eq!(
        (last.0.as_str(), &last.1["status"]),
        ("end", &json!("succeeded"))
    );
    let (happened, jobs): (Vec<_>, Vec<_>) =
        earlier.iter().partition(|(name, _)| name == "happened");
    assert!(
        jobs.iter()
            .all(|(name, job)| name == "job" && !job::has_ended(job))
    );
    let done = |job: &Value| -> u64 {
        let stages = job["stages"].as_array().into_iter().flatten();
        stages.map(|stage| number(&stage["tasks_done"])).sum()
    };
    let progress: Vec<u64> = jobs.iter().map(|(_, job)| done(job)).collect();
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(
        last.1,
        job::show(&server, &id),
        "the last event is the job as it stays"
    );
    let kinds: Vec<&str> = happened
        .iter()
        .filter_map(|(_, event)| event["kind"].as_str())
        .collect();
    let expected = [
        "submitted",
        "planned",
        "stage_started",
        "stage_done",
        "stage_started",
        "stage_started",
        "stage_done",
        "stage_done",
        "publishing",
        "succeeded",
    ];
    assert_eq!(kinds, expected);
    // Of a job that has ended, all that happened is kept, as a stream and as a list.
    let late = self::events(&server.ask(&Request::get(path.as_str())).text());
    assert_eq!(late.len(), expected.len() + 1, "{late:?}");
    let list = Request::get(path).header("accept", "application/json");
    let list = server.ask(&list).ok();
    let kept = late.iter().take(expected.len()).map(|(_, event)| event);
    assert!(
        kept.eq(list["items"].as_array().into_iter().flatten()),
        "{list:#}"
    );
}

#[test]
fn the_log_counts_malformed_lines() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let id = job::id_of(&job::run(
        &server,
        &job::weblog(&fixture.logs(), &place.out()),
    ));
    let (mut malformed, mut lines) = (0, 0);
    for line in pages(&server, &format!("/v1/jobs/{id}/logs"))
        .iter()
        .flatten()
    {
        assert_eq!(
            (&line["stage"], &line["level"]),
            (&json!("visits"), &json!("info")),
            "{line:#}"
        );
        assert_eq!(line["function"], "weblog@0.1.0/parse");
        let message = line["message"].as_str().expect("text");
        let rest = message
            .strip_prefix("skipped ")
            .expect("what the guest says");
        let (skipped, of) = rest
            .split_once(" malformed lines of ")
            .expect("what the guest says");
        malformed += skipped.parse::<u64>().expect("a number");
        lines += of.parse::<u64>().expect("a number");
    }
    assert_eq!(
        (malformed, lines),
        (fixture.log.n_malformed, fixture.log.n_lines)
    );
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing() {
    let (place, server) = start(&Fixture::shared());
    let input = place.path("lines.txt");
    std::fs::write(&input, "one\n").expect("it writes");
    let executor = eventually("the executor runs", || {
        let found = server.children("executor");
        (!found.is_empty()).then_some(found)
    });
    let spin = job::map(
        "vandal/misbehave",
        &json!({ "deed": "spin" }),
        &input,
        &place.out(),
    );
    let id = job::submit(&server, &spin);
    eventually("the job runs", || {
        (job::show(&server, &id)["status"] == "running").then_some(())
    });
    let cancel = Request::post(format!("/v1/jobs/{id}/cancel"), "", Vec::new());
    assert_eq!(server.ask(&cancel).status, 202);
    let ended = job::wait(&server, &id);
    assert_eq!(
        (&ended["status"], &ended["problem"]),
        (&json!("cancelled"), &Value::Null)
    );
    until_empty("nothing is left behind", || {
        folder::leftovers(&place.data())
    });
    assert!(!place.out().exists());
    assert_eq!(server.children("executor"), executor, "the executor stays");
    assert_eq!(
        server.ask(&cancel).ok()["status"],
        "cancelled",
        "once more does no harm"
    );
    // A job that has ended stays as it is.
    let id = job::id_of(&job::run(&server, &job::noop(1)));
    let cancel = Request::post(format!("/v1/jobs/{id}/cancel"), "", Vec::new());
    assert_eq!(server.ask(&cancel).ok()["status"], "succeeded");
}

/// Where tasks hold all slots for long, components are deployed and jobs checked all the same.
#[test]
fn tasks_that_hold_all_slots_keep_no_deployment_waiting() {
    let (_place, server) = start(&Fixture::shared());
    let spin = json!({ "name": "spin", "stage": [{ "name": "spin", "task": "vandal/spin-for-ever", "count": 100 }] });
    let id = job::submit(&server, &spin);
    eventually("no slot is free", || {
        let metrics = server.ask(&Request::get("/metrics")).text();
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(name))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let (running, slots) = (value("weft_tasks_running ")?, value("weft_slots ")?);
        (slots > 0 && running >= slots).then_some(())
    });
    assert_eq!(job::deploy(&server, "taxi")["name"], "taxi");
    let checked = server.ask(&Request::json("/v1/jobs/check", &job::noop(1)));
    assert_eq!(checked.status, 200, "{}", checked.text());
    let still = job::show(&server, &id);
    assert_eq!(
        (&still["status"], &still["stages"][0]["tasks_done"]),
        (&json!("running"), &json!(0)),
        "{still:#}"
    );
    let cancel = Request::post(format!("/v1/jobs/{id}/cancel"), "", Vec::new());
    assert_eq!(server.ask(&cancel).status, 202);
    assert_eq!(job::wait(&server, &id)["status"], "cancelled");
}

/// A job that cannot be published is given up, and takes back what it had published of it.
#[test]
fn a_job_that_cannot_be_published_leaves_nothing() {
    let fixture = Fixture::shared();
    for point in ["publish=kill", "publish=kill@2", "publish=kill@3"] {
        let place = Place::with_components(&fixture);
        let setup = Setup::default().with("WEFT_FAILPOINTS", point);
        let server = Server::start(&place.data(), &setup);
        let ended = job::wait(
            &server,
            &job::submit(&server, &job::weblog(&fixture.logs(), &place.out())),
        );
        assert_eq!(ended["status"], "failed", "{point}: {ended:#}");
        until_empty("the job is archived", || folder::leftovers(&place.data()));
        let left = folder::files(&place.out());
        assert!(left.is_empty(), "{point}: {left:?}");
    }
}

#[test]
fn an_executor_that_dies_while_it_is_idle_is_replaced() {
    let (place, server) = start(&Fixture::shared());
    let spill = place.data().join("spill");
    for _ in 0..3 {
        let (executors, of_killed) = eventually("an executor has a folder", || {
            let (executors, names) = (server.children("executor"), folder::names(&spill));
            (executors.len() == 1 && names.len() == 1).then_some((executors, names))
        });
        fs::write(spill.join(&of_killed[0]).join("run-1"), "rows").expect("it writes");
        executors.iter().copied().for_each(kill);
        eventually("there is another executor", || {
            let now = server.children("executor");
            (now.len() == 1 && now != executors).then_some(())
        });
        eventually("what it spilled is gone", || {
            let now = folder::names(&spill);
            (now.len() == 1 && now != of_killed).then_some(())
        });
        job::run(&server, &job::noop(3));
    }
}

/// Runs a command of the CLI: its exit code, standard output, standard error.
fn say(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = server.cli(arguments).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Paths start from the file's folder.
const JOB_FILE: &str = r#"
name = "weblog"
[input.logs]
format = "text"
uri = "data/access-*"
[[stage]]
name = "visits"
from = "logs"
map = "weblog/parse"
[[stage]]
name = "daily"
from = "visits"
shuffle = { keys = ["day"] }
reduce = "weblog/daily"
[output.daily]
from = "daily"
format = "parquet"
uri = "out/daily/"
"#;

#[test]
fn the_cli_deploys_runs_and_tells() {
    let fixture = Fixture::shared();
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    let (code, _, said) = say(&server, &["job", "last"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no job yet"), "{said}");
    let guest = crate::guests::path("weblog");
    for _ in 0..2 {
        let deploy = ["deploy", guest.to_str().expect("a plain name")];
        assert_eq!(say(&server, &deploy).0, Some(0), "once more is fine");
    }
    folder::copy(&fixture.logs(), &place.path("work/data"));
    let file = place.path("work/job.toml");
    std::fs::write(&file, JOB_FILE).expect("it writes");
    let run = ["run", file.to_str().expect("a plain name"), "--json"];
    let (code, out, said) = say(&server, &run);
    assert_eq!(code, Some(0), "{said}");
    let ended: Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let daily = outputs::daily(&place.path("work/out/daily"));
    assert_eq!(daily, fixture.log.daily());

    let (code, out, said) = say(&server, &run);
    assert_eq!(code, Some(1), "the output exists: {said}");
    let ended: Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!(ended["problem"]["code"], "output_exists", "{ended:#}");
    assert!(said.contains("choose another folder"), "{said}");

    let (code, out, _) = say(&server, &["jobs"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("succeeded") && out.contains("failed"), "{out}");
    let (code, out, _) = say(&server, &["job", "last", "--json"]);
    assert_eq!(code, Some(0));
    let last: Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!(last["id"], ended["id"]);
    let (code, _, said) = say(&server, &["--token", "wrong", "jobs"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("token"), "{said}");
}

/// An empty file, one whose lines are all left out, and none that is any good.
#[test]
fn maps_that_emit_nothing_feed_a_shuffle() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let logs = place.path("logs");
    std::fs::create_dir_all(&logs).expect("it is made");
    std::fs::write(logs.join("access-0.log"), "").expect("it writes");
    std::fs::write(
        logs.join("access-1.log"),
        "neither of these\nis a request\n",
    )
    .expect("it writes");
    job::run(&server, &job::weblog(&logs, &place.out()));
    assert_eq!(outputs::daily(&place.out().join("daily")), []);

    folder::copy(&fixture.logs(), &logs);
    let out = place.path("again");
    job::run(&server, &job::weblog(&logs, &out));
    assert_eq!(outputs::daily(&out.join("daily")), fixture.log.daily());
}

#[test]
fn a_job_is_checked_without_a_trace() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let before = sizes(&pages(&server, "/v1/jobs"));
    let mut job = job::weblog(&fixture.logs(), &place.out());
    let check = |job: &Value| server.ask(&Request::json("/v1/jobs/check", job));
    let checked = check(&job).ok();
    let size = |path: &std::path::PathBuf| path.metadata().expect("it is there").len();
    let bytes: u64 = folder::files(&fixture.logs()).iter().map(size).sum();
    assert_eq!(checked["input_bytes"], bytes, "{checked:#}");
    let visits = &checked["columns"][1];
    assert_eq!(visits["of"], "visits", "{checked:#}");
    assert_eq!(
        visits["columns"][0],
        serde_json::json!({ "name": "day", "type": "utf8" })
    );
    let file = place.path("job.json");
    std::fs::write(&file, job.to_string()).expect("it writes");
    let (code, out, said) = say(
        &server,
        &["run", "--check", file.to_str().expect("a plain name")],
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.contains("nothing is wrong") && out.contains("weblog@0.1.0/daily"),
        "{out}"
    );

    let taken = place.path("taken");
    folder::copy(&fixture.logs(), &taken);
    let free = std::mem::replace(&mut job["output"]["daily"]["uri"], taken.to_str().into());
    let refused = check(&job).json();
    assert_eq!(refused["code"], "output_exists", "{refused:#}");
    job["stage"][1]["shuffle"]["keys"] = serde_json::json!(["dya"]);
    let refused = check(&job).json();
    assert_eq!(refused["code"], "schema_mismatch", "{refused:#}");
    job["output"]["daily"]["uri"] = free;
    let refused = check(&job).json();
    assert_eq!(refused["code"], "schema_mismatch", "{refused:#}");
    let csv = place.path("in.csv");
    std::fs::write(&csv, "id,amount\n1,2\n").expect("it writes");
    let typo = serde_json::json!({
        "name": "typo",
        "input": { "rows": { "format": "csv", "uri": csv, "schema": ["id int64", "amuont int64"] } },
        "output": { "copy": { "from": "rows", "format": "parquet", "uri": place.path("copy") } },
    });
    let refused = check(&typo).json();
    assert_eq!(refused["code"], "schema_mismatch", "{refused:#}");
    let detail = refused["detail"].as_str().expect("a reason");
    assert!(
        detail.contains("no column `amuont`; its header has `id`, `amount`"),
        "{detail}"
    );
    assert!(!place.out().exists());
    assert_eq!(
        folder::names(&place.data().join("store/jobs")),
        [] as [String; 0]
    );
    assert_eq!(sizes(&pages(&server, "/v1/jobs")), before);
}

#[test]
fn skew_is_told() {
    let fixture = Fixture::shared();
    let (place, server) = start(&fixture);
    let ended = job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    let stage = &ended["stages"][1];
    let skew = &stage["skew"];
    assert_eq!(skew["rows_all"], stage["rows_read"], "{ended:#}");
    let mean_milli = number(&skew["rows_all"]) * 1000 / number(&skew["partitions"]);
    let expected = number(&skew["rows_largest"]) as f64 * 1e6 / mean_milli as f64;
    let found = number(&skew["over_mean_milli"]) as f64;
    // Seven days in three partitions: one has more than its share.
    assert!(
        found > 1100.0 && (found - expected).abs() < 2.0,
        "{found} and {expected}"
    );
    assert!(ended["stages"][0]["skew"].is_null(), "it reads no shuffle");
}

/// However many upload the same bytes at once, they are compiled once, and one of them has made something new.
#[test]
fn a_component_is_compiled_once() {
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    let component = crate::guests::bytes("mirror");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let upload = || server.ask(&Request::component(component.clone())).status;
        let uploads: Vec<_> = (0..16).map(|_| scope.spawn(upload)).collect();
        uploads
            .into_iter()
            .map(|one| one.join().expect("it ends"))
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert!(
        statuses.iter().all(|status| matches!(status, 200 | 201)),
        "{statuses:?}"
    );
    let metrics = server.ask(&Request::get("/metrics")).text();
    assert!(
        metrics
            .lines()
            .any(|line| line == "weft_compilations_total 1"),
        "{metrics}"
    );
}

#[test]
fn the_doctor_looks_at_the_server_and_at_its_port() {
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    let address = server.address;
    let mut doctor = server.cli(&["doctor"]);
    let mut said = || {
        let output = doctor.output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let answers = said();
    assert!(
        answers.contains(&format!("answers on http://{address}")),
        "{answers}"
    );
    server.kill();
    let free = said();
    assert!(
        free.contains(&format!("{address} is free for `weft up`")),
        "{free}"
    );
}
