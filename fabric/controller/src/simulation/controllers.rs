//! A controller: a real replica on a real member and its log, with a real scheduler.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_consensus::Settings;
use weft_consensus::simulation::{FragileDisk, Stepped, Sync};
use weft_core::lock;

use crate::clock::Clock;
use crate::group::RaftTransport;
use crate::replica::{Replica, Signals};
use crate::scheduler::Scheduler;
use crate::scheduler::io::Input;
use crate::scheduler::tests::random::Random;
use crate::scheduler::tests::world::new_scheduler;
use crate::simulation::books::SharedBooks;
use crate::simulation::bugs::{Bug, Planted};
use crate::simulation::clients::Keyed;
use crate::simulation::network::{End, Network, Packet};
use crate::simulation::time::Time;

pub(super) const TICK_MS: u64 = 50;
const SNAPSHOT_EVERY: u64 = 60;
const KEPT_ENTRIES: u64 = 15;

/// Inputs of a scheduler that tasks have for it.
pub(super) type Inbox = Arc<Mutex<VecDeque<Input>>>;

/// A process of a controller.
pub(super) struct Process {
    pub(super) disk: FragileDisk,
    pub(super) member: Stepped<Planted, RaftTransport>,
    pub(super) replica: Replica,
    pub(super) signals: Signals,
    pub(super) scheduler: Scheduler,
    /// Answers and work that is done.
    pub(super) inbox: Inbox,
    pub(super) keyed: Keyed,
    /// Links that came up or went down, in order.
    pub(super) link_news: VecDeque<Input>,
    /// Packets that have arrived.
    pub(super) packets: VecDeque<Packet>,
    pub(super) next_tick_ms: u64,
    pub(super) next_look_ms: u64,
}

/// A place where a controller's process runs, or has run.
pub(super) struct Controller {
    pub(super) id: u64,
    pub(super) time: Time,
    folder: PathBuf,
    pub(super) process: Option<Process>,
    pub(super) starts_at_ms: u64,
    pub(super) paused_until_ms: u64,
    /// Until then its Raft member waits for its disk, and the rest of it goes on.
    pub(super) stalled_until_ms: u64,
    /// Members of the group when it begins; none for a controller that joins it.
    founders: Vec<u64>,
    n_lives: u64,
}

/// The world, as far as a controller starts in it.
pub(super) struct Surroundings<'a> {
    pub(super) network: &'a Network,
    pub(super) books: &'a SharedBooks,
    pub(super) bug: Option<Bug>,
}

impl Controller {
    pub(super) fn new(id: u64, folder: &Path, time: Time, founders: Vec<u64>) -> Controller {
        Controller {
            id,
            time,
            folder: folder.join(id.to_string()),
            process: None,
            starts_at_ms: 0,
            paused_until_ms: 0,
            stalled_until_ms: 0,
            founders,
            n_lives: 0,
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some() && self.time.now_ms() >= self.paused_until_ms
    }

    /// The process dies, and the machine's power with it.
    pub(super) fn crash(&mut self, random: &mut Random) {
        if let Some(process) = self.process.take() {
            process.disk.crash(random.next());
            self.paused_until_ms = 0;
            self.stalled_until_ms = 0;
            // At once, or after others have gone on without it.
            let pause_ms = [20, 20, 5_000][random.below(3)];
            self.starts_at_ms = self.time.now_ms() + random.next() % pause_ms;
        }
    }

    pub(super) fn start(&mut self, around: &Surroundings<'_>, random: &mut Random) {
        self.n_lives += 1;
        if around.bug == Some(Bug::WipedDisk) && self.n_lives > 1 && random.percent(30) {
            std::fs::remove_dir_all(&self.folder).expect("it is a folder of the simulation");
        }
        let sync = match around.bug {
            Some(Bug::SkipSync) => Sync::Skipped,
            Some(Bug::SyncLate) => Sync::Late,
            _ => Sync::Kept,
        };
        let disk = FragileDisk::new(sync);
        let life = match around.bug {
            Some(Bug::SameIncarnation) => 1,
            _ => self.n_lives,
        };
        let incarnation = format!("ffff{:04x}{life:024x}", self.id);
        let incarnation = incarnation.parse().expect("32 digits");
        let end = Arc::new(End {
            member: self.id,
            network: around.network.clone(),
        });
        let clock = Clock::Simulated(self.time.clone());
        let mut member = None;
        let started = Replica::start_by(incarnation, Some(end), clock, |machine, transport| {
            let planted = Planted {
                machine,
                member: self.id,
                bug: around.bug,
                time: self.time.clone(),
                books: around.books.clone(),
                last_index: Cell::new(0),
            };
            let settings = self.settings();
            let seed = random.next();
            let (handle, stepped) = Stepped::start(settings, planted, transport, &disk, seed)?;
            member = Some(stepped);
            Ok(handle)
        });
        let (replica, signals) = started.unwrap_or_else(|error| panic!("a start failed: {error}"));
        let mut member = member.expect("it was started");
        if around.bug == Some(Bug::ForgetVote) {
            member.forget_vote();
        }
        let now_ms = self.time.now_ms();
        self.process = Some(Process {
            disk,
            member,
            replica,
            signals,
            scheduler: new_scheduler(),
            inbox: Inbox::default(),
            keyed: Keyed::default(),
            link_news: VecDeque::new(),
            packets: VecDeque::new(),
            next_tick_ms: now_ms + random.next() % TICK_MS,
            next_look_ms: now_ms,
        });
    }

    fn settings(&self) -> Settings {
        Settings {
            id: self.id,
            voters: self.founders.clone(),
            tick: Duration::from_millis(TICK_MS),
            snapshot_every_entries: SNAPSHOT_EVERY,
            keep_entries: KEPT_ENTRIES,
            ..Settings::single(&self.folder)
        }
    }
}

impl Process {
    /// Inputs for the scheduler that wait: news of leadership alone, or some of the rest.
    pub(super) fn inputs(&mut self, random: &mut Random) -> Vec<Input> {
        let leadership = &mut self.signals.leadership;
        if leadership.has_changed().unwrap_or(false) {
            return vec![Input::Leadership(*leadership.borrow_and_update())];
        }
        let mut inputs: Vec<Input> = self.link_news.drain(..).collect();
        let n_effects = random.below(6);
        for _ in 0..n_effects {
            if let Ok((tenant, effect)) = self.signals.effects.try_recv() {
                inputs.push(Input::Effect(tenant, effect));
            }
        }
        if self.replica.take_behind() {
            inputs.push(Input::EffectsLost);
        }
        let mut inbox = lock(&self.inbox);
        let n = random.below(6).min(inbox.len());
        inputs.extend(inbox.drain(..n));
        inputs
    }
}
