//! Renewals of the leases under which executors serve shards of actors.
//!
//! ```text
//! agent ──Renew(round), at `sent`──▶ leader: leads it still? ──Renewed(round, leases that stand)──▶ agent
//! agent ──Lease(until: sent + ACTOR_LEASE, confirmed)──▶ each executor that it names
//! ```
//!
//! A lease stands for a time from the *question*: however long the answer took, the leader was heard to lead after the
//! question had left, and gives the node up no sooner than that time is over. Time comes in as nanoseconds of the
//! machine's clock since it booted, which runs on while the machine sleeps.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_core::Epoch;
use weft_protocol::{ACTOR_LEASE, RENEW_PERIOD, ToExecutor};

/// Questions without an answer that are remembered.
const MAX_ROUNDS: usize = 64;
/// Questions without an answer from which on executors wait for the next one that is due: the answers to those that
/// were asked must find them remembered, however often executors ask for another one.
const MAX_HASTY_ROUNDS: usize = MAX_ROUNDS / 2;
/// Time between two renewals, however often executors ask for one.
const CONFIRM_PAUSE: Duration = Duration::from_millis(5);

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A question that may be answered.
struct Round {
    sent_ns: u64,
    /// Confirmations that executors had asked for by then.
    confirms: BTreeMap<Epoch, u64>,
}

/// Renewals of one agent.
#[derive(Default)]
pub(crate) struct Renewals {
    /// Number of the last question, and when it was sent.
    last: u64,
    last_ns: Option<u64>,
    open: BTreeMap<u64, Round>,
    /// The highest number that each executor asks to have confirmed.
    confirms: BTreeMap<Epoch, u64>,
    /// Somebody waits for the next one.
    wanted: bool,
}

impl Renewals {
    /// Has the next renewal made as soon as may be.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// An executor wants to know that its lease stands from now on.
    pub(crate) fn confirm(&mut self, executor: Epoch, number: u64) {
        let highest = self.confirms.entry(executor).or_default();
        if number > *highest {
            *highest = number;
            self.wanted = true;
        }
    }

    /// An executor is gone.
    pub(crate) fn forget(&mut self, executor: Epoch) {
        self.confirms.remove(&executor);
    }

    /// Time until the next question is due.
    pub(crate) fn due_in(&self, now_ns: u64) -> Duration {
        let pause = match self.wanted && self.open.len() < MAX_HASTY_ROUNDS {
            true => CONFIRM_PAUSE,
            false => RENEW_PERIOD,
        };
        let due_ns = self.last_ns.map_or(0, |last| last + nanoseconds(pause));
        Duration::from_nanos(due_ns.saturating_sub(now_ns))
    }

    /// Returns the number of the question that is to be sent now.
    pub(crate) fn ask(&mut self, now_ns: u64) -> u64 {
        self.last += 1;
        self.last_ns = Some(now_ns);
        self.wanted = false;
        let round = Round {
            sent_ns: now_ns,
            confirms: self.confirms.clone(),
        };
        self.open.insert(self.last, round);
        if self.open.len() > MAX_ROUNDS {
            self.open.pop_first();
        }
        self.last
    }

