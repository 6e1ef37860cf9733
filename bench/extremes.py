#!/usr/bin/env python3
"""What Weft does with inputs, plans and rows that are far larger than usual, and how soon an executor that was killed is replaced.

    python3 -m venv VENV && VENV/bin/pip install pyarrow numpy
    VENV/bin/python bench/extremes.py --weft target/release/weft --guests target/guests > extremes.md
    VENV/bin/python bench/extremes.py --weft target/release/weft --guests target/guests --scale 0.02 --only rows-1mb --only tasks-10000

bench/extreme_cases.py has the cases. Each row of the table has a server of its own, with a data folder of its own; data is made before
it starts and removed when its rows are done: up to 7 GB of disk at scale 1. Wall time runs from the start of `weft run` to its end. Memory is
RssAnon + RssShmem, looked at every 40 ms, of the executor and of the server apart, what they hold at rest included. Results are compared with what
Python finds. A job may be refused or fail, if the error says why; a server or an executor must not end, and must run a small job after each case.
The exit code is 1 where one ended, a result was wrong, or the error is `internal`.
"""
import argparse, contextlib, dataclasses, json, os, shutil, signal, subprocess, sys, tempfile, time

import compare, extreme_cases, measure

TIMEOUT_S = 3600
SMALL_JOB = {"name": "small", "stage": [{"name": "noop", "task": "hello/noop", "count": 3}]}


