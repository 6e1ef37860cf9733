//! The world: three controllers, two nodes, some clients, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;
use weft_control::State;
use weft_core::{ErrorCode, NodeId, Problem, TenantId, lock};
use weft_protocol::{AgentCommand, AgentReport, FromAgent, ToAgent, Work};

use crate::clock::Clock;
use crate::group::{Question, Reply};
use crate::scheduler::io::{Done, Input, Now, Output};
use crate::scheduler::tests::node::{News, Node};
use crate::scheduler::tests::random::Random;
use crate::simulation::books::{SharedBooks, check_usage};
use crate::simulation::bugs::Bug;
use crate::simulation::clients::{Client, ClientState, Try, Wish};
use crate::simulation::controllers::{Controller, Surroundings, TICK_MS};
use crate::simulation::network::{Network, Packet};
use crate::simulation::nodes::{Link, arrived};
use crate::simulation::tasks::Tasks;
use crate::simulation::time::Time;
use crate::sweep::Kept;

const N_CONTROLLERS: u64 = 3;
const NODES: [&str; 2] = ["a", "b"];
const TENANTS: [&str; 2] = ["default", "other"];
/// Steps with faults; each takes some 13 ms of the world's time.
const N_STEPS: usize = 2_000;
/// Steps within which a world without faults comes to rest.
const N_STEPS_TO_REST: usize = 20_000;
const MAX_JOBS: u64 = 5;
const MAX_CALLS: u64 = 12;
/// Time for which a client waits for one controller.
const CLIENT_PATIENCE_MS: u64 = 15_000;
/// Time between two looks of a scheduler at its deadlines.
const LOOK_MS: u64 = 100;

/// How often things happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    leaders: u64,
    crashes: u64,
    pauses: u64,
    partitions: u64,
    links_lost: u64,
    packets_lost: u64,
    agents_lost: u64,
    executors_lost: u64,
    restored: u64,
    jobs: u64,
    attempts: u64,
    calls: u64,
    reads: u64,
    tries: u64,
    /// Of all that was applied.
    trace: u64,
}

impl Seen {
    fn numbers(&mut self) -> [&mut u64; 14] {
        [
            &mut self.leaders,
            &mut self.crashes,
            &mut self.pauses,
            &mut self.partitions,
            &mut self.links_lost,
            &mut self.packets_lost,
            &mut self.agents_lost,
            &mut self.executors_lost,
            &mut self.restored,
            &mut self.jobs,
            &mut self.attempts,
            &mut self.calls,
            &mut self.reads,
            &mut self.tries,
        ]
    }

    pub(super) fn add(&mut self, other: &Seen) {
        self.trace ^= other.trace;
        let mut other = other.clone();
        for (sum, of) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *of;
        }
    }

    pub(super) fn check(mut self) {
        let shown = format!("{self:?}");
        assert!(self.numbers().iter().all(|n| **n > 10), "{shown}");
    }
}

pub(super) struct World {
    random: Random,
    bug: Option<Bug>,
    faults: bool,
    /// How soon partitions end, in percent of the shortest.
    healing: u64,
    time: Time,
    tasks: Tasks,
    network: Network,
    books: SharedBooks,
    controllers: Vec<Controller>,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(u64, NodeId), Link>,
    /// The highest term of a command that a node got, and whose it was.
    leaders: BTreeMap<NodeId, (u64, u64)>,
    clients: Vec<Client>,
    /// Folders of jobs in the store.
    folders: Arc<Mutex<BTreeSet<String>>>,
    n_lives: u64,
    n_versions: u64,
    n_usage: u64,
    pub(super) seen: Seen,
    _folder: TempDir,
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("it is a tenant's id")
}

