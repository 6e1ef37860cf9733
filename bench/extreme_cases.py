"""The cases of bench/extremes.py. A case makes data, yields a row, and is told what came of it; then it may make other data and yield another row."""
import collections, dataclasses, glob, gzip, json, os, statistics, struct, time, typing, zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import generate, neighbour

MIB = 1 << 20
WORDS = ["word utf8", "n int64"]


class Wrong(Exception):
    """A result is not what Python finds."""


@dataclasses.dataclass
class Row:
    """A row of the table: a job, or something to do with a server; what it is checked with, which tells something about it; what it deploys."""
    case: str
    job: dict | None
    check: typing.Callable
    guests: tuple = ()
    act: typing.Callable | None = None
    kills: bool = False


def expect(what, found, expected):
    if found != expected:
        raise Wrong(f"{what}: {found:,} instead of {expected:,}" if isinstance(found, int) else f"{what} differ")


def job(name, stages, out, format="parquet", limits=None, **inputs):
    """A job whose last stage is its output."""
    output = {} if out is None else {"output": {"out": {"from": stages[-1]["name"], "format": format, "uri": f"{out}/"}}}
    return {"name": name, "limits": {"wall": "1h", **(limits or {})}, "input": inputs, "stage": stages, **output}


def wordcount(name, uri, out, **limits):
    return job(name, [{"name": "counts", "from": "text", "map": "wordcount/count"},
                      {"name": "words", "from": "counts", "shuffle": {"keys": ["word"]}, "reduce": "wordcount/sum"}],
               out, limits=limits, text={"format": "text", "uri": uri})


def files(out, ending):
    return sorted(glob.glob(f"{out}/[!_]*.{ending}"))  # without the manifest


def table(out, columns=None):
    return pa.concat_tables(pq.ParquetFile(file).read(columns=columns) for file in files(out, "parquet"))


def size(folder):
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def text_of(words, seed=1):
    return bytes(generate.text(np.random.default_rng(seed), 0, words, words))


def counted(text):
    """The words of a text as wordcount has them."""
    return collections.Counter(text.removesuffix(b"\n").replace(b"\n", b" ").split(b" "))


def check_words(out, expected):
    found = table(out)
    expect("words", found.num_rows, len(expected))
    words = {word.encode(): n for word, n in zip(found["word"].to_pylist(), found["n"].to_pylist())}
    expect("counts", words, dict(expected))


# ---- many of something

