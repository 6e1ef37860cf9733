use weft::prelude::*;

/// Calls `word` with the ends of each word of the line, in order, until it fails. Words are what `split(' ')` gives: an
/// empty line holds one empty word, and two spaces hold one between them.
///
/// Spaces are looked for in 64 bytes at a time, because a search that stops at each space costs more than a short word.
#[inline(always)]
pub(crate) fn each_word(
    line: &[u8],
    mut word: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let mut start = 0;
    for (block, bytes) in line.chunks(64).enumerate() {
        let mut spaces = spaces_in(bytes);
        while spaces != 0 {
            let end = 64 * block + spaces.trailing_zeros() as usize;
            word(start, end)?;
            start = end + 1;
            spaces &= spaces - 1;
        }
    }
    word(start, line.len())
}

/// Fewer than eight bytes of a line as a number, the first one lowest. Reads eight where the line has them, and drops
/// what is not asked for.
#[inline(always)]
pub(crate) fn number(line: &[u8], start: usize, end: usize) -> u64 {
    let n_bits = 8 * (end - start) as u32;
    if let Some(eight) = line[start..].first_chunk::<8>() {
        u64::from_le_bytes(*eight) & ((1u64 << n_bits) - 1)
    } else if let Some(eight) = line[..end].last_chunk::<8>() {
        u64::from_le_bytes(*eight).unbounded_shr(64 - n_bits)
    } else {
        let bytes = line[start..end].iter().rev();
        bytes.fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }
}

/// One bit for each of at most 64 bytes, set where there is a space.
#[inline(always)]
fn spaces_in(bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut bits = 0;
    for (i, eight) in eights.iter().enumerate() {
        bits |= spaces_of(u64::from_le_bytes(*eight)) << (8 * i);
    }
    if !rest.is_empty() {
        let start = bytes.len() - rest.len();
        bits |= spaces_of(number(bytes, start, bytes.len())) << start;
    }
    bits
}

/// One bit for each of eight bytes, set where there is a space.
#[inline(always)]
fn spaces_of(eight: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    // The bytes that are spaces become 0, and only adding to a 0 leaves the highest bit of a byte unset.
    let different = eight ^ 0x2020_2020_2020_2020;
    let highest = !(((different & LOW) + LOW) | different | LOW);
    // Moves the highest bit of byte `i` to bit `i` of the highest byte.
    (highest >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Vec<&[u8]> {
        let mut words = vec![];
        each_word(line, |start, end| {
            words.push(&line[start..end]);
            Ok(())
        })
        .expect("nothing fails");
        words
    }

    fn check(line: &[u8]) {
        let expected: Vec<_> = line.split(|byte| *byte == b' ').collect();
        assert_eq!(words(line), expected, "{}", line.escape_ascii());
    }

    #[test]
    fn words_are_what_lies_between_single_spaces() {
        assert_eq!(words(b"a bc  d "), [&b"a"[..], b"bc", b"", b"d", b""]);
        assert_eq!(words(b""), [b""]);
    }

    /// Every byte beside spaces and their neighbours, at every place in a block, in lines of every length.
    #[test]
    fn only_spaces_divide_wherever_they_are() {
        for len in 0..150 {
            let line: Vec<u8> = (0..len).map(|i| (7 * i + len) as u8).collect();
            check(&line);
            for space in 0..len {
                let mut line = vec![b' ' + 128; len];
                line[space] = b' ';
                check(&line);
            }
        }
        check(&[b' '; 200]);
        check(&b"\x1f \x21\x00\t\n\xa0 \xff".repeat(20));
    }

    #[test]
    fn numbers_hold_nothing_beside_their_bytes() {
        let line: Vec<u8> = (1..=20).collect();
        for len in 0..=line.len() {
            for start in 0..=len {
                for end in start..=len.min(start + 7) {
                    let mut expected = [0u8; 8];
                    expected[..end - start].copy_from_slice(&line[start..end]);
                    let found = number(&line[..len], start, end);
                    assert_eq!(
                        found,
                        u64::from_le_bytes(expected),
                        "{start}..{end} of {len}"
                    );
                }
            }
        }
    }
}
