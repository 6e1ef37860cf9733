#!/usr/bin/env python3
"""Whether a cluster of real processes keeps its word while they are killed, paused, and cut from each other.

    python3 bench/chaos.py --weft target/release/weft --guests target/guests --logs DIR (--minutes 5 | --rounds 60) [--seed 7]
                           [--ledger bench/chaos.jsonl]

Three controllers and two nodes run on this machine (`weft cluster`), and reach each other through the ports of `partition.py`. Rounds of 20 s follow
each other. In each one, clients submit jobs, run the weblog job, and invoke functions with idempotency keys, through any controller, and repeat what
has no answer; others deploy components, and read jobs and components, each through one controller. Clients reach all controllers all the time. Every
few seconds there is a fault of `nemesis.py`. After a round the cluster heals, and must show:

    every job that was acknowledged has succeeded, under one id for each key
    every weblog job has published the bytes of the first, undisturbed one, and has its log
    every key has one answer, however often it is asked for
    every component that was acknowledged can be invoked at once
    answers fit together, as `histories.py` says: what was acknowledged or seen is found through any controller, and is the same
    no controller and no node has ended by itself
    outside of faults, clients got at least half of what they got without any; a round below that does not count

A controller may show an older status of a job than another one did, as the documentation says: `older` counts these answers. With --strict they are
wrong, too. A round without faults comes first, and is no part of --rounds. The exit code is 1 where something above does not hold; the seed is
printed, and so are the faults. With --ledger, a line for each round goes to the end of that file. After a round with something wrong, settings and
logs of all processes, events and faults are kept in a folder that is printed.
"""
import argparse, collections, hashlib, http.client, itertools, json, os, random, re, shutil, subprocess, sys, tempfile, threading, time

import histories, measure
from histories import Event
from nemesis import Deck, Nemesis
from partition import Mesh

ROUND_S = 20
HEAL_S = 60
# A controller that lags answers after 2 s.
READ_TIMEOUT_S = 4
READ_PAUSE_S = 0.02
DEPLOY_PAUSE_S = 1
# Data folders of controllers grow to 100 MB each: they are kept for so many rounds with something wrong.
KEPT_WITH_DATA = 3
# Name and version of a component, as they stand beside each other in its data, and the number of those that were deployed under other names.
NAMED = b"hello0.1.0"
DEPLOYED = itertools.count()


