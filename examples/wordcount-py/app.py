"""How often each word occurs in a text: `wordcount` in Python. What counts is in `words.py`; here it meets Weft.

Columns are read as they lie in memory, offsets and bytes, and words stay bytes.
"""

from itertools import pairwise

import weft
from words import Counts, Sums

weft.component("wordcount-py", "0.1.0")

WORDS = ["word utf8", "n int64"]

# Rows of one batch that goes out.
BATCH_ROWS = 64 * 1024


def text_of(column: weft.Column) -> weft.Column:
    if column.nulls:
        raise weft.Error("lines and words must not be null")
    return column


def emit(out: weft.Output, words: list[bytes], counts) -> None:
    """Hands words, which are UTF-8, and their counts over."""
    for start in range(0, len(words), BATCH_ROWS):
        rows = slice(start, start + BATCH_ROWS)
        out.emit({"word": words[rows], "n": counts[rows]})


@weft.map(reads="line binary|utf8", gives=WORDS)
class Count:
    """Counts the words of lines: some rows for each word of a task, most often one."""

    def __init__(self):
        self.counts, self.n_not_utf8 = Counts(), 0

    def push(self, input, out):
        lines = text_of(input.column("line"))
        self.counts.add(lines.offsets, lines.data)
        if self.counts.is_full():
            self.emit(out)

    def emit(self, out):
        words, counts, n_not_utf8 = self.counts.take()
        self.n_not_utf8 += n_not_utf8
        emit(out, words, counts)

    def finish(self, out):
        self.emit(out)
        if self.n_not_utf8:
            weft.log.warn(f"counted {self.n_not_utf8} words that are not UTF-8, with U+FFFD for what is not")


@weft.reduce(reads=WORDS, gives=WORDS)
class Sum:
    """Adds up the counts of each word."""

    def __init__(self):
        self.sums = Sums()

    def push(self, input, groups, out):
        word = text_of(input.column("word"))
        text = word.data
        words = [text[start:end] for start, end in pairwise(word.offsets)]
        emit(out, *self.sums.add(words, input["n"], groups.ends, groups.continues))

    def finish(self, out):
        emit(out, *self.sums.take())
