//! Keys of a shard's database.
//!
//! ```text
//! s  actor  user key             value of the state
//! a  component  actor  key       record of the actor; the key is last and bare, so that actors are listed in its order
//! d  due ms  actor               alarm
//! o  shard  number               message to an actor of that shard
//! n                              number of the next message
//! h  shard                       highest number of that shard's messages that was applied here
//! i  actor  digest               answer of an idempotency key
//! e  until ms  actor  digest     end of its life
//! x  actor  number               message that was given up
//! ```
//!
//! `actor` is component, actor and key, each behind its length in two bytes; numbers are big-endian. So the keys of one
//! actor are a range that holds those of no other, and keys sort by time and by number.

use std::ops::Bound;

use weft_core::ActorRef;

/// Range of keys of a database.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

const STATE: u8 = b's';
const RECORD: u8 = b'a';
const DUE: u8 = b'd';
const MESSAGE: u8 = b'o';
const NEXT: u8 = b'n';
const HIGHEST: u8 = b'h';
const ANSWER: u8 = b'i';
const EXPIRY: u8 = b'e';
const DEAD: u8 = b'x';

/// Key of an entry of an actor's state.
pub fn state(actor: &ActorRef, user_key: &[u8]) -> Vec<u8> {
    let mut key = of_actor(STATE, actor);
    key.extend_from_slice(user_key);
    key
}

/// All entries of an actor's state.
pub fn states(actor: &ActorRef) -> KeyRange {
    below(of_actor(STATE, actor))
}

/// The entries of an actor's state between two of its own keys.
pub fn states_between(actor: &ActorRef, from: Bound<&[u8]>, to: Bound<&[u8]>) -> KeyRange {
    let (first, last) = states(actor);
    let whole = |user_key: &[u8]| state(actor, user_key);
    let from = match from {
        Bound::Unbounded => first,
        Bound::Included(user_key) => Bound::Included(whole(user_key)),
        Bound::Excluded(user_key) => Bound::Excluded(whole(user_key)),
    };
    let to = match to {
        Bound::Unbounded => last,
        Bound::Included(user_key) => Bound::Included(whole(user_key)),
        Bound::Excluded(user_key) => Bound::Excluded(whole(user_key)),
    };
    (from, to)
}

/// The actor's own key of an entry of its state.
pub fn user_key<'a>(actor: &ActorRef, key: &'a [u8]) -> Option<&'a [u8]> {
    key.strip_prefix(of_actor(STATE, actor).as_slice())
}

/// Key of an actor's record.
pub fn record(actor: &ActorRef) -> Vec<u8> {
    let mut key = of_function(&actor.component, &actor.actor);
    key.extend_from_slice(actor.key.as_bytes());
    key
}

/// Records of all actors of a function, in the order of their keys. `after`: those behind that key.
pub fn records(component: &str, actor: &str, after: Option<&str>) -> KeyRange {
    let (first, last) = below(of_function(component, actor));
    let Some(after) = after else {
        return (first, last);
    };
    let mut from = of_function(component, actor);
    from.extend_from_slice(after.as_bytes());
    (Bound::Excluded(from), last)
}

/// The actor of a record's key.
pub fn record_actor(key: &[u8]) -> Option<ActorRef> {
    let mut parts = Parts::of(RECORD, key)?;
    let (component, actor) = (parts.text()?, parts.text()?);
    let key = String::from_utf8(parts.0.to_vec()).ok()?;
    Some(ActorRef {
        component,
        actor,
        key,
    })
}

/// Key of an actor's alarm. `due_ms`: in Unix milliseconds.
pub fn due(due_ms: u64, actor: &ActorRef) -> Vec<u8> {
    let mut key = with_number(DUE, due_ms);
    push_actor(&mut key, actor);
    key
}

/// All alarms, by the time at which they are due.
pub fn alarms() -> KeyRange {
    below(vec![DUE])
}

/// Alarms that are due at a time.
pub fn due_until(now_ms: u64) -> KeyRange {
    until(DUE, now_ms)
}

