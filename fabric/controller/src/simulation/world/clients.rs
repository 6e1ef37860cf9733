//! Clients of the world.

use super::*;

impl World {
    pub(super) fn wish(&mut self, wish: Wish) {
        let state = ClientState::AsksAt(self.time.now_ms());
        self.clients.push(Client { wish, state });
    }

    pub(super) fn drive_clients(&mut self) {
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

    pub(super) fn ask(&mut self, number: usize) {
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
}
