#!/usr/bin/env python3
"""Jobs from and to a real S3 server, SeaweedFS, on this machine: the bytes that folders give, what that costs, and what faults and kills do.

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-stores.txt
    VENV/bin/python bench/stores.py PART --weft target/release/weft --guests target/guests --logs DIR

`--logs`: access logs of `cargo xtask logs --bytes 1GB --out DIR`. Parts:

    weblog    The weblog job over all logs, by `weft up` and by a cluster of three controllers and three nodes of one slot, on folders and in a bucket:
              objects of the cluster, inputs and outputs. Rounds take turns. All outputs must be the same bytes, and manifests list all that is
              there. Server and jobs share the cores, so the CPU time of the server is given, and the time in which a client that does nothing reads
              the inputs. Requests are those that the S3 server has counted, from the submission until the job's objects are gone, and of the receipt.
              With --kill, the cluster's leader and a node are killed during each job, and started again.
    errors    The job over --error-bytes of the logs through a proxy (`fault_proxy.py`): without faults, with 5 % and with 20 % of all requests failing, in
              turns. Bytes must be right, and 5 % may cost half as much again. Then all requests of a running job fail: to the bucket of its
              inputs and outputs, to the cluster's own, or to both. It must fail within --bound seconds, with a problem that names the store, the
              next job must succeed, and a server must not start on a store that never answers.
    kills     --rounds kills of `weft up` or its executors while jobs publish, half at named points, half at random moments (`store_kills.py`). A reader of
              the manifests looks all the time, and must find all of a job's files or none. Nothing is left behind: uploads, objects that no manifest
              lists, objects of ended jobs. Nothing is doubled where jobs append.
    objects   --maps map tasks into --partitions partitions, through a proxy that counts and does no harm: objects, requests by kind, lists while tasks
              run, and bytes of the control state: of the Raft log and of snapshots.
    all       one after the other

A line of JSON for each part goes to the end of bench/stores.jsonl. The exit code is 1 where something above does not hold.
"""
import argparse, collections, concurrent.futures, glob, itertools, json, os, random, signal, statistics, subprocess, sys, tempfile, threading, time

import measure, workloads
from fault_proxy import Proxy
from s3_server import SeaweedFs, since
from store_kills import kills
from store_systems import (ENDED, LAKE, OUTPUTS, OWN, Client, Nodes, Up, copy, cut, environment, in_bucket, in_folder, left_behind, until_tidy, weblog)

RATES = 0.0, 0.05, 0.2
# What 5 % of errors may cost, and what all of this machine's runs differ by themselves is within it.
MOST_AT_5_PERCENT = 1.5
MAX_OBJECTS, MAX_CONTROL_BYTES = 1_000, 1 << 20
ROWS_OF_A_MAP = 200
START_S = 300
RANGE_BYTES, READERS = 4 << 20, 4
UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


# ---- weblog

class Subject:
    """A system on folders or in a bucket, and where its job's files are."""

    def __init__(self, name, a, work, store, logs):
        kind, self.where = name.split(" ")
        self.name, self.store, self.logs = name, store, logs
        self.folder, self.prefix = f"{work}/{kind}-{self.where}", kind if self.where == "s3" else None
        make = Up if kind == "up" else Nodes
        self.system = make(os.path.abspath(a.weft), self.folder, self.prefix, store.address if self.prefix else None)
        self.client = Client(self.system)
        self.client.deploy(os.path.join(a.guests, "weblog.wasm"))

    def spec(self, number):
        if self.prefix:
            return weblog(f"s3://{LAKE}/logs", f"s3://{LAKE}/{self.output(number)}")
        return weblog(self.logs, self.output(number))

    def output(self, number):
        return f"out-{self.prefix}/{number}" if self.prefix else f"{self.folder}/out/{number}"

    def files(self, number):
        return in_bucket(self.store.bucket(LAKE), self.output(number)) if self.prefix else in_folder(self.output(number))

    def left(self, number):
        """What the job left behind in buckets."""
        if not self.prefix:
            return []
        return left_behind(self.store.bucket(LAKE), self.output(number), self.store.bucket(OWN), self.prefix)


