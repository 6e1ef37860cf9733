//! Jobs: written, submitted, waited for.

use std::path::Path;

use serde_json::{Value, json};

use crate::clock::eventually;
use crate::http::{Request, Response};
use crate::server::Server;

/// Partitions of each shuffle of the weblog job: more than one, fewer than days.
const PARTITIONS: u32 = 3;

/// The job of the weblog example over the logs in `logs`, with its outputs under `out`.
pub(crate) fn weblog(logs: &Path, out: &Path) -> Value {
    let shuffle = json!({ "keys": ["day"], "partitions": PARTITIONS });
    json!({
        "name": "weblog",
        "input": { "logs": { "format": "text", "uri": logs.join("access-*") } },
        "stage": [
            { "name": "visits", "from": "logs", "map": "weblog/parse" },
            { "name": "daily", "from": "visits", "shuffle": shuffle, "combine": "weblog/daily-partial", "reduce": "weblog/daily" },
            { "name": "top", "from": "visits", "shuffle": shuffle, "combine": "weblog/top-partial", "reduce": "weblog/top" },
        ],
        "output": {
            "daily": { "from": "daily", "format": "parquet", "uri": out.join("daily") },
            "top": { "from": "top", "format": "parquet", "uri": out.join("top") },
        },
    })
}

/// A job of one map over text, with one output.
pub(crate) fn map(function: &str, params: &Value, input: &Path, out: &Path) -> Value {
    json!({
        "name": "map",
        "input": { "lines": { "format": "text", "uri": input } },
        "stage": [{ "name": "mapped", "from": "lines", "map": function, "params": params }],
        "output": { "mapped": { "from": "mapped", "format": "parquet", "uri": out } },
    })
}

/// A job of `count` tasks that do nothing.
pub(crate) fn noop(count: u32) -> Value {
    json!({ "name": "noop", "stage": [{ "name": "noop", "task": "hello/noop", "count": count }] })
}

/// Submits a job that is accepted, and gives its id.
pub(crate) fn submit(server: &Server, job: &Value) -> String {
    id_of(&server.ask(&Request::json("/v1/jobs", job)).ok())
}

pub(crate) fn id_of(job: &Value) -> String {
    job["id"].as_str().expect("a job has an id").to_owned()
}

/// The job as it stands.
pub(crate) fn show(server: &Server, id: &str) -> Value {
    server.ask(&Request::get(format!("/v1/jobs/{id}"))).ok()
}

pub(crate) fn has_ended(job: &Value) -> bool {
    matches!(
        job["status"].as_str(),
        Some("succeeded" | "failed" | "cancelled")
    )
}

/// Waits for the job's end, and gives it as it stands then.
pub(crate) fn wait(server: &Server, id: &str) -> Value {
    eventually("the job ends", || Some(show(server, id)).filter(has_ended))
}

/// The first lines of a job's log, as JSON.
pub(crate) fn log(server: &Server, id: &str) -> String {
    let logs = Request::get(format!("/v1/jobs/{id}/logs"));
    server.ask(&logs).ok().to_string()
}

/// Runs a job that must succeed.
pub(crate) fn run(server: &Server, job: &Value) -> Value {
    let ended = wait(server, &submit(server, job));
    assert_eq!(ended["status"], "succeeded", "{ended:#}\n{}", server.log());
    ended
}

/// Deploys a guest, and gives the record that stands then.
pub(crate) fn deploy(server: &Server, guest: &str) -> Value {
    let upload = Request::component(crate::guests::bytes(guest));
    // An executor that was lost meanwhile is the platform's fault: the client is asked to try again.
    let accepted = |answer: &Response| answer.status != 429;
    eventually("the component is described", || {
        Some(server.ask(&upload)).filter(accepted)
    })
    .ok()
}

/// Where a job stands, on a line: its status, and how many of each stage's tasks are done.
pub(crate) fn position(job: &Value) -> String {
    let stages = job["stages"].as_array().into_iter().flatten();
    let stages = stages.map(|stage| {
        format!(
            "{} {}/{}",
            stage["name"].as_str().unwrap_or("?"),
            stage["tasks_done"],
            stage["tasks_total"]
        )
    });
    let stages: Vec<String> = stages.collect();
    format!(
        "{} [{}]",
        job["status"].as_str().unwrap_or("?"),
        stages.join(", ")
    )
}