class Cluster:
    """Processes of a cluster on this machine; with `mesh`, they reach each other through one. `env`: their environment, instead of this one."""

    def __init__(self, weft, folder, controllers, nodes, *flags, mesh=False, env=None):
        self.weft, self.dir, self.mesh, self.env = weft, os.path.join(folder, "cluster"), None, env
        try:
            self.up("--controllers", str(controllers), "--nodes", str(nodes), "--slots", "1", *flags)
            self.token = open(os.path.join(self.dir, "token")).read().strip()
            # Odd while a controller is being killed.
            self.lives = dict.fromkeys(self.addresses, 0)
            if mesh:
                self.dial_through_mesh()
        except BaseException:
            self.close()
            raise

    def dial_through_mesh(self):
        """Gives each process addresses of its own for the others. A controller listens on the one that it has for itself."""
        entry = re.compile(r'^(\d+) = "(127\.0\.0\.1:\d+)"$', re.MULTILINE)
        path = lambda name: os.path.join(self.dir, name + ".toml")
        texts = {name: open(path(name)).read() for name in self.processes}
        addresses = {f"controller-{number}": address for text in texts.values() for number, address in entry.findall(text)}
        # While the cluster runs, so that no port of the mesh is one of its own.
        self.mesh = Mesh({(name, target): address for name in texts for target, address in addresses.items() if target != name})
        self.verb("down")
        for name, text in texts.items():
            other = lambda found: f'{found[1]} = "{self.mesh.address(name, "controller-" + found[1])}"'
            text = entry.sub(lambda found: found[0] if name == "controller-" + found[1] else other(found), text)
            with open(path(name), "w") as settings:
                settings.write(text)
        self.up()

    def close(self):
        self.verb("down")
        if self.mesh:
            self.mesh.close()

    def verb(self, verb, *arguments):
        command = [self.weft, "--json", "cluster", verb, "--dir", self.dir, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env)
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

    def insist(self, draw, until, method, path, body=None, headers={}, timeout=15, told=lambda *_: None):
        """Asks one controller after the other until one answers; None where none does before `until`. `told` hears of each attempt: which address,
        when it began, and status and answer, or None."""
        addresses = self.addresses[:]
        draw.shuffle(addresses)
        while time.monotonic() < until:
            for address in addresses:
                began = time.monotonic()
                try:
                    status, answer = self.ask(address, method, path, body, headers, timeout)
                except (OSError, http.client.HTTPException):
                    told(address, began, None)
                    continue
                told(address, began, (status, answer))
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
    def __init__(self, cluster):
        self.cluster, self.lock = cluster, threading.Lock()
        self.jobs, self.weblogs, self.answers, self.wrong = {}, [], {}, []
        self.done_at, self.open_keys, self.components = [], 0, 0
        # `written`: what can be read, as a key of `histories.py` and a path, in the order in which it was acknowledged.
        self.events, self.written = [], []

    def done(self):
        with self.lock:
            self.done_at.append(time.monotonic())

    def fault(self, what):
        with self.lock:
            self.wrong.append(what)

    def write(self, kind, key, result_of):
        """Hears of the attempts of a write; `result_of` finds in an answer what was written."""
        def told(address, began, answer):
            good = answer is not None and answer[0] in (200, 201)
            result = result_of(answer[1]) if good else None
            self.events.append(Event(kind, key, began, time.monotonic() if good else None, self.name(address), None, result))
        return told

    def read(self, key, path, address):
        life, began = self.cluster.lives[address], time.monotonic()
        status, answer = self.ask(address, path)
        ended = time.monotonic()
        life = life if life == self.cluster.lives[address] else None
        told = json.loads(answer) if status == 200 else {}
        result = histories.MISSING if status == 404 else told.get("status", told.get("digest"))
        if status is not None and 400 <= status < 500 and status not in (404, 429):
            self.fault(f"a read of {key} is answered by {status} {answer[:300]}")
        # The sooner it is asked why, the better.
        note = self.view(address) if status == 404 else ""
        self.events.append(Event("read", key, began, None if result is None else ended, self.name(address), life, result, note))

    def view(self, address):
        status, answer = self.ask(address, "/v1/cluster")
        return ", ".join(f"{what} {json.loads(answer)[what]}" for what in ("leader", "leads", "term", "applied")) if status == 200 else ""

    def ask(self, address, path):
        try:
            return self.cluster.ask(address, "GET", path, timeout=READ_TIMEOUT_S)
        except (OSError, http.client.HTTPException):
            return None, b""

    def name(self, address):
        return f"controller-{self.cluster.addresses.index(address) + 1}"


def id_of(answer):
    return json.loads(answer)["id"]


def submit_jobs(cluster, history, draw, until, name):
    """Jobs of a few tasks that do nothing, each under a key that is used again until there is an answer."""
    number = 0
    while time.monotonic() < until:
        number += 1
        key = f"{name}-{number}"
        body = json.dumps({"name": "chaos", "stage": [{"name": "noop", "task": "hello/noop", "count": draw.randint(1, 20)}]})
        headers = {"content-type": "application/json", "idempotency-key": key}
        for _ in range(2):
            answer = cluster.insist(draw, until + HEAL_S, "POST", "/v1/jobs", body, headers, told=history.write("job", key, id_of))
            if answer is None:
                return history.fault(f"job {key} was never answered")
            status, told = answer
            if status not in (200, 201):
                history.fault(f"job {key}: {status} {told[:300]}")
                break
            if key not in history.jobs:
                history.jobs[key] = id_of(told)
                history.written.append((id_of(told), f"/v1/jobs/{id_of(told)}"))
        history.done()


