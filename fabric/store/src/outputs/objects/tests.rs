mod faulty;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use weft_core::job::OutputMode;
use weft_core::{ErrorCode, JobId, lock};
use weft_protocol::{ManifestOutput, SinkFile, job_prefix};

use self::faulty::{Fate, Process, Server};
use super::ledger::with_publication;
use super::upload::{Upload, UploadList, uploads_of};
use super::*;
use crate::blobs::Blobs;
use crate::grants::Grants;

const NAMES: [&str; 2] = ["part-days-00000.csv", "day=1/part-days-00001.csv"];

/// A server, and the cluster's store, which does not fail here.
struct World {
    server: Arc<Server>,
    blobs: Blobs,
}

impl World {
    fn new() -> Self {
        let own = Remote::in_memory("s3://own/").expect("it opens");
        Self {
            server: Arc::default(),
            blobs: Blobs::of_remote(own, Grants::default()),
        }
    }

    /// The folder as a process sees it.
    fn folder(process: &Process) -> ObjectFolder {
        let root = Path::from("out/daily");
        ObjectFolder::new(process.remote(), root).expect("it is on S3")
    }

    /// The folder as a process sees it that meets no faults.
    fn quiet(&self) -> ObjectFolder {
        Self::folder(&Process::new(&self.server, 0, 0))
    }

    /// An output whose files a job has uploaded: each has as many bytes as the job's number.
    async fn staged(&self, job: u128, mode: OutputMode) -> (JobId, ManifestOutput) {
        let id = JobId::new(1, job);
        let process = Process::new(&self.server, 0, 0);
        let folder = Self::folder(&process);
        let bytes = usize::try_from(job).expect("a small number");
        let list = format!("{}/0/0-a-1-{job}.daily.uploads", job_prefix(&id));
        let mut uploads = UploadList::default();
        let mut files = Vec::new();
        for name in NAMES {
            let key = key_of(name, &id, "a-1-1");
            let path = folder.path(&key).expect("a key");
            let upload = process.create_multipart(&path).await.expect("it starts");
            let part = vec![b'x'; bytes].into();
            let part = process.put_part(&path, &upload, 0, part).await;
            uploads.uploads.push(Upload {
                name: name.into(),
                key,
                id: upload,
                parts: vec![part.expect("it is there").content_id],
                bytes: bytes as u64,
                e_tag: String::new(),
            });
            files.push(SinkFile {
                output: "daily".into(),
                staged: list.clone(),
                name: name.into(),
                rows: 1,
                bytes: bytes as u64,
                xxh3: String::new(),
            });
        }
        let text = uploads.encode().expect("JSON");
        let put = self.blobs.put_durable(&list, text.into()).await;
        put.expect("it writes");
        let output = ManifestOutput {
            name: "daily".into(),
            folder: "s3://lake/out/daily/".into(),
            is_kept: false,
            format: "csv".into(),
            schema: Vec::new(),
            files,
            partition_by: Vec::new(),
            mode,
        };
        (id, output)
    }

    async fn publish(&self, job: u128, mode: OutputMode) -> (JobId, ManifestOutput) {
        let (id, output) = self.staged(job, mode).await;
        let published = self.quiet().publish(&self.blobs, &id, &output).await;
        assert_eq!(published.expect("it publishes").files, 2);
        (id, output)
    }

    async fn succeed(&self, (id, output): &(JobId, ManifestOutput)) {
        let folder = self.quiet();
        let cleaned = folder.clean(&self.blobs, id, output, Ended::Succeeded);
        cleaned.await.expect("it cleans");
    }

    /// The job fails, and is cleaned up twice.
    async fn fail(&self, (id, output): &(JobId, ManifestOutput)) {
        let folder = self.quiet();
        for _ in 0..2 {
            let ended = Ended::Failed { may_publish: true };
            let cleaned = folder.clean(&self.blobs, id, output, ended).await;
            cleaned.expect("it cleans");
        }
    }

