//! Nodes, and the links between them and the controllers.

use super::*;

impl World {
    pub(super) fn send(&mut self, member: u64, node: NodeId, message: ToAgent) {
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

    pub(super) fn start_node(&mut self, name: &str) {
        self.n_lives += 1;
        let mut node = Node::new(name, self.n_lives);
        node.slip = self.bug.and_then(Bug::slip);
        let id = node.id.clone();
        self.leaders.remove(&id);
        self.shards.restarted(&id);
        if let Some(before) = self.nodes.insert(id.clone(), node) {
            self.seen.agents_lost += 1;
            self.books.lock().lost_lives.insert(before.incarnation);
            for position in 0..self.controllers.len() {
                self.break_link(position, &id);
            }
        }
    }

    /// A link breaks, and is dialled again by and by.
    pub(super) fn break_link(&mut self, position: usize, node: &NodeId) {
        let controller = &mut self.controllers[position];
        let key = (controller.id, node.clone());
        let link = self.links.get_mut(&key).expect("all are there");
        link.clear();
        let was_up = std::mem::take(&mut link.up);
        if let Some(process) = controller.process.as_mut().filter(|_| was_up) {
            let down = Input::LinkDown(node.clone(), Duration::ZERO);
            process.link_news.push_back(down);
        }
    }

    pub(super) fn drive_links(&mut self) {
        let now_ms = self.time.now_ms();
        let keys: Vec<(u64, NodeId)> = self.links.keys().cloned().collect();
        for (member, node) in keys {
            let position = self.controllers.iter().position(|one| one.id == member);
            let position = position.expect("links of controllers that are gone are gone");
            let runs = self.controllers[position].runs();
            let reached = self.shards.are_linked(member, &node, now_ms);
            let link = self
                .links
                .get_mut(&(member, node.clone()))
                .expect("it is there");
            if !link.up {
                // A dialler tries again after a pause.
                if runs && reached && (!self.faults || self.random.percent(10)) {
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

    pub(super) fn some_node(&mut self) -> NodeId {
        let position = self.random.below(self.nodes.len());
        let id = self.nodes.keys().nth(position);
        id.expect("it is within").clone()
    }

    pub(super) fn with_node(&mut self, act: impl FnOnce(&mut Node, &mut Random, bool, &mut News)) {
        let id = self.some_node();
        if !self.shards.runs(&id, self.time.now_ms()) {
            return;
        }
        let mut news = News::default();
        let node = self.nodes.get_mut(&id).expect("it is there");
        act(node, &mut self.random, self.faults, &mut news);
        self.after_node(&id, news);
    }

    /// Reports go to the leader that the node knows.
    pub(super) fn after_node(&mut self, id: &NodeId, news: News) {
        self.seen.objects_lost += news.lost;
        {
            let mut books = self.books.lock();
            for request in news.begun {
                let new = books.attempts.insert(request.attempt_id());
                assert!(new, "{:?} came twice", request.attempt_id());
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
        let link = self.links.get_mut(&(member, id.clone()));
        if let Some(link) = link.filter(|link| link.up) {
            let reports = reports.into_iter().map(|report| (due_ms, report));
            link.to_controller.extend(reports);
        }
    }

    pub(super) fn meter(&mut self) {
        self.n_usage += 1;
        let number = self.n_usage;
        let of = tenant(TENANTS[self.random.below(TENANTS.len())]);
        let id = self.some_node();
        if !self.shards.runs(&id, self.time.now_ms()) {
            return;
        }
        let node = self.nodes.get_mut(&id).expect("it is there");
        if let Some(name) = node.meter(&of, number) {
            let life = node.incarnation;
            self.books.lock().reported.insert(name, life);
        }
        self.after_node(&id, News::default());
    }
}
