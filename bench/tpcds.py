#!/usr/bin/env python3
"""The 99 queries of TPC-DS by Weft's HTTP API: which of them are planned, and, with --run, which give the rows that DataFusion gives?

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-sqllogictest.txt
    VENV/bin/python bench/tpcds.py --weft target/release/weft --queries DIR [--numbers 1,14,64] [--partitions 4] [--run] [--scale 0.01] [--data DIR]

DIR holds 1.sql to 99.sql, such as datafusion/core/tests/tpc-ds of apache/datafusion; a file may hold several statements, all of which count. Tables
are inputs over Parquet files that tpcgen-cli makes. Plans are asked for with `POST /v1/jobs/check`, which cuts a statement into stages as for a job.

With --run, rows are compared as a multiset with those of DataFusion of PyPI over the same files; floats may differ by 1e-9 of the value. Where LIMIT
cuts through rows that are equal in the order, queries may differ rightly. The exit code is 1 where a query is not planned, or rows differ.
"""
import argparse, collections, json, os, re, signal, sys, tempfile, time

import measure, slt_sql, slt_values, workloads
from slt_catalog import Refused, Table
from slt_weft import Weft

NUMBERS = range(1, 100)


def statements(text):
    """The statements of a file."""
    tokens = slt_sql.Tokens(text)
    ends = [start for kind, sign, start, _ in tokens.found if sign == ";"] + [len(text)]
    parts = [text[begin:end].lstrip(";") for begin, end in zip([0, *ends], ends)]
    return [part for part in parts if slt_sql.Tokens(part).found]


def tables_of(data):
    names = sorted(name.removesuffix(".parquet") for name in os.listdir(data) if name.endswith(".parquet"))
    return {name: Table(input={"format": "parquet", "uri": [f"{data}/{name}.parquet"]}) for name in names}


def rounded(rows):
    """Rows as a multiset, whose numbers keep nine digits."""
    number = lambda text: f"{float(text):.9g}" if re.fullmatch(r"-?\d+\.\d+", text) else text
    return collections.Counter(tuple(map(number, row)) for row in rows)


class Runner:
    """Plans queries, or runs them on both."""

    def __init__(self, weft, tables, runs):
        import datafusion
        self.weft, self.tables, self.runs = weft, tables, runs
        self.context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(2))
        for name, table in tables.items():
            self.context.register_parquet(name, table.input["uri"][0])

    def told(self, sql):
        """What came of a statement: `stages` of its plan, and what is wrong, if anything."""
        frame = self.context.sql(sql)
        n_columns = len(frame.schema())
        began = time.perf_counter()
        try:
            plan, is_renamed = self.weft.check(sql, self.tables, n_columns)
        except Refused as refused:
            return {"stages": None, "plan_s": round(time.perf_counter() - began, 3), "wrong": str(refused)}
        found = {"stages": len(plan["stages"]), "plan_s": round(time.perf_counter() - began, 3), "renamed": is_renamed, "wrong": None}
        return {**found, **self.compared(sql, frame, n_columns)} if self.runs else found

    def compared(self, sql, frame, n_columns):
        try:
            columns, error = frame.to_arrow_table().columns, None
        except Exception as failure:  # a division by zero, where the data is small
            columns, error = (), str(failure)
        began = time.perf_counter()
        try:
            rows, _ = self.weft.query(sql, self.tables, n_columns)
        except Refused as refused:
            return {"wrong": None if error and refused.code == "query_error" else str(refused), "run_s": round(time.perf_counter() - began, 3)}
        took = round(time.perf_counter() - began, 3)
        if error:
            return {"wrong": f"{rows.num_rows} rows, and DataFusion says: {error}", "run_s": took}
        one, other = rounded(slt_values.rows(columns)), rounded(slt_values.rows(rows.columns))
        wrong = None if one == other else f"rows differ: {rows.num_rows}, such as {list(other - one)[:2]} instead of {list(one - other)[:2]}"
        return {"wrong": wrong, "rows": rows.num_rows, "run_s": took}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--queries", required=True, help="the folder of 1.sql to 99.sql")
    numbers = lambda text: [int(part) for part in text.split(",")]
    p.add_argument("--numbers", type=numbers, default=list(NUMBERS), help="such as 1,14,64 [default: all]")
    p.add_argument("--scale", type=float, default=0.01, help="scale of the data; 1 is about 1 GB of text [default: 0.01]")
    p.add_argument("--partitions", type=int, default=4, help="tasks that share the work [default: 4]")
    p.add_argument("--run", action="store_true", help="also run the queries, and compare rows")
    p.add_argument("--data", help="a folder that keeps the data, by scale, for the next run [default: a temporary one]")
    p.add_argument("--commit", help="what the line says was measured; this checkout's commit without it")
    p.add_argument("--ledger", default=os.path.join(workloads.ROOT, "bench/tpcds.jsonl"), help="file to which a line is added")
    return p.parse_args()


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    row = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": a.commit or measure.commit(workloads.ROOT),
           "machine": measure.machine(), "load": round(os.getloadavg()[0], 2), "scale": a.scale, "partitions": a.partitions, "ran": a.run,
           "queries": {}}
    with tempfile.TemporaryDirectory(prefix="weft-tpcds-") as work:
        data = os.path.join(os.path.abspath(a.data or work), f"tpcds-{a.scale:g}")
        os.makedirs(os.path.dirname(data), exist_ok=True)
        workloads.make_tpc("tpcds", data, a.scale, "bench/requirements-sqllogictest.txt")
        weft = Weft(os.path.abspath(a.weft), work, a.partitions)
        try:
            runner = Runner(weft, tables_of(data), a.run)
            for number in a.numbers:
                with open(os.path.join(a.queries, f"{number}.sql"), encoding="utf-8") as file:
                    told = [runner.told(sql) for sql in statements(file.read())]
                row["queries"][str(number)] = told
                for one in told:
                    wrong = f"; {one['wrong'][:300]}" if one["wrong"] else ""
                    print(f"{number}: {one['stages'] or 'no'} stages, {one['plan_s']:.2f} s{wrong}", flush=True)
        finally:
            weft.stop()
    row["planned"] = sum(all(one["stages"] for one in told) for told in row["queries"].values())
    wrong = [number for number, told in row["queries"].items() if any(one["wrong"] for one in told)]
    print(f"\n{row['planned']} of {len(a.numbers)} queries are planned; wrong: {', '.join(wrong) or 'none'}.")
    with open(a.ledger, "a") as ledger:
        ledger.write(json.dumps(row) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
