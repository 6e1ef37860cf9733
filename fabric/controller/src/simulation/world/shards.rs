//! Shards of actors: executors serve them, clients ask for them, and at no moment may two executors answer for one.

use weft_core::Epoch;

use super::*;
use crate::scheduler::Request;
use crate::scheduler::tests::serving::{Answered, Ask, Opened, ShardStore};

/// Shards that clients ask for, of each tenant.
const N_SHARDS: usize = 3;

/// How often things happened to shards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ShardsSeen {
    asked: u64,
    answered: u64,
    opened: u64,
    /// Shards that another executor had opened before.
    taken_over: u64,
    pauses: u64,
    cut_off: u64,
    stalled: u64,
}

impl ShardsSeen {
    fn numbers(&mut self) -> [&mut u64; 7] {
        [
            &mut self.asked,
            &mut self.answered,
            &mut self.opened,
            &mut self.taken_over,
            &mut self.pauses,
            &mut self.cut_off,
            &mut self.stalled,
        ]
    }

    pub(super) fn add(&mut self, other: &ShardsSeen) {
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

/// Shards, and what goes wrong with the nodes that serve them. Their chances are of their own, so that a world about
/// jobs is as it would be without them.
pub(super) struct Shards {
    scene: Scene,
    random: Random,
    store: ShardStore,
    /// The highest value that a client was told, by shard.
    told: BTreeMap<(TenantId, u32), u64>,
    /// Controllers and nodes that do not reach each other.
    cut: BTreeSet<(u64, NodeId)>,
    /// Nodes that are paused, and until when.
    paused: BTreeMap<NodeId, u64>,
}

impl Shards {
    pub(super) fn new(scene: Scene, seed: u64) -> Shards {
        Shards {
            scene,
            random: Random::new(!seed),
            store: ShardStore::default(),
            told: BTreeMap::new(),
            cut: BTreeSet::new(),
            paused: BTreeMap::new(),
        }
    }

    /// The agent of a node starts again.
    pub(super) fn restarted(&mut self, node: &NodeId) {
        self.paused.remove(node);
    }

    pub(super) fn runs(&self, node: &NodeId, now_ms: u64) -> bool {
        let until_ms = self.paused.get(node);
        until_ms.is_none_or(|until_ms| now_ms >= *until_ms)
    }

    /// Returns whether a node may dial a controller.
    pub(super) fn are_linked(&self, member: u64, node: &NodeId, now_ms: u64) -> bool {
        self.runs(node, now_ms) && !self.cut.contains(&(member, node.clone()))
    }

    /// Nothing goes wrong any more.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.paused.clear();
    }
}

impl World {
    /// Executors serve, clients ask, and things go wrong.
    pub(super) fn drive_shards(&mut self) {
        if self.shards.scene != Scene::Shards {
            return;
        }
        let now_ms = self.time.now_ms();
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for id in ids {
            if self.shards.runs(&id, now_ms) {
                self.drive_shards_of(&id);
            }
        }
        if self.faults {
            if self.shards.random.percent(30) {
                self.ask_for_shard();
            }
            self.disturb_nodes();
        }
        self.check_holders();
    }

    fn drive_shards_of(&mut self, id: &NodeId) {
        let mut news = News::default();
        let node = self.nodes.get_mut(id).expect("it is there");
        let shards = &mut self.shards;
        node.renew(&mut news);
        if shards.random.percent(60) {
            node.serve(&mut shards.random, &mut shards.store, &mut news);
        }
        for opened in std::mem::take(&mut news.opened) {
            self.on_opened(&opened);
        }
        for answered in std::mem::take(&mut news.answered) {
            self.on_answered(answered);
        }
        self.after_node(id, news);
    }

    /// A client asks for an actor, by way of some controller, whose state may be old.
    fn ask_for_shard(&mut self) {
        let random = &mut self.shards.random;
        let controller = &self.controllers[random.below(self.controllers.len())];
        let tenant = tenant(TENANTS[random.below(TENANTS.len())]);
        let shard = random.below(N_SHARDS) as u32;
        let writes = random.percent(40);
        let Some(process) = controller.process.as_ref().filter(|_| controller.runs()) else {
            return;
        };
        self.seen.shards.asked += 1;
        let holder = {
            let state = process.replica.state();
            let holder = state.shard_holder(&tenant, shard);
            holder.and_then(|epoch| Some((epoch, state.leases.get(epoch)?.node.clone())))
        };
        let Some((epoch, node)) = holder else {
            let wanted = Input::Asked(Request::Shard { tenant, shard });
            lock(&process.inbox).push_back(wanted);
            return;
        };
        if self.shards.cut.contains(&(controller.id, node.clone())) {
            return;
        }
        let floor = self.shards.told.get(&(tenant, shard)).copied();
        let ask = Ask::new(shard, writes, floor.unwrap_or(0));
        if let Some(node) = self.nodes.get_mut(&node) {
            // If it is gone, or has enough to do, the client would ask again.
            node.ask(epoch, ask);
        }
    }

