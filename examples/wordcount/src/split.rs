use std::ops::Range;

use weft::prelude::*;

/// Calls `word` with the ends of each word of a line of the text, in order, until it fails. Words are what `split(' ')`
/// gives: an empty line holds one empty word, and two spaces hold one between them.
///
/// Spaces are looked for in 64 bytes at a time, because a search that stops at each space costs more than a short word.
#[inline(always)]
pub(crate) fn each_word(
    text: &[u8],
    line: Range<usize>,
    mut word: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let mut start = line.start;
    for at in line.clone().step_by(64) {
        let mut spaces = match text[at..].first_chunk() {
            Some(block) => spaces_in(block),
            None => spaces_in(&last_bytes(&text[at..])),
        };
        if line.end - at < 64 {
            spaces &= (1 << (line.end - at)) - 1;
        }
        while spaces != 0 {
            let end = at + spaces.trailing_zeros() as usize;
            word(start, end)?;
            start = end + 1;
            spaces &= spaces - 1;
        }
    }
    word(start, line.end)
}

/// The next bytes of a text, and zeros after its end.
#[inline(always)]
pub(crate) fn bytes_at<const N: usize>(text: &[u8], at: usize) -> [u8; N] {
    match text[at..].first_chunk() {
        Some(bytes) => *bytes,
        None => last_bytes(&text[at..]),
    }
}

#[cold]
fn last_bytes<const N: usize>(rest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// One bit for each byte, set where there is a space.
#[inline(always)]
fn spaces_in(block: &[u8; 64]) -> u64 {
    let (eights, _) = block.as_chunks();
    let eights = eights.iter().enumerate();
    eights.fold(0, |bits, (i, eight)| {
        bits | spaces_of(u64::from_le_bytes(*eight)) << (8 * i)
    })
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

    fn words(text: &[u8], line: Range<usize>) -> Vec<&[u8]> {
        let mut words = vec![];
        each_word(text, line, |start, end| {
            words.push(&text[start..end]);
            Ok(())
        })
        .expect("nothing fails");
        words
    }

    /// The words of a line alone, and between others.
    fn check(line: &[u8]) {
        let expected: Vec<_> = line.split(|byte| *byte == b' ').collect();
        assert_eq!(
            words(line, 0..line.len()),
            expected,
            "{}",
            line.escape_ascii()
        );
        let text = [b"a ", line, b" b "].concat();
        assert_eq!(
            words(&text, 2..2 + line.len()),
            expected,
            "{}",
            line.escape_ascii()
        );
    }

    #[test]
    fn words_are_what_lies_between_single_spaces() {
        assert_eq!(words(b"a bc  d ", 0..8), [&b"a"[..], b"bc", b"", b"d", b""]);
        assert_eq!(words(b"", 0..0), [b""]);
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
    fn a_text_ends_with_zeros() {
        assert_eq!(bytes_at(b"abc", 1), *b"bc\0\0");
        assert_eq!(bytes_at(b"abc", 3), [0; 2]);
        assert_eq!(bytes_at(b"abcd", 1), *b"bc");
    }
}
