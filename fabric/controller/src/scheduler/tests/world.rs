//! The state behind a log, one leader at a time, two nodes, two tenants, and the books that are kept
//! of all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;
use weft_control::{
    COMMAND_VERSION, Command, ComponentRecord, Envelope, JobState, Origin, Outcome, State,
};
use weft_core::job::{JobSpec, MAX_KEPT_BYTES, decode};
use weft_core::{
    AttemptId, Digest, Epoch, ErrorCode, FunctionKind, FunctionRecord, FunctionUsage, Incarnation,
    JobId, NodeId, Problem, SHARDS, TaskId, TenantId,
};
use weft_protocol::{AgentCommand, TaskRequest, Work};
use weft_telemetry::Registry;

use super::node::{News, Node};
use super::random::Random;
use crate::metrics::Metrics;
use crate::scheduler::io::{Done, Input, Now, Output, Proposal, Ticket};
use crate::scheduler::why::WhyOf;
use crate::scheduler::{Request, Scheduler, SchedulerSettings, Watch};
use crate::traces::Traces;

const TENANTS: [&str; 2] = ["default", "other"];
const NODES: [&str; 2] = ["a", "b"];
const MAX_JOBS: u64 = 8;

/// A command in the log that is not applied.
struct Entry {
    envelope: Envelope,
    /// Who proposed it, and waits for its answer.
    ticket: Option<(u64, Ticket)>,
}

/// How often things happened.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) attempts: u64,
    pub(super) tasks: u64,
    leaders: u64,
    executors_lost: u64,
    agents_lost: u64,
    links_lost: u64,
    proposals_lost: u64,
    busy: u64,
    too_large: u64,
    usage: u64,
    jobs: u64,
    lost: u64,
    rewritten: u64,
    /// Executors that were told which shards are theirs.
    shards: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Seen) {
        self.attempts += other.attempts;
        self.tasks += other.tasks;
        self.leaders += other.leaders;
        self.executors_lost += other.executors_lost;
        self.agents_lost += other.agents_lost;
        self.links_lost += other.links_lost;
        self.proposals_lost += other.proposals_lost;
        self.busy += other.busy;
        self.too_large += other.too_large;
        self.usage += other.usage;
        self.jobs += other.jobs;
        self.lost += other.lost;
        self.rewritten += other.rewritten;
        self.shards += other.shards;
    }

    pub(super) fn check(&self) {
        for n in [
            self.attempts,
            self.tasks,
            self.leaders,
            self.executors_lost,
            self.agents_lost,
            self.links_lost,
            self.proposals_lost,
            self.busy,
            self.too_large,
            self.usage,
            self.jobs,
            self.lost,
            self.rewritten,
            self.shards,
        ] {
            assert!(n > 10, "{self:?}");
        }
    }
}

pub(super) struct World {
    random: Random,
    faults: bool,
    state: State,
    log: VecDeque<Entry>,
    now_ms: u64,
    /// The leader's incarnation; the scheduler of a follower is there as well, and follows.
    leader: u64,
    leads: bool,
    term: u64,
    sequence: u64,
    scheduler: Scheduler,
    /// Inputs that wait for the scheduler, by kind: kinds overtake each other.
    effects: VecDeque<Input>,
    answers: VecDeque<Input>,
    done: VecDeque<Input>,
    nodes: BTreeMap<NodeId, Node>,
    n_lives: u64,
    n_jobs: u64,
    n_usage: u64,
    // ---- the books
    pub(super) seen: Seen,
    /// Attempts that ever began.
    attempts: BTreeSet<AttemptId>,
    /// Tasks with an attempt that finished under a lease, whether it is recorded or not.
    finished: BTreeMap<TaskId, BTreeSet<Epoch>>,
    /// How often the state had taken a task's commit back when it was sent out.
    taken_back: BTreeMap<TaskId, u32>,
    /// Keys of the objects in the contexts that executors were sent, by lease, job and stage.
    contexts: BTreeMap<(Epoch, JobId, u32), Vec<String>>,
    /// Tasks with attempts that were sent out, by lease and life of the agent.
    sent: BTreeMap<TaskId, BTreeSet<Epoch>>,
    /// Usage of invocations that was reported, by life of its agent.
    reported: BTreeMap<String, Incarnation>,
    lost_lives: BTreeSet<Incarnation>,
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("it is a tenant's id")
}

