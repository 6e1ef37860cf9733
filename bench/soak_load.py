"""What bench/soak.py loads a server with: jobs, calls, deployments, cancels, hostile functions, and somebody who looks."""
import glob, hashlib, http.client, json, multiprocessing, os, random, shutil, signal, sys, threading, time
from collections import Counter

import variants, workloads
from serving import Line, at, told

CONNECTIONS = 4
JOB_SECONDS_MAX = 120
ERRORS_TOLD = 20
DEPLOYED = ("hello", "weblog", "wordcount", "scoring", "vandal")
# What is done by `fabric/weft/tests/guests/vandal`, and what it is due.
DEEDS = [("spin", "limit_exceeded"), ("eat", "limit_exceeded"), ("recurse", "limit_exceeded"), ("hold", "limit_exceeded"),
         ("take", "limit_exceeded"), ("log-flood", "limit_exceeded"), ("trap", "guest_trap"), ("unreachable", "guest_trap"),
         ("fail", "guest_error")]


class Tally:
    """What happened, counted, and the first errors as they were told."""

    def __init__(self):
        self.began, self.lock, self.counts, self.errors, self.texts = time.monotonic(), threading.Lock(), Counter(), Counter(), []

    def at_s(self):
        return round(time.monotonic() - self.began, 1)

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] += n

    def error(self, kind, text):
        with self.lock:
            self.errors[kind] += 1
            if len(self.texts) < ERRORS_TOLD or kind == "server":
                self.texts.append({"at_s": self.at_s(), "kind": kind, "text": text[:1000]})
                print(f"{self.at_s():.0f} s: {kind}: {text[:300]}", file=sys.stderr, flush=True)

    def so_far(self):
        with self.lock:
            return dict(sorted(self.counts.items())), dict(sorted(self.errors.items()))


# ---- data

def make_data(folder, draw):
    """A few megabytes for each kind of job."""
    for name in ("weblog", "wordcount", "scoring", "sort"):
        os.makedirs(f"{folder}/{name}")
    pages = [f"/products/category-{n % 60}/item-{n}.html" for n in range(2000)]
    for file in range(4):
        with open(f"{folder}/weblog/access-{file}.log", "w") as out:
            for _ in range(8000):
                day, page = 6 + draw.randrange(7), pages[int(2000 ** draw.random()) - 1]
                address = f"10.{draw.randrange(4)}.{draw.randrange(200)}.{draw.randrange(200)}"
                when = f"{day:02}/Oct/2025:12:{draw.randrange(60):02}:00 +0000"
                out.write(f'{address} - - [{when}] "GET {page}?id={draw.randrange(99)} HTTP/1.1" 200 512 "-" "curl/8"\n')
            out.write("garbage\n")
    words = [f"word{n}" for n in range(20_000)]
    for file in range(2):
        with open(f"{folder}/wordcount/part-{file}.txt", "w") as out:
            for _ in range(20_000):
                out.write(" ".join(words[int(20_000 ** draw.random()) - 1] for _ in range(8)) + "\n")
    agents = ["Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.1.2 Safari/537.36", "Mozilla/5.0 (Windows NT 10.0) Firefox/115.0", "Shopbot/1.0 (bot)"]
    with open(f"{folder}/scoring/payments-0.csv", "w") as out:
        out.write(",".join(workloads.SCORE_COLUMNS) + "\n")
        for _ in range(20_000):
            places = ",".join(f"{draw.uniform(-80, 80):.4f}" for _ in range(4))
            out.write(f"{draw.choice(agents)},{places},{draw.randrange(100_000) / 100},{draw.randrange(24)}\n")
    with open(f"{folder}/sort/part-0.txt", "w") as out:
        for n in range(20_000):
            out.write(f"{draw.randrange(16 ** 10):010x} {n:016x} {'rest' * 18}\n")


def job_of(kind, data, out):
    """A job by the name of its example; `-dev` takes the functions of the version that is deployed again and again."""
    name = kind.removesuffix("-dev")
    if name == "noop":
        return {"name": "noop", "stage": [{"name": "noop", "task": "hello/noop", "count": 50}]}
    spec = json.loads(workloads.job(name, f"{data}/{name}", out))
    if name == "scoring":
        types = ["utf8", *["float64"] * 5, "int32"]
        schema = [f"{column} {type_}" for column, type_ in zip(workloads.SCORE_COLUMNS, types)]
        spec["input"]["payments"] = {"format": "csv", "uri": f"{data}/scoring/*.csv", "schema": schema}
    if kind.endswith("-dev"):
        for stage in spec["stage"]:
            for key in {"map", "combine", "reduce"} & stage.keys():
                stage[key] = stage[key].replace(f"{name}/", f"{name}@0.1.0-dev/")
    if name == "sort":
        spec["stage"][0]["shuffle"]["partitions"] = 4
    spec["name"] = kind
    return spec


