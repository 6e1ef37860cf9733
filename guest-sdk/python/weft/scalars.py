"""Scalar functions of SQL: plain functions of values, whose annotations are the types of columns.

    @weft.scalar
    def initials(name: str, most: int = 3) -> str | None: ...

`str`, `int`, `float`, `bool` and `bytes` are utf8, int64, float64, boolean and binary; any other type is a text, as in
`day: "date32"` or `-> "decimal128(12, 2)?"`, or a `Field` with children. A function gets no nulls, and the result is null
where one is, unless the argument is `| None`, or has a `?`. So may the result be.
"""

import inspect
from collections.abc import Callable

from weft import host
from weft.batch import Batch, wire
from weft.error import Error
from weft.schema import Field, Schema

NAMES = {"str": "utf8", "int": "int64", "float": "float64", "bool": "boolean", "bytes": "binary"}

EMPTY = inspect.Parameter.empty


class Scalar:
    """What a decorated function takes and returns. What is misspelt is told when the component is built."""

    def __init__(self, name: str, target: Callable):
        if isinstance(target, type):
            raise Error(f"`{name}` is a class: a scalar function is a function of values")
        self.name, self.target = name, target
        signature = inspect.signature(target)
        parameters = list(signature.parameters.values())
        for each in parameters:
            if each.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
                raise Error(f"`{name}` has the parameter `{each}`: statements give plain arguments by position")
        self.takes = [self.field(f"arg{at}", each.annotation, f"`{each.name}`") for at, each in enumerate(parameters)]
        self.returns = self.field("returns", signature.return_annotation, "the result")
        # How many arguments have no default.
        self.needed = sum(each.default is EMPTY for each in parameters)

    def field(self, name: str, annotation, what: str) -> Field:
        if isinstance(annotation, Field):
            return Field(name, annotation.type, annotation.nullable, annotation.children)
        if annotation is EMPTY:
            raise Error(f"`{self.name}` does not say the type of {what}: annotate it, for example with `int` or `\"date32?\"`")
        text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        parts = [part.strip() for part in text.strip("'\"").split("|")]
        types = [part for part in parts if part != "None"]
        if len(types) != 1:
            raise Error(f"`{self.name}` says `{text}` for {what}: one type, which may be `| None`")
        type_ = types[0].removesuffix("?").rstrip()
        return Field(name, NAMES.get(type_, type_), nullable=len(parts) > 1 or types[0].endswith("?"))

    def bind(self, given: Schema) -> tuple[list[Field], Field]:
        """The arguments as the function takes them, and what it returns for them."""
        most = len(self.takes)
        if not self.needed <= len(given) <= most:
            n = f"{most}" if self.needed == most else f"{self.needed} to {most}"
            types = ", ".join(each.type for each in self.takes)
            raise Error(f"it takes {n} argument{'' if n == '1' else 's'} ({types}), and {len(given)} are given")
        pairs = list(zip(given, self.takes))
        arguments = [Field(one.name, taken.type, one.nullable, taken.children) for one, taken in pairs]
        return arguments, self.returned(any(one.nullable and not taken.nullable for one, taken in pairs))

    def returned(self, nulls_passed_over: bool) -> Field:
        returns = self.returns
        return Field("returns", returns.type, returns.nullable or nulls_passed_over, returns.children)

    def evaluate(self, arguments: Batch) -> host.Column:
        """The column of the results."""
        columns = [arguments[name] for name in arguments.schema.names]
        # Only lists may hold nulls.
        guards = [at for at, (column, taken) in enumerate(zip(columns, self.takes)) if not taken.nullable]
        guards = [at for at in guards if isinstance(columns[at], list) and None in columns[at]]
        if guards:
            results = [None if any(row[at] is None for at in guards) else self.target(*row) for row in zip(*columns)]
        elif columns:
            results = list(map(self.target, *columns))
        else:
            results = [self.target() for _ in range(len(arguments))]
        return wire(self.returned(bool(guards)), results)
