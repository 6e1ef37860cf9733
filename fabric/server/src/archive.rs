//! What stays of a job when it has ended: one object with all that was known of it, one with its log; the rest is removed.

use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weft_control::{Job, JobState, Outcome};
use weft_core::{JobId, Problem};
use weft_engine::job_prefix;
use weft_sandbox::LogLine;
use weft_shuffle::{Blobs, clean_staging};

/// Bytes of a job's log that are kept; what comes after is counted.
const LOG_BYTES_MAX: usize = 64 << 20;

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
    format!("archive/{job}.json")
}

pub(crate) fn log_key(job: &JobId) -> String {
    format!("archive/{job}.log.json")
}

/// Collects the log of a job out of what its tasks wrote, in the order of stages and tasks.
pub(crate) async fn collect_log(blobs: &Blobs, job: &Job) -> JobLog {
    let mut log = JobLog::default();
    let mut bytes = 0;
    let names: Vec<String> = job
        .plan()
        .map(|plan| plan.stages.iter().map(|stage| stage.name.clone()).collect())
        .unwrap_or_default();
    for (stage, name) in job.stages().iter().zip(&names) {
        for commit in stage.commits.values() {
            log.dropped += commit.log.dropped;
            let Some(key) = &commit.log.key else { continue };
            for line in read_lines(blobs, key).await {
                bytes += line.message.len() + 64;
                if bytes > LOG_BYTES_MAX {
                    log.dropped += 1;
                } else {
                    log.lines.push(JobLogLine {
                        stage: name.clone(),
                        task: commit.task,
                        attempt: commit.attempt,
                        line,
                    });
                }
            }
        }
    }
    if let JobState::Ending(ending) = &job.state {
        for failed in &ending.failed_logs {
            log.dropped += failed.dropped;
            if let Some(key) = &failed.key {
                log.lines.extend(
                    read_lines(blobs, key)
                        .await
                        .into_iter()
                        .map(|line| JobLogLine {
                            stage: "failed".into(),
                            task: 0,
                            attempt: 0,
                            line,
                        }),
                );
            }
        }
    }
    log
}

async fn read_lines(blobs: &Blobs, key: &str) -> Vec<LogLine> {
    match blobs.get(key).await {
        Ok(bytes) => bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect(),
        Err(error) => {
            tracing::warn!(key, %error, "a task's log is gone");
            Vec::new()
        }
    }
}

/// Writes the archive objects of a job whose outcome stands, then removes what it left behind. Can be repeated from the start.
pub(crate) async fn archive(blobs: &Blobs, job: &Job) -> Result<String, Problem> {
    let key = archive_key(&job.id);
    let failed = |error: weft_shuffle::Error| error.problem();
    if !blobs.exists(&key).await.map_err(failed)? {
        let log = collect_log(blobs, job).await;
        let encode = |value: serde_json::Result<Vec<u8>>| {
            value
                .map(Bytes::from)
                .map_err(|error| Problem::new(weft_core::ErrorCode::Internal, error.to_string()))
        };
        blobs
            .put_durable(&log_key(&job.id), encode(serde_json::to_vec(&log))?)
            .await
            .map_err(failed)?;
        blobs
            .put_durable(&key, encode(serde_json::to_vec(job))?)
            .await
            .map_err(failed)?;
    }
    let succeeded =
        matches!(&job.state, JobState::Ending(ending) if ending.outcome == Outcome::Succeeded);
    let staged = job.staged_files();
    for output in &job.spec.outputs {
        let withdraw = if succeeded {
            Vec::new()
        } else {
            staged
                .iter()
                .filter(|file| file.output == output.name)
                .cloned()
                .collect()
        };
        clean_staging(Path::new(&output.path), &job.id, &withdraw).map_err(failed)?;
    }
    blobs
        .delete_prefix(&job_prefix(&job.id))
        .await
        .map_err(failed)?;
    Ok(key)
}

/// Reads a job back.
pub(crate) async fn read(blobs: &Blobs, key: &str) -> Result<Job, Problem> {
    let bytes = blobs.get(key).await.map_err(|error| error.problem())?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(weft_core::ErrorCode::Internal, format!("`{key}`: {error}")))
}
