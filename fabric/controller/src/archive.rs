//! The remains of a job that has ended: one object with all that was known of it, one with its log; the
//! rest is removed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use weft_control::{Job, JobState, Outcome};
use weft_core::LogLine;
use weft_core::{JobId, Problem, lock};
use weft_protocol::{FailedLog, LogRef, ManifestOutput, Plan, TaskCommit};
use weft_protocol::{job_prefix, kept_prefix};
use weft_store::{Blobs, Ended, ErrorKind, Fault, OutputPlace};

use crate::packed;
use crate::reserve::Reserve;

/// Bytes of a job's log that are kept; what comes after is counted.
const LOG_BYTES_MAX: usize = 64 << 20;

/// Times that the clean-up of a job's outputs fails for a reason that no time mends, before what is there is left
/// behind: keys of its store may have been revoked for good, and a job must come to its end.
const REFUSALS_MAX: u32 = 20;
/// Jobs whose refusals are counted; past it counting begins anew.
const REFUSED_JOBS_MAX: usize = 10_000;

/// Counts how often the clean-up of jobs' outputs has failed for good. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<BTreeMap<JobId, u32>>>);

impl Refusals {
    /// Returns whether what is there is left behind after this error: it cannot be reached, or time does not mend it.
    fn end_with(&self, job: &JobId, error: &weft_store::Error) -> bool {
        is_out_of_reach(error) || (!may_pass(error) && self.exhausted(job))
    }

    /// Counts a refusal. Returns whether it was one too many.
    fn exhausted(&self, job: &JobId) -> bool {
        let mut counts = lock(&self.0);
        if counts.len() >= REFUSED_JOBS_MAX && !counts.contains_key(job) {
            counts.clear();
        }
        let count = counts.entry(job.clone()).or_default();
        *count += 1;
        *count >= REFUSALS_MAX
    }

    fn forget(&self, job: &JobId) {
        lock(&self.0).remove(job);
    }
}

/// A line of a job's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobLogLine {
    pub(crate) stage: String,
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    #[serde(flatten)]
    pub(crate) line: LogLine,
}

/// A job's log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct JobLog {
    pub(crate) lines: Vec<JobLogLine>,
    pub(crate) dropped: u64,
}

/// Key of a job's archive object.
pub(crate) fn archive_key(job: &JobId) -> String {
    format!("archive/{job}.json.zst")
}

pub(crate) fn log_key(job: &JobId) -> String {
    format!("archive/{job}.log.json.zst")
}

/// The log of a job: what was archived, or else what its tasks have written so far.
pub(crate) async fn log(archives: &Archives, blobs: &Blobs, job: &Job) -> Result<JobLog, Problem> {
    if let Some(archived) = archives.log(&job.id).await? {
        return Ok(archived);
    }
    whole(archives, &job.id, collect_log(blobs, job).await).await
}

/// What was collected, or what was archived meanwhile: the logs of tasks go when their job's has been written.
async fn whole(
    archives: &Archives,
    id: &JobId,
    collected: LogCollector<'_>,
) -> Result<JobLog, Problem> {
    if collected.lines_lost > 0
        && let Some(archived) = archives.log(id).await?
    {
        return Ok(archived);
    }
    collected.log()
}

/// Collects the log of a job out of what its tasks wrote, in the order of stages and tasks.
async fn collect_log<'a>(blobs: &'a Blobs, job: &Job) -> LogCollector<'a> {
    let mut collector = LogCollector {
        blobs,
        own: format!("{}/", job_prefix(&job.id)),
        log: JobLog::default(),
        bytes: 0,
        lines_lost: 0,
        unreadable: None,
    };
    let names: Vec<String> = job
        .plan()
        .map(|plan| plan.stages.iter().map(|stage| stage.name.clone()).collect())
        .unwrap_or_default();
    for (stage, name) in job.stages().iter().zip(&names) {
        for commit in stage.commits.values() {
            let TaskCommit { task, attempt, .. } = **commit;
            collector.add(name, task, attempt, &commit.log).await;
        }
    }
    if let JobState::Ending(ending) = &job.state {
        for failed in &ending.failed_logs {
            let FailedLog { task, attempt, .. } = *failed;
            collector
                .add(&failed.stage, task, attempt, &failed.log)
                .await;
        }
    }
    collector
}

