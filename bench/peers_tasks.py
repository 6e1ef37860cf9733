"""Dask and Ray: the same functions as tasks of both, with Arrow's kernels in them. Their own tables are slower at each of these jobs."""
import os

from workloads import LOG_RE, SCORE_COLUMNS, SORT_COLUMNS, SORT_PARTITIONS, iso_day, score_columns

BLOCK_BYTES = 16 << 20


def files(data):
    return sorted(entry.path for entry in os.scandir(data))


def blocks(data, size=BLOCK_BYTES):
    """File, start and end of blocks. A line belongs to the block that it begins in."""
    for file in files(data):
        n_bytes = os.path.getsize(file)
        n = max(1, round(n_bytes / size))
        yield from ((file, n_bytes * i // n, n_bytes * (i + 1) // n) for i in range(n))


def read(block):
    file, start, end = block
    with open(file, "rb") as lines:
        lines.seek(max(0, start - 1))
        if start:
            lines.readline()
        body = lines.read(max(0, end - lines.tell()))
        return body if body.endswith(b"\n") or not body else body + lines.readline()


def read_columns(block, names=("line",), separator="\x01", chunk_bytes=None):
    import pyarrow as pa
    from pyarrow import csv
    body = read(block)
    return csv.read_csv(pa.BufferReader(body), csv.ReadOptions(column_names=names, block_size=chunk_bytes or len(body) + 1, use_threads=False),
                        csv.ParseOptions(delimiter=separator, quote_char=False, escape_char=False),
                        csv.ConvertOptions(column_types={name: pa.string() for name in names}))


# ---- weblog

def visits(block):
    """The distinct addresses of a day, and its hits by page."""
    import pyarrow as pa, pyarrow.compute as pc
    lines = read_columns(block, chunk_bytes=1 << 20)["line"]
    fields = pc.split_pattern(lines.filter(pc.match_substring_regex(lines, LOG_RE)), " ", max_splits=7)
    field = lambda n: pc.list_element(fields, n)
    page = pc.list_element(pc.split_pattern(field(6), "?", max_splits=1), 0)
    table = pa.table({"ip": field(0), "day": pc.utf8_slice_codeunits(field(3), 1, 12), "page": pc.utf8_rtrim(page, '"')})
    return (table.group_by(["day", "ip"], use_threads=False).aggregate([]),
            table.group_by(["day", "page"], use_threads=False).aggregate([([], "count_all")]))


def weblog(tasks, data, out):
    import pyarrow as pa
    parts = tasks.map(visits, list(blocks(data)))
    seen = pa.concat_tables([part for part, _ in parts]).group_by(["day", "ip"]).aggregate([])
    hits = pa.concat_tables([part for _, part in parts]).group_by(["day", "page"]).aggregate([("count_all", "sum")])
    save_visits(seen, hits, out)


def save_visits(seen, hits, out):
    daily = seen.group_by("day").aggregate([([], "count_all")]).rename_columns(["day", "visitors"]).to_pandas()
    top = hits.rename_columns(["day", "page", "hits"]).to_pandas().sort_values(["day", "hits", "page"], ascending=[True, False, True])
    top["rank"] = top.groupby("day").cumcount() + 1
    for table, name in ((daily, "daily"), (top[top["rank"] <= 10].copy(), "top")):
        table["day"] = table["day"].map(iso_day)
        table.to_parquet(f"{out}/{name}", index=False)


# ---- taxi, wordcount, scoring: partial sums of each file or block, added up by the driver

def fares(file):
    import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
    trips = pq.read_table(file, columns=["PULocationID", "tpep_pickup_datetime", "fare_amount"], use_threads=False)
    table = pa.table({"zone": trips["PULocationID"], "hour": pc.hour(trips["tpep_pickup_datetime"]), "fare": trips["fare_amount"]})
    return table.group_by(["zone", "hour"], use_threads=False).aggregate([("fare", "sum"), ("fare", "count")])


def taxi(tasks, data, out):
    import pyarrow as pa
    sums = pa.concat_tables(tasks.map(fares, files(data))).group_by(["zone", "hour"]).aggregate([("fare_sum", "sum"), ("fare_count", "sum")])
    save_fares(sums, out)


def save_fares(sums, out):
    import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq
    zone, hour, fare, trips = sums.columns
    mean = pc.divide(fare, pc.cast(trips, pa.float64()))
    pq.write_table(pa.table({"zone": zone, "hour": hour, "avg_fare": mean, "trips": trips}), f"{out}/zones")


def counts(block):
    import pyarrow as pa, pyarrow.compute as pc
    lines = read_columns(block, chunk_bytes=1 << 20)["line"]  # the words of a small chunk stay in the cache
    words = pa.chunked_array([pc.list_flatten(pc.split_pattern(chunk, " ")) for chunk in lines.chunks], pa.string()).value_counts()
    return pa.table({"word": words.field("values"), "n": words.field("counts")})


def wordcount(tasks, data, out):
    import pyarrow as pa
    save_words(pa.concat_tables(tasks.map(counts, list(blocks(data)))).group_by("word").aggregate([("n", "sum")]), out)


def save_words(sums, out):
    import pyarrow.parquet as pq
    pq.write_table(sums.rename_columns(["word", "n"]), f"{out}/words")


def scores(file):
    import pyarrow as pa, pyarrow.parquet as pq
    # Of equal strings one object is made and hashed, because user agents repeat.
    table = pq.read_table(file, columns=SCORE_COLUMNS, use_threads=False, read_dictionary=["ua"])
    family, system, km, score = score_columns([table[name].to_numpy().tolist() for name in SCORE_COLUMNS])
    table = pa.table({"fam": family, "os": system, "km": pa.array(km, pa.int64()), "score": pa.array(score, pa.int64())})
    return table.group_by(["fam", "os"], use_threads=False).aggregate([([], "count_all"), ("km", "sum"), ("score", "sum")])


def scoring(tasks, data, out):
    import pyarrow as pa
    sums = pa.concat_tables(tasks.map(scores, files(data))).group_by(["fam", "os"])
    save_scores(sums.aggregate([("count_all", "sum"), ("km_sum", "sum"), ("score_sum", "sum")]), out)


def save_scores(sums, out):
    import pyarrow.parquet as pq
    pq.write_table(sums.rename_columns(["fam", "os", "n", "km", "score"]), f"{out}/scores")


# ---- sort: a block is cut by partition; what belongs to one is sorted and written

def partition(keys):
    """Of each key, from three of its letters, which are as random as a hash is."""
    import numpy as np
    letters = np.frombuffer(keys.buffers()[2], np.uint8)[:10 * len(keys)].reshape(-1, 10)
    return (letters[:, :3] @ np.array([31, 17, 1])) % SORT_PARTITIONS


def cut(block):
    import numpy as np, pyarrow as pa
    table = read_columns(block, SORT_COLUMNS, " ").combine_chunks()
    of = partition(table["key"].combine_chunks()).astype(np.uint8)
    order, ends = pa.array(np.argsort(of, kind="stable")), np.cumsum(np.bincount(of, minlength=SORT_PARTITIONS))
    return [table.take(order.slice(start, end - start)) for start, end in zip([0, *ends], ends)]


def merge(path, number, *tables):
    import pyarrow as pa, pyarrow.compute as pc
    from pyarrow import csv
    table = pa.concat_tables(tables)
    table = table.take(pc.sort_indices(table["key"])).combine_chunks()
    with open(f"{path}/part-{number:02}.csv", "wb") as file:
        file.write(b"key,id,rest\n")
        csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))


