"""Batches: columns of equal length, which stay with the host until they are read."""

from collections.abc import Iterable, Mapping, Sequence

from weft import host
from weft.columns import bits, decode, encode, offsets
from weft.error import Error
from weft.schema import Field, Schema


class Column:
    """A column as it lies in memory, for functions that need no Python values.

    `data`: the bytes of numbers, or of all texts one after the other, between `offsets`.
    """

    def __init__(self, field: Field, wire: host.Column):
        self.field, self.wire = field, wire

    def __len__(self) -> int:
        return self.wire.nodes[0].rows

    @property
    def nulls(self) -> int:
        return self.wire.nodes[0].nulls

    @property
    def data(self) -> bytes:
        return self.wire.buffers[-1]

    @property
    def offsets(self) -> memoryview:
        """Of texts and bytes: one more than there are rows, the first is 0."""
        return offsets(self.wire.buffers[1])

    def values(self) -> Sequence:
        """As `weft.columns` says: a memoryview of numbers, else a list; nulls are `None`."""
        return decode(self.field, self.wire)


class Batch:
    """`Batch({"word utf8": ["a", "b"], "n int64": [1, 2]})`; columns are read by name: `batch["word"]`."""

    def __init__(self, columns: Mapping[str | Field, Iterable]):
        schema = Schema(*columns)
        self._hold(schema, create(schema, columns.values()))

    @classmethod
    def of_wire(cls, held: host.Batch, schema: Schema | None = None) -> "Batch":
        """A batch of the host's; its fields are asked for where the schema is not known."""
        return cls._of(Schema.of_wire(held.fields()) if schema is None else schema, held)

    @classmethod
    def of_columns(cls, schema: Schema, columns: Mapping[str, Iterable]) -> "Batch":
        """Columns by name, with exactly the names of the schema."""
        if columns.keys() != set(schema.names):
            given, wanted = "`, `".join(columns), "`, `".join(schema.names)
            raise Error(f"the columns must be `{wanted}`, not `{given}`")
        return cls._of(schema, create(schema, [columns[name] for name in schema.names]))

    @classmethod
    def _of(cls, schema: Schema, held: host.Batch) -> "Batch":
        batch = cls.__new__(cls)
        batch._hold(schema, held)
        return batch

    def _hold(self, schema: Schema, held: host.Batch) -> None:
        self.schema, self.wire = schema, held

    def __len__(self) -> int:
        return self.wire.rows()

    def __getitem__(self, name: str) -> Sequence:
        """The values of a column. Each time it is copied in, so keep what is needed twice."""
        return self.column(name).values()

    def column(self, name: str) -> Column:
        position = self.schema.position(name)
        return Column(self.schema[position], self.wire.column(position))

    def select(self, names: Iterable[str]) -> "Batch":
        names = list(names)
        return self._of(self.schema.select(names), self.wire.project([self.schema.position(name) for name in names]))

    def with_column(self, field: str | Field, values: Iterable) -> "Batch":
        """The batch with one column more; the others are not copied."""
        field = Field.parse(field)
        column = wire(field, values)
        if rows_of(column) != len(self):
            raise Error(f"column `{field.name}` has {rows_of(column)} values, and the batch {len(self)} rows")
        return self._of(self.schema.add(field), self.wire.with_column(field.wire(), column))

    def filter(self, keep: Iterable) -> "Batch":
        """The rows for which `keep`, one value for each, is true."""
        return self._of(self.schema, self.wire.filter(bits(keep)))

    def take(self, rows: Iterable[int]) -> "Batch":
        """Rows by position, in this order; a position may come more than once."""
        return self._of(self.schema, self.wire.take(list(rows)))

    def eval(self, *expressions: str) -> "Batch":
        """Evaluates expressions of SQL: `batch.eval("zone", "fare * 1.2 AS total", "upper(zone) AS label")`.

        The host computes them natively, a column for each, and no column is copied in. `AS name` names a column;
        otherwise its name is that of the column, or the text. Names of columns are read in lower case unless they are
        quoted. Each list is compiled once, so give the same texts for each batch. Aggregates, windows, subqueries,
        functions such as `random()` and what has no bound of memory are refused. In tests, `weft.testing.on_eval`
        stands in for the host.
        """
        batch = self.of_wire(self.wire.eval(list(expressions)))
        if len(batch) != len(self):
            raise Error(f"expressions over {len(self)} rows gave {len(batch)}")
        return batch

    def rows(self) -> list[tuple]:
        """All rows, for tests."""
        return list(zip(*(self[name] for name in self.schema.names)))


def create(schema: Schema, columns: Iterable[Iterable]) -> host.Batch:
    encoded = list(map(wire, schema, columns))
    for field, column in zip(schema, encoded):
        if rows_of(column) != rows_of(encoded[0]):
            first = f"column `{schema[0].name}` has {rows_of(encoded[0])} values"
            raise Error(f"{first}, and `{field.name}` has {rows_of(column)}")
    return host.Batch.create(schema.wire, encoded)


def rows_of(column: host.Column) -> int:
    return column.nodes[0].rows


def wire(field: Field, values: Iterable) -> host.Column:
    return values.wire if isinstance(values, Column) else encode(field, values)
