"""Tables of sqllogictest files, beside the catalog of Weft: inputs of job documents, and texts that stand in front of queries.

`CREATE EXTERNAL TABLE` is an input over its files. `CREATE TABLE` and `INSERT` run their query as a job, whose folder is an input from then on,
with the types that are declared. A view is a text in a `WITH`, and so is a table of a type that no file holds.
"""
import dataclasses, glob, os

import pyarrow as pa

import slt_sql
from slt_sql import NotUnderstood, Tokens, quoted

# Types of SQL, as an input's `schema` has them.
TYPES = {"BOOLEAN": "boolean", "BOOL": "boolean", "TINYINT": "int8", "SMALLINT": "int16", "INT": "int32", "INTEGER": "int32", "BIGINT": "int64",
         "TINYINT UNSIGNED": "uint8", "SMALLINT UNSIGNED": "uint16", "INT UNSIGNED": "uint32", "INTEGER UNSIGNED": "uint32",
         "BIGINT UNSIGNED": "uint64", "FLOAT": "float32", "REAL": "float32", "DOUBLE": "float64", "DOUBLE PRECISION": "float64",
         "VARCHAR": "utf8", "TEXT": "utf8", "STRING": "utf8", "CHAR": "utf8", "DATE": "date32", "TIMESTAMP": "timestamp-us"}
FORMATS = {"CSV": "csv", "PARQUET": "parquet", "ARROW": "arrow", "JSON": "json", "NDJSON": "json"}
ENDINGS = {"csv": ".csv", "parquet": ".parquet", "arrow": ".arrow", "json": ".json"}
# How Weft says that a column's type cannot leave a statement.
NOT_PASSED_ON = "which is not passed on"
EXTERNAL_OPTIONS = {"stored", "location", "partitioned", "format.has_header", "format.delimiter", "has_header", "delimiter"}


class Refused(Exception):
    """A query that Weft has answered with a problem."""

    def __init__(self, code, detail):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


@dataclasses.dataclass
class Table:
    # An input of a job document, or nothing where `text` stands for the table.
    input: dict | None = None
    text: str = ""
    # Names, types and defaults.
    columns: tuple = ()
    has_key: bool = False
    is_unbounded: bool = False
    # Why there is no such table, and whether it is one that the catalog cannot follow.
    broken: str = ""
    is_unknown: bool = False


