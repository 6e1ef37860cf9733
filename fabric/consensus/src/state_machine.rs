//! What this crate needs from the state that it replicates.

/// Makes the bytes of a state that a state machine took hold of.
pub type Capture = Box<dyn FnOnce() -> Vec<u8> + Send>;

/// The replicated state: fed the same commands in the same order on every member.
///
/// All methods run on the member's thread, so a slow one delays heartbeats. `apply` must depend on nothing but the state and
/// its arguments, or the members drift apart.
pub trait StateMachine: Send + 'static {
    /// Applies one committed command and returns the answer for whoever proposed it.
    ///
    /// `index` grows with every call, with gaps: Raft keeps some entries for itself. After a restart the commands behind the
    /// newest snapshot are applied again, to a state machine that was restored from it or is new.
    ///
    /// An error stops the member, before anything was changed: a command that it cannot read and passed over would let its
    /// state differ from that of the others.
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Vec<u8>, String>;

    /// Takes hold of the whole state as it is now. What it returns makes bytes of it, on another thread,
    /// while commands go on being applied.
    fn snapshot(&self) -> Capture;

    /// Replaces the whole state by what `snapshot` returned, here or on another member.
    ///
    /// An error stops the member: it cannot know its own state any more.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String>;

    /// Reports that this member leads in this term and has applied everything of earlier ones, or that it leads no more.
    ///
    /// A leader that is cut off hears it up to one election timeout late.
    fn leadership(&mut self, _term: Option<u64>) {}
}
