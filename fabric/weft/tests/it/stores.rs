//! Servers whose store is a bucket of a real S3 server, and jobs that read `s3://`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weft_protocol::{Secret, StoreSettings, Stores};
use weft_store::Blobs;

use crate::clock::{eventually, until_empty};
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::proxy::Proxy;
use crate::seaweedfs::{KEY, ROLE, SeaweedFs};
use crate::server::{Server, Setup};
use crate::{catalog, folder, job, outputs};

/// The cluster's own store, and the store that jobs use.
const OWN: &str = "s3://cluster/weft";
const LAKE: &str = "s3://lake/";
/// Folders of the lake that jobs may use.
const ROOTS: &str = "[\"s3://lake/logs\", \"s3://lake/out\"]";
const OUTPUTS: [&str; 2] = ["daily", "top"];
const MANIFEST: &str = "_weft.manifest";
/// Requests that fail over a bad network, of a hundred.
const FAILING_PERCENT: u64 = 20;

/// A real S3 server, and a client of it.
struct Storage {
    server: SeaweedFs,
    runtime: Runtime,
}

impl Storage {
    fn new() -> Storage {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let storage = Storage {
            server: SeaweedFs::start(),
            runtime: runtime.expect("a runtime"),
        };
        // Buckets are made by their first object.
        for bucket in ["s3://cluster", "s3://lake"] {
            storage.put(&storage.blobs(bucket), "made", Vec::new());
        }
        storage
    }

    /// A bucket as tests see it.
    fn blobs(&self, url: &str) -> Blobs {
        let mut own = StoreSettings::of_url(url);
        own.endpoint = Some(self.server.endpoint());
        for (name, value) in [("access_key_id", KEY.0), ("secret_access_key", KEY.1)] {
            own.options.insert(name.into(), Secret::new(value));
        }
        let stores = Stores {
            own,
            ..Stores::default()
        };
        let _entered = self.runtime.enter();
        Blobs::open(&stores).expect("the settings are right")
    }

    fn put(&self, blobs: &Blobs, key: &str, bytes: Vec<u8>) {
        let put = self.runtime.block_on(blobs.put(key, bytes));
        put.expect("it is written");
    }

    /// Keys below a folder of the cluster's store.
    fn keys(&self, folder: &str) -> Vec<String> {
        self.keys_of(OWN, &format!("weft/{folder}"))
    }

    /// Keys below a folder of a bucket.
    fn keys_of(&self, url: &str, folder: &str) -> Vec<String> {
        let blobs = self.blobs(url);
        let remote = blobs.remote().expect("it is a bucket");
        let found = remote.objects_below(folder).expect("it begins");
        found.map(|one| one.expect("it lists").key).collect()
    }

    /// Keys of uploads to the lake that are neither completed nor aborted.
    fn uploads(&self) -> Vec<String> {
        self.uploads_of(LAKE, "out")
    }

    fn uploads_of(&self, url: &str, folder: &str) -> Vec<String> {
        let blobs = self.blobs(url);
        let pending = blobs.remote().and_then(|remote| remote.pending.clone());
        let pending = pending.expect("S3 lists uploads");
        let listed = self.runtime.block_on(pending.uploads_of(folder));
        let listed = listed.expect("it lists").into_iter();
        listed.map(|(path, _)| path.to_string()).collect()
    }

    /// Files of the outputs below `out` in the lake, by their names, after a check that manifests list all that is
    /// there.
    fn published(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let blobs = self.blobs(LAKE);
        let get = |key: &str| {
            let found = self.runtime.block_on(blobs.get(key));
            found.expect("it is there").to_vec()
        };
        let (mut files, mut listed) = (BTreeMap::new(), Vec::new());
        for output in OUTPUTS {
            let manifest = format!("out/{output}/{MANIFEST}");
            let text: Value = serde_json::from_slice(&get(&manifest)).expect("JSON");
            listed.push(manifest);
            for file in text["files"].as_array().expect("it lists files") {
                let of = |property: &str| file[property].as_str().expect("a text");
                let key = format!("out/{output}/{}", of("key"));
                files.insert(Path::new(output).join(of("name")), get(&key));
                listed.push(key);
            }
        }
        let mut there = self.keys_of(LAKE, "out");
        listed.sort();
        there.sort();
        assert_eq!(there, listed);
        files
    }

