"""What a component offers: `component` names it, and decorators add its functions.

A decorated function or class stays what it is, so that tests can call it. `reads` are the columns that it needs, `"name type"` or
`"name type|type"`; `adds` are the columns that a map puts behind those of its input, `gives` all columns of the output. Each
is one text or a list of them. Without `adds` and `gives` the output has the columns of the input. A class may say all of
that itself:

    @staticmethod
    def bind(input: Schema, params: Params) -> Schema: ...
    def __init__(self, params: Params): ...                  # starts a task; may be left out
    def push(self, input: Batch, out: Output): ...           # a reduce: push(self, input, groups, out)
    def finish(self, out: Output): ...                       # the last chance for output; may be left out
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from weft import host
from weft.actors import Actor
from weft.arguments import answer, extra
from weft.batch import Batch
from weft.error import Error
from weft.scalars import Scalar
from weft.schema import Field, Schema, split

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

# The flag of code that yields.
IS_GENERATOR = 0x20


class Params(dict[str, str]):
    """Parameters of the job and the stage, text to text."""

    def __missing__(self, name: str) -> str:
        raise Error(f"parameter `{name}` is missing")


@dataclass(frozen=True)
class Groups:
    """Where the groups of a batch end: rows with equal keys lie together.

    `ends`: the row after the last one of each group, which may have no rows here if it began in a batch before. `continues`:
    the last group goes on in the next batch.
    """

    ends: list[int]
    continues: bool


class Output:
    """Where a task's results go."""

    def __init__(self, schema: Schema | None, emit: Callable[[host.Batch], None] = host.emit):
        self.schema, self._emit = schema, emit

    def emit(self, batch: Batch | Mapping[str, Iterable]) -> None:
        """Hands over a batch, or columns by name; nothing if there are no rows.

        Errors: what lies in it is not what was bound, or more than the limit.
        """
        if not isinstance(batch, Batch):
            if self.schema is None:
                raise Error("no batch came, so the columns' types are not known: emit a `Batch`")
            batch = Batch.of_columns(self.schema, batch)
        if len(batch):
            self._emit(batch.wire)


