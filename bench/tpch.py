#!/usr/bin/env python3
"""The 22 queries of TPC-H by `weft sql` and by DuckDB over the same Parquet files: do they give the same rows, and how long do they take?

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-tpch.txt
    VENV/bin/python bench/tpch.py --weft target/release/weft --scale 1 --partitions 4 [--queries 1,5-9] [--rounds 3] [--data DIR]

The queries lie in bench/tpch, with the values of the validation run and its limits; names of tables become paths of files, one for each table. Each
round runs a query on both, one after the other, and the next round the other way around. Weft's clock runs from the start of `weft sql` to its end:
it plans, writes the rows to a folder of Parquet, and reads them again to show them. DuckDB is a library in this process; its clock runs from the
statement to the rows in Python. Both open the files for each query, and have the same cores.

Rows are compared as a multiset, and by what ORDER BY names as a list. Floats, and what one of the two has as a float, may differ by 1e-6 of the
value, or by 1e-6; all else must be equal. Where LIMIT cuts through rows that are equal in the order, these are left out.

Other engines run the same queries, each in a process of its own (`tpch_peer.py`), with `--peer NAME=PYTHON`, where PYTHON is an interpreter that
has it: datafusion, polars, spark or sail. Only the number of their rows is compared; a query that one refuses is left out of its sum, and of Weft's
sum beside it.

A line of JSON goes to the end of bench/tpch.jsonl. The exit code is 1 where rows differ or a query fails.
"""
import argparse, json, os, re, signal, statistics, subprocess, sys, tempfile, time
from math import isclose

import measure, workloads
from chaos import Cluster
from serving import Server

QUERIES = range(1, 23)
TABLES = "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"
# A table where one can stand, and the name that the query gives it.
TABLE = re.compile(rf"(\b(?:from|join)\s+|,\s*)({'|'.join(TABLES)})\b(?:\s+(?!left\b|join\b|on\b|where\b|group\b|order\b)(\w+))?")
ORDER = re.compile(r"\border by\s+([^()]*?)(?:\blimit\s+(\d+))?\s*$")
TOLERANCE = 1e-6
TIMEOUT_S = 900


# ---- data and queries

def make_data(folder, scale):
    # Tasks share row groups: small tables have several, too.
    group = int(7 * 2**20 * min(1, 4 * scale))
    workloads.make_tpc("tpch", folder, scale, "bench/requirements-tpch.txt", "--row-group-bytes", str(group))


def text(number):
    with open(os.path.join(workloads.ROOT, f"bench/tpch/q{number:02}.sql")) as file:
        return file.read()


def query(number, data):
    """The text of a query over the files in `data`, the positions of the columns that it orders rows by, and how many rows it wants."""
    sql = text(number)
    ordered = ORDER.search(sql)
    keys = [key.split()[0] for key in ordered[1].split(",")] if ordered else []
    limit = int(ordered[2]) if ordered and ordered[2] else None
    sql = TABLE.sub(lambda found: f"{found[1]}'{data}/{found[2]}.parquet' {found[3] or found[2]}", sql)
    return sql, keys, limit


# ---- both systems: columns, rows, seconds

class Failed(Exception):
    """What a system says instead of rows."""


def run_duckdb(connection, sql):
    began = time.perf_counter()
    try:
        result = connection.execute(sql)
        rows = result.fetchall()
    except Exception as error:
        raise Failed(f"DuckDB: {error}")
    return [column[0] for column in result.description], rows, time.perf_counter() - began


def run_weft(weft, server, partitions, connection, work, sql):
    out = tempfile.mkdtemp(dir=work)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WEFT", "OTEL_", "RUST_LOG"))}
    env.update(WEFT_ENDPOINT="http://{}:{}".format(*server.address), WEFT_TOKEN=server.token)
    command = [weft, "sql", "--json", "--partitions", str(partitions), "--output", out, "--format", "parquet", sql]
    try:
        began = time.perf_counter()
        ran = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        took = time.perf_counter() - began
        if ran.returncode:
            raise Failed(f"Weft: {failure(ran)}")
        files = sorted(f"{out}/{name}" for name in os.listdir(out) if name.endswith(".parquet"))
        result = connection.execute("SELECT * FROM read_parquet($1)", [files])
        return [column[0] for column in result.description], result.fetchall(), took
    except subprocess.TimeoutExpired:
        raise Failed(f"Weft: no rows after {TIMEOUT_S} s")