fn incarnation(number: u64) -> Incarnation {
    format!("ffff{number:028x}").parse().expect("32 digits")
}

pub(crate) fn component() -> ComponentRecord {
    let function = |name: &str, kind| FunctionRecord {
        name: name.into(),
        kind,
        summary: String::new(),
        deterministic: true,
    };
    ComponentRecord {
        name: "weblog".into(),
        version: "0.1.0".into(),
        digest: Digest::from_sha256(&[1; 32]),
        size_bytes: 1,
        created_ms: 0,
        functions: vec![function("parse", FunctionKind::MapBatches)],
        imports: Vec::new(),
    }
}

pub(crate) fn spec() -> JobSpec {
    let document = json!({
        "name": "parse",
        "limits": { "wall": "1h" },
        "input": { "logs": { "format": "text", "uri": "/data/access-*.log" } },
        "stage": [{ "name": "visits", "from": "logs", "map": "weblog/parse" }],
        "output": { "visits": { "from": "visits", "format": "parquet", "uri": "/out/", "mode": "error" } },
    });
    decode(&document).expect("the document is right")
}

pub(crate) fn new_scheduler() -> Scheduler {
    let settings = SchedulerSettings {
        run_tasks_twice: false,
        eager: vec![TenantId::default_tenant()],
        max_kept_bytes: MAX_KEPT_BYTES,
    };
    let watch = Watch {
        metrics: Arc::new(Metrics::new(&Registry::new())),
        traces: Arc::new(Traces::off()),
    };
    Scheduler::new(settings, watch)
}