    /// The jobs whose files the manifest lists, each once, after a check that all of them, and no others, are there.
    async fn jobs(&self) -> Vec<u64> {
        let folder = self.quiet();
        let manifest = folder.read_manifest().await.expect("it reads");
        let files = manifest.map_or(Vec::new(), |manifest| manifest.files);
        let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names.len(), files.len(), "names are told apart");
        let listed: BTreeSet<String> = files.iter().map(|file| file.key().to_owned()).collect();
        let there = self.server.objects.list(Some(folder.root()));
        let there: Vec<_> = there.try_collect().await.expect("it lists");
        let there = there.into_iter().map(|object| {
            let key = object.location.as_ref().strip_prefix("out/daily/");
            key.expect("it lies in the folder").to_owned()
        });
        let there: BTreeSet<String> = there.filter(|key| key != MANIFEST).collect();
        assert_eq!(listed, there);
        let mut jobs: Vec<u64> = files.iter().map(|file| file.bytes).collect();
        jobs.sort_unstable();
        for pair in jobs.chunks(2) {
            assert_eq!(
                pair, [pair[0]; 2],
                "a job is published as a whole, and once"
            );
        }
        jobs.into_iter().step_by(2).collect()
    }

    fn n_uploads(&self) -> usize {
        lock(&self.server.uploads).len()
    }
}

/// A process dies at each of its requests in turn, before or after it is done; the next one starts over.
#[tokio::test]
async fn a_publication_survives_death_at_any_request() {
    use OutputMode::{Append, Error, Overwrite};
    for (mode, expected) in [
        (Error, [2].as_slice()),
        (Append, &[1, 2]),
        (Overwrite, &[2]),
    ] {
        for is_done in [false, true] {
            let mut n_deaths = 0;
            loop {
                let world = World::new();
                if mode != Error {
                    let first = world.publish(1, mode).await;
                    world.succeed(&first).await;
                }
                let (id, output) = world.staged(2, mode).await;
                let process = Process::that_dies(&world.server, n_deaths, is_done);
                let folder = World::folder(&process);
                let publish = folder.publish(&world.blobs, &id, &output);
                let lived = process.lives(publish).await.is_some();
                let again = world.quiet().publish(&world.blobs, &id, &output).await;
                let again = again.expect("it publishes");
                let twice = world.quiet().publish(&world.blobs, &id, &output).await;
                assert_eq!(twice.expect("it publishes"), again);

                // The clean-up dies as well, and is repeated.
                let process = Process::that_dies(&world.server, n_deaths, is_done);
                let folder = World::folder(&process);
                let clean = folder.clean(&world.blobs, &id, &output, Ended::Succeeded);
                let _ = process.lives(clean).await;
                world.succeed(&(id, output)).await;
                assert_eq!(world.jobs().await, expected, "{mode:?} {n_deaths}");
                assert_eq!(world.n_uploads(), 0);
                if lived {
                    break;
                }
                n_deaths += 1;
            }
            assert!(n_deaths >= 4, "{mode:?}: only {n_deaths} requests");
        }
    }
}

/// The same of a withdrawal, after a publication that died somewhere, or did not.
#[tokio::test]
async fn a_withdrawal_survives_death_at_any_request() {
    use OutputMode::{Append, Overwrite};
    for mode in [Append, Overwrite] {
        for published in 0..8 {
            let mut n_deaths = 0;
            loop {
                let world = World::new();
                let first = world.publish(1, mode).await;
                world.succeed(&first).await;
                let (id, output) = world.staged(2, mode).await;
                let publisher = Process::that_dies(&world.server, published, true);
                let folder = World::folder(&publisher);
                let _ = publisher
                    .lives(folder.publish(&world.blobs, &id, &output))
                    .await;
                let process = Process::that_dies(&world.server, n_deaths, n_deaths % 2 == 0);
                let folder = World::folder(&process);
                let ended = Ended::Failed { may_publish: true };
                let clean = folder.clean(&world.blobs, &id, &output, ended);
                let lived = process.lives(clean).await.is_some();
                let job = (id, output);
                world.fail(&job).await;
                assert_eq!(world.jobs().await, [1], "{mode:?} {published} {n_deaths}");
                assert_eq!(world.n_uploads(), 0);
                // A publisher that was paused goes on.
                let late = world.quiet().publish(&world.blobs, &job.0, &job.1).await;
                assert!(matches!(late, Err(Error::Withdrawn(_))), "{late:?}");
                assert_eq!(world.jobs().await, [1]);
                if lived {
                    break;
                }
                n_deaths += 1;
            }
        }
    }
}

