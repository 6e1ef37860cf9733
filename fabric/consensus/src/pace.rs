//! When a member writes a snapshot.
//!
//! A snapshot is the whole state, so one every so many entries costs more the larger the state is: a job of 100,000 tasks
//! would be written out for every thousand of its commits. Snapshots are therefore due by entries and by bytes: the log
//! behind the last one has grown to a multiple of its size. What all snapshots cost is then a fraction of what was logged,
//! and what a start replays stays a multiple of what it loads.

/// Bytes of log behind a snapshot for each byte of it.
const LOG_BYTES_PER_SNAPSHOT_BYTE: u64 = 4;
/// Snapshots up to this size are due by entries alone.
const SMALL_SNAPSHOT_BYTES: u64 = 256 << 10;

/// The last snapshot, and the entries applied since.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Index of the last entry that the snapshot holds, 0 without one.
    pub(crate) snapshot_index: u64,
    snapshot_bytes: u64,
    log_bytes: u64,
}

impl Pace {
    /// A snapshot of `bytes` bytes holds the entries up to `index`.
    pub(crate) fn new(index: u64, bytes: usize) -> Pace {
        Pace {
            snapshot_index: index,
            snapshot_bytes: bytes as u64,
            log_bytes: 0,
        }
    }

    /// A snapshot was taken of the state as of now, and is being written: what is logged from here on is
    /// behind it.
    pub(crate) fn taken(&mut self) {
        self.log_bytes = 0;
    }

    /// The snapshot that was taken is written: `bytes` bytes hold the entries up to `index`.
    pub(crate) fn written(&mut self, index: u64, bytes: usize) {
        self.snapshot_index = index;
        self.snapshot_bytes = bytes as u64;
    }

    /// Counts an applied entry of `bytes` bytes.
    pub(crate) fn entry(&mut self, bytes: usize) {
        self.log_bytes += bytes as u64;
    }

    /// Whether a snapshot is due once `applied` entries are applied and one is wanted `every` entries.
    pub(crate) fn is_due(&self, applied: u64, every: u64) -> bool {
        let large_bytes = self.snapshot_bytes.saturating_sub(SMALL_SNAPSHOT_BYTES);
        applied - self.snapshot_index >= every
            && self.log_bytes >= large_bytes.saturating_mul(LOG_BYTES_PER_SNAPSHOT_BYTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of all snapshots of a state that keeps every byte of `n` entries.
    fn snapshots_of(n: u64, entry_bytes: usize) -> Vec<usize> {
        let (mut pace, mut state_bytes, mut written) = (Pace::default(), 0, Vec::new());
        for index in 1..=n {
            state_bytes += entry_bytes;
            pace.entry(entry_bytes);
            if pace.is_due(index, 1_000) {
                written.push(state_bytes);
                pace = Pace::new(index, state_bytes);
            }
        }
        written
    }

    #[test]
    fn a_small_state_is_written_by_entries() {
        assert_eq!(
            snapshots_of(2_500, 100),
            [100_000, 200_000],
            "one every 1,000 entries"
        );
    }

    #[test]
    fn snapshots_of_a_state_that_grows_are_few() {
        let (n, entry_bytes) = (100_000, 1_000);
        let written: usize = snapshots_of(n, entry_bytes).iter().sum();
        let logged = n as usize * entry_bytes;
        assert!(
            written < 2 * logged,
            "{written} bytes of snapshots for {logged} bytes of log"
        );
    }
}
