//! The scheduler among agents and a log that do at random what real ones do: leadership is lost and
//! won between any two messages, executors and agents die, links break, proposals are refused.
//!
//! Nothing here depends on anything but the seed. `WEFT_SEED` repeats one.

pub(crate) mod node;
pub(crate) mod random;
pub(crate) mod serving;
pub(crate) mod world;

use weft_control::State;
use weft_core::{JobId, TenantId};
use world::World;

use super::io::Now;
use super::why::WhyOf;
use super::{Scheduler, Turn};

const N_SEEDS: u64 = 60;
const N_STEPS: usize = 3_000;

/// The seed that is asked for, or some that are always the same and some that never are.
fn seeds() -> Vec<u64> {
    if let Ok(seed) = std::env::var("WEFT_SEED") {
        return vec![seed.parse().expect("WEFT_SEED is a number")];
    }
    let new = u64::from(std::process::id()) << 32;
    (0..N_SEEDS).chain(new..new + N_SEEDS).collect()
}

impl Scheduler {
    /// Says why a job is where it is, as far as this scheduler knows, for whoever reads a failed run.
    pub(crate) fn explain(
        &self,
        state: &State,
        now: Now,
        tenant: &TenantId,
        job: &JobId,
    ) -> String {
        let out = Vec::new();
        let turn = Turn { state, now, out };
        let of = WhyOf {
            job: job.clone(),
            stage: None,
            task: None,
        };
        format!("{:?}", self.why(&turn, tenant, Some(&of)))
    }
}

/// Says which seed it was if a run fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with WEFT_SEED={}", self.0);
        }
    }
}

#[test]
fn whoever_leads_nothing_finished_is_redone_and_nothing_is_lost() {
    let mut seen = world::Seen::default();
    for seed in seeds() {
        let seed = Seed(seed);
        let mut world = World::new(seed.0);
        for _ in 0..N_STEPS {
            world.step();
        }
        world.settle();
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    // Otherwise the simulation does not go where it should.
    if std::env::var("WEFT_SEED").is_err() {
        seen.check();
    }
}

/// A node on which everything fails at once is idle, and yet not given every task.
#[test]
fn a_broken_node_does_not_fail_jobs() {
    for seed in 0..20 {
        let seed = Seed(seed);
        let mut world = World::without_faults(seed.0);
        world.break_node("a");
        for _ in 0..N_STEPS {
            world.step();
        }
        world.settle();
        assert_eq!(world.n_failed(), 0, "jobs that failed");
    }
}

/// Each task of each job is explained, by what the state and the nodes say of it.
#[test]
fn every_task_is_explained() {
    let mut n_explained = 0;
    for seed in 0..10 {
        let seed = Seed(seed);
        let mut world = World::new(seed.0);
        for _ in 0..N_STEPS / 50 {
            for _ in 0..50 {
                world.step();
            }
            n_explained += world.explain_all();
        }
    }
    assert!(n_explained > 1_000, "{n_explained} tasks were explained");
}

/// A leader that is never lost, and executors that never die: nothing is done twice.
#[test]
fn without_faults_each_task_has_one_attempt() {
    for seed in 0..10 {
        let seed = Seed(seed);
        let mut world = World::without_faults(seed.0);
        for _ in 0..N_STEPS {
            world.step();
        }
        world.settle();
        assert_eq!(world.seen.attempts, world.seen.tasks, "attempts of tasks");
    }
}
