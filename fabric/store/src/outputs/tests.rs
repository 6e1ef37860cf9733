use std::fs;
use std::io::Write;
use std::path::Path;

use weft_core::JobId;
use weft_core::job::OutputMode;
use weft_protocol::{ManifestOutput, SinkFile};

use super::cleanup::{clean_staging, withdraw_manifests};
use super::folder::{folder_is_free, look_into};
use super::generation::{choose_generation, chosen_generation, named};
use super::manifest::EARLIER_MANIFEST;
use super::publish::{publish, publish_file};
use super::staging::{LocalFile, staging_folder};
use super::*;
use crate::error::{Error, Result};

fn staged(folder: &Path, job: &JobId, name: &str, text: &str) -> SinkFile {
    let mut file = LocalFile::create(folder, job, &format!("1-0-{name}")).expect("it opens");
    file.write_all(text.as_bytes()).expect("it writes");
    file.finish("daily", name.to_owned(), 1).expect("it ends")
}

fn output(folder: &Path, files: Vec<SinkFile>) -> ManifestOutput {
    ManifestOutput {
        name: "daily".into(),
        folder: folder.display().to_string(),
        is_kept: false,
        format: "parquet".into(),
        schema: Vec::new(),
        files,
        partition_by: Vec::new(),
        mode: OutputMode::Error,
    }
}

#[test]
fn publishing_twice_and_from_the_middle_gives_the_same() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("out/daily");
    let job = JobId::new(1, 2);
    let files = vec![
        staged(&folder, &job, "part-daily-0", "aa"),
        staged(&folder, &job, "part-daily-1", "bbb"),
    ];
    assert!(folder_is_free(&folder).expect("it reads"));
    publish_file(&folder, &staging_folder(&folder, &job), &files[0])
        .expect("as if the process died here");
    let output = output(&folder, files);
    let published = publish(&job, &output).expect("it publishes");
    assert_eq!(publish(&job, &output).expect("and again"), published);
    assert_eq!(
        (published.files, published.rows, published.bytes),
        (2, 2, 5)
    );
    let mut names: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names.split_off(1),
        ["_weft.manifest", "part-daily-0", "part-daily-1"]
    );
    clean_staging(&folder, &job, None).expect("it cleans");
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 3);
}

#[test]
fn files_of_others_are_never_replaced() {
    let root = tempfile::tempdir().expect("a folder");
    let job = JobId::new(1, 2);
    let file = staged(root.path(), &job, "part-daily-0", "aa");
    fs::write(root.path().join("part-daily-0"), "theirs").expect("it writes");
    assert!(!folder_is_free(root.path()).expect("it reads"));
    let error = publish(&job, &output(root.path(), vec![file])).expect_err("the name is taken");
    assert!(matches!(error, Error::OutputExists(_)), "{error}");
    assert_eq!(
        fs::read(root.path().join("part-daily-0")).expect("it is there"),
        b"theirs"
    );
}

/// A folder that several jobs write to, each one file of the name `part`.
struct Shared(tempfile::TempDir);

impl Shared {
    /// A folder that job 0 has written to.
    fn new() -> Self {
        let shared = Self(tempfile::tempdir().expect("a folder"));
        shared
            .publish(0, OutputMode::Append)
            .expect("nothing is there");
        shared.succeed(0);
        shared
    }

    fn staged(&self, job: u128, mode: OutputMode) -> (JobId, ManifestOutput) {
        let id = JobId::new(1, job);
        let files = vec![staged(
            self.0.path(),
            &id,
            "part.csv",
            &"x".repeat(job as usize + 1),
        )];
        let output = ManifestOutput {
            mode,
            ..output(self.0.path(), files)
        };
        (id, output)
    }

    fn publish(&self, job: u128, mode: OutputMode) -> Result<ManifestOutput> {
        let (id, output) = self.staged(job, mode);
        publish(&id, &output).map(|_| output)
    }