struct LogCollector<'a> {
    blobs: &'a Blobs,
    /// Beginning of the keys of the job's objects.
    own: String,
    log: JobLog,
    bytes: usize,
    /// Lines of objects that are gone.
    lines_lost: u64,
    /// Why an object could not be read that may be there.
    unreadable: Option<Problem>,
}

impl LogCollector<'_> {
    /// What was collected; lines that are gone are counted among the dropped. Errors: not all can be read now.
    fn log(mut self) -> Result<JobLog, Problem> {
        self.skip(self.lines_lost);
        self.unreadable.map_or(Ok(self.log), Err)
    }

    /// Counts lines that are not shown: as many as an executor says.
    fn skip(&mut self, lines: u64) {
        self.log.dropped = self.log.dropped.saturating_add(lines);
    }

    async fn add(&mut self, stage: &str, task: u32, attempt: u32, task_log: &LogRef) {
        self.skip(task_log.dropped);
        let Some(key) = &task_log.key else { return };
        if !key.starts_with(&self.own) {
            // Executors say it, and are not trusted: it is somebody else's.
            return self.skip(task_log.lines);
        }
        let lines = match read_lines(self.blobs, key).await {
            Ok(lines) => lines,
            Err(error) if error.kind() == ErrorKind::OverLimit => {
                return self.skip(task_log.lines);
            }
            Err(error) => {
                match self.blobs.exists(key).await {
                    Ok(false) => {
                        self.lines_lost = self.lines_lost.saturating_add(task_log.lines);
                    }
                    Ok(true) | Err(_) => self.unreadable = Some(error.problem()),
                }
                return;
            }
        };
        for line in lines {
            self.bytes += line.message.len() + 64;
            if self.bytes > LOG_BYTES_MAX {
                self.skip(1);
                continue;
            }
            self.log.lines.push(JobLogLine {
                stage: stage.to_owned(),
                task,
                attempt,
                line,
            });
        }
    }
}

