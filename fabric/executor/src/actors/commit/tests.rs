use std::collections::BTreeMap;

use weft_core::ErrorCode;

use super::super::outbox::Room;
use super::*;

const NOW: u64 = 1_000_000;

fn actor(key: &str) -> ActorRef {
    ActorRef::new("bank", "account", key).expect("a valid key")
}

fn effects(alarm: Option<Option<u64>>) -> Effects {
    let mut effects = Effects::none(Room::default().reserve());
    effects.alarm = alarm;
    effects
}

/// Commits of an actor whose record says this.
fn commit(record: &Record, effects: Effects, is_alarm: bool) -> (Commit, Record) {
    let end = TurnEnd {
        actor: &actor("a"),
        record,
        label: "bank@1.0.0/account",
        now_ms: NOW,
        is_alarm,
    };
    end.commit(effects)
}

/// Entries after the changes of a commit: of one key the last counts.
fn after(commit: &Commit) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    commit.changes.iter().cloned().collect()
}

#[test]
fn a_turn_without_effects_commits_nothing() {
    let record = Record {
        turns: 3,
        alarm_ms: Some(NOW + 1),
        ..Record::default()
    };
    let (commit, after) = commit(&record, effects(None), false);
    assert!(commit.is_empty());
    assert_eq!(after, record);
}

#[test]
fn a_turn_commits_its_writes_with_its_record_and_its_messages() {
    let mut effects = effects(None);
    effects.writes.insert(b"k".to_vec(), Some(b"v".to_vec()));
    effects.writes.insert(b"gone".to_vec(), None);
    effects.messages.push(Message {
        from: actor("a"),
        to: actor("b"),
        method: "m".into(),
        input: vec![1],
    });
    let (mut commit, record) = commit(&Record::default(), effects, false);
    assert_eq!((record.turns, record.changed_ms), (1, NOW));
    let entries = after(&commit);
    assert_eq!(entries.len(), 3);
    let state = |key: &[u8]| entries.get(&keys::state(&actor("a"), key));
    assert_eq!(state(b"k"), Some(&Some(b"v".to_vec())));
    assert_eq!(state(b"gone"), Some(&None));
    let stored = entries.get(&keys::record(&actor("a")));
    assert_eq!(stored, Some(&Some(encode(&record))));
    // The message, its number, and the number of the message that the turn was.
    commit.mark = Some(MessageId {
        shard: 2,
        number: 8,
    });
    let (batch, next) = commit.batch(40);
    assert_eq!((batch.len(), next), (6, 41));
}

#[test]
fn an_alarm_is_one_entry_that_moves() {
    let set = |at| effects(Some(at));
    let (first, record) = commit(&Record::default(), set(Some(NOW + 50)), false);
    assert_eq!(record.alarm_ms, Some(NOW + 50));
    assert!(after(&first).contains_key(&keys::due(NOW + 50, &actor("a"))));
    let (second, record) = commit(&record, set(Some(NOW + 90)), false);
    let entries = after(&second);
    assert_eq!(entries.get(&keys::due(NOW + 50, &actor("a"))), Some(&None));
    assert!(entries[&keys::due(NOW + 90, &actor("a"))].is_some());
    assert_eq!(second.alarm_ms, Some(NOW + 90));
    let (same, record) = commit(&record, set(Some(NOW + 90)), false);
    assert!(!after(&same).contains_key(&keys::due(NOW + 90, &actor("a"))));
    let (cleared, record) = commit(&record, set(None), false);
    assert_eq!(record.alarm_ms, None);
    let entries = after(&cleared);
    assert_eq!(entries.get(&keys::due(NOW + 90, &actor("a"))), Some(&None));
}

#[test]
fn alarms_are_not_in_the_past_and_not_all_the_time() {
    let (_, record) = commit(&Record::default(), effects(Some(Some(5))), false);
    assert_eq!(record.alarm_ms, Some(NOW));
    let (fired, record) = commit(&record, effects(Some(Some(NOW))), true);
    assert_eq!(record.alarm_ms, Some(NOW + ALARM_GAP_MS));
    assert_eq!(after(&fired).get(&keys::due(NOW, &actor("a"))), Some(&None));
    // A turn that is none sets it anew, and it is no earlier.
    let (_, record) = commit(&record, effects(Some(Some(NOW))), false);
    assert_eq!(record.alarm_ms, Some(NOW + ALARM_GAP_MS));
    let (fired, record) = commit(&record, effects(None), true);
    assert_eq!((record.alarm_ms, fired.is_empty()), (None, false));
    // The one before fired by a clock that was a year ahead.
    let record = Record {
        fired_ms: NOW + 365 * 24 * 3_600_000,
        ..record
    };
    let (_, record) = commit(&record, effects(Some(Some(5))), false);
    assert_eq!(record.alarm_ms, Some(NOW + ALARM_GAP_MS));
}

#[test]
fn a_failed_alarm_comes_again_and_is_given_up_in_the_end() {
    let problem = Problem::new(ErrorCode::GuestError, "no");
    let mut record = Record {
        alarm_ms: Some(NOW),
        ..Record::default()
    };
    for pause_s in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
        let fired_ms = record.alarm_ms.expect("it is set");
        let commit = failed_alarm(&actor("a"), &record, &problem, fired_ms);
        let entries = after(&commit);
        let before = keys::due(fired_ms, &actor("a"));
        assert_eq!(entries.get(&before), Some(&None));
        let stored = entries[&keys::record(&actor("a"))].as_ref();
        record =
            super::super::stored::decode("record", stored.expect("it is kept")).expect("it is one");
        assert_eq!(record.alarm_ms, Some(fired_ms + pause_s * 1_000));
        assert!(commit.dead.is_none());
    }
    let commit = failed_alarm(&actor("a"), &record, &problem, NOW);
    let (sender, letter) = commit.dead.expect("it is given up");
    assert_eq!((sender, letter.method.as_str()), (actor("a"), "alarm"));
    assert_eq!(commit.alarm_ms, None);
}

#[test]
fn a_kept_answer_has_one_end() {
    let answer = KeptAnswer::new("d".into(), 500, &Ok(vec![1]));
    let kept = Kept {
        answer,
        replaces: Some(100),
    };
    let mut commit = Commit::default();
    commit.keep(&actor("a"), b"key", &kept);
    let entries = after(&commit);
    let ends = [100, 500].map(|until| entries[&keys::expiry(until, &actor("a"), b"key")].is_some());
    assert_eq!(ends, [false, true]);
    assert!(entries[&keys::answer(&actor("a"), b"key")].is_some());
}
