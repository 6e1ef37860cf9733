//! A leader that applies its own removal, which a leader before it had asked for. Members are stepped, so that
//! messages are lost where the test wants it.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use tempfile::TempDir;
use weft_consensus::simulation::{FragileDisk, Stepped, Sync};
use weft_consensus::{Change, Handle, Message, Settings, Transport};

use crate::support::{Journal, command, settings};

/// Ticks after which any member that hears nothing has asked for votes, and has them.
const LONG: usize = 200;

#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<Message>>>);

impl Transport for Outbox {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().unwrap().extend(messages);
    }
}

struct Stage {
    outbox: Outbox,
    members: Vec<(Handle, Stepped<Journal, Outbox>, TempDir)>,
}

impl Stage {
    fn new() -> Stage {
        let outbox = Outbox::default();
        let members = (1..=3).map(|id| {
            let folder = tempfile::tempdir().unwrap();
            let settings = Settings {
                id,
                voters: vec![1, 2, 3],
                ..settings(folder.path())
            };
            let disk = FragileDisk::new(Sync::Kept);
            let transport = outbox.clone();
            let started = Stepped::start(settings, Journal::default(), transport, &disk, id);
            let (handle, stepped) = started.unwrap();
            (handle, stepped, folder)
        });
        let members = members.collect();
        Stage { outbox, members }
    }

    fn handle(&self, id: u64) -> &Handle {
        &self.members[id as usize - 1].0
    }

    /// Takes turns until no message is left. Those that do not pass are lost.
    fn settle(&mut self, passes: impl Fn(&Message) -> bool) {
        loop {
            for (_, member, _) in &mut self.members {
                member.turn().unwrap();
            }
            let messages = std::mem::take(&mut *self.outbox.0.lock().unwrap());
            if messages.is_empty() {
                break;
            }
            for message in messages.into_iter().filter(&passes) {
                self.handle(message.to).deliver(message);
            }
        }
    }

    /// Lets ticks pass until one of the members leads.
    fn elect(&mut self, among: &[u64], passes: impl Fn(&Message) -> bool) -> u64 {
        for _ in 0..LONG {
            for id in among {
                self.members[*id as usize - 1].1.tick();
            }
            self.settle(&passes);
            let leads = |id: &&u64| self.handle(**id).status().is_leader;
            if let Some(leader) = among.iter().find(leads) {
                return *leader;
            }
        }
        panic!("none of {among:?} leads");
    }
}

#[test]
fn a_leader_that_applies_its_own_removal_leads_no_more() {
    let mut stage = Stage::new();
    let all = [1, 2, 3];
    let first = stage.elect(&all, |_| true);
    let mut others = all.into_iter().filter(|id| *id != first);
    let (kept, removed) = (others.next().unwrap(), others.next().unwrap());
    // The change reaches only the member that it removes, and the acknowledgement nobody.
    let mut context = Context::from_waker(Waker::noop());
    let handle = stage.handle(first).clone();
    let mut change = pin!(handle.change_members(Change::Remove(removed)));
    assert!(change.as_mut().poll(&mut context).is_pending());
    stage.settle(|message| message.from == first && message.to == removed);
    // Without the first leader, only the member that has the entry can be elected, and so commits its own removal.
    let cut_off = |message: &Message| message.from != first && message.to != first;
    let mut led = false;
    for _ in 0..LONG {
        for id in [kept, removed] {
            stage.members[id as usize - 1].1.tick();
        }
        stage.settle(cut_off);
        led |= stage.handle(removed).status().term > 1;
        if stage.handle(kept).watch_members().borrow().voters.len() == 2 {
            break;
        }
    }
    assert!(led, "the member to be removed never stood");
    let mut left = vec![first, kept];
    left.sort_unstable();
    for id in [kept, removed] {
        assert_eq!(
            stage.handle(id).watch_members().borrow().voters,
            left,
            "at {id}"
        );
    }
    assert!(!stage.handle(removed).status().is_leader);
    // The others go on, and what the removed one says does not stop them.
    let leader = stage.elect(&left, |_| true);
    let handle = stage.handle(leader).clone();
    let mut answer = pin!(handle.propose(command(1)));
    assert!(answer.as_mut().poll(&mut context).is_pending());
    stage.settle(|_| true);
    assert!(answer.as_mut().poll(&mut context).is_ready());
}