    fn succeed(&self, job: u128) {
        clean_staging(self.0.path(), &JobId::new(1, job), None).expect("it cleans");
    }

    /// The job fails, and cleans up twice, as it would where it died between.
    fn fail(&self, job: u128, output: &ManifestOutput) {
        let (id, staging) = (
            JobId::new(1, job),
            staging_folder(self.0.path(), &JobId::new(1, job)),
        );
        let files = named(
            &output.files,
            chosen_generation(&staging).expect("it reads").unwrap_or(0),
        );
        withdraw_manifests(self.0.path(), &staging, &id, &files).expect("it withdraws");
        clean_staging(self.0.path(), &id, Some(&output.files)).expect("it cleans");
    }

    /// The jobs whose files the manifest lists, after a check that all of them, and no others, are
    /// there.
    fn jobs(&self) -> Vec<u64> {
        let manifest = read_manifest(self.0.path()).expect("it reads");
        let files = manifest.map_or(Vec::new(), |manifest| {
            assert_eq!(manifest.rows, manifest.files.len() as u64);
            manifest.files
        });
        let mut listed: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
        listed.sort();
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
        let mut there: Vec<_> = names.map(|name| name.expect("UTF-8")).collect();
        there.retain(|name| !name.starts_with('.') && name != MANIFEST);
        there.sort();
        assert_eq!(listed, there);
        let mut jobs: Vec<_> = files.iter().map(|file| file.bytes - 1).collect();
        jobs.sort_unstable();
        jobs
    }
}

#[test]
fn manifests_of_earlier_builds_are_read_and_take_the_name_of_today() {
    for mode in [OutputMode::Append, OutputMode::Overwrite] {
        let shared = Shared::new();
        let today = shared.0.path().join(MANIFEST);
        let earlier = shared.0.path().join(EARLIER_MANIFEST);
        fs::rename(&today, &earlier).expect("it is renamed");
        let output = shared.publish(1, mode).expect("it fits");
        assert!(today.exists() && !earlier.exists(), "{mode:?}");
        // The job fails after all: what the earlier build listed is back.
        shared.fail(1, &output);
        assert_eq!(shared.jobs(), [0], "{mode:?}");
    }
    let shared = Shared::new();
    let theirs = shared.0.path().join(EARLIER_MANIFEST);
    fs::write(&theirs, "{}").expect("it writes");
    shared.publish(1, OutputMode::Append).expect("it fits");
    assert!(theirs.exists(), "it is no manifest");
}

#[test]
fn jobs_that_began_together_add_and_replace() {
    let shared = Shared::new();
    shared.publish(1, OutputMode::Append).expect("it fits");
    shared.publish(2, OutputMode::Append).expect("it fits");
    assert_eq!(shared.jobs(), [0, 1, 2]);
    shared
        .publish(3, OutputMode::Overwrite)
        .expect("it replaces");
    shared.succeed(2);
    shared.succeed(1);
    shared.succeed(3);
    assert_eq!(shared.jobs(), [3]);
}

/// A job dies while it publishes, and others publish before it goes on.
#[test]
fn a_job_that_died_while_it_published_goes_on() {
    let shared = Shared(tempfile::tempdir().expect("a folder"));
    let (id, output) = shared.staged(1, OutputMode::Append);
    let staging = staging_folder(shared.0.path(), &id);
    let generation = choose_generation(shared.0.path(), &staging, &output, None);
    assert_eq!(generation.expect("it chooses"), 0);
    publish_file(shared.0.path(), &staging, &output.files[0]).expect("as if it died here");
    let holding = look_into(shared.0.path()).expect("it looks");
    assert!(matches!(holding, Holding::Unfinished), "{holding:?}");
    shared
        .publish(2, OutputMode::Append)
        .expect("it takes another name");
    publish(&id, &output).expect("it goes on");
    assert_eq!(shared.jobs(), [1, 2]);
    shared
        .publish(3, OutputMode::Append)
        .expect("it takes another name");
    assert_eq!(shared.jobs(), [1, 2, 3]);
}

