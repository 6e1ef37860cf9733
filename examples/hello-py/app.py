"""The functions of `hello` in Python, and a map that adds the greatest common divisor of two columns.

Buffers are `bytes` in Arrow layout: numbers are cast, not unpacked one by one.
"""

from array import array
from collections.abc import Iterator
from itertools import accumulate
from math import gcd

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import functions
from wit_world.imports import data, log, output

NAME, VERSION = "hello-py", "0.1.0"


def field(name: str, data_type: data.DataType, nullable: bool = False) -> data.Field:
    return data.Field(name, data_type, nullable, children=0, precision=0, scale=0)


def index_of(fields: list[data.Field], name: str, data_type: data.DataType) -> int:
    """The position of a column. Columns are counted, so the fields below nested ones are skipped."""
    index, below = 0, 0
    for each in fields:
        if below == 0:
            if (each.name, each.data_type) == (name, data_type):
                return index
            index += 1
        below = max(below - 1, 0) + each.children
    raise Err(f"no column `{name}` of type `{data_type.name.lower()}`")


def texts(column: data.Column) -> Iterator[str | None]:
    """The values of a utf8 column, `None` for nulls."""
    valid, offsets, text = column.buffers
    ends = memoryview(offsets).cast("i")
    for row in range(column.nodes[0].rows):
        null = valid and not valid[row >> 3] >> (row & 7) & 1
        yield None if null else str(text[ends[row] : ends[row + 1]], "utf-8")


def text_column(values: list[str | None]) -> data.Column:
    encoded = [value.encode() if value is not None else b"" for value in values]
    offsets = array("i", accumulate(map(len, encoded), initial=0)).tobytes()
    nulls = values.count(None)
    valid = bytearray((len(values) + 7) // 8) if nulls else b""
    if nulls:
        for row, value in enumerate(values):
            valid[row >> 3] |= (value is not None) << (row & 7)
    return data.Column([data.Node(len(values), nulls)], [bytes(valid), offsets, b"".join(encoded)])


class Greet:
    """Adds a column `greeting`: hello to each name."""

    added = field("greeting", data.DataType.UTF8, nullable=True)

    def __init__(self, params: dict[str, str]):
        self.hello = params.get("hello", "hello")

    @staticmethod
    def inputs(fields: list[data.Field]) -> list[int]:
        return [index_of(fields, "name", data.DataType.UTF8)]

    def column(self, names: data.Column) -> data.Column:
        return text_column([None if name is None else f"{self.hello}, {name}" for name in texts(names)])


class Gcd:
    """Adds a column `gcd`: the greatest common divisor of `a` and `b`, which must not be null."""

    added = field("gcd", data.DataType.INT64)

    def __init__(self, params: dict[str, str]):
        pass

    @staticmethod
    def inputs(fields: list[data.Field]) -> list[int]:
        return [index_of(fields, name, data.DataType.INT64) for name in ("a", "b")]

    def column(self, a: data.Column, b: data.Column) -> data.Column:
        if a.nodes[0].nulls or b.nodes[0].nulls:
            raise Err("`a` and `b` must not be null")
        values = array("q", map(gcd, *(memoryview(column.buffers[1]).cast("q") for column in (a, b))))
        return data.Column([data.Node(len(values), 0)], [b"", values.tobytes()])


def echo(params: dict[str, str], index: int, input: bytes) -> bytes:
    """Answers with its input."""
    return input


def noop(params: dict[str, str], index: int, input: bytes) -> bytes:
    """Does nothing."""
    return b""


MAPS = {"greet": Greet, "gcd": Gcd}
TASKS = {"echo": echo, "noop": noop}


def find(functions, name):
    if name not in functions:
        raise Err(f"no function `{name}`")
    return functions[name]


class Functions(exports.Functions):
    def describe(self) -> functions.Description:
        kinds = [(MAPS, functions.Kind.MAP_BATCHES), (TASKS, functions.Kind.TASK)]
        all = [
            functions.Function(name, kind, function.__doc__, deterministic=True)
            for group, kind in kinds
            for name, function in group.items()
        ]
        return functions.Description(NAME, VERSION, all)

    def bind(self, function: str, input: list[data.Field], params: list[tuple[str, str]]) -> list[data.Field]:
        if function in TASKS:
            return []
        bound = find(MAPS, function)
        bound.inputs(input)
        return input + [bound.added]


class Mapper(exports.Mapper):
    """What is open is kept in the class, so that it does not matter which instance is called."""

    mapper = None

    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        Mapper.mapper, Mapper.rows = find(MAPS, function)(dict(params)), 0

    def push(self, input: data.Batch) -> None:
        mapper = Mapper.mapper
        columns = [input.column(index) for index in mapper.inputs(input.fields())]
        output.emit(input.with_column([mapper.added], mapper.column(*columns)))
        Mapper.rows += input.rows()

    def finish(self) -> None:
        log.write(log.Level.DEBUG, f"mapped {Mapper.rows} rows")


class Reducer(exports.Reducer):
    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        raise Err(f"no function `{function}`")

    def push(self, input: data.Batch, ends: list[int], continues: bool) -> None:
        raise Err("not open")

    def finish(self) -> None:
        raise Err("not open")


class Task(exports.Task):
    def run(self, function: str, params: list[tuple[str, str]], index: int, input: bytes) -> bytes:
        return find(TASKS, function)(dict(params), index, input)