    /// Nobody takes a shard from an executor whose lease stands.
    fn on_opened(&mut self, opened: &Opened) {
        self.seen.shards.opened += 1;
        self.seen.shards.taken_over += u64::from(opened.taken_over);
        let nodes = self.nodes.values();
        let mut fenced = nodes
            .flat_map(|node| node.writers(&opened.tenant, opened.shard))
            .filter(|(epoch, writer)| *writer == opened.fenced && *epoch != opened.executor);
        let books = self.books.lock();
        let rightful = fenced.find(|(epoch, _)| books.stands(*epoch));
        assert!(
            rightful.is_none(),
            "{opened:?}, which it took from {rightful:?}, whose lease stands"
        );
    }

    /// Nobody is told less than another client was told before it asked, and by nobody whose lease has lapsed.
    fn on_answered(&mut self, answered: Answered) {
        self.seen.shards.answered += 1;
        let stands = self.books.lock().stands(answered.executor);
        assert!(stands, "{answered:?}: its lease has lapsed");
        assert!(
            answered.value >= answered.floor,
            "{answered:?}: a write that was acknowledged is lost"
        );
        let told = self.shards.told.entry((answered.tenant, answered.shard));
        let told = told.or_default();
        *told = answered.value.max(*told);
    }

    /// At no moment do two executors have a lease that stands, by their clocks, and the same shard.
    fn check_holders(&self) {
        let mut holders: BTreeMap<(TenantId, u32), Epoch> = BTreeMap::new();
        for (tenant, shard, epoch) in self.nodes.values().flat_map(Node::valid_shards) {
            let other = holders.insert((tenant, shard), epoch);
            assert_eq!(
                other, None,
                "shard {shard} is served by executor {epoch} as well"
            );
        }
    }

    // ---- faults

    fn disturb_nodes(&mut self) {
        match self.shards.random.below(1_000) {
            0..3 => self.pause_node(),
            3..7 => self.cut_off(),
            7..25 if !self.shards.cut.is_empty() && self.heals() => self.shards.cut.clear(),
            _ => {}
        }
    }

    fn heals(&mut self) -> bool {
        self.shards.random.percent(self.healing)
    }

    fn node_for_fault(&mut self) -> NodeId {
        let position = self.shards.random.below(self.nodes.len());
        let id = self.nodes.keys().nth(position);
        id.expect("it is within").clone()
    }

    /// A machine stops for a while: its agent, its executors, and not its clock.
    fn pause_node(&mut self) {
        self.seen.shards.pauses += 1;
        let node = self.node_for_fault();
        let length_ms = 100 + self.shards.random.next() % 6_000;
        let until_ms = self.time.now_ms() + length_ms;
        self.shards.paused.insert(node.clone(), until_ms);
        if length_ms > 1_200 {
            // Both ends have not heard of each other for too long.
            for position in 0..self.controllers.len() {
                self.break_link(position, &node);
            }
        }
    }

    /// A leader is left alone with a node: others do not reach them, or its disk stalls.
    fn cut_off(&mut self) {
        self.seen.shards.cut_off += 1;
        let node = self.node_for_fault();
        let leads = |one: &Controller| {
            let process = one.process.as_ref();
            process.is_some_and(|process| process.replica.status().is_leader)
        };
        let leader = self.controllers.iter().position(leads);
        let any = self.shards.random.below(self.controllers.len());
        let position = leader.unwrap_or(any);
        let alone = self.controllers[position].id;
        for other in (0..self.controllers.len()).filter(|other| *other != position) {
            let id = self.controllers[other].id;
            self.shards.cut.insert((id, node.clone()));
            self.break_link(other, &node);
        }
        if self.shards.random.percent(60) {
            self.seen.shards.stalled += 1;
            let length_ms = 500 + self.shards.random.next() % 5_500;
            self.controllers[position].stalled_until_ms = self.time.now_ms() + length_ms;
        } else {
            let ids: Vec<u64> = self.controllers.iter().map(|one| one.id).collect();
            let others = ids.into_iter().filter(|other| *other != alone);
            let pairs = others.flat_map(|other| [(alone, other), (other, alone)]);
            self.network.cut(pairs);
        }
    }
}