/// The publisher was paused between reading the manifest and writing it, and the job has failed meanwhile.
#[tokio::test]
async fn a_late_manifest_is_refused() {
    for has_manifest in [false, true] {
        let world = World::new();
        if has_manifest {
            let first = world.publish(1, OutputMode::Append).await;
            world.succeed(&first).await;
        }
        let (id, output) = world.staged(2, OutputMode::Append).await;
        let folder = world.quiet();
        let pending = uploads_of(&world.blobs, &id, &output.files).await;
        let pending = pending.expect("they are listed");
        for one in &pending {
            folder.complete(one).await.expect("it completes");
        }
        let found = folder.read().await.expect("it reads");
        let (manifest, version) = found.map(|found| (found.manifest, found.version)).unzip();
        let change = with_publication(manifest.as_ref(), &id, &output, &pending);
        let Ok(Change::Write(late)) = change else {
            panic!("{change:?}");
        };
        world.fail(&(id, output)).await;
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        let text = encode(&late).expect("JSON");
        let path = folder.path(MANIFEST).expect("a key");
        let objects = &world.server.objects;
        let put = objects.put_opts(&path, text.into(), mode.into()).await;
        put.expect_err("it is late");
        let expected: &[u64] = if has_manifest { &[1] } else { &[] };
        assert_eq!(world.jobs().await, expected);
        let holding = folder.look_into().await.expect("it looks");
        assert_eq!(
            matches!(holding, Holding::Nothing),
            !has_manifest,
            "{holding:?}"
        );
        // The folder is as good as new.
        let next = world.publish(3, OutputMode::Append).await;
        world.succeed(&next).await;
        assert_eq!(world.jobs().await.last(), Some(&3));
    }
}

/// Two clusters append to one folder, over a network that refuses and loses answers.
#[tokio::test]
async fn two_writers_lose_and_double_nothing() {
    let mut n_lost = 0;
    for seed in 0..100 {
        let world = World::new();
        let writer = |parity: u128| {
            let world = &world;
            let process = Process::new(&world.server, seed * 2 + parity as u64, 20);
            async move {
                let folder = World::folder(&process);
                for job in (0..5).map(|job| 2 * job + parity + 1) {
                    let (id, output) = world.staged(job, OutputMode::Append).await;
                    // As the control plane does: what is not known to be done is done again.
                    while let Err(error) = folder.publish(&world.blobs, &id, &output).await {
                        let kind = error.kind();
                        assert_eq!(kind, crate::ErrorKind::Unavailable, "seed {seed}: {error}");
                    }
                    while folder
                        .clean(&world.blobs, &id, &output, Ended::Succeeded)
                        .await
                        .is_err()
                    {}
                }
                process.fates(Fate::Lost)
            }
        };
        let (a, b) = tokio::join!(writer(0), writer(1));
        n_lost += a + b;
        assert_eq!(
            world.jobs().await,
            (1..=10).collect::<Vec<_>>(),
            "seed {seed}"
        );
    }
    assert!(n_lost > 500, "only {n_lost} answers were lost");
}

/// Jobs of two clusters append, replace and fail side by side; what is there is what the manifest lists.
#[tokio::test]
async fn whoever_succeeds_and_fails_the_folder_is_whole() {
    for seed in 0..100 {
        let world = World::new();
        let writer = |parity: u128| {
            let world = &world;
            let process = Process::new(&world.server, seed * 2 + parity as u64, 10);
            let mut dice = StdRng::seed_from_u64(seed * 2 + parity as u64);
            async move {
                let folder = World::folder(&process);
                for job in (0..4).map(|job| 2 * job + parity + 1) {
                    let mode = match dice.random_range(0..2) {
                        0 => OutputMode::Append,
                        _ => OutputMode::Overwrite,
                    };
                    let ended = match dice.random_range(0..3) {
                        0 => Ended::Failed { may_publish: true },
                        _ => Ended::Succeeded,
                    };
                    let (id, output) = world.staged(job, mode).await;
                    while folder.publish(&world.blobs, &id, &output).await.is_err() {}
                    let clean = || folder.clean(&world.blobs, &id, &output, ended);
                    while clean().await.is_err() {}
                }
            }
        };
        tokio::join!(writer(0), writer(1));
        println!("seed {seed}: {:?}", world.jobs().await);
        assert_eq!(world.n_uploads(), 0, "seed {seed}");
    }
}

