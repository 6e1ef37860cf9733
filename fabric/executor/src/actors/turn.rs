//! One turn of an actor as its guest sees it: its state, read through the turn's own writes, and its effects until they
//! are committed.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use weft_core::{ActorRef, LimitKind, MAX_METHOD_BYTES, Problem, is_component_name};
use weft_protocol::{MAX_CHAIN, MAX_TURN_BYTES};
use weft_sandbox::{Asked, Fault, Refusal, Turn};
use weft_shard::keys;

use super::bounds::{
    MAX_KEY_BYTES, MAX_MESSAGES, MAX_OUTBOX, MAX_SCAN_BYTES, MAX_SCAN_ENTRIES, MAX_VALUE_BYTES,
    MAX_WRITE_BYTES, MAX_WRITES,
};
use super::outbox::Reserved;
use super::reads::Reads;
use super::stored::Message;

/// Entries of the first page that a scan reads: values may be large.
const FIRST_PAGE: usize = 8;
/// Entries of any page.
const MAX_PAGE: usize = 256;

/// Effects of a turn, which are committed as one.
pub(super) struct Effects {
    /// Values by the actor's own keys; none where one is removed.
    pub(super) writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The alarm, if it was set or cleared.
    pub(super) alarm: Option<Option<u64>>,
    /// Messages in order, and their room in the outbox.
    pub(super) messages: Vec<Message>,
    pub(super) reserved: Reserved,
    /// Answers need not wait for writes from now on.
    pub(super) is_early: bool,
    bytes: usize,
}

impl Effects {
    pub(super) fn none(reserved: Reserved) -> Self {
        Self {
            writes: BTreeMap::new(),
            alarm: None,
            messages: Vec::new(),
            reserved,
            is_early: false,
            bytes: 0,
        }
    }

    /// Returns whether there is anything to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.alarm.is_none() && self.messages.is_empty()
    }

    /// Takes bytes of the turn's bound.
    fn take(&mut self, bytes: usize) -> Asked<()> {
        self.bytes += bytes;
        match self.bytes > MAX_WRITE_BYTES {
            true => Err(state_limit(format!("{} MiB a turn", MAX_WRITE_BYTES >> 20))),
            false => Ok(()),
        }
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Asked<()> {
        if key.len() > MAX_KEY_BYTES {
            return Err(state_limit(format!("{MAX_KEY_BYTES} bytes for a key")));
        }
        let bytes = value.as_ref().map_or(0, Vec::len);
        if bytes > MAX_VALUE_BYTES {
            return Err(state_limit(format!(
                "{} MiB for a value",
                MAX_VALUE_BYTES >> 20
            )));
        }
        let written = key.len() + bytes;
        if let Some(before) = self.writes.insert(key.clone(), value) {
            self.bytes -= key.len() + before.map_or(0, |value| value.len());
        }
        if self.writes.len() > MAX_WRITES {
            return Err(state_limit(format!("{MAX_WRITES} keys written in a turn")));
        }
        self.take(written)
    }
}