def deploy_components(cluster, history, draw, until, name, wasm):
    """Copies of a component under names of the same length, each of which is invoked once."""
    while time.monotonic() < until:
        component = f"h{next(DEPLOYED):04x}"
        key, body = f"{component}@0.1.0", wasm.replace(NAMED, NAMED.replace(b"hello", component.encode()))
        answer = cluster.insist(draw, until + HEAL_S, "POST", "/v1/components", body, {"content-type": "application/wasm"},
                                told=history.write("component", key, lambda answer: json.loads(answer)["digest"]))
        if answer is None or answer[0] not in (200, 201):
            return history.fault(f"component {key}: {answer and (answer[0], answer[1][:300])}")
        history.components += 1
        history.written.append((key, f"/v1/components/{component}/0.1.0"))
        invoked = cluster.insist(draw, time.monotonic() + 20, "POST", f"/v1/invoke/{component}/noop", b"", {"content-type": "text/plain"})
        if invoked is not None and invoked[0] != 200:
            history.fault(f"component {key} was acknowledged, and invoking it is answered by {invoked[0]} {invoked[1][:300]}")
        time.sleep(draw.uniform(0, 2 * DEPLOY_PAUSE_S))


def read_written(cluster, history, draw, until, name, address):
    """Reads of one controller, mostly of what was written a moment ago."""
    while time.monotonic() < until:
        n = len(history.written)
        if n:
            back = draw.choice([1, 1, draw.randint(1, min(n, 20)), draw.randint(1, n)])
            history.read(*history.written[n - back], address)
        time.sleep(draw.uniform(0, 2 * READ_PAUSE_S))


def invoke_keyed(cluster, history, draw, until, name):
    """Invocations under keys, each asked for twice. The function answers at random: a second run would show."""
    number = 0
    while time.monotonic() < until:
        number += 1
        key = f"{name}-{number}"
        for _ in range(2):
            # A key whose controller died is taken over when no invocation takes as long: it may stay open here.
            answer = cluster.insist(draw, min(until + HEAL_S, time.monotonic() + 20), "POST", "/v1/invoke/probe-py/randomness", b"",
                                    {"content-type": "text/plain", "idempotency-key": key}, told=history.write("invocation", key, bytes.hex))
            if answer is None:
                history.open_keys += 1
                break
            status, output = answer
            if status != 200:
                history.fault(f"invocation {key}: {status} {output[:300]}")
                break
            history.answers.setdefault(key, output)
            history.done()


def run_weblogs(cluster, history, draw, until, name, job, out):
    number = 0
    while time.monotonic() < until:
        number += 1
        folder = os.path.join(out, f"{name}-{number}")
        document = json.loads(json.dumps(job).replace("OUT", folder))
        key = f"{name}-weblog-{number}"
        headers = {"content-type": "application/json", "idempotency-key": key}
        answer = cluster.insist(draw, until + HEAL_S, "POST", "/v1/jobs", json.dumps(document), headers, told=history.write("job", key, id_of))
        if answer is None or answer[0] not in (200, 201):
            return history.fault(f"weblog {number}: {answer}")
        id = id_of(answer[1])
        history.written.append((id, f"/v1/jobs/{id}"))
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


def published(cluster, draw, id, folder, until):
    """Digests of the files of a job, and how often it has which line in its log, or None."""
    answer = cluster.insist(draw, until, "GET", f"/v1/jobs/{id}/logs")
    told = json.loads(answer[1]) if answer and answer[0] == 200 else {"items": [], "dropped": None}
    lines = collections.Counter((line["stage"], line["task"], line["message"]) for line in told["items"])
    return digest(folder), lines if told["dropped"] is not None else None


