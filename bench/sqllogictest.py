#!/usr/bin/env python3
"""DataFusion's sqllogictest files through Weft's HTTP API: which of their records get the answer that DataFusion gives?

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-sqllogictest.txt
    VENV/bin/python bench/sqllogictest.py --weft target/release/weft --files DIR [--names select,joins] [--partitions 3] [--failures DIR]

DIR is a checkout of apache/datafusion with its submodules `testing` and `parquet-testing`; the tables of TPC-H are made there unless they are there.
A query is a job of one SQL stage whose rows go to a folder of Arrow files. slt_catalog.py keeps tables and views, each file's its own, as the files
have types and defaults of columns, keys and COPY that Weft's catalog does not take.

What is compared is what the runner of DataFusion compares: the number of columns, their types, and the text of each value. Rows of a query
without ORDER BY are a multiset. An error is what any problem is that is not a fault of Weft's own, nor about something that Weft lacks; `other
words` counts those whose text is not that of the record. A result with two columns of one name is asked for again, with names of its own for
them (`renamed`).

Records are left out by these rules, and counted by rule:

    explain      EXPLAIN: plans have another form
    setting      SET, RESET and SHOW: there are none
    set          a setting that changes answers was set before
    catalog      statements that the catalog here answers by itself, or cannot follow, and queries of such tables, of information_schema, or of a
                 name with a schema
    keys         what a query may do only since a table declares a key: name a column beside GROUP BY, or read one row of a subquery
    unbounded    an error that is expected because a table has no end
    runner       tables and functions that DataFusion's runner adds in Rust
    version      DataFusion of PyPI does not give the expected answer either; asked only about what fails
    unspecified  DataFusion gives the rows that Weft gives where those of its tables come in another order, since the query has frames of windows
                 without an order of all rows, ties, or sums of floats; or LIMIT takes any rows, and those of the answer are among DataFusion's
                 without it. Asked only about rows that differ

A line of JSON goes to the end of bench/sqllogictest.jsonl. The exit code is 1 where less than 90 % of the other records of any file pass.
"""
import argparse, collections, concurrent.futures, dataclasses, json, os, re, shutil, signal, subprocess, sys, tempfile, time, traceback

import measure, slt_records, slt_sql, slt_values, workloads
from slt_catalog import Catalog, NotUnderstood, Refused
from slt_reference import Reference
from slt_weft import Weft

NAMES = "select", "joins", "group_by", "window", "union", "cte", "subquery", "limit", "tpch/tpch"
PLACE = "datafusion/sqllogictest"
WANTED = 0.9
HEAD = "| file | records | passed | failed | passed of both | failed for | left out by | notes |\n|---|--:|--:|--:|--:|---|---|---|"
# Settings that change answers, and not only plans, and what they are at first.
CHANGING = re.compile(r"time ?zone$|datafusion\.(format\..*|catalog\.default_\w+|catalog\.\w+_has_header"
                      r"|execution\.(enable_recursive_ctes|time_zone|enable_ansi_mode)"
                      r"|sql_parser\.(enable_ident_normalization|parse_float_as_decimal|dialect|default_null_ordering|recursion_limit"
                      r"|support_varchar_with_length))$")
DEFAULTS = {"datafusion.sql_parser.enable_ident_normalization": "true", "datafusion.sql_parser.parse_float_as_decimal": "false",
            "datafusion.sql_parser.dialect": "generic", "datafusion.sql_parser.default_null_ordering": "nulls_max",
            "datafusion.catalog.default_schema": "public", "datafusion.catalog.default_catalog": "datafusion",
            "datafusion.execution.time_zone": "+00:00",
            "datafusion.execution.enable_recursive_ctes": "true", "datafusion.execution.enable_ansi_mode": "false"}