    /// Puts the files of a folder into the lake.
    fn copy(&self, from: &Path, prefix: &str) {
        let blobs = self.blobs(LAKE);
        for path in folder::files(from) {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.expect("files of tests have plain names");
            let bytes = std::fs::read(&path).expect("it is there");
            self.put(&blobs, &format!("{prefix}/{name}"), bytes);
        }
    }

    /// Settings by the environment: credentials of the own store as AWS names them, those of the lake as settings do.
    fn setup(&self) -> Setup {
        Self::setup_at(&self.server.endpoint())
    }

    fn setup_at(endpoint: &str) -> Setup {
        Setup::default()
            .with("WEFT__STORE", OWN)
            .with("WEFT__STORE__ENDPOINT", endpoint)
            .with("AWS_ACCESS_KEY_ID", KEY.0)
            .with("AWS_SECRET_ACCESS_KEY", KEY.1)
            .with("AWS_REGION", "us-east-1")
            .with("WEFT__STORE__LAKE__URL", LAKE)
            .with("WEFT__STORE__LAKE__ROOTS", ROOTS)
            .with("WEFT__STORE__LAKE__ENDPOINT", endpoint)
            .with("WEFT__STORE__LAKE__ACCESS_KEY_ID", KEY.0)
            .with("WEFT__STORE__LAKE__SECRET_ACCESS_KEY", KEY.1)
    }
}

/// The weblog job over an `s3://` input.
fn weblog(uri: &str, out: &Path) -> Value {
    let mut job = job::weblog(Path::new("/nowhere"), out);
    job["input"]["logs"]["uri"] = uri.into();
    job
}

#[test]
fn a_job_runs_in_a_bucket_and_reads_one() {
    let (fixture, storage, place) = (Fixture::shared(), Storage::new(), Place::new());
    storage.copy(&fixture.logs(), "logs/day=1");
    let server = Server::start(&place.data(), &storage.setup());
    job::deploy(&server, "weblog");
    let job = weblog("s3://lake/logs/day=*/access-*", &place.out());
    let id = job::id_of(&job::run(&server, &job));
    let check = |out: &Path| {
        let found = outputs::published(out);
        outputs::assert_same(&found, &fixture.expected, "in a bucket");
    };
    check(&place.out());
    until_empty("the job's objects are gone", || storage.keys("jobs"));
    let archived = format!("weft/archive/{id}.json.zst");
    assert!(storage.keys("archive").contains(&archived));
    assert_eq!(storage.keys("components").len(), 1);
    assert_eq!(storage.keys("artefacts").len(), 1);
    let local = folder::files(&place.data().join("store"));
    assert!(local.is_empty(), "{local:?}");

    // A server that starts again finds all of it.
    assert!(server.stop().success());
    let server = Server::start(&place.data(), &storage.setup());
    assert_eq!(job::show(&server, &id)["status"], "succeeded");
    let again = place.path("again");
    job::run(&server, &weblog("s3://lake/logs/**/access-*", &again));
    check(&again);
}

