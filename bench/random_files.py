"""Writes the tables of bench/random_tables.py: who writes them, with which of a writer's many options, and in how many files that differ in their schemas."""
import csv, datetime, decimal, gzip, json, math, re

import duckdb
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from readers import table_of
from text_sameness import parse_csv, parse_json

# What `schema` calls types.
DECLARABLE = {pa.bool_(): "boolean", pa.float32(): "float32", pa.float64(): "float64", pa.string(): "utf8", pa.date32(): "date32",
              pa.timestamp("us"): "timestamp-us",
              **{type_: str(type_) for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())}}


class CannotWrite(Exception):
    """This writer does not take this table."""


def write(draw, format, table, folder):
    """Paths, who wrote them and how, what a job says of the input besides, and the table as a reader should find it."""
    return {"parquet": parquet, "arrow": arrow, "csv": write_csv, "json": write_json}[format](draw, table, folder)


def attempted(write):
    """Calls a writer. Errors: `CannotWrite`."""
    try:
        return write()
    except BaseException as error:  # a panic of Polars is no `Exception`
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise CannotWrite(f"{type(error).__name__}: {error}") from error


def parts(draw, table):
    """The table in pieces, some of them empty."""
    n = draw.choice([1, 1, 1, 2, 3])
    cuts = sorted(draw.randrange(table.num_rows + 1) for _ in range(n - 1))
    return [table.slice(start, end - start) for start, end in zip([0, *cuts], [*cuts, table.num_rows])]


def varied(draw, table):
    """The same rows in another schema: as it may be where somebody wrote one part today, and another yesterday."""
    fields, columns = [], []
    for at, field in enumerate(table.schema):
        column = table.column(at)
        if column.null_count == len(column) and draw.random() < 0.3:
            fields.append(pa.field(field.name, pa.null()))
            columns.append(pa.nulls(len(column)))
            continue
        if pa.types.is_struct(field.type) and draw.random() < 0.5:
            column = shuffled(draw, column.combine_chunks())
        is_required = column.null_count == 0 and not pa.types.is_null(column.type) and draw.random() < 0.4
        fields.append(pa.field(field.name, column.type, nullable=not is_required))
        columns.append(column)
    order = list(range(len(fields)))
    if draw.random() < 0.2:
        draw.shuffle(order)
    return pa.table([columns[at] for at in order], pa.schema([fields[at] for at in order]))


def shuffled(draw, column):
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)
    order = list(range(column.type.num_fields))
    draw.shuffle(order)
    return pa.StructArray.from_arrays([column.field(at) for at in order], fields=[column.type.field(at) for at in order], mask=column.is_null())


# ---- Parquet

def parquet(draw, table, folder):
    writer = draw.choice(["pyarrow", "pyarrow", "polars", "duckdb"])
    paths, hows = [], []
    many = parts(draw, table)
    for at, part in enumerate(many):
        path = f"{folder}/{at}.parquet"
        if writer == "pyarrow":
            part = varied(draw, part) if len(many) > 1 else part
            hows.append(attempted(lambda: by_pyarrow(draw, part, path)))
        else:
            hows.append(attempted(lambda: (by_polars if writer == "polars" else by_duckdb)(draw, part, path)))
        paths.append(path)
    if writer != "pyarrow":
        # These keep what they can of the types that they do not have.
        table = attempted(lambda: table_of("pyarrow", "parquet", paths))
    return paths, f"{writer} {'; '.join(hows)}", {}, table


def by_pyarrow(draw, table, path):
    options = {"compression": draw.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]), "version": draw.choice(["1.0", "2.4", "2.6", "2.6"]),
               "data_page_version": draw.choice(["1.0", "2.0"]), "use_compliant_nested_type": draw.random() < 0.5, "store_schema": draw.random() < 0.5,
               "write_page_index": draw.random() < 0.3, "write_page_checksum": draw.random() < 0.3, "write_statistics": draw.random() < 0.7,
               "use_deprecated_int96_timestamps": draw.random() < 0.2, "store_decimal_as_integer": draw.random() < 0.3, "use_dictionary": draw.random() < 0.6,
               "data_page_size": draw.choice([64, 1000, 1 << 20]), "dictionary_pagesize_limit": draw.choice([100, 1 << 20])}
    if not options["use_dictionary"]:
        options["column_encoding"] = {field.name: encoding for field in table.schema if (encoding := encoding_of(draw, field.type))}
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        n = draw.choice([1, 7, 100, 10_000])
        if draw.random() < 0.2:
            writer.write_table(table.slice(0, 0))  # a row group without rows
        if table.num_rows / n < 100:
            writer.write_table(table, row_group_size=n)
        else:
            writer.write_table(table)
    return " ".join(f"{key}={value}" for key, value in options.items())


