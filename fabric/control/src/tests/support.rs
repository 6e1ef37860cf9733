//! Components, jobs, plans and commits in few words. The simulation in `tests/it` takes this file in as well.

use serde_json::json;
use weft_core::job::{JobSpec, decode};
use weft_core::{
    Digest, Epoch, ErrorCode, FunctionUsage, Incarnation, JobId, Limits, Meters, NodeId, Problem,
    TenantId,
};

use crate::{
    Answer, COMMAND_VERSION, Command, CommitAnswer, CommitReport, ComponentRecord, Effect,
    Envelope, Job, Lease, NodeRecord, Origin, State, Tenant,
};
use weft_core::{FunctionKind, FunctionRecord};
use weft_protocol::{
    EdgeBytes, EdgeKind, EdgeRead, EdgeRef, EdgeShape, LogRef, Plan, ReadMode, SlotVector,
    StageShape, Sums, TASK_BYTES, TaskCommit, TaskFailure,
};

pub(crate) fn tenant_id() -> TenantId {
    TenantId::default_tenant()
}

/// Ids sort by `number`.
pub(crate) fn job_id(number: u64) -> JobId {
    JobId::new(number, 0)
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::from_sha256(&[byte; 32])
}

pub(crate) fn component(version: &str, byte: u8) -> ComponentRecord {
    let function = |name: &str, kind| FunctionRecord {
        name: name.into(),
        kind,
        summary: String::new(),
        deterministic: true,
    };
    ComponentRecord {
        name: "weblog".into(),
        version: version.into(),
        digest: digest(byte),
        size_bytes: 1,
        created_ms: 0,
        functions: vec![
            function("parse", FunctionKind::MapBatches),
            function("daily-partial", FunctionKind::CombineGroups),
            function("daily", FunctionKind::ReduceGroups),
            function("noop", FunctionKind::Task),
        ],
        imports: Vec::new(),
    }
}

/// A job that maps by `map`, and reduces.
pub(crate) fn spec_of(map: &str) -> JobSpec {
    let document = json!({
        "name": "weblog-daily",
        "tags": { "team": "web" },
        "input": { "logs": { "format": "text", "uri": "/data/access-*.log" } },
        "stage": [
            { "name": "visits", "from": "logs", "map": map },
            { "name": "daily", "from": "visits", "shuffle": { "keys": ["day"], "partitions": 2 }, "combine": "weblog/daily-partial", "reduce": "weblog/daily" },
        ],
        "output": { "daily": { "from": "daily", "format": "parquet", "uri": "/out/daily/", "mode": "error" } },
    });
    decode(&document).expect("the document is right")
}

pub(crate) fn spec() -> JobSpec {
    spec_of("weblog/parse")
}

/// Stages of `(number of tasks, stage that it reads)`, called `s0`, `s1` and so on.
pub(crate) fn plan(stages: &[(u32, Option<u32>)]) -> Plan {
    let readers = |writer: usize| {
        let reads = move |(_, reads): &&(u32, Option<u32>)| *reads == Some(writer as u32);
        stages.iter().filter(reads)
    };
    let shape = |(position, (n_tasks, reads)): (usize, &(u32, Option<u32>))| {
        let edge = |writer: u32| {
            let before = stages[..position].iter();
            before.filter(|(_, reads)| *reads == Some(writer)).count() as u32
        };
        StageShape {
            name: format!("s{position}"),
            n_tasks: *n_tasks,
            plan: format!("plan/{position}.json"),
            reads: reads
                .iter()
                .map(|stage| {
                    EdgeRead::from(EdgeRef {
                        stage: *stage,
                        edge: edge(*stage),
                    })
                })
                .collect(),
            adaptive: Vec::new(),
            edges: readers(position)
                .map(|(partitions, _)| EdgeShape {
                    kind: EdgeKind::Materialised,
                    partitions: *partitions,
                })
                .collect(),
            limits: Limits::default(),
            slot: SlotVector::default(),
            resident: false,
            deterministic: true,
        }
    };
    Plan {
        stages: stages.iter().enumerate().map(shape).collect(),
        fingerprint: "f".into(),
        input_bytes: 1,
    }
}

/// Two stages with a shuffle between them.
pub(crate) fn two_stages() -> Plan {
    plan(&[(3, None), (2, Some(0))])
}

