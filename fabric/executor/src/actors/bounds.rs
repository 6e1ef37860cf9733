//! Bounds of actors: of what one turn may do, of what waits, and of what is kept in memory.

use std::time::Duration;

/// Turns that run at a time: one thread each.
pub(super) const MAX_TURNS: usize = 128;
/// Turns that wait for other actors at a time. The rest of the threads serve whom they wait for.
pub(super) const MAX_WAITING_TURNS: usize = 96;
/// Requests that wait for turns, of one actor.
pub(super) const MAX_MAILBOX: usize = 256;
/// Requests that wait for turns, of all actors.
pub(super) const MAX_WAITING: usize = 8_192;
/// Time of a turn that nobody outside waits for.
pub(super) const TURN_WALL: Duration = Duration::from_secs(30);
/// Time that a sender waits for a message beyond the time of its turn: its way, and the turns before it.
pub(super) const MESSAGE_GRACE: Duration = Duration::from_secs(15);

/// Time that an alarm waits for its turn. It waits behind all that waits for its actor, and might never come to its
/// turn if it gave up and began anew.
pub(super) const ALARM_WAIT: Duration = Duration::from_secs(600);

/// Instances of idle actors. A process has 512 sandboxes: turns, invocations and tasks take the others.
pub(super) const MAX_RESIDENTS: usize = 192;
/// Memory of instances of idle actors.
pub(super) const MAX_RESIDENT_BYTES: u64 = 2 << 30;
/// Time after which an idle instance goes.
pub(super) const RESIDENT_IDLE: Duration = Duration::from_secs(60);
/// A shard that fails within this time of its opening may hold what it fails of.
pub(super) const SHORT_LIFE: Duration = Duration::from_secs(10);
/// Bytes of batches that wait for the writer of a shard, beyond which no turn begins.
pub(super) const MAX_BACKLOG_BYTES: usize = 64 << 20;
/// Time after which a shard without turns, alarms and messages is closed.
pub(super) const SHARD_IDLE: Duration = Duration::from_secs(30);

/// Bytes of a key of the state.
pub(super) const MAX_KEY_BYTES: usize = 1 << 10;
/// Bytes of a value of the state.
pub(super) const MAX_VALUE_BYTES: usize = 1 << 20;
/// Keys that one turn writes.
pub(super) const MAX_WRITES: usize = 1_000;
/// Bytes that one turn writes: keys, values and inputs of messages.
pub(super) const MAX_WRITE_BYTES: usize = 4 << 20;
/// Entries that one scan returns.
pub(super) const MAX_SCAN_ENTRIES: usize = 1_000;
/// Bytes that one scan returns.
pub(super) const MAX_SCAN_BYTES: usize = 4 << 20;

/// Messages that one turn sends.
pub(super) const MAX_MESSAGES: usize = 100;
/// Messages that wait in the outbox of a shard.
pub(super) const MAX_OUTBOX: usize = 10_000;
/// Refusals of a message's receiver after which the message is given up.
pub(super) const MAX_MESSAGE_ATTEMPTS: u32 = 5;
/// Messages of a shard that were given up and are kept for people.
pub(super) const MAX_DEAD_LETTERS: usize = 100;

/// Time between two alarms of one actor, in milliseconds.
pub(super) const ALARM_GAP_MS: u64 = 10;
/// Alarms of a shard that fire at a time.
pub(super) const MAX_ALARMS_AT_ONCE: usize = 64;
/// Failures of an alarm after which it is given up.
pub(super) const MAX_ALARM_ATTEMPTS: u32 = 10;

/// Entries of an actor that are counted for people. Beyond it they get no number.
pub(super) const MAX_COUNTED: usize = 100_000;
/// Keys that are removed as one when an actor is deleted. Few in tests, so that they are more than one batch.
pub(super) const MAX_DELETES: usize = if cfg!(test) { 100 } else { 10_000 };
