"""How often each word occurs in a text: `wordcount` in Python. What counts is in `words.py`; here it meets the contract.

Buffers are `bytes` in Arrow layout: numbers are cast, not unpacked one by one.
"""

from array import array
from itertools import accumulate, pairwise

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import functions
from wit_world.imports import data, log, output
from words import Counts, Sums

NAME, VERSION = "wordcount-py", "0.1.0"

# Rows of one batch that goes out.
BATCH_ROWS = 64 * 1024


def field(name: str, data_type: data.DataType) -> data.Field:
    return data.Field(name, data_type, nullable=False, children=0, precision=0, scale=0)


WORD, N = field("word", data.DataType.UTF8), field("n", data.DataType.INT64)


def index_of(fields: list[data.Field], name: str, *data_types: data.DataType) -> int:
    """The position of a column. Columns are counted, so the fields below nested ones are skipped."""
    index, below = 0, 0
    for each in fields:
        if below == 0:
            if each.name == name and each.data_type in data_types:
                return index
            index += 1
        below = max(below - 1, 0) + each.children
    names = "` or `".join(each.name.lower() for each in data_types)
    raise Err(f"no column `{name}` of type `{names}`")


def text_of(column: data.Column) -> tuple[memoryview, bytes]:
    """Offsets and bytes of a column of text, which must not have nulls."""
    if column.nodes[0].nulls:
        raise Err("lines and words must not be null")
    _, offsets, text = column.buffers
    # Without rows the offsets may be left out.
    return memoryview(offsets or bytes(4)).cast("i"), text


def emit(words: list[bytes], counts: array) -> None:
    """Hands words, which are UTF-8, and their counts over."""
    for start in range(0, len(words), BATCH_ROWS):
        some, n = words[start : start + BATCH_ROWS], counts[start : start + BATCH_ROWS]
        nodes = [data.Node(len(some), 0)]
        offsets = array("i", accumulate(map(len, some), initial=0))
        columns = [
            data.Column(nodes, [b"", offsets.tobytes(), b"".join(some)]),
            data.Column(nodes, [b"", n.tobytes()]),
        ]
        output.emit(data.Batch.create([WORD, N], columns))


class Count:
    """Counts the words of lines: some rows for each word of a task, most often one."""

    def __init__(self):
        self.counts, self.n_not_utf8 = Counts(), 0

    @staticmethod
    def line(fields: list[data.Field]) -> int:
        return index_of(fields, "line", data.DataType.BINARY, data.DataType.UTF8)

    @staticmethod
    def bind(fields: list[data.Field]) -> None:
        Count.line(fields)

    def push(self, input: data.Batch) -> None:
        self.counts.add(*text_of(input.column(self.line(input.fields()))))
        if self.counts.is_full():
            self.emit()

    def emit(self) -> None:
        words, counts, n_not_utf8 = self.counts.take()
        self.n_not_utf8 += n_not_utf8
        emit(words, counts)

    def finish(self) -> None:
        self.emit()
        if self.n_not_utf8:
            message = f"counted {self.n_not_utf8} words that are not UTF-8, with U+FFFD for what is not"
            log.write(log.Level.WARN, message)


class Sum:
    """Adds up the counts of each word."""

    def __init__(self):
        self.sums = Sums()

    @staticmethod
    def columns(fields: list[data.Field]) -> tuple[int, int]:
        return index_of(fields, "word", data.DataType.UTF8), index_of(fields, "n", data.DataType.INT64)

    @staticmethod
    def bind(fields: list[data.Field]) -> None:
        Sum.columns(fields)

    def push(self, input: data.Batch, ends: list[int], continues: bool) -> None:
        word, n = (input.column(index) for index in self.columns(input.fields()))
        offsets, text = text_of(word)
        words = [text[start:end] for start, end in pairwise(offsets)]
        emit(*self.sums.add(words, memoryview(n.buffers[1]).cast("q"), ends, continues))

    def finish(self) -> None:
        emit(*self.sums.take())


MAPS = {"count": Count}
REDUCES = {"sum": Sum}


def find(functions, name):
    if name not in functions:
        raise Err(f"no function `{name}`")
    return functions[name]


class Functions(exports.Functions):
    def describe(self) -> functions.Description:
        kinds = [(MAPS, functions.Kind.MAP_BATCHES), (REDUCES, functions.Kind.REDUCE_GROUPS)]
        all = [
            functions.Function(name, kind, function.__doc__, deterministic=True)
            for group, kind in kinds
            for name, function in group.items()
        ]
        return functions.Description(NAME, VERSION, all)

    def bind(self, function: str, input: list[data.Field], params: list[tuple[str, str]]) -> list[data.Field]:
        find(MAPS | REDUCES, function).bind(input)
        return [WORD, N]


class Mapper(exports.Mapper):
    """What is open is kept in the class, so that it does not matter which instance is called."""

    mapper = None

    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        Mapper.mapper = find(MAPS, function)()

    def push(self, input: data.Batch) -> None:
        Mapper.mapper.push(input)

    def finish(self) -> None:
        Mapper.mapper.finish()


class Reducer(exports.Reducer):
    reducer = None

    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        Reducer.reducer = find(REDUCES, function)()

    def push(self, input: data.Batch, ends: list[int], continues: bool) -> None:
        Reducer.reducer.push(input, ends, continues)

    def finish(self) -> None:
        Reducer.reducer.finish()


class Task(exports.Task):
    def run(self, function: str, params: list[tuple[str, str]], index: int, input: bytes) -> bytes:
        raise Err(f"no function `{function}`")
