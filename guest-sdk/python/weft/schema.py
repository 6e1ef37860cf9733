"""Columns by name and type. A field is written as in job files, `"name type"`, with a `?` where it may be null."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from weft import host
from weft.error import Error

# Each type by the name that it has in job files.
TYPES = {each.name.lower().replace("_", "-"): each for each in host.DataType}

DECIMAL = re.compile(r"decimal128\(\s*(\d+)\s*,\s*(-?\d+)\s*\)")


@dataclass(frozen=True)
class Field:
    """A column's name and type: `boolean`, `int8` to `int64`, `uint8` to `uint64`, `float32`, `float64`, `utf8`, `binary`,
    `date32`, `timestamp-us`, `decimal128(p, s)`; `array-of` with one child and `struct-of` with its members.
    """

    name: str
    type: str
    nullable: bool = False
    children: tuple["Field", ...] = ()

    def __post_init__(self):
        if kind(self.type) not in TYPES or (kind(self.type) == "decimal128" and not DECIMAL.fullmatch(self.type)):
            known = ", ".join(sorted(TYPES))
            raise Error(f"no type `{self.type}` of column `{self.name}`; there are {known}, the decimal as `decimal128(p, s)`")

    @classmethod
    def parse(cls, text: "str | Field") -> "Field":
        """Reads `"n int64"` or `"n int64?"`."""
        if isinstance(text, Field):
            return text
        name, type = split(text)
        return cls(name, type.removesuffix("?").rstrip(), nullable=type.endswith("?"))

    def wire(self) -> list[host.Field]:
        """The contract's fields, in pre-order."""
        decimal = DECIMAL.fullmatch(self.type)
        precision, scale = map(int, decimal.groups()) if decimal else (0, 0)
        own = host.Field(self.name, TYPES[kind(self.type)], self.nullable, len(self.children), precision, scale)
        return [own, *(field for child in self.children for field in child.wire())]


def split(text: str) -> tuple[str, str]:
    """The name and the type of `"name type"`; the name may have spaces in it, a type only between its parentheses."""
    found = re.fullmatch(r"\s*(.*?\S)\s+(decimal128\s*\(.*\)\s*\??|\S+)\s*", text)
    if not found:
        raise Error(f"`{text}` is no column: write `name type`, for example `n int64`")
    return found[1], found[2]


def kind(type: str) -> str:
    """The type without its parameters."""
    return type.partition("(")[0].strip()


class Schema(tuple[Field, ...]):
    """The columns of a batch, in order: `Schema("word utf8", "n int64")`."""

    def __new__(cls, *fields: str | Field) -> "Schema":
        return super().__new__(cls, map(Field.parse, fields))

    @classmethod
    def of_wire(cls, fields: list[host.Field]) -> "Schema":
        rest = iter(fields)
        tops = []
        while (field := next(rest, None)) is not None:
            tops.append(of_wire(field, rest))
        return cls(*tops)

    @cached_property
    def wire(self) -> list[host.Field]:
        return [each for field in self for each in field.wire()]

    @property
    def names(self) -> list[str]:
        return [field.name for field in self]

    def position(self, name: str) -> int:
        for position, field in enumerate(self):
            if field.name == name:
                return position
        among = "`, `".join(self.names)
        raise Error(f"no column `{name}` among `{among}`" if self else f"no column `{name}`: there are none")

    def field(self, name: str) -> Field:
        return self[self.position(name)]

    def require(self, name: str, *types: str) -> None:
        """Fails unless the column is there, and of one of the types. `decimal128` stands for all decimals."""
        found = self.field(name).type
        if found not in types and kind(found) not in types:
            raise Error(f"column `{name}` is {found}, and must be {' or '.join(types)}")

    def add(self, *fields: str | Field) -> "Schema":
        return Schema(*self, *fields)

    def select(self, names: Iterable[str]) -> "Schema":
        return Schema(*(self.field(name) for name in names))


def of_wire(field: host.Field, rest: Iterator[host.Field]) -> Field:
    type = field.data_type.name.lower().replace("_", "-")
    if type == "decimal128":
        type = f"decimal128({field.precision}, {field.scale})"
    children = tuple(of_wire(next(rest), rest) for _ in range(field.children))
    return Field(field.name, type, field.nullable, children)
