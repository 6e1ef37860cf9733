"""The jobs that are compared: what each reads, Weft's job file, and the digest of outputs on which all systems must agree."""
import glob, hashlib, json, os, shutil, subprocess, sys, tomllib
from functools import lru_cache
from math import asin, cos, radians, sin, sqrt

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# ---- weblog

LOG_RE = r'^\S+ \S+ \S+ \[\d\d/[A-Z][a-z][a-z]/\d\d\d\d:[^\]]+\] "[A-Z]+ [^ "?]+[^"]*" \d\d\d '
# The same with one group, from the address to the page, where an engine takes apart what it finds.
LOG_RE_GROUP = r'^(\S+ \S+ \S+ \[\d\d/[A-Z][a-z][a-z]/\d\d\d\d:[^\]]+\] "[A-Z]+ [^ "?]+)[^"]*" \d\d\d '
MONTHS = {month: i + 1 for i, month in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())}


def iso_day(day):
    d, m, y = day.split("/")
    return f"{y}-{MONTHS[m]:02d}-{d}"


# ---- scoring: as a plain function of Python, and as SQL

SCORE_COLUMNS = ["ua", "lat1", "lon1", "lat2", "lon2", "amount", "hour"]
_SYSTEMS = [("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iOS"), ("Macintosh", "macOS"), ("Linux", "Linux")]


@lru_cache(maxsize=1024)  # agents repeat; examples/scoring remembers them, too
def agent(ua):
    """Family, version and system of the browser."""
    system = next((name for mark, name in _SYSTEMS if mark in ua), "Other")
    for mark, family, more in (("Edg/", "Edge", 0), ("Chrome/", "Chrome", 0), ("Firefox/", "Firefox", 0), ("Version/", "Safari", 80)):
        if mark in ua:
            return family, int(ua.split(mark, 1)[1].split(".", 1)[0]) + more, system
    return ("Bot" if "bot" in ua else "Other"), 0, system


def score(ua, lat1, lon1, lat2, lon2, amount, hour):
    """Family and system, kilometres, points: what examples/scoring computes."""
    family, version, system = agent(ua)
    a, b = radians(lat1), radians(lat2)
    h = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(radians(lon2 - lon1) / 2) ** 2
    km = 12742.0 * asin(min(1.0, sqrt(h)))
    points = 40 if km > 5000 else 20 if km > 500 else 5 if km > 50 else 0
    points += 30 if amount > 900 else 10 if amount > 250 else 0
    points += 50 if family == "Bot" else 15 if family == "Other" else 12 if version < 90 else 0
    if amount > 500 and system in ("Linux", "Other"):
        points += 7
    return family, system, int(km), points * 3 // 2 if hour < 6 else points


def score_columns(columns):
    """Lists of equal length in, lists out, one call a row."""
    rows = [score(*row) for row in zip(*columns)]
    return [list(column) for column in zip(*rows)] if rows else [[], [], [], []]


def agents_sql(table, version=lambda mark: f"CAST(split_part(split_part(ua, '{mark}', 2), '.', 1) AS BIGINT)"):
    """What `agent` tells, as a query: each agent that occurs is taken apart once."""
    return f"""
SELECT ua,
  CASE WHEN ua LIKE '%Edg/%' THEN 'Edge' WHEN ua LIKE '%Chrome/%' THEN 'Chrome' WHEN ua LIKE '%Firefox/%' THEN 'Firefox'
       WHEN ua LIKE '%Version/%' THEN 'Safari' WHEN ua LIKE '%bot%' THEN 'Bot' ELSE 'Other' END AS fam,
  CASE WHEN ua LIKE '%Edg/%' THEN {version('Edg/')} WHEN ua LIKE '%Chrome/%' THEN {version('Chrome/')}
       WHEN ua LIKE '%Firefox/%' THEN {version('Firefox/')} WHEN ua LIKE '%Version/%' THEN {version('Version/')} + 80 ELSE 0 END AS ver,
  CASE WHEN ua LIKE '%Windows%' THEN 'Windows' WHEN ua LIKE '%Android%' THEN 'Android' WHEN ua LIKE '%iPhone%' THEN 'iOS'
       WHEN ua LIKE '%Macintosh%' THEN 'macOS' WHEN ua LIKE '%Linux%' THEN 'Linux' ELSE 'Other' END AS os
FROM (SELECT DISTINCT ua FROM {table}) AS d"""


