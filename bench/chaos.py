#!/usr/bin/env python3
"""Whether a cluster of real processes keeps its word while they are killed and paused.

    python3 bench/chaos.py --weft target/release/weft --guests target/guests --minutes 5 [--seed 7] [--ledger bench/chaos.jsonl]

Three controllers and two nodes run on this machine (`weft cluster`). Rounds of 20 s follow each other. In each one, clients submit jobs, run the
weblog job, and invoke functions with idempotency keys, through any controller, and repeat what has no answer; every few seconds a process is
killed (leader, follower, node, executor) or paused for 1 to 5 s, and started again. After a round the cluster heals, and must show:

    every job that was acknowledged has succeeded, under one id for each key
    every weblog job has published the bytes of the first, undisturbed one
    every key has one answer, however often it is asked for
    outside of faults, clients got at least half of what they got without any; a round below that does not count

A round without faults comes first. The exit code is 1 where something above does not hold; the seed is printed, and so are the faults. With
--ledger, a line for each round goes to the end of that file.
"""
import argparse, hashlib, http.client, json, os, random, shutil, signal, statistics, subprocess, sys, tempfile, threading, time

import measure

ROUND_S = 20
HEAL_S = 60
FAULT_PAUSE_S = (3, 6)
# How long a fault still shows once its process runs again: a node is lost and found, an election ends.
AFTER_FAULT_S = 2
LOG_BYTES = 24_000_000


