"""Running functions in `python3 -m unittest`, without WebAssembly and without a server.

    run = weft.testing.run_map(app.words, {"line utf8": ["one two", ""]})
    assert run.rows() == [("one two", 2), ("", 0)]
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from weft import native, native_actors
from weft.batch import Batch
from weft.columns import decode
from weft.error import Error
from weft.functions import Groups, Params, Run, function_of
from weft.functions import run_task as call_task
from weft.schema import Field
from weft.testing_actors import Actors, Message

__all__ = ["Actors", "Message", "Ran", "on_eval", "on_spawn", "run_map", "run_reduce", "run_scalar", "run_task"]


@dataclass
class Ran:
    """What came out of one task."""

    batches: list[Batch]
    log: list[tuple[str, str]]

    def rows(self) -> list[tuple]:
        """The rows of all batches."""
        return [row for batch in self.batches for row in batch.rows()]


def run_map(target: Callable, *batches: Batch | Mapping[str, Iterable], params: Mapping[str, str] = {}) -> Ran:
    """Runs one task of a map. A batch may be given as its columns: `{"line utf8": [..]}`.

    Fails if the map does, or if what it emits is not what it has bound.
    """
    return run(target, params, [(as_batch(batch), ()) for batch in batches])


def run_reduce(
    target: Callable,
    *batches: Batch | Mapping[str, Iterable],
    keys: Iterable[str],
    params: Mapping[str, str] = {},
    batch_rows: int = 2,
) -> Ran:
    """Runs one task of a reduce or a combine over the rows of all batches, which are sorted by `keys`.

    They come in batches of a few rows, so that groups come in pieces as they do where they are large.
    """
    batches = [as_batch(batch) for batch in batches]
    names, schema = list(keys), batches[0].schema
    rows = [row for batch in batches for row in batch.rows()]
    key_of = lambda row: tuple(row[schema.position(name)] for name in names)
    # Nulls first.
    rows.sort(key=lambda row: [(value is not None, value) for value in key_of(row)])
    return run(target, params, list(pieces(schema, rows, key_of, batch_rows)))


def pieces(schema, rows: list[tuple], key_of: Callable, batch_rows: int):
    for start in range(0, len(rows), batch_rows):
        some, rest = rows[start : start + batch_rows], rows[start + batch_rows :]
        ends = []
        for _, group in groupby(some, key_of):
            ends.append((ends[-1] if ends else 0) + len(list(group)))
        continues = bool(rest) and key_of(rest[0]) == key_of(some[-1])
        yield Batch(dict(zip(schema, zip(*some)))), (Groups(ends, continues),)


def run_task(target: Callable, input: bytes = b"", params: Mapping[str, str] = {}, index: int = 0) -> bytes:
    """Calls a task."""
    return call_task(function_of(target), Params(params), index, input)


def run_scalar(target: Callable, *columns: Iterable) -> list:
    """Evaluates a scalar function on columns of the types that it takes, and gives its results."""
    scalar = function_of(target).scalar
    if scalar is None:
        raise Error(f"`{target.__name__}` is no scalar function")
    types = [each.type for each in scalar.takes] + ["int64"] * len(columns)
    batch = Batch({Field(f"arg{at}", type, nullable=True): column for at, (type, column) in enumerate(zip(types, columns))})
    _, returns = scalar.bind(batch.schema)
    return list(decode(returns, scalar.evaluate(batch))) if columns else [scalar.target()]


def on_eval(evaluate: Callable[[Batch, list[str]], Batch | Mapping[str, Iterable]] | None) -> None:
    """Has `evaluate` stand in for the host in `Batch.eval`, until it is called again; `None` ends that.

    There is no SQL outside of the host: a test says what its expressions give.
    """
    if evaluate is None:
        native.evaluate = None
    else:
        native.evaluate = lambda held, expressions: as_batch(evaluate(Batch.of_wire(held), expressions)).wire


def on_spawn(run: Callable[[str, bytes], bytes] | None) -> None:
    """Has `run` stand in for tasks that are spawned, until it is called again; `None` ends that.

    It gets the function's name and the input. Without it, tasks of the component itself run when they are spawned.
    """
    native_actors.run_spawned = run


def as_batch(batch: Batch | Mapping[str, Iterable]) -> Batch:
    return batch if isinstance(batch, Batch) else Batch(batch)


def run(target: Callable, params: Mapping[str, str], pushes: list[tuple[Batch, tuple]]) -> Ran:
    function, params = function_of(target), Params(params)
    emitted, native.logged = [], []
    try:
        bound = function.bind(pushes[0][0].schema, params) if pushes else None
        task = Run(function, params, emit=emitted.append)
        for batch, groups in pushes:
            task.push(batch.wire, *groups)
        task.finish()
        log = native.logged
    finally:
        native.logged = None
    batches = [Batch.of_wire(each) for each in emitted]
    for batch in batches:
        if bound is not None and batch.schema != bound:
            raise Error(f"`{function.name}` emits {list(batch.schema)}, and has bound {list(bound)}")
    return Ran(batches, log)
