//! Links between controllers and nodes: in order, until they break and lose what is on the way.

use std::collections::VecDeque;

use weft_protocol::{FromAgent, ToAgent};

/// A control link, and what is on its way with the time of arrival.
#[derive(Default)]
pub(super) struct Link {
    pub(super) up: bool,
    pub(super) to_node: VecDeque<(u64, ToAgent)>,
    pub(super) to_controller: VecDeque<(u64, FromAgent)>,
}

impl Link {
    pub(super) fn clear(&mut self) {
        self.to_node.clear();
        self.to_controller.clear();
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.to_node.is_empty() && self.to_controller.is_empty()
    }
}

/// Takes what has arrived.
pub(super) fn arrived<T>(queue: &mut VecDeque<(u64, T)>, now_ms: u64) -> Option<T> {
    let (due_ms, _) = queue.front()?;
    if *due_ms > now_ms {
        return None;
    }
    queue.pop_front().map(|(_, message)| message)
}