class Nodes(Cluster):
    """Three controllers and three nodes of one slot each on this machine, asked like a `Server`."""

    def __init__(self, weft, work):
        super().__init__(weft, work, controllers=3, nodes=3)
        host, port = self.addresses[0].split(":")
        self.address, self.stop = (host, int(port)), self.close


class Peer:
    """Another engine, in a process that has started by the time the clocks run."""

    def __init__(self, name, python, cores):
        self.name = name
        program = os.path.join(workloads.ROOT, "bench/tpch_peer.py")
        self.process = subprocess.Popen([python, program, name, str(cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True)
        self.version = self.answer()["ready"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name}: its process has ended")
        return json.loads(line)

    def run(self, number, data):
        """Rows and seconds of a query."""
        asked = {"sql": text(number), "data": data, "tables": TABLES}
        try:
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"{self.name}: its process has ended")
        told = self.answer()
        if "error" in told:
            raise Failed(f"{self.name}: {told['error']}")
        return told["rows"], told["seconds"]

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def failure(ran):
    """The problem of a query that failed: that of the job, or what `weft` said."""
    lines = [line for line in ran.stderr.splitlines() if line.strip()]
    return f"exit code {ran.returncode}: " + " / ".join(line.strip() for line in lines[-4:])


# ---- are they the same?

def differences(one, other, keys, limit):
    """How the rows of two systems differ; nothing where they are the same."""
    (names, expected), (found_names, found) = one, other
    if len(names) != len(found_names):
        return f"columns {found_names} instead of {names}"
    if len(expected) != len(found):
        return f"{len(found)} rows instead of {len(expected)}"
    floats = {at for at in range(len(names)) if any(isinstance(row[at], float) for row in (*expected, *found))}
    unified = lambda rows: [tuple(float(v) if at in floats and v is not None else v for at, v in enumerate(row)) for row in rows]
    expected, found = unified(expected), unified(found)
    places = [names.index(key) for key in keys]
    key = lambda row: tuple(row[at] for at in places)
    for at, (a, b) in enumerate(zip(expected, found)):
        if not same(key(a), key(b)):
            return f"row {at} is in order {key(b)} instead of {key(a)}"
    if limit == len(expected):
        expected, found = [[row for row in rows if not same(key(row), key(rows[-1]))] for rows in (expected, found)]
    exact = [at for at in range(len(names)) if at not in floats]
    in_order = lambda row: [(row[at] is None, row[at] if row[at] is not None else 0) for at in (*exact, *sorted(floats))]
    for a, b in zip(sorted(expected, key=in_order), sorted(found, key=in_order)):
        if not same(a, b):
            return f"{b} instead of {a}"
    return None


def same(a, b):
    close = lambda x, y: x == y or isinstance(x, float) and isinstance(y, float) and isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return all(map(close, a, b))


# ---- all runs

def measured(number, systems, peers, data, rounds):
    """A query on all systems: rows, seconds, what is wrong, and what other engines took or why they did not."""
    sql, keys, limit = query(number, data)
    told = {"rows": None, **{f"{name}_s": [] for name in (*systems, *(peer.name for peer in peers))}, "wrong": None, "refused": {}}
    for round_ in range(rounds):
        results = {}
        for name in sorted(systems, reverse=round_ % 2 == 1):
            try:
                *results[name], took = systems[name](sql)
            except Failed as failed:
                told["wrong"] = str(failed)
                continue
            told[f"{name}_s"].append(round(took, 4))
        if "duckdb" in results:
            told["rows"] = len(results["duckdb"][1])
        if len(results) < len(systems):
            break  # it would only fail again
        if wrong := differences(results["duckdb"], results["weft"], keys, limit):
            told["wrong"] = f"rows differ: {wrong}"
        for peer in peers:
            try:
                rows, took = peer.run(number, data)
            except Failed as failed:
                told["refused"][peer.name] = str(failed)
                continue
            told[f"{peer.name}_s"].append(round(took, 4))
            if rows != told["rows"]:
                told["refused"][peer.name] = f"{rows} rows instead of {told['rows']}"
    return told


def line(number, told, peers):
    weft, duckdb = (statistics.median(told[f"{name}_s"] or [float("nan")]) for name in ("weft", "duckdb"))
    rows = "" if told["rows"] is None else f"{told['rows']:,}"
    return f"| {number} | {rows} | {weft:.3f} s | {duckdb:.3f} s | {weft / duckdb:.1f} | {'no' if told['wrong'] else 'yes'} |" + "".join(
        f" {statistics.median(told[f'{peer.name}_s'] or [float('nan')]):.3f} s |" for peer in peers)


def numbers(text):
    """`1,5-9` as a list."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not set(found) <= set(QUERIES):
        raise ValueError
    return found


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--scale", type=float, default=0.1, help="scale of the data; 1 is about 1 GB of text [default: 0.1]")
    p.add_argument("--partitions", type=int, default=3, help="tasks that share the work [default: 3]")
    p.add_argument("--queries", type=numbers, default=list(QUERIES), help="such as 1,5-9 [default: all]")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--data", help="a folder that keeps the data, by scale, for the next run [default: a temporary one]")
    p.add_argument("--cluster", action="store_true", help="Weft as three controllers and three nodes, instead of one server")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="another engine, and an interpreter that has it; may be repeated")
    p.add_argument("--cores", type=int, default=2, help="how many both may use [default: 2]")
    p.add_argument("--commit", help="what the line says was measured; this checkout's commit without it")
    p.add_argument("--ledger", default=os.path.join(workloads.ROOT, "bench/tpch.jsonl"), help="file to which a line is added [default: bench/tpch.jsonl]")
    return p.parse_args()


def main():
    a = arguments()
    import duckdb
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:a.cores])
    cores = len(os.sched_getaffinity(0))
    row = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": a.commit or measure.commit(workloads.ROOT),
           "machine": measure.machine(), "load": round(os.getloadavg()[0], 2), "scale": a.scale, "partitions": a.partitions, "rounds": a.rounds, "cluster": a.cluster,
           "duckdb": duckdb.__version__, "queries": {}}
    with tempfile.TemporaryDirectory(prefix="weft-tpch-") as work:
        data = os.path.join(os.path.abspath(a.data or work), f"tpch-{a.scale:g}")
        os.makedirs(os.path.dirname(data), exist_ok=True)
        make_data(data, a.scale)
        connection = duckdb.connect(config={"threads": cores})
        server = (Nodes if a.cluster else Server)(os.path.abspath(a.weft), work)
        peers = []
        try:
            for name, python in (peer.split("=", 1) for peer in a.peer):
                peers.append(Peer(name, python, cores))
                row[name] = peers[-1].version
            systems = {"weft": lambda sql: run_weft(os.path.abspath(a.weft), server, a.partitions, connection, work, sql),
                       "duckdb": lambda sql: run_duckdb(connection, sql)}
            print(f"TPC-H, scale {a.scale:g}, {a.partitions} partitions, {cores} cores, median of {a.rounds} rounds; commit {row['commit']}; "
                  f"load {row['load']}\n")
            print("| query | rows | Weft | DuckDB | Weft / DuckDB | same rows |" + "".join(f" {peer.name} |" for peer in peers)
                  + "\n|--:|--:|--:|--:|--:|---|" + "--:|" * len(peers), flush=True)
            for number in a.queries:
                row["queries"][str(number)] = told = measured(number, systems, peers, data, a.rounds)
                print(line(number, told, peers), flush=True)
        finally:
            server.stop()
            for peer in peers:
                peer.stop()
    wrong = {number: told["wrong"] for number, told in row["queries"].items() if told["wrong"]}
    total = lambda name: sum(statistics.median(told[f"{name}_s"]) for number, told in row["queries"].items() if number not in wrong)
    row.update(weft_s=round(total("weft"), 3), duckdb_s=round(total("duckdb"), 3), load_after=round(os.getloadavg()[0], 2))
    print(f"\nSum of the medians: Weft {row['weft_s']:.2f} s, DuckDB {row['duckdb_s']:.2f} s. {len(wrong)} of {len(a.queries)} queries went wrong.")
    for number, why in wrong.items():
        print(f"- query {number}: {why[:2000]}")
    for peer in peers:
        both = [told for told in row["queries"].values() if not told["wrong"] and peer.name not in told["refused"]]
        weft, other = (round(sum(statistics.median(told[f"{name}_s"]) for told in both), 3) for name in ("weft", peer.name))
        row[f"{peer.name}_both_s"] = [weft, other]
        print(f"{peer.name}: {len(both)} queries, {other:.2f} s; Weft {weft:.2f} s for the same.")
        for number, told in row["queries"].items():
            if peer.name in told["refused"]:
                print(f"- query {number}: {told['refused'][peer.name]}")
    with open(a.ledger, "a") as ledger:
        ledger.write(json.dumps(row) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
