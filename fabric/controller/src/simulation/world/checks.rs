//! Checks of the books and states, now and at the end.

use super::*;

impl World {
    /// The state of the member that has applied the most.
    pub(super) fn with_newest_state(&self, act: impl FnOnce(&State, u64)) {
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

    pub(super) fn check(&self) {
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
    pub(super) fn settle(&mut self) {
        self.check();
        self.faults = false;
        self.seen.packets_lost = self.network.end_faults();
        self.network.heal();
        for controller in &mut self.controllers {
            controller.starts_at_ms = 0;
            controller.paused_until_ms = 0;
            controller.stalled_until_ms = 0;
        }
        self.shards.heal();
        for step in 0..N_STEPS_TO_REST {
            if step == N_STEPS_TO_REST / 2 {
                // Calls of a controller that is gone for good are taken over when no call takes as long.
                self.time.advance(TAKEN_OVER_MS);
            }
            if self.is_settled() {
                return self.check_end();
            }
            self.step();
        }
        panic!("it does not come to rest: {}", self.describe());
    }

    pub(super) fn is_settled(&self) -> bool {
        let clients = self.clients.iter();
        let mut open = clients.filter(|client| !matches!(client.state, ClientState::Done));
        if open.next().is_some() {
            return false;
        }
        let applied = self.controllers.iter().map(|controller| {
            let process = controller.process.as_ref()?;
            let idle = lock(&process.inbox).is_empty() && process.link_news.is_empty();
            let idle = idle && self.is_group(&process.replica);
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
            settled &= state.free_shards().is_empty();
        });
        settled &= !self.nodes.values().any(Node::is_asked);
        settled
    }

    /// Returns whether a controller knows all that there are, and no other, as members that vote.
    pub(super) fn is_group(&self, replica: &Replica) -> bool {
        let mut ids: Vec<u64> = self.controllers.iter().map(|one| one.id).collect();
        ids.sort_unstable();
        let members = replica.handle().watch_members().borrow().clone();
        members.voters == ids && members.learners.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        let clients = self.clients.iter();
        let open = clients.filter(|client| !matches!(client.state, ClientState::Done));
        let open: Vec<String> = open.map(|client| format!("{:?}", client.wish)).collect();
        let controllers = self.controllers.iter().map(|controller| {
            let status = controller
                .process
                .as_ref()
                .map(|process| process.replica.status());
            let process = controller.process.as_ref();
            let members = process.map(|one| one.replica.handle().watch_members().borrow().clone());
            format!("{}: {status:?} {members:?}", controller.id)
        });
        let controllers: Vec<String> = controllers.collect();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|(id, node)| format!("{id} quiet {}", node.is_quiet()))
            .collect();
        let mut jobs = Vec::new();
        self.with_newest_state(|state, _| {
            for (tenant, of) in &state.tenants {
                for job in of.jobs.values() {
                    jobs.push(format!("{}: {:.300?}", job.id, job.state));
                    let leaders = self
                        .controllers
                        .iter()
                        .filter_map(|one| one.process.as_ref());
                    let leaders = leaders.filter(|one| one.replica.status().is_leader);
                    jobs.extend(leaders.map(|leader| {
                        let now = Now {
                            monotonic_ms: self.time.now_ms(),
                            unix_ms: leader.replica.now_ms(),
                        };
                        leader.scheduler.explain(state, now, tenant, &job.id)
                    }));
                }
            }
        });
        format!("clients {open:?}, {controllers:?}, {nodes:?}, jobs {jobs:#?}")
    }

    pub(super) fn check_end(&mut self) {
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

    pub(super) fn check_books(&self, state: &State) {
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
