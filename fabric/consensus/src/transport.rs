//! How members reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use raft::eraftpb::Message;

use crate::handle::{Handle, Shared};

/// Carries messages to the members that they name in `to`, where they end in [`Handle::deliver`].
///
/// Messages may be lost, doubled, delayed and reordered; Raft repeats what matters. `send` is called on the member's thread
/// and must not wait.
pub trait Transport: Send + 'static {
    /// Sends messages, or drops those that cannot go out now.
    fn send(&self, messages: Vec<Message>);
}

/// The transport of a group of one, which has nobody to talk to.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, _messages: Vec<Message>) {}
}

/// Connects members within one process, and can cut them off from each other.
///
/// All clones are the same network. It does not keep its members running.
#[derive(Clone, Default)]
pub struct MemoryTransport {
    network: Arc<Mutex<Network>>,
}

#[derive(Default)]
struct Network {
    members: BTreeMap<u64, Weak<Shared>>,
    cut_off: BTreeSet<u64>,
}

impl MemoryTransport {
    /// Returns a network without members.
    pub fn new() -> MemoryTransport {
        MemoryTransport::default()
    }

    /// Lets messages for the member of `handle` reach it, in place of an earlier member of the same id.
    pub fn connect(&self, handle: &Handle) {
        let weak = Arc::downgrade(&handle.shared);
        self.network().members.insert(handle.shared.id, weak);
    }

    /// Drops everything from and to a member from now on.
    pub fn cut_off(&self, id: u64) {
        self.network().cut_off.insert(id);
    }

    /// Undoes [`MemoryTransport::cut_off`].
    pub fn reconnect(&self, id: u64) {
        self.network().cut_off.remove(&id);
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().expect("nothing under this lock panics")
    }
}

impl Transport for MemoryTransport {
    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            let receiver = self.network().receiver(&message);
            if let Some(shared) = receiver {
                shared.deliver(message);
            }
        }
    }
}

impl Network {
    fn receiver(&self, message: &Message) -> Option<Arc<Shared>> {
        if self.cut_off.contains(&message.from) || self.cut_off.contains(&message.to) {
            return None;
        }
        self.members.get(&message.to)?.upgrade()
    }
}
