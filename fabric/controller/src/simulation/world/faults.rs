//! Faults of the world, and wishes meanwhile.

use super::*;

impl World {
    pub(super) fn disturb(&mut self) {
        let position = self.random.below(self.controllers.len());
        match self.random.below(1_000) {
            0..4 => self.crash(position),
            // In the middle of an election, say.
            110..120 if !self.has_leader() => self.crash(position),
            4..8 => self.pause(position),
            8..12 => self.partition(),
            12..30 if !self.network.is_healed() && self.random.percent(self.healing) => {
                self.network.heal();
            }
            30..34 => {
                let node = self.some_node();
                self.seen.links_lost += 1;
                self.break_link(position, &node);
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
            84..98 => self.meter(),
            98..100 if self.random.percent(30) => self.replace(position),
            100..110 => self.sweep(position),
            140..145 => self.check(),
            _ => {}
        }
    }

    fn has_leader(&self) -> bool {
        let mut processes = self
            .controllers
            .iter()
            .filter_map(|one| one.process.as_ref());
        processes.any(|process| process.replica.status().is_leader)
    }

    /// A disk is lost for good: another controller takes its place, under a new number.
    pub(super) fn replace(&mut self, position: usize) {
        let is_replacing = |client: &Client| {
            matches!(client.wish, Wish::Replace { .. })
                && !matches!(client.state, ClientState::Done)
        };
        if self.clients.iter().any(is_replacing) || self.next_id > MAX_ID {
            return;
        }
        self.seen.replaced += 1;
        self.crash(position);
        let (old, new) = (self.controllers[position].id, self.next_id);
        self.next_id += 1;
        self.links.retain(|(member, _), _| *member != old);
        self.leaders.retain(|_, (_, member)| *member != old);
        let time = self.time.ahead(300 * new);
        let mut controller = Controller::new(new, self.folder.path(), time, Vec::new());
        controller.starts_at_ms = self.time.now_ms() + 1_000;
        self.controllers[position] = controller;
        for node in self.nodes.keys() {
            self.links.insert((new, node.clone()), Link::default());
        }
        self.wish(Wish::Replace { old, new });
    }

    pub(super) fn pause(&mut self, position: usize) {
        self.seen.pauses += 1;
        let length_ms = 100 + self.random.next() % 4_000;
        self.controllers[position].paused_until_ms = self.time.now_ms() + length_ms;
        if length_ms > 1_200 {
            // Both ends have not heard of each other for too long.
            let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
            for node in nodes {
                self.break_link(position, &node);
            }
        }
    }

    pub(super) fn partition(&mut self) {
        self.seen.partitions += 1;
        let ids: Vec<u64> = self.controllers.iter().map(|one| one.id).collect();
        let alone = ids[self.random.below(ids.len())];
        let one_way = self.random.percent(30);
        let others = ids.into_iter().filter(|other| *other != alone);
        let pairs = others.flat_map(|other| {
            let back = (other, alone);
            [(alone, other), if one_way { (alone, other) } else { back }]
        });
        self.network.cut(pairs);
    }

    pub(super) fn submit(&mut self) {
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

    pub(super) fn cancel(&mut self) {
        let jobs = self.books.lock().acknowledged.jobs.clone();
        if !jobs.is_empty() {
            let position = self.random.below(jobs.len());
            let job = jobs.into_values().nth(position).expect("it is within");
            let tenant = tenant(TENANTS[self.random.below(TENANTS.len())]);
            self.wish(Wish::Cancel { tenant, job });
        }
    }

    pub(super) fn call(&mut self) {
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
}