@dataclass
class Function:
    """A function of the component, however it was written."""

    name: str
    kind: str
    target: Callable
    reads: list[str]
    adds: list[str] | None
    gives: list[str] | None
    deterministic: bool
    scalar: Scalar | None = None
    actor: Actor | None = None

    def __post_init__(self):
        # A type that there is not is found when the component is built.
        for each in self.reads:
            name, types = split(each)
            for type in alternatives(types):
                Field.parse(f"{name} {type}")
        Schema(*self.adds or ())
        Schema(*self.gives or ())

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, in one line."""
        return " ".join((self.target.__doc__ or "").strip().partition("\n\n")[0].split())

    def bind(self, input: Schema, params: Params) -> Schema:
        for each in self.reads:
            name, types = split(each)
            input.require(name, *alternatives(types))
        if hasattr(self.target, "bind"):
            return Schema(*self.target.bind(input, params))
        if self.gives is not None:
            return Schema(*self.gives)
        return input.add(*self.adds or ())

    def names(self) -> list[str]:
        return [split(each)[0] for each in self.reads]

    def open(self, params: Params) -> "Run":
        return Run(self, params)


def alternatives(types: str) -> list[str]:
    """The types that a column may have. What is read may be null whether a `?` says so or not."""
    return [type.removesuffix("?") for type in types.split("|")]


class Run:
    """A function in one task."""

    def __init__(self, function: Function, params: Params, emit: Callable[[host.Batch], None] = host.emit):
        self.function, self.params = function, params
        known = function.gives is not None and not hasattr(function.target, "bind")
        self.out = Output(Schema(*function.gives) if known else None, emit)
        self.input: Schema | None = None
        self.instance = opened(function, params)

    def push(self, batch: host.Batch, *groups) -> None:
        # All batches of one task have the same fields.
        if self.input is None:
            self.input = Schema.of_wire(batch.fields())
            self.out.schema = self.out.schema or self.function.bind(self.input, self.params)
        self.instance.push(Batch.of_wire(batch, self.input), *groups, self.out)

    def finish(self) -> None:
        if hasattr(self.instance, "finish"):
            self.instance.finish(self.out)


def opened(function: Function, params: Params):
    target = function.target
    if not isinstance(target, type):
        return (OfColumns if function.kind == "map-batches" else OfGroups)(function, params)
    takes_params = hasattr(target.__init__, "__code__") and target.__init__.__code__.co_argcount > 1
    return target(params) if takes_params else target()


class OfColumns:
    """A map that is a function of columns, and answers with a column, or a tuple of them."""

    def __init__(self, function: Function, params: Params):
        self.function, self.extra = function, extra(function.target, params=params)
        self.names = function.names()
        self.results = Schema(*(function.adds or function.gives))

    def push(self, input: Batch, out: Output) -> None:
        results = self.function.target(*(input[name] for name in self.names), **self.extra)
        results = (results,) if len(self.results) == 1 else results
        if self.function.adds is None:
            return out.emit(dict(zip(self.results.names, results, strict=True)))
        for field, values in zip(self.results, results, strict=True):
            input = input.with_column(field, values)
        out.emit(input)


class OfGroups:
    """A reduce that is a function of the columns of one group, as lists, and answers with a row, or yields some."""

    def __init__(self, function: Function, params: Params):
        self.function, self.extra = function, extra(function.target, params=params)
        self.names = function.names()
        self.yields = bool(function.target.__code__.co_flags & IS_GENERATOR)
        self.open: list[list] | None = None

    def push(self, input: Batch, groups: Groups, out: Output) -> None:
        columns = [as_list(input[name]) for name in self.names]
        rows, start = [], 0
        for position, end in enumerate(groups.ends, 1):
            group = [column[start:end] for column in columns]
            start = end
            if self.open:
                group = [held + more for held, more in zip(self.open, group)]
            self.open = group if group[0] else None
            if self.open and not (groups.continues and position == len(groups.ends)):
                rows.extend(self.take())
        self.emit(rows, out)

    def take(self) -> Iterator[tuple]:
        """The rows of the group that has come to its end."""
        group, self.open = self.open, None
        rows = self.function.target(*group, **self.extra)
        return rows if self.yields else (rows,)

    def finish(self, out: Output) -> None:
        if self.open:
            self.emit(list(self.take()), out)

    def emit(self, rows: list, out: Output) -> None:
        if rows:
            columns = [rows] if len(out.schema) == 1 and not isinstance(rows[0], tuple) else zip(*rows, strict=True)
            out.emit(dict(zip(out.schema.names, columns, strict=True)))


def as_list(values) -> list:
    return values if isinstance(values, list) else values.tolist()


@dataclass
class Component:
    name: str | None = None
    version: str | None = None


# The one component that is being described; a name of its own for each function.
THIS = Component()
FUNCTIONS: dict[str, Function] = {}


def component(name: str, version: str) -> None:
    """Names the component. A version that ends in `-dev` may be deployed again and again; any other one stays what it is."""
    if not NAME.fullmatch(name):
        raise Error(f"`{name}` is no name for a component: a letter, then letters, digits and `-`, all small, 63 at most")
    THIS.name, THIS.version = name, version


def described() -> Component:
    if THIS.name is None:
        raise Error("the component has no name: call `weft.component(name, version)`")
    return THIS


def find(name: str, *kinds: str) -> Function:
    function = FUNCTIONS.get(name)
    if function is None or (kinds and function.kind not in kinds):
        raise Error(f"no function `{name}`")
    return function


def local_name(name: str) -> str | None:
    """The name of a function without its component, or `None` if it is another one's."""
    component, _, function = name.rpartition("/")
    return function if component in ("", THIS.name) else None