/// A folder in memory, where there is one.
fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder is made")
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<Bug>) -> World {
        let mut random = Random::new(seed);
        let (time, folder) = (Time::default(), folder());
        let controller = |id| {
            // Wall clocks differ by less than what connections refuse.
            let ahead_ms = 300 * id;
            Controller::new(id, folder.path(), time.ahead(ahead_ms))
        };
        let controllers = (1..=N_CONTROLLERS).map(controller).collect();
        let mut world = World {
            network: Network::new(random.next()),
            healing: [5, 30, 100][random.below(3)],
            random,
            bug,
            faults: true,
            tasks: Tasks::default(),
            books: SharedBooks::default(),
            controllers,
            time,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            leaders: BTreeMap::new(),
            clients: Vec::new(),
            folders: Arc::default(),
            n_lives: 0,
            n_versions: 0,
            n_usage: 0,
            seen: Seen::default(),
            _folder: folder,
        };
        for name in NODES {
            world.start_node(name);
            for id in 1..=N_CONTROLLERS {
                world
                    .links
                    .insert((id, name.parse().expect("a node's id")), Link::default());
            }
        }
        world.wish(Wish::Register("0.1.0".into()));
        world
    }

    /// Lets things go wrong for a while, then lets everything come to rest.
    pub(super) fn run(&mut self) {
        for _ in 0..N_STEPS {
            self.step();
            self.disturb();
        }
        self.settle();
        let books = self.books.lock();
        self.seen.leaders = books.n_leaders();
        self.seen.restored = books.n_restored;
        self.seen.attempts = books.attempts.len() as u64;
        self.seen.trace = books.trace;
    }

    fn step(&mut self) {
        self.time.advance(1 + self.random.next() % 25);
        let now_ms = self.time.now_ms();
        for (to, packet) in self.network.arrived(now_ms) {
            let process = self.controllers[to as usize - 1].process.as_mut();
            if let Some(process) = process {
                process.packets.push_back(packet);
            }
        }
        for position in 0..self.controllers.len() {
            let controller = &self.controllers[position];
            if controller.process.is_none() && now_ms >= controller.starts_at_ms {
                self.start_controller(position);
            }
            if self.controllers[position].runs() {
                self.drive(position);
            }
        }
        let controllers = &self.controllers;
        let runs = |owner: u64| controllers[owner as usize - 1].runs();
        self.tasks.poll(&mut self.random, runs);
        self.drive_clients();
        self.drive_links();
        for _ in 0..3 {
            match self.random.below(2) {
                0 => self.with_node(|node, _, _, news| node.listen(news)),
                _ => self.with_node(|node, random, faults, news| node.work(random, faults, news)),
            }
        }
    }

    // ---- controllers

    fn start_controller(&mut self, position: usize) {
        let around = Surroundings {
            network: &self.network,
            books: &self.books,
            bug: self.bug,
            n_members: N_CONTROLLERS,
        };
        self.controllers[position].start(&around, &mut self.random);
    }

    fn crash(&mut self, position: usize) {
        let controller = &mut self.controllers[position];
        if controller.process.is_none() {
            return;
        }
        self.seen.crashes += 1;
        let id = controller.id;
        self.tasks.drop_of(id);
        self.network.died(id);
        self.controllers[position].crash(&mut self.random);
        for ((of, _), link) in &mut self.links {
            if *of == id {
                link.up = false;
                link.clear();
            }
        }
    }

    fn drive(&mut self, position: usize) {
        let now_ms = self.time.now_ms();
        let controller = &mut self.controllers[position];
        let id = controller.id;
        let process = controller.process.as_mut().expect("it runs");
        for packet in process.packets.drain(..) {
            match packet {
                Packet::Raft(bytes) => {
                    let message = weft_consensus::decode_message(&bytes);
                    process
                        .replica
                        .handle()
                        .deliver(message.expect("it was encoded"));
                }
                Packet::Question { number, question } => {
                    let (replica, network) = (process.replica.clone(), self.network.clone());
                    self.tasks.spawn(id, async move {
                        let question = serde_json::from_slice(&question).expect("it was encoded");
                        let Question::Propose(envelope) = question else {
                            panic!("nothing else is asked here");
                        };
                        let reply: Result<Reply, Problem> =
                            replica.propose_for_other(*envelope).await;
                        let encode = |reply| serde_json::to_vec(&reply).expect("it is plain data");
                        network.answer(number, reply.map(|reply| encode(reply).into()));
                    });
                }
            }
        }
        if now_ms >= process.next_tick_ms {
            process.next_tick_ms = now_ms + TICK_MS;
            process.member.tick();
        }
        if let Err(error) = process.member.turn() {
            panic!("member {id} failed: {error}");
        }
        let mut inputs = process.inputs(&mut self.random);
        let wakes = process
            .scheduler
            .next_wake_ms()
            .is_some_and(|at_ms| at_ms <= now_ms);
        if now_ms >= process.next_look_ms || wakes {
            process.next_look_ms = now_ms + LOOK_MS;
            inputs.push(Input::Tick);
        }
        if !inputs.is_empty() {
            self.schedule(position, inputs);
        }
    }

    fn schedule(&mut self, position: usize, inputs: Vec<Input>) {
        let process = self.controllers[position]
            .process
            .as_mut()
            .expect("it runs");
        let now = Now {
            monotonic_ms: self.time.now_ms(),
            unix_ms: process.replica.now_ms(),
        };
        let outputs = {
            let state = process.replica.state();
            process.scheduler.handle(&state, now, inputs)
        };
        for output in outputs {
            self.perform(position, output);
        }
    }

    fn perform(&mut self, position: usize, output: Output) {
        let id = self.controllers[position].id;
        let process = self.controllers[position]
            .process
            .as_ref()
            .expect("it runs");
        let inbox = Arc::clone(&process.inbox);
        match output {
            Output::Propose(proposal) => {
                let ticket = proposal.ticket;
                let of_agent = self.bug != Some(Bug::NewNumberOnRetry);
                let origin = proposal.origin.filter(|_| of_agent);
                let answer = process
                    .replica
                    .begin(&proposal.tenant, origin, proposal.command);
                self.tasks.spawn(id, async move {
                    let answered = Input::Answered(ticket, answer.await);
                    lock(&inbox).push_back(answered);
                });
            }
            Output::Send(node, message) => self.send(id, node, message),
            Output::Prepare { tenant, job, .. } => {
                lock(&inbox).push_back(Input::Done(Done::Prepared(tenant, job, Ok(()))));
            }
            Output::Archive(tenant, job) => {
                let result = match self.faults && self.random.percent(5) {
                    true => Err(Problem::new(ErrorCode::StoreUnavailable, "no space")),
                    false => {
                        lock(&self.folders).remove(&job.id.to_string());
                        Ok(format!("archive/{}", job.id))
                    }
                };
                lock(&inbox).push_back(Input::Done(Done::Archived(tenant, job.id, result)));
            }
            Output::ArchiveLater(tenant, job) => {
                lock(&inbox).push_back(Input::Done(Done::ArchiveAgain(tenant, job)));
            }
        }
    }

    /// Every controller that leads sweeps, once it knows that it does.
    fn sweep(&mut self, position: usize) {
        let controller = &self.controllers[position];
        let Some(process) = &controller.process else {
            return;
        };
        let careless = self.bug == Some(Bug::SweepByFollower);
        if !careless && !process.replica.status().is_leader {
            return;
        }
        let (replica, folders) = (process.replica.clone(), Arc::clone(&self.folders));
        let books = self.books.clone();
        self.tasks.spawn(controller.id, async move {
            // What is made meanwhile is in the state.
            let found = lock(&folders).clone();
            if !careless && replica.catch_up().await.is_err() {
                return;
            }
            let kept = Kept::of(&replica.state(), replica.now_ms());
            for job in found.iter().filter(|job| !kept.keeps_job(job)) {
                lock(&folders).remove(job);
                books.lock().swept.push(job.clone());
            }
        });
    }

    // ---- nodes

    fn send(&mut self, member: u64, node: NodeId, message: ToAgent) {
        if let AgentCommand::Work {
            work: Work::Plan(request),
            ..
        } = &message.command
        {
            lock(&self.folders).insert(request.job.to_string());
        }
        let due_ms = self.time.now_ms() + 1 + self.random.next() % 10;
        if let Some(link) = self.links.get_mut(&(member, node))
            && link.up
        {
            link.to_node.push_back((due_ms, message));
        }
    }

    fn start_node(&mut self, name: &str) {
        self.n_lives += 1;
        let node = Node::new(name, self.n_lives);
        let id = node.id.clone();
        self.leaders.remove(&id);
        if let Some(before) = self.nodes.insert(id.clone(), node) {
            self.seen.agents_lost += 1;
            self.books.lock().lost_lives.insert(before.incarnation);
            for member in 1..=N_CONTROLLERS {
                self.break_link(member, &id);
            }
        }
    }

    /// A link breaks, and is dialled again by and by.
    fn break_link(&mut self, member: u64, node: &NodeId) {
        let link = self
            .links
            .get_mut(&(member, node.clone()))
            .expect("all are there");
        link.clear();
        if std::mem::take(&mut link.up) {
            let process = self.controllers[member as usize - 1].process.as_mut();
            if let Some(process) = process {
                let down = Input::LinkDown(node.clone(), Duration::ZERO);
                process.link_news.push_back(down);
            }
        }
    }

    fn drive_links(&mut self) {
        let now_ms = self.time.now_ms();
        let keys: Vec<(u64, NodeId)> = self.links.keys().cloned().collect();
        for (member, node) in keys {
            let position = member as usize - 1;
            let runs = self.controllers[position].runs();
            let link = self
                .links
                .get_mut(&(member, node.clone()))
                .expect("it is there");
            if !link.up {
                // A dialler tries again after a pause.
                if runs && (!self.faults || self.random.percent(10)) {
                    link.up = true;
                    let process = self.controllers[position].process.as_mut();
                    let process = process.expect("it runs");
                    process.link_news.push_back(Input::LinkUp(node));
                }
                continue;
            }
            if let Some(message) = arrived(&mut link.to_node, now_ms) {
                let leader = self.leaders.entry(node.clone()).or_insert((0, 0));
                if message.term >= leader.0 {
                    *leader = (message.term, member);
                }
                self.nodes
                    .get_mut(&node)
                    .expect("it is there")
                    .send(&message);
            }
            let process = self.controllers[position].process.as_ref();
            let hears = runs && process.is_some_and(|process| process.link_news.is_empty());
            let link = self.links.get_mut(&(member, node)).expect("it is there");
            if hears && let Some(report) = arrived(&mut link.to_controller, now_ms) {
                self.schedule(position, vec![Input::Report(Box::new(report))]);
            }
        }
    }

    fn some_node(&mut self) -> NodeId {
        let position = self.random.below(self.nodes.len());
        let id = self.nodes.keys().nth(position);
        id.expect("it is within").clone()
    }

    fn with_node(&mut self, act: impl FnOnce(&mut Node, &mut Random, bool, &mut News)) {
        let id = self.some_node();
        let mut news = News::default();
        let node = self.nodes.get_mut(&id).expect("it is there");
        act(node, &mut self.random, self.faults, &mut news);
        self.after_node(&id, news);
    }

    /// Reports go to the leader that the node knows.
    fn after_node(&mut self, id: &NodeId, news: News) {
        {
            let mut books = self.books.lock();
            for request in news.begun {
                let new = books.attempts.insert(request.attempt_id());
                assert!(new, "{:?} came twice", request.attempt_id());
            }
            for (task, epoch) in news.finished {
                books.finished.entry(task).or_default().insert(epoch);
            }
        }
        let node = self.nodes.get_mut(id).expect("it is there");
        let reports: Vec<FromAgent> = node.outbox.drain(..).collect();
        let Some((term, member)) = self.leaders.get(id).copied() else {
            return;
        };
        if self.bug == Some(Bug::AcknowledgeBeforeRecorded) {
            for report in &reports {
                if let AgentReport::Result(result) = &report.report {
                    let numbers = vec![result.number];
                    let acknowledge = AgentCommand::Acknowledge { numbers };
                    node.send(&ToAgent::new(term, Some(report.incarnation), acknowledge));
                }
            }
        }
        let due_ms = self.time.now_ms() + 1 + self.random.next() % 10;
        let link = self
            .links
            .get_mut(&(member, id.clone()))
            .expect("all are there");
        if link.up {
            let reports = reports.into_iter().map(|report| (due_ms, report));
            link.to_controller.extend(reports);
        }
    }

    fn meter(&mut self) {
        self.n_usage += 1;
        let number = self.n_usage;
        let of = tenant(TENANTS[self.random.below(TENANTS.len())]);
        let id = self.some_node();
        let node = self.nodes.get_mut(&id).expect("it is there");
        if let Some(name) = node.meter(&of, number) {
            let life = node.incarnation;
            self.books.lock().reported.insert(name, life);
        }
        self.after_node(&id, News::default());
    }

    // ---- clients

    fn wish(&mut self, wish: Wish) {
        let state = ClientState::AsksAt(self.time.now_ms());
        self.clients.push(Client { wish, state });
    }

    fn drive_clients(&mut self) {
        let now_ms = self.time.now_ms();
        for number in 0..self.clients.len() {
            match &mut self.clients[number].state {
                ClientState::Done => {}
                ClientState::AsksAt(at_ms) if now_ms >= *at_ms => self.ask(number),
                ClientState::AsksAt(_) => {}
                ClientState::Waits(until_ms, answered) => {
                    let again = match answered.try_recv() {
                        Ok(Ok(())) => {
                            self.clients[number].state = ClientState::Done;
                            continue;
                        }
                        Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => true,
                        Err(oneshot::error::TryRecvError::Empty) => now_ms >= *until_ms,
                    };
                    if again {
                        let at_ms = now_ms + 50 + self.random.next() % 500;
                        self.clients[number].state = ClientState::AsksAt(at_ms);
                    }
                }
            }
        }
    }

    fn ask(&mut self, number: usize) {
        let position = self.random.below(self.controllers.len());
        let controller = &self.controllers[position];
        let Some(process) = &controller.process else {
            return;
        };
        self.seen.tries += 1;
        let ask = Try {
            replica: process.replica.clone(),
            member: controller.id,
            clock: Clock::Simulated(controller.time.clone()),
            books: self.books.clone(),
            bug: self.bug,
            number: self.seen.tries,
            keyed: Arc::clone(&process.keyed),
        };
        let wish = self.clients[number].wish.clone();
        let (answer, answered) = oneshot::channel();
        self.tasks.spawn(controller.id, async move {
            let _ = answer.send(ask.ask(wish).await);
        });
        let until_ms = self.time.now_ms() + CLIENT_PATIENCE_MS;
        self.clients[number].state = ClientState::Waits(until_ms, answered);
    }

    // ---- what goes wrong, and what is wanted

    fn disturb(&mut self) {
        let position = self.random.below(self.controllers.len());
        match self.random.below(1_000) {
            0..4 => self.crash(position),
            4..8 => self.pause(position),
            8..12 => self.partition(),
            12..30 if !self.network.is_healed() && self.random.percent(self.healing) => {
                self.network.heal();
            }
            30..34 => {
                let node = self.some_node();
                self.seen.links_lost += 1;
                self.break_link(position as u64 + 1, &node);
            }
            34..38 => {
                self.seen.executors_lost += 1;
                self.with_node(|node, random, _, news| node.kill_some(random, news));
            }
            38..40 => {
                let name = NODES[self.random.below(NODES.len())];
                self.start_node(name);
            }
            40..46 => self.submit(),
            46..48 => self.cancel(),
            48..60 => self.call(),
            60..64 => {
                self.n_versions += 1;
                self.wish(Wish::Register(format!("0.2.{}", self.n_versions)));
            }
            64..84 => {
                self.seen.reads += 1;
                self.wish(Wish::Read);
            }
            84..100 => self.meter(),
            100..110 => self.sweep(position),
            110..115 => self.check(),
            _ => {}
        }
    }

    fn pause(&mut self, position: usize) {
        self.seen.pauses += 1;
        let length_ms = 100 + self.random.next() % 4_000;
        self.controllers[position].paused_until_ms = self.time.now_ms() + length_ms;
        if length_ms > 1_200 {
            // Both ends have not heard of each other for too long.
            let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
            for node in nodes {
                self.break_link(position as u64 + 1, &node);
            }
        }
    }

    fn partition(&mut self) {
        self.seen.partitions += 1;
        let alone = 1 + self.random.below(self.controllers.len()) as u64;
        let one_way = self.random.percent(30);
        let others = (1..=N_CONTROLLERS).filter(|other| *other != alone);
        let pairs = others.flat_map(|other| {
            let back = (other, alone);
            [(alone, other), if one_way { (alone, other) } else { back }]
        });
        self.network.cut(pairs);
    }

    fn submit(&mut self) {
        if self.seen.jobs == MAX_JOBS {
            return;
        }
        self.seen.jobs += 1;
        let tenant = tenant(TENANTS[self.random.below(TENANTS.len())]);
        let key = format!("job {}", self.seen.jobs);
        let wish = Wish::Submit { tenant, key };
        // Sometimes two clients have the same key.
        if self.random.percent(20) {
            self.wish(wish.clone());
        }
        self.wish(wish);
    }

    fn cancel(&mut self) {
        let jobs = self.books.lock().acknowledged.jobs.clone();
        if !jobs.is_empty() {
            let position = self.random.below(jobs.len());
            let job = jobs.into_values().nth(position).expect("it is within");
            let tenant = tenant(TENANTS[self.random.below(TENANTS.len())]);
            self.wish(Wish::Cancel { tenant, job });
        }
    }

    fn call(&mut self) {
        if self.seen.calls == MAX_CALLS {
            return;
        }
        self.seen.calls += 1;
        let wish = Wish::Call(format!("call {}", self.seen.calls));
        if self.random.percent(30) {
            self.wish(wish.clone());
        }
        self.wish(wish);
    }

    // ---- checks

    /// The state of the member that has applied the most.
    fn with_newest_state(&self, act: impl FnOnce(&State, u64)) {
        let processes = self
            .controllers
            .iter()
            .filter_map(|one| one.process.as_ref());
        let newest = processes.max_by_key(|process| process.replica.status().applied_index);
        if let Some(process) = newest {
            act(
                &process.replica.state(),
                process.replica.status().applied_index,
            );
        }
    }

    fn check(&self) {
        let books = self.books.lock();
        let (swept, newest) = (books.swept.clone(), books.last_applied());
        drop(books);
        self.with_newest_state(|state, applied| {
            check_usage(state);
            if applied < newest {
                // Whoever has seen more is dead: a job that is here may have ended.
                return;
            }
            let jobs = || state.tenants.values().flat_map(|of| of.jobs.keys());
            let lost = jobs().find(|job| swept.contains(&job.to_string()));
            assert!(lost.is_none(), "the folder of job {lost:?} was swept away");
        });
    }

    /// Nothing goes wrong any more: everything that is wanted comes to its end.
    fn settle(&mut self) {
        self.check();
        self.faults = false;
        self.seen.packets_lost = self.network.end_faults();
        self.network.heal();
        for controller in &mut self.controllers {
            controller.starts_at_ms = 0;
            controller.paused_until_ms = 0;
        }
        for _ in 0..N_STEPS_TO_REST {
            if self.is_settled() {
                return self.check_end();
            }
            self.step();
        }
        panic!("it does not come to rest: {}", self.describe());
    }

    fn is_settled(&self) -> bool {
        let clients = self.clients.iter();
        let mut open = clients.filter(|client| !matches!(client.state, ClientState::Done));
        if open.next().is_some() {
            return false;
        }
        let applied = self.controllers.iter().map(|controller| {
            let process = controller.process.as_ref()?;
            let idle = lock(&process.inbox).is_empty() && process.link_news.is_empty();
            let status = process.replica.status();
            let is_still = status.applied_index == status.commit_index;
            (idle && is_still).then_some(status.applied_index)
        });
        let applied: BTreeSet<Option<u64>> = applied.collect();
        let mut settled = applied.len() == 1 && !applied.contains(&None);
        settled &= self.nodes.values().all(Node::is_quiet);
        settled &= self.links.values().all(Link::is_quiet);
        self.with_newest_state(|state, _| {
            settled &= state.tenants.values().all(|one| one.jobs.is_empty());
            settled &= state.leases.iter().count() >= NODES.len();
            let lives = |of: &NodeId| self.nodes[of].incarnation;
            let mut leases = state.leases.iter();
            settled &= leases.all(|(_, lease)| lease.incarnation == lives(&lease.node));
        });
        settled
    }

    fn describe(&self) -> String {
        let clients = self.clients.iter();
        let open = clients.filter(|client| !matches!(client.state, ClientState::Done));
        let open: Vec<String> = open.map(|client| format!("{:?}", client.wish)).collect();
        let controllers = self.controllers.iter().map(|controller| {
            let status = controller
                .process
                .as_ref()
                .map(|process| process.replica.status());
            format!("{}: {status:?}", controller.id)
        });
        let controllers: Vec<String> = controllers.collect();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|(id, node)| format!("{id} quiet {}", node.is_quiet()))
            .collect();
        let mut jobs = Vec::new();
        self.with_newest_state(|state, _| {
            for of in state.tenants.values() {
                jobs.extend(
                    of.jobs
                        .values()
                        .map(|job| format!("{}: {:?}", job.id, job.state)),
                );
            }
        });
        format!("clients {open:?}, {controllers:?}, {nodes:?}, jobs {jobs:.300?}")
    }

    fn check_end(&mut self) {
        self.check();
        let mut snapshots = BTreeSet::new();
        for controller in &self.controllers {
            let process = controller.process.as_ref().expect("all run");
            let state = process.replica.state();
            self.books.lock().acknowledged.check(&state);
            snapshots.insert(serde_json::to_vec(&*state).expect("it is plain data"));
        }
        assert_eq!(snapshots.len(), 1, "states of members differ");
        self.with_newest_state(|state, _| self.check_books(state));
    }

    fn check_books(&self, state: &State) {
        let books = self.books.lock();
        let ended: usize = state.tenants.values().map(|one| one.ended.len()).sum();
        assert_eq!(ended as u64, self.seen.jobs, "jobs that have ended");
        // One lease for each node and tenant.
        let mut held = BTreeSet::new();
        for (_, lease) in state.leases.iter() {
            let key = (lease.node.clone(), lease.tenant.clone());
            assert!(held.insert(key), "{lease:?} is there twice");
        }
        let minutes = state.tenants.values().flat_map(|one| {
            let usage = &one.usage;
            usage.minutes.values().chain([&usage.older])
        });
        let counted: BTreeSet<&String> = minutes.flat_map(BTreeMap::keys).collect();
        for (name, life) in &books.reported {
            let lost = books.lost_lives.contains(life);
            assert!(lost || counted.contains(name), "usage `{name}` is lost");
        }
    }
}