def score_sql(table, half="//"):
    """The rest, given a table `agents`."""
    return f"""
WITH a AS (SELECT fam, ver, os, amount, hour,
  12742.0e0 * asin(least(1.0e0, sqrt(power(sin((radians(lat2) - radians(lat1)) / 2), 2)
     + cos(radians(lat1)) * cos(radians(lat2)) * power(sin(radians(lon2 - lon1) / 2), 2)))) AS km
  FROM {table} AS p JOIN agents ON p.ua = agents.ua),
b AS (SELECT fam, os, hour, CAST(floor(km) AS BIGINT) AS km,
  (CASE WHEN km > 5000 THEN 40 WHEN km > 500 THEN 20 WHEN km > 50 THEN 5 ELSE 0 END)
  + (CASE WHEN amount > 900 THEN 30 WHEN amount > 250 THEN 10 ELSE 0 END)
  + (CASE WHEN fam = 'Bot' THEN 50 WHEN fam = 'Other' THEN 15 WHEN ver < 90 THEN 12 ELSE 0 END)
  + (CASE WHEN amount > 500 AND os IN ('Linux', 'Other') THEN 7 ELSE 0 END) AS s FROM a)
SELECT fam, os, count(*) AS n, sum(km) AS km, sum(CASE WHEN hour < 6 THEN (s * 3) {half} 2 ELSE s END) AS score
FROM b GROUP BY fam, os"""


# ---- sort: records by key to 64 partitions, each in order; no user code

SORT_COLUMNS = ["key", "id", "rest"]
SORT_PARTITIONS = 64
SORT_JOB = {
    "name": "sort",
    "input": {"records": {"format": "csv", "uri": "data/part-*.txt", "header": False, "delimiter": " ", "quote": "",
                          "schema": [f"{column} utf8" for column in SORT_COLUMNS]}},
    "stage": [{"name": "sorted", "from": "records", "shuffle": {"keys": ["key"], "partitions": SORT_PARTITIONS}}],
    "output": {"sorted": {"from": "sorted", "format": "csv", "uri": "out/sorted/"}},
}

# ---- join: revenue and orders of each country and decade of age; a query, which all systems with SQL take as it is

JOIN_SQL = """
SELECT country, age - age % 10 AS decade, sum(amount) AS revenue, count(*) AS orders
FROM orders JOIN users ON orders.user_id = users.user_id
GROUP BY country, age - age % 10"""
JOIN_JOB = {
    "name": "join",
    "input": {"orders": {"format": "parquet", "uri": "data/orders-*.parquet"}, "users": {"format": "parquet", "uri": "data/users-*.parquet"}},
    "stage": [{"name": "revenue", "from": ["orders", "users"], "sql": JOIN_SQL}],
    "output": {"revenue": {"from": "revenue", "format": "parquet", "uri": "out/revenue/"}},
}

# ---- all of them

# Jobs without user code; those of the others are in the examples.
_JOBS = {"sort": SORT_JOB, "join": JOIN_JOB}

# Outputs of each, with columns and how a value is written for the digest; a mean is cut at a point that no short fraction hits.
_TEXT, _WHOLE, _MEAN = str, lambda value: str(int(value)), lambda value: str(int(float(value) * 1e6 + 0.371))
_CENTS = lambda value: str(round(float(value) * 100))
OUTPUTS = {
    "weblog": {"daily": {"day": _TEXT, "visitors": _WHOLE}, "top": {"day": _TEXT, "rank": _WHOLE, "page": _TEXT, "hits": _WHOLE}},
    "taxi": {"zones": {"zone": _WHOLE, "hour": _WHOLE, "avg_fare": _MEAN, "trips": _WHOLE}},
    "wordcount": {"words": {"word": _TEXT, "n": _WHOLE}},
    "scoring": {"scores": {"fam": _TEXT, "os": _TEXT, "n": _WHOLE, "km": _WHOLE, "score": _WHOLE}},
    "sort": {"sorted": None},
    "join": {"revenue": {"country": _TEXT, "decade": _WHOLE, "revenue": _CENTS, "orders": _WHOLE}},
}