def kill_some(cluster, seconds, draw, told):
    """Kills the leader and a node while a job runs that takes so long without it, and starts them again."""
    def kill():
        for share, name in ((0.25, "leader"), (0.3, f"node-{draw.randint(1, 3)}")):
            time.sleep(share * seconds)
            code, out, err = cluster.verb("kill", name)
            told.append(json.loads(out)["killed"] if code == 0 else f"{name}: {err.strip()}")
        time.sleep(0.2 * seconds)
        cluster.up()
    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def measured(subject, number, a, told, calm_s=None, draw=None):
    """Runs the job of a round. Returns digests of its outputs."""
    killed, before, before_cpu_s = [], subject.store.requests(), subject.store.cpu_s()
    thread = calm_s and kill_some(subject.system, calm_s, draw, killed)
    job, took = subject.client.run(subject.spec(number), f"{subject.name}-{number}")
    cpu_s = subject.store.cpu_s()
    if thread:
        thread.join()
    if left := until_tidy(lambda: subject.left(number)):
        told["wrong"].append(f"{subject.name}, job {number} leaves {len(left)} things behind: {left[:5]}")
    line = told["killed" if calm_s else "runs"].setdefault(subject.name, {"seconds": [], "requests": [], "receipt": [], "server_cpu_s": []})
    line["seconds"].append(round(took, 3))
    if subject.prefix:
        line["server_cpu_s"].append(round(cpu_s - before_cpu_s, 2))
        line["requests"].append(since(before, subject.store.requests()))
        line["receipt"].append(subject.client.requests(job["id"]))
    if calm_s:
        line.setdefault("kills", []).append(killed)
    print(f"{subject.name}{', ' + ' and '.join(killed) + ' killed' if killed else ''}: {took:.2f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    return subject.files(number)


def read_alone(store, prefix):
    """Seconds in which a client that does nothing with them reads all objects below a prefix, in ranges as tasks read them."""
    bucket = store.bucket(LAKE)
    ranges = [(key, at) for key, bytes_ in bucket.keys(prefix).items() for at in range(0, bytes_, RANGE_BYTES)]

    def read(range_):
        key, at = range_
        status, _, _ = bucket.ask("GET", key, headers={"range": f"bytes={at}-{at + RANGE_BYTES - 1}"})
        if status != 206:
            raise RuntimeError(f"the S3 server answers a range of {key} with {status}")
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
        collections.deque(readers.map(read, ranges), maxlen=0)
    return round(time.perf_counter() - began, 2)


def weblog_part(a, work):
    store, subjects = SeaweedFs(f"{work}/weed", OWN, LAKE), []
    told = {"runs": {}, "killed": {}, "wrong": []}
    try:
        told["bytes"] = copy(a.logs, store.bucket(LAKE), "logs")
        for name in ("up folder", "up s3", "cluster folder", "cluster s3"):
            subjects.append(Subject(name, a, work, store, os.path.abspath(a.logs)))
        expected, numbers, draw = None, itertools.count(), random.Random(a.seed)
        for round_ in range(a.rounds + 1):
            if round_:
                told.setdefault("read_alone_s", []).append(read_alone(store, "logs/"))
            # The first one warms up: components are fetched, files are cached.
            line = told if round_ else {"runs": {}, "killed": {}, "wrong": told["wrong"]}
            for subject in subjects if round_ % 2 else subjects[::-1]:
                found = measured(subject, next(numbers), a, line)
                expected = expected or found
                if found != expected:
                    told["wrong"].append(f"{subject.name} publishes other bytes in round {round_}")
        for _ in range(a.rounds if a.kill else 0):
            for subject in subjects[2:]:
                calm_s = statistics.median(told["runs"][subject.name]["seconds"])
                if measured(subject, next(numbers), a, told, calm_s, draw) != expected:
                    told["wrong"].append(f"{subject.name} publishes other bytes with kills")
        # Parts of objects of the cluster's own, for the bucket's rules to remove.
        told["own_uploads_left"] = len(store.bucket(OWN).uploads())
    finally:
        for subject in subjects:
            subject.system.close()
        store.stop()
    for lines in (told["runs"], told["killed"]):
        for line in lines.values():
            line["median_s"] = statistics.median(line["seconds"])
    for kind in ("up", "cluster"):
        told[f"{kind}_s3_over_folder"] = round(told["runs"][f"{kind} s3"]["median_s"] / told["runs"][f"{kind} folder"]["median_s"], 2)
    return told


# ---- errors

def errors_part(a, work):
    store = SeaweedFs(f"{work}/weed", OWN, LAKE)
    proxy = Proxy(("127.0.0.1", store.port), a.seed)
    told, up, lake = {"rates": {}, "all_fail": {}, "wrong": []}, None, store.bucket(LAKE)
    try:
        logs = cut(a.logs, f"{work}/logs", a.error_bytes)
        told["bytes"] = copy(logs, lake, "logs")
        beside = Up(os.path.abspath(a.weft), f"{work}/folder")
        try:
            client = Client(beside)
            client.deploy(os.path.join(a.guests, "weblog.wasm"))
            client.run(weblog(logs, f"{work}/out"), "folder")
            expected = in_folder(f"{work}/out")
        finally:
            beside.stop()
        up = Up(os.path.abspath(a.weft), f"{work}/up", "errors", proxy.address)
        client = Client(up)
        client.deploy(os.path.join(a.guests, "weblog.wasm"))
        numbers = itertools.count()
        for round_ in range(a.rounds + 1):
            for rate in RATES if round_ % 2 else RATES[::-1]:
                at_rate(client, proxy, store, rate, next(numbers), expected, told if round_ else {"rates": {}, "wrong": told["wrong"]})
        for what, buckets in (("inputs and outputs", [LAKE]), ("the cluster's own", [OWN]), ("both", None)):
            told["all_fail"][what] = all_fail(client, proxy, store, buckets, f"all-{next(numbers)}", expected, a.bound, told["wrong"])
        told["start"] = start_without_store(a, proxy, work, told["wrong"])
    finally:
        if up:
            up.stop()
        proxy.close()
        store.stop()
    for line in told["rates"].values():
        line["median_s"] = statistics.median(line["seconds"])
    if "5 %" in told["rates"] and "0 %" in told["rates"]:
        told["ratio_at_5_percent"] = round(told["rates"]["5 %"]["median_s"] / told["rates"]["0 %"]["median_s"], 2)
        if told["ratio_at_5_percent"] > MOST_AT_5_PERCENT:
            told["wrong"].append(f"5 % of errors cost {told['ratio_at_5_percent']} times the time")
    return told


def at_rate(client, proxy, store, rate, number, expected, told):
    line = told["rates"].setdefault(f"{rate * 100:.0f} %", {"seconds": [], "faults": {}})
    proxy.take_counts()
    proxy.fail(rate)
    try:
        _, took = client.run(weblog(f"s3://{LAKE}/logs", f"s3://{LAKE}/out/{number}"), f"errors-{number}")
    except RuntimeError as error:
        told["wrong"].append(f"{rate * 100:.0f} %: {error}")
        return
    counts = proxy.take_counts()
    if in_bucket(store.bucket(LAKE), f"out/{number}") != expected:
        told["wrong"].append(f"{rate * 100:.0f} %: other bytes")
    if left := until_tidy(lambda: left_behind(store.bucket(LAKE), f"out/{number}", store.bucket(OWN), "errors")):
        told["wrong"].append(f"{rate * 100:.0f} %: {len(left)} things are left behind: {left[:5]}")
    line["seconds"].append(round(took, 3))
    line["faults"] = dict(collections.Counter(line["faults"]) + collections.Counter(counts))
    print(f"{rate * 100:.0f} % of errors: {took:.2f} s, {counts}", flush=True)


def all_fail(client, proxy, store, buckets, key, expected, bound_s, wrong):
    """A running job to which a store stops to answer, and the one that follows when it answers again."""
    proxy.fail(0.0)
    spec = lambda name: weblog(f"s3://{LAKE}/logs", f"s3://{LAKE}/out/{name}")
    id, began, is_failing = client.submit(spec(key), key), time.monotonic(), []

    def fail(status):
        if status == "running" and not is_failing:
            is_failing.append(time.monotonic())
            proxy.fail(1.0, buckets)
    try:
        job = client.wait(id, bound_s, fail)
    except RuntimeError as error:
        job = None
        wrong.append(f"{key}: {error}")
    took = time.monotonic() - (is_failing or [began])[0]
    proxy.fail(0.0)
    problem = (job or {}).get("problem") or {}
    told = {"buckets": buckets, "seconds": round(took, 1), "status": job and job["status"], "code": problem.get("code"),
            "detail": (problem.get("detail") or "")[:300]}
    if not is_failing:
        wrong.append(f"{key}: the job had ended before anything failed")
    elif not job or job["status"] != "failed" or "s3://" not in told["detail"]:
        wrong.append(f"{key}: no problem that names the store within {bound_s} s: {told}")
    began = time.monotonic()
    try:
        client.run(spec(f"{key}-next"), f"{key}-next")
        if in_bucket(store.bucket(LAKE), f"out/{key}-next") != expected:
            wrong.append(f"{key}: the next job publishes other bytes")
    except RuntimeError as error:
        wrong.append(f"{key}: the next job fails: {error}")
    told["next_job_s"] = round(time.monotonic() - began, 1)
    for name in (key, f"{key}-next"):
        if left := until_tidy(lambda: left_behind(store.bucket(LAKE), f"out/{name}", store.bucket(OWN), "errors")):
            wrong.append(f"{name}: {len(left)} things are left behind: {left[:5]}")
    print(f"all requests fail, {buckets or 'of both buckets'}: {told}", flush=True)
    return told


def start_without_store(a, proxy, work, wrong):
    """What `weft up` says when its store never answers."""
    proxy.fail(1.0)
    began = time.monotonic()
    command = [os.path.abspath(a.weft), "--data", f"{work}/never", "up", "--listen", "127.0.0.1:0", "--store", f"s3://{OWN}/never"]
    try:
        ran = subprocess.run(command, env=environment(proxy.address), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S)
    except subprocess.TimeoutExpired:
        wrong.append(f"a server on a store that never answers says nothing within {START_S} s")
        return None
    finally:
        proxy.fail(0.0)
    # The last line of its own: causes within it say `error:`, too.
    says = [line for line in ran.stderr.splitlines() if line.startswith("error:")][-1:]
    told = {"exit_code": ran.returncode, "seconds": round(time.monotonic() - began, 1), "says": "".join(says)[:400]}
    if ran.returncode == 0 or "s3://" not in told["says"]:
        wrong.append(f"a server on a store that never answers: {told}")
    print(f"a start without a store: {told}", flush=True)
    return told


# ---- objects

def raft_bytes(data):
    """Bytes of the Raft log, and of the largest snapshot."""
    log = snapshot = 0
    for path in glob.glob(f"{data}/raft/log/*") + glob.glob(f"{data}/raft/snapshot-*"):
        try:
            with open(path, "rb") as file:
                # Files of the log are longer than what is written to them.
                written = len(file.read().rstrip(b"\0"))
        except OSError:
            continue  # it went away meanwhile
        if "/log/" in path:
            log += written
        else:
            snapshot = max(snapshot, written)
    return log, snapshot


def objects_part(a, work):
    store = SeaweedFs(f"{work}/weed", OWN, LAKE)
    proxy = Proxy(("127.0.0.1", store.port), a.seed)
    told, up = {"maps": a.maps, "partitions": a.partitions, "cluster": a.cluster, "wrong": []}, None
    try:
        draw, lake = random.Random(a.seed), store.bucket(LAKE)
        for number in range(a.maps):
            rows = (f"{draw.randrange(10 * a.partitions)} {number}-{row} x\n" for row in range(ROWS_OF_A_MAP))
            lake.put(f"records/part-{number:05}.txt", "".join(rows).encode())
        up = (Nodes if a.cluster else Up)(os.path.abspath(a.weft), f"{work}/up", "objects", proxy.address)
        data = os.path.join(up.dir, "controller-1") if a.cluster else up.data
        client = Client(up)
        spec = json.loads(workloads.job("sort", f"s3://{LAKE}/records", f"{work}/out"))
        spec["stage"][0]["shuffle"]["partitions"] = a.partitions
        moments, log, snapshot = {}, [], []
        log_before = raft_bytes(data)[0]
        proxy.take_requests()

        def seen(status):
            moments.setdefault(status, time.time())
            for bytes_, most in zip(raft_bytes(data), (log, snapshot)):
                most.append(bytes_)
        began = time.perf_counter()
        id = client.submit(json.dumps(spec), "objects")
        job = client.wait(id, seen=seen)
        told["seconds"] = round(time.perf_counter() - began, 2)
        if not job or job["status"] != "succeeded":
            told["wrong"].append(f"the job is {job and job['status']}: {job and job.get('problem')}")
        left = until_tidy(lambda: list(store.bucket(OWN).keys("objects/jobs/")))
        told["wrong"] += [f"{len(left)} objects are left"] if left else []
        told.update(receipt=client.requests(id), log_bytes=max(log) - log_before, snapshot_bytes=max(snapshot),
                    tasks=[stage["tasks_total"] for stage in job["stages"]] if job else None)
        # The whole state of the job, compressed.
        told["archive_bytes"] = store.bucket(OWN).keys("objects/archive/").get(f"objects/archive/{id}.json.zst")
        count_requests(told, proxy.take_requests(), id, moments)
        lines = sum(sum(1 for _ in open(path)) - 1 for path in glob.glob(f"{work}/out/sorted/*.csv"))
        if lines != a.maps * ROWS_OF_A_MAP:
            told["wrong"].append(f"{lines} rows come out of {a.maps * ROWS_OF_A_MAP}")
    finally:
        if up:
            up.close()
        proxy.close()
        store.stop()
    print(json.dumps(told, indent=1), flush=True)
    return told


def count_requests(told, requests, id, moments):
    """Objects, and requests by kind; and lists while tasks run."""
    job = f"objects/jobs/{id}/"
    created = {"put", "create upload"}
    objects = collections.Counter(key.removeprefix(job).rsplit(".", 1)[-1] if "." in key else key.removeprefix(job).split("/")[0]
                                  for key in {key for _, bucket, key, what, _ in requests if bucket == OWN and key.startswith(job) and what in created})
    told["objects"] = dict(objects)
    told["n_objects"] = sum(objects.values())
    by_kind = collections.Counter((bucket, what) for _, bucket, _, what, _ in requests)
    told["requests"] = {bucket: {what: n for (of, what), n in by_kind.items() if of == bucket} for bucket in (OWN, LAKE)}
    ended = moments.get("publishing", min((moments[status] for status in ENDED if status in moments), default=time.time()))
    lists = collections.Counter(f"{bucket}/{key}".replace(id, "JOB") for at, bucket, key, what, _ in requests
                                if what.startswith("list") and moments.get("running", 0) < at < ended)
    told["lists_while_tasks_run"] = dict(lists)
    if any("JOB" in key or key.startswith(LAKE) for key in lists):
        told["wrong"].append(f"lists on the data path: {dict(lists)}")
    if told["n_objects"] > MAX_OBJECTS * told["maps"] / 1000 + 10:
        told["wrong"].append(f"{told['n_objects']} objects: {told['objects']}")
    if told["snapshot_bytes"] > MAX_CONTROL_BYTES:
        told["wrong"].append(f"a snapshot has {told['snapshot_bytes']} bytes")


# ---- all of them

PARTS = {"weblog": weblog_part, "errors": errors_part, "kills": kills, "objects": objects_part}


def size(text):
    """`256MB` in bytes."""
    unit = UNITS.get(text[-2:])
    return int(text[:-2]) * unit if unit else int(text)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("part", choices=(*PARTS, "all"))
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", help="the folder with weblog.wasm")
    p.add_argument("--logs", help="a folder of access logs")
    p.add_argument("--rounds", type=int, help="[default: 5; of kills, 40]")
    p.add_argument("--kill", action="store_true", help="weblog: with kills of leader and node as well")
    p.add_argument("--seed", type=int, help="of faults and kills; drawn without it")
    p.add_argument("--error-bytes", type=size, default=size("256MB"), help="errors: bytes of logs [default: 256MB]")
    p.add_argument("--kill-bytes", type=size, default=size("16MB"), help="kills: bytes of logs [default: 16MB]")
    p.add_argument("--bound", type=float, default=900, help="errors: seconds within which a job without a store must fail [default: 900]")
    p.add_argument("--maps", type=int, default=1_000, help="objects [default: 1000]")
    p.add_argument("--partitions", type=int, default=1_000, help="objects [default: 1000]")
    p.add_argument("--cluster", action="store_true", help="objects: on a cluster, instead of `weft up`")
    p.add_argument("--commit", help="what the lines say was measured; this checkout's commit without it")
    p.add_argument("--ledger", default=os.path.join(workloads.ROOT, "bench/stores.jsonl"), help="file to which lines are added [default: bench/stores.jsonl]")
    a = p.parse_args()
    if a.part != "objects" and not (a.logs and a.guests):
        p.error("--logs and --guests are needed")
    a.seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    rounds, failed = a.rounds, False
    for part in PARTS if a.part == "all" else [a.part]:
        a.rounds = rounds or (40 if part == "kills" else 5)
        row = {"part": part, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": a.commit or measure.commit(workloads.ROOT),
               "machine": measure.machine(), "load": round(os.getloadavg()[0], 2), "seed": a.seed, "rounds": a.rounds}
        print(f"{part}: commit {row['commit']}, seed {a.seed}, load {row['load']}", flush=True)
        with tempfile.TemporaryDirectory(prefix="weft-stores-") as work:
            row.update(PARTS[part](a, work), load_after=round(os.getloadavg()[0], 2))
        for wrong in row["wrong"]:
            print(f"wrong: {wrong[:2000]}")
        print(f"{part}: {len(row['wrong'])} things are wrong; seed {a.seed}", flush=True)
        failed = failed or bool(row["wrong"])
        with open(a.ledger, "a") as ledger:
            ledger.write(json.dumps(row) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
