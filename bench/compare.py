#!/usr/bin/env python3
"""The weblog job on Weft and on its peers: one interleaved run, wall time, peak memory and a digest that all must agree on.

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements.txt        # Spark needs Java 17
    cargo xtask logs --bytes 1170MB --out DATA
    VENV/bin/python bench/compare.py --data DATA --weft PATH_OF_WEFT --component weblog.wasm --runs 5

Each run is a process of its own, started one after the other, the order rotated from round to round; what a peer needs to start
(a JVM, a cluster, a server) is up before the clock runs. Peak memory is RssAnon + RssShmem summed over the process tree, sampled
every 40 ms. Two cores for everybody. The peers use their best documented idiom for the job.
"""
import argparse, glob, hashlib, json, os, platform, shutil, statistics, subprocess, sys, tempfile, threading, time

LOG_RE = r'^(\S+) \S+ \S+ \[(\d\d/[A-Z][a-z][a-z]/\d\d\d\d):[^\]]+\] "[A-Z]+ ([^ "?]+)[^"]*" \d\d\d '
LOG_RE1 = r'^(\S+ \S+ \S+ \[\d\d/[A-Z][a-z][a-z]/\d\d\d\d:[^\]]+\] "[A-Z]+ [^ "?]+)[^"]*" \d\d\d '
MONTHS = {m: i + 1 for i, m in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())}


def iso(day):
    d, m, y = day.split("/")
    return f"{y}-{MONTHS[m]:02d}-{d}"


# ---- peers: each is a generator that yields once, when it is ready; what follows is timed

def polars(data, out):
    os.environ["POLARS_MAX_THREADS"] = "2"
    import polars as pl
    yield
    rx = LOG_RE.replace("^(", "^(?<ip>", 1).replace("[(", "[(?<day>", 1).replace("([^ \"?]+)", "(?<page>[^ \"?]+)", 1)
    lines = pl.scan_csv(f"{data}/*", separator="\x01", has_header=False, quote_char=None, schema={"line": pl.String})
    p = lines.select(pl.col("line").str.extract_groups(rx).alias("m")).unnest("m").filter(pl.col("ip").is_not_null())
    day = pl.col("day").str.to_date("%d/%b/%Y").dt.to_string("%Y-%m-%d")
    daily = p.group_by("day").agg(pl.col("ip").n_unique().alias("visitors")).with_columns(day).sort("day")
    top = (p.group_by("day", "page").agg(pl.len().alias("hits")).sort(["day", "hits", "page"], descending=[False, True, False])
           .group_by("day", maintain_order=True).head(10)
           .with_columns(pl.int_range(1, pl.len() + 1).over("day").alias("rank"), day))
    a, b = pl.collect_all([daily, top], engine="streaming")
    a.write_parquet(f"{out}/daily")
    b.write_parquet(f"{out}/top")


def duckdb(data, out):
    import duckdb
    c = duckdb.connect(config={"threads": 2, "memory_limit": "12GB"})
    yield
    text = "columns={'line':'VARCHAR'}, delim='\x01', quote='', escape='', header=false, auto_detect=false, null_padding=false, max_line_size=1000000"
    c.execute(f"""CREATE TEMP TABLE p AS SELECT m.ip AS ip, m.day AS day, m.page AS page FROM
      (SELECT regexp_extract(line, '{LOG_RE}', ['ip','day','page']) AS m FROM read_csv('{data}/*', {text})) WHERE m.ip <> ''""")
    day = "strftime(strptime(day, '%d/%b/%Y'), '%Y-%m-%d')"
    c.execute(f"""COPY (SELECT {day} AS day, visitors FROM (SELECT day, count(DISTINCT ip) AS visitors FROM p GROUP BY day)
      ORDER BY 1) TO '{out}/daily' (FORMAT parquet)""")
    c.execute(f"""COPY (SELECT {day} AS day, rank, page, hits FROM (SELECT day, page, hits,
      row_number() OVER (PARTITION BY day ORDER BY hits DESC, page) AS rank FROM
      (SELECT day, page, count(*) AS hits FROM p GROUP BY day, page)) WHERE rank <= 10 ORDER BY 1, 2) TO '{out}/top' (FORMAT parquet)""")


def datafusion(data, out):
    import pyarrow.parquet as pq
    from datafusion import SessionConfig, SessionContext
    c = SessionContext(SessionConfig().with_target_partitions(2))
    yield
    c.sql(f"""CREATE EXTERNAL TABLE lines (line VARCHAR NOT NULL) STORED AS CSV LOCATION '{data}/' OPTIONS ('format.has_header' 'false',
      'format.delimiter' '\x01', 'format.quote' '\x02', 'format.newlines_in_values' 'false')""").collect()
    c.register_view("p", c.sql(f"""SELECT split_part(m, ' ', 1) AS ip, substr(split_part(m, '[', 2), 1, 11) AS day,
      split_part(m, ' ', 7) AS page FROM (SELECT regexp_match(line, '{LOG_RE1}')[1] AS m FROM lines) WHERE m IS NOT NULL""").cache())
    day = "to_char(to_date(day, '%d/%b/%Y'), '%Y-%m-%d')"
    pq.write_table(c.sql(f"""SELECT {day} AS day, visitors FROM (SELECT day, count(DISTINCT ip) AS visitors FROM p GROUP BY day)
      ORDER BY 1""").to_arrow_table(), f"{out}/daily")
    pq.write_table(c.sql(f"""SELECT {day} AS day, rank, page, hits FROM (SELECT day, page, hits,
      row_number() OVER (PARTITION BY day ORDER BY hits DESC, page) AS rank FROM
      (SELECT day, page, count(*) AS hits FROM p GROUP BY day, page)) WHERE rank <= 10 ORDER BY 1, 2""").to_arrow_table(), f"{out}/top")