class Catalog:
    """The tables of one file. `run(sql, tables, folder, format)` runs a query and keeps its rows in a folder."""

    def __init__(self, run, folder, root):
        self.run, self.folder, self.root = run, folder, root
        self.tables, self.copies, self.n = {}, {}, 0

    def apply(self, sql):
        """Runs a statement that changes tables. Gives the number of rows that Weft has made, or None where it had nothing to do."""
        tokens = Tokens(sql)
        if tokens.takes("CREATE"):
            return self.create(tokens)
        if tokens.takes("DROP"):
            return self.drop(tokens)
        if tokens.takes("INSERT", "INTO"):
            return self.insert(tokens)
        if tokens.takes("COPY"):
            return self.copy(tokens)
        raise NotUnderstood(tokens.word())

    # ---- statements

    def create(self, tokens):
        replaces = tokens.takes("OR", "REPLACE")
        is_unbounded = tokens.takes("UNBOUNDED")
        if tokens.takes("EXTERNAL", "TABLE"):
            return self.create_external(tokens, is_unbounded)
        tokens.takes("TEMPORARY") or tokens.takes("TEMP")
        is_view = tokens.takes("VIEW")
        if not is_view:
            tokens.expects("TABLE")
        keeps = tokens.takes("IF", "NOT", "EXISTS")
        name = self.bare(tokens)
        if name in self.tables and not self.tables[name].broken and not replaces:
            if keeps:
                return None
            raise Refused("exists", f"table {name} already exists")
        columns, has_key = slt_sql.columns(tokens) if tokens.word() == "(" else ([], False)
        query = tokens.rest() if tokens.takes("AS") else ""
        if is_view:
            self.tables[name] = Table(text=renamed(query, [column for column, *_ in columns]), columns=tuple(columns))
            return None
        if not columns and not query:
            self.tables[name] = Table(broken="the catalog cannot follow it", is_unknown=True)
            raise NotUnderstood("a table without columns")
        table, n = self.whole(name, lambda: self.made(query or empty(columns), columns if columns and columns[0][1] else []))
        self.tables[name] = dataclasses.replace(table, columns=tuple(columns), has_key=has_key)
        return n

    def whole(self, name, make):
        """What makes a table, or adds to it. Where that fails there is no such table any more, rather than one that lacks rows."""
        try:
            return make()
        except Refused as refused:
            self.tables[name] = Table(broken=str(refused))
            raise

    def made(self, query, columns, tables=None):
        """A table of a query's rows."""
        sql = cast(query, [type_ for _, type_, _ in columns], [name for name, *_ in columns]) if columns else query
        return self.stored(sql, tables)

    def stored(self, sql, tables=None):
        self.n += 1
        folder = f"{self.folder}/table-{self.n:06}"
        try:
            n = self.run(sql, self.tables if tables is None else tables, folder, "arrow")
        except Refused as refused:
            if NOT_PASSED_ON not in refused.detail:
                raise
            return Table(text=sql), 0
        return Table(input={"format": "arrow", "uri": [f"{folder}/"]}), n

    def insert(self, tokens):
        name = self.bare(tokens)
        table = self.known(name)
        columns = self.columns_of(table)
        named = [self.column(item) for item in tokens.in_parentheses()] if self.has_column_list(tokens) else [column for column, *_ in columns]
        query = tokens.rest()
        given = {column: f"i{at}" for at, column in enumerate(named)}
        if not set(given) <= {column for column, *_ in columns}:
            raise Refused("invalid_job", f"No field named {sorted(set(given) - {column for column, *_ in columns})}")
        value = lambda column, default: quoted(given[column]) if column in given else default
        values = [f"{as_type(value(column, default), type_)} AS {quoted(column)}" for column, type_, default in columns]
        sources = ", ".join(quoted(source) for source in given.values())
        sql = f"SELECT {', '.join(values)} FROM ({query}\n) AS inserted({sources})"
        if table.input is None:
            self.tables[name] = dataclasses.replace(table, text=f"{table.text}\nUNION ALL {sql}")
            return None
        more, n = self.whole(name, lambda: self.stored(sql))
        if more.input is None:
            raise NotUnderstood("rows that no file holds")
        both = {**table.input, "uri": table.input["uri"] + more.input["uri"]}
        self.tables[name] = dataclasses.replace(table, input=both)
        return n

    def drop(self, tokens):
        is_view = tokens.takes("VIEW")
        if not is_view:
            tokens.expects("TABLE")
        if_exists = tokens.takes("IF", "EXISTS")
        name = self.bare(tokens)
        if self.tables.pop(name, None) is None and not if_exists:
            raise Refused("unknown", f"Table {name} doesn't exist")

    def copy(self, tokens):
        """Keeps the rows under the path that they are copied to."""
        if tokens.word() == "(":
            start = tokens.found[tokens.at][3]
            tokens.in_parentheses()
            query = tokens.sql[start:tokens.found[tokens.at - 1][2]]
        else:
            query = f"SELECT * FROM {quoted(tokens.name())}"
        tokens.expects("TO")
        path = tokens.text()
        options = self.options(tokens)
        if "partitioned" in options:
            raise NotUnderstood("COPY to folders by column")
        table, n = self.stored(query)
        self.copies[os.path.normpath(path)] = table, header(options, "true")
        return n

    # ---- external tables

    def create_external(self, tokens, is_unbounded):
        keeps = tokens.takes("IF", "NOT", "EXISTS")
        name = self.bare(tokens)
        if name in self.tables and not self.tables[name].broken:
            if keeps:
                return
            raise Refused("exists", f"table {name} already exists")
        columns, has_key = slt_sql.columns(tokens) if tokens.word() == "(" else ([], False)
        self.tables[name] = Table(broken="the catalog cannot follow it", is_unknown=True)
        options = self.options(tokens)
        if unknown := sorted(set(options) - EXTERNAL_OPTIONS):
            raise NotUnderstood(f"the option {unknown[0]}")
        format_ = FORMATS.get(options.get("stored", "").upper())
        if format_ is None or "partitioned" in options or "location" not in options:
            raise NotUnderstood("a table of another kind")
        table = self.copied(options, format_, columns) or Table(input=self.input(options, format_, columns, is_unbounded))
        self.tables[name] = dataclasses.replace(table, columns=tuple(columns), has_key=has_key, is_unbounded=is_unbounded)

    def input(self, options, format_, columns, is_unbounded):
        found = {"format": format_, "uri": self.files(options["location"], format_)}
        if format_ in ("csv", "json") and columns:
            found["schema"] = [f"{column} {declared(type_)}" for column, type_, _ in columns]
        if format_ == "csv":
            found["header"] = header(options, str(not is_unbounded))
            found["delimiter"] = options.get("format.delimiter", options.get("delimiter", ","))
            if found["header"] and columns:
                found["uri"] = [self.with_header(path, found["delimiter"], [column for column, *_ in columns]) for path in found["uri"]]
        return found

    def with_header(self, path, delimiter, names):
        """The same file, with a header of the declared names: Weft finds columns of CSV by name, and DataFusion by position."""
        with open(path, encoding="utf-8", newline="") as file:
            header, rest = file.readline(), file.read()
        if [name.strip('"') for name in header.strip().split(delimiter)] == names:
            return path
        self.n += 1
        copy = f"{self.folder}/csv-{self.n:06}.csv"
        with open(copy, "w", encoding="utf-8", newline="") as file:
            file.write(delimiter.join(names) + "\n" + rest)
        return copy

    def copied(self, options, format_, columns):
        """The table of what COPY has put at a location, or below it: the rows, whatever the format."""
        location = os.path.normpath(options["location"])
        found = {path: copy for path, copy in sorted(self.copies.items()) if path == location or path.startswith(location + os.sep)}
        if not found:
            return None
        if any("=" in path for path in found):
            raise NotUnderstood("folders by column")
        if format_ == "csv" and any(has_header != header(options, "true") for _, has_header in found.values()):
            raise NotUnderstood("a header that is a row")
        if any(table.input is None for table, _ in found.values()):
            raise NotUnderstood("a copy of rows that no file holds")
        rows = Table(input={"format": "arrow", "uri": [uri for table, _ in found.values() for uri in table.input["uri"]]})
        return self.made('SELECT * FROM "copied"', columns, {"copied": rows})[0] if columns else rows

    def files(self, location, format_):
        path = os.path.normpath(os.path.join(self.root, location))
        if os.path.isdir(path):
            found = sorted(glob.glob(f"{path}/*{ENDINGS[format_]}"))
        else:
            found = [path] if os.path.exists(path) else []
        if not found:
            raise NotUnderstood(f"no files at {location}")
        return found

    def options(self, tokens):
        """What follows the columns: STORED AS, LOCATION, OPTIONS, WITH ORDER."""
        found = {}
        while tokens.at < len(tokens.found):
            if tokens.takes("STORED", "AS"):
                found["stored"] = tokens.name()
            elif tokens.takes("LOCATION"):
                found["location"] = tokens.text()
            elif tokens.takes("OPTIONS"):
                for item in tokens.in_parentheses():
                    key, value = item[0][1].strip("'\""), item[-1][1]
                    found[key.lower()] = value.strip("'")
            elif tokens.takes("WITH", "ORDER"):
                tokens.in_parentheses()
            elif tokens.takes("PARTITIONED", "BY"):
                found["partitioned"] = str(tokens.in_parentheses())
            else:
                raise NotUnderstood(tokens.found[tokens.at][1])
        return found

    # ---- names and columns

    def bare(self, tokens):
        name = tokens.name()
        if tokens.word() == ".":
            raise NotUnderstood("a name with a schema")
        return name

    def known(self, name):
        table = self.tables.get(name)
        if table is None:
            raise Refused("unknown", f"table '{name}' not found")
        if table.broken:
            raise Refused("unknown", f"{name}: {table.broken}")
        return table

    def has_column_list(self, tokens):
        """Whether a list of columns comes next, rather than a query in parentheses."""
        return tokens.word() == "(" and tokens.word(1) not in slt_sql.QUERIES

    def column(self, item):
        return slt_sql.identifier(*item[0][:2])

    def columns_of(self, table):
        """Columns with types that CAST takes; those of a file where none are declared."""
        if table.columns and table.columns[0][1]:
            return table.columns
        if table.input is None:
            raise NotUnderstood("INSERT into rows without types")
        first = sorted(glob.glob(f"{table.input['uri'][0]}*.arrow"))[0]
        with pa.ipc.open_file(first) as file:
            return tuple((field.name, f"arrow:{arrow_type(field.type)}", "NULL") for field in file.schema)


