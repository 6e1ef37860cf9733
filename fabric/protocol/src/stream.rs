//! Flow control of invocations that stream: each side holds at most one window of bytes that the
//! other has not taken.

/// Bytes in flight in one direction of one invocation.
pub const WINDOW_BYTES: usize = 1 << 20;
/// Bytes of one piece.
pub const PIECE_BYTES_MAX: usize = 256 << 10;
/// Least weight of a piece: small ones take room as well.
pub const PIECE_WEIGHT_MIN: usize = 1 << 10;
/// Pieces in flight in one direction of one invocation.
pub const PIECES_MAX: usize = WINDOW_BYTES / PIECE_WEIGHT_MIN;

/// Returns how much of a window a piece of so many bytes takes.
pub fn piece_weight(bytes: usize) -> usize {
    bytes.max(PIECE_WEIGHT_MIN)
}