def spark(data, out):
    from pyspark.sql import SparkSession, Window, functions as F
    s = (SparkSession.builder.master("local[2]").config("spark.sql.shuffle.partitions", "16").config("spark.driver.memory", "6g")
         .config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate())
    s.range(1000).selectExpr("sum(id)").collect()
    yield
    m = F.regexp_extract("value", LOG_RE1, 1)
    p = (s.read.text(data).select(m.alias("m")).filter("m <> ''")
         .selectExpr("split_part(m, ' ', 1) AS ip", "substr(split_part(m, '[', 2), 1, 11) AS day", "split_part(m, ' ', 7) AS page").cache())
    day = F.date_format(F.to_date("day", "dd/MMM/yyyy"), "yyyy-MM-dd")
    p.groupBy("day").agg(F.countDistinct("ip").alias("visitors")).withColumn("day", day).write.parquet(f"{out}/daily")
    w = Window.partitionBy("day").orderBy(F.desc("hits"), "page")
    (p.groupBy("day", "page").agg(F.count("*").alias("hits")).withColumn("rank", F.row_number().over(w)).filter("rank <= 10")
     .withColumn("day", day).write.parquet(f"{out}/top"))


def dask(data, out):
    from dask.distributed import Client, LocalCluster
    import dask
    import pandas as pd
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    client = Client(cluster)
    client.run(lambda: __import__("pyarrow.compute"))
    yield
    size, jobs = 32 << 20, []
    for f in sorted(glob.glob(f"{data}/*")):
        jobs += [dask.delayed(dask_part)(f, a, min(a + size, os.path.getsize(f))) for a in range(0, os.path.getsize(f), size)]
    parts = dask.compute(*jobs)
    seen = pd.concat([a for a, _ in parts]).drop_duplicates().groupby("day").size().rename("visitors").reset_index()
    hits = pd.concat([b for _, b in parts]).groupby(["day", "page"], as_index=False)["hits"].sum()
    hits = hits.sort_values(["day", "hits", "page"], ascending=[True, False, True]).groupby("day").head(10)
    hits["rank"] = hits.groupby("day").cumcount() + 1
    for frame, name in ((seen, "daily"), (hits, "top")):
        frame["day"] = frame["day"].map(iso)
        frame.to_parquet(f"{out}/{name}")
    client.close()
    cluster.close()


