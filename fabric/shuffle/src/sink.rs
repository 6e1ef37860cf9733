//! Files of outputs: staged in a hidden folder beside their place, published by renaming, listed by a manifest written last.
//!
//! ```text
//! staged ──(job's commit is durable)──▶ renamed one by one ──▶ _weft.json ──▶ staging folder removed
//! ```
//!
//! Every step can be repeated from the start: a file that is neither staged nor published is the only thing that cannot be.

mod cleanup;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use weft_control::{PublishedOutput, SinkFile};
use weft_core::JobId;
use weft_core::job::OutputMode;
use xxhash_rust::xxh3::Xxh3;

use crate::blobs::sync_file_and_folder;
use crate::error::{Error, Result};

pub use cleanup::clean_staging;
use manifest::encode;
pub use manifest::{MANIFEST, Manifest, ManifestFile, ManifestOutput, read_manifest};

/// How the name of a staging folder ends that is being removed.
const TRASH: &str = ".trash";

fn staging_folder(output: &Path, job: &JobId) -> PathBuf {
    output.join(format!(".weft-{job}"))
}

/// What the folder of an output holds.
#[derive(Debug)]
pub enum Holding {
    /// Nothing that readers see.
    Nothing,
    /// What jobs have written.
    Output(Manifest),
    /// Files of a job that died while it published them, and will go on.
    Unfinished,
    /// Files that no job has written.
    Foreign,
}

/// Looks what is in the folder of an output, while no job publishes there.
pub fn look_into(output: &Path) -> Result<Holding> {
    let _lock = match FolderLock::take(output) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Holding::Nothing);
        }
        lock => lock?,
    };
    if folder_is_free(output)? {
        return Ok(Holding::Nothing);
    }
    if let Some(manifest) = read_manifest(output)? {
        return Ok(Holding::Output(manifest));
    }
    let is_unfinished = |staging: &PathBuf| staging.join(GENERATION).exists();
    Ok(match stagings(output)?.iter().any(is_unfinished) {
        true => Holding::Unfinished,
        false => Holding::Foreign,
    })
}

/// The staging folders of all jobs that write to `output`.
fn stagings(output: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::file(output, error);
    let mut stagings = Vec::new();
    for entry in fs::read_dir(output).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".weft-job-") && !name.ends_with(TRASH) {
            stagings.push(output.join(name.as_ref()));
        }
    }
    Ok(stagings)
}

/// True where nothing that readers see lies in `output`.
fn folder_is_free(output: &Path) -> Result<bool> {
    match fs::read_dir(output) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|error| Error::file(output, error))?;
                if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file(output, error)),
    }
}

/// Makes the staging folder of a job's output: a folder that cannot be written to is found out before the work is done.
pub fn prepare_output(output: &Path, job: &JobId) -> Result<()> {
    let folder = staging_folder(output, job);
    let probe = folder.join("probe");
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        File::create(&probe)?;
        fs::remove_file(&probe)
    };
    write().map_err(|error| Error::file(&folder, error))
}

/// A file in a staging folder that is being written; counts and hashes what passes through.
pub struct StagedFile {
    path: PathBuf,
    name: String,
    file: io::BufWriter<File>,
    bytes: u64,
    hash: Xxh3,
}

impl StagedFile {
    /// Starts the file `name`, which must be the attempt's own, for `output`.
    pub fn create(output: &Path, job: &JobId, name: &str) -> Result<Self> {
        let folder = staging_folder(output, job);
        fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        let path = folder.join(name);
        let file = File::create(&path).map_err(|error| Error::file(&path, error))?;
        Ok(Self {
            path,
            name: name.to_owned(),
            file: io::BufWriter::with_capacity(1 << 16, file),
            bytes: 0,
            hash: Xxh3::new(),
        })
    }

    /// Syncs the file and says what is in it. `published` is its name once it is published.
    pub fn finish(self, output: &str, published: String, rows: u64) -> Result<SinkFile> {
        let failed = |error| Error::file(&self.path, error);
        let file = self
            .file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        sync_file_and_folder(&self.path)?;
        let xxh3 = format!("{:016x}", self.hash.digest());
        Ok(SinkFile {
            output: output.to_owned(),
            staged: self.name,
            name: published,
            rows,
            bytes: self.bytes,
            xxh3,
        })
    }
}

impl Write for StagedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.bytes += written as u64;
        self.hash.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// One process at a time publishes into a folder, or cleans up in it. The lock ends with the value, and with the process.
