"""Stand-ins for what the host gives a component, with the same names and shapes, so that functions run in tests."""

import sys
from dataclasses import dataclass
from enum import Enum

DataType = Enum(
    "DataType",
    "BOOLEAN INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FLOAT32 FLOAT64 UTF8 BINARY DATE32 TIMESTAMP_US DECIMAL128"
    " ARRAY_OF STRUCT_OF",
    start=0,
)
Level = Enum("Level", "ERROR WARN INFO DEBUG", start=0)


class Err(Exception):
    """What the host refuses a call with."""

    def __init__(self, value: str):
        super().__init__(value)
        self.value = value


@dataclass
class Field:
    name: str
    data_type: DataType
    nullable: bool
    children: int
    precision: int
    scale: int


@dataclass
class Node:
    rows: int
    nulls: int


@dataclass
class Column:
    nodes: list[Node]
    buffers: list[bytes]


@dataclass
class Usage:
    cpu_ns: int
    memory_bytes: int
    output_bytes: int


class Batch:
    """Columns of equal length; checked when it is made, though not as thoroughly as by the host."""

    def __init__(self, fields: list[Field], columns: list[Column]):
        self._fields, self._columns = fields, columns
        self._tops = list(tops(fields))
        if len(columns) != len(self._tops):
            raise Err(f"{len(columns)} columns for {len(self._tops)} fields")
        for at, column in zip(self._tops, columns):
            check(fields[at], column, self.rows())

    @classmethod
    def create(cls, fields: list[Field], columns: list[Column]) -> "Batch":
        return cls(fields, columns)

    def rows(self) -> int:
        return self._columns[0].nodes[0].rows if self._columns else 0

    def fields(self) -> list[Field]:
        return self._fields

    def column(self, index: int) -> Column:
        return self._columns[index]

    def project(self, columns: list[int]) -> "Batch":
        fields = [field for index in columns for field in self._field(index)]
        return Batch(fields, [self._columns[index] for index in columns])

    def with_column(self, field: list[Field], column: Column) -> "Batch":
        return Batch(self._fields + field, [*self._columns, column])

    def filter(self, keep: bytes) -> "Batch":
        return self.take([row for row in range(self.rows()) if keep[row >> 3] >> (row & 7) & 1])

    def take(self, rows: list[int]) -> "Batch":
        from weft.columns import decode, encode
        from weft.schema import Schema

        schema = Schema.of_wire(self._fields)
        values = [decode(field, column) for field, column in zip(schema, self._columns)]
        picked = [encode(field, [each[row] for row in rows]) for field, each in zip(schema, values)]
        return Batch(self._fields, picked)

    def eval(self, expressions: list[str]) -> "Batch":
        if evaluate is None:
            raise Err("expressions are evaluated by the host; in tests, `weft.testing.on_eval` stands in for it")
        return evaluate(self, expressions)

    def _field(self, index: int) -> list[Field]:
        ends = [*self._tops[1:], len(self._fields)]
        return self._fields[self._tops[index] : ends[index]]


def tops(fields: list[Field]):
    """The positions of the fields that are not below another one."""
    below = 0
    for at, field in enumerate(fields):
        if below == 0:
            yield at
        below = max(below - 1, 0) + field.children


def check(field: Field, column: Column, rows: int) -> None:
    node = column.nodes[0]
    if node.rows != rows:
        raise Err(f"column `{field.name}` has {node.rows} rows, and the first one {rows}")
    if node.nulls and not field.nullable:
        raise Err(f"column `{field.name}` must not be null")
    if field.data_type is DataType.UTF8:
        try:
            column.buffers[2].decode()
        except UnicodeDecodeError:
            raise Err(f"column `{field.name}` is not UTF-8") from None


# What was emitted and logged, for `weft.testing`; without it, log lines go to standard error.
emitted: list[Batch] = []
logged: list[tuple[str, str]] | None = None
# Evaluates expressions instead of the host: a batch and texts to a batch.
evaluate = None


def emit(batch: Batch) -> None:
    emitted.append(batch)


def write(level: Level, message: str) -> None:
    if logged is None:
        print(f"{level.name.lower()}: {message}", file=sys.stderr)
    else:
        logged.append((level.name.lower(), message))


def spent() -> Usage:
    return Usage(0, 0, 0)


def remaining() -> Usage:
    return Usage(2**64 - 1, 2**64 - 1, 2**64 - 1)