def many_files(data, out, scale):
    n = max(10, int(10_000 * scale))
    lines = text_of(300 * n).splitlines(keepends=True)
    for i in range(n):
        with open(f"{data}/{i:05}.txt", "wb") as file:
            file.writelines(lines[len(lines) * i // n:len(lines) * (i + 1) // n])
    expected = counted(b"".join(lines))

    def check(ran):
        check_words(out, expected)
        return f"{n:,} files of {size(data) / n / 1e3:.1f} kB, {tasks(ran)}, {len(expected):,} words, counts equal; {of_server(ran)}"

    yield Row("files-10000", wordcount("files", f"{data}/*.txt", out), check, ("wordcount",))


def tasks(ran):
    return " + ".join(f"{stage['tasks_total']:,}" for stage in ran.job["stages"]) + " tasks"


def of_server(ran):
    return f"server {ran.server_before_mib:.0f} MiB before, {ran.server_after_mib:.0f} after"


def many_partitions(data, out, scale):
    """Rows of 8 files, 80 at least for each word."""
    rows, keys = max(80_000, int(1_000_000 * scale)), max(1000, int(100_000 * scale))
    numbers = np.arange(rows)
    draw = np.random.default_rng(1)
    word, n = draw.integers(0, keys, rows), draw.integers(0, 1000, rows)
    for i in range(8):
        with open(f"{data}/{i}.csv", "w") as file:
            file.writelines(f"word-{word[at]:06},{n[at]}\n" for at in numbers[i::8])
    expected = np.bincount(word, n, keys).astype(np.int64)

    def check(ran):
        found = table(out)
        at = np.array([int(word[5:]) for word in found["word"].to_pylist()])
        expect("words", found.num_rows, int((np.bincount(word, minlength=keys) > 0).sum()))
        expect("sums", bool((expected[at] == found["n"].to_numpy()).all()), True)
        return f"{rows:,} rows, {tasks(ran)}, {len(files(out, 'parquet')):,} files, sums equal; {of_server(ran)}"

    for partitions in (max(100, int(10_000 * scale)), 100_000):
        stages = [{"name": "sums", "from": "rows", "shuffle": {"keys": ["word"], "partitions": partitions}, "reduce": "wordcount/sum"}]
        source = {"format": "csv", "uri": f"{data}/*.csv", "header": False, "schema": WORDS}
        name = "partitions-10000" if partitions <= 10_000 else "partitions-100000"
        yield Row(name, job(name, stages, out, rows=source), check, ("wordcount",))


def many_tasks(name, n):
    def rows(_data, _out, scale):
        count = max(100, int(n * scale))

        def check(ran):
            expect("tasks", sum(stage["tasks_done"] for stage in ran.job["stages"]), count)
            each = (ran.server_mib - ran.server_before_mib) * 1024 / count
            return f"{count / ran.wall_s:,.0f} tasks/s; {each:.2f} KiB of the server's peak for each task; {of_server(ran)}"

        yield Row(name, job(name, [{"name": "noop", "task": "hello/noop", "count": count}], None), check)
    return rows


# ---- much of something

BLOCK_WORDS = 2_700_000  # 16 MB
BLOCKS = 270


def much_gzip(data, out, scale):
    """One block of text over and over: once as a member each, once all in one member, which can be put together without compressing it again."""
    block, n = text_of(BLOCK_WORDS), max(2, round(BLOCKS * scale))
    expected = {word: times * n for word, times in counted(block).items()}
    for shape, write in (("a member a block", members), ("one member", one_member)):
        path = f"{data}/text.gz"
        write(path, block, n)
        packed = os.path.getsize(path)

        def check(ran):
            check_words(out, expected)
            return (f"{n * len(block) / 1e9:.2f} GB of text in {packed / 1e9:.2f} GB, {n * len(block) / 1e6 / ran.wall_s:.0f} MB/s in one task, "
                    f"{sum(expected.values()):,} words, counts equal")

        # Counting 4 GB in one task may take more CPU time than a task has without being asked.
        yield Row(f"gzip-4gb, {shape}", wordcount("gzip", path, out, cpu="10m"), check, ("wordcount",))
        os.remove(path)


def members(path, block, n):
    member = gzip.compress(block, 1)
    with open(path, "wb") as file:
        for _ in range(n):
            file.write(member)


def one_member(path, block, n):
    # A full flush ends at a byte, and what comes after does not look back: so the same bytes may follow themselves.
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    with open(path, "wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
        for _ in range(n):
            file.write(body)
            crc = zlib.crc32(block, crc)
        file.write(packer.flush() + struct.pack("<II", crc, n * len(block) & 0xFFFFFFFF))


PARQUET_ROWS, PARQUET_GROUP_ROWS, PARQUET_COLUMNS = 1_000_000, 125_000, 200


def wide_group(first, n):
    """`n` rows of 200 columns: `id`, `name`, and 22 of each type."""
    draw = np.random.default_rng(first)
    columns = {"id": pa.array(np.arange(first, first + n)), "name": pa.array([f"row-{i}" for i in range(first, first + n)])}
    makers = [
        lambda: pa.array(draw.integers(-2**40, 2**40, n)),
        lambda: pa.array(draw.integers(0, 1000, n), pa.int32(), mask=draw.random(n) < 0.1),
        lambda: pa.array(draw.integers(-100, 100, n), pa.int8()),
        lambda: pa.array(draw.random(n)),
        lambda: pa.array(draw.random(n, np.float32)),
        lambda: pa.array(draw.random(n) < 0.5),
        lambda: pa.array(draw.integers(0, 20_000, n), pa.int32()).cast(pa.date32()),
        lambda: pa.array(draw.integers(0, 2**50, n), pa.timestamp("us")),
        lambda: pa.array([f"text {i}" for i in range(5000)]).take(pa.array(draw.integers(0, 5000, n))),
    ]
    for at in range(PARQUET_COLUMNS - 2):
        columns[f"c{at:03}"] = makers[at % len(makers)]()
    return pa.table(columns)


def sum_of(column):
    """A sum that does not depend on the order of rows."""
    if pa.types.is_string(column.type):
        column = pc.binary_length(column)
    elif pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if pa.types.is_date(column.type) else pa.int64())
    elif pa.types.is_floating(column.type):
        column = pc.floor(pc.multiply(column.cast(pa.float64()), 1 << 20)).cast(pa.int64())
    return (pc.sum(column).as_py() or 0) % 2**64


def wide_parquet(data, out, scale):
    rows, writer, sums = max(20_000, int(PARQUET_ROWS * scale)), None, collections.Counter()
    looked_at = ["id", "name"] + [f"c{at:03}" for at in [*range(9), *range(PARQUET_COLUMNS - 11, PARQUET_COLUMNS - 2)]]
    for first in range(0, rows, PARQUET_GROUP_ROWS):
        group = wide_group(first, min(PARQUET_GROUP_ROWS, rows - first))
        writer = writer or pq.ParquetWriter(f"{data}/wide.parquet", group.schema, compression="zstd", compression_level=1)
        writer.write_table(group)
        sums.update({name: sum_of(group[name]) for name in looked_at})
        columns = group.column_names
    writer.close()
    group = None

    def check(ran):
        first = pq.ParquetFile(files(out, "parquet")[0])
        expect("columns", first.schema_arrow.names == [*columns, "greeting"], True)
        found = table(out, [*looked_at, "greeting"])
        expect("rows", found.num_rows, rows)
        for name in looked_at:
            expect(f"sums of `{name}`", (sum_of(found[name]),), (sums[name] % 2**64,))
        expect("greetings", pc.all(pc.equal(found["greeting"], pc.binary_join_element_wise("hello", found["name"], ", "))).as_py(), True)
        return (f"{rows:,} rows of {len(columns)} columns, {size(data) / 1e9:.2f} GB, {tasks(ran)}, {size(out) / 1e9:.2f} GB written, "
                f"sums of {len(looked_at)} columns equal")

    # `greet` reads `name`, and hands all columns on.
    stages = [{"name": "greeted", "from": "rows", "map": "hello/greet"},
              {"name": "dealt", "from": "greeted", "shuffle": {"keys": ["id"], "partitions": 8}}]
    yield Row("parquet-200-columns", job("wide", stages, out, rows={"format": "parquet", "uri": f"{data}/wide.parquet"}), check)


def long_rows(data, out, scale):
    """JSON of 1 MB a line: through a map that doubles it, through a shuffle by a short key, and, as text, through one whose key is all of it."""
    n, draw, lines, names = max(10, int(1000 * scale)), np.random.default_rng(1), collections.Counter(), collections.Counter()
    with open(f"{data}/rows.json", "wb") as file:
        for i in range(n):
            name = generate.LETTERS[draw.integers(0, 64, 1_000_000, np.uint8)].tobytes()
            line = b'{"id":%d,"name":"%s"}' % (i, name)
            file.write(line + b"\n")
            lines[zlib.crc32(line)] += 1
            names[zlib.crc32(name)] += 1

    def check(column, expected):
        def checked(ran):
            found = collections.Counter()
            for path in files(out, "json"):
                with open(path, "rb") as rows:
                    for row in map(json.loads, rows):
                        found[zlib.crc32(row[column].removeprefix("hello, ").encode())] += 1
            expect("rows", found.total(), n)
            expect("rows", found, expected)
            return f"{n:,} rows of 1 MB, {tasks(ran)}, {size(out) / 1e9:.2f} GB written, checksums equal"
        return checked

    rows = {"format": "json", "uri": f"{data}/rows.json", "schema": ["id int64", "name utf8"]}
    text = {"format": "text", "encoding": "utf8", "uri": f"{data}/rows.json"}
    dealt = lambda key: [{"name": "dealt", "from": "rows", "shuffle": {"keys": [key], "partitions": 4}}]
    mapped = [{"name": "greeted", "from": "rows", "map": "hello/greet"}]
    yield Row("rows-1mb, map", job("rows", mapped, out, "json", rows=rows), check("greeting", names))
    yield Row("rows-1mb, shuffle", job("rows", dealt("id"), out, "json", rows=rows), check("name", names))
    yield Row("rows-1mb, shuffle by all of the row", job("rows", dealt("line"), out, "json", rows=text), check("line", lines))


# ---- more than fits

LIMIT_MIB, TIMES_OF_LIMIT, ROWS_A_WORD = 256, (2.5, 5, 10), 16
ROW_BYTES = 64 + 4 + 8  # the word, its offset, its count
HEX = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), np.uint16)