/// Others, as a turn invokes them.
#[async_trait]
pub(super) trait Others: Send + Sync {
    /// Invokes an actor for another one, and waits for its answer. `chain`: those that wait for it, the caller last.
    async fn invoke(
        &self,
        to: ActorRef,
        method: String,
        input: Vec<u8>,
        chain: Vec<ActorRef>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Problem>;
}

/// A turn.
pub(super) struct ActorTurn {
    pub(super) actor: ActorRef,
    pub(super) reads: Arc<dyn Reads>,
    pub(super) others: Arc<dyn Others>,
    /// Actors that wait for this turn, outermost first.
    pub(super) chain: Vec<ActorRef>,
    pub(super) deadline: Instant,
    /// Turns before this one have written what may be lost. Nobody else must act on it before it is durable.
    pub(super) is_unsettled: bool,
    pub(super) effects: Effects,
}

fn state_limit(value: String) -> Refusal {
    Refusal::Stopped(Fault::limit(LimitKind::State, value))
}

/// Checks a key that is read, or where a scan begins or ends: one byte more than a key has leads behind any of them. A
/// guest could hand over as much as its memory holds.
fn check_read(key: &[u8]) -> Asked<()> {
    match key.len() > MAX_KEY_BYTES + 1 {
        true => Err(state_limit(format!("{MAX_KEY_BYTES} bytes for a key"))),
        false => Ok(()),
    }
}

fn outbox_limit(value: String) -> Refusal {
    Refusal::Stopped(Fault::limit(LimitKind::Outbox, value))
}

fn told<T>(text: String) -> Asked<T> {
    Err(Refusal::Told(text))
}

impl ActorTurn {
    /// The actor that a guest names, if it may be sent this.
    fn target(&self, actor: &str, key: String, method: &str, input: &[u8]) -> Asked<ActorRef> {
        let own = self.actor.component.as_str();
        let (component, name) = actor.split_once('/').unwrap_or((own, actor));
        if !is_component_name(component) || !is_component_name(name) {
            let shown: String = actor
                .chars()
                .take(64)
                .flat_map(char::escape_debug)
                .collect();
            return told(format!(
                "`{shown}` names no actor: give `actor` or `component/actor`"
            ));
        }
        // As on the way to other executors: where the receiver is makes no difference.
        let is_method = (1..=MAX_METHOD_BYTES).contains(&method.len());
        if !is_method || method.chars().any(char::is_control) {
            let bytes = method.len();
            return told(format!(
                "the name of a method has 1 to {MAX_METHOD_BYTES} bytes without control characters, and this one has \
                 {bytes} bytes"
            ));
        }
        if input.len() > MAX_TURN_BYTES {
            let bytes = input.len();
            return told(format!(
                "the input has {bytes} bytes, and {MAX_TURN_BYTES} are allowed"
            ));
        }
        ActorRef::new(component, name, key).map_err(|error| Refusal::Told(error.to_string()))
    }

    /// The actors that wait for the answer of `to`. Refused if it is one of them.
    fn chain_to(&self, to: &ActorRef) -> Asked<Vec<ActorRef>> {
        let mut chain = self.chain.clone();
        chain.push(self.actor.clone());
        if let Some(first) = chain.iter().position(|waiting| waiting == to) {
            return told(waits_for_itself(&chain[first..]));
        }
        if chain.len() >= MAX_CHAIN {
            return told(format!(
                "`{to}` is not invoked: {MAX_CHAIN} actors would wait for each other; send a message instead"
            ));
        }
        Ok(chain)
    }
}

/// The refusal of an invocation that closes a circle of waiting actors.
pub(super) fn waits_for_itself(circle: &[ActorRef]) -> String {
    let names: Vec<String> = circle.iter().map(ActorRef::to_string).collect();
    let (first, all) = (&names[0], names.join(" → "));
    format!("`{first}` would wait for itself: {all} → {first}; send a message instead")
}

#[async_trait]
impl Turn for ActorTurn {
    async fn get(&mut self, key: &[u8]) -> Asked<Option<Bytes>> {
        check_read(key)?;
        if let Some(written) = self.effects.writes.get(key) {
            return Ok(written.as_ref().map(|value| Bytes::copy_from_slice(value)));
        }
        let found = self.reads.get(keys::state(&self.actor, key)).await;
        found.map_err(Refusal::Failed)
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Asked<()> {
        self.effects.write(key, Some(value))
    }

    fn delete(&mut self, key: Vec<u8>) -> Asked<()> {
        self.effects.write(key, None)
    }

    async fn scan(
        &mut self,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        limit: u32,
    ) -> Asked<Vec<(Vec<u8>, Vec<u8>)>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if limit > MAX_SCAN_ENTRIES {
            return told(format!(
                "a scan returns up to {MAX_SCAN_ENTRIES} entries, and {limit} were asked for: scan again from behind \
                 the last one"
            ));
        }
        check_read(&start)?;
        check_read(end.as_deref().unwrap_or_default())?;
        if limit == 0 || end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(Vec::new());
        }
        Scan::new(self, &start, end.as_deref(), limit).run().await
    }

    fn answer_early(&mut self) -> Asked<()> {
        self.effects.is_early = true;
        Ok(())
    }

    fn set_alarm(&mut self, at_ms: Option<u64>) -> Asked<()> {
        self.effects.alarm = Some(at_ms);
        Ok(())
    }

    fn tell(&mut self, actor: &str, key: String, method: String, input: Vec<u8>) -> Asked<()> {
        let to = self.target(actor, key, &method, &input)?;
        if self.effects.messages.len() >= MAX_MESSAGES {
            return Err(outbox_limit(format!("{MAX_MESSAGES} messages of a turn")));
        }
        self.effects.take(input.len())?;
        if !self.effects.reserved.one_more() {
            return Err(outbox_limit(format!(
                "{MAX_OUTBOX} messages that wait in a shard's outbox"
            )));
        }
        self.effects.messages.push(Message {
            from: self.actor.clone(),
            to,
            method,
            input,
        });
        Ok(())
    }

