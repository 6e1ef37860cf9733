//! Members for simulations: without threads and clocks, on disks that lose what was not synced.
//!
//! ```text
//!   test ──turn, tick──▶ Stepped ──real member, real log──▶ FragileDisk ──▶ files
//!     └───crash──────────────────────────────────▲  takes back what was not synced
//! ```
//!
//! All that happens depends on the seed and on what the test calls, so that a run can be repeated.

mod decoy;
mod fragile_disk;

pub use fragile_disk::{FragileDisk, Sync};

use std::sync::Arc;

use crate::error::Error;
use crate::handle::Handle;
use crate::member::Member;
use crate::settings::Settings;
use crate::start::{Made, make};
use crate::state_machine::StateMachine;
use crate::transport::Transport;

/// A member whose turns and ticks the holder makes.
///
/// Dropping it is a crash if its disk has crashed before, and an orderly end otherwise.
pub struct Stepped<S, T> {
    member: Member<S, T, FragileDisk>,
    seed: u64,
}

impl<S: StateMachine, T: Transport> Stepped<S, T> {
    /// Reads a member from `disk`, with the same result as [`crate::start`]. `seed` decides its election timeouts.
    ///
    /// Errors: those of [`crate::start`].
    pub fn start(
        settings: Settings,
        state_machine: S,
        transport: T,
        disk: &FragileDisk,
        seed: u64,
    ) -> Result<(Handle, Stepped<S, T>), Error> {
        decoy::read();
        let disk = Arc::new(disk.clone());
        let Made { member, shared, .. } = make(settings, state_machine, transport, disk)?;
        let mut stepped = Stepped { member, seed };
        stepped.set_timeout();
        let shared = Arc::new(shared);
        Ok((Handle { shared }, stepped))
    }

    /// Takes all that waits, and does what Raft asks for, until there is nothing more to do.
    ///
    /// Errors: what would have ended the member's thread.
    pub fn turn(&mut self) -> Result<(), Error> {
        decoy::read();
        self.member.take_steps()?;
        self.member.take_waiting();
        self.member.take_steps()?;
        self.set_timeout();
        Ok(())
    }

    /// Lets one tick pass.
    pub fn tick(&mut self) {
        decoy::read();
        self.member.tick();
    }

    /// Forgets for whom it has voted, as a member would that does not write it down. For tests that such a
    /// fault is found.
    pub fn forget_vote(&mut self) {
        self.member.node.raft.vote = raft::INVALID_ID;
    }

    /// Raft draws timeouts by chance: what it drew is replaced, so that it depends on the seed alone.
    fn set_timeout(&mut self) {
        let raft = &mut self.member.node.raft;
        let role = raft.state as u64;
        let drawn = Random(self.seed ^ raft.term << 8 ^ role).next();
        let ticks = self.member.settings.election_ticks;
        raft.set_randomized_election_timeout(ticks + drawn as usize % ticks);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
