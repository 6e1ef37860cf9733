"""Counting words, without anything of Weft: what `test_words.py` tests."""

from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, islice, pairwise

# What a task holds before it hands it over and starts anew: about 200 bytes for each word besides its text.
WORDS_MAX = 1 << 18
TEXT_BYTES_MAX = 16 << 20


class Counts:
    """How often each word occurred so far, in bounded memory."""

    def __init__(self):
        self.counts: Counter[bytes] = Counter()
        self.text_bytes = 0

    def add(self, offsets: Iterable[int], text: bytes) -> None:
        """Counts the words of lines, which lie in `text` one after the other: the first from `offsets[0]` to `offsets[1]`.

        Words are what `split(" ")` gives, so an empty line holds one empty word. All lines are joined and split at once,
        because one call for many words is what makes Python fast.
        """
        lines = [text[start:end] for start, end in pairwise(offsets)]
        if lines:
            n = len(self.counts)
            self.counts.update(b" ".join(lines).split(b" "))
            # Words that are new stand last.
            self.text_bytes += sum(map(len, islice(reversed(self.counts), len(self.counts) - n)))

    def is_full(self) -> bool:
        return len(self.counts) >= WORDS_MAX or self.text_bytes >= TEXT_BYTES_MAX

    def take(self) -> tuple[list[bytes], array, int]:
        """The words in UTF-8, their counts, and how many were not UTF-8, and forgets them. A word may come more than once."""
        words, counts = list(self.counts), array("q", self.counts.values())
        self.counts, self.text_bytes = Counter(), 0
        if b"".join(words).isascii():
            return words, counts, 0
        checked = [utf8(word) for word in words]
        n_not_utf8 = sum(n for word, good, n in zip(words, checked, counts) if word != good)
        return checked, counts, n_not_utf8


def utf8(word: bytes) -> bytes:
    """The word, with U+FFFD for what is not UTF-8."""
    return word.decode(errors="replace").encode()


class Sums:
    """Adds up the counts of each group of rows. A group may come in pieces."""

    def __init__(self):
        self.open: tuple[bytes, int] | None = None

    def add(self, words: list[bytes], counts: Iterable[int], ends: list[int], continues: bool) -> tuple[list[bytes], array]:
        """Gives the words of the groups that end here, and their sums.

        `words` and `counts`: rows, those of a word together. `ends`: the row after the last one of each group, which may
        have no rows here if it began before. `continues`: the last group goes on in the next call.
        """
        if not ends:
            return [], array("q")
        up_to = list(accumulate(counts, initial=0))
        starts = [0, *ends[:-1]]
        sums = array("q", (up_to[end] - up_to[start] for start, end in zip(starts, ends)))
        if self.open:
            keys = [self.open[0], *(words[start] for start in starts[1:])]
            sums[0] += self.open[1]
        else:
            keys = [words[start] for start in starts]
        self.open = (keys.pop(), sums.pop()) if continues else None
        return keys, sums

    def take(self) -> tuple[list[bytes], array]:
        """The group that was said to go on, and did not."""
        keys, sums = ([self.open[0]], [self.open[1]]) if self.open else ([], [])
        self.open = None
        return keys, array("q", sums)
