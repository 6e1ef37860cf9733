use super::*;
use weft_protocol::TASK_BYTES;

/// A unit of bytes of which a task takes 16.
const UNIT: u64 = TASK_BYTES / 16;

fn units(sizes: &[u64]) -> Vec<u64> {
    sizes.iter().map(|size| size * UNIT).collect()
}

/// Segments of a unit each, of `writers` tasks that wrote as many, and one more each for the first ones.
fn segments(n: u64, writers: u32) -> Vec<SegmentBytes> {
    let mut segments = Vec::new();
    for writer in 0..writers {
        let of_writer = (n + u64::from(writers - 1 - writer)) / u64::from(writers);
        segments.extend((0..of_writer).map(|sequence| SegmentBytes {
            writer,
            sequence: sequence as u32,
            raw_bytes: UNIT,
        }));
    }
    segments
}

/// Parts of edges whose partitions have so many units.
fn parts_of(sizes: &[&[u64]], split: &[bool], n_tasks: u32) -> Parts {
    let sizes: Vec<Vec<u64>> = sizes.iter().map(|sizes| units(sizes)).collect();
    let large = Parts::large_partitions(&sizes, split).into_iter();
    let large = large.map(|(partition, edge)| LargePartition {
        partition,
        edge,
        segments: segments(sizes[edge][partition as usize] / UNIT, 3),
    });
    Parts::new(&sizes, &large.collect::<Vec<_>>(), n_tasks)
}

/// First partition, number of them, position among the pieces and number of these.
fn recorded(parts: &Parts) -> Vec<(u32, u32, u32, u32)> {
    let parts = parts.parts.iter().map(Part::recorded);
    parts
        .map(|part| (part.first, part.count, part.piece, part.pieces))
        .collect()
}

#[test]
fn small_partitions_are_one_task_s() {
    let parts = parts_of(&[&[1; 6], &[0; 6]], &[true, true], 1);
    assert_eq!(recorded(&parts), [(0, 6, 0, 1)]);
    assert!(parts.of(1).is_none());
    assert_eq!(recorded(&parts_of(&[&[0; 6]], &[true], 1)), [(0, 6, 0, 1)]);
}

#[test]
fn runs_of_partitions_have_about_as_many_bytes() {
    let parts = parts_of(&[&[3, 1, 1, 9, 1, 1, 6, 0]], &[false], 3);
    // No run of three has fewer than nine.
    let expected = [(0, 3, 0, 1), (3, 1, 0, 1), (4, 4, 0, 1)];
    assert_eq!(recorded(&parts), expected);
    // Several edges count together.
    let parts = parts_of(&[&[3, 1, 1, 0], &[0, 0, 0, 4]], &[false, false], 2);
    assert_eq!(recorded(&parts), [(0, 3, 0, 1), (3, 1, 0, 1)]);
}

#[test]
fn as_many_tasks_as_partitions_have_one_each() {
    let parts = parts_of(&[&[5, 0, 0, 2]], &[false], 4);
    let expected: Vec<_> = (0..4).map(|partition| (partition, 1, 0, 1)).collect();
    assert_eq!(recorded(&parts), expected);
    let more = parts_of(&[&[5, 0, 0, 2]], &[false], 9);
    assert_eq!(more, parts);
    assert!(more.of(4).is_none(), "tasks without a part");
}

#[test]
fn a_large_partition_is_shared_by_its_segments() {
    // A fair share is about 38 units, of which a task takes half. Others have a task each.
    let left = [16, 20, 128, 18, 10];
    let parts = parts_of(&[&left, &[2; 5]], &[true, false], 5 + 4);
    let expected = [
        (0, 1, 0, 1),
        (1, 1, 0, 1),
        (2, 1, 0, 5),
        (2, 1, 1, 5),
        (2, 1, 2, 5),
        (2, 1, 3, 5),
        (2, 1, 4, 5),
        (3, 1, 0, 1),
        (4, 1, 0, 1),
    ];
    assert_eq!(recorded(&parts), expected);
    // Each segment is one task's, and what is not split is read by all, and counted once.
    for segment in segments(128, 3) {
        let has = |part: &&Part| part.has(0, segment.writer, segment.sequence);
        assert_eq!(parts.parts[2..7].iter().filter(has).count(), 1);
        let has = |part: &&Part| part.has(1, segment.writer, segment.sequence);
        assert_eq!(parts.parts[2..7].iter().filter(has).count(), 5);
    }
    let shares: Vec<usize> = parts.parts[2..7]
        .iter()
        .map(|part| {
            let segments = segments(128, 3).into_iter();
            let of_part = segments.filter(|one| part.has(0, one.writer, one.sequence));
            of_part.count()
        })
        .collect();
    assert_eq!(shares, [26, 26, 25, 26, 25]);
    let counts = |edge: usize| {
        parts.parts[2..7]
            .iter()
            .filter(move |part| part.counts(edge))
    };
    assert_eq!((counts(0).count(), counts(1).count()), (5, 1));
}

/// A piece must be worth that its task reads the other side, too.
#[test]
fn pieces_are_no_smaller_than_the_other_side() {
    let (left, right) = ([16, 16, 160, 16], [5, 5, 64, 5]);
    let n_pieces = |right: &[u64]| {
        let parts = parts_of(&[&left, right], &[true, false], 8);
        parts
            .parts
            .iter()
            .filter(|part| part.piece.is_some())
            .count()
    };
    // A fair share is 52 units.
    assert_eq!(n_pieces(&[0; 4]), 5);
    assert_eq!(n_pieces(&right), 3);
    assert_eq!(n_pieces(&[0, 0, 200, 0]), 0);
}

/// The largest of the sides that may be split is, and one that may not be never is.
#[test]
fn only_edges_that_may_be_split_are() {
    let small = [10; 8];
    let large = [10, 10, 10, 400, 10, 10, 10, 10];
    let sizes = [units(&small), units(&large)];
    assert_eq!(Parts::large_partitions(&sizes, &[true, true]), [(3, 1)]);
    assert!(Parts::large_partitions(&sizes, &[true, false]).is_empty());
    assert!(Parts::large_partitions(&sizes, &[false, false]).is_empty());
    let parts = parts_of(&[&small, &large], &[true, false], 16);
    assert!(parts.parts.iter().all(|part| part.piece.is_none()));
}

/// Whatever the sizes, each partition has a part, in order, within the number of tasks.
#[test]
fn parts_cover_all_partitions() {
    let mut seed = 7u64;
    let mut below = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for _ in 0..2_000 {
        let n = 1 + below(12);
        let mut size = || match below(4) {
            0 => 0,
            1 => below(400),
            _ => below(30),
        };
        let left: Vec<u64> = (0..n).map(|_| size()).collect();
        let right: Vec<u64> = (0..n).map(|_| size()).collect();
        let n_tasks = 1 + below(20) as u32;
        let parts = parts_of(&[&left, &right], &[below(2) == 0, below(2) == 0], n_tasks);
        assert!(parts.parts.len() <= n_tasks as usize, "{parts:?}");
        let mut next = (0, 0);
        for (first, count, piece, pieces) in recorded(&parts) {
            assert_eq!((first, piece), next, "{parts:?}");
            next = match piece + 1 == pieces {
                true => (first + count, 0),
                false => (first, piece + 1),
            };
        }
        assert_eq!(next, (n as u32, 0), "{parts:?}");
    }
}