def header(options, default):
    """Whether a CSV file has a header."""
    return options.get("format.has_header", options.get("has_header", default)).lower() == "true"


def declared(type_):
    """A type of SQL, as an input's `schema` has it."""
    words = " ".join(type_.upper().split())
    base, _, digits = words.partition("(")
    if base.strip() in ("DECIMAL", "NUMERIC"):
        return f"decimal128({digits.rstrip(')') or '38, 10'})"
    found = TYPES.get(base.strip())
    if found is None:
        raise NotUnderstood(f"the type {type_}")
    return found


UNITS = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}
ARROW_TYPES = {"bool": "Boolean", "int8": "Int8", "int16": "Int16", "int32": "Int32", "int64": "Int64", "uint8": "UInt8", "uint16": "UInt16",
               "uint32": "UInt32", "uint64": "UInt64", "halffloat": "Float16", "float": "Float32", "double": "Float64", "string": "Utf8",
               "large_string": "LargeUtf8", "binary": "Binary", "date32[day]": "Date32"}


def arrow_type(type_):
    """A type, as `arrow_cast` has it."""
    t = pa.types
    if t.is_timestamp(type_):
        zone = f'Some("{type_.tz}")' if type_.tz else "None"
        return f"Timestamp({UNITS[type_.unit]}, {zone})"
    if t.is_duration(type_):
        return f"Duration({UNITS[type_.unit]})"
    if t.is_time(type_):
        return f"Time{type_.bit_width}({UNITS[type_.unit]})"
    if t.is_decimal128(type_):
        return f"Decimal128({type_.precision}, {type_.scale})"
    if (found := ARROW_TYPES.get(str(type_))) is None:
        raise NotUnderstood(f"INSERT into a column of type {type_}")
    return found


def as_type(value, type_):
    if type_.upper() == "TIMESTAMP":
        # CAST takes a whole number for seconds, and a table for nanoseconds.
        type_ = "arrow:Timestamp(Nanosecond, None)"
    if type_.startswith("arrow:"):
        return f"arrow_cast({value}, '{type_[6:]}')"
    return f"CAST({value} AS {type_})"


def cast(query, types, names):
    """A query whose columns have these types and names."""
    sources = [quoted(f"c{at}") for at in range(len(names))]
    values = ", ".join(f"{as_type(source, type_)} AS {quoted(name)}" for source, type_, name in zip(sources, types, names))
    return f"SELECT {values} FROM ({query}\n) AS made({', '.join(sources)})"


def empty(columns):
    """A query of as many columns and no rows. Nulls in SELECT would all have one name."""
    return f"SELECT * FROM (VALUES ({', '.join('NULL' for _ in columns)})) WHERE false"


def renamed(query, names):
    return f"SELECT * FROM ({query}\n) AS named({', '.join(map(quoted, names))})" if names else query