struct FolderLock(#[expect(dead_code, reason = "it is held")] File);

impl FolderLock {
    fn take(folder: &Path) -> Result<Self> {
        let take = || -> io::Result<File> {
            let folder = File::open(folder)?;
            flock(&folder, FlockOperation::LockExclusive)?;
            Ok(folder)
        };
        take().map(Self).map_err(|error| Error::file(folder, error))
    }
}

/// Makes the files of one output visible, then writes its manifest. Staging folders stay until the job is archived, so that what
/// was renamed can still be told from what was not, and so does the manifest that was there before: what it lists is removed
/// only then.
///
/// Repeating it changes nothing. Errors: `OutputExists` where a file of somebody else has a name of ours, `StagedFileLost`.
pub fn publish(job: &JobId, output: &ManifestOutput) -> Result<PublishedOutput> {
    let folder = Path::new(&output.folder);
    let staging = staging_folder(folder, job);
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let _lock = FolderLock::take(folder)?;
    // Another job may have written to the folder since this one's manifest stood there.
    if !is_published(&staging) {
        let previous = keep_previous(job, folder, &staging, output)?;
        let generation = choose_generation(folder, &staging, output, previous.as_ref())?;
        let files = named(&output.files, generation);
        for file in &files {
            weft_core::failpoint::hit("publish");
            publish_file(folder, &staging, file)?;
        }
        sync_folders(folder, &files)?;
        let manifest = manifest(job, output, &files, previous.as_ref(), generation);
        write_manifest(folder, &staging, &manifest, previous.is_some())?;
        weft_core::failpoint::hit("publish-manifest");
    }
    // An attempt before this one may have died between the renaming and this.
    sync_folder(folder)?;
    let sum = |of: fn(&SinkFile) -> u64| output.files.iter().map(of).sum();
    Ok(PublishedOutput {
        name: output.name.clone(),
        uri: output.folder.clone(),
        files: output.files.len() as u64,
        rows: sum(|file| file.rows),
        bytes: sum(|file| file.bytes),
    })
}

/// True where the manifest was renamed into its place: it was ready, and is not staged any more.
fn is_published(staging: &Path) -> bool {
    staging.join(READY).exists() && !staging.join(MANIFEST).exists()
}

/// Syncs the folders that files of `partition_by` were renamed into, and those above them.
fn sync_folders(output: &Path, files: &[SinkFile]) -> Result<()> {
    let parents = files
        .iter()
        .flat_map(|file| Path::new(&file.name).ancestors().skip(1));
    let parents: BTreeSet<&Path> = parents.collect();
    let mut parents = parents.into_iter().map(|parent| output.join(parent));
    parents.try_for_each(|folder| sync_folder(&folder))
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::file(folder, error))
}

/// Names files apart that one task of several jobs would write to a folder.
fn named(files: &[SinkFile], generation: u32) -> Vec<SinkFile> {
    let one = |file: &SinkFile| SinkFile {
        name: name_in(&file.name, generation),
        ..file.clone()
    };
    files.iter().map(one).collect()
}

fn name_in(name: &str, generation: u32) -> String {
    match (generation, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (_, Some((stem, extension))) => format!("{stem}-g{generation}.{extension}"),
        (_, None) => format!("{name}-g{generation}"),
    }
}

/// The generation that a job has chosen in a folder, written down before any file gets a name by it.
const GENERATION: &str = "generation";
/// Generations that are tried.
const GENERATIONS_MAX: u32 = 1000;

/// How often the folder was written to before, or the next number by which no name of ours is taken: by a job that died while it
/// published, say. All attempts have the same.
fn choose_generation(
    folder: &Path,
    staging: &Path,
    output: &ManifestOutput,
    previous: Option<&Manifest>,
) -> Result<u32> {
    if output.mode == OutputMode::Error {
        return Ok(0);
    }
    if let Some(chosen) = chosen_generation(staging)? {
        return Ok(chosen);
    }
    let first = next_generation(previous);
    let is_free = |generation: &u32| {
        let mut names = output
            .files
            .iter()
            .map(|file| name_in(&file.name, *generation));
        !names.any(|name| folder.join(name).exists())
    };
    let tried = first..first.saturating_add(GENERATIONS_MAX);
    let chosen = tried.into_iter().find(is_free);
    let chosen = chosen.ok_or_else(|| Error::OutputExists(folder.display().to_string()))?;
    write_durably(&staging.join(GENERATION), chosen.to_string().as_bytes())?;
    Ok(chosen)
}

fn next_generation(previous: Option<&Manifest>) -> u32 {
    previous.map_or(0, |previous| previous.generation.saturating_add(1))
}

fn chosen_generation(staging: &Path) -> Result<Option<u32>> {
    let path = staging.join(GENERATION);
    match fs::read_to_string(&path) {
        Ok(text) => match text.parse() {
            Ok(generation) => Ok(Some(generation)),
            Err(_) => Err(Error::Encoding(format!(
                "`{}` is no number",
                path.display()
            ))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path, error)),
    }
}

