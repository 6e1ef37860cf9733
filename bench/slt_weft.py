"""Queries as jobs of one SQL stage, through the HTTP API of a server of their own."""
import json, os, re, shutil, threading, time

import pyarrow as pa

import slt_sql
from serving import Line, Server, told
from slt_catalog import Refused

STAGE = "slt-query"
WALL_S, PATIENCE_S = 60, 90
ENDED = ("succeeded", "failed", "cancelled")
BUSY_TRIES = 400
# The names that a statement reads, as the server tells them to whoever names others.
READS = re.compile(r"`from` names `.*?`, which the statement does not read; it reads (nothing|`.*?`(?:, `.*?`)*)(?:; names are read|$)", re.S)
ALL = 10**15
TWICE = "two columns of the result are called"


class Weft:
    """A server, and queries on it. Threads may share it."""

    def __init__(self, binary, folder, partitions):
        self.server, self.folder, self.partitions = Server(binary, folder), folder, partitions
        self.local, self.lock, self.n = threading.local(), threading.Lock(), 0

    def stop(self):
        self.server.stop()

    # ---- HTTP

    def ask(self, method, path, body=b"", *headers):
        line = getattr(self.local, "line", None)
        if line is None:
            line = self.local.line = Line(self.server.address, timeout_s=PATIENCE_S)
        for _ in range(BUSY_TRIES):
            status, answer = line.ask(self.server.request(method, path, body, *headers))
            if status != 429:
                return status, json.loads(answer)
            time.sleep(0.05)
        raise RuntimeError(f"the server stays busy: {told(status, answer)}")

    def submit(self, path, job):
        status, answer = self.ask("POST", path, json.dumps(job).encode(), "content-type: application/json")
        if status >= 300:
            raise refused(answer)
        return answer

    # ---- queries

    def job(self, sql, tables, folder, format_):
        """The document of a query's job, with all tables that the query may read."""
        parts, inputs = reads(sql, tables)
        stage = {"name": STAGE, "sql": slt_sql.with_queries(sql, parts)}
        if inputs:
            stage["from"] = sorted(inputs)
        if self.partitions:
            stage["partitions"] = self.partitions
        return {"name": "sqllogictest", "limits": {"wall": f"{WALL_S}s"}, "input": inputs, "stage": [stage],
                "output": {"result": {"from": STAGE, "format": format_, "uri": f"{folder}/"}}}

    def check(self, sql, tables, n_columns):
        """The plan of a query, and whether its columns had to be renamed. Errors: `Refused`."""
        check = lambda sql: self.narrowed(self.job(sql, tables, f"{self.folder}/none", "arrow"), lambda job: self.submit("/v1/jobs/check", job))
        return self.unambiguous(check, sql, n_columns)

    def keep(self, sql, tables, folder, format_):
        """Runs a query, keeps its rows in a folder, and gives their number. Errors: `Refused`."""
        self.narrowed(self.job(sql, tables, folder, format_), self.finish)
        with open(f"{folder}/_weft.manifest") as manifest:
            return json.load(manifest)["rows"]

    def query(self, sql, tables, n_columns=0):
        """The rows of a query, and whether its columns had to be renamed. Errors: `Refused`."""
        with self.lock:
            self.n += 1
            folder = f"{self.folder}/result-{self.n:06}"
        try:
            _, is_renamed = self.unambiguous(lambda sql: self.keep(sql, tables, folder, "arrow"), sql, n_columns)
            return table(folder), is_renamed
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def unambiguous(self, send, sql, n_columns):
        """Sends a query, and again with names of its own for its columns where two have one name."""
        try:
            return send(sql), False
        except Refused as refused:
            if TWICE not in refused.detail or not n_columns:
                raise
        names = ", ".join(f"c{at}" for at in range(n_columns))
        inner = slt_sql.Tokens(sql).rest()
        if slt_sql.orders_rows(inner) and slt_sql.outer_clause(inner, "LIMIT") is None:
            inner += f"\nLIMIT {ALL}"  # without it a subquery has no order
        return send(f"SELECT * FROM ({inner}\n) AS renamed({names})"), True

    def narrowed(self, job, send):
        """Sends a job, and again with the names that the statement does read where it names others."""
        try:
            return send(job)
        except Refused as refused:
            found = READS.search(refused.detail)
            if found is None:
                raise
        names = set(re.findall(r"`(.*?)`", found[1]))
        stage = job["stage"][0]
        job["input"] = {name: input_ for name, input_ in job["input"].items() if name in names}
        stage["from"] = sorted(job["input"])
        if not stage["from"]:
            del stage["from"]
        return send(job)

    def finish(self, job):
        answer = self.submit("/v1/jobs", job)
        path, pause, until = f"/v1/jobs/{answer['id']}", 0.004, time.monotonic() + PATIENCE_S
        while answer["status"] not in ENDED:
            if time.monotonic() > until:
                raise Refused("timeout", f"the job has not ended after {PATIENCE_S} s")
            time.sleep(pause)
            pause = min(1.3 * pause, 0.05)
            status, answer = self.ask("GET", path)
            if status >= 300:
                raise Refused("timeout", f"the job is answered with {status}")
        if answer["status"] != "succeeded":
            raise refused(answer.get("problem") or {"code": answer["status"]})


def refused(problem):
    detail = problem.get("detail", "") + "".join(f"; `{error['path']}` {error['message']}" for error in problem.get("errors", []))
    return Refused(problem.get("code", ""), detail)


def reads(sql, tables):
    """What a query may read: texts of views, those that others read first, and inputs."""
    parts, inputs = {}, {}
    def visit(text):
        defined = slt_sql.defined(text)
        for name in sorted(slt_sql.names(text) & set(tables)):
            if name in parts or name in inputs or tables[name].broken:
                continue
            if tables[name].input is not None:
                inputs[name] = tables[name].input
                continue
            if name in defined:
                continue
            visit(tables[name].text)
            parts[name] = tables[name].text
    visit(sql)
    return list(parts.items()), inputs


def table(folder):
    """The rows of an output, in the order of its files."""
    with open(f"{folder}/_weft.manifest") as manifest:
        names = [file["name"] for file in json.load(manifest)["files"]]
    tables = []
    for name in names:
        with pa.ipc.open_file(os.path.join(folder, name)) as file:
            tables.append(file.read_all())
    return pa.concat_tables(tables)
