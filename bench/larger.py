#!/usr/bin/env python3
"""Statements over data larger than memory, in one task each: do they end within their limit, with DuckDB's rows? And does a key that has a
fifth of all rows cost a join more?

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-tpch.txt
    VENV/bin/python bench/larger.py --weft target/release/weft [--scale 4] [--data DIR]

`lineitem` and `orders` of TPC-H are joined, grouped and sorted in one task with the memory that a stage has by default, 256 MiB. What a
statement reads at scale 4 is about ten times that: the line gives the size of the tables' pages before compression, which is less than their size in
memory. Rows are compared by number and by sums. The peak is that of the server and its executors, sampled, which is more than the task's own share.

The whale: two tables of 20 million orders, in one of them every fifth has the same customer, are joined to a million customers by four tasks.
The ratio is that of the medians of runs in turn.

A line of JSON goes to the end of bench/larger.jsonl. The exit code is 1 where rows differ or a statement fails.
"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, time

import measure, workloads
from serving import Server

LIMIT_MIB = 256
SUMS = {
    # The build side of the join is larger than the memory: it has every column of every order.
    "join": ("SELECT o.*, l.* FROM lineitem l JOIN orders o ON l.l_orderkey = o.o_orderkey",
             "count(*), sum(l_extendedprice), sum(o_totalprice), sum(length(l_comment) + length(o_comment))"),
    # A group for each line.
    "group": ("SELECT l_orderkey, l_partkey, l_suppkey, l_comment, count(*) AS n, sum(l_quantity) AS quantity, max(l_shipdate) AS shipped "
              "FROM lineitem GROUP BY 1, 2, 3, 4",
              "count(*), sum(n), sum(quantity), sum(length(l_comment))"),
    "sort": ("SELECT * FROM lineitem ORDER BY l_comment, l_orderkey, l_linenumber",
             "count(*), sum(l_extendedprice), sum(l_orderkey), sum(length(l_comment))"),
}
WHALE_ROWS, WHALE_TASKS, CUSTOMERS = 20_000_000, 4, 1_000_000
TIMEOUT_S = 1800


def environment(server):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WEFT", "OTEL_", "RUST_LOG"))}
    return env | {"WEFT_ENDPOINT": "http://{}:{}".format(*server.address), "WEFT_TOKEN": server.token}


def run_weft(weft, server, partitions, out, sql):
    """Seconds, and the peak memory of the server and its executors in MiB."""
    command = [weft, "sql", "--json", "--partitions", str(partitions), "--output", out, "--format", "parquet", "--rows", "1", sql]
    with measure.Sampler(server.pid) as sampler:
        began = time.perf_counter()
        ran = subprocess.run(command, env=environment(server), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        took = time.perf_counter() - began
    if ran.returncode:
        raise RuntimeError(" / ".join(ran.stderr.strip().splitlines()[-4:]))
    return took, sampler.peak_mib


def spilled(weft, server):
    """Bytes that the newest job wrote beside its memory."""
    listed = subprocess.run([weft, "jobs", "--json"], env=environment(server), capture_output=True, text=True, check=True)
    jobs = json.loads(listed.stdout)
    job = (jobs["items"] if isinstance(jobs, dict) else jobs)[0]["id"]
    told = subprocess.run([weft, "job", job, "--json"], env=environment(server), capture_output=True, text=True, check=True)

    def find(value):
        if isinstance(value, dict):
            return sum(find(v) if k != "spilled_bytes" else v for k, v in value.items() if k in ("stages", "spilled_bytes", "usage", "meters"))
        return sum(map(find, value)) if isinstance(value, list) else 0
    return find(json.loads(told.stdout))


def larger(weft, server, connection, data, work):
    told = {}
    for name, (sql, sums) in SUMS.items():
        for table in ("lineitem", "orders"):
            sql = sql.replace(f"FROM {table}", f"FROM '{data}/{table}.parquet'").replace(f"JOIN {table}", f"JOIN '{data}/{table}.parquet'")
        out = tempfile.mkdtemp(dir=work)
        line = told[name] = {}
        try:
            took, peak = run_weft(weft, server, 1, out, sql)
            line.update(weft_s=round(took, 2), peak_mib=round(peak), spilled_mib=spilled(weft, server) >> 20)
            files = sorted(f"{out}/{found}" for found in os.listdir(out) if found.endswith(".parquet"))
            ours = connection.execute(f"SELECT {sums} FROM read_parquet($1)", [files]).fetchone()
            began = time.perf_counter()
            theirs = connection.execute(f"SELECT {sums} FROM ({sql})").fetchone()
            line.update(duckdb_s=round(time.perf_counter() - began, 2), rows=ours[0], wrong=None if ours == theirs else f"{ours} instead of {theirs}")
            if name == "sort":
                unsorted = connection.execute(
                    "SELECT count(*) FROM (SELECT l_comment c, lag(l_comment) OVER () p FROM read_parquet($1)) WHERE p > c", [files]).fetchone()[0]
                line["wrong"] = line["wrong"] or (f"{unsorted} rows stand out of order" if unsorted else None)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            line["wrong"] = str(error)
        print(name, line, flush=True)
        subprocess.run(["rm", "-rf", out], check=True)
    return told


def make_whale(connection, folder):
    if os.path.exists(f"{folder}/made"):
        return
    os.makedirs(folder, exist_ok=True)
    for name, user in ("even", f"hash(i) % {CUSTOMERS}"), ("whale", f"CASE WHEN i % 5 = 0 THEN 7 ELSE hash(i) % {CUSTOMERS} END"):
        connection.execute(f"COPY (SELECT i AS id, CAST({user} AS BIGINT) AS customer, (hash(i + 1) % 100000) / 100.0 AS amount "
                           f"FROM range({WHALE_ROWS}) t(i)) TO '{folder}/{name}.parquet' (ROW_GROUP_SIZE 1000000)")
    connection.execute(f"COPY (SELECT i AS customer, 'country ' || hash(i) % 200 AS country FROM range({CUSTOMERS}) t(i)) "
                       f"TO '{folder}/customers.parquet' (ROW_GROUP_SIZE 100000)")
    open(f"{folder}/made", "w").close()


def whale(weft, server, connection, folder, work, rounds):
    make_whale(connection, folder)
    told = {"even": [], "whale": [], "ratio": None, "wrong": None}
    try:
        for name in ("even", "whale") * rounds:
            sql = (f"SELECT o.id, o.amount, c.country FROM '{folder}/{name}.parquet' o JOIN '{folder}/customers.parquet' c ON o.customer = c.customer "
                   "WHERE o.amount < 900")
            out = tempfile.mkdtemp(dir=work)
            told[name].append(round(run_weft(weft, server, WHALE_TASKS, out, sql)[0], 2))
            sums = "count(*), sum(id), sum(length(country))"
            ours = connection.execute(f"SELECT {sums} FROM '{out}/*.parquet'").fetchone()
            theirs = connection.execute(f"SELECT {sums} FROM ({sql})").fetchone()
            if ours != theirs:
                told["wrong"] = f"{name}: {ours} instead of {theirs}"
            subprocess.run(["rm", "-rf", out], check=True)
        told["ratio"] = round(statistics.median(told["whale"]) / statistics.median(told["even"]), 2)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        told["wrong"] = str(error)
    print("whale", told, flush=True)
    return told


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--scale", type=float, default=4, help="scale of the data [default: 4]")
    p.add_argument("--rounds", type=int, default=3, help="of the whale [default: 3]")
    p.add_argument("--data", help="a folder that keeps the data for the next run [default: a temporary one]")
    p.add_argument("--only", choices=("memory", "whale"))
    a = p.parse_args()
    import duckdb
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    row = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": measure.commit(workloads.ROOT), "machine": measure.machine(),
           "load": round(os.getloadavg()[0], 2), "scale": a.scale, "limit_mib": LIMIT_MIB, "duckdb": duckdb.__version__}
    weft = os.path.abspath(a.weft)
    with tempfile.TemporaryDirectory(prefix="weft-larger-") as work:
        data = os.path.abspath(a.data or work)
        os.makedirs(data, exist_ok=True)
        connection = duckdb.connect(config={"threads": len(os.sched_getaffinity(0)), "temp_directory": f"{work}/duckdb"})
        server = Server(weft, work)
        try:
            if a.only != "whale":
                folder = f"{data}/tpch-{a.scale:g}"
                group = int(7 * 2**20)
                workloads.make_tpc("tpch", folder, a.scale, "bench/requirements-tpch.txt", "--row-group-bytes", str(group))
                pages = "SELECT sum(total_uncompressed_size) >> 20 FROM parquet_metadata($1)"
                row["pages_mib"] = {name: int(connection.execute(pages, [f"{folder}/{name}.parquet"]).fetchone()[0]) for name in ("lineitem", "orders")}
                row["larger"] = larger(weft, server, connection, folder, work)
            if a.only != "memory":
                row["whale"] = whale(weft, server, connection, f"{data}/whale", work, a.rounds)
        finally:
            server.stop()
    row["load_after"] = round(os.getloadavg()[0], 2)
    with open(os.path.join(workloads.ROOT, "bench/larger.jsonl"), "a") as ledger:
        ledger.write(json.dumps(row) + "\n")
    wrong = [line["wrong"] for line in (*row.get("larger", {}).values(), row.get("whale", {"wrong": None})) if line["wrong"]]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