#[test]
fn stores_are_checked_by_the_doctor_and_when_a_server_starts() {
    let (storage, place) = (Storage::new(), Place::new());
    let setup = storage
        .setup()
        .with("WEFT__STORE__POND__URL", "s3://nowhere/")
        .with("WEFT__STORE__POND__ENDPOINT", storage.server.endpoint())
        .with("WEFT__STORE__POND__ACCESS_KEY_ID", KEY.0)
        .with("WEFT__STORE__POND__SECRET_ACCESS_KEY", KEY.1);
    let server = Server::start(&place.data(), &setup);
    eventually("the log warns", || {
        server
            .log()
            .contains("there is no such bucket")
            .then_some(())
    });
    let mut doctor = server.cli(&["doctor"]);
    doctor.envs(setup.environment.iter().map(|(name, value)| (name, value)));
    let output = doctor.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    for told in ["`s3://cluster/weft`", "`s3://lake/logs`", "`s3://lake/out`"] {
        let mut lines = said.lines();
        let line = lines
            .find(|line| line.contains(told))
            .expect("it is checked");
        assert!(line.starts_with("ok"), "{line}");
    }
    let pond = said.lines().find(|line| line.contains("s3://nowhere/"));
    let pond = pond.expect("it is checked");
    assert!(
        pond.starts_with("failing") && pond.contains("there is no such bucket"),
        "{pond}"
    );
    for (url, folder) in [(OWN, "weft/.weft-probe"), (LAKE, "logs"), (LAKE, "out")] {
        let left = storage.keys_of(url, folder);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Numbers of a document's fields, summed.
fn sum(of: &Value, fields: &[&str]) -> u64 {
    let numbers = fields.iter().map(|field| of[*field].as_u64());
    numbers.map(|number| number.expect("a number")).sum()
}

#[test]
fn a_job_makes_few_requests_and_pays_for_them() {
    let (fixture, storage, place) = (Fixture::shared(), Storage::new(), Place::new());
    let server = Server::start(&place.data(), &storage.setup());
    job::deploy(&server, "weblog");
    let ended = job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
    let receipt = format!("/v1/jobs/{}/receipt", job::id_of(&ended));
    let receipt = server.ask(&Request::get(receipt)).ok();
    let stages = ended["stages"].as_array().expect("stages").iter();
    let n_tasks: u64 = stages.map(|stage| sum(stage, &["tasks_total"])).sum();
    let billed = &receipt["billed"];
    let reads = sum(billed, &["get_requests", "head_requests", "list_requests"]);
    let writes = sum(billed, &["put_requests", "delete_requests"]);
    assert!(writes > 0, "objects, logs and plans: {billed:#}");
    assert!(
        reads + writes <= 3 * n_tasks,
        "{reads} and {writes} for {n_tasks} tasks: {billed:#}"
    );
    assert_eq!(
        reads, 0,
        "the node has all that its tasks wrote: {billed:#}"
    );
    let planning = receipt["lines"].as_array().expect("lines").iter();
    let planning = planning.filter(|line| line["stage"] == "" && line["function"] == "-");
    assert_eq!(planning.count(), 1, "{receipt:#}");
    let metrics = server.ask(&Request::get("/metrics")).text();
    assert!(
        metrics.contains("weft_store_requests_total{kind=\"put\"}"),
        "{metrics}"
    );
    let tier = place.data().join("tier");
    until_empty("the node keeps nothing of a job that has ended", || {
        let names = folder::names(&tier).into_iter();
        names.filter(|name| name != "total").collect::<Vec<_>>()
    });
}

#[test]
fn what_a_bucket_lost_is_written_again() {
    let (fixture, storage, place) = (Fixture::shared(), Storage::new(), Place::new());
    let setup = storage.setup();
    let server = Server::start(&place.data(), &setup);
    job::deploy(&server, "weblog");
    assert!(server.stop().success());
    let held = storage
        .setup()
        .with_failpoints("reduce=kill-parent", &place.path("once"));
    let server = Server::start(&place.data(), &held);
    let id = job::submit(&server, &job::weblog(&fixture.logs(), &place.out()));
    server.wait_until_killed();
    let keys = storage.keys(&format!("jobs/{id}/0"));
    let mut objects = keys.iter().filter(|key| key.ends_with(".shuffle"));
    let blobs = storage.blobs(OWN);
    let (gone, damaged) = (objects.next().expect("one"), objects.next().expect("two"));
    let of_store = |key: &str| key.strip_prefix("weft/").expect("our prefix").to_owned();
    let deleted = storage.runtime.block_on(blobs.delete(&of_store(gone)));
    deleted.expect("it is removed");
    let bytes = storage.runtime.block_on(blobs.get(&of_store(damaged)));
    let mut bytes = bytes.expect("it is there").to_vec();
    bytes[10] ^= 1;
    storage.put(&blobs, &of_store(damaged), bytes);

    // What the node had kept went with the server.
    let server = Server::start(&place.data(), &setup);
    let ended = job::wait(&server, &id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let found = outputs::published(&place.out());
    outputs::assert_same(&found, &fixture.expected, "after objects were lost");
    let events = Request::get(format!("/v1/jobs/{id}/events"));
    let events = server.ask(&events.header("accept", "application/json"));
    let events = events.ok()["items"].as_array().expect("events").clone();
    let lost = events.iter().filter(|event| event["kind"] == "object_lost");
    assert_eq!(lost.count(), 2, "{events:#?}");
}

/// Runs the weblog job from the lake to the lake, and checks that it published what it publishes to a folder.
fn run_in_lake(storage: &Storage, fixture: &Fixture, endpoint: &str) {
    let place = Place::new();
    storage.copy(&fixture.logs(), "logs");
    let server = Server::start(&place.data(), &Storage::setup_at(endpoint));
    job::deploy(&server, "weblog");
    let mut job = weblog("s3://lake/logs/access-*", &place.out());
    for output in OUTPUTS {
        job["output"][output]["uri"] = json!(format!("s3://lake/out/{output}/"));
    }
    job::run(&server, &job);
    let mut expected = fixture.expected.clone();
    expected.retain(|path, _| !path.ends_with(MANIFEST));
    outputs::assert_same(&storage.published(), &expected, "in the lake");
    until_empty("the job's objects are gone", || storage.keys("jobs"));
    until_empty("no upload is left", || storage.uploads());
}

#[test]
fn a_job_reads_a_bucket_and_publishes_to_it() {
    let (fixture, storage) = (Fixture::shared(), Storage::new());
    run_in_lake(&storage, &fixture, &storage.server.endpoint());
}

#[test]
fn a_job_succeeds_though_a_fifth_of_all_requests_fail() {
    let (fixture, storage) = (Fixture::shared(), Storage::new());
    let proxy = Proxy::start(&storage.server.address());
    proxy.fail(FAILING_PERCENT, 3);
    run_in_lake(&storage, &fixture, &proxy.endpoint());
    assert!(proxy.take_happened().len() >= 10, "faults happened");
}

#[test]
fn inputs_that_cannot_be_read_say_why() {
    let (storage, place) = (Storage::new(), Place::new());
    let lake = storage.blobs(LAKE);
    storage.put(&lake, "secret/access-1", b"a line\n".to_vec());
    storage.put(&lake, "logs/access-1", b"a line\n".to_vec());
    let server = Server::start(&place.data(), &storage.setup());
    job::deploy(&server, "weblog");
    for (uri, code, words) in [
        (
            "s3://lake/secret/access-*",
            "invalid_job",
            "`s3://lake/logs`",
        ),
        ("s3://lake/logs/none-*", "no_input", "matches no object"),
        ("s3://lake/logs/access-2", "no_input", "is not there"),
        ("s3://cluster/weft/owner", "invalid_job", "its own objects"),
        ("gs://lake/logs/access-1", "invalid_job", "jobs may use"),
    ] {
        let submitted = job::submit(&server, &weblog(uri, &place.out()));
        let ended = job::wait(&server, &submitted);
        assert_eq!(ended["status"], "failed", "{ended:#}");
        assert_eq!(ended["problem"]["code"], code, "{ended:#}");
        let detail = ended["problem"]["detail"].as_str().expect("a text");
        assert!(detail.contains(words), "{detail}");
    }
    let shown = server.ask(&Request::get("/v1/jobs")).ok().to_string();
    assert!(!shown.contains(KEY.1), "credentials are nobody's to see");
}

#[test]
fn a_bucket_of_another_cluster_is_refused() {
    let (storage, place, other) = (Storage::new(), Place::new(), Place::new());
    let server = Server::start(&place.data(), &storage.setup());
    assert!(server.stop().success());
    let died = Server::try_start(&other.data(), &storage.setup());
    let said = died.err().expect("the bucket is not its own");
    assert!(said.contains("belongs to the cluster"), "{said}");
}

#[test]
fn a_data_folder_knows_its_store() {
    let (storage, place) = (Storage::new(), Place::new());
    let without = |names: &str| {
        let mut setup = storage.setup();
        setup
            .environment
            .retain(|(name, _)| *name != "WEFT__STORE" && !name.starts_with(names));
        setup
    };
    let server = Server::start(&place.data(), &storage.setup());
    job::deploy(&server, "weblog");
    assert!(server.stop().success());
    // Credentials stand in the environment, and nothing names the store.
    let server = Server::start(&place.data(), &without("-"));
    let known = server.ask(&Request::get("/v1/components")).ok().to_string();
    assert!(known.contains("weblog"), "{known}");
    assert!(server.stop().success());
    assert_eq!(storage.keys("components").len(), 1);

    let elsewhere = place.path("elsewhere").display().to_string();
    let another = storage.setup().with("WEFT__STORE", &elsewhere);
    for (setup, told) in [
        (without("AWS_"), "no credentials"),
        (Setup::default(), "no credentials"),
        (another, elsewhere.as_str()),
    ] {
        let refused = Server::try_start(&place.data(), &setup);
        let text = refused.err().expect("the objects would be missing");
        assert!(text.contains(told) && text.contains(OWN), "{text}");
    }
}

#[test]
fn executors_work_in_a_role_where_tenants_do_not_trust_each_other() {
    let (fixture, storage, place) = (Fixture::shared(), Storage::new(), Place::new());
    storage.copy(&fixture.logs(), "logs/day=1");
    let wary = |setup: Setup| setup.with("WEFT__TENANTS_TRUST_EACH_OTHER", "false");
    let died = Server::try_start(&place.data(), &wary(storage.setup()));
    let said = died.err().expect("keys are refused");
    assert!(
        said.contains("unscoped") && said.contains("executor_role"),
        "{said}"
    );

    let setup = storage
        .setup()
        .with("WEFT__STORE__EXECUTOR_ROLE", ROLE)
        .with("WEFT__STORE__LAKE__EXECUTOR_ROLE", ROLE);
    let server = Server::start(&place.data(), &wary(setup));
    job::deploy(&server, "weblog");
    let job = weblog("s3://lake/logs/day=*/access-*", &place.out());
    job::run(&server, &job);
    let found = outputs::published(&place.out());
    outputs::assert_same(&found, &fixture.expected, "in a role");
}

/// Executors read and write the rows of tables in a role.
#[test]
fn tables_are_kept_in_a_bucket_until_they_are_dropped() {
    let (storage, place) = (Storage::new(), Place::new());
    let setup = || {
        let setup = storage
            .setup()
            .with("WEFT__TENANTS_TRUST_EACH_OTHER", "false");
        let setup = setup.with("WEFT__STORE__EXECUTOR_ROLE", ROLE);
        setup.with("WEFT__STORE__LAKE__EXECUTOR_ROLE", ROLE)
    };
    let here = place.path("here");
    std::fs::create_dir(&here).expect("it is made");
    let mut server = Server::start(&place.data(), &setup());
    let mut jobs = Vec::new();
    for (sql, sums) in [
        (
            "CREATE TABLE t AS SELECT * FROM (VALUES (1), (2)) AS v (a)",
            [2, 3],
        ),
        ("INSERT INTO t VALUES (3)", [3, 6]),
        ("INSERT INTO t SELECT a + 10 FROM t", [6, 42]),
        (
            "CREATE OR REPLACE TABLE t AS SELECT a FROM t WHERE a > 10",
            [3, 36],
        ),
        ("INSERT INTO t (a) SELECT max(a) FROM t", [4, 49]),
    ] {
        let made = catalog::done(&server, &here, sql);
        jobs.push(made["job"].as_str().expect("an id").to_owned());
        assert!(server.stop().success());
        server = Server::start(&place.data(), &setup());
        let read = "SELECT count(*) AS n, sum(a) AS total FROM t";
        let found = catalog::done(&server, &here, read);
        assert_eq!(found["rows"], json!([sums]), "{sql}");
    }
    let keys = || -> Vec<String> {
        let of_job = |job: &String| storage.keys(&format!("outputs/{job}"));
        jobs.iter().flat_map(of_job).collect()
    };
    let there = keys();
    let rows = there.iter().find(|key| key.ends_with(".arrow"));
    let rows = rows.expect("rows are kept as Arrow");
    let named = format!("SELECT * FROM 's3://cluster/{rows}'");
    catalog::refused(&server, &here, &named, "its own objects");
    catalog::done(&server, &here, "DROP TABLE t");
    // A start removes what nothing refers to. A job that was not archived by then is, and its rows go with the next.
    for _ in 0..3 {
        assert!(server.stop().success());
        server = Server::start(&place.data(), &setup());
        if keys().is_empty() {
            break;
        }
    }
    assert_eq!(keys(), [] as [String; 0]);
    let uploads = storage.uploads_of(OWN, "weft/outputs");
    assert_eq!(uploads, [] as [String; 0]);
}
