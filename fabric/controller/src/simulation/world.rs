//! The world: three controllers, two nodes, some clients, and what goes wrong.

mod checks;
mod clients;
mod faults;
mod nodes;
mod shards;

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
use crate::kept_outputs::KeptOutputs;
use crate::membership;
use crate::replica::Replica;
use crate::scheduler::io::{Done, Input, Now, Output};
use crate::scheduler::tests::node::{News, Node};
use crate::scheduler::tests::random::Random;
use crate::scheduler::tests::world::check_usage;
use crate::simulation::books::SharedBooks;
use crate::simulation::bugs::Bug;
use crate::simulation::clients::{Client, ClientState, Try, Wish};
use crate::simulation::controllers::{Controller, Surroundings, TICK_MS};
use crate::simulation::network::{Network, Packet};
use crate::simulation::nodes::{Link, arrived};
use crate::simulation::tasks::Tasks;
use crate::simulation::time::Time;
use crate::sweep::Kept;

use shards::{Shards, ShardsSeen};

const N_CONTROLLERS: u64 = 3;
const NODES: [&str; 2] = ["a", "b"];
const TENANTS: [&str; 2] = ["default", "other"];
/// Steps with faults; each takes some 13 ms of the world's time.
const N_STEPS: usize = 2_000;
/// Steps within which a world without faults comes to rest.
const N_STEPS_TO_REST: usize = 6_000;
/// Controllers that there ever are.
const MAX_ID: u64 = 6;
/// Longer than the state leaves a call to a controller that does not end it.
const TAKEN_OVER_MS: u64 = 700_000;
const MAX_JOBS: u64 = 5;
const MAX_CALLS: u64 = 12;
/// Time for which a client waits for one controller.
const CLIENT_PATIENCE_MS: u64 = 15_000;
/// Time between two looks of a scheduler at its deadlines.
const LOOK_MS: u64 = 100;

/// Scene of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// Jobs, calls and usage.
    Jobs,
    /// The same, and shards of actors that executors serve under their leases: nodes are paused and cut off, disks of
    /// leaders stall.
    Shards,
}

impl Scene {
    pub(super) const ALL: [Scene; 2] = [Scene::Jobs, Scene::Shards];
}

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
    replaced: u64,
    jobs: u64,
    attempts: u64,
    calls: u64,
    reads: u64,
    tries: u64,
    objects_lost: u64,
    shards: ShardsSeen,
    /// Hash of all that was applied.
    trace: u64,
}

impl Seen {
    fn numbers(&mut self) -> [&mut u64; 16] {
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
            &mut self.replaced,
            &mut self.jobs,
            &mut self.attempts,
            &mut self.calls,
            &mut self.reads,
            &mut self.tries,
            &mut self.objects_lost,
        ]
    }

    pub(super) fn add(&mut self, other: &Seen) {
        self.trace ^= other.trace;
        self.shards.add(&other.shards);
        let mut other = other.clone();
        for (sum, of) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *of;
        }
    }

    pub(super) fn check(mut self, scene: Scene) {
        let shown = format!("{self:?}");
        assert!(self.numbers().iter().all(|n| **n > 10), "{shown}");
        if scene == Scene::Shards {
            self.shards.check();
        }
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
    folder: TempDir,
    /// Number of the next controller.
    next_id: u64,
    shards: Shards,
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
    pub(super) fn new(scene: Scene, seed: u64, bug: Option<Bug>) -> World {
        let mut random = Random::new(seed);
        let (time, folder) = (Time::default(), folder());
        let controller = |id| {
            // Wall clocks differ by less than what connections refuse.
            let ahead_ms = 300 * id;
            Controller::new(
                id,
                folder.path(),
                time.ahead(ahead_ms),
                (1..=N_CONTROLLERS).collect(),
            )
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
            folder,
            next_id: N_CONTROLLERS + 1,
            shards: Shards::new(scene, seed),
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
        for node in self.nodes.values_mut() {
            node.now_ns = now_ms * 1_000_000;
        }
        for (to, packet) in self.network.arrived(now_ms) {
            let controller = self.controllers.iter_mut().find(|one| one.id == to);
            if let Some(process) = controller.and_then(|one| one.process.as_mut()) {
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
        let runs = |owner: u64| controllers.iter().any(|one| one.id == owner && one.runs());
        self.tasks.poll(&mut self.random, runs);
        self.drive_clients();
        self.drive_links();
        for _ in 0..3 {
            match self.random.below(2) {
                0 => self.with_node(|node, _, _, news| node.listen(news)),
                _ => self.with_node(|node, random, faults, news| node.work(random, faults, news)),
            }
        }
        self.drive_shards();
    }

    // ---- controllers

    fn start_controller(&mut self, position: usize) {
        let around = Surroundings {
            network: &self.network,
            books: &self.books,
            bug: self.bug,
        };
        self.controllers[position].start(&around, &mut self.random);
        let process = self.controllers[position].process.as_ref();
        let replica = process.expect("it was started").replica.clone();
        let id = self.controllers[position].id;
        self.tasks.spawn(id, async move {
            let never = membership::keep_promoting(replica).await;
            drop(never);
        });
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

    fn drive_member(&mut self, position: usize) {
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
                        let reply: Result<Reply, Problem> = match question {
                            Question::Propose(envelope) => {
                                replica.propose_for_other(*envelope).await
                            }
                            Question::Members(wanted) => {
                                let changed = membership::change_here(&replica, wanted).await;
                                changed.map(|()| Reply::Done)
                            }
                            _ => panic!("nothing else is asked here"),
                        };
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
    }

    fn drive(&mut self, position: usize) {
        let now_ms = self.time.now_ms();
        if now_ms >= self.controllers[position].stalled_until_ms {
            self.drive_member(position);
        }
        let process = self.controllers[position].process.as_mut();
        let process = process.expect("it runs");
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
            Output::Confirm(confirm) => {
                let replica = process.replica.clone();
                let careless = self.bug == Some(Bug::RenewUnconfirmed);
                self.tasks.spawn(id, async move {
                    let leads = careless || replica.still_leads(confirm.term).await.is_ok();
                    let confirmed = Done::Confirmed(confirm, leads);
                    lock(&inbox).push_back(Input::Done(confirmed));
                });
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
            let kept = Kept::of(&replica.state(), &KeptOutputs::default(), replica.now_ms());
            for job in found.iter().filter(|job| !kept.keeps_job(job)) {
                lock(&folders).remove(job);
                books.lock().swept.push(job.clone());
            }
        });
    }
}