def digest_of(out):
    """Of the bytes of all files, without the manifest, which has the job in it, and what begins with a dot, which is on its way in or out."""
    hashes = []
    for file in glob.glob(f"{out}/**", recursive=True):
        if os.path.isfile(file) and os.path.basename(file)[0] not in "._":
            with open(file, "rb") as data:
                hashes.append(hashlib.sha256(data.read()).hexdigest())
    return hashlib.sha256(" ".join(sorted(hashes)).encode()).hexdigest()[:12]


# ---- the load: each function is a thread, until `stop` is set

class Load:
    def __init__(self, server, guests, work, seed, tally, stop):
        self.server, self.guests, self.work, self.seed, self.tally, self.stop = server, guests, work, seed, tally, stop
        self.digests = {}

    def draw(self, who):
        return random.Random(f"{self.seed} {who}")

    def pause(self, draw, mean_s):
        return self.stop.wait(min(draw.expovariate(1 / mean_s), 5 * mean_s))

    def line(self):
        return Line(self.server.address, timeout_s=JOB_SECONDS_MAX)

    def ask(self, line, kind, request, allowed=()):
        """Status and JSON; nothing where the answer is an error, or says to come again."""
        try:
            status, body = line.ask(request)
            if 200 <= status < 300 or status in allowed:
                return status, json.loads(body) if body[:1] in (b"{", b"[") else body
            if status == 429:
                self.tally.count(f"{kind}: told to come again")
            else:
                self.tally.error(kind, told(status, body))
        except (OSError, ValueError) as error:
            self.tally.error(kind, f"{type(error).__name__}: {error}")
            self.stop.wait(0.5)
        return None, None

    def submit(self, line, kind, spec):
        request = self.server.request("POST", "/v1/jobs", json.dumps(spec).encode(), "content-type: application/json")
        return (self.ask(line, kind, request)[1] or {}).get("id")

    def wait(self, line, kind, id_):
        """The job as it ended; nothing where it does not."""
        pause, until = 0.02, time.monotonic() + JOB_SECONDS_MAX
        while time.monotonic() < until and self.server.process.poll() is None:
            _, job = self.ask(line, kind, self.server.request("GET", f"/v1/jobs/{id_}"))
            if job and job["status"] in ("succeeded", "failed", "cancelled"):
                return job
            time.sleep(pause)
            pause = min(pause * 1.5, 0.3)
        alive = self.server.process.poll() is None
        self.tally.error(kind, f"{id_} has not ended after {JOB_SECONDS_MAX} s" if alive else "the server is gone")
        return None

    def jobs(self, who):
        """One job after the other; half of the outputs are overwritten, the others are new folders that are removed when they were looked at."""
        draw, line, n = self.draw(who), self.line(), 0
        kinds = ["weblog", "weblog-dev", "wordcount", "scoring", "sort", "noop", "noop"]
        while not self.pause(draw, 1.5):
            kind, overwrite, n = draw.choice(kinds), draw.random() < 0.5, n + 1
            out = f"{self.work}/out/{who}-{kind}-{'over' if overwrite else n}"
            spec = job_of(kind, f"{self.work}/in", out)
            for output in spec.get("output", {}).values():
                output["mode"] = "overwrite" if overwrite else "error"
            id_ = self.submit(line, f"job {kind}", spec)
            job = id_ and self.wait(line, f"job {kind}", id_)
            if not job:
                continue
            self.tally.count(f"job {kind}")
            if job["status"] != "succeeded":
                self.tally.error(f"job {kind}", f"{id_} {job['status']}: {json.dumps(job['problem'])}")
            elif "output" in spec:
                self.check(kind, id_, out)
            if not overwrite:
                shutil.rmtree(out, ignore_errors=True)

    def check(self, kind, id_, out):
        name = kind.removesuffix("-dev")
        # What an `overwrite` replaces goes a moment after the job has succeeded.
        for _ in range(50):
            found = digest_of(out)
            if self.digests.setdefault(name, found) == found:
                return
            time.sleep(0.1)
        self.tally.error(f"job {kind}", f"{id_}: the output is {found}, and was {self.digests[name]}")

    def deployments(self, who):
        draw, line = self.draw(who), self.line()
        components = [(name, variants.with_suffix(self.guests[name], "-dev")) for name in ("hello", "weblog", "wordcount", "scoring")]
        while not self.pause(draw, 4):
            name, component = draw.choice(components)
            deed = draw.random()
            if deed < 0.05:
                cut = component[:draw.randrange(8, len(component) - 8)]
                if self.ask(line, "deployment of a part", self.server.upload(cut), allowed=(400,))[0] == 400:
                    self.tally.count("deployment refused")
            elif deed < 0.15:
                if self.ask(line, "deployment again", self.server.upload(self.guests[name]))[0]:
                    self.tally.count("deployment again")
            else:
                note = draw.randbytes(16).hex().encode()
                if self.ask(line, "deployment", self.server.upload(variants.with_note(component, note)))[0]:
                    self.tally.count("deployment")

    def cancels(self, who):
        draw, line, n = self.draw(who), self.line(), 0
        while not self.pause(draw, 5):
            kind, n = draw.choice(["noop", "spin", "weblog", "sort"]), n + 1
            out = f"{self.work}/out/{who}-{n}"
            if kind == "spin":
                spec = {"name": "spin", "stage": [{"name": "spin", "task": "vandal/spin-for-ever", "count": 3}]}
            else:
                spec = job_of(kind, f"{self.work}/in", out)
            if kind == "noop":
                spec["stage"][0]["count"] = 20_000
            spec["name"] = f"cancelled-{kind}"
            id_ = self.submit(line, "cancel", spec)
            if not id_:
                continue
            # Short against the time that slots are kept busy, and as long as a job of these takes.
            self.stop.wait(draw.random() * (0.8 if kind in ("noop", "spin") else 0.15))
            # The one that spins has no other end.
            while self.ask(line, "cancel", self.server.request("POST", f"/v1/jobs/{id_}/cancel"))[0] is None and self.server.process.poll() is None:
                time.sleep(1)
            job = self.wait(line, "cancel", id_)
            if job:
                self.tally.count(f"cancel {kind}: {job['status']}")
                if job["status"] == "failed":
                    self.tally.error("cancel", f"{id_} failed: {json.dumps(job['problem'])}")
            shutil.rmtree(out, ignore_errors=True)

    def hostile(self, who):
        """Deeds in jobs and in calls, one after the other."""
        draw, line = self.draw(who), self.line()
        while not self.pause(draw, 8):
            deed, due = draw.choice(DEEDS)
            if draw.random() < 0.5:
                limits = {"cpu": "300ms" if deed == "spin" else "10s", "memory": "64MiB"}
                stage = {"name": "toil", "task": "vandal/toil", "count": 1}
                spec = {"name": f"hostile-{deed}", "params": {"deed": deed, "at": "run"}, "limits": limits, "stage": [stage]}
                id_ = self.submit(line, f"hostile job {deed}", spec)
                job = id_ and self.wait(line, f"hostile job {deed}", id_)
                problem = job and (job["problem"] or {"code": job["status"]})
            else:
                deadline = 400 if deed == "spin" else 20_000
                call = self.server.request("POST", f"/v1/invoke/vandal/toil?deed={deed}&at=run&deadline_ms={deadline}")
                _, problem = self.ask(line, f"hostile call {deed}", call, allowed=(422,))
            if not problem:
                continue
            self.tally.count(f"hostile {deed}")
            if problem["code"] != due:
                self.tally.error(f"hostile {deed}", f"{due} was due: {json.dumps(problem)}")

    def streams(self, who):
        """Rows of a file through a map function; of some the client goes away half way, some fail at their end."""
        draw = self.draw(who)
        with open(f"{self.work}/in/weblog/access-0.log", "rb") as file:
            rows = file.read()
        while not self.pause(draw, 3):
            deed = draw.choice(["whole", "whole", "left", "trap"])
            function = "vandal/misbehave?deed=trap&at=finish" if deed == "trap" else "weblog/parse"
            try:
                status, answer = self.server_streams(function, rows, leave=deed == "left")
            except (OSError, http.client.HTTPException) as error:
                self.tally.error(f"stream {deed}", f"{type(error).__name__}: {error}")
                continue
            if status == 429:
                self.tally.count("stream: told to come again")
                continue
            self.tally.count(f"stream {deed}")
            due = {"whole": 200, "trap": 422, "left": None}[deed]
            if status != due or deed == "trap" and b"guest_trap" not in answer:
                self.tally.error(f"stream {deed}", f"{status}: {answer[:300]}")
            elif deed == "whole" and self.digests.setdefault("stream", answer) != answer:
                self.tally.error("stream whole", "the rows are others than before")

    def server_streams(self, function, rows, leave):
        """Status and rows; neither where the client leaves half way."""
        connection = http.client.HTTPConnection(*self.server.address, timeout=JOB_SECONDS_MAX)
        headers = {"authorization": f"Bearer {self.server.token}", "content-type": "application/octet-stream", "accept": "text/csv",
                   "content-length": str(len(rows))}
        try:
            connection.request("POST", f"/v1/invoke/{function}", rows[:len(rows) // 2] if leave else rows, headers)
            if leave:
                return None, None
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def looks(self, who):
        """Reads what the API tells, of jobs that run, have ended, and were archived long ago."""
        draw, line, ids = self.draw(who), self.line(), []
        while not self.pause(draw, 1.5):
            path = draw.choice(["/v1/jobs", "/v1/components", "/metrics", "/v1/usage", "/v1/nodes", "job", "job", "job"])
            if path == "job" and ids:
                path = f"/v1/jobs/{draw.choice(ids)}" + draw.choice(["", "/stages", "/tasks", "/logs", "/receipt"])
            elif path == "job":
                path = "/v1/jobs"
            _, found = self.ask(line, "look", self.server.request("GET", path))
            self.tally.count("look")
            if found and path == "/v1/jobs":
                ids = list({*draw.sample(ids, min(len(ids), 200)), *(job["id"] for job in found["items"])})


# ---- calls: in a process of their own, so that what else is done in Python makes none wait

class Calls:
    def __init__(self, server, rate, seed):
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=_serve_calls, args=(server, rate, seed, theirs, self.pipe), daemon=True)
        self.process.start()
        theirs.close()

    def window(self, tally):
        """Latencies since this was asked last; counts and errors go to the tally."""
        if self.pipe.closed:
            return {"n": 0}
        try:
            self.pipe.send("window")
            times, counts, errors = self.pipe.recv()
        except (EOFError, OSError):
            tally.error("call", "the process that calls is gone")
            return {"n": 0}
        for what, n in counts.items():
            tally.count(what, n)
        for error in errors:
            tally.error("call", error)
        times.sort()
        if not times:
            return {"n": 0}
        return {"n": len(times), "p50_ms": round(at(times, 0.5), 3), "p99_ms": round(at(times, 0.99), 3), "max_ms": round(times[-1], 2)}

    def stop(self, tally):
        self.window(tally)
        self.pipe.close()
        self.process.join(10)


def _serve_calls(server, rate, seed, pipe, other_end):
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    other_end.close()
    times, counts, errors, lock = [], Counter(), [], threading.Lock()

    def caller(number):
        draw, line = random.Random(f"{seed} caller {number}"), Line(server.address)
        # One of 50 has a large input, one of five calls the version that is deployed again and again.
        small, large = b"hello", draw.randbytes(100_000)
        while True:
            time.sleep(draw.expovariate(rate / CONNECTIONS))
            kind = "call with a key" if draw.random() < 0.002 else "call"
            body = large if draw.random() < 0.02 else small
            function = "hello@0.1.0-dev/echo" if draw.random() < 0.2 else "hello/echo"
            key = [f"idempotency-key: {draw.getrandbits(64)}"] if kind != "call" else []
            request = server.request("POST", f"/v1/invoke/{function}", body, *key)
            began = time.perf_counter_ns()
            try:
                status, answer = line.ask(request)
                error = None if status == 429 or status == 200 and answer == body else told(status, answer)
            except OSError as lost:
                status, error = None, f"{type(lost).__name__}: {lost}"
            took = (time.perf_counter_ns() - began) / 1e6
            with lock:
                counts[kind if status == 200 else f"{kind}: told to come again" if status == 429 else f"{kind} failed"] += 1
                if status == 200 and body is small and not key:
                    times.append(took)
                if error and len(errors) < 1000:
                    errors.append(error)
            if error:
                time.sleep(0.5)

    for number in range(CONNECTIONS):
        threading.Thread(target=caller, args=(number,), daemon=True).start()
    while True:
        try:
            pipe.recv()
        except EOFError:
            os._exit(0)  # whoever asked is gone, however it ended
        with lock:
            window = times[:], Counter(counts), errors[:]
            times.clear(), counts.clear(), errors.clear()
        pipe.send(window)