/// A job that has published fails for another of its outputs; meanwhile another one has added to its files, or replaced
/// them, and ends well or not, before or after it.
#[tokio::test]
async fn what_a_failed_job_had_replaced_comes_back() {
    use OutputMode::{Append, Overwrite};
    for (first, second, kept) in [
        (Overwrite, Append, [1, 3].as_slice()),
        (Overwrite, Overwrite, &[3]),
        (Append, Append, &[1, 3]),
        (Append, Overwrite, &[3]),
    ] {
        for (order, expected) in [
            (["fail 2", "succeed 3"], kept),
            (["succeed 3", "fail 2"], kept),
            (["fail 2", "fail 3"], &[1]),
            (["fail 3", "fail 2"], &[1]),
        ] {
            let world = World::new();
            let zeroth = world.publish(1, Append).await;
            world.succeed(&zeroth).await;
            let a = world.publish(2, first).await;
            let b = world.publish(3, second).await;
            for step in order {
                match step {
                    "fail 2" => world.fail(&a).await,
                    "fail 3" => world.fail(&b).await,
                    _ => world.succeed(&b).await,
                }
            }
            assert_eq!(
                world.jobs().await,
                expected,
                "{first:?}, {second:?}: {order:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_folder_that_holds_files_is_not_written_to_by_mistake() {
    let world = World::new();
    let folder = world.quiet();
    folder.prepare(&JobId::new(1, 9)).await.expect("it writes");
    let holding = folder.look_into().await.expect("it looks");
    assert!(matches!(holding, Holding::Nothing), "{holding:?}");
    let theirs = Path::from("out/daily/theirs.csv");
    let put = world.server.objects.put(&theirs, "a".into()).await;
    put.expect("it writes");
    let holding = folder.look_into().await.expect("it looks");
    assert!(matches!(holding, Holding::Foreign), "{holding:?}");
    world.server.objects.delete(&theirs).await.expect("it goes");
    // A name that is only much like those of jobs is a user's own.
    let theirs = Path::from("out/daily/part-a-job-b.csv");
    let put = world.server.objects.put(&theirs, "a".into()).await;
    put.expect("it writes");
    let holding = folder.look_into().await.expect("it looks");
    assert!(matches!(holding, Holding::Foreign), "{holding:?}");
    world.server.objects.delete(&theirs).await.expect("it goes");

    world.publish(1, OutputMode::Error).await;
    let holding = folder.look_into().await.expect("it looks");
    assert!(matches!(holding, Holding::Output(_)), "{holding:?}");
    let (id, output) = world.staged(2, OutputMode::Error).await;
    let refused = folder.publish(&world.blobs, &id, &output).await;
    assert!(matches!(refused, Err(Error::OutputExists(_))));
    world.fail(&(id, output)).await;
    let (id, mut output) = world.staged(3, OutputMode::Append).await;
    output.schema = vec![("page".into(), "utf8".into())];
    let refused = folder.publish(&world.blobs, &id, &output).await;
    assert!(matches!(refused, Err(Error::AppendMismatch { .. })));
    world.fail(&(id, output)).await;
    assert_eq!(world.jobs().await, [1]);
}

/// Somebody else's program has a file of that name, or has damaged ours.
#[tokio::test]
async fn a_manifest_that_cannot_be_read_keeps_no_file_of_a_failed_job() {
    let world = World::new();
    let (id, output) = world.publish(1, OutputMode::Error).await;
    let (other, of_other) = world.staged(2, OutputMode::Append).await;
    let folder = world.quiet();
    let manifest = folder.path(MANIFEST).expect("a key");
    let put = world.server.objects.put(&manifest, "no manifest".into());
    put.await.expect("it is written");
    let ended = Ended::Failed { may_publish: true };
    for (id, output) in [(&id, &output), (&other, &of_other)] {
        let cleaned = folder.clean(&world.blobs, id, output, ended).await;
        let error = cleaned.expect_err("it is no manifest");
        assert!(matches!(error, Error::ForeignManifest { .. }), "{error}");
    }
    let cleaned = folder.clean(&world.blobs, &id, &output, Ended::Succeeded);
    cleaned.await.expect_err("it is no manifest");
    assert_eq!(world.n_uploads(), 0);
    let left = world.server.objects.list(Some(folder.root()));
    let left: Vec<_> = left.try_collect().await.expect("it lists");
    let left: Vec<Path> = left.into_iter().map(|object| object.location).collect();
    assert_eq!(left, [manifest]);
}

#[tokio::test]
async fn a_file_is_fetched_whole_or_not_at_all() {
    let world = World::new();
    world.publish(3, OutputMode::Error).await;
    let folder = world.quiet();
    let found = folder.read_manifest().await.expect("it reads");
    let file = &found.expect("it is there").files[0];
    let root = tempfile::tempdir().expect("a folder");
    let to = root.path().join(file.key());
    folder.fetch(file, &to).await.expect("it is fetched");
    assert_eq!(std::fs::read(&to).expect("a file"), b"xxx");
    std::fs::remove_file(&to).expect("it is removed");
    let other = ManifestFile {
        bytes: 4,
        ..file.clone()
    };
    let lost = folder.fetch(&other, &to).await;
    assert!(matches!(lost, Err(Error::StagedFileLost(_))));
    let parent = to.parent().expect("a folder");
    assert_eq!(std::fs::read_dir(parent).expect("a folder").count(), 0);
}

#[tokio::test]
async fn a_manifest_that_may_not_be_written_is_tried_once() {
    let world = World::new();
    let (id, output) = world.staged(1, OutputMode::Append).await;
    let process = Process::that_only_reads(&world.server);
    let folder = World::folder(&process);
    let refused = folder.publish(&world.blobs, &id, &output).await;
    let refused = refused.expect_err("it may not write");
    assert_eq!(refused.kind(), crate::ErrorKind::Refused, "{refused}");
    assert_eq!(process.fates(Fate::Refused), 1);
}

#[tokio::test]
async fn a_missing_right_is_the_users_but_in_the_clusters_own_store() {
    let world = World::new();
    let (id, output) = world.staged(1, OutputMode::Append).await;
    let folder = || World::folder(&Process::that_only_reads(&world.server));
    let own = folder().of_cluster();
    for (folder, code) in [
        (folder(), ErrorCode::InvalidJob),
        (own, ErrorCode::StoreUnavailable),
    ] {
        let refused = folder.publish(&world.blobs, &id, &output).await;
        let problem = refused.expect_err("it may not write").problem();
        assert_eq!(problem.code, code, "{problem}");
        let names_it = problem
            .detail
            .contains("s3://lake/out/daily/_weft.manifest");
        assert!(names_it, "{problem}");
        let names_right = problem.detail.contains("`s3:PutObject`");
        assert_eq!(names_right, code == ErrorCode::InvalidJob, "{problem}");
    }
}

/// A job pays for what providers charge.
#[tokio::test]
async fn aborts_are_not_counted_as_writes() {
    let world = World::new();
    let folder = world.quiet();
    folder.prepare(&JobId::new(1, 1)).await.expect("it writes");
    let requests = folder.remote().requests();
    let counted = [RequestKind::Put, RequestKind::Delete].map(|kind| requests.of(kind));
    assert_eq!(counted, [1, 1]);
}

/// An attempt died before it was committed: its uploads are told by the job's id.
#[tokio::test]
async fn uploads_that_no_commit_names_are_aborted_when_the_job_has_ended() {
    let world = World::new();
    let (id, _) = world.staged(1, OutputMode::Error).await;
    let (other, _) = world.staged(2, OutputMode::Error).await;
    assert_eq!(world.n_uploads(), 4);
    let aborted = world.quiet().abort_uploads_of(&id).await;
    assert_eq!(aborted.expect("it aborts"), 2);
    assert_eq!(world.n_uploads(), 2);
    let left = lock(&world.server.uploads).clone();
    let is_others = |path: &Path| path.as_ref().contains(other.as_str());
    assert!(left.values().all(is_others));
}

/// Values of `partition_by` stand in keys, and may be what a user likes.
#[test]
fn a_key_belongs_to_the_job_that_its_last_part_names() {
    let (job, other) = (JobId::new(1, 1), JobId::new(1, 2));
    let name = key_of("part-days-00000.csv", &job, "a-1-1");
    let in_folder = format!("day=-{other}-/{name}");
    for key in [&name, &in_folder] {
        assert!(is_of(&job, key), "{key}");
        assert!(!is_of(&other, key), "{key}");
    }
    let named_like = key_of(&format!("part-{other}-00000.csv"), &job, "a-1-1");
    assert!(is_of(&job, &named_like) && !is_of(&other, &named_like));
    for key in [
        "part-a-job-b.csv",
        "part-a-job-bbbbbbbb-cccc-dddd-eeee-ffff.csv",
        "a-job-00000000000000000000000001-1.csv",
    ] {
        assert_eq!(job_of(key), None, "{key}");
    }
}

#[tokio::test]
async fn a_folder_of_more_than_is_looked_at_is_not_taken_for_an_empty_one() {
    let world = World::new();
    for n in 0..MAX_PASSED {
        let path = Path::from(format!("out/daily/.hidden/{n}"));
        let put = world.server.objects.put(&path, "a".into()).await;
        put.expect("it writes");
    }
    let holding = world.quiet().look_into().await.expect("it looks");
    assert!(matches!(holding, Holding::Foreign), "{holding:?}");
}

#[tokio::test]
async fn keys_are_measured_with_the_folder() {
    let world = World::new();
    let spool = tempfile::tempdir().expect("a folder");
    let id = JobId::new(1, 1);
    let (folder, blobs) = (world.quiet(), world.blobs.clone());
    let uploader = Uploader::start(folder, blobs, &id, "a-1-1", "list".into(), spool.path());
    let ending = key_of("part-a.csv", &id, "a-1-1").len() + 1;
    let root = "out/daily/".len();
    let name = |bytes: usize| format!("{}/part-a.csv", "x".repeat(bytes - root - ending));
    uploader.file(&name(1024)).expect("it fits");
    let error = uploader.file(&name(1025)).err().expect("it is too long");
    assert_eq!(error.kind(), crate::ErrorKind::OverLimit, "{error}");
}

/// Rows are encoded on a thread that waits, and go out in parts meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_uploads_in_parts_and_leaves_nothing_if_it_fails() {
    let world = World::new();
    let spool = tempfile::tempdir().expect("a folder");
    let id = JobId::new(1, 1);
    let list = format!("{}/0/0-a-1-1.daily.uploads", job_prefix(&id));
    let folder = world.quiet();
    let start = || {
        let (folder, blobs) = (folder.clone(), world.blobs.clone());
        Uploader::start(folder, blobs, &id, "a-1-1", list.clone(), spool.path())
    };
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let uploader = start();
    let mut files = Vec::new();
    for (name, bytes) in [
        ("part-a-00000.csv", large.as_slice()),
        ("part-a-00001.csv", b""),
    ] {
        let mut file = uploader.file(name).expect("it starts");
        file.write_all(bytes).expect("it takes them");
        files.push(file.finish("daily", name.into(), 1).expect("it ends"));
    }
    uploader.finish().expect("it is listed");
    let pending = uploads_of(&world.blobs, &id, &files).await;
    let pending = pending.expect("they are listed");
    assert_eq!(pending[0].upload.parts.len(), 3);
    assert!(pending[0].upload.e_tag.ends_with("-3\""));
    assert_eq!(pending[1].upload.parts.len(), 1);
    for one in &pending {
        folder.complete(one).await.expect("it completes");
    }
    let path = folder.path(&pending[0].upload.key).expect("a key");
    let whole = world.server.objects.get(&path).await.expect("it is there");
    assert!(whole.bytes().await.expect("it reads") == large);

    let failing = start();
    let mut file = failing.file("part-a-00002.csv").expect("it starts");
    file.write_all(&large).expect("it takes them");
    while world.n_uploads() == 0 {
        tokio::task::yield_now().await;
    }
    drop((file, failing));
    while world.n_uploads() > 0 {
        tokio::task::yield_now().await;
    }
}