/// Time and actor of an alarm's key.
pub fn due_of(key: &[u8]) -> Option<(u64, ActorRef)> {
    let mut parts = Parts::of(DUE, key)?;
    let due_ms = parts.number()?;
    let actor = parts.actor()?;
    parts.end((due_ms, actor))
}

/// Key of a message to an actor of a shard.
pub fn message(to_shard: u32, number: u64) -> Vec<u8> {
    let mut key = with_shard(MESSAGE, to_shard);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Messages to actors of a shard, oldest first.
pub fn messages_to(shard: u32) -> KeyRange {
    below(with_shard(MESSAGE, shard))
}

/// Messages to actors of all shards, by shard.
pub fn messages() -> KeyRange {
    below(vec![MESSAGE])
}

/// Shard and number of a message's key.
pub fn message_of(key: &[u8]) -> Option<(u32, u64)> {
    let mut parts = Parts::of(MESSAGE, key)?;
    let (shard, number) = (parts.shard()?, parts.number()?);
    parts.end((shard, number))
}

/// Key of the number of the shard's next message.
pub fn next_message() -> Vec<u8> {
    vec![NEXT]
}

/// Key of the highest number of a shard's messages that was applied here.
pub fn highest_message(from_shard: u32) -> Vec<u8> {
    with_shard(HIGHEST, from_shard)
}

/// Key of the stored answer of an idempotency key.
pub fn answer(actor: &ActorRef, digest: &[u8]) -> Vec<u8> {
    let mut key = of_actor(ANSWER, actor);
    key.extend_from_slice(digest);
    key
}

/// All stored answers of an actor.
pub fn answers(actor: &ActorRef) -> KeyRange {
    below(of_actor(ANSWER, actor))
}

/// Key of the end of a stored answer's life. `until_ms`: in Unix milliseconds.
pub fn expiry(until_ms: u64, actor: &ActorRef, digest: &[u8]) -> Vec<u8> {
    let mut key = with_number(EXPIRY, until_ms);
    push_actor(&mut key, actor);
    key.extend_from_slice(digest);
    key
}

/// Ends of stored answers that have come at a time.
pub fn expired_until(now_ms: u64) -> KeyRange {
    until(EXPIRY, now_ms)
}

/// Time, actor and digest of the key of an end.
pub fn expiry_of(key: &[u8]) -> Option<(u64, ActorRef, Vec<u8>)> {
    let mut parts = Parts::of(EXPIRY, key)?;
    Some((parts.number()?, parts.actor()?, parts.0.to_vec()))
}

/// Key of a message of an actor that was given up.
pub fn dead_letter(actor: &ActorRef, number: u64) -> Vec<u8> {
    let mut key = of_actor(DEAD, actor);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Messages of an actor that were given up, oldest first.
pub fn dead_letters_of(actor: &ActorRef) -> KeyRange {
    below(of_actor(DEAD, actor))
}

/// Messages of all actors that were given up, by actor.
pub fn dead_letters() -> KeyRange {
    below(vec![DEAD])
}

/// Actor and number of the key of a message that was given up.
pub fn dead_letter_of(key: &[u8]) -> Option<(ActorRef, u64)> {
    let mut parts = Parts::of(DEAD, key)?;
    let (actor, number) = (parts.actor()?, parts.number()?);
    parts.end((actor, number))
}

fn of_actor(kind: u8, actor: &ActorRef) -> Vec<u8> {
    let mut key = vec![kind];
    push_actor(&mut key, actor);
    key
}

fn of_function(component: &str, actor: &str) -> Vec<u8> {
    let mut key = vec![RECORD];
    push_text(&mut key, component);
    push_text(&mut key, actor);
    key
}

fn push_actor(key: &mut Vec<u8>, actor: &ActorRef) {
    for text in [&actor.component, &actor.actor, &actor.key] {
        push_text(key, text);
    }
}

fn push_text(key: &mut Vec<u8>, text: &str) {
    let bytes = u16::try_from(text.len()).expect("names have far less than 64 KiB");
    key.extend_from_slice(&bytes.to_be_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn with_number(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn with_shard(kind: u8, shard: u32) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&shard.to_be_bytes());
    key
}

/// All keys that begin with a prefix, whose first byte is a kind and so never the highest one.
fn below(prefix: Vec<u8>) -> KeyRange {
    let mut end = prefix.clone();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (Bound::Included(prefix), Bound::Excluded(end))
}

/// Keys of a kind with a number up to this one.
fn until(kind: u8, number: u64) -> KeyRange {
    let (_, end) = below(with_number(kind, number));
    (Bound::Included(vec![kind]), end)
}

/// The rest of a key that is read from its beginning.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn of(kind: u8, key: &'a [u8]) -> Option<Self> {
        key.strip_prefix(&[kind]).map(Self)
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    fn shard(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    fn text(&mut self) -> Option<String> {
        let bytes = self.take(2)?.try_into().ok()?;
        let text = self.take(usize::from(u16::from_be_bytes(bytes)))?;
        String::from_utf8(text.to_vec()).ok()
    }

    fn actor(&mut self) -> Option<ActorRef> {
        Some(ActorRef {
            component: self.text()?,
            actor: self.text()?,
            key: self.text()?,
        })
    }

    /// The whole, if nothing is left.
    fn end<T>(self, whole: T) -> Option<T> {
        self.0.is_empty().then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;

    fn actor(component: &str, actor: &str, key: &str) -> ActorRef {
        ActorRef::new(component, actor, key).expect("a valid key")
    }

    /// Actors whose names run into each other without lengths, or differ at their ends.
    fn neighbours() -> Vec<ActorRef> {
        let names = [
            ("bank", "account", "alice"),
            ("bank", "account", "alice2"),
            ("bank", "accounta", "lice"),
            ("banka", "ccount", "alice"),
            ("bank", "account", "al"),
            ("bank", "account", "ü"),
        ];
        let long = "\u{7fff}".repeat(170);
        let mut actors: Vec<_> = names.map(|(a, b, c)| actor(a, b, c)).into();
        actors.push(actor("bank", "account", &long));
        actors
    }

    fn is_in(range: &KeyRange, key: &[u8]) -> bool {
        range.contains(&key.to_vec())
    }

    #[test]
    fn the_keys_of_one_actor_are_a_range_of_their_own() {
        let ranges: [fn(&ActorRef) -> KeyRange; 3] = [states, answers, dead_letters_of];
        type KeyOf = fn(&ActorRef, &[u8]) -> Vec<u8>;
        let keys: [KeyOf; 3] = [state, answer, |actor, _| dead_letter(actor, u64::MAX)];
        for (range, key) in ranges.into_iter().zip(keys) {
            for one in neighbours() {
                for other in neighbours() {
                    for rest in [&b""[..], b"\0", b"\xff\xff\xff", b"name"] {
                        let found = is_in(&range(&one), &key(&other, rest));
                        assert_eq!(found, one == other, "{one} {other} {rest:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_come_back() {
        for actor in neighbours() {
            assert_eq!(record_actor(&record(&actor)), Some(actor.clone()));
            let key = due(7, &actor);
            assert_eq!(due_of(&key), Some((7, actor.clone())));
            let key = expiry(u64::MAX, &actor, b"digest");
            let parts = (u64::MAX, actor.clone(), b"digest".to_vec());
            assert_eq!(expiry_of(&key), Some(parts));
            let key = dead_letter(&actor, 9);
            assert_eq!(dead_letter_of(&key), Some((actor.clone(), 9)));
            let key = state(&actor, b"\0\xffname");
            assert_eq!(user_key(&actor, &key), Some(&b"\0\xffname"[..]));
        }
        assert_eq!(message_of(&message(3, 1 << 40)), Some((3, 1 << 40)));
    }

    #[test]
    fn keys_of_other_kinds_are_not_read() {
        let alice = actor("bank", "account", "alice");
        for key in [state(&alice, b"a"), message(3, 4), next_message(), vec![]] {
            assert_eq!(record_actor(&key), None);
            assert_eq!(due_of(&key), None);
            assert_eq!(dead_letter_of(&key), None);
        }
        assert_eq!(message_of(&message(3, 4)[..12]), None);
        assert_eq!(due_of(&[due(1, &alice), vec![0]].concat()), None);
        assert_eq!(user_key(&alice, &state(&actor("b", "c", "d"), b"a")), None);
    }

    #[test]
    fn alarms_and_ends_sort_by_time() {
        let actors = neighbours();
        let times = [0, 1, 255, 256, 1 << 32, u64::MAX];
        let keys = times.map(|time| due(time, &actors[time as usize % actors.len()]));
        assert!(keys.is_sorted());
        for (at, now) in times.into_iter().enumerate() {
            let range = due_until(now);
            let found = keys.iter().filter(|key| is_in(&range, key)).count();
            assert_eq!(found, at + 1, "{now}");
            let end = expiry(now, &actors[0], b"\xff");
            assert!(is_in(&expired_until(now), &end));
            assert!(now == 0 || !is_in(&expired_until(now - 1), &end));
        }
        assert!(keys.iter().all(|key| is_in(&alarms(), key)));
    }

    #[test]
    fn messages_sort_by_shard_and_number() {
        let places = [(0, 2), (0, 300), (1, 1), (255, 0), (u32::MAX, u64::MAX)];
        let keys = places.map(|(shard, number)| message(shard, number));
        assert!(keys.is_sorted());
        for (shard, _) in places {
            let range = messages_to(shard);
            let found = keys.iter().filter(|key| is_in(&range, key)).count();
            let expected = places.iter().filter(|(other, _)| *other == shard);
            assert_eq!(found, expected.count(), "{shard}");
        }
        assert!(keys.iter().all(|key| is_in(&messages(), key)));
        assert_ne!(highest_message(1), highest_message(2));
    }

    #[test]
    fn actors_are_listed_in_the_order_of_their_keys() {
        let mut keys = ["b", "a", "aa", "ü", "c0", "10"];
        let record_of = |key: &&str| record(&actor("bank", "account", key));
        let range = records("bank", "account", None);
        assert!(keys.iter().all(|key| is_in(&range, &record_of(key))));
        keys.sort_unstable();
        assert!(keys.iter().map(record_of).is_sorted());
        let after = records("bank", "account", Some("aa"));
        let found: Vec<&str> = keys
            .into_iter()
            .filter(|key| is_in(&after, &record_of(key)))
            .collect();
        assert_eq!(found, ["b", "c0", "ü"]);
        let other = record(&actor("bank", "accounts", "a"));
        assert!(!is_in(&range, &other));
    }

    #[test]
    fn a_part_of_the_state_is_read_within_the_actor() {
        let alice = actor("bank", "account", "alice");
        let user_keys: [&[u8]; 5] = [b"", b"a", b"b", b"b\xff", b"\xff\xff"];
        let found = |from: Bound<&[u8]>, to: Bound<&[u8]>| {
            let range = states_between(&alice, from, to);
            let user_keys = user_keys.iter();
            let of_alice = user_keys.filter(|key| is_in(&range, &state(&alice, key)));
            let others = neighbours().into_iter().filter(|other| *other != alice);
            let mut others = others.map(|other| state(&other, b"b"));
            assert!(!others.any(|key| is_in(&range, &key)));
            of_alice.count()
        };
        assert_eq!(found(Bound::Unbounded, Bound::Unbounded), 5);
        assert_eq!(found(Bound::Excluded(b"a"), Bound::Unbounded), 3);
        assert_eq!(found(Bound::Included(b"a"), Bound::Excluded(b"b\xff")), 2);
        assert_eq!(found(Bound::Unbounded, Bound::Included(b"b")), 3);
    }
}