def dask_part(path, start, end):
    """Distinct (day, ip) and hits by (day, page) of the lines that begin in start..end, with Arrow's own kernels."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pcsv
    with open(path, "rb") as f:
        f.seek(max(0, start - 1))
        if start:
            f.readline()
        body = f.read(max(0, end - f.tell()))
        body += f.readline() if body and not body.endswith(b"\n") else b""
    t = pcsv.read_csv(pa.BufferReader(body), read_options=pcsv.ReadOptions(column_names=["line"], use_threads=False),
                      parse_options=pcsv.ParseOptions(delimiter="\x01", quote_char=False),
                      convert_options=pcsv.ConvertOptions(column_types={"line": pa.string()}))
    rx = LOG_RE.replace("^(", "^(?P<ip>", 1).replace("[(", "[(?P<day>", 1).replace("([^ \"?]+)", "(?P<page>[^ \"?]+)", 1)
    m = pc.extract_regex(t["line"], rx).combine_chunks()
    m = m.filter(m.is_valid())
    t = pa.table({k: m.field(k) for k in ("ip", "day", "page")})
    a = t.group_by(["day", "ip"]).aggregate([]).to_pandas()
    b = t.group_by(["day", "page"]).aggregate([([], "count_all")]).to_pandas().rename(columns={"count_all": "hits"})
    return a, b


PEERS = {"polars": polars, "duckdb": duckdb, "datafusion": datafusion, "dask": dask, "spark": spark}


def digest(out):
    """md5 over the sorted rows of each output."""
    import pyarrow.parquet as pq
    sums = []
    for name, columns in (("daily", ("day", "visitors")), ("top", ("day", "rank", "page", "hits"))):
        path = f"{out}/{name}"
        files = [path] if os.path.isfile(path) else [f for f in glob.glob(f"{path}/*") if f.endswith(".parquet")]
        rows = [r for f in files for r in pq.ParquetFile(f).read().to_pylist()]
        text = "\n".join(sorted("|".join(str(r[c]) for c in columns) for r in rows))
        sums.append(hashlib.md5(text.encode()).hexdigest()[:12])
    return "-".join(sums)


# ---- sampling

def tree(pid):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
            except OSError:
                pass
    found, queue = [], [pid]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += parents.get(pid, [])
    return found


def memory_kb(pids):
    total = 0
    for pid in pids:
        try:
            for line in open(f"/proc/{pid}/status"):
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total


class Sampler(threading.Thread):
    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak_kb, self.stop = pid, 0, threading.Event()

    def run(self):
        while not self.stop.wait(0.04):
            self.peak_kb = max(self.peak_kb, memory_kb(tree(self.pid)))


# ---- one run

def run_peer(name, data, out):
    child = subprocess.Popen([sys.executable, __file__, "--peer", name, "--data", data, "--out", out], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True, env=dict(os.environ, PYTHONWARNINGS="ignore"))
    sampler = Sampler(child.pid)
    sampler.start()
    text, _ = child.communicate(timeout=600)
    sampler.stop.set()
    sampler.join()
    if child.returncode:
        raise RuntimeError(f"{name} failed")
    return json.loads(text.splitlines()[-1])["wall_s"], sampler.peak_kb / 1024


def run_weft(weft, job, server):
    sampler = Sampler(server.pid)
    sampler.start()
    began = time.perf_counter()
    subprocess.run([weft, "run", job], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    sampler.stop.set()
    sampler.join()
    return wall, sampler.peak_kb / 1024


def as_peer(name, data, out):
    os.makedirs(out, exist_ok=True)
    steps = PEERS[name](data, out)
    next(steps)
    began = time.perf_counter()
    next(steps, None)
    print(json.dumps({"wall_s": time.perf_counter() - began}), flush=True)
    os._exit(0)


JOB = """
name = "weblog"
[input.logs]
format = "text"
uri = "{data}/*"
[[stage]]
name = "visits"
from = "logs"
map = "weblog/parse"
[[stage]]
name = "daily"
from = "visits"
shuffle = {{ keys = ["day"], partitions = 8 }}
combine = "weblog/daily-partial"
reduce = "weblog/daily"
[[stage]]
name = "top"
from = "visits"
shuffle = {{ keys = ["day"], partitions = 8 }}
combine = "weblog/top-partial"
reduce = "weblog/top"
[output.daily]
from = "daily"
format = "parquet"
uri = "{out}/daily/"
[output.top]
from = "top"
format = "parquet"
uri = "{out}/top/"
"""


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--weft")
    p.add_argument("--component")
    p.add_argument("--peers", default=",".join(PEERS))
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--peer")
    p.add_argument("--out")
    a = p.parse_args()
    if a.peer:
        return as_peer(a.peer, a.data, a.out)
    work = tempfile.mkdtemp(prefix="weft-bench-")
    env = dict(os.environ, WEFT_DATA=f"{work}/data", WEFT_ENDPOINT="http://127.0.0.1:7391")
    os.environ.update(env)
    server = subprocess.Popen([a.weft, "up", "--data", f"{work}/data", "--listen", "127.0.0.1:7391"], stderr=subprocess.DEVNULL)
    rows, digests = {}, set()
    try:
        for _ in range(100):
            if subprocess.run([a.weft, "components"], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        subprocess.run([a.weft, "deploy", a.component], check=True, stdout=subprocess.DEVNULL)
        names = ["weft"] + a.peers.split(",")
        for round_ in range(a.runs):
            for name in names[round_ % len(names):] + names[:round_ % len(names)]:
                out = f"{work}/out"
                shutil.rmtree(out, ignore_errors=True)
                load = os.getloadavg()[0]
                if name == "weft":
                    open(f"{work}/job.toml", "w").write(JOB.format(data=a.data, out=out))
                    wall, peak = run_weft(a.weft, f"{work}/job.toml", server)
                else:
                    wall, peak = run_peer(name, a.data, out)
                found = digest(out)
                digests.add(found)
                rows.setdefault(name, []).append((wall, peak, load))
                print(f"round {round_} {name:<11} {wall:7.2f} s {peak:7.0f} MiB  load {load:.1f}  {found}", flush=True)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(work, ignore_errors=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    size = sum(os.path.getsize(f) for f in glob.glob(f"{a.data}/*"))
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    print(f"\ncommit {commit}, {cpu}, {os.cpu_count()} cores, {size / 1e9:.2f} GB, digests {'agree' if len(digests) == 1 else 'DIFFER'}: {', '.join(digests)}\n")
    print("| system | median s | min..max s | peak MiB (median) | wall over Weft | load before |")
    print("|---|--:|--:|--:|--:|--:|")
    base = statistics.median(w for w, _, _ in rows["weft"])
    for name, runs in sorted(rows.items(), key=lambda item: statistics.median(w for w, _, _ in item[1])):
        walls, peaks, loads = zip(*runs)
        print(f"| {name} | {statistics.median(walls):.2f} | {min(walls):.2f}..{max(walls):.2f} | {statistics.median(peaks):.0f} "
              f"| {statistics.median(walls) / base:.2f} | {min(loads):.1f}..{max(loads):.1f} |")
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
