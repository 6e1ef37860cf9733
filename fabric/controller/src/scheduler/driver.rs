//! Runs the scheduler: brings it what happens, does what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_control::Effect;
use weft_core::{ErrorCode, JobId, NodeId, TenantId};
use weft_protocol::{FromAgent, ToAgent};
use weft_runtime::link::LinkChange;
use weft_runtime::{OnError, Tasks};
use weft_store::Blobs;

use super::io::{Done, Input, Now, Output, Proposal, Request};
use super::renewals::Confirm;
use super::{Scheduler, SchedulerSettings, Watch};
use crate::archive;
use crate::components::Components;
use crate::group;
use crate::replica::{Replica, Signals};
use crate::reserve::Reserve;

/// Time between two looks at deadlines.
const DEADLINE_TICK: Duration = Duration::from_millis(100);
/// Pause after a failed archiving: for space on a disk, say.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(5);
/// Pause before artefacts are asked for again that no node could make.
const PREPARE_PAUSE: Duration = Duration::from_millis(500);
/// Inputs of one kind that are taken before anything is done.
const MAX_BATCH: usize = 256;
/// Work beside the scheduler whose end it has not heard of.
const MAX_DONE: usize = 4_096;

/// The scheduler with all that it works on.
pub(crate) struct Driver {
    scheduler: Scheduler,
    replica: Replica,
    components: Arc<Components>,
    blobs: Blobs,
    refusals: archive::Refusals,
    reserve: Reserve,
    tasks: Tasks,
    links: BTreeMap<NodeId, mpsc::Sender<ToAgent>>,
    /// Nodes whose links take no messages.
    full: BTreeSet<NodeId>,
    done: mpsc::Sender<Input>,
    began: Instant,
}

/// Channels on which inputs come.
pub(crate) struct Inputs {
    pub(crate) leadership: watch::Receiver<Option<u64>>,
    pub(crate) effects: mpsc::Receiver<(TenantId, Effect)>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) reports: mpsc::Receiver<FromAgent>,
    pub(crate) links: mpsc::Receiver<LinkChange>,
    done: mpsc::Receiver<Input>,
}

impl Driver {
    /// A scheduler without nodes.
    pub(crate) fn new(
        settings: SchedulerSettings,
        watch: Watch,
        replica: Replica,
        components: Arc<Components>,
        blobs: Blobs,
        reserve: Reserve,
        tasks: Tasks,
    ) -> (Self, mpsc::Receiver<Input>) {
        let (done, receiver) = mpsc::channel(MAX_DONE);
        let driver = Self {
            scheduler: Scheduler::new(settings, watch),
            replica,
            components,
            blobs,
            refusals: archive::Refusals::default(),
            reserve,
            tasks,
            links: BTreeMap::new(),
            full: BTreeSet::new(),
            done,
            began: Instant::now(),
        };
        (driver, receiver)
    }