/// Nothing that was used counts twice.
pub(crate) fn check_usage(state: &State) {
    for (id, of) in &state.tenants {
        let minutes = of.usage.minutes.values().chain([&of.usage.older]);
        let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
        for one in minutes.flat_map(BTreeMap::values) {
            let FunctionUsage {
                function,
                billed_attempts,
                platform_attempts,
                ..
            } = one;
            *counted.entry(function).or_default() += billed_attempts + platform_attempts;
        }
        counted.remove("-");
        let twice: Vec<_> = counted.iter().filter(|(_, n)| **n > 1).collect();
        assert!(
            twice.is_empty(),
            "usage counts twice, tenant {id}: {twice:?}"
        );
    }
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        Self::with_faults(seed, true)
    }

    pub(super) fn without_faults(seed: u64) -> World {
        Self::with_faults(seed, false)
    }

    fn with_faults(seed: u64, faults: bool) -> World {
        let mut world = World {
            random: Random::new(seed),
            faults,
            state: State::default(),
            log: VecDeque::new(),
            now_ms: 1_000_000,
            leader: 0,
            leads: false,
            term: 0,
            sequence: 0,
            scheduler: new_scheduler(),
            effects: VecDeque::new(),
            answers: VecDeque::new(),
            done: VecDeque::new(),
            nodes: BTreeMap::new(),
            n_lives: 0,
            n_jobs: 0,
            n_usage: 0,
            seen: Seen::default(),
            attempts: BTreeSet::new(),
            finished: BTreeMap::new(),
            taken_back: BTreeMap::new(),
            contexts: BTreeMap::new(),
            sent: BTreeMap::new(),
            reported: BTreeMap::new(),
            lost_lives: BTreeSet::new(),
        };
        for name in TENANTS {
            let tenant = tenant(name);
            let component = component();
            world.api(&tenant, Command::RegisterComponent { component });
            let record = Command::RecordArtefact {
                digest: Digest::from_sha256(&[1; 32]),
                compatibility: "engine".into(),
                artefact: Digest::from_sha256(&[2; 32]),
            };
            world.api(&tenant, record);
        }
        for name in NODES {
            world.start_node(name);
        }
        world.elect();
        world
    }

    // ---- the log

    fn api(&mut self, tenant: &TenantId, command: Command) {
        self.append(tenant.clone(), None, command, None);
    }

    fn append(
        &mut self,
        tenant: TenantId,
        origin: Option<Origin>,
        command: Command,
        ticket: Option<(u64, Ticket)>,
    ) {
        self.sequence += 1;
        let own = Origin {
            incarnation: incarnation(self.leader),
            sequence: self.sequence,
            answered_below: self.sequence.saturating_sub(500),
        };
        let envelope = Envelope {
            version: COMMAND_VERSION,
            at_ms: self.now_ms,
            tenant,
            origin: origin.unwrap_or(own),
            command,
        };
        self.log.push_back(Entry { envelope, ticket });
    }

    fn apply_next(&mut self) {
        let Some(Entry { envelope, ticket }) = self.log.pop_front() else {
            return;
        };
        let bytes = serde_json::to_vec(&envelope).expect("commands are plain data");
        let envelope = Envelope::decode(&bytes).expect("it is of this version");
        let tenant = envelope.tenant.clone();
        let (answer, effects) = self.state.apply(envelope);
        if self.leads {
            for effect in effects {
                if self.faults && self.random.percent(1) {
                    self.effects.push_back(Input::EffectsLost);
                } else {
                    self.effects
                        .push_back(Input::Effect(tenant.clone(), effect));
                }
            }
        }
        if let Some((leader, ticket)) = ticket
            && leader == self.leader
        {
            self.answers.push_back(Input::Answered(ticket, Ok(answer)));
        }
        check_usage(&self.state);
    }

    // ---- leadership

    fn elect(&mut self) {
        self.term += 1;
        self.leader += 1;
        self.leads = true;
        self.seen.leaders += 1;
        if self.random.percent(50) {
            // Another process leads: it knows nothing.
            self.scheduler = new_scheduler();
            let up = self.nodes.values().filter(|node| node.link_up);
            let up: Vec<Input> = up.map(|node| Input::LinkUp(node.id.clone())).collect();
            self.handle(up);
        }
        // Messages of the one before that are still on their way arrive as well.
        self.effects.clear();
        self.answers.clear();
        self.done.clear();
        self.handle(vec![Input::Leadership(Some(self.term))]);
    }

    fn depose(&mut self) {
        self.leads = false;
        // Entries of the leader before may come into the log of the next one, or not.
        let mut kept = VecDeque::new();
        for entry in std::mem::take(&mut self.log) {
            let is_api = entry.ticket.is_none();
            if is_api || self.random.percent(50) {
                kept.push_back(entry);
            } else {
                self.seen.proposals_lost += 1;
            }
        }
        self.log = kept;
        self.handle(vec![Input::Leadership(None)]);
    }

    // ---- nodes

    fn start_node(&mut self, name: &str) {
        self.n_lives += 1;
        let node = Node::new(name, self.n_lives);
        let id = node.id.clone();
        if let Some(before) = self.nodes.insert(id.clone(), node) {
            self.lost_lives.insert(before.incarnation);
        }
        self.handle(vec![Input::LinkUp(id)]);
    }

    fn some_node(&mut self) -> NodeId {
        let position = self.random.below(self.nodes.len());
        let id = self.nodes.keys().nth(position);
        id.expect("it is within").clone()
    }

    fn with_node(&mut self, act: impl FnOnce(&mut Node, &mut Random, &mut News)) {
        let id = self.some_node();
        let mut news = News::default();
        let node = self.nodes.get_mut(&id).expect("it is there");
        act(node, &mut self.random, &mut news);
        for request in news.begun {
            self.on_begun(&request);
        }
        self.seen.lost += news.lost;
        for (task, epoch) in news.finished {
            self.finished.entry(task).or_default().insert(epoch);
        }
    }

    fn on_begun(&mut self, request: &TaskRequest) {
        self.seen.attempts += 1;
        assert!(
            self.attempts.insert(request.attempt_id()),
            "{:?} came twice",
            request.attempt_id()
        );
    }

    // ---- the scheduler

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.now_ms - 1_000_000,
            unix_ms: self.now_ms,
        }
    }

    fn handle(&mut self, inputs: Vec<Input>) {
        let now = self.now();
        let outputs = self.scheduler.handle(&self.state, now, inputs);
        // Or its driver would run in circles.
        let wake_ms = self.scheduler.next_wake_ms();
        assert!(wake_ms.is_none_or(|at_ms| at_ms > now.monotonic_ms));
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Propose(proposal) => self.propose(*proposal),
            Output::Send(node, message) => {
                match &message.command {
                    AgentCommand::Run { epoch, id, .. } => {
                        self.check_run(*epoch, id);
                        self.check_context(*epoch, id);
                    }
                    AgentCommand::Work {
                        epoch,
                        work: Work::Stage(context),
                    } => {
                        let of = (*epoch, context.job.clone(), context.stage);
                        let objects = context.inputs.iter().flat_map(|input| &input.objects);
                        let keys = objects.flatten().map(|object| object.key.clone());
                        self.contexts.insert(of, keys.collect());
                    }
                    AgentCommand::Work {
                        epoch,
                        work: Work::Shards { shards },
                    } => self.check_shards(*epoch, shards),
                    _ => {}
                }
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.send(&message);
                }
            }
            Output::Prepare { tenant, job, .. } => {
                let prepared = Done::Prepared(tenant, job, Ok(()));
                self.done.push_back(Input::Done(prepared));
            }
            Output::Archive(tenant, job) => {
                let result = match self.faults && self.random.percent(5) {
                    true => Err(Problem::new(ErrorCode::StoreUnavailable, "no space")),
                    false => Ok(format!("archive/{}", job.id)),
                };
                let archived = Done::Archived(tenant, job.id, result);
                self.done.push_back(Input::Done(archived));
            }
            Output::ArchiveLater(tenant, job) => {
                let again = Done::ArchiveAgain(tenant, job);
                self.done.push_back(Input::Done(again));
            }
            Output::Confirm(confirm) => {
                let confirmed = Done::Confirmed(confirm, self.leads);
                self.done.push_back(Input::Done(confirmed));
            }
        }
    }

    fn propose(&mut self, proposal: Proposal) {
        let Proposal {
            ticket,
            tenant,
            origin,
            command,
        } = proposal;
        if self.faults && self.random.percent(5) {
            self.seen.busy += 1;
            let busy = Problem::new(ErrorCode::Busy, "the queue is full");
            self.answers.push_back(Input::Answered(ticket, Err(busy)));
            return;
        }
        let may_be_large = !matches!(
            command,
            Command::MeterInvocations { .. }
                | Command::GrantLease { .. }
                | Command::GrantShards { .. }
                | Command::JoinNode { .. }
        );
        if self.faults && may_be_large && self.random.percent(1) {
            self.seen.too_large += 1;
            let large = Problem::new(ErrorCode::TooLarge, "a command of many bytes");
            self.answers.push_back(Input::Answered(ticket, Err(large)));
            return;
        }
        self.append(tenant, origin, command, Some((self.leader, ticket)));
    }

    /// An executor is told of shards that were granted to it, and of no others.
    fn check_shards(&mut self, epoch: Epoch, shards: &[u32]) {
        self.seen.shards += 1;
        let lease = self.state.leases.get(epoch).expect("its lease stands");
        for shard in shards {
            let holder = self.state.shard_holder(&lease.tenant, *shard);
            assert_eq!(holder, Some(epoch), "shard {shard}");
        }
    }

    /// A task is sent out only if none of its attempts has finished, or runs, under a lease in force.
    fn check_run(&mut self, epoch: Epoch, id: &TaskId) {
        self.forgive(id);
        let held = |epoch: &Epoch| self.state.leases.get(*epoch).is_some();
        let finished = self.finished.get(id);
        let redone = finished.is_some_and(|epochs| epochs.iter().any(held));
        let job = TENANTS
            .iter()
            .find_map(|name| self.state.tenant(&tenant(name))?.jobs.get(&id.job));
        let committed = job.is_some_and(|job| {
            let stage = job.stages().get(id.stage as usize);
            stage.is_some_and(|stage| stage.commits.contains_key(&id.task))
        });
        assert!(
            !redone && !committed,
            "{id} is finished, and is sent out again"
        );
        self.sent.entry(id.clone()).or_default().insert(epoch);
    }

    /// A task reads the objects that stand: an executor whose context has others was told anew.
    fn check_context(&self, epoch: Epoch, id: &TaskId) {
        let mut tenants = self.state.tenants.values();
        let job = tenants.find_map(|of| of.jobs.get(&id.job));
        let Some(JobState::Running(running)) = job.map(|job| &job.state) else {
            return;
        };
        let reads = running.plan.stages[id.stage as usize].reads.iter();
        let commits = reads.flat_map(|read| running.stages[read.stage as usize].commits.values());
        let objects = commits.filter_map(|commit| commit.object.as_ref());
        let keys: Vec<String> = objects.map(|object| object.key.clone()).collect();
        let sent = self.contexts.get(&(epoch, id.job.clone(), id.stage));
        assert_eq!(sent, Some(&keys), "{id} is to read what stands");
    }

    /// A task whose commit was taken back, because the store lost what it wrote, is sent out again once.
    fn forgive(&mut self, id: &TaskId) {
        let mut tenants = self.state.tenants.values();
        let job = tenants.find_map(|of| of.jobs.get(&id.job));
        let stage = job.and_then(|job| job.stages().get(id.stage as usize));
        let taken_back = stage.and_then(|stage| stage.taken_back.get(&id.task));
        let taken_back = taken_back.copied().unwrap_or(0);
        let before = self.taken_back.insert(id.clone(), taken_back);
        if taken_back > before.unwrap_or(0) {
            self.seen.rewritten += 1;
            self.finished.remove(id);
        }
    }

    // ---- what may happen

    /// From now on every task fails on a node.
    pub(super) fn break_node(&mut self, name: &str) {
        let id: NodeId = name.parse().expect("it is a node's id");
        self.nodes.get_mut(&id).expect("it is there").broken = true;
    }

    /// Jobs that have ended, and not succeeded.
    pub(super) fn n_failed(&self) -> usize {
        let tenants = self.state.tenants.values();
        let ended = tenants.flat_map(|of| of.ended.values());
        ended
            .filter(|job| job.outcome != Outcome::Succeeded)
            .count()
    }

    pub(super) fn step(&mut self) {
        self.now_ms += self.random.next() % 40;
        match self.random.below(100) {
            0..3 => self.submit(),
            3..22 => self.apply_next(),
            22..34 => self.deliver(Kind::Effects),
            34..46 => self.deliver(Kind::Answers),
            46..50 => self.deliver(Kind::Done),
            50..62 => self.hear(),
            62..74 => self.with_node(|node, _, news| node.listen(news)),
            74..90 => {
                let faults = self.faults;
                self.with_node(|node, random, news| node.work(random, faults, news));
            }
            90..94 => self.handle(vec![Input::Tick]),
            94..96 => {
                self.meter();
                self.want_shard();
            }
            _ if !self.faults => {}
            96 => {
                self.seen.executors_lost += 1;
                self.with_node(|node, random, news| node.kill_some(random, news));
            }
            97 => match self.leads {
                true => self.depose(),
                false => self.elect(),
            },
            98 => self.flap_link(),
            _ => self.rarely(),
        }
    }

    fn rarely(&mut self) {
        match self.random.below(6) {
            0 => {
                self.seen.agents_lost += 1;
                let name = NODES[self.random.below(NODES.len())];
                self.start_node(name);
            }
            1 => self.stop_some_job(),
            2 => self.now_ms += 3_000,
            3 => self.state = through_json(&self.state),
            _ => self.effects.push_back(Input::EffectsLost),
        }
    }

    fn flap_link(&mut self) {
        let id = self.some_node();
        let node = self.nodes.get_mut(&id).expect("it is there");
        node.link_up = !node.link_up;
        // What was on its way is lost.
        node.inbox.clear();
        node.outbox.clear();
        let input = match node.link_up {
            true => Input::LinkUp(id),
            false => {
                self.seen.links_lost += 1;
                Input::LinkDown(id, Duration::ZERO)
            }
        };
        self.handle(vec![input]);
    }

    fn submit(&mut self) {
        if self.n_jobs == MAX_JOBS {
            return;
        }
        self.n_jobs += 1;
        self.seen.jobs += 1;
        let tenant = tenant(TENANTS[self.random.below(TENANTS.len())]);
        let submit = Command::SubmitJob {
            job: JobId::new(self.now_ms, u128::from(self.n_jobs)),
            spec: spec(),
            idempotency: None,
        };
        self.api(&tenant, submit);
    }

    /// Asks the leader, if there is one, for the reasons of every task of every job that runs. Returns the number of
    /// tasks.
    pub(super) fn explain_all(&mut self) -> usize {
        if !self.leads {
            // Nobody is answered.
            return 0;
        }
        let tenants = self.state.tenants.iter();
        let jobs = tenants.flat_map(|(tenant, of)| of.jobs.values().map(move |job| (tenant, job)));
        let running = jobs.filter_map(|(tenant, job)| match &job.state {
            JobState::Running(running) => Some((tenant.clone(), job.id.clone(), running.clone())),
            _ => None,
        });
        let running: Vec<_> = running.collect();
        let mut n_tasks = 0;
        for (tenant, job, running) in running {
            let why = |world: &mut World, stage: &str, task| {
                let (answer, mut answered) = oneshot::channel();
                let stage = Some(stage.to_owned());
                let of = Some(WhyOf {
                    job: job.clone(),
                    stage,
                    task,
                });
                let tenant = tenant.clone();
                world.handle(vec![Input::Asked(Request::Why { tenant, of, answer })]);
                answered.try_recv().expect("an answer")
            };
            for (shape, state) in running.plan.stages.iter().zip(&running.stages) {
                for task in 0..shape.n_tasks {
                    let why = why(self, &shape.name, Some(task)).expect("it is explained");
                    let of_task = format!("task {task} of stage `{}` ", shape.name);
                    let mut of_task = why
                        .reasons
                        .iter()
                        .filter_map(|one| one.strip_prefix(&of_task));
                    let is_done = state.commits.contains_key(&task);
                    let first = of_task.next().expect("a reason");
                    assert_eq!(first == "is done", is_done, "{:?}", why.reasons);
                    n_tasks += 1;
                }
                let n = Some(shape.n_tasks);
                let problem = why(self, &shape.name, n).expect_err("there is no such task");
                assert_eq!(problem.code, ErrorCode::NotFound);
                why(self, &shape.name, None).expect("it is explained");
            }
            let problem = why(self, "none", None).expect_err("there is no such stage");
            assert_eq!(problem.code, ErrorCode::NotFound);
        }
        n_tasks
    }

    fn stop_some_job(&mut self) {
        let jobs: Vec<(TenantId, JobId)> = self
            .state
            .tenants
            .iter()
            .flat_map(|(id, of)| of.jobs.keys().map(move |job| (id.clone(), job.clone())))
            .collect();
        if !jobs.is_empty() {
            let (tenant, job) = jobs[self.random.below(jobs.len())].clone();
            self.api(&tenant, Command::CancelJob { job });
        }
    }

    fn meter(&mut self) {
        self.n_usage += 1;
        self.seen.usage += 1;
        let (number, tenant) = (self.n_usage, tenant(TENANTS[self.random.below(2)]));
        let id = self.some_node();
        let node = self.nodes.get_mut(&id).expect("it is there");
        if let Some(name) = node.meter(&tenant, number) {
            self.reported.insert(name, node.incarnation);
        }
    }

    /// Now and then somebody asks for an actor of a shard.
    fn want_shard(&mut self) {
        if self.random.percent(90) {
            return;
        }
        let tenant = tenant(TENANTS[self.random.below(TENANTS.len())]);
        let shard = self.random.below(SHARDS as usize) as u32;
        self.handle(vec![Input::Asked(Request::Shard { tenant, shard })]);
    }

    fn deliver(&mut self, kind: Kind) {
        let queue = match kind {
            Kind::Effects => &mut self.effects,
            Kind::Answers => &mut self.answers,
            Kind::Done => &mut self.done,
        };
        let n = 1 + self.random.below(3);
        let inputs: Vec<Input> = (0..n).filter_map(|_| queue.pop_front()).collect();
        self.handle(inputs);
    }

    /// The leader hears a node.
    fn hear(&mut self) {
        let id = self.some_node();
        let node = self.nodes.get_mut(&id).expect("it is there");
        if let Some(message) = node.outbox.pop_front() {
            self.handle(vec![Input::Report(Box::new(message))]);
        }
    }

    // ---- the end

    /// Nothing goes wrong any more, but for objects that are lost, as few tasks read any before: every job comes to its
    /// end, and all usage is in the books.
    pub(super) fn settle(&mut self) {
        let nodes = self.nodes.values_mut();
        nodes.for_each(|node| node.loses_objects = self.faults);
        self.faults = false;
        let down: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|node| !node.link_up)
            .map(|node| node.id.clone())
            .collect();
        for id in down {
            self.nodes.get_mut(&id).expect("it is there").link_up = true;
            self.handle(vec![Input::LinkUp(id)]);
        }
        if !self.leads {
            self.elect();
        }
        for _ in 0..200_000 {
            if self.is_settled() {
                return self.check_end();
            }
            self.now_ms += self.random.next() % 40;
            match self.random.below(8) {
                0 => self.apply_next(),
                1 => self.deliver(Kind::Effects),
                2 => self.deliver(Kind::Answers),
                3 => self.deliver(Kind::Done),
                4 => self.hear(),
                5 => self.with_node(|node, _, news| node.listen(news)),
                6 => self.with_node(|node, random, news| node.work(random, false, news)),
                _ => self.handle(vec![Input::Tick]),
            }
        }
        let jobs = self
            .state
            .tenants
            .values()
            .flat_map(|one| one.jobs.values());
        let open: Vec<_> = jobs.map(|job| (&job.id, &job.state)).collect();
        let leases: Vec<_> = self.state.leases.iter().collect();
        let nodes: Vec<String> = self
            .scheduler
            .nodes
            .iter()
            .map(|(id, view)| {
                format!(
                    "{id}: reported {}, joined {}, syncing {:?}, down {:?}, granting {:?}, executors {:?}",
                    view.reported,
                    view.joined,
                    view.syncing,
                    view.down_since_ms,
                    view.granting,
                    view.executors.keys().collect::<Vec<_>>(),
                )
            })
            .collect();
        panic!("it does not settle: {open:#?}, {leases:#?}, {nodes:#?}");
    }

    fn is_settled(&self) -> bool {
        let no_jobs = self.state.tenants.values().all(|one| one.jobs.is_empty());
        let queues = [&self.effects, &self.answers, &self.done];
        no_jobs
            && self.log.is_empty()
            && queues.iter().all(|queue| queue.is_empty())
            && self.nodes.values().all(Node::is_quiet)
            && self.state.leases.iter().count() >= NODES.len()
            && self.are_shards_served()
    }

    fn check_end(&mut self) {
        let ended: usize = self.state.tenants.values().map(|one| one.ended.len()).sum();
        assert_eq!(ended as u64, self.n_jobs, "every job has ended");
        // One lease for each node and tenant, of agents that live.
        let mut held = BTreeSet::new();
        for (_, lease) in self.state.leases.iter() {
            let key = (lease.node.clone(), lease.tenant.clone());
            assert!(held.insert(key), "{lease:?} is there twice");
            assert_eq!(lease.incarnation, self.nodes[&lease.node].incarnation);
        }
        let usage: BTreeSet<String> = self
            .state
            .tenants
            .values()
            .flat_map(|one| one.usage.minutes.values().chain([&one.usage.older]))
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect();
        for (name, life) in &self.reported {
            let lost = self.lost_lives.contains(life);
            assert!(lost || usage.contains(name), "usage `{name}` is lost");
        }
        self.seen.tasks += self.finished.len() as u64;
    }

    /// Returns whether each shard that was ever granted is served, by an executor that knows of it.
    fn are_shards_served(&self) -> bool {
        let is_served = |tenant: &TenantId, shard: u32| {
            let holder = self.state.shard_holder(tenant, shard)?;
            let lease = self.state.leases.get(holder)?;
            Some(self.nodes[&lease.node].serves(holder, shard))
        };
        let mut tenants = self.state.tenants.iter();
        tenants.all(|(tenant, of)| {
            let mut shards = of.shards.keys();
            shards.all(|shard| is_served(tenant, *shard) == Some(true))
        })
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Effects,
    Answers,
    Done,
}

fn through_json(state: &State) -> State {
    let bytes = serde_json::to_vec(state).expect("it is plain data");
    serde_json::from_slice(&bytes).expect("what was written is read")
}
