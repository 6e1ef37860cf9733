"""Jobs that copy an input as it is, on a server of their own: what bench/conformance.py and bench/random_tables.py look at Weft through."""
import dataclasses, glob, json, os, re, shutil, time

from serving import Line, Server, told

# The component of fabric/sandbox/tests/guests/mirror: `pass` emits what comes in.
COMPONENT, FUNCTION = "mirror", "mirror/pass"
WALL_S, PATIENCE_S = 60, 90
ENDED = ("succeeded", "failed", "cancelled")


@dataclasses.dataclass
class Copied:
    """What came of a job: `done`, `refused` with the code of an error and its text, or `crashed`."""
    outcome: str
    code: str = ""
    detail: str = ""
    files: tuple = ()
    bad: int = 0
    # Values that were passed over, and counted, because no column has their key.
    unknown: int = 0
    # What was put aside, as dead letters tell it; nothing where the job put nothing aside.
    letters: tuple = ()

    @property
    def is_done(self):
        return self.outcome == "done"

    @property
    def reason(self):
        return f"{self.code}: {self.detail}" if self.code else self.detail


class Copier:
    """A server that has the function, and runs one job after the other. After it has died there is a new one."""

    def __init__(self, weft, guests, folder):
        self.weft, self.folder, self.server, self.n, self.crashes = weft, folder, None, 0, 0
        with open(f"{guests}/{COMPONENT}.wasm", "rb") as component:
            self.component = component.read()

    def __enter__(self):
        self._start()
        return self

    def __exit__(self, *_):
        self.server.stop()

    def _start(self):
        home = f"{self.folder}/server-{self.crashes}"
        os.makedirs(home)
        self.server = Server(self.weft, home)
        self.line = Line(self.server.address, timeout_s=PATIENCE_S)
        # The executor may not be ready yet.
        for _ in range(200):
            status, body = self.line.ask(self.server.upload(self.component))
            if status != 429:
                break
            time.sleep(0.05)
        if status >= 300:
            raise RuntimeError(f"the component is refused: {told(status, body)}")
        self.lost = self._executors_lost()

    def _executors_lost(self):
        _, body = self.line.ask(self.server.request("GET", "/metrics"))
        return sum(float(n) for n in re.findall(rb"^weft_executors_lost_total\S* (\S+)$", body, re.M))

    def _ask(self, method, path, body=b"", *headers):
        status, answer = self.line.ask(self.server.request(method, path, body, *headers))
        return status, json.loads(answer)

    def copy(self, source, format="parquet", put_aside=False):
        """Runs a job over `source`, an input as a job document has it. Files of the job before are removed."""
        self.n += 1
        out, aside = f"{self.folder}/out", f"{self.folder}/aside"
        for left in (out, aside):
            shutil.rmtree(left, ignore_errors=True)
        if put_aside:
            source = {**source, "bad_records": {"dead_letter": f"{aside}/"}}
        job = {"name": f"copy-{self.n}", "limits": {"wall": f"{WALL_S}s"}, "input": {"rows": source},
               "stage": [{"name": "copy", "from": "rows", "map": FUNCTION}],
               "output": {"out": {"from": "copy", "format": format, "uri": f"{out}/"}}}
        try:
            copied = self._run(job)
            # Tasks of an executor that died are done again, so that the job may have succeeded.
            if self._executors_lost() > self.lost:
                copied = dataclasses.replace(copied, outcome="crashed", detail=f"an executor was lost: {copied.detail}")
        except (OSError, ValueError, TimeoutError) as error:
            copied = Copied("crashed", detail=f"{type(error).__name__}: {error}; {self._last_words()}")
        if copied.outcome == "crashed":
            self.server.stop()
            self.crashes += 1
            self._start()
        copied.files = tuple(sorted(glob.glob(f"{out}/part-*")))
        copied.letters = tuple(_lines(f"{aside}/part-*"))
        return copied

    def _run(self, job):
        status, answer = self._ask("POST", "/v1/jobs", json.dumps(job).encode(), "content-type: application/json")
        if status >= 300:
            return refused(answer)
        id_, pause, until = answer["id"], 0.001, time.monotonic() + PATIENCE_S
        while answer.get("status") not in ENDED:
            if time.monotonic() > until:
                raise TimeoutError(f"the job has not ended after {PATIENCE_S} s")
            time.sleep(pause)
            pause = min(1.5 * pause, 0.05)
            status, answer = self._ask("GET", f"/v1/jobs/{id_}")
            if status >= 300:
                raise ValueError(f"the job is answered with {status}")
        bad = sum(stage.get("bad_records", 0) for stage in answer.get("stages", []))
        unknown = sum(stage.get("unknown_fields", 0) for stage in answer.get("stages", []))
        if answer["status"] == "succeeded":
            return Copied("done", bad=bad, unknown=unknown)
        return refused(answer.get("problem") or {"code": answer["status"], "detail": ""})

    def _last_words(self):
        code = self.server.process.poll()
        with open(self.server.log, errors="replace") as log:
            words = log.read()[-600:]
        return f"the server {'lives' if code is None else f'ended with {code}'}: {words}"


def refused(problem):
    code = problem.get("code", "")
    detail = problem.get("detail", "") + "".join(f"; `{error['path']}` {error['message']}" for error in problem.get("errors", []))
    # A fault of Weft's own is no way to refuse something.
    is_fault = code == "internal" or "panic" in detail
    return Copied("crashed" if is_fault else "refused", code, detail)


def _lines(pattern):
    for file in sorted(glob.glob(pattern)):
        with open(file, encoding="utf-8") as lines:
            yield from map(json.loads, lines)