SCHEMAS = re.compile(r"\binformation_schema\b|\b(?:from|join)\s+\w+\.\w+", re.I)
RUNNER = {"cte": {"strict_schema"}, "joins": {"example", "test_partition_table", "my_catalog"}}
NEEDS_KEY = re.compile(r"must (?:appear|be) in (?:the )?GROUP BY|Correlated scalar subquery must be aggregated", re.I)
# Rules by which a record is left out only after it has failed.
ASKED = "keys", "version", "unspecified"
# Reasons of failures, by what Weft says.
REASONS = [("recursive", r"WITH RECURSIVE"), ("nested", r"'make_array'|array literal|GetFieldAccess not supported"),
           ("function", r"Invalid function"), ("type", r"is not passed on|more digits than microseconds keep|is not a column such as"),
           ("map", r"MAP not supported by ExprPlanner"), ("schema", r"has a schema, and there are none"),
           ("no table", r"there is no table"), ("names", r"two columns of the result")]


# What Weft lacks: an error that says so is not the one that is expected.
LACKS = "recursive", "nested", "map", "function", "type"


@dataclasses.dataclass
class Verdict:
    """What came of a record: `passed`, `failed` for a reason, or left out by a rule."""
    verdict: str
    why: str = ""
    detail: str = ""
    notes: tuple = ()
    # What a query that failed has given.
    lines: tuple = ()


PASSED = Verdict("passed")


def left_out(rule, detail=""):
    return Verdict("left out", rule, detail)


def failed(why, detail=""):
    return Verdict("failed", why, detail)


# ---- one file