def round_of(cluster, seed, number, job, wasm, expected, out, deck):
    draw = random.Random(f"{seed} {number}")
    history = History(cluster)
    began = time.monotonic()
    until = began + ROUND_S
    own = lambda: random.Random(draw.random())
    name = f"round-{seed}-{number}"
    clients = [(submit_jobs, f"{name}-a", ()), (submit_jobs, f"{name}-b", ()), (invoke_keyed, f"{name}-c", ()), (invoke_keyed, f"{name}-d", ()),
               (run_weblogs, f"{name}-e", (job, out)), (deploy_components, "", (wasm,)),
               *((read_written, "", (address,)) for address in cluster.addresses)]
    threads = [threading.Thread(target=of, args=(cluster, history, own(), until, called, *more)) for of, called, more in clients]
    for thread in threads:
        thread.start()
    nemesis = Nemesis(cluster, history, own(), deck)
    if deck:
        nemesis.run(until)
    for thread in threads:
        thread.join()
    nemesis.heal()
    heal = time.monotonic() + HEAL_S
    for key, id in history.jobs.items():
        ended = wait(cluster, draw, id, heal)
        if ended != "succeeded":
            history.fault(f"job {id} ({key}) was acknowledged, and is: {ended}")
    for id, folder in history.weblogs:
        ended = wait(cluster, draw, id, heal)
        if ended != "succeeded":
            history.fault(f"weblog {id} is: {ended}")
        else:
            files, log = published(cluster, draw, id, folder, heal)
            if files != expected[0]:
                history.fault(f"weblog {id} has other bytes")
            # Attempts that failed may have logged, too.
            if log is None or expected[1] - log:
                history.fault(f"weblog {id} has another log: {log and f'{log.total()} lines of {expected[1].total()}'}")
        shutil.rmtree(folder, ignore_errors=True)
    for written in history.written:
        for address in cluster.addresses:
            history.read(*written, address)
    calm = [at for at in history.done_at if at < until and not any(a <= at <= b for a, b in nemesis.windows)]
    quiet_s = ROUND_S - sum(min(b, until) - a for a, b in nemesis.windows if a < until)
    rate = len(calm) / quiet_s if quiet_s > 1 else None
    return history, nemesis, rate, time.monotonic() - began


