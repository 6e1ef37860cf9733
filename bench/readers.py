"""What other systems read in a file, as Arrow. They run in a process of their own, since a file that is broken on purpose may end it."""
import concurrent.futures, multiprocessing, os, resource

import pyarrow as pa

PATIENCE_S, MEMORY_BYTES = 60, 12 << 30
# What the process is asked for is lost when it dies, so it is told by file what to leave the table in.
PEERS = {"parquet": ("pyarrow", "duckdb", "polars"), "arrow": ("pyarrow", "polars"),
         "csv": ("pyarrow", "duckdb", "polars"), "json": ("pyarrow", "duckdb", "polars")}


class Unreadable(Exception):
    """The peer does not read the file, and why."""


class Readers:
    """A process that reads for us, and another one when it has died."""

    def __init__(self, folder):
        self.table, self.pool = f"{folder}/read.arrow", None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._drop()

    def _drop(self):
        if self.pool is not None:
            for process in list(self.pool._processes.values()):
                process.kill()
            self.pool.shutdown(cancel_futures=True)
            self.pool = None

    def read(self, peer, format, paths, **options):
        """The table in these files, one behind the other. Errors: `Unreadable`."""
        if self.pool is None:
            self.pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)
        try:
            failed = self.pool.submit(_read, peer, format, list(paths), options, self.table).result(PATIENCE_S)
        except (concurrent.futures.process.BrokenProcessPool, TimeoutError) as error:
            self._drop()
            raise Unreadable(f"its process ended: {type(error).__name__}") from error
        if failed:
            raise Unreadable(failed)
        with pa.memory_map(self.table) as file:
            return pa.ipc.open_stream(file).read_all()

    def who_reads(self, format, paths, **options):
        """The peers that read it, and what the first of the others says."""
        able, why = [], ""
        for peer in PEERS[format]:
            try:
                self.read(peer, format, paths, **options)
                able.append(peer)
            except Unreadable as error:
                why = why or f"{peer}: {error}"
        return able, why


def _prepare():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics are told there as well
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def table_of(peer, format, paths, **options):
    """The table in these files, read in this process."""
    return {"pyarrow": _pyarrow, "duckdb": _duckdb, "polars": _polars}[peer](format, paths, options)


def _read(peer, format, paths, options, to):
    try:
        table = table_of(peer, format, paths, **options)
        if os.path.exists(to):
            os.remove(to)  # who has it mapped keeps it
        with pa.ipc.new_stream(to, table.schema) as out:
            out.write_table(table)
    except BaseException as error:  # a panic of Polars is no `Exception`
        return f"{type(error).__name__}: {error}"[:300] or "?"
    return None


def _pyarrow(format, paths, options):
    import pyarrow.csv, pyarrow.json
    import pyarrow.parquet as pq
    if format == "parquet":
        parts = [pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read() for path in paths]
    elif format == "arrow":
        parts = [_ipc(path) for path in paths]
    elif format == "csv":
        parse = pyarrow.csv.ParseOptions(delimiter=options.get("delimiter", ","), newlines_in_values=True)
        parts = [pyarrow.csv.read_csv(path, parse_options=parse) for path in paths]
    else:
        parts = [pyarrow.json.read_json(path) for path in paths]
    for part in parts:
        part.validate(full=True)
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="permissive")


def _ipc(path):
    with open(path, "rb") as file:
        magic = file.read(6)
    with pa.OSFile(path) as file:
        return (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(file).read_all()


def _duckdb(format, paths, options):
    import duckdb
    with duckdb.connect() as connection:
        connection.execute("set threads = 1; set timezone = 'UTC'")
        return connection.sql(f"select * from read_{format}(?, hive_partitioning = false)", params=[paths]).to_arrow_table()


def _polars(format, paths, options):
    import polars
    if format == "parquet":
        parts = [polars.read_parquet(path, glob=False, hive_partitioning=False) for path in paths]
    elif format == "arrow":
        parts = [_polars_ipc(polars, path) for path in paths]
    elif format == "csv":
        parts = [polars.read_csv(path, separator=options.get("delimiter", ","), glob=False) for path in paths]
    else:
        parts = [polars.read_ndjson(path) for path in paths]
    return (parts[0] if len(parts) == 1 else polars.concat(parts)).to_arrow()


def _polars_ipc(polars, path):
    with open(path, "rb") as file:
        return (polars.read_ipc if file.read(6) == b"ARROW1" else polars.read_ipc_stream)(path)