class File:
    """The records of one file, one after the other; queries between two statements that change tables run at the same time."""

    def __init__(self, name, weft, work, root, pool):
        self.name, self.weft, self.pool, self.settings = name, weft, pool, {}
        folder = os.path.join(work, name.replace("/", "-"))
        os.makedirs(folder, exist_ok=True)
        self.catalog = Catalog(weft.keep, folder, root)
        self.runner = RUNNER.get(name, set())

    def run(self, records):
        """Verdicts of all records, in order."""
        found = []
        for record in records:
            kind = slt_sql.kind(record.sql)
            if rule := self.rule(record, kind):
                found.append(left_out(rule))
            elif kind == "query":
                found.append(self.pool.submit(guarded, self.query, record, dict(self.catalog.tables)))
            else:
                found.append(guarded(self.statement, record))
        return [verdict.result() if isinstance(verdict, concurrent.futures.Future) else verdict for verdict in found]

    def rule(self, record, kind):
        """The rule by which a record is left out, before it is run."""
        if kind == "explain":
            return "explain"
        if kind == "setting":
            self.set(record.sql)
            return "setting"
        if self.runner & slt_sql.names(record.sql):
            return "runner"
        if self.settings:
            return "set"
        if kind == "query" and (SCHEMAS.search(record.sql) or self.reads(record, self.catalog.tables, lambda table: table.is_unknown)):
            return "catalog"
        return None

    def set(self, sql):
        tokens = slt_sql.Tokens(sql)
        verb = tokens.word()
        rest = tokens.sql[tokens.found[0][3]:tokens.found[-1][3]].strip().lower()
        name, _, value = re.sub(r"\s+to\s+", "=", rest).partition("=")
        name, value = name.strip(), value.strip().strip("'\"")
        if CHANGING.match(name):
            self.settings.pop(name, None)
            if verb == "SET" and value != DEFAULTS.get(name):
                self.settings[name] = value

    # ---- statements that change tables

    def statement(self, record):
        if record.expects == "error":
            return left_out("catalog", "an error is expected")
        before = dict(self.catalog.tables)
        try:
            n = self.catalog.apply(record.sql)
        except NotUnderstood as not_understood:
            return left_out("catalog", f"{not_understood}")
        except Refused as refused:
            if refused.code == "exists" or refused.code == "unknown" and not self.broken(record, before):
                return left_out("catalog", refused.detail)
            cause = next((broken for broken in self.broken(record, before)), str(refused))
            for name, table in self.catalog.tables.items():
                if table.broken == str(refused):
                    self.catalog.tables[name] = dataclasses.replace(table, broken=cause)
            return failed(reason(cause), f"{refused}\n{cause}")
        if n is None:
            return left_out("catalog")
        expected = record.lines[0] if record.lines else str(n)
        return PASSED if record.expects == "ok" or expected == str(n) else failed("rows", f"{n} rows instead of {expected}")

    # ---- queries

    def query(self, record, tables):
        try:
            answer, is_renamed = self.weft.query(record.sql, tables, len(record.types))
        except Refused as refused:
            return self.refused(record, tables, refused)
        notes = ("renamed",) * is_renamed
        if record.expects == "error":
            if self.reads(record, tables, lambda table: table.is_unbounded):
                return left_out("unbounded")
            return failed("no error", f"{answer.num_rows} rows instead of an error")
        if record.expects == "count":
            wrong = None if answer.num_rows == record.count else f"{answer.num_rows} rows instead of {record.count}"
            return failed("rows", wrong) if wrong else Verdict("passed", notes=notes)
        if record.expects == "ok":
            return Verdict("passed", notes=notes)
        types = "".join(slt_values.letter(field.type) for field in answer.schema)
        rows = slt_values.rows(answer.columns)
        wrong = slt_records.difference(record, types, rows, slt_sql.orders_rows(record.sql))
        if wrong is None:
            return Verdict("passed", notes=notes)
        why = "order" if wrong.startswith("order") else "types" if wrong.startswith("types") else "rows"
        lines = tuple(" ".join(row).rstrip() for row in rows)
        return Verdict("failed", why, "\n".join((wrong, *lines)), lines=lines)

    def refused(self, record, tables, refused):
        if record.expects != "error":
            if NEEDS_KEY.search(refused.detail) and self.reads(record, tables, lambda table: table.has_key):
                return left_out("keys", str(refused))
            cause = next((broken for broken in self.broken(record, tables)), str(refused))
            return failed(reason(cause), f"{refused}\n{cause}")
        if refused.code in ("internal", "timeout"):
            return failed("internal", str(refused))
        if self.reads(record, tables, lambda table: table.broken):
            return failed("no table", str(refused))
        if slt_records.same_words(record, refused.detail):
            return PASSED
        why = reason(str(refused))
        return failed(why, str(refused)) if why in LACKS else Verdict("passed", detail=str(refused), notes=("other words",))

    def broken(self, record, tables):
        """Why tables that the record names are not there."""
        known = (tables[name] for name in slt_sql.names(record.sql) & set(tables))
        return [table.broken for table in known if table.broken and not table.is_unknown]

    def reads(self, record, tables, holds):
        """Whether the record names a table of which something holds."""
        return any(holds(tables[name]) for name in slt_sql.names(record.sql) & set(tables))