def sort(tasks, data, out):
    os.makedirs(f"{out}/sorted")
    tasks.shuffle(cut, merge, list(blocks(data, 2 * BLOCK_BYTES)), f"{out}/sorted")


JOBS = {"weblog": weblog, "taxi": taxi, "wordcount": wordcount, "scoring": scoring, "sort": sort}


class Dask:
    JOBS = JOBS

    @staticmethod
    def start(work, cores):
        import dask
        from dask.distributed import Client, LocalCluster
        dask.config.set({"temporary-directory": f"{work}/dask", "distributed.admin.tick.interval": "500ms"})
        cluster = LocalCluster(n_workers=cores, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, memory_limit="8GiB", silence_logs=40)
        tasks = Dask()
        tasks.cluster, tasks.client = cluster, Client(cluster)
        tasks.client.run(lambda: [__import__(f"pyarrow.{name}") for name in ("compute", "csv", "parquet")] and None)
        return tasks

    def stop(self):
        self.client.close()
        self.cluster.close()

    def map(self, function, items):
        return self.client.gather(self.client.map(function, items, pure=False))

    def shuffle(self, cut, merge, items, path):
        import dask
        pieces = [dask.delayed(cut, nout=SORT_PARTITIONS, pure=False)(item) for item in items]
        dask.compute(*[dask.delayed(merge)(path, p, *[piece[p] for piece in pieces]) for p in range(SORT_PARTITIONS)])


def start_ray(work, cores):
    # Without the second, Ray takes the address of the network interface and listens on all of them.
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_DEDUP_LOGS="0",
                      RAY_enable_metrics_collection="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    import logging, ray
    ray.init(num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=4 << 30, log_to_driver=False,
             logging_level=logging.ERROR, _temp_dir=f"{work}/ray")
    return ray


class Ray:
    JOBS = JOBS

    @staticmethod
    def start(work, cores):
        tasks = Ray()
        tasks.ray = start_ray(work, cores)

        def warm():
            import time, pandas, pyarrow.compute, pyarrow.csv, pyarrow.parquet  # noqa: F401
            time.sleep(0.3)
        tasks.ray.get([tasks.ray.remote(warm).remote() for _ in range(2 * cores)])
        return tasks

    def stop(self):
        self.ray.shutdown()

    def map(self, function, items):
        remote = self.ray.remote(function)
        return self.ray.get([remote.remote(item) for item in items])

    def shuffle(self, cut, merge, items, path):
        cut, merge = self.ray.remote(num_returns=SORT_PARTITIONS)(cut), self.ray.remote(merge)
        pieces = [cut.remote(item) for item in items]
        merged = [merge.remote(path, p, *[piece[p] for piece in pieces]) for p in range(SORT_PARTITIONS)]
        del pieces
        self.ray.get(merged)
