//! Outputs on S3: published as a whole, whoever is killed at which step, over a server that loses answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::clock::{eventually, until_empty};
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::survivor::Survivor;
use crate::{job, outputs};

const OUTPUTS: [&str; 2] = ["daily", "top"];
/// Changes of the bucket of which one is answered with an error.
const LOSES_EVERY: u64 = 5;

/// The job of the weblog example, with its outputs in a folder of the bucket.
fn weblog(fixture: &Fixture, folder: &str, mode: &str) -> Value {
    let mut job = job::weblog(&fixture.logs(), "/unused".as_ref());
    for output in OUTPUTS {
        job["output"][output]["uri"] = json!(format!("s3://lake/{folder}/{output}/"));
        job["output"][output]["mode"] = json!(mode);
    }
    job
}

fn manifest(bucket: &Bucket, folder: &str) -> Value {
    let text = bucket.object(&format!("{folder}/_weft.manifest"));
    serde_json::from_slice(&text.expect("it is published")).expect("a manifest is JSON")
}

/// The files of both outputs by their names, after a check that the manifests list all that is there.
fn published(bucket: &Bucket, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut listed = BTreeSet::new();
    for output in OUTPUTS {
        let folder = format!("{folder}/{output}");
        listed.insert(format!("{folder}/_weft.manifest"));
        for file in manifest(bucket, &folder)["files"]
            .as_array()
            .expect("files")
        {
            let (name, key) = (file["name"].as_str(), file["key"].as_str());
            let key = format!("{folder}/{}", key.expect("a key"));
            let bytes = bucket.object(&key).expect("what is listed is there");
            files.insert(
                PathBuf::from(format!("{output}/{}", name.expect("a name"))),
                bytes,
            );
            listed.insert(key);
        }
    }
    let there: BTreeSet<String> = bucket.keys(&format!("{folder}/")).into_iter().collect();
    assert_eq!(there, listed);
    files
}

/// Returns the files that the job publishes, without the manifests.
fn expected(fixture: &Fixture) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = fixture.expected.clone();
    files.retain(|path, _| !path.ends_with("_weft.manifest"));
    files
}

/// Runs a job with `point` armed for one kill, and checks all that must hold after it.
fn play(fixture: &Fixture, point: &str) {
    let bucket = Bucket::start(Some(LOSES_EVERY));
    let place = Place::with_components(fixture);
    let once = place.path("once");
    let setup = bucket.setup(Setup::default().with_failpoints(point, &once));
    let mut survivor = Survivor::start(&place, setup);
    let id = survivor.submit(&weblog(fixture, "out", "error"), "job");
    let ended = survivor.wait(&id);
    assert_eq!(ended["status"], "succeeded", "{point}: {ended:#}");
    eventually(&format!("{point} is passed"), || {
        once.exists().then_some(())
    });
    survivor.wait_until_died(1);
    assert_eq!(survivor.wait(&id)["status"], "succeeded", "{point}");
    survivor.wait_until_tidy(&place.out());
    outputs::assert_same(&published(&bucket, "out"), &expected(fixture), point);
    // Those of attempts that died before they were committed, too.
    until_empty("no upload is left", || bucket.uploads());
}

#[test]
fn a_job_is_published_on_s3_whoever_is_killed_at_any_step() {
    let fixture = Fixture::shared();
    for (point, passes) in [
        ("uploads-listed=kill-parent", [1, 2, 5].as_slice()),
        ("commit=kill", &[2]),
        ("publish=kill-parent", &[1, 2, 4]),
        ("publish-completed=kill-parent", &[1, 2]),
        ("publish-manifest=kill-parent", &[1, 2]),
        ("published=kill", &[1]),
        ("archived=kill", &[1]),
    ] {
        for pass in passes {
            play(&fixture, &format!("{point}@{pass}"));
        }
    }
}