def function_of(target: Callable) -> Function:
    """The function that a decorated thing is."""
    for function in FUNCTIONS.values():
        if function.target is target:
            return function
    raise Error(f"`{target.__name__}` has no decorator of `weft`")


def map(target=None, *, reads=(), adds=None, gives=None, name=None, deterministic=True):
    """A map. A function gets the columns of `reads`, and answers with those of `adds` or `gives`."""
    return decorated("map-batches", target, reads, adds, gives, name, deterministic)


def reduce(target=None, *, reads=(), gives=None, name=None, deterministic=True):
    """A reduce. A function gets the columns of `reads` of one group, as lists, and answers with a row of `gives`, or yields rows.

    A function holds a whole group, so its memory grows with the largest one; a class need not.
    """
    return decorated("reduce-groups", target, reads, None, gives, name, deterministic)


def combine(target=None, *, reads=(), name=None, deterministic=True):
    """A combine: a reduce whose output has the columns of its input, and that may run any number of times, also never."""
    return decorated("combine-groups", target, reads, None, None, name, deterministic)


def task(target=None, *, name=None, deterministic=True):
    """A function that has any of the arguments `input` (bytes), `params` and `index`, and answers with bytes, text or nothing."""
    return decorated("task", target, (), None, None, name, deterministic)


def scalar(target=None, *, name=None, deterministic=True):
    """A function that SQL statements call for each row; its annotations are the types of its arguments and its result."""

    def decorate(target):
        of = name or name_of(target)
        add(Function(of, "scalar", target, [], None, None, deterministic, Scalar(of, target)))
        return target

    return decorate if target is None else decorate(target)


def actor(target: type | str | None = None, *, name=None):
    """A class of which there is one instance for each key; `weft.actors` says what it has. `@weft.actor("name")` names it."""
    if isinstance(target, str):
        target, name = None, target

    def decorate(target):
        of = name or name_of(target)
        add(Function(of, "actor", target, [], None, None, True, actor=Actor(of, target)))
        return target

    return decorate if target is None else decorate(target)


def run_task(function: Function, params: Params, index: int, input: bytes) -> bytes:
    return answer(function.target(**extra(function.target, input=input, params=params, index=index)))


def reseed() -> None:
    """Seeds the module `random`, if it was imported, from the host's bytes, which the job's seed and the task decide.

    Without this each sandbox would go on from the state at the end of the build.
    """
    random = sys.modules.get("random")
    if random is not None:
        random.seed(os.urandom(16))


def decorated(kind, target, reads, adds, gives, name, deterministic):
    def decorate(target):
        add(Function(name or name_of(target), kind, target, listed(reads), listed(adds), listed(gives), deterministic))
        return target

    return decorate if target is None else decorate(target)


def listed(fields) -> list | None:
    return [fields] if isinstance(fields, (str, Field)) else fields and list(fields)


def name_of(target: Callable) -> str:
    """`DailyPartial` and `daily_partial` are `daily-partial`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", target.__name__).replace("_", "-").lower()


def add(function: Function) -> None:
    name = function.name
    if not NAME.fullmatch(name):
        raise Error(f"`{name}` is no name for a function: a letter, then letters, digits and `-`, all small, 63 at most")
    if name in FUNCTIONS:
        raise Error(f"there are two functions `{name}`")
    if function.adds is not None and function.gives is not None:
        raise Error(f"`{name}` has `adds` and `gives`: the first is for what comes behind the input's columns")
    if not isinstance(function.target, type) and function.kind not in ("task", "scalar"):
        check_function(function)
    # What is misspelt is told when the component is built, and not when the first batch comes.
    Schema(*function.adds or (), *function.gives or ())
    FUNCTIONS[name] = function


def check_function(function: Function) -> None:
    if not function.reads:
        raise Error(f"`{function.name}` is a function, and has no `reads`: name its columns, or make it a class")
    if function.kind == "map-batches" and not (function.adds or function.gives):
        raise Error(f"`{function.name}` is a function, and has neither `adds` nor `gives`: name its columns, or make it a class")
