use std::collections::BTreeMap;

use weft::prelude::*;
use weft::testing::{Run, run_map, run_reduce};

use crate::count::Count;
use crate::sum::Sum;

fn count(lines: &[&[u8]]) -> Run {
    count_with(&Params::default(), lines)
}

fn count_with(params: &Params, lines: &[&[u8]]) -> Run {
    let lines: BinaryBuilder = lines.iter().copied().collect();
    let input = Batch::new(&Schema::new().binary("line"), [lines.into()]).expect("one column");
    run_map::<Count>(params, vec![input]).expect("counts")
}

#[test]
fn words_come_out_once_and_in_order() {
    let run = count(&[b"to be or not to be", b"to do", b"To be, or not"]);
    assert_eq!(
        run.rows(),
        [
            "To | 1", "be | 2", "be, | 1", "do | 1", "not | 2", "or | 2", "to | 3"
        ]
    );
    assert!(run.log.is_empty());
}

#[test]
fn empty_words_count() {
    assert_eq!(
        count(&[b"a  b", b"", b" a"]).rows(),
        [" | 3", "a | 2", "b | 1"]
    );
    assert!(count(&[]).rows().is_empty());
}

#[test]
fn what_is_not_utf8_counts_as_the_replacement_character() {
    let run = count(&[b"caf\xe9 caf\xc3\xa9 caf\xe9", b"caf\xff"]);
    assert_eq!(
        run.rows(),
        ["caf\u{e9} | 1", "caf\u{fffd} | 2", "caf\u{fffd} | 1"]
    );
    let warning = "counted 3 words that are not UTF-8, with U+FFFD for what is not";
    assert_eq!(run.log, [(weft::log::Level::Warn, warning.to_string())]);
}

#[test]
fn text_that_was_checked_is_taken_too() {
    let lines = Column::from_iter([Some("b a"), None, Some("a")]);
    let input = Batch::new(&Schema::new().utf8("line").nullable(), [lines]).expect("one column");
    let run = run_map::<Count>(&Params::default(), vec![input]).expect("counts");
    assert_eq!(run.rows(), ["a | 2", "b | 1"]);
    assert!(Count::bind(&Schema::new().i64("line"), &Params::default()).is_err());
}

/// Words of 0 to 40 bytes that differ in one byte only, at the beginning, in the middle or at the end, and often begin or
/// end with the byte that fills up numbers.
fn similar_words() -> Vec<Vec<u8>> {
    let mut words = vec![];
    for len in 0..=40 {
        for (fill, other) in [(b'a', b'b'), (0, 1)] {
            words.push(vec![fill; len]);
            for at in 0..len {
                let mut word = vec![fill; len];
                word[at] = other;
                words.push(word);
            }
        }
    }
    words
}

/// Tasks that hold a word only, or a few, or all: the sums are the same.
#[test]
fn sums_do_not_depend_on_how_much_a_task_holds() {
    let words = similar_words();
    let (mut lines, mut sums) = (vec![], BTreeMap::new());
    for line in words.chunks(5).cycle().take(words.len()) {
        for word in line {
            *sums
                .entry(str::from_utf8(word).expect("ASCII"))
                .or_insert(0) += 1;
        }
        lines.push(line.join(&b' '));
    }
    let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let expected: Vec<_> = sums
        .iter()
        .map(|(word, n)| format!("{word} | {n}"))
        .collect();
    for max_words in ["1", "7", "1000", "1000000"] {
        for rows in [1, 3, 1000] {
            let counted = count_with(&Params::from([("max-words", max_words)]), &lines).batches;
            let run = run_reduce::<Sum>(&Params::default(), &["word"], counted, rows);
            let found = run.expect("sums").rows();
            assert_eq!(found, expected, "{max_words} words, {rows} rows");
        }
    }
}

/// So many words that the table grows several times and is drained: words that fit a slot, words that do not, and both.
#[test]
fn many_words() {
    let short = |i: u32| format!("w{i:06}");
    let long = |i: u32| format!("/a/path/{i:06}/index.html");
    for n_long in [0, 3, 10] {
        let word = |i: u32| if i % 10 < n_long { long(i) } else { short(i) };
        let words: Vec<_> = (0..300_000).map(word).collect();
        let lines: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let run = count(&lines);
        assert!(run.batches.len() > 4, "they do not fit at once");
        let mut rows = run.rows();
        rows.sort_unstable();
        let mut expected: Vec<_> = words.iter().map(|word| format!("{word} | 1")).collect();
        expected.sort_unstable();
        assert!(rows == expected, "{n_long} of 10 are long");
    }
}

#[test]
fn short_and_long_words_come_in_one_order() {
    let words = [
        "a",
        "abcdefghijk",
        "abcdefghijk0",
        "abcdefghijka",
        "abcdefghijkl",
        "abcdefghijm",
        "b",
        "zzzzzzzzzzzz",
    ];
    let line = words.map(|word| format!("{word} ")).concat();
    let rows = count(&[line.trim_end().as_bytes()]).rows();
    assert_eq!(rows, words.map(|word| format!("{word} | 1")));
}