    async fn invoke(
        &mut self,
        actor: &str,
        key: String,
        method: String,
        input: Vec<u8>,
    ) -> Asked<Vec<u8>> {
        let to = self.target(actor, key, &method, &input)?;
        let chain = self.chain_to(&to)?;
        if std::mem::take(&mut self.is_unsettled) && !self.effects.is_early {
            self.reads.durable().await.map_err(Refusal::Failed)?;
        }
        let invoked = self.others.invoke(to, method, input, chain, self.deadline);
        invoked
            .await
            .map_err(|problem| Refusal::Told(problem.to_string()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// A scan: committed entries and the turn's own writes, merged by key.
struct Scan<'a> {
    actor: &'a ActorRef,
    reads: Arc<dyn Reads>,
    range: keys::KeyRange,
    /// Own writes that have not been passed.
    own: std::collections::btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>,
    next_own: Option<(&'a Vec<u8>, &'a Option<Vec<u8>>)>,
    found: Vec<(Vec<u8>, Vec<u8>)>,
    found_bytes: usize,
    limit: usize,
}

impl<'a> Scan<'a> {
    fn new(turn: &'a ActorTurn, start: &'a [u8], end: Option<&'a [u8]>, limit: usize) -> Self {
        let from = Bound::Included(start);
        let to = end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut own = turn.effects.writes.range::<[u8], _>((from, to));
        Self {
            actor: &turn.actor,
            reads: Arc::clone(&turn.reads),
            range: keys::states_between(&turn.actor, from, to),
            next_own: own.next(),
            own,
            found: Vec::new(),
            found_bytes: 0,
            limit,
        }
    }

    async fn run(mut self) -> Asked<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut page = FIRST_PAGE;
        loop {
            let entries = self.reads.scan(self.range.clone(), page).await;
            let entries = entries.map_err(Refusal::Failed)?;
            let is_last = entries.len() < page;
            page = next_page(&entries, page);
            if let Some((key, _)) = entries.last() {
                self.range.0 = Bound::Excluded(key.to_vec());
            }
            for (key, value) in entries {
                let own_key = keys::user_key(self.actor, &key).unwrap_or_default();
                self.committed(own_key, &value)?;
                if self.is_full() {
                    return Ok(self.found);
                }
            }
            if is_last {
                self.own_before(None)?;
                return Ok(self.found);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// Adds a committed entry, and own writes before it.
    fn committed(&mut self, key: &[u8], value: &[u8]) -> Asked<()> {
        self.own_before(Some(key))?;
        if self.is_full() {
            return Ok(());
        }
        match self.next_own {
            Some((own_key, own_value)) if own_key.as_slice() == key => {
                self.next_own = self.own.next();
                match own_value {
                    Some(own_value) => self.add(key, own_value),
                    None => Ok(()),
                }
            }
            _ => self.add(key, value),
        }
    }

    /// Adds own writes before a key, or all that are left.
    fn own_before(&mut self, key: Option<&[u8]>) -> Asked<()> {
        while let Some((own_key, own_value)) = self.next_own {
            let is_before = key.is_none_or(|key| own_key.as_slice() < key);
            if !is_before || self.is_full() {
                break;
            }
            self.next_own = self.own.next();
            if let Some(own_value) = own_value {
                self.add(own_key, own_value)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Asked<()> {
        self.found_bytes += key.len() + value.len();
        if self.found_bytes > MAX_SCAN_BYTES {
            return told(format!(
                "the scan would return more than {} MiB: ask for fewer than {} entries",
                MAX_SCAN_BYTES >> 20,
                self.found.len() + 1
            ));
        }
        self.found.push((key.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Entries of the page after this one: as many as probably fit, and not many times more at once.
fn next_page(entries: &[(Bytes, Bytes)], page: usize) -> usize {
    let bytes: usize = entries.iter().map(|(_, value)| value.len()).sum();
    let mean = bytes / entries.len().max(1) + 1;
    let fit = (MAX_SCAN_BYTES / mean).max(FIRST_PAGE);
    fit.min(4 * page).min(MAX_PAGE)
}

#[cfg(test)]
mod tests;