    /// Runs until cancelled.
    pub(crate) async fn run(
        mut self,
        cancel: CancellationToken,
        mut inputs: Inputs,
    ) -> anyhow::Result<()> {
        let mut deadlines = tokio::time::interval(DEADLINE_TICK);
        loop {
            let wake = self.wake();
            let taken = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                Ok(()) = inputs.leadership.changed() => {
                    vec![Input::Leadership(*inputs.leadership.borrow_and_update())]
                }
                Some((tenant, effect)) = inputs.effects.recv() => {
                    let input = |(tenant, effect)| Input::Effect(tenant, effect);
                    batch(input((tenant, effect)), &mut inputs.effects, input)
                }
                Some(report) = inputs.reports.recv() => {
                    let input = |report| Input::Report(Box::new(report));
                    batch(input(report), &mut inputs.reports, input)
                }
                Some(change) = inputs.links.recv() => self.change_link(change),
                Some(done) = inputs.done.recv() => batch(done, &mut inputs.done, |done| done),
                Some(request) = inputs.requests.recv() => match self.replica.leader_elsewhere() {
                    Some(leader) => {
                        self.ask_leader(leader, request);
                        Vec::new()
                    }
                    None => vec![Input::Asked(request)],
                },
                _ = deadlines.tick() => {
                    let mut taken = vec![Input::Tick];
                    if self.replica.take_behind() {
                        taken.push(Input::EffectsLost);
                    }
                    taken.extend(self.changed_links());
                    taken
                }
                () = wake => Vec::new(),
            };
            self.take(taken);
        }
    }

    /// Ends when something is due that no input announces.
    fn wake(&self) -> impl Future<Output = ()> + use<> {
        let at = self
            .scheduler
            .next_wake_ms()
            .map(|at_ms| self.began + Duration::from_millis(at_ms));
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    fn take(&mut self, inputs: Vec<Input>) {
        let now = Now {
            monotonic_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix_ms: self.replica.now_ms(),
        };
        let outputs = {
            let state = self.replica.state();
            self.scheduler.handle(&state, now, inputs)
        };
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Propose(proposal) => self.propose(*proposal),
            Output::Send(node, message) => self.send(node, message),
            Output::Prepare {
                tenant,
                job,
                digests,
            } => {
                let (components, done) = (Arc::clone(&self.components), self.done.clone());
                let replica = self.replica.clone();
                self.tasks.spawn("artefacts", OnError::Log, async move {
                    let is_wanted = || {
                        let state = replica.state();
                        let jobs = state.tenant(&tenant).map(|tenant| &tenant.jobs);
                        jobs.is_some_and(|jobs| jobs.contains_key(&job))
                    };
                    let mut result = components.ensure_artefacts(&tenant, &digests).await;
                    // No node may be there to compile now: the job waits for one.
                    while matches!(&result, Err(problem) if problem.code == ErrorCode::Busy)
                        && replica.status().is_leader
                        && is_wanted()
                    {
                        tokio::time::sleep(PREPARE_PAUSE).await;
                        result = components.ensure_artefacts(&tenant, &digests).await;
                    }
                    let _ = done
                        .send(Input::Done(Done::Prepared(tenant, job, result)))
                        .await;
                    Ok(())
                });
            }
            Output::Archive(tenant, job) => {
                let (blobs, done) = (self.blobs.clone(), self.done.clone());
                let (replica, refusals) = (self.replica.clone(), self.refusals.clone());
                let reserve = self.reserve.clone();
                let term = replica.status().term;
                self.tasks.spawn("archive", OnError::Log, async move {
                    let still_leads = replica.still_leads(term);
                    let archive = archive::archive(&blobs, &job, &refusals, &reserve, still_leads);
                    let result = archive.await;
                    if result.is_ok() {
                        weft_failpoint::hit("archived");
                    }
                    let archived = Done::Archived(tenant, job.id, result);
                    let _ = done.send(Input::Done(archived)).await;
                    Ok(())
                });
            }
            Output::ArchiveLater(tenant, job) => self.archive_later(tenant, job),
            Output::Confirm(confirm) => self.confirm(confirm),
        }
    }

    /// Asks a majority whether this member leads still.
    fn confirm(&self, confirm: Confirm) {
        let (replica, done) = (self.replica.clone(), self.done.clone());
        self.tasks.spawn("renewals", OnError::Log, async move {
            let leads = replica.still_leads(confirm.term).await.is_ok();
            let confirmed = Done::Confirmed(confirm, leads);
            let _ = done.send(Input::Done(confirmed)).await;
            Ok(())
        });
    }

    /// Sends a message, or has the node's link counted as down until it takes messages again: one that
    /// does not keep up must not hold up the others.
    fn send(&mut self, node: NodeId, message: ToAgent) {
        let Some(link) = self.links.get(&node) else {
            return;
        };
        if self.full.contains(&node) {
            return;
        }
        if let Err(error) = link.try_send(message) {
            tracing::warn!(%node, %error, "the link to a node is down");
            self.full.insert(node);
        }
    }

    /// A node's link has come up or gone down. A link that takes the place of another one has come up
    /// anew: what was on the way on the other is lost.
    fn change_link(&mut self, change: LinkChange) -> Vec<Input> {
        match change {
            LinkChange::Up(node, commands) => {
                self.full.remove(&node);
                let before = self.links.insert(node.clone(), commands);
                let down = before.map(|_| Input::LinkDown(node.clone(), Duration::ZERO));
                down.into_iter().chain([Input::LinkUp(node)]).collect()
            }
            LinkChange::Down(node, commands, silent) => {
                let current = self.links.get(&node);
                if !current.is_some_and(|current| current.same_channel(&commands)) {
                    return Vec::new();
                }
                self.links.remove(&node);
                self.full.remove(&node);
                vec![Input::LinkDown(node, silent)]
            }
        }
    }

    /// Passes a request on to the member that leads, whose scheduler it is for.
    fn ask_leader(&self, leader: u64, request: Request) {
        let Some(peers) = self.replica.peers().cloned() else {
            return;
        };
        self.tasks
            .spawn("request to the leader", OnError::Log, async move {
                group::ask_request(&*peers, leader, request).await;
                Ok(())
            });
    }

    /// Links that went down with the last messages, and those that are up again.
    fn changed_links(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for node in std::mem::take(&mut self.full) {
            let Some(link) = self.links.get(&node) else {
                continue;
            };
            if link.capacity() >= link.max_capacity() / 2 && !link.is_closed() {
                inputs.extend([
                    Input::LinkDown(node.clone(), Duration::ZERO),
                    Input::LinkUp(node),
                ]);
            } else {
                inputs.push(Input::LinkDown(node.clone(), Duration::ZERO));
                self.full.insert(node);
            }
        }
        inputs
    }

    fn archive_later(&self, tenant: TenantId, job: JobId) {
        let done = self.done.clone();
        self.tasks.spawn("archive again", OnError::Log, async move {
            tokio::time::sleep(ARCHIVE_PAUSE).await;
            let again = Done::ArchiveAgain(tenant, job);
            let _ = done.send(Input::Done(again)).await;
            Ok(())
        });
    }

    /// Proposes a command now: proposals keep their order. Its answer comes as an input.
    fn propose(&self, proposal: Proposal) {
        let Proposal {
            ticket,
            tenant,
            origin,
            command,
        } = proposal;
        let answer = self.replica.begin(&tenant, origin, command);
        let done = self.done.clone();
        self.tasks.spawn("proposal", OnError::Log, async move {
            let answer = answer.await;
            let _ = done.send(Input::Answered(ticket, answer)).await;
            Ok(())
        });
    }
}

impl Inputs {
    /// `done` is the receiver that [`Driver::new`] returned.
    pub(crate) fn new(
        signals: Signals,
        requests: mpsc::Receiver<Request>,
        nodes: (mpsc::Receiver<LinkChange>, mpsc::Receiver<FromAgent>),
        done: mpsc::Receiver<Input>,
    ) -> Self {
        let (links, reports) = nodes;
        let Signals {
            mut leadership,
            effects,
        } = signals;
        // Whoever leads already is news as well.
        leadership.mark_changed();
        Self {
            leadership,
            effects,
            requests,
            reports,
            links,
            done,
        }
    }
}

/// The first input and those that wait behind it, within a bound.
fn batch<T>(first: Input, more: &mut mpsc::Receiver<T>, input: impl Fn(T) -> Input) -> Vec<Input> {
    let mut inputs = vec![first];
    while inputs.len() < MAX_BATCH
        && let Ok(next) = more.try_recv()
    {
        inputs.push(input(next));
    }
    inputs
}