def mixed(numbers):
    """SplitMix64, which gives no two numbers the same."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))


def write_words(path, words):
    """Each word as often as all others, in no order: 64 letters and a 1."""
    with open(path, "wb") as file:
        rows = words * ROWS_A_WORD
        for first in range(0, rows, generate.CHUNK_ROWS):
            # Multiples of a prime that does not divide `words` take in all words before any comes again.
            number = np.arange(first, min(rows, first + generate.CHUNK_ROWS)) * 2_654_435_761 % words
            lines = np.empty((len(number), 67), np.uint8)
            word = np.stack([mixed(number.astype(np.uint64) + np.uint64(part << 40)) for part in range(4)], axis=1)
            lines[:, :64] = HEX[word.view(np.uint8)].view(np.uint8)
            lines[:, 64:] = np.frombuffer(b",1\n", np.uint8)
            file.write(lines.data)


def over_memory(data, out, scale):
    """Rows in one partition: its task groups many times its limit. Scaled, the limit shrinks as the rows do, as far as it may."""
    limit, peaks = max(16, int(LIMIT_MIB * scale)), []
    for times in TIMES_OF_LIMIT:
        words = int(times * limit * MIB / ROW_BYTES / ROWS_A_WORD)
        rows = words * ROWS_A_WORD
        write_words(f"{data}/rows.csv", words)

        def check(ran):
            found = table(out)
            expect("words", found.num_rows, words)
            expect("words that differ", pc.count_distinct(found["word"]).as_py(), words)
            expect("counts", pc.all(pc.equal(found["n"], ROWS_A_WORD)).as_py(), True)
            peaks.append(ran.executor_mib)
            # Where the limit is small, what comes on top of it shows: row groups that are written, and what an executor holds at rest.
            if peaks[-1] > max(1.25 * peaks[0], limit + 32 + 16):
                raise Wrong("the executor's peak grows with the rows: " + ", ".join(f"{peak:.0f} MiB" for peak in peaks))
            return f"{rows:,} rows, {rows * ROW_BYTES / 1e9:.2f} GB in one partition under a limit of {limit} MiB, {tasks(ran)}, counts equal"

        stages = [{"name": "sums", "from": "rows", "shuffle": {"keys": ["word"], "partitions": 1}, "reduce": "wordcount/sum"}]
        source = {"format": "csv", "uri": f"{data}/rows.csv", "header": False, "schema": WORDS}
        spec = job("memory", stages, out, limits={"memory": f"{limit}MiB"}, rows=source)
        yield Row(f"memory-10x, {times:g} times the limit", spec, check, ("wordcount",))
        os.remove(f"{data}/rows.csv")


# ---- an executor that is killed

KILLS, READY_S = 20, 30


def restarts(_data, _out, scale):
    kills, after_s = max(3, int(KILLS * scale)), []

    def act(server):
        calls = neighbour.Neighbour(server.port, server.token)
        calls.start()
        try:
            time.sleep(1)
            for _ in range(kills):
                at, gone = neighbour.kill(server.executors()[0])
                answered = calls.first_success(gone, READY_S)
                if answered is None:
                    return f"LOST: no call succeeds in {READY_S} s", {}
                after_s.append(answered - at)
                time.sleep(0.5)
        finally:
            calls.stopped.set()
            calls.join()
        return "done", {"neighbour": calls}

    def check(ran):
        calls = ran.job["neighbour"]
        results = collections.Counter(result for _, _, result in calls.tries)
        if other := {result: n for result, n in results.items() if result not in (200, 429)}:
            raise Wrong(f"the neighbour saw {other}")
        expect("calls that succeeded", sum(result == 200 for _, result in calls.calls), len(calls.calls))
        slowest = max(took for took, _ in calls.calls)
        return (f"{kills} kills; the first answer {statistics.median(after_s) * 1e3:.0f} ms after one in the median, {max(after_s) * 1e3:.0f} ms at most; "
                f"{len(calls.calls):,} calls, all answered, after {results[429]} times 429 in all, the slowest in {slowest:.2f} s; nothing but 200 and 429")

    yield Row("executor-restart", None, check, act=act, kills=True)


CASES = {
    "files-10000": many_files,
    "partitions-10000": many_partitions,
    "tasks-10000": many_tasks("tasks-10000", 10_000),
    "tasks-50000": many_tasks("tasks-50000", 50_000),
    "gzip-4gb": much_gzip,
    "parquet-200-columns": wide_parquet,
    "rows-1mb": long_rows,
    "memory-10x": over_memory,
    "executor-restart": restarts,
}