def guarded(judge, *arguments):
    """A verdict, also where this program goes wrong."""
    try:
        return judge(*arguments)
    except Exception as error:
        return failed("harness", f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def reason(text):
    """What a problem is about: a kind of statement, or the code of the error."""
    return next((name for name, words in REASONS if re.search(words, text)), text.partition(":")[0])


# ---- all files

def make_tpch(root):
    """Makes the tables of TPC-H, at the scale of the expected answers, unless they are there."""
    folder = f"{root}/test_files/tpch/data"
    if not os.path.exists(f"{folder}/lineitem.tbl"):
        program = shutil.which("tpcgen-cli", path=os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", ""))
        if program is None:
            raise SystemExit("tpcgen-cli is missing: pip install -r bench/requirements-sqllogictest.txt")
        subprocess.run([program, "tpch", "tbl", "--scale-factor", "0.1", "--output-dir", folder, "--quiet"], check=True)


def told(name, verdicts):
    """What came of a file."""
    count = lambda verdict: collections.Counter(found.why for found in verdicts if found.verdict == verdict)
    passed = sum(count("passed").values())
    notes = collections.Counter(note for verdict in verdicts if verdict.verdict == "passed" for note in verdict.notes)
    return {"records": len(verdicts), "passed": passed, "failed": dict(count("failed")), "left_out": dict(count("left out")), "notes": dict(notes)}


def share(row):
    n = row["passed"] + sum(row["failed"].values())
    return row["passed"] / n if n else 1.0


def line(name, row):
    listed = lambda counts: ", ".join(f"{n} {why}" for why, n in sorted(counts.items(), key=lambda item: -item[1]))
    return (f"| {name} | {row['records']} | {row['passed']} | {sum(row['failed'].values())} | {100 * share(row):.1f} % | {listed(row['failed'])} "
            f"| {listed(row['left_out'])} | {listed(row['notes'])} |")


def write_failures(folder, records, verdicts):
    """A file for each record that fails, or that is left out after it has failed, or whose error has other words."""
    for record, verdict in zip(records, verdicts):
        if verdict.verdict == "failed" or verdict.why in ASKED or "other words" in verdict.notes:
            name = f"{verdict.why or 'other words'}-{record.place}.txt".replace(" ", "-").replace("/", "_")
            expected = "\n".join(record.lines) if record.expects == "rows" else f"{record.expects} {record.error}"
            with open(os.path.join(folder, name), "w") as file:
                file.write(f"{record.place}\n{record.sql}\n\n---- expected {record.types} {record.sort}\n{expected}\n\n"
                           f"---- {verdict.why}\n{verdict.detail}\n")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--files", required=True, help="a checkout of apache/datafusion")
    p.add_argument("--names", type=lambda text: text.split(","), default=list(NAMES), help=f"files, without .slt [default: {','.join(NAMES)}]")
    p.add_argument("--partitions", type=int, help="tasks that share the work of a query [default: chosen by Weft]")
    p.add_argument("--jobs", type=int, default=3, help="queries that run at the same time [default: 3]")
    p.add_argument("--failures", help="a folder that gets a file for each record that fails")
    p.add_argument("--source", help="what the line says the files are, such as their commit")
    p.add_argument("--commit", help="what the line says was measured; this checkout's commit without it")
    p.add_argument("--ledger", default=os.path.join(workloads.ROOT, "bench/sqllogictest.jsonl"), help="file to which a line is added")
    return p.parse_args()


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    root = os.path.join(os.path.abspath(a.files), PLACE)
    failures = a.failures and os.path.abspath(a.failures)
    ledger = os.path.abspath(a.ledger)
    if any(name.startswith("tpch") for name in a.names):
        make_tpch(root)
    row = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": a.commit or measure.commit(workloads.ROOT),
           "machine": measure.machine(), "load": round(os.getloadavg()[0], 2), "source": a.source, "partitions": a.partitions, "files": {}}
    with tempfile.TemporaryDirectory(prefix="weft-slt-") as work, concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        weft = Weft(os.path.abspath(a.weft), work, a.partitions)
        try:
            print(HEAD, flush=True)
            for name in a.names:
                records = list(slt_records.read(f"{root}/test_files/{name}.slt", f"{root}/test_files"))
                verdicts = File(name, weft, work, root, pool).run(records)
                with Reference(root) as reference:
                    verdicts = reference.judged(name, records, verdicts)
                row["files"][name] = told(name, verdicts)
                print(line(name, row["files"][name]), flush=True)
                if failures:
                    os.makedirs(failures, exist_ok=True)
                    write_failures(failures, records, verdicts)
        finally:
            weft.stop()
    row["load_after"] = round(os.getloadavg()[0], 2)
    files = row["files"].values()
    total = {key: sum((collections.Counter(file[key]) for file in files), collections.Counter()) for key in ("failed", "left_out", "notes")}
    total.update({key: sum(file[key] for file in files) for key in ("records", "passed")})
    print(line("all", total))
    with open(ledger, "a") as file:
        file.write(json.dumps(row) + "\n")
    return 1 if any(share(file) < WANTED for file in files) else 0


if __name__ == "__main__":
    sys.exit(main())
