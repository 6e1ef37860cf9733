//! A job whose tasks run: which stages are ready, which are done, and whether what was read is what was written.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_core::{ErrorCode, Meters, Problem};
use weft_protocol::{EdgeBytes, EdgeRef, Plan, ReadMode, Sums, TaskCommit};

/// A job whose tasks run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The stages' shapes.
    pub plan: Plan,
    /// The stages' progress, in the order of the plan.
    pub stages: Vec<StageState>,
    /// When planning ended, in Unix milliseconds.
    pub started_ms: u64,
}

/// A stage's progress.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct StageState {
    /// First commits, by task. The stage is done when every task has one. Shared by the copies of a job: there may be a hundred thousand.
    #[serde(with = "shared")]
    pub commits: BTreeMap<u32, Arc<TaskCommit>>,
    /// Attempts lost to the platform, by task.
    pub failures: BTreeMap<u32, u32>,
    /// Commits of tasks that were committed already.
    pub duplicates: u64,
    /// Commits that were taken back because the store lost their object, by task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub taken_back: BTreeMap<u32, u32>,
    /// Attempts that could not go on because the store lost an object of another task, by task.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub misses: BTreeMap<u32, u32>,
    /// Files that committed tasks staged.
    #[serde(skip)]
    pub files: u64,
    /// Bytes of these files, by output.
    #[serde(skip)]
    pub output_bytes: BTreeMap<String, u64>,
    /// Sums over the fabric's own meters of committed tasks: wall time, rows, bytes.
    #[serde(skip)]
    pub own: Meters,
    /// The committed task that took longest, once one has reported its time.
    #[serde(skip)]
    pub slowest: Option<SlowestTask>,
    /// From the first start of a committed attempt to the last end of one.
    #[serde(skip)]
    pub span: Option<Span>,
    /// Sums over what committed tasks wrote to the shuffle, by edge that the stage writes.
    #[serde(skip)]
    pub written: Vec<Sums>,
    /// Sums over the bytes of what committed tasks wrote to the shuffle, by edge that the stage writes.
    #[serde(skip)]
    pub bytes: Vec<EdgeBytes>,
    /// Some commit, of an earlier version, does not tell its bytes.
    #[serde(skip)]
    pub lacks_bytes: bool,
    /// Sums over what committed tasks read from the shuffle, by edge that the stage reads.
    #[serde(skip)]
    pub read: Vec<Sums>,
}

/// The task of a stage whose committed attempt took longest; the first one of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowestTask {
    /// Position of the task in the stage.
    pub task: u32,
    /// Wall time of its attempt.
    pub wall_ns: u64,
}

/// When something ran, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The start.
    pub started_ms: u64,
    /// The end.
    pub ended_ms: u64,
}

impl Span {
    fn of(commit: &TaskCommit, wall_ns: u64) -> Option<Span> {
        // Earlier versions did not record the start.
        (commit.started_ms > 0).then(|| Span {
            started_ms: commit.started_ms,
            ended_ms: commit.started_ms.saturating_add(wall_ns / 1_000_000),
        })
    }

    /// The shortest span that holds both.
    fn with(self, other: Span) -> Span {
        Span {
            started_ms: self.started_ms.min(other.started_ms),
            ended_ms: self.ended_ms.max(other.ended_ms),
        }
    }
}

/// What is written of a stage's progress: sums come from the commits again.
#[derive(Deserialize)]
struct Written {
    #[serde(with = "shared")]
    commits: BTreeMap<u32, Arc<TaskCommit>>,
    failures: BTreeMap<u32, u32>,
    duplicates: u64,
    #[serde(default)]
    taken_back: BTreeMap<u32, u32>,
    #[serde(default)]
    misses: BTreeMap<u32, u32>,
}

impl From<Written> for StageState {
    fn from(written: Written) -> StageState {
        let mut state = StageState {
            failures: written.failures,
            duplicates: written.duplicates,
            taken_back: written.taken_back,
            misses: written.misses,
            ..StageState::default()
        };
        written
            .commits
            .values()
            .for_each(|commit| state.sum(commit));
        state.commits = written.commits;
        state
    }
}

/// Values of a map that are shared in memory, and plain in what is written.
mod shared {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        map: &BTreeMap<u32, Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(key, value)| (key, value.as_ref())))
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, Arc<T>>, D::Error> {
        let map = BTreeMap::<u32, T>::deserialize(deserializer)?;
        Ok(map
            .into_iter()
            .map(|(key, value)| (key, Arc::new(value)))
            .collect())
    }
}

pub(crate) fn position(stage: usize) -> u32 {
    u32::try_from(stage).expect("plans have at most MAX_PLAN_STAGES stages")
}

impl StageState {
    /// Takes the first commit of a task.
    pub(crate) fn add(&mut self, commit: TaskCommit) {
        self.sum(&commit);
        self.commits.insert(commit.task, Arc::new(commit.shrunk()));
    }

    /// Removes a commit. Maxima are among the sums, so they are taken anew from the commits that stay.
    pub(crate) fn remove(&mut self, task: u32) {
        let mut commits = std::mem::take(&mut self.commits);
        commits.remove(&task);
        *self = StageState::from(Written {
            commits,
            failures: std::mem::take(&mut self.failures),
            duplicates: self.duplicates,
            taken_back: std::mem::take(&mut self.taken_back),
            misses: std::mem::take(&mut self.misses),
        });
    }