async fn read_lines(blobs: &Blobs, key: &str) -> Result<Vec<LogLine>, weft_store::Error> {
    let bytes = blobs.get_within(key, LOG_BYTES_MAX as u64).await?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

/// Removes what a job whose outcome stands left behind, writes its archive objects, and removes the rest: objects and
/// logs of its tasks. Can be repeated from the start. A job may have filled the disk, so removal comes first, and
/// `reserve` is given up if that is not enough.
///
/// An archive is written once: a leader that was paused here finds that the next one has archived the job,
/// and removed the logs of its tasks. `still_leads` is asked before anything is written. Errors: it says no,
/// the store fails.
pub(crate) async fn archive(
    blobs: &Blobs,
    job: &Job,
    refusals: &Refusals,
    reserve: &Reserve,
    still_leads: impl Future<Output = Result<(), Problem>>,
) -> Result<String, Problem> {
    let key = archive_key(&job.id);
    let failed = |error: weft_store::Error| failed(&error, reserve);
    let ended = ended(job);
    let cleaned = clean_outputs(blobs, job, refusals, ended).await;
    cleaned.map_err(failed)?;
    if ended != Ended::Succeeded {
        let kept = blobs.delete_prefix(&kept_prefix(&job.id)).await;
        kept.map_err(failed)?;
    }
    if !blobs.exists(&key).await.map_err(failed)? {
        let collected = collect_log(blobs, job).await;
        still_leads.await?;
        if collected.lines_lost > 0 {
            let lines = collected.lines_lost;
            tracing::warn!(job = %job.id, lines, "logs of tasks are gone, and their lines with them");
        }
        let (log, whole) = (encode(&collected.log()?)?, encode(job)?);
        let log_key = log_key(&job.id);
        for (key, object) in [(&log_key, log), (&key, whole)] {
            let created = blobs.create_durable(key, object).await;
            created.map_err(failed)?;
        }
    }
    blobs
        .delete_prefix(&job_prefix(&job.id))
        .await
        .map_err(failed)?;
    refusals.forget(&job.id);
    Ok(key)
}

/// The error of a step. On a full disk the next try has the reserve.
fn failed(error: &weft_store::Error, reserve: &Reserve) -> Problem {
    if error.kind() == ErrorKind::Exhausted
        && let Err(error) = reserve.release()
    {
        tracing::warn!(%error, "the reserve cannot be given up");
    }
    error.problem()
}

/// How a job has ended, for those who clean up.
fn ended(job: &Job) -> Ended {
    if matches!(&job.state, JobState::Ending(ending) if ending.outcome == Outcome::Succeeded) {
        return Ended::Succeeded;
    }
    let is_done = |plan: &Plan| {
        let stages = job.stages().iter().map(|stage| stage.commits.len() as u64);
        let tasks = plan.stages.iter().map(|shape| u64::from(shape.n_tasks));
        stages.eq(tasks)
    };
    Ended::Failed {
        may_publish: job.plan().is_some_and(is_done),
    }
}

/// Cleans up in the places of a job's outputs. One that is gone, that jobs may not use any more, or whose store goes on
/// refusing, has nothing to clean up that could be reached.
async fn clean_outputs(
    blobs: &Blobs,
    job: &Job,
    refusals: &Refusals,
    ended: Ended,
) -> Result<(), weft_store::Error> {
    let staged = job.staged_files();
    for output in &job.spec.outputs {
        let of_output = staged.iter().filter(|file| file.output == output.name);
        let files = of_output.cloned().collect();
        let of_output = ManifestOutput::new(output, Vec::new(), files);
        let cleaned = match blobs.output_place(&job.id, output) {
            Ok(place) => clean_output(&place, blobs, &job.id, &of_output, ended).await,
            Err(error) => Err(error),
        };
        match cleaned {
            Err(error) if refusals.end_with(&job.id, &error) => {
                // Tasks of a job without a plan have not run.
                if job.plan().is_none() {
                    tracing::debug!(job = %job.id, output = %output.name, %error, "an output has nothing to clean up");
                } else {
                    tracing::warn!(job = %job.id, output = %output.name, %error, "an output cannot be cleaned up");
                }
            }
            cleaned => cleaned?,
        }
    }
    Ok(())
}

async fn clean_output(
    place: &OutputPlace,
    blobs: &Blobs,
    job: &JobId,
    output: &ManifestOutput,
    ended: Ended,
) -> Result<(), weft_store::Error> {
    let cleaned = place.clean(blobs, job, output, ended).await;
    if cleaned.as_ref().is_err_and(|error| !is_out_of_reach(error)) {
        return cleaned;
    }
    // The right to list uploads is one of its own, and a rule of the bucket removes what stays.
    match place.abort_uploads_of(job).await {
        Ok(0) => {}
        Ok(n) => tracing::info!(%job, n, "aborted uploads of attempts that were never committed"),
        Err(error) => {
            tracing::warn!(%job, %error, "uploads of attempts that were never committed stay");
        }
    }
    cleaned
}

/// Returns whether the same clean-up may succeed later, without anybody changing anything but a disk that is full. Of
/// credentials, those of a controller that have expired are of its settings: it renews others by itself.
fn may_pass(error: &weft_store::Error) -> bool {
    let has_expired = matches!(
        error,
        weft_store::Error::Refused {
            fault: Fault::Expired,
            ..
        }
    );
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Exhausted) && !has_expired
}

fn is_out_of_reach(error: &weft_store::Error) -> bool {
    use weft_store::Error;
    match error {
        Error::Refused { fault, .. } => *fault == Fault::NoBucket,
        Error::NotAllowed { .. } | Error::Unpublishable(_) => true,
        // All is cleaned up that somebody else's file of that name does not say.
        Error::ForeignManifest { .. } => true,
        _ => false,
    }
}