/// What task `task` of stage `stage` writes to partition `partition` of edge `edge`: made up, but the same for writer and
/// reader.
fn segment(stage: u32, edge: u32, task: u32, partition: u32) -> Sums {
    let place = [stage, edge, task, partition];
    let mix = |hash: u64, part: &u32| {
        (hash ^ u64::from(*part))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    Sums {
        rows: u64::from(1 + (task + 3 * partition) % 5),
        segments: 1,
        xxh3: place.iter().fold(0x5eed, mix),
    }
}

fn total(segments: impl Iterator<Item = Sums>) -> Sums {
    segments.fold(Sums::default(), |mut sums, segment| {
        sums.add(&segment);
        sums
    })
}

/// The first attempt of a task under a lease.
fn sequence(stage: u32, task: u32) -> u64 {
    1 + u64::from(stage) * 1_000 + u64::from(task)
}

/// The commit of an attempt that did its work as planned.
pub(crate) fn commit(plan: &Plan, stage: u32, task: u32, epoch: Epoch) -> TaskCommit {
    let shape = &plan.stages[stage as usize];
    let written = (0..).zip(&shape.edges).map(|(edge, shape)| {
        total((0..shape.partitions).map(|partition| segment(stage, edge, task, partition)))
    });
    let read = shape.reads.iter().map(|edge| {
        let readers = edge.readers(shape);
        let Some(position) = readers.position(task) else {
            return Sums::default();
        };
        // Ranges are shares of the writers here: the state knows of sums alone.
        let is_shared = matches!(edge.mode, ReadMode::Sliced | ReadMode::Ranged);
        let writer = &plan.stages[edge.stage as usize];
        // Fewer tasks than partitions share them, and some of more tasks have none.
        let partitions = match edge.mode {
            ReadMode::Partitioned => writer.edges[edge.edge as usize].partitions,
            ReadMode::Broadcast | ReadMode::Sliced | ReadMode::Ranged => 1,
        };
        let is_read =
            |partition: &u32| !edge.mode.is_partitioned() || partition % readers.count == position;
        let of_writer = |task: u32| {
            let partitions = (0..partitions).filter(is_read);
            total(partitions.map(|partition| segment(edge.stage, edge.edge, task, partition)))
        };
        let writers = 0..writer.n_tasks;
        let read = writers.filter(|writer| !is_shared || writer % readers.count == position);
        total(read.map(of_writer))
    });
    // A task writes more than the one before it.
    let all = u64::from(1 + task) * TASK_BYTES / 2;
    let bytes = EdgeBytes {
        all,
        largest: all / 4 * 3,
    };
    TaskCommit {
        stage,
        task,
        attempt: 0,
        epoch,
        sequence: sequence(stage, task),
        started_ms: 0,
        stream_epoch: 0,
        positions: Vec::new(),
        object: None,
        written: written.collect(),
        bytes: vec![bytes; shape.edges.len()],
        part: None,
        read: read.collect(),
        files: Vec::new(),
        usage: vec![usage(&shape.name, 10)].into(),
        log: LogRef {
            key: None,
            lines: 0,
            dropped: 0,
        },
    }
}

/// The same of another attempt of the task.
pub(crate) fn another(commit: TaskCommit) -> TaskCommit {
    TaskCommit {
        sequence: commit.sequence + 100_000,
        ..commit
    }
}

pub(crate) fn failure(code: ErrorCode, stage: u32, task: u32, epoch: Epoch) -> TaskFailure {
    TaskFailure {
        cancelled: false,
        lost: None,
        stage,
        task,
        attempt: 0,
        epoch,
        sequence: sequence(stage, task),
        problem: Problem::new(code, "it failed"),
        usage: vec![usage(&format!("s{stage}"), 10)],
        log: None,
    }
}

/// One billed attempt of `parse` that took `cpu_ns`.
pub(crate) fn usage(stage: &str, cpu_ns: u64) -> FunctionUsage {
    FunctionUsage {
        stage: stage.into(),
        function: "weblog@0.1.0/parse".into(),
        billed_attempts: 1,
        billed: Meters {
            guest_cpu_ns: cpu_ns,
            ..Meters::default()
        },
        ..FunctionUsage::default()
    }
}

/// Command `sequence` of the process `life`.
pub(crate) fn origin(life: u8, sequence: u64) -> Origin {
    Origin {
        incarnation: incarnation(life),
        sequence,
        answered_below: 0,
    }
}

pub(crate) fn incarnation(life: u8) -> Incarnation {
    Incarnation::from_random([life; 16])
}

/// A command of the controller.
pub(crate) fn envelope(at_ms: u64, sequence: u64, command: Command) -> Envelope {
    Envelope {
        version: COMMAND_VERSION,
        at_ms,
        tenant: tenant_id(),
        origin: origin(0, sequence),
        command,
    }
}

pub(crate) fn node_id(name: &str) -> NodeId {
    name.parse().expect("it is a node's id")
}

/// The agent of a node starts its life `life`.
pub(crate) fn join(node: &str, life: u8) -> Command {
    Command::JoinNode {
        node: node_id(node),
        record: NodeRecord {
            incarnation: incarnation(life),
            slots: 2,
            compatibility: "engine".into(),
            joined_ms: 0,
        },
    }
}

/// A lease for an executor of a node whose agent is in its life `life`.
pub(crate) fn lease(tenant: TenantId, node: &str, life: u8) -> Command {
    Command::GrantLease {
        lease: Lease {
            tenant,
            node: node_id(node),
            incarnation: incarnation(life),
            slots: vec![SlotVector::default()],
            granted_ms: 0,
        },
    }
}

/// The report of an attempt by the agent in its life 1.
pub(crate) fn report(job: &JobId, number: u64, commit: TaskCommit) -> CommitReport {
    CommitReport {
        job: job.clone(),
        origin: origin(1, number),
        commit,
    }
}

/// A state machine with a component, driven by one tenant.
pub(crate) struct Machine {
    pub(crate) state: State,
    pub(crate) at_ms: u64,
    /// Commands and reports so far.
    pub(crate) sent: u64,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let mut machine = Machine {
            state: State::default(),
            at_ms: 1_000,
            sent: 0,
        };
        let component = component("0.1.0", 1);
        machine.apply(Command::RegisterComponent { component });
        machine.apply(join("node", 1));
        machine
    }

    pub(crate) fn apply(&mut self, command: Command) -> (Answer, Vec<Effect>) {
        self.sent += 1;
        let mut envelope = envelope(self.at_ms, self.sent, command);
        envelope.origin.answered_below = self.sent;
        self.state.apply(envelope)
    }

    /// The effects of a command that is not refused.
    #[track_caller]
    pub(crate) fn effects(&mut self, command: Command) -> Vec<Effect> {
        let (answer, effects) = self.apply(command);
        assert!(!matches!(answer, Answer::Refused { .. }), "{answer:?}");
        effects
    }

    #[track_caller]
    pub(crate) fn refusal(&mut self, command: Command) -> Problem {
        let mut before = self.state.clone();
        let (answer, effects) = self.apply(command);
        // All but the answer itself is as it was.
        before.origins = self.state.origins.clone();
        assert_eq!((&self.state, effects), (&before, Vec::new()));
        match answer {
            Answer::Refused { problem } => problem,
            other => panic!("it was not refused: {other:?}"),
        }
    }

    pub(crate) fn submit(&mut self, number: u64) -> JobId {
        let job = job_id(number);
        self.effects(Command::SubmitJob {
            job: job.clone(),
            spec: spec(),
            idempotency: None,
        });
        job
    }

    pub(crate) fn planned(&mut self, job: &JobId, plan: &Plan) -> Vec<Effect> {
        self.effects(Command::JobPlanned {
            lease: None,
            job: job.clone(),
            plan: plan.clone(),
            statement: None,
            usage: Vec::new(),
        })
    }

    /// A submitted job that runs as `plan` says.
    pub(crate) fn running(&mut self, number: u64, plan: &Plan) -> JobId {
        let job = self.submit(number);
        self.planned(&job, plan);
        job
    }

    pub(crate) fn lease(&mut self) -> Epoch {
        self.lease_on("node")
    }

    /// A lease on a node, in place of the one that it has.
    pub(crate) fn lease_on(&mut self, node: &str) -> Epoch {
        if node != "node" {
            self.effects(join(node, 1));
        }
        match self.apply(lease(tenant_id(), node, 1)).0 {
            Answer::Lease { epoch } => epoch,
            other => panic!("a lease was answered with {other:?}"),
        }
    }

    pub(crate) fn commit(
        &mut self,
        job: &JobId,
        commit: TaskCommit,
    ) -> (CommitAnswer, Vec<Effect>) {
        self.sent += 1;
        let mut report = report(job, self.sent, commit);
        report.origin.answered_below = self.sent;
        let commits = vec![report];
        match self.apply(Command::CommitTasks { commits }) {
            (Answer::Commits { answers }, effects) => (answers[0], effects),
            (other, _) => panic!("commits were answered with {other:?}"),
        }
    }

    pub(crate) fn fail(&mut self, job: &JobId, failure: TaskFailure) -> Vec<Effect> {
        self.effects(Command::FailTask {
            job: job.clone(),
            failure,
        })
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        self.state.tenant(&tenant_id()).expect("it did something")
    }

    #[track_caller]
    pub(crate) fn job(&self, job: &JobId) -> &Job {
        &self.tenant().jobs[job]
    }
}