    /// An answer has come: what each executor that it names is told. An answer to a question that is forgotten, or that
    /// was answered, is none.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        executors: Vec<Epoch>,
    ) -> Vec<(Epoch, ToExecutor)> {
        let Some(round) = self.open.remove(&number) else {
            return Vec::new();
        };
        // Answers to earlier questions would say less.
        self.open = self.open.split_off(&number);
        let until_ns = round.sent_ns.saturating_add(nanoseconds(ACTOR_LEASE));
        let lease = |executor: Epoch| {
            let confirmed = round.confirms.get(&executor).copied().unwrap_or(0);
            let lease = ToExecutor::Lease {
                until_ns,
                confirmed,
            };
            (executor, lease)
        };
        executors.into_iter().map(lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn leases(told: Vec<(Epoch, ToExecutor)>) -> Vec<(Epoch, u64, u64)> {
        let lease = |(executor, message): (Epoch, ToExecutor)| match message {
            ToExecutor::Lease {
                until_ns,
                confirmed,
            } => (executor, until_ns, confirmed),
            other => panic!("an executor is told {other:?}"),
        };
        told.into_iter().map(lease).collect()
    }

    #[test]
    fn a_lease_stands_from_the_question_on() {
        let mut renewals = Renewals::default();
        let first = renewals.ask(1_000 * MS);
        let second = renewals.ask(1_400 * MS);
        // However late the answer comes.
        let told = leases(renewals.answered(second, vec![Epoch(7), Epoch(9)]));
        let until_ns = 3_400 * MS;
        assert_eq!(told, [(Epoch(7), until_ns, 0), (Epoch(9), until_ns, 0)]);
        assert!(renewals.answered(second, vec![Epoch(7)]).is_empty());
        assert!(renewals.answered(first, vec![Epoch(7)]).is_empty());
        assert!(renewals.answered(99, vec![Epoch(7)]).is_empty());
    }

    #[test]
    fn a_renewal_confirms_what_was_asked_before_it() {
        let mut renewals = Renewals::default();
        renewals.confirm(Epoch(7), 2);
        let before = renewals.ask(MS);
        renewals.confirm(Epoch(7), 3);
        renewals.confirm(Epoch(7), 1);
        let told = leases(renewals.answered(before, vec![Epoch(7), Epoch(8)]));
        let numbers: Vec<u64> = told.iter().map(|(_, _, confirmed)| *confirmed).collect();
        assert_eq!(numbers, [2, 0]);
        let after = renewals.ask(10 * MS);
        assert_eq!(leases(renewals.answered(after, vec![Epoch(7)]))[0].2, 3);
        // The next life of a number would be another executor's.
        renewals.forget(Epoch(7));
        let gone = renewals.ask(20 * MS);
        assert_eq!(leases(renewals.answered(gone, vec![Epoch(7)]))[0].2, 0);
    }

    #[test]
    fn renewals_come_in_time_and_at_once_where_one_is_wanted() {
        let mut renewals = Renewals::default();
        assert_eq!(renewals.due_in(5_000 * MS), Duration::ZERO);
        renewals.ask(5_000 * MS);
        assert_eq!(renewals.due_in(5_000 * MS), RENEW_PERIOD);
        assert_eq!(renewals.due_in(5_300 * MS), Duration::from_millis(100));
        renewals.confirm(Epoch(7), 1);
        assert_eq!(renewals.due_in(5_300 * MS), Duration::ZERO);
        renewals.ask(5_300 * MS);
        // One that asks without end is held back; what was asked before is asked already.
        renewals.confirm(Epoch(7), 1);
        assert_eq!(renewals.due_in(5_300 * MS), RENEW_PERIOD);
        renewals.confirm(Epoch(7), 2);
        assert_eq!(renewals.due_in(5_300 * MS), CONFIRM_PAUSE);
    }

    /// An executor that asks without end must not have the lease of all others lapse.
    #[test]
    fn answers_that_take_long_are_remembered_however_often_executors_ask() {
        let mut renewals = Renewals::default();
        let (mut now_ns, mut number) = (0, 0);
        let mut asked = Vec::new();
        while now_ns < nanoseconds(ACTOR_LEASE) {
            number += 1;
            renewals.confirm(Epoch(7), number);
            now_ns += nanoseconds(renewals.due_in(now_ns));
            asked.push(renewals.ask(now_ns));
        }
        // The first answer comes when its question's lease would be over.
        let told = renewals.answered(asked[0], vec![Epoch(8)]);
        assert_eq!(told.len(), 1, "{} questions were asked", asked.len());
        assert_eq!(renewals.answered(asked[1], vec![Epoch(8)]).len(), 1);
    }

    #[test]
    fn questions_without_answers_are_forgotten() {
        let mut renewals = Renewals::default();
        let first = renewals.ask(1);
        for _ in 0..MAX_ROUNDS {
            renewals.ask(2);
        }
        assert!(renewals.answered(first, vec![Epoch(7)]).is_empty());
        assert_eq!(renewals.open.len(), MAX_ROUNDS);
        let last = renewals.last;
        assert_eq!(renewals.answered(last, vec![Epoch(7)]).len(), 1);
        assert!(renewals.open.is_empty());
    }
}
