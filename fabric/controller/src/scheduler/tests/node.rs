//! A node: the real agent, on executors that answer at random.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use weft_agent::{Action, AgentState, NodeSettings};
use weft_core::{
    Epoch, ErrorCode, FunctionUsage, Incarnation, JobId, Limits, NodeId, Problem, TenantId,
};
use weft_protocol::{
    ACTOR_LEASE, AdaptiveTasks, EdgeBytes, EdgeInput, EdgeKind, EdgeRead, EdgeRef, EdgeShape,
    FINGERPRINT, FromAgent, FromExecutor, LogRef, LostObject, ObjectRef, Plan, PlanReply,
    PublishedOutput, SlotVector, StageContext, StageShape, Sums, TASK_BYTES, TaskCommit,
    TaskFailure, TaskRange, TaskReply, TaskRequest, ToAgent, ToExecutor, Took, Work,
};

use super::random::Random;
use super::serving::{Answered, Around, Ask, Opened, Served, Serving, ShardStore, Slip};

pub(crate) const SLOTS: u32 = 3;

/// Work that an executor has not answered.
#[derive(Debug)]
enum Doing {
    Starting,
    Planning(JobId),
    Publishing(JobId),
    Task(TaskRequest),
}

struct Executor {
    tenant: TenantId,
    doing: VecDeque<Doing>,
    stages: BTreeMap<(JobId, u32), StageContext>,
    serving: Serving,
}

/// How much longer a lease is with [`Slip::LongLease`].
const TOO_LONG: Duration = Duration::from_secs(3);

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("it is short")
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    agent: AgentState,
    executors: BTreeMap<Epoch, Executor>,
    /// Messages on their way to the agent.
    pub(crate) inbox: VecDeque<ToAgent>,
    /// Messages on their way to the leader.
    pub(crate) outbox: VecDeque<FromAgent>,
    pub(crate) link_up: bool,
    /// Every task fails on it at once.
    pub(crate) broken: bool,
    /// Some objects are lost although nothing else fails.
    pub(crate) loses_objects: bool,
    /// The machine's clock.
    pub(crate) now_ns: u64,
    /// A fault of how it serves shards.
    pub(crate) slip: Option<Slip>,
}

/// News of a node for the world's books.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Attempts that ended with a commit: task, and lease.
    pub(crate) finished: Vec<(weft_core::TaskId, Epoch)>,
    /// Attempts that were given to an executor.
    pub(crate) begun: Vec<TaskRequest>,
    /// Objects that attempts did not find in the store.
    pub(crate) lost: u64,
    /// Shards that were opened.
    pub(crate) opened: Vec<Opened>,
    /// Clients of shards that were answered.
    pub(crate) answered: Vec<Answered>,
}

fn json<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T) -> T {
    let bytes = serde_json::to_vec(message).expect("messages are plain data");
    serde_json::from_slice(&bytes).expect("what was written is read")
}