fn manifest(
    job: &JobId,
    output: &ManifestOutput,
    ours: &[SinkFile],
    previous: Option<&Manifest>,
    generation: u32,
) -> Manifest {
    let file = |file: &SinkFile| ManifestFile {
        name: file.name.clone(),
        rows: file.rows,
        bytes: file.bytes,
        xxh3: file.xxh3.clone(),
    };
    let mut files: BTreeMap<&str, ManifestFile> = BTreeMap::new();
    if let (OutputMode::Append, Some(previous)) = (output.mode, previous) {
        files.extend(
            previous
                .files
                .iter()
                .map(|file| (file.name.as_str(), file.clone())),
        );
    }
    files.extend(ours.iter().map(|ours| (ours.name.as_str(), file(ours))));
    let manifest = Manifest {
        job: job.to_string(),
        output: output.name.clone(),
        format: output.format.clone(),
        schema: output.schema.clone(),
        partition_by: output.partition_by.clone(),
        generation: next_generation(previous).max(generation),
        files: Vec::new(),
        rows: 0,
        bytes: 0,
    };
    manifest.with_files(files.into_values().collect())
}

/// Name of the manifest that was there before, in the staging folder: of files that are to be removed, and of files that stay.
const REPLACED: &str = "replaced.json";
const EXTENDED: &str = "extended.json";
/// Says in the staging folder that the staged manifest is complete.
const READY: &str = "ready";

/// The manifest that was there before the job, kept in the staging folder.
fn keep_previous(
    job: &JobId,
    folder: &Path,
    staging: &Path,
    output: &ManifestOutput,
) -> Result<Option<Manifest>> {
    let kept = match output.mode {
        OutputMode::Error => return Ok(None),
        OutputMode::Overwrite => staging.join(REPLACED),
        OutputMode::Append => staging.join(EXTENDED),
    };
    // What is there now counts: another job may have been faster than this one, or than its first attempt.
    let found = read_manifest(folder)?.filter(|manifest| manifest.job != job.as_str());
    if let (OutputMode::Append, Some(manifest)) = (output.mode, &found) {
        manifest.check_append(output)?;
    }
    match &found {
        Some(manifest) => write_durably(&kept, &encode(manifest)?)?,
        None => remove_if_there(&kept)?,
    }
    Ok(found)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}

/// Writes a file that is there as a whole or not at all.
fn write_durably(path: &Path, text: &[u8]) -> Result<()> {
    let draft = path.with_extension("draft");
    let write = || -> io::Result<()> {
        let folder = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(folder)?;
        let mut file = File::create(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| Error::file(path, error))?;
    sync_file_and_folder(path)
}

fn publish_file(folder: &Path, staging: &Path, file: &SinkFile) -> Result<()> {
    let (staged, published) = (staging.join(&file.staged), folder.join(&file.name));
    if file.name.contains('/') {
        let parent = published.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).map_err(|error| Error::file(parent, error))?;
    }
    match renameat_with(CWD, &staged, CWD, &published, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(Error::OutputExists(published.display().to_string())),
        Err(rustix::io::Errno::NOENT) => match fs::metadata(&published) {
            Ok(found) if found.len() == file.bytes => Ok(()),
            _ => Err(Error::StagedFileLost(staged.display().to_string())),
        },
        Err(error) => Err(Error::file(&published, error.into())),
    }
}

fn write_manifest(
    folder: &Path,
    staging: &Path,
    manifest: &Manifest,
    replaces: bool,
) -> Result<()> {
    let path = folder.join(MANIFEST);
    let text = encode(manifest)?;
    let staged = staging.join(MANIFEST);
    write_durably(&staged, &text)?;
    write_durably(&staging.join(READY), b"")?;
    let flags = match replaces {
        true => RenameFlags::empty(),
        false => RenameFlags::NOREPLACE,
    };
    match renameat_with(CWD, &staged, CWD, &path, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(Error::OutputExists(path.display().to_string())),
        Err(error) => Err(Error::file(&path, error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::cleanup::withdraw_manifests;
    use super::*;

    fn staged(folder: &Path, job: &JobId, name: &str, text: &str) -> SinkFile {
        let mut file = StagedFile::create(folder, job, &format!("1-0-{name}")).expect("it opens");
        file.write_all(text.as_bytes()).expect("it writes");
        file.finish("daily", name.to_owned(), 1).expect("it ends")
    }

    fn output(folder: &Path, files: Vec<SinkFile>) -> ManifestOutput {
        ManifestOutput {
            name: "daily".into(),
            folder: folder.display().to_string(),
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
            ["_weft.json", "part-daily-0", "part-daily-1"]
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

        /// The jobs whose files the manifest lists, after a check that all of them, and no others, are there.
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

    /// A job that has published fails for another of its outputs; meanwhile another one has added to its files, or replaced them,
    /// and ends well or not, before or after it.
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

    /// Two jobs began with an empty folder; what the second adds must fit what the first has published since.
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
}