#[test]
fn jobs_add_to_a_folder_on_s3_and_replace_it() {
    let fixture = Fixture::shared();
    let bucket = Bucket::start(Some(LOSES_EVERY));
    let place = Place::with_components(&fixture);
    let server = Server::start(&place.data(), &bucket.setup(Setup::default()));
    let first = job::run(&server, &weblog(&fixture, "out", "error"));
    let uri = first["outputs"][0]["uri"].as_str().expect("a location");
    assert!(uri.starts_with("s3://lake/out/"), "{uri}");
    let once = published(&bucket, "out");
    outputs::assert_same(&once, &expected(&fixture), "the first job");

    // Rows come from the bucket like from any other folder.
    let id = job::id_of(&first);
    let rows = format!("/v1/jobs/{id}/outputs/daily/rows?format=csv");
    let rows = server.ask(&Request::get(rows));
    assert_eq!(rows.status, 200);
    let listed = manifest(&bucket, "out/daily")["rows"].as_u64();
    let n_lines = rows.body.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(Some(n_lines), listed.map(|rows| rows + 1));

    // A folder is read as its manifest lists it.
    let copied = job::run(
        &server,
        &json!({
            "name": "copy",
            "input": { "daily": { "format": "parquet", "uri": "s3://lake/out/daily/" } },
            "output": { "copy": { "from": "daily", "format": "parquet", "uri": place.out() } },
        }),
    );
    assert_eq!(copied["outputs"][0]["rows"].as_u64(), listed);

    let refused = job::wait(
        &server,
        &job::submit(&server, &weblog(&fixture, "out", "error")),
    );
    assert_eq!(refused["problem"]["code"], "output_exists", "{refused:#}");
    job::run(&server, &weblog(&fixture, "out", "append"));
    assert_eq!(published(&bucket, "out").len(), 2 * once.len());
    job::run(&server, &weblog(&fixture, "out", "overwrite"));
    // The files that were replaced go a moment after the job has succeeded.
    let n_keys = once.len() + OUTPUTS.len();
    eventually("the replaced files are removed", || {
        (bucket.keys("out/").len() == n_keys).then_some(())
    });
    let replaced = published(&bucket, "out");
    let bytes = |files: &BTreeMap<PathBuf, Vec<u8>>| files.values().cloned().collect::<Vec<_>>();
    assert_eq!(bytes(&replaced), bytes(&once));
    until_empty("no upload is left", || bucket.uploads());
}

/// Files of a job that is being published, or has failed, lie in the folder and are not listed yet, or any more.
#[test]
fn a_table_on_s3_has_the_rows_that_are_published() {
    let bucket = Bucket::start(None);
    let place = Place::new();
    let server = Server::start(&place.data(), &bucket.setup(Setup::default()));
    let statement = |sql: &str| {
        let stage = json!([{ "name": "rows", "sql": sql }]);
        job::run(&server, &json!({ "name": "statement", "stage": stage }))
    };
    statement("CREATE TABLE t STORED AS PARQUET LOCATION 's3://lake/t/' AS SELECT 1 AS a");
    statement("CREATE EXTERNAL TABLE u STORED AS PARQUET LOCATION 's3://lake/t/'");
    bucket.write("t/part-unlisted.parquet", b"no rows yet");
    statement("INSERT INTO t VALUES (2)");
    statement("INSERT INTO u SELECT max(a) + 1 FROM u");
    for table in ["t", "u"] {
        let out = place.path(table);
        let read = json!({
            "name": "read",
            "stage": [{ "name": "rows", "sql": format!("SELECT a FROM {table}") }],
            "output": { "rows": { "from": "rows", "format": "csv", "uri": out } },
        });
        let read = job::run(&server, &read);
        assert_eq!(read["outputs"][0]["rows"], 3, "{table}: {read:#}");
    }
}

/// The user, or whoever gives rights, can change it; a repetition cannot.
#[test]
fn an_output_for_which_a_right_is_missing_fails_at_once() {
    let bucket = Bucket::start(None);
    let place = Place::new();
    let server = Server::start(&place.data(), &bucket.setup(Setup::default()));
    let job = json!({
        "name": "rows",
        "stage": [{ "name": "rows", "sql": "SELECT 1 AS a" }],
        "output": { "rows": { "from": "rows", "format": "csv", "uri": "s3://lake/out/" } },
    });
    // The planner's look, and the task's file.
    for part in [".weft-", "part-"] {
        bucket.forbid(part);
        let ended = job::wait(&server, &job::submit(&server, &job));
        assert_eq!(ended["problem"]["code"], "invalid_job", "{ended:#}");
        let detail = ended["problem"]["detail"].as_str().expect("a text");
        for said in ["`s3:PutObject`", "s3://lake/out/", part] {
            assert!(detail.contains(said), "{detail}");
        }
        assert_eq!(bucket.n_forbidden(), 1, "{ended:#}");
    }
}