def component(workload):
    """The component that the job calls; none for a job without user code."""
    return None if workload in _JOBS else workload


def job(workload, data, out):
    """The job file, as JSON, with its files in `data` and `out`."""
    if workload in _JOBS:
        spec = json.loads(json.dumps(_JOBS[workload]))
    else:
        with open(f"{ROOT}/examples/{workload}/job.toml", "rb") as file:
            spec = tomllib.load(file)
    for name, input_ in spec["input"].items():
        input_["uri"] = f"{data}/{os.path.basename(input_['uri'])}"
    for name, output in spec["output"].items():
        output["uri"] = f"{out}/{name}/"
    return json.dumps(spec)


def make_tpc(benchmark, folder, scale, requirements, *more):
    """Makes the tables of TPC-H or TPC-DS, one Parquet file each, unless they are there."""
    if os.path.exists(folder):
        return
    program = shutil.which("tpcgen-cli", path=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", ""))
    if program is None:
        raise SystemExit(f"tpcgen-cli is missing: pip install -r {requirements}")
    draft = f"{folder}.{os.getpid()}.draft"
    try:
        subprocess.run([program, benchmark, "parquet", "--scale-factor", str(scale), *more, "--output-dir", draft, "--quiet"], check=True)
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def digest(workload, out):
    if workload == "sort":
        return _sorted_digest(f"{out}/sorted")
    return "-".join(_table_digest(f"{out}/{name}", columns) for name, columns in OUTPUTS[workload].items())


def _files(path):
    """The files of an output, without what systems leave beside them."""
    found = [path] if os.path.isfile(path) else glob.glob(f"{path}/**", recursive=True)
    return sorted(file for file in found if os.path.isfile(file) and os.path.basename(file)[0] not in "._")


def _table_digest(path, columns):
    import pyarrow.parquet as pq
    lines = []
    for file in _files(path):
        table = pq.ParquetFile(file).read(columns=list(columns))
        values = [map(write, table.column(name).to_pylist()) for name, write in columns.items()]
        lines += map("|".join, zip(*values))
    return hashlib.md5("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def _sorted_digest(path):
    """A sum over all records that does not depend on their order, if each file is in order and no partition is missing."""
    import numpy as np
    total, n_files, n_records = 0, 0, 0
    factors = np.arange(1, 25, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    for file in _files(path):
        with open(file, "rb") as lines:
            if lines.readline() != b"key,id,rest\n":
                return f"no header in {os.path.basename(file)}"
            body = np.frombuffer(lines.read(), np.uint8)
        if len(body) % 100:
            return f"odd size of {os.path.basename(file)}"
        rows = body.reshape(-1, 100)
        keys = np.ascontiguousarray(rows[:, :10]).view("S10").ravel()
        if (keys[1:] < keys[:-1]).any():
            return f"no order in {os.path.basename(file)}"
        words = rows[:, :96].astype(np.uint8).copy().view("<u4").astype(np.uint64)
        with np.errstate(over="ignore"):
            mixed = words * factors
            mixed = (mixed ^ (mixed >> np.uint64(29))).sum(axis=1) * np.uint64(0xBF58476D1CE4E5B9)
            total = (total + int((mixed ^ (mixed >> np.uint64(32))).sum())) & (2**64 - 1)
        n_files, n_records = n_files + 1, n_records + len(rows)
    if n_files < SORT_PARTITIONS:
        return f"{n_files} files"
    return f"{total:016x}"[:12] + f"-{n_records}"