def keep(cluster, history, nemesis, folder, with_data):
    """Keeps what shows how a round went wrong. Moments are in seconds, as the violations have them, and in the time of the logs."""
    data = () if with_data else cluster.processes
    shutil.copytree(cluster.dir, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("store", *data))
    offset = time.time() - time.monotonic()
    clock = lambda at: at and time.strftime("%H:%M:%S", time.gmtime(at + offset)) + f"{(at + offset) % 1:.3f}"[1:]
    with open(os.path.join(folder, "events.jsonl"), "w") as events:
        for event in sorted(history.events, key=lambda event: event.began):
            events.write(json.dumps({**event._asdict(), "clock": [clock(event.began), clock(event.ended)]}) + "\n")
    with open(os.path.join(folder, "faults.jsonl"), "w") as faults:
        for kind, what, began, ended in nemesis.log:
            faults.write(json.dumps({"kind": kind, "what": what, "began": began, "ended": ended, "clock": [clock(began), clock(ended)]}) + "\n")
    with open(os.path.join(folder, "wrong.txt"), "w") as wrong:
        wrong.write("\n".join(history.wrong) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components")
    p.add_argument("--logs", required=True, help="a folder of access logs, as `cargo xtask logs` writes them")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=5)
    length.add_argument("--rounds", type=int, help="rounds with faults, instead of minutes")
    p.add_argument("--seed", type=int, help="drawn without it")
    p.add_argument("--strict", action="store_true", help="a job's status never goes back, whichever controller is asked")
    p.add_argument("--ledger", help="file to which a line for each round is added")
    a = p.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    commit = measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(f"seed {seed}, commit {commit}", flush=True)
    failed = counted = 0
    with tempfile.TemporaryDirectory(prefix="weft-chaos-") as folder:
        cluster = Cluster(os.path.abspath(a.weft), folder, 3, 2, mesh=True)
        try:
            draw = random.Random(seed)
            # The last one is deployed again, under other names.
            for guest in ("probe-py", "weblog", "hello"):
                wasm = open(os.path.join(a.guests, guest + ".wasm"), "rb").read()
                answer = cluster.insist(draw, time.monotonic() + 60, "POST", "/v1/components", wasm, {"content-type": "application/wasm"})
                if answer is None or answer[0] not in (200, 201):
                    raise SystemExit(f"{guest} is not deployed: {answer}")
            if wasm.count(NAMED) != 1:
                raise SystemExit(f"hello.wasm has no name and version that can be replaced: {NAMED} is there {wasm.count(NAMED)} times")
            shuffle = {"keys": ["day"], "partitions": 3}
            job = {"name": "weblog", "input": {"logs": {"format": "text", "uri": os.path.abspath(a.logs) + "/access-*"}},
                   "stage": [{"name": "visits", "from": "logs", "map": "weblog/parse"},
                             {"name": "daily", "from": "visits", "shuffle": shuffle, "combine": "weblog/daily-partial", "reduce": "weblog/daily"}],
                   "output": {"daily": {"from": "daily", "format": "parquet", "uri": "OUT"}}}
            first = json.loads(json.dumps(job).replace("OUT", os.path.join(folder, "first")))
            answer = cluster.insist(draw, time.monotonic() + 60, "POST", "/v1/jobs", json.dumps(first), {"content-type": "application/json"})
            if answer is None or wait(cluster, draw, id_of(answer[1]), time.monotonic() + 60) != "succeeded":
                raise SystemExit(f"the undisturbed job does not succeed: {answer}")
            expected = published(cluster, draw, id_of(answer[1]), os.path.join(folder, "first"), time.monotonic() + 60)
            until, number, undisturbed, deck = time.monotonic() + 60 * a.minutes, 0, None, Deck(random.Random(f"{seed} faults"))
            while number == 0 or (number <= a.rounds if a.rounds else time.monotonic() < until):
                history, nemesis, rate, took = round_of(cluster, seed, number, job, wasm, expected, os.path.join(folder, "out"),
                                                            deck if number else None)
                history.wrong += [f"{kind}: {text}" for kind, text in histories.check(history.events, across=a.strict)]
                enough = rate is not None and (undisturbed is None or rate >= undisturbed / 2)
                undisturbed = rate if number == 0 else undisturbed
                counts = number > 0 and enough
                counted += counts
                failed += bool(history.wrong)
                reads = [event for event in history.events if event.kind == "read"]
                n_answered = len(histories.reads(reads))
                line = {"seed": seed, "round": number, "faults": nemesis.faults,
                        "jobs": len(history.jobs), "weblogs": len(history.weblogs), "components": history.components,
                        "operations": len(history.done_at), "per_second_outside_of_faults": rate and round(rate, 1),
                        "undisturbed": round(undisturbed or 0, 1), "counts": counts,
                        "keys": len(history.answers), "keys_left_open": history.open_keys,
                        "reads": n_answered, "reads_without_answer": len(reads) - n_answered,
                        "older": len(histories.went_back(history.events, across=True)),
                        "n_wrong": len(history.wrong), "wrong": history.wrong[:10], "seconds": round(took, 1), "commit": commit}
                print(json.dumps(line), flush=True)
                if a.ledger:
                    with open(a.ledger, "a") as ledger:
                        ledger.write(json.dumps(line) + "\n")
                if history.wrong:
                    kept = os.path.join(tempfile.gettempdir(), f"weft-chaos-{seed}-{number}")
                    keep(cluster, history, nemesis, kept, failed <= KEPT_WITH_DATA)
                    print(f"kept {kept}", flush=True)
                number += 1
        finally:
            cluster.close()
    print(f"{number - 1} rounds with faults, {counted} count, {failed} wrong; seed {seed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
