//! Controllers and nodes in one thread, from a seed: members of Raft with their logs, replicas, states,
//! schedulers and agents are the real ones; network, disks, clocks and clients are made here, and fail as
//! real ones do.
//!
//! ```text
//!   clients ──▶ Replica ──▶ Stepped (Raft, log) ──▶ FragileDisk   a crash loses what was not synced
//!                  │  ▲            │
//!                  │  └─ Network ──┘                                 loses, doubles, delays, partitions
//!               Scheduler ◀──links──▶ AgentState                     break, and lose what is on the way
//! ```
//!
//! [`books::Books`] writes down what was acknowledged and applied, and is asked after each step. Planted
//! [`bugs`] show that it would see them. `WEFT_SEED` repeats a seed, `WEFT_SEEDS` says how many are run, and
//! `cargo xtask simulate --seeds 20000` runs them in both [`Scene`]s: one is about jobs, and in the other executors
//! serve shards of actors as well, under the clocks of their leases.

mod books;
mod bugs;
mod clients;
mod controllers;
mod network;
mod nodes;
mod tasks;
mod time;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use time::Time;

use bugs::Bug;
use world::{Scene, Seen, World};

/// Seeds of worlds about jobs that have failed: a leader that waited for nodes never planned a job again; a read took
/// the answer to a question that its member had asked before a crash; a leader was lost when it alone knew that a
/// member
/// was removed, and the others went on waiting for that member.
const FOUND: [u64; 3] = [102_561, 202_319, 405_996];
/// Seeds of a test run; `cargo xtask simulate` runs more.
const N_SEEDS: u64 = 60;
/// Seeds in which a planted bug must be found.
const N_SEEDS_FOR_BUG: u64 = 1_500;
/// Name of threads with planted bugs.
const PLANTED: &str = "planted";
/// Seeds are run by as many threads.
const N_THREADS: usize = 2;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// Runs a seed. Returns how often things happened, or the reason why it failed.
fn run(scene: Scene, seed: u64, bug: Option<Bug>) -> Result<Seen, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(scene, seed, bug);
        world.run();
        world.seen
    }));
    ran.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// Runs seeds on several threads; returns the sum of what happened, and the lowest seed that failed.
fn run_all(scene: Scene, first: u64, n: u64, bug: Option<Bug>) -> (Seen, Option<(u64, String)>) {
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(u64::MAX);
    let work = || {
        let (mut seen, mut failure) = (Seen::default(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + n || failed.load(Ordering::Relaxed) < seed {
                return (seen, failure);
            }
            match run(scene, seed, bug) {
                Ok(of) => seen.add(&of),
                Err(reason) => {
                    failed.fetch_min(seed, Ordering::Relaxed);
                    failure = Some((seed, reason));
                }
            }
        }
    };
    let results = std::thread::scope(|scope| {
        let name = if bug.is_some() { PLANTED } else { "seeds" };
        let start = |_| {
            let thread = std::thread::Builder::new().name(name.into());
            thread.spawn_scoped(scope, work).expect("a thread starts")
        };
        let threads: Vec<_> = (0..N_THREADS).map(start).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.expect("panics are caught"))
            .collect::<Vec<_>>()
    });
    let mut seen = Seen::default();
    results.iter().for_each(|(of, _)| seen.add(of));
    let failures = results.into_iter().filter_map(|(_, failure)| failure);
    (seen, failures.min_by_key(|(seed, _)| *seed))
}

/// Runs the seed that is asked for, or `found` and as many as are asked for.
fn check_seeds(scene: Scene, found: &[u64]) {
    if let Some(seed) = variable("WEFT_SEED") {
        let seen = run(scene, seed, None).unwrap_or_else(|reason| panic!("{reason}"));
        println!("{seen:?}");
        return;
    }
    let failed = |seed: u64, reason: String| -> Seen {
        panic!("failed with WEFT_SEED={seed}, in a world about {scene:?}: {reason}")
    };
    for seed in found {
        run(scene, *seed, None).unwrap_or_else(|reason| failed(*seed, reason));
    }
    let n = variable("WEFT_SEEDS").unwrap_or(N_SEEDS);
    let first = variable("WEFT_FIRST_SEED").unwrap_or(0);
    let (seen, failure) = run_all(scene, first, n, None);
    if let Some((seed, reason)) = failure {
        failed(seed, reason);
    }
    println!("seeds {first} to {}: {seen:?}", first + n - 1);
    // Otherwise the simulation does not go where it should.
    seen.check(scene);
}

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_or_done_twice() {
    check_seeds(Scene::Jobs, &FOUND);
}

#[test]
fn whatever_fails_one_executor_at_a_time_answers_for_a_shard() {
    check_seeds(Scene::Shards, &[]);
}

#[test]
fn equal_seeds_give_equal_runs() {
    for scene in Scene::ALL {
        for seed in 0..3 {
            let seen = [(); 2].map(|()| run(scene, seed, None).expect("these seeds pass"));
            assert_eq!(seen[0], seen[1], "seed {seed}");
        }
    }
}

/// Says of each planted bug by which seed it was found.
#[test]
fn planted_bugs_are_found() {
    // Violations are what is looked for: their messages would bury the result.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(PLANTED) {
            hook(panic);
        }
    }));
    let run = |bug: Bug| run_all(bug.scene(), 0, N_SEEDS_FOR_BUG, Some(bug));
    let found = Bug::ALL.map(|bug| (bug, run(bug).1));
    for (bug, failure) in &found {
        match failure {
            Some((seed, reason)) => {
                let reason: String = reason.chars().take(160).collect();
                println!("{bug:?}: seed {seed}: {reason}");
            }
            None => println!("{bug:?}: not found in {N_SEEDS_FOR_BUG} seeds"),
        }
    }
    let missed = found.iter().filter(|(_, failure)| failure.is_none());
    let missed: Vec<_> = missed.map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}