    fn sum(&mut self, commit: &TaskCommit) {
        self.files += commit.files.len() as u64;
        for file in &commit.files {
            match self.output_bytes.get_mut(&file.output) {
                Some(bytes) => *bytes = bytes.saturating_add(file.bytes),
                None => {
                    self.output_bytes.insert(file.output.clone(), file.bytes);
                }
            }
        }
        add_each(&mut self.written, &commit.written);
        add_each(&mut self.read, &commit.read);
        self.lacks_bytes |= commit.bytes.len() < commit.written.len();
        if self.bytes.len() < commit.bytes.len() {
            self.bytes.resize(commit.bytes.len(), EdgeBytes::default());
        }
        for (sum, more) in self.bytes.iter_mut().zip(&commit.bytes) {
            sum.add(more);
        }
        // The fabric's own line comes last. Executors report it: whatever they say is to be reckoned with.
        if let Some(own) = commit.usage.lines().last() {
            self.own = self.own.add(&own.billed);
            let task = SlowestTask {
                task: commit.task,
                wall_ns: own.billed.wall_ns,
            };
            // Commits come in any order, and in that of tasks when the state is read back.
            let tasks = self.slowest.into_iter().chain([task]);
            self.slowest = tasks.max_by_key(|one| (one.wall_ns, Reverse(one.task)));
            let spans = self.span.into_iter().chain(Span::of(commit, task.wall_ns));
            self.span = spans.reduce(Span::with);
        }
    }
}

impl Running {
    fn stage_is_done(&self, stage: u32) -> bool {
        let stage = stage as usize;
        self.stages[stage].commits.len() == self.plan.stages[stage].n_tasks as usize
    }

    pub(crate) fn is_done(&self) -> bool {
        (0..self.stages.len()).all(|stage| self.stage_is_done(position(stage)))
    }

    /// Stages that are not done and whose edges are complete.
    pub(crate) fn ready_stages(&self) -> impl Iterator<Item = u32> {
        let stages = (0..self.stages.len()).map(position);
        stages.filter(|stage| !self.stage_is_done(*stage) && self.is_readable(*stage))
    }

    /// Returns whether all that a stage reads is committed.
    pub fn is_readable(&self, stage: u32) -> bool {
        let Some(shape) = self.plan.stages.get(stage as usize) else {
            return false;
        };
        let mut reads = shape.reads.iter();
        reads.all(|edge| self.stage_is_done(edge.stage))
    }

    /// Number of commits that were taken back of the stages which a stage reads: with each, its tasks read another
    /// object.
    pub fn n_rewritten(&self, stage: u32) -> u64 {
        let shape = self.plan.stages.get(stage as usize);
        let reads = shape.into_iter().flat_map(|shape| &shape.reads);
        let writers = reads.filter_map(|read| self.stages.get(read.stage as usize));
        let taken_back = writers.flat_map(|writer| writer.taken_back.values());
        taken_back.map(|n| u64::from(*n)).sum()
    }

    /// Stages that waited for `done` and for nothing else.
    pub(crate) fn stages_after(&self, done: u32) -> impl Iterator<Item = u32> {
        self.ready_stages().filter(move |stage| {
            let mut reads = self.plan.stages[*stage as usize].reads.iter();
            reads.any(|edge| edge.stage == done)
        })
    }

    /// Checks that a stage which is done read what was written, and so did the stages that read it: they may have ended
    /// before it, when it had to write something again (invariant 4).
    pub(crate) fn check_conservation(&self, stage: usize) -> Result<(), Problem> {
        self.check_reads(stage)?;
        let written = position(stage);
        for (reader, shape) in self.plan.stages.iter().enumerate() {
            let mut reads = shape.reads.iter();
            if reads.any(|edge| edge.stage == written) && self.stage_is_done(position(reader)) {
                self.check_reads(reader)?;
            }
        }
        Ok(())
    }

    /// Checks, edge by edge, that the stage read what was written, as often as it has tasks that read all of it. Edges
    /// that are being written again are checked once they are there.
    fn check_reads(&self, stage: usize) -> Result<(), Problem> {
        let shape = &self.plan.stages[stage];
        for (position, edge) in shape.reads.iter().enumerate() {
            if !self.stage_is_done(edge.stage) {
                continue;
            }
            let sums = self.stages[stage].read.get(position);
            let read = sums.copied().unwrap_or_default();
            let written = edge_sums(&self.stages, edge.edge_ref());
            let (due, for_each) = match edge.mode {
                ReadMode::Partitioned | ReadMode::Sliced | ReadMode::Ranged => {
                    (written, String::new())
                }
                ReadMode::Broadcast => {
                    let n_readers = edge.readers(shape).count;
                    let for_each = format!(" for each of {n_readers} tasks");
                    (written.times(n_readers), for_each)
                }
            };
            if due == read {
                continue;
            }
            let detail = format!(
                "stage `{}` read {} rows in {} segments where stage `{}` wrote {} rows in {}{for_each}; the checksums {}: rows were lost, doubled or changed on the way",
                shape.name,
                read.rows,
                read.segments,
                self.plan.stages[edge.stage as usize].name,
                written.rows,
                written.segments,
                if due.xxh3 == read.xxh3 {
                    "agree"
                } else {
                    "differ"
                },
            );
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        Ok(())
    }
}

/// Sums over all that was written to an edge. An executor that leaves an edge out says that it
/// wrote nothing to it.
pub fn edge_sums(stages: &[StageState], edge: EdgeRef) -> Sums {
    let writer = stages.get(edge.stage as usize);
    let sums = writer.and_then(|writer| writer.written.get(edge.edge as usize));
    sums.copied().unwrap_or_default()
}

fn add_each(sums: &mut Vec<Sums>, more: &[Sums]) {
    if sums.len() < more.len() {
        sums.resize(more.len(), Sums::default());
    }
    for (sum, more) in sums.iter_mut().zip(more) {
        sum.add(more);
    }
}