def encoding_of(draw, type_):
    if pa.types.is_integer(type_) and type_.bit_width >= 32 or pa.types.is_timestamp(type_) or pa.types.is_date32(type_):
        return draw.choice(["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"])
    if pa.types.is_floating(type_):
        return draw.choice(["PLAIN", "BYTE_STREAM_SPLIT"])
    if pa.types.is_string(type_) or pa.types.is_binary(type_) or pa.types.is_large_string(type_):
        return draw.choice(["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
    if pa.types.is_boolean(type_):
        return draw.choice(["PLAIN", "RLE"])
    return None


def by_polars(draw, table, path):
    options = {"compression": draw.choice(["uncompressed", "snappy", "gzip", "zstd", "lz4", "brotli"]), "statistics": draw.random() < 0.5,
               "row_group_size": draw.choice([None, 10, 1000]), "data_page_size": draw.choice([None, 100])}
    polars.from_arrow(table).write_parquet(path, **options)
    return " ".join(f"{key}={value}" for key, value in options.items())


def by_duckdb(draw, table, path):
    options = {"compression": draw.choice(["uncompressed", "snappy", "gzip", "zstd", "lz4_raw", "brotli"]), "row_group_size": draw.choice([2048, 122_880]),
               "parquet_version": draw.choice(["V1", "V2"])}
    copied_by_duckdb(table, path, "format parquet, " + ", ".join(f"{key} {value}" for key, value in options.items()))
    return " ".join(f"{key}={value}" for key, value in options.items())


def copied_by_duckdb(table, path, options):
    with duckdb.connect() as connection:
        connection.execute("set threads = 1; set timezone = 'UTC'")
        connection.register("rows", table)
        connection.execute(f"copy (select * from rows) to '{path}' ({options})")


# ---- Arrow

def arrow(draw, table, folder):
    writer = draw.choice(["pyarrow", "pyarrow", "polars"])
    paths, hows = [], []
    for at, part in enumerate(many := parts(draw, table)):
        path = f"{folder}/{at}.arrow"
        if writer == "pyarrow":
            part = varied(draw, part) if len(many) > 1 else part
            hows.append(attempted(lambda: arrow_by_pyarrow(draw, part, path)))
        else:
            hows.append(attempted(lambda: arrow_by_polars(draw, part, path)))
        paths.append(path)
    if writer != "pyarrow":
        table = attempted(lambda: table_of("pyarrow", "arrow", paths))
    return paths, f"{writer} {'; '.join(hows)}", {}, table


def arrow_by_polars(draw, table, path):
    kind, frame = draw.choice(["file", "stream"]), polars.from_arrow(table)
    write = frame.write_ipc if kind == "file" else frame.write_ipc_stream
    write(path, compression="uncompressed", compat_level=draw.choice([None, None, polars.CompatLevel.oldest()]))
    return kind


def arrow_by_pyarrow(draw, table, path):
    kind = draw.choice(["file", "stream"])
    options = {"metadata_version": draw.choice([pa.ipc.MetadataVersion.V5, pa.ipc.MetadataVersion.V4]), "use_legacy_format": draw.random() < 0.1,
               "emit_dictionary_deltas": draw.random() < 0.5 and kind == "stream", "unify_dictionaries": kind == "file"}
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        if draw.random() < 0.3:
            out.write_table(table.slice(0, 0))
        out.write_table(table, max_chunksize=draw.choice([1, 7, 100, 1 << 20]) if table.num_rows < 500 else 1000)
    return f"{kind} " + " ".join(f"{key}={value}" for key, value in options.items())


# ---- CSV

def write_csv(draw, table, folder):
    by = {"pyarrow": csv_by_pyarrow, "polars": csv_by_polars, "duckdb": csv_by_duckdb, "python": csv_by_python}
    writer = draw.choice(list(by))
    delimiter = draw.choice([",", ",", ";", "\t", "|"])
    paths = []
    for at, part in enumerate([table] if draw.random() < 0.7 else parts(draw, table)):
        path = f"{folder}/{at}.csv"
        attempted(lambda: by[writer](draw, part, path, delimiter))
        check_rows(path, part, delimiter)
        paths.append(packed(draw, path))
    how = f"{writer} delimiter={delimiter!r}"
    return paths, how, {"delimiter": delimiter, **declared(draw, table)}, table


def check_rows(path, table, delimiter):
    """Errors: `CannotWrite` where the writer made other rows, as Python does of a carriage return that it does not quote."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = attempted(lambda: parse_csv(file.read(), delimiter))
    # A row of one column that is null is a blank line, which is none.
    if len(rows) != table.num_rows + 1 or {len(row) for row in rows} != {table.num_columns}:
        raise CannotWrite("other rows")


def declared(draw, table):
    """`schema`, in half of the cases where it can be said."""
    types = [f"decimal128({type_.precision}, {type_.scale})" if pa.types.is_decimal128(type_) else DECLARABLE.get(type_) for type_ in table.schema.types]
    if draw.random() < 0.5 or None in types or any(name != name.strip() for name in table.column_names):
        return {}
    return {"schema": [f"{name} {type_}" for name, type_ in zip(table.column_names, types)]}


def packed(draw, path):
    """The file, in one case of five compressed, in one of ten with a byte order mark."""
    if draw.random() < 0.1:
        with open(path, "rb") as file:
            content = file.read()
        with open(path, "wb") as file:
            file.write(b"\xef\xbb\xbf" + content)
    how = draw.choice([None] * 8 + ["gz", "zst"])
    if how is None:
        return path
    with open(path, "rb") as file:
        content = file.read()
    with gzip.open(f"{path}.gz", "wb") if how == "gz" else pa.output_stream(f"{path}.zst", compression="zstd") as out:
        out.write(content)
    return f"{path}.{how}"


def csv_by_pyarrow(draw, table, path, delimiter):
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(delimiter=delimiter, quoting_style=draw.choice(["needed", "all_valid"])))


def csv_by_polars(draw, table, path, delimiter):
    polars.from_arrow(table).write_csv(path, separator=delimiter, quote_style=draw.choice(["necessary", "always", "non_numeric"]),
                                       line_terminator=draw.choice(["\n", "\r\n"]))


def csv_by_duckdb(draw, table, path, delimiter):
    copied_by_duckdb(table, path, f"format csv, header, delimiter '{delimiter}'" + draw.choice(["", ", force_quote *"]))


def csv_by_python(draw, table, path, delimiter):
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, delimiter=delimiter, lineterminator=draw.choice(["\n", "\r\n"]), quoting=draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        out.writerow(table.column_names)
        out.writerows(["" if value is None else json.dumps(value) if isinstance(value, bool) else value for value in row.values()] for row in table.to_pylist())


# ---- JSON

def write_json(draw, table, folder):
    writer = draw.choice(["polars", "duckdb", "python", "python"])
    paths = []
    for at, part in enumerate([table] if draw.random() < 0.7 else parts(draw, table)):
        path = f"{folder}/{at}.json"
        attempted(lambda: {"polars": json_by_polars, "duckdb": json_by_duckdb, "python": json_by_python}[writer](draw, part, path))
        check_lines(path)
        paths.append(packed(draw, path))
    return paths, writer, declared(draw, table), table


def check_lines(path):
    """Errors: `CannotWrite` where the writer made what is no JSON, as DuckDB does of NaN, or nothing at all to infer columns from."""
    with open(path, encoding="utf-8") as file:
        records = attempted(lambda: [parse_json(line) for line in file])
    if not any(records):
        raise CannotWrite("no columns")


def json_by_polars(_draw, table, path):
    polars.from_arrow(table).write_ndjson(path)


def json_by_duckdb(_draw, table, path):
    copied_by_duckdb(table, path, "format json")


def json_by_python(draw, table, path):
    """Members in any order, nulls left out or not, letters escaped or not."""
    ascii_only, drops, shuffles = (draw.random() < 0.5 for _ in range(3))
    spaces = draw.choice([(",", ":"), (", ", ": "), (" ,\t", "  :  ")])

    def plain(value):
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, decimal.Decimal):
            return f"@{value:f}@"
        if isinstance(value, (datetime.date, datetime.datetime)):
            return value.isoformat()
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            members = [(name, plain(member)) for name, member in value.items()]
            if shuffles:
                draw.shuffle(members)
            return {name: member for name, member in members if not (drops and member is None)}
        return value
    with open(path, "w", newline="", encoding="utf-8") as file:
        for row in table.to_pylist():
            line = json.dumps(plain(row), ensure_ascii=ascii_only, separators=spaces)
            # Decimals with all their digits.
            file.write(re.sub(r'"@(-?[\d.]+)@"', r"\1", line) + draw.choice(["\n", "\n", "\r\n"]))
