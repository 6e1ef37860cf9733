"""python3 -m unittest"""

from array import array
from collections import Counter
from itertools import accumulate
from unittest import TestCase, mock

import words
from words import Counts, Sums


def count(*lines: bytes) -> tuple[dict[bytes, int], int]:
    counts = Counts()
    counts.add(list(accumulate(map(len, lines), initial=0)), b"".join(lines))
    found, n, n_not_utf8 = counts.take()
    return list(zip(found, n)), n_not_utf8


class CountsTest(TestCase):
    def test_words_are_counted_as_they_are(self):
        found, n_not_utf8 = count(b"to be or not to be", b"to do", b"To be, or not")
        expected = {b"to": 3, b"be": 2, b"or": 2, b"not": 2, b"do": 1, b"To": 1, b"be,": 1}
        self.assertEqual((dict(found), n_not_utf8), (expected, 0))

    def test_empty_words_count(self):
        self.assertEqual(dict(count(b"a  b", b"", b" a")[0]), {b"a": 2, b"": 3, b"b": 1})
        self.assertEqual(count(), ([], 0))

    def test_what_is_not_utf8_counts_as_the_replacement_character(self):
        found, n_not_utf8 = count(b"caf\xe9 caf\xc3\xa9 caf\xe9", b"caf\xff")
        lossy = "caf\ufffd".encode()
        self.assertEqual(found, [(lossy, 2), ("café".encode(), 1), (lossy, 1)])
        self.assertEqual(n_not_utf8, 3)

    def test_a_table_is_full_of_words_or_of_text(self):
        counts = Counts()
        with mock.patch.multiple(words, WORDS_MAX=3, TEXT_BYTES_MAX=10):
            counts.add([0, 11], b"one two one")
            self.assertFalse(counts.is_full())
            counts.add([0, 5], b"three")
            self.assertTrue(counts.is_full())
            counts.take()
            counts.add([0, 11], b"hippopotami")
            self.assertTrue(counts.is_full())


class SumsTest(TestCase):
    def check(self, pushes: list[tuple[str, list[int], bool]], expected: dict[bytes, int]):
        sums, found = Sums(), Counter()
        for rows, ends, continues in pushes:
            rows = rows.encode().split()
            found.update(dict(zip(*sums.add(rows, array("q", [1] * len(rows)), ends, continues), strict=True)))
        found.update(dict(zip(*sums.take(), strict=True)))
        self.assertEqual(found, expected)

    def test_groups_are_put_together(self):
        self.check([("a a b", [2, 3], False)], {b"a": 2, b"b": 1})
        self.check([("a b", [1, 2], True), ("b c", [1, 2], False)], {b"a": 1, b"b": 2, b"c": 1})
        self.check([("a", [1], True), ("a", [1], True), ("a", [1], False)], {b"a": 3})
        self.check([], {})

    def test_a_group_that_went_on_may_have_no_more_rows(self):
        self.check([("a", [1], True), ("b", [0, 1], False)], {b"a": 1, b"b": 1})
        self.check([("a", [1], True), ("", [0], True), ("a", [1], False)], {b"a": 2})
        self.check([("a", [1], True), ("", [], True)], {b"a": 1})
        self.check([("a", [1], True)], {b"a": 1})