impl Node {
    pub(crate) fn new(name: &str, life: u64) -> Node {
        let id: NodeId = name.parse().expect("it is a node's id");
        let life = format!("{life:032x}");
        let incarnation: Incarnation = life.parse().expect("32 digits");
        let settings = NodeSettings {
            node: id.clone(),
            incarnation,
            compatibility: "engine".into(),
            slots: SLOTS,
        };
        Node {
            id,
            incarnation,
            agent: AgentState::new(settings),
            executors: BTreeMap::new(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            link_up: true,
            broken: false,
            loses_objects: false,
            now_ns: 0,
            slip: None,
        }
    }

    /// A message of the scheduler: over a wire it would be bytes.
    pub(crate) fn send(&mut self, message: &ToAgent) {
        if self.link_up {
            self.inbox.push_back(json(message));
        }
    }

    fn perform(&mut self, actions: Vec<Action>, news: &mut News) {
        for action in actions {
            match action {
                Action::Start { epoch, tenant } => {
                    let executor = Executor {
                        tenant,
                        doing: VecDeque::from([Doing::Starting]),
                        stages: BTreeMap::new(),
                        serving: Serving::default(),
                    };
                    assert!(self.executors.insert(epoch, executor).is_none(), "once");
                }
                Action::Stop { epoch } => self.kill(epoch, news),
                Action::Send { epoch, message } => self.give(epoch, json(&message), news),
                Action::Report(message) => {
                    if self.link_up {
                        self.outbox.push_back(json(&*message));
                    }
                }
            }
        }
    }

    fn give(&mut self, epoch: Epoch, message: ToExecutor, news: &mut News) {
        let Some(executor) = self.executors.get_mut(&epoch) else {
            return;
        };
        match message {
            ToExecutor::Work(Work::Plan(request)) => {
                executor.doing.push_back(Doing::Planning(request.job));
            }
            ToExecutor::Work(Work::Publish(request)) => {
                executor.doing.push_back(Doing::Publishing(request.job));
            }
            ToExecutor::Work(Work::Stage(context)) => {
                let key = (context.job.clone(), context.stage);
                let mut objects = context.inputs.iter().flat_map(|input| &input.objects);
                assert!(
                    objects.all(Option::is_some),
                    "all that it reads is committed"
                );
                executor.stages.insert(key, *context);
            }
            ToExecutor::Task(request) => {
                let key = (request.id.job.clone(), request.id.stage);
                assert!(
                    executor.stages.contains_key(&key),
                    "the context comes first"
                );
                news.begun.push(request.clone());
                executor.doing.push_back(Doing::Task(request));
            }
            ToExecutor::Work(Work::Forget { .. } | Work::Describe { .. }) => {}
            ToExecutor::Work(Work::Shards { shards }) => executor.serving.granted(shards),
            ToExecutor::Lease {
                until_ns,
                confirmed,
            } => {
                let until_ns = match self.slip {
                    Some(Slip::CountFromAnswer) => self.now_ns + nanoseconds(ACTOR_LEASE),
                    Some(Slip::LongLease) => until_ns + nanoseconds(TOO_LONG),
                    _ => until_ns,
                };
                executor.serving.renewed(until_ns, confirmed);
            }
            other => panic!("the scheduler does not send {other:?}"),
        }
    }

    /// The agent takes its next message.
    pub(crate) fn listen(&mut self, news: &mut News) {
        if let Some(message) = self.inbox.pop_front() {
            let actions = self.agent.on_command(message);
            self.perform(actions, news);
        }
    }

    /// An executor answers for some of its work.
    pub(crate) fn work(&mut self, random: &mut Random, faults: bool, news: &mut News) {
        let epochs: Vec<Epoch> = self.executors.keys().copied().collect();
        if epochs.is_empty() {
            return;
        }
        let epoch = epochs[random.below(epochs.len())];
        let executor = self.executors.get_mut(&epoch).expect("it is there");
        if executor.doing.is_empty() {
            return;
        }
        let position = match executor.doing.front() {
            // Nothing else is done before it is ready.
            Some(Doing::Starting) => 0,
            _ => random.below(executor.doing.len()),
        };
        let doing = executor.doing.remove(position).expect("it is there");
        let message = match doing {
            Doing::Starting => FromExecutor::Ready { slots: SLOTS },
            Doing::Planning(job) => {
                let fails = faults && random.percent(10);
                let result = match fails {
                    true => Err(platform()),
                    false => Ok(plan(random)),
                };
                FromExecutor::Planned(Box::new(PlanReply {
                    result,
                    statement: None,
                    columns: Vec::new(),
                    texts: Vec::new(),
                    usage: vec![usage(&format!("plan-{job}-{}", random.next()))],
                    job,
                }))
            }
            Doing::Publishing(job) => {
                let output = PublishedOutput {
                    name: "out".into(),
                    uri: Some("file:///out".into()),
                    files: 0,
                    rows: 0,
                    bytes: 0,
                };
                let fails = faults && random.percent(10);
                let result = if fails {
                    Err(platform())
                } else {
                    Ok(vec![output])
                };
                FromExecutor::Published { job, result }
            }
            Doing::Task(request) => {
                let key = (request.id.job.clone(), request.id.stage);
                let context = &executor.stages[&key];
                let fails = self.broken || (faults && random.percent(7));
                let loses = faults || self.loses_objects;
                let lost = lost(&request, &context.inputs).filter(|_| loses && !fails);
                news.lost += u64::from(lost.is_some());
                let result = match (fails, lost) {
                    (true, _) => Err(failure(&request)),
                    (false, None) => Ok(commit(&request, &context.inputs)),
                    (false, lost) => Err(TaskFailure {
                        lost,
                        ..failure(&request)
                    }),
                };
                if result.is_ok() {
                    news.finished.push((request.id.clone(), epoch));
                }
                FromExecutor::Task(Box::new(TaskReply {
                    job: request.id.job,
                    result,
                    took: Took::default(),
                }))
            }
        };
        let actions = self.agent.on_message(epoch, json(&message));
        self.perform(actions, news);
    }

    /// An executor dies.
    pub(crate) fn kill_some(&mut self, random: &mut Random, news: &mut News) {
        let epochs: Vec<Epoch> = self.executors.keys().copied().collect();
        if !epochs.is_empty() {
            self.kill(epochs[random.below(epochs.len())], news);
        }
    }

    fn kill(&mut self, epoch: Epoch, news: &mut News) {
        if self.executors.remove(&epoch).is_some() {
            let actions = self.agent.on_gone(epoch, "signal: 9".into());
            self.perform(actions, news);
        }
    }

    // ---- shards

    /// The agent asks for a renewal of its leases, if one is due.
    pub(crate) fn renew(&mut self, news: &mut News) {
        let actions = self.agent.renew(self.now_ns);
        self.perform(actions, news);
    }

    /// A client asks an executor, which may be gone. Returns whether it takes the question.
    pub(crate) fn ask(&mut self, epoch: Epoch, ask: Ask) -> bool {
        let executor = self.executors.get_mut(&epoch);
        executor.is_some_and(|executor| executor.serving.ask(ask))
    }

    /// An executor goes on with a question about a shard.
    pub(crate) fn serve(&mut self, random: &mut Random, store: &mut ShardStore, news: &mut News) {
        let asked = self
            .executors
            .iter()
            .filter(|(_, one)| one.serving.n_asks() > 0);
        let asked: Vec<Epoch> = asked.map(|(epoch, _)| *epoch).collect();
        if asked.is_empty() {
            return;
        }
        let epoch = asked[random.below(asked.len())];
        let executor = self.executors.get_mut(&epoch).expect("it is there");
        let mut around = Around {
            executor: epoch,
            tenant: &executor.tenant,
            store,
            now_ns: self.now_ns,
            slip: self.slip,
        };
        let position = random.below(executor.serving.n_asks());
        match executor.serving.step(&mut around, position) {
            Served::Nothing => {}
            Served::Opened(opened) => news.opened.push(opened),
            Served::Answered(answered) => {
                if random.percent(10) {
                    executor.serving.close(answered.shard);
                }
                news.answered.push(answered);
            }
            Served::Confirm(number) => {
                let confirm = FromExecutor::Confirm { number };
                let actions = self.agent.on_message(epoch, json(&confirm));
                self.perform(actions, news);
            }
        }
    }

    /// Shards for which executors may answer now.
    pub(crate) fn valid_shards(&self) -> impl Iterator<Item = (TenantId, u32, Epoch)> {
        self.executors.iter().flat_map(move |(epoch, one)| {
            let valid = one.serving.valid(self.now_ns);
            valid.map(move |shard| (one.tenant.clone(), shard, *epoch))
        })
    }

    /// Executors that have a shard open, with their openings.
    pub(crate) fn writers(
        &self,
        tenant: &TenantId,
        shard: u32,
    ) -> impl Iterator<Item = (Epoch, u64)> {
        let executors = self.executors.iter();
        let of_tenant = executors.filter(move |(_, one)| one.tenant == *tenant);
        of_tenant.filter_map(move |(epoch, one)| Some((*epoch, one.serving.writer(shard)?)))
    }

    /// Returns whether an executor knows that a shard is its own.
    pub(crate) fn serves(&self, epoch: Epoch, shard: u32) -> bool {
        let executor = self.executors.get(&epoch);
        executor.is_some_and(|executor| executor.serving.has(shard))
    }

    /// Returns whether clients wait for executors.
    pub(crate) fn is_asked(&self) -> bool {
        let mut executors = self.executors.values();
        executors.any(|one| one.serving.n_asks() > 0)
    }

    /// Invocations have used something, if it may be reported. Returns the name of the usage.
    pub(crate) fn meter(&mut self, tenant: &TenantId, number: u64) -> Option<String> {
        if !self.agent.may_report_usage(tenant) {
            return None;
        }
        let name = format!("call-{number}");
        let actions = self.agent.on_usage(tenant.clone(), vec![usage(&name)]);
        self.perform(actions, &mut News::default());
        Some(name)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.agent.n_unacknowledged() == 0
            && self.inbox.is_empty()
            && self.outbox.is_empty()
            && self.executors.values().all(|one| one.doing.is_empty())
    }
}

fn platform() -> Problem {
    Problem::new(ErrorCode::StoreUnavailable, "the store did not answer")
}

/// One attempt's usage, under a name that only this attempt has.
pub(crate) fn usage(function: &str) -> FunctionUsage {
    FunctionUsage {
        stage: "s".into(),
        function: function.into(),
        billed_attempts: 1,
        ..FunctionUsage::default()
    }
}

fn name(request: &TaskRequest) -> String {
    format!("task-{}-{}", request.epoch, request.sequence)
}

fn failure(request: &TaskRequest) -> TaskFailure {
    TaskFailure {
        stage: request.id.stage,
        task: request.id.task,
        attempt: request.attempt,
        epoch: request.epoch,
        sequence: request.sequence,
        problem: platform(),
        cancelled: false,
        lost: None,
        usage: vec![usage(&name(request))],
        log: None,
    }
}

/// The object that one in five attempts that read does not find. It takes no number from the seed, so that what other
/// faults do stays as it is.
fn lost(request: &TaskRequest, inputs: &[EdgeInput]) -> Option<LostObject> {
    let chance = request
        .sequence
        .wrapping_mul(7)
        .wrapping_add(request.epoch.0);
    let written = inputs.iter().flat_map(|input| {
        let objects = input.objects.iter().enumerate();
        objects.filter_map(|(task, object)| Some((input.edge.stage, task, object.as_ref()?)))
    });
    let written: Vec<_> = written.collect();
    if written.is_empty() || !chance.is_multiple_of(5) {
        return None;
    }
    let (stage, task, object) = written[(chance / 5) as usize % written.len()];
    Some(LostObject {
        stage,
        task: task as u32,
        key: object.key.clone(),
    })
}

/// Sums of the rows that a task writes to, or reads from, an edge: made up, but so that all readers
/// together read what all writers wrote.
fn commit(request: &TaskRequest, inputs: &[EdgeInput]) -> TaskCommit {
    let rows = |rows: u64| Sums {
        rows,
        segments: rows,
        xxh3: rows,
    };
    let read = |input: &EdgeInput| {
        // The first reader takes all that the context says was written.
        match request.id.task {
            0 => input.expected,
            _ => Sums::default(),
        }
    };
    let bytes = u64::from(1 + request.id.task) * TASK_BYTES;
    let bytes = EdgeBytes {
        all: bytes,
        largest: bytes,
    };
    TaskCommit {
        stage: request.id.stage,
        task: request.id.task,
        attempt: request.attempt,
        epoch: request.epoch,
        sequence: request.sequence,
        started_ms: 0,
        stream_epoch: 0,
        positions: Vec::new(),
        object: Some(ObjectRef {
            key: name(request),
            bytes: 1,
            index_xxh3: 0,
        }),
        written: vec![rows(1 + u64::from(request.id.task)); 2],
        bytes: vec![bytes; 2],
        part: None,
        read: inputs.iter().map(read).collect(),
        files: Vec::new(),
        usage: vec![usage(&name(request))].into(),
        log: LogRef {
            key: None,
            lines: 0,
            dropped: 0,
        },
    }
}

/// One to three stages; each after the first reads edges of one or two before it. The number of tasks of the second
/// follows from what the first one writes.
fn plan(random: &mut Random) -> Plan {
    let n_stages = 1 + random.below(3);
    let n_tasks: Vec<u32> = (0..n_stages).map(|_| 1 + random.below(5) as u32).collect();
    let mut stages: Vec<StageShape> = Vec::new();
    for (position, &n_tasks) in n_tasks.iter().enumerate() {
        let mut reads = Vec::new();
        if position > 0 {
            for _ in 0..1 + random.below(2) {
                let writer = random.below(position);
                if stages[writer].edges.len() < 2 {
                    let edge = stages[writer].edges.len() as u32;
                    stages[writer].edges.push(EdgeShape {
                        kind: EdgeKind::Materialised,
                        partitions: n_tasks,
                    });
                    reads.push(EdgeRead::from(EdgeRef {
                        stage: writer as u32,
                        edge,
                    }));
                }
            }
        }
        let planned = TaskRange {
            first: 0,
            count: n_tasks,
        };
        let mut adaptive = Vec::new();
        if position == 1 {
            reads.iter_mut().for_each(|read| read.tasks = Some(planned));
            adaptive.push(AdaptiveTasks {
                planned,
                coalesce: true,
                split: vec![0],
                settled: None,
            });
        }
        stages.push(StageShape {
            name: format!("s{position}"),
            n_tasks,
            plan: format!("plan/{position}"),
            reads,
            adaptive,
            edges: Vec::new(),
            limits: Limits::default(),
            slot: SlotVector::default(),
            resident: false,
            deterministic: true,
        });
    }
    Plan {
        stages,
        fingerprint: FINGERPRINT.into(),
        input_bytes: 1,
    }
}