class Server:
    """`weft up` on a free port of the loopback interface, with a folder that was empty."""

    def __init__(self, a, folder):
        self.weft, self.guests, self.folder, self.port = a.weft, a.guests, folder, compare.free_port()
        self.data, self.log = f"{folder}/server", f"{folder}/server.log"
        self.env = dict(os.environ, WEFT_DATA=self.data, WEFT_ENDPOINT=f"http://127.0.0.1:{self.port}")
        self.env.pop("WEFT_TOKEN", None)

    def __enter__(self):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([self.weft, "up", "--listen", f"127.0.0.1:{self.port}"], env=self.env,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            compare.wait_until_healthy(self.process, self.port)
        except RuntimeError:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def token(self):
        with open(f"{self.data}/token") as file:
            return file.read().strip()

    def executors(self):
        """The executor's process; two for a moment where one has just died, none where it has not been followed."""
        return [pid for pid in measure.tree(self.process.pid)[1:] if is_executor(pid)]

    def command(self, *arguments):
        """Exit code, standard output, standard error of a command of `weft`."""
        child = subprocess.run([self.weft, *arguments], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               timeout=TIMEOUT_S)
        return child.returncode, child.stdout, child.stderr

    def deploy(self, *names):
        code, _, errors = self.command("deploy", *(f"{self.guests}/{name}.wasm" for name in names))
        if code:
            raise RuntimeError(f"weft deploy ended with {code}: {errors.strip()}")

    def run(self, job):
        """Runs a job; gives the outcome, and the job as it ended."""
        with open(f"{self.folder}/job.json", "w") as file:
            json.dump(job, file)
        try:
            code, said, errors = self.command("run", "--json", f"{self.folder}/job.json")
        except subprocess.TimeoutExpired:
            return f"HANGS: no end after {TIMEOUT_S} s", {}
        try:
            told = json.loads(said)
        except ValueError:
            return f"LOST: exit code {code}: {errors.strip()[-300:]}", {}
        if told.get("status") == "succeeded":
            return "done", told
        problem = told.get("problem") or told
        errors = "".join(f"; `{error['path']}` {error['message']}" for error in problem.get("errors", []))
        return f"{'failed' if told.get('problem') else 'refused'}: `{problem.get('code')}`: {problem.get('detail')}{errors}", told

    def last_lines(self, n=8):
        with open(self.log, errors="replace") as log:
            return log.read().splitlines()[-n:]


def is_executor(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[1:2] == [b"executor"]
    except OSError:
        return False  # it ended meanwhile


class Watch(measure.Sampler):
    """The peak memory of server and executor apart, and which executors there were."""

    def __init__(self, server):
        super().__init__(server.process.pid)
        self.server, self.server_kib, self.executor_kib, self.seen = server, 0, 0, set()

    def sample(self):
        executors = self.server.executors()
        self.seen.update(executors)
        self.server_kib = max(self.server_kib, sum(measure.memory_kib(self.roots[0])))
        self.executor_kib = max([self.executor_kib, *(sum(measure.memory_kib(pid)) for pid in executors)])

    def __enter__(self):
        self.sample()  # what is refused at once is over before the thread looks
        return super().__enter__()


@dataclasses.dataclass
class Ran:
    """What came of a row."""
    outcome: str
    wall_s: float
    executor_mib: float
    server_mib: float
    server_before_mib: float
    server_after_mib: float
    job: dict
    said: str = ""

    def is_good(self):
        return self.outcome == "done" or self.outcome.startswith(("refused: ", "failed: ")) and "`internal`" not in self.outcome

    def row(self, case):
        cells = [case, self.outcome, f"{self.wall_s:.1f} s", f"{self.executor_mib:.0f} MiB", f"{self.server_mib:.0f} MiB", self.said]
        return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def server_mib(server):
    return sum(measure.memory_kib(server.process.pid)) / 1024


def one(row, a, folder):
    """Runs a row on a server of its own, checks the result, and whether anything ended."""
    with Server(a, folder) as server:
        server.deploy(*dict.fromkeys(["hello", *row.guests]))
        server.run(SMALL_JOB)  # so that all who serve have begun
        before = server_mib(server)
        with Watch(server) as watch:
            began = time.perf_counter()
            outcome, told = server.run(row.job) if row.job else row.act(server)
            wall = time.perf_counter() - began
        fault = ended(server, watch, row)
        ran = Ran(outcome, wall, watch.executor_kib / 1024, watch.server_kib / 1024, before, server_mib(server), told)
        if ran.outcome == "done":
            try:
                ran.said = row.check(ran)
            except extreme_cases.Wrong as wrong:
                ran.outcome = f"WRONG: {wrong}"
        if fault:
            ran.outcome = f"{fault}; {ran.outcome}"
        if not ran.is_good():
            print("\n".join(["the end of the server's log:", *server.last_lines()]), file=sys.stderr)
        return ran


def ended(server, watch, row):
    """What is wrong with the server after a row; nothing, most often."""
    if server.process.poll() is not None:
        return f"THE SERVER ENDED with {server.process.returncode}"
    if not row.kills and len(watch.seen) != 1:
        return f"THE EXECUTOR ENDED {len(watch.seen) - 1} times"
    outcome, _ = server.run(SMALL_JOB)
    return None if outcome == "done" else f"NO JOB RUNS AFTERWARDS ({outcome})"


def rows_of(name, a):
    """The rows of a case, one after the other. The case is told what came of each, and makes the next one's data then."""
    with tempfile.TemporaryDirectory(prefix=f"weft-{name}-", dir=a.work) as folder:
        rows = extreme_cases.CASES[name](f"{folder}/data", f"{folder}/out", a.scale)
        ran = None
        with contextlib.suppress(StopIteration):
            while True:
                os.makedirs(f"{folder}/data", exist_ok=True)
                row = rows.send(ran)
                load = os.getloadavg()[0]
                ran = one(row, a, folder)
                print(ran.row(row.case), flush=True)
                print(f"{row.case}: load {load:.2f} before it", file=sys.stderr, flush=True)
                yield ran
                for left in ("server", "out"):
                    shutil.rmtree(f"{folder}/{left}", ignore_errors=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the examples' components, NAME.wasm")
    p.add_argument("--only", action="append", choices=extreme_cases.CASES, help="this case; may be repeated")
    p.add_argument("--work", help="where data is made; the folder for temporary files without it")
    p.add_argument("--scale", type=float, default=1.0, help="how large the cases are; 1 is what their names say")
    a = p.parse_args()
    a.weft, a.guests = os.path.abspath(a.weft), os.path.abspath(a.guests)
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended, and folders removed
    machine = measure.machine()
    print(f"Scale {a.scale:g}; commit {measure.commit(os.path.dirname(os.path.abspath(__file__)))}; {machine['cpu']}, {machine['cores']} cores, "
          f"{machine['memory_gib']} GiB; {time.strftime('%Y-%m-%d')}; load {os.getloadavg()[0]:.2f}.\n")
    print("| case | outcome | wall | executor's peak | server's peak | what it says |\n|---|---|--:|--:|--:|---|", flush=True)
    good = [ran.is_good() for name in a.only or extreme_cases.CASES for ran in rows_of(name, a)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