/// A job that has published fails for another of its outputs; meanwhile another one has added to
/// its files, or replaced them, and ends well or not, before or after it.
#[test]
fn what_a_failed_job_had_replaced_comes_back() {
    use OutputMode::{Append, Overwrite};
    for (first, second, kept) in [
        (Overwrite, Append, [0, 2].as_slice()),
        (Overwrite, Overwrite, &[2]),
        (Append, Append, &[0, 2]),
        (Append, Overwrite, &[2]),
    ] {
        let publish = || {
            let shared = Shared::new();
            let a = shared.publish(1, first).expect("it publishes");
            let b = shared.publish(2, second).expect("it publishes");
            (shared, a, b)
        };
        let (shared, a, _) = publish();
        shared.fail(1, &a);
        shared.succeed(2);
        assert_eq!(
            shared.jobs(),
            kept,
            "{first:?}, {second:?}: fails, succeeds"
        );
        let (shared, a, _) = publish();
        shared.succeed(2);
        shared.fail(1, &a);
        assert_eq!(
            shared.jobs(),
            kept,
            "{first:?}, {second:?}: succeeds, fails"
        );
        let (shared, a, b) = publish();
        shared.fail(1, &a);
        shared.fail(2, &b);
        assert_eq!(shared.jobs(), [0], "{first:?}, {second:?}: both fail");
        let (shared, a, b) = publish();
        shared.fail(2, &b);
        shared.fail(1, &a);
        assert_eq!(
            shared.jobs(),
            [0],
            "{first:?}, {second:?}: both fail, the last first"
        );
    }
}

/// Two jobs began with an empty folder; what the second adds must fit what the first has published
/// since.
#[test]
fn only_rows_like_those_that_are_there_are_added() {
    let shared = Shared::new();
    let (id, mut output) = shared.staged(1, OutputMode::Append);
    output.schema = vec![("page".into(), "utf8".into())];
    let error = publish(&id, &output).expect_err("it does not fit");
    assert!(error.to_string().contains("other columns"), "{error}");
    shared.fail(1, &output);
    assert_eq!(shared.jobs(), [0]);
}

#[test]
fn a_lost_file_is_reported_and_a_given_up_job_leaves_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("daily");
    let job = JobId::new(1, 2);
    let files = vec![
        staged(&folder, &job, "a", "aa"),
        staged(&folder, &job, "b", "b"),
    ];
    fs::remove_file(staging_folder(&folder, &job).join("1-0-b")).expect("it was there");
    let error = publish(&job, &output(&folder, files.clone())).expect_err("b is gone");
    assert!(matches!(error, Error::StagedFileLost(_)), "{error}");
    clean_staging(&folder, &job, Some(&files)).expect("it cleans");
    assert!(!folder.exists());
}

#[test]
fn a_file_that_is_never_finished_goes_at_once() {
    let root = tempfile::tempdir().expect("a folder");
    let job = JobId::new(1, 1);
    let staged = || {
        let entries = fs::read_dir(staging_folder(root.path(), &job)).expect("a folder");
        entries.count()
    };
    let mut file = LocalFile::create(root.path(), &job, "1-0-part-0").expect("it opens");
    file.write_all(b"rows").expect("it writes");
    assert_eq!(staged(), 1);
    drop(file);
    assert_eq!(staged(), 0, "it may have filled the disk");
    let path = staging_folder(root.path(), &job).join("1-0-part-0");
    let mut file = LocalFile::create(root.path(), &job, "1-0-part-0").expect("it opens");
    file.write_all(b"rows").expect("it writes");
    assert!(!path.exists(), "nobody takes it for a whole one");
    file.finish("daily", "part-0".into(), 1)
        .expect("it is whole");
    assert_eq!(fs::read(&path).expect("it is there"), b"rows");
    assert_eq!(staged(), 1);
}