fn encode(document: &impl Serialize) -> Result<Bytes, Problem> {
    let failed = |error| {
        Problem::new(
            weft_core::ErrorCode::Internal,
            format!("archiving: {error}"),
        )
    };
    packed::pack(document).map(Bytes::from).map_err(failed)
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Problem> {
    let failed = |error| Problem::new(weft_core::ErrorCode::Internal, format!("`{key}`: {error}"));
    packed::unpack(bytes).map_err(failed)
}

/// Archives that are decoded at a time: one may have a hundred thousand tasks.
const READERS_MAX: usize = 2;
/// Tasks of the jobs that stay decoded.
const CACHED_TASKS_MAX: usize = 100_000;
/// Jobs that stay decoded.
const CACHED_JOBS_MAX: usize = 16;

/// Reads archives, off the threads that serve, and keeps those that were read last.
pub(crate) struct Archives {
    blobs: Blobs,
    readers: Semaphore,
    /// The most recently read last.
    cached: Mutex<VecDeque<Arc<Job>>>,
}

fn n_tasks(job: &Job) -> usize {
    job.stages().iter().map(|stage| stage.commits.len()).sum()
}

impl Archives {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            readers: Semaphore::new(READERS_MAX),
            cached: Mutex::default(),
        }
    }

    fn cached(&self, id: &JobId) -> Option<Arc<Job>> {
        let mut cached = lock(&self.cached);
        let at = cached.iter().position(|job| job.id == *id)?;
        let job = cached.remove(at)?;
        cached.push_back(Arc::clone(&job));
        Some(job)
    }

    fn keep(&self, job: &Arc<Job>) {
        if n_tasks(job) > CACHED_TASKS_MAX {
            return;
        }
        let mut cached = lock(&self.cached);
        cached.retain(|other| other.id != job.id);
        cached.push_back(Arc::clone(job));
        while cached.len() > CACHED_JOBS_MAX
            || cached.iter().map(|job| n_tasks(job)).sum::<usize>() > CACHED_TASKS_MAX
        {
            cached.pop_front();
        }
    }

    /// Reads a job back.
    pub(crate) async fn job(&self, id: &JobId, key: &str) -> Result<Arc<Job>, Problem> {
        if let Some(job) = self.cached(id) {
            return Ok(job);
        }
        let job = self.decoded(id, key).await?;
        let job = Arc::new(job.ok_or_else(|| {
            let detail = format!("the archive `{key}` is gone from the store");
            Problem::new(weft_core::ErrorCode::StoreUnavailable, detail)
        })?);
        self.keep(&job);
        Ok(job)
    }

    /// The log of a job that was archived; nothing where it has not been.
    pub(crate) async fn log(&self, id: &JobId) -> Result<Option<JobLog>, Problem> {
        self.decoded(id, &log_key(id)).await
    }

    async fn decoded<T: DeserializeOwned + Send + 'static>(
        &self,
        id: &JobId,
        key: &str,
    ) -> Result<Option<T>, Problem> {
        let stopped = |_| {
            Problem::new(
                weft_core::ErrorCode::Internal,
                format!("the archive of `{id}` could not be decoded"),
            )
        };
        if !self
            .blobs
            .exists(key)
            .await
            .map_err(|error| error.problem())?
        {
            return Ok(None);
        }
        let _reader = self
            .readers
            .acquire()
            .await
            .map_err(|_| Problem::new(weft_core::ErrorCode::Busy, "the server is stopping"))?;
        let bytes = self.blobs.get(key).await.map_err(|error| error.problem())?;
        let key = key.to_owned();
        let decoded = tokio::task::spawn_blocking(move || decode(&key, &bytes));
        decoded.await.map_err(stopped)?.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> JobLogLine {
        JobLogLine {
            stage: "visits".into(),
            task: 0,
            attempt: 0,
            line: LogLine {
                level: "info".into(),
                function: "weblog@0.1.0/parse".into(),
                message: message.into(),
            },
        }
    }

    #[test]
    fn a_store_that_goes_on_refusing_is_given_up() {
        let (refusals, id) = (Refusals::default(), JobId::new(1, 1));
        let tries = (0..REFUSALS_MAX).map(|_| refusals.exhausted(&id));
        assert_eq!(tries.filter(|exhausted| *exhausted).count(), 1);
        refusals.forget(&id);
        assert!(!refusals.exhausted(&id));
    }

    #[test]
    fn a_clean_up_that_fails_for_good_comes_to_an_end() {
        use weft_store::Error;
        let id = JobId::new(1, 1);
        let refused = |fault| Error::Refused {
            uri: "s3://lake/out".into(),
            fault,
            cause: String::new(),
        };
        let ends = |error: &Error| {
            let refusals = Refusals::default();
            (1..=10 * REFUSALS_MAX).find(|_| refusals.end_with(&id, error))
        };
        // An executor said that its list of uploads is another job's object.
        let foreign = Error::StagedFileLost("jobs/another/list".into());
        for error in [
            foreign,
            refused(Fault::NoPermission),
            refused(Fault::Expired),
        ] {
            assert_eq!(ends(&error), Some(REFUSALS_MAX), "{error}");
        }
        assert_eq!(ends(&refused(Fault::NoBucket)), Some(1));
        for fault in [Fault::Overloaded, Fault::Unreachable, Fault::Slow] {
            assert_eq!(ends(&refused(fault)), None, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_no_log_of_the_job_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        let own = format!("{}/", job_prefix(&JobId::new(1, 1)));
        let theirs = format!("{}/0/0.log", job_prefix(&JobId::new(1, 2)));
        let (ours, object) = (format!("{own}0/0.log"), format!("{own}0/0.shuffle"));
        let text = serde_json::to_vec(&line("first").line).expect("JSON");
        for key in [&ours, &theirs] {
            blobs.put(key, text.clone()).await.expect("it is written");
        }
        let large = vec![b'x'; LOG_BYTES_MAX + 1];
        blobs.put(&object, large).await.expect("it is written");
        let mut collector = LogCollector {
            blobs: &blobs,
            own,
            log: JobLog::default(),
            bytes: 0,
            lines_lost: 0,
            unreadable: None,
        };
        for key in [ours, theirs, object] {
            let log = LogRef {
                key: Some(key),
                lines: 1,
                dropped: 0,
            };
            collector.add("visits", 0, 0, &log).await;
        }
        let log = collector.log().expect("nothing is to be read again");
        assert_eq!((log.lines.len(), log.dropped), (1, 2));
    }

    #[tokio::test]
    async fn a_job_that_was_archived_while_its_logs_were_read_has_its_whole_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        let archives = Archives::new(blobs.clone());
        let id = JobId::new(1_700_000_000_000, 1);
        let collected = |lines_lost| LogCollector {
            blobs: &blobs,
            own: format!("{}/", job_prefix(&id)),
            log: JobLog {
                lines: vec![line("first")],
                dropped: 0,
            },
            bytes: 0,
            lines_lost,
            unreadable: None,
        };
        let lost = whole(&archives, &id, collected(1)).await.expect("it reads");
        assert_eq!((lost.lines.len(), lost.dropped), (1, 1));

        let archived = JobLog {
            lines: vec![line("first"), line("second")],
            dropped: 0,
        };
        let archived = encode(&archived).expect("it packs");
        let put = blobs.put_durable(&log_key(&id), archived).await;
        put.expect("it writes");
        let found = whole(&archives, &id, collected(1)).await.expect("it reads");
        assert_eq!((found.lines.len(), found.dropped), (2, 0));
        let all = whole(&archives, &id, collected(0)).await.expect("it reads");
        assert_eq!(all.lines.len(), 1, "nothing was missing");
    }
}