class Cluster:
    def __init__(self, weft, folder, controllers, nodes):
        self.weft, self.dir = weft, os.path.join(folder, "cluster")
        self.up("--controllers", str(controllers), "--nodes", str(nodes), "--slots", "1")
        self.token = open(os.path.join(self.dir, "token")).read().strip()

    def verb(self, verb, *arguments):
        command = [self.weft, "--json", "cluster", verb, "--dir", self.dir, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def up(self, *arguments):
        code, out, err = self.verb("up", *arguments)
        if code:
            raise SystemExit(f"the cluster does not come up: {err}")
        told = json.loads(out)
        self.addresses = [endpoint.removeprefix("http://") for endpoint in told["endpoints"]]
        self.processes = {process["name"]: process for process in told["processes"]}

    def ask(self, address, method, path, body=None, headers={}, timeout=15):
        """Status and body. Errors: OSError and HTTPException, where nobody knows what came of it."""
        connection = http.client.HTTPConnection(address, timeout=timeout)
        try:
            connection.request(method, path, body, {"authorization": f"Bearer {self.token}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def insist(self, draw, until, method, path, body=None, headers={}, timeout=15):
        """Asks one controller after the other until one answers; None where none does before `until`."""
        addresses = self.addresses[:]
        draw.shuffle(addresses)
        while time.monotonic() < until:
            for address in addresses:
                try:
                    status, answer = self.ask(address, method, path, body, headers, timeout)
                except (OSError, http.client.HTTPException):
                    continue
                if status not in (429, 502, 503):
                    return status, answer
            time.sleep(0.02)
        return None

    def leader(self):
        for address in self.addresses:
            try:
                status, body = self.ask(address, "GET", "/v1/cluster", timeout=1)
                leader = json.loads(body)["leader"]
                if status == 200 and leader:
                    return f"controller-{leader}"
            except (OSError, http.client.HTTPException):
                pass
        return None


class History:
    """What clients were told."""
    def __init__(self):
        self.lock = threading.Lock()
        self.jobs, self.weblogs, self.answers, self.wrong = {}, [], {}, []
        self.done_at, self.open_keys = [], 0

    def done(self):
        with self.lock:
            self.done_at.append(time.monotonic())

    def fault(self, what):
        with self.lock:
            self.wrong.append(what)


def submit_jobs(cluster, history, draw, until, name):
    """Jobs of a few tasks that do nothing, each under a key that is used again until there is an answer."""
    number = 0
    while time.monotonic() < until:
        number += 1
        key = f"{name}-{number}"
        body = json.dumps({"name": "chaos", "stage": [{"name": "noop", "task": "hello/noop", "count": draw.randint(1, 20)}]})
        headers = {"content-type": "application/json", "idempotency-key": key}
        for _ in range(2):
            answer = cluster.insist(draw, until + HEAL_S, "POST", "/v1/jobs", body, headers)
            if answer is None:
                return history.fault(f"job {key} was never answered")
            status, told = answer
            if status not in (200, 201):
                return history.fault(f"job {key}: {status} {told[:300]}")
            id = json.loads(told)["id"]
            if history.jobs.setdefault(key, id) != id:
                history.fault(f"job {key} has two ids: {history.jobs[key]} and {id}")
        history.done()


def invoke_keyed(cluster, history, draw, until, name):
    """Invocations under keys, each asked for twice. The function answers at random: a second run would show."""
    number = 0
    while time.monotonic() < until:
        number += 1
        key = f"{name}-{number}"
        for _ in range(2):
            # A key whose controller died is taken over when no invocation takes as long: it may stay open here.
            answer = cluster.insist(draw, min(until + HEAL_S, time.monotonic() + 20), "POST", "/v1/invoke/probe-py/randomness", b"",
                                    {"content-type": "text/plain", "idempotency-key": key})
            if answer is None:
                history.open_keys += 1
                break
            status, output = answer
            if status != 200:
                history.fault(f"invocation {key}: {status} {output[:300]}")
                break
            if history.answers.setdefault(key, output) != output:
                history.fault(f"invocation {key} has two answers: {history.answers[key][:100]} and {output[:100]}")
            history.done()


def run_weblogs(cluster, history, draw, until, name, job, out):
    number = 0
    while time.monotonic() < until:
        number += 1
        folder = os.path.join(out, f"{name}-{number}")
        document = json.loads(json.dumps(job).replace("OUT", folder))
        headers = {"content-type": "application/json", "idempotency-key": f"{name}-weblog-{number}"}
        answer = cluster.insist(draw, until + HEAL_S, "POST", "/v1/jobs", json.dumps(document), headers)
        if answer is None or answer[0] not in (200, 201):
            return history.fault(f"weblog {number}: {answer}")
        id = json.loads(answer[1])["id"]
        history.weblogs.append((id, folder))
        if wait(cluster, draw, id, until + HEAL_S) is None:
            return history.fault(f"job {id} does not end")
        history.done()


def wait(cluster, draw, id, until):
    while time.monotonic() < until:
        answer = cluster.insist(draw, until, "GET", f"/v1/jobs/{id}")
        if answer is None:
            return None
        if answer[0] != 200:
            return f"{answer[0]} {answer[1][:200]}"
        status = json.loads(answer[1])["status"]
        if status in ("succeeded", "failed", "cancelled"):
            return status
        time.sleep(0.05)
    return None


def digest(folder):
    """Of the published files; the manifest names the job."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            if "/." not in path[len(folder):] and not name.startswith("_"):
                found[os.path.relpath(path, folder)] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    return found


def children(pid, role):
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit():
                parent = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[1]
                line = open(f"/proc/{name}/cmdline", "rb").read().split(b"\0")
                if int(parent) == pid and len(line) > 1 and line[1] == role:
                    found.append(int(name))
        except OSError:
            pass
    return found


class Nemesis:
    """Kills and pauses processes until a moment, and records when."""
    def __init__(self, cluster, draw):
        self.cluster, self.draw, self.faults, self.windows = cluster, draw, [], []

    def run(self, until):
        while time.monotonic() + 1 < until:
            time.sleep(self.draw.uniform(*FAULT_PAUSE_S))
            began = time.monotonic()
            kind = self.draw.choice(["kill leader", "kill follower", "kill node", "kill executor", "pause leader", "pause follower", "pause node"])
            try:
                self.do(kind)
                self.faults.append(kind)
            except (ProcessLookupError, StopIteration, IndexError):
                pass
            self.cluster.up()
            self.windows.append((began, time.monotonic() + AFTER_FAULT_S))

    def do(self, kind):
        what, who = kind.split()
        leader = self.cluster.leader()
        names = {
            "leader": [leader] if leader else [],
            "follower": [name for name in self.cluster.processes if name.startswith("controller") and name != leader],
            "node": [name for name in self.cluster.processes if name.startswith("node")],
        }
        if who == "executor":
            pids = [pid for name in names["node"] for pid in children(self.cluster.processes[name]["pid"], b"executor")]
            return os.kill(self.draw.choice(pids), signal.SIGKILL)
        pid = self.cluster.processes[self.draw.choice(names[who])]["pid"]
        if what == "kill":
            os.kill(pid, signal.SIGKILL)
            time.sleep(self.draw.uniform(0.2, 3))
        else:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.draw.uniform(1, 5))
            os.kill(pid, signal.SIGCONT)


def round_of(cluster, seed, number, job, expected, out, faults):
    draw = random.Random(f"{seed} {number}")
    history = History()
    began = time.monotonic()
    until = began + ROUND_S
    own = lambda: random.Random(draw.random())
    name = f"round-{seed}-{number}"
    clients = [(submit_jobs, f"{name}-a", ()), (submit_jobs, f"{name}-b", ()), (invoke_keyed, f"{name}-c", ()), (invoke_keyed, f"{name}-d", ()),
               (run_weblogs, f"{name}-e", (job, out))]
    threads = [threading.Thread(target=of, args=(cluster, history, own(), until, called, *more)) for of, called, more in clients]
    for thread in threads:
        thread.start()
    nemesis = Nemesis(cluster, own())
    if faults:
        nemesis.run(until)
    for thread in threads:
        thread.join()
    cluster.up()
    heal = time.monotonic() + HEAL_S
    for key, id in history.jobs.items():
        ended = wait(cluster, draw, id, heal)
        if ended != "succeeded":
            history.fault(f"job {id} ({key}) was acknowledged, and is: {ended}")
    for id, folder in history.weblogs:
        ended = wait(cluster, draw, id, heal)
        if ended != "succeeded":
            history.fault(f"weblog {id} is: {ended}")
        elif digest(folder) != expected:
            history.fault(f"weblog {id} has other bytes")
        shutil.rmtree(folder, ignore_errors=True)
    calm = [at for at in history.done_at if at < until and not any(a <= at <= b for a, b in nemesis.windows)]
    quiet_s = ROUND_S - sum(min(b, until) - a for a, b in nemesis.windows if a < until)
    rate = len(calm) / quiet_s if quiet_s > 1 else None
    return history, nemesis.faults, rate, time.monotonic() - began


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components")
    p.add_argument("--logs", required=True, help="a folder of access logs, as `cargo xtask logs` writes them")
    p.add_argument("--minutes", type=float, default=5)
    p.add_argument("--seed", type=int, help="drawn without it")
    p.add_argument("--ledger", help="file to which a line for each round is added")
    a = p.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    commit = measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(f"seed {seed}, commit {commit}", flush=True)
    failed = counted = 0
    with tempfile.TemporaryDirectory(prefix="weft-chaos-") as folder:
        cluster = Cluster(os.path.abspath(a.weft), folder, 3, 2)
        try:
            draw = random.Random(seed)
            for guest in ("hello", "probe-py", "weblog"):
                wasm = open(os.path.join(a.guests, guest + ".wasm"), "rb").read()
                answer = cluster.insist(draw, time.monotonic() + 60, "POST", "/v1/components", wasm, {"content-type": "application/wasm"})
                if answer is None or answer[0] not in (200, 201):
                    raise SystemExit(f"{guest} is not deployed: {answer}")
            shuffle = {"keys": ["day"], "partitions": 3}
            job = {"name": "weblog", "input": {"logs": {"format": "text", "uri": os.path.abspath(a.logs) + "/access-*"}},
                   "stage": [{"name": "visits", "from": "logs", "map": "weblog/parse"},
                             {"name": "daily", "from": "visits", "shuffle": shuffle, "combine": "weblog/daily-partial", "reduce": "weblog/daily"}],
                   "output": {"daily": {"from": "daily", "format": "parquet", "uri": "OUT"}}}
            first = json.loads(json.dumps(job).replace("OUT", os.path.join(folder, "first")))
            answer = cluster.insist(draw, time.monotonic() + 60, "POST", "/v1/jobs", json.dumps(first), {"content-type": "application/json"})
            if answer is None or wait(cluster, draw, json.loads(answer[1])["id"], time.monotonic() + 60) != "succeeded":
                raise SystemExit(f"the undisturbed job does not succeed: {answer}")
            expected = digest(os.path.join(folder, "first"))
            until, number, undisturbed = time.monotonic() + 60 * a.minutes, 0, None
            while number == 0 or time.monotonic() < until:
                history, faults, rate, took = round_of(cluster, seed, number, job, expected, os.path.join(folder, "out"), number > 0)
                enough = rate is not None and (undisturbed is None or rate >= undisturbed / 2)
                undisturbed = rate if number == 0 else undisturbed
                counts = number > 0 and enough
                counted += counts
                failed += bool(history.wrong)
                line = {"seed": seed, "round": number, "faults": faults, "jobs": len(history.jobs), "weblogs": len(history.weblogs),
                        "operations": len(history.done_at), "per_second_outside_of_faults": rate and round(rate, 1), "undisturbed": round(undisturbed or 0, 1),
                        "counts": counts, "keys": len(history.answers), "keys_left_open": history.open_keys, "wrong": history.wrong[:10], "seconds": round(took, 1),
                        "commit": commit}
                print(json.dumps(line), flush=True)
                if a.ledger:
                    with open(a.ledger, "a") as ledger:
                        ledger.write(json.dumps(line) + "\n")
                number += 1
                if history.wrong:
                    shutil.copytree(cluster.dir, os.path.join(tempfile.gettempdir(), f"weft-chaos-{seed}-{number}"), dirs_exist_ok=True,
                                    ignore=shutil.ignore_patterns("store"))
        finally:
            cluster.verb("down")
    print(f"{number - 1} rounds with faults, {counted} count, {failed} wrong; seed {seed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
