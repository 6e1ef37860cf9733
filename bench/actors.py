#!/usr/bin/env python3
"""Actors and futures: latency, time to wake, memory, alarms, and spawned tasks; beside Ray's.

    python3 bench/actors.py --weft target/release/weft --guests target/guests [--only latency,wake,memory,alarms,fanout] [--ledger bench/actors.jsonl]
    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements.txt && VENV/bin/python bench/actors.py .. --ray

One server, `weft up` on a folder of its own, and a client on the same machine that sends over HTTP, on connections that stay open. Parts:

    latency   Invocations of `examples/bank`, one after the other on each connection, on 1 and on 64 of them, each with an account of its own: reads
              (`balance`) and durable writes (`deposit`); writes of 64 connections to one account; and `hello/echo`, which has no state.
    wake      The first invocation of a key: of a new one, of one whose instance is gone, and of one whose shard is closed, too.
    memory    RssAnon + RssShmem of all processes: before, when 10,000 accounts were written to, and when they are idle.
    alarms    10,000 sessions (`examples/sessions`) that expire at one moment. Before, the server is killed, and after it, started again: how long it
              takes from there until the last alarm has run.
    fanout    10,000 tasks that do next to nothing, spawned and joined by one (`examples/fanout`).

With --ray, Ray does the same where it can, with a client in its driver: its actors are processes, its writes are in memory, and it has no alarms.
A line of JSON for each figure, and a table at the end. The exit code is 1 where a part fails.
"""
import argparse, json, os, signal, statistics, subprocess, sys, tempfile, threading, time, urllib.parse

import bank, measure
from serving import Line, Server, at, told

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONNECTIONS = 64
SESSION = "sessions/session"
PAGE = 500
DEADLINE_MS = 600_000
# Until instances (60 s) and shards (30 s more) of idle actors are gone.
IDLE_S = 100
LOOK_S = 0.1
ALARMS_MAX_S = 600


class Figures:
    """What was measured, told as it comes."""

    def __init__(self, head, ledger):
        self.head, self.ledger, self.all = head, ledger, []

    def add(self, system, name, **values):
        row = {"system": system, "figure": name, **values}
        self.all.append(row)
        line = json.dumps({**row, **self.head, "load": round(os.getloadavg()[0], 2)})
        print(line, flush=True)
        if self.ledger:
            with open(self.ledger, "a") as ledger:
                ledger.write(line + "\n")

    def table(self):
        lines = ["| figure | system | |", "|---|---|---|"]
        for row in sorted(self.all, key=lambda row: row["figure"]):
            values = ", ".join(f"{name} {value:,}" for name, value in row.items() if isinstance(value, (int, float)))
            lines.append(f"| {row['figure']} | {row['system']} | {values} |")
        return "\n".join(lines)


def latency_of(seconds, took_s):
    """Percentiles of latencies, for a figure."""
    ordered = sorted(seconds)
    return {"n": len(ordered), "p50_ms": round(at(ordered, 0.5) * 1e3, 3), "p99_ms": round(at(ordered, 0.99) * 1e3, 3),
            "per_second": round(len(ordered) / took_s, 1)}


# ---- the client

def insist(server, request, expected=(200,)):
    """The body of an answer; `busy` is asked for again."""
    line = Line(server.address, DEADLINE_MS / 1e3)
    try:
        for _ in range(200):
            status, body = line.ask(request)
            if status != 429:
                break
            time.sleep(0.05)
        if status not in expected:
            raise RuntimeError(f"{request[:80]!r} is answered by {told(status, body)}")
        return body
    finally:
        line.close()


def drive(server, lanes, warm=None):
    """Sends the requests of each lane one after the other on a connection of its own. Gives all latencies, and how long it took. `warm`: a request
    that each connection begins with, and that does not count."""
    took, wrong, began = [], [], []
    barrier = threading.Barrier(len(lanes), lambda: began.append(time.perf_counter()))

    def run(lane):
        line = Line(server.address)
        try:
            if warm:
                line.ask(warm)
            barrier.wait()
            for request in lane:
                sent = time.perf_counter()
                status, body = line.ask(request)
                took.append(time.perf_counter() - sent)
                if status != 200:
                    return wrong.append(told(status, body))
        except Exception as error:  # whatever it is, the others must not wait for it
            barrier.abort()
            wrong.append(repr(error))
        finally:
            line.close()
    threads = [threading.Thread(target=run, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise RuntimeError(f"{len(wrong)} connections failed: {wrong[0]}")
    return took, time.perf_counter() - began[0]


def ask_bank(server, key, method, body=""):
    return server.request("POST", bank.path(key, method), body.encode(), "content-type: application/octet-stream")


def deposit(server, key):
    return ask_bank(server, key, "deposit", bank.deposit(1))


def read(server, key):
    return ask_bank(server, key, "balance")


def spread(items, lanes=CONNECTIONS):
    return [items[n::lanes] for n in range(lanes)]


def memory_mib(pid, shares=False):
    """Anonymous and shared memory of the tree of processes. `shares`: they map the same memory, which counts once."""
    anonymous, shared = zip(*map(measure.memory_kib, measure.tree(pid)))
    return round((sum(anonymous) + (max if shares else sum)(shared)) / 1024, 1)


# ---- parts

def latency(a, server, figures):
    echo = server.request("POST", "/v1/invoke/hello/echo", b"ada", "content-type: text/plain")
    cases = {"read": lambda key: read(server, key), "durable write": lambda key: deposit(server, key), "task without state": lambda key: echo}
    for name, request in cases.items():
        for connections in (1, CONNECTIONS):
            n = a.calls if connections == 1 else 10 * a.calls
            keys = [f"hot-{connections}-{at}" for at in range(connections)]
            drive(server, [[request(key)] for key in keys])
            took = drive(server, [[request(key)] * (n // connections) for key in keys], warm=request(keys[0]))
            figures.add("Weft", f"{name}, {connections} at a time", **latency_of(*took))
    one = deposit(server, "hot-one")
    took = drive(server, [[one] * (10 * a.calls // CONNECTIONS)] * CONNECTIONS, warm=one)
    figures.add("Weft", f"durable write, {CONNECTIONS} at a time, one actor", **latency_of(*took))


def created(a, server):
    """Keys of accounts that were written to, each once."""
    keys = [f"cold-{n}" for n in range(a.actors)]
    began = time.perf_counter()
    drive(server, spread([deposit(server, key) for key in keys]))
    return keys, time.perf_counter() - began


def wake(a, server, figures):
    new = [read(server, f"new-{n}") for n in range(a.wakes)]
    figures.add("Weft", "first invocation of a new key", **latency_of(*drive(server, [new], read(server, "hot-0"))))
    keys, _ = created(a, server)
    # The first of so many: their instances have gone for those that came after them.
    gone = [read(server, key) for key in keys[:a.wakes]]
    figures.add("Weft", "first invocation of a hibernated actor", **latency_of(*drive(server, [gone], read(server, "hot-0"))))
    of_shards = {actor["shard"]: actor["key"] for page in pages(server, bank.ACTOR) for actor in page["actors"]}
    time.sleep(a.idle)
    echo = server.request("POST", "/v1/invoke/hello/echo", b"ada", "content-type: text/plain")
    took, _ = drive(server, [[read(server, key) for key in of_shards.values()]], echo)
    ordered = sorted(took)
    figures.add("Weft", "first invocation in a closed shard", n=len(took), p50_ms=round(at(ordered, 0.5) * 1e3, 3), max_ms=round(ordered[-1] * 1e3, 3))


def memory(a, server, figures):
    drive(server, spread([deposit(server, f"warm-{n}") for n in range(CONNECTIONS)]))
    time.sleep(a.idle)
    before = memory_mib(server.pid)
    keys, took_s = created(a, server)
    written = memory_mib(server.pid)
    time.sleep(a.idle)
    idle = memory_mib(server.pid)
    figures.add("Weft", f"memory of {len(keys):,} hibernated actors", before_mib=before, written_mib=written, idle_mib=idle,
                kib_an_actor=round((idle - before) * 1024 / len(keys), 2), seconds_to_write=round(took_s, 1))


def alarms(a, server, figures):
    """Starts the server again. Gives the new one."""
    due = time.time() + a.set_seconds

    def touch(key):
        body = json.dumps({"idle_ms": max(1, int((due - time.time()) * 1e3))}).encode()
        return server.request("POST", f"/v1/actors/{SESSION}/{key}/touch", body, "content-type: application/octet-stream")
    keys = [f"session-{n}" for n in range(a.alarms)]
    began = time.perf_counter()
    # Made when they are sent, so that all are due at one moment.
    drive(server, [map(touch, lane) for lane in spread(keys)])
    set_s = time.perf_counter() - began
    n_set = sum(actor["alarm_ms"] is not None for page in pages(server, SESSION) for actor in page["actors"])
    if time.time() > due or n_set != len(keys):
        raise RuntimeError(f"{n_set} of {len(keys)} alarms are set after {set_s:.0f} s, and they are due after {a.set_seconds} s: raise --set-seconds")
    server.process.kill()
    server.process.wait()
    time.sleep(max(0, due - time.time()) + 1)
    server = start(a, os.path.dirname(server.data))
    try:
        began = time.perf_counter()
        for _ in pages(server, SESSION, lambda actor: actor["alarm_ms"] is None, began + ALARMS_MAX_S):
            pass
        took_s = time.perf_counter() - began
        figures.add("Weft", f"{len(keys):,} alarms due at a restart", seconds=round(took_s, 2), per_second=round(len(keys) / took_s, 1),
                    seconds_to_set=round(set_s, 1))
    except BaseException:
        server.stop()
        raise
    return server


def pages(server, of, is_right=lambda actor: True, until=None):
    """Pages of all actors of a kind. One is asked for again until all of its actors are right."""
    after = None
    while True:
        query = {"limit": PAGE, **({"after": after} if after is not None else {})}
        request = server.request("GET", f"/v1/actors/{of}?{urllib.parse.urlencode(query)}")
        page = json.loads(insist(server, request))
        if all(map(is_right, page["actors"])):
            yield page
            after = page["next"]
            if after is None:
                return
        elif until and time.perf_counter() > until:
            raise RuntimeError(f"after {ALARMS_MAX_S} s there are still alarms, as that of {next(a for a in page['actors'] if not is_right(a))}")
        else:
            time.sleep(LOOK_S)


def fanout(a, server, figures):
    n = a.tasks
    request = server.request("POST", f"/v1/invoke/fanout/sum?deadline_ms={DEADLINE_MS}", str(n).encode(), "content-type: text/plain")
    took = []
    for _ in range(a.runs):
        began = time.perf_counter()
        answer = insist(server, request)
        took.append(time.perf_counter() - began)
        if int(answer) != n * (n + 1) * (2 * n + 1) // 6:
            raise RuntimeError(f"{n} squares add up to {answer[:100]}")
    median = statistics.median(took)
    figures.add("Weft", f"{n:,} tasks spawned and joined", seconds=round(median, 2), longest_s=round(max(took), 2), per_second=round(n / median, 1))


# ---- all of them

PARTS = {"latency": latency, "wake": wake, "memory": memory, "alarms": alarms, "fanout": fanout}


def start(a, folder):
    return Server(os.path.abspath(a.weft), folder, *(["--slots", str(a.slots)] if a.slots else []))


def measured(part, a, figures):
    """Runs a part on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="weft-actors-") as folder:
        server = start(a, folder)
        try:
            for guest in ("hello", "bank", "sessions", "fanout"):
                with open(os.path.join(a.guests, f"{guest}.wasm"), "rb") as file:
                    insist(server, server.upload(file.read()), (200, 201))
            server = PARTS[part](a, server, figures) or server
        finally:
            server.stop()


def beside_ray(a, figures):
    folder = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, os.path.join(folder, "actors_ray.py"), "--calls", str(a.calls), "--tasks", str(a.tasks), "--wakes", str(a.wakes)]
    env = dict(os.environ, PYTHONPATH=folder, PYTHONWARNINGS="ignore", PYTHONDONTWRITEBYTECODE="1")
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
    try:
        for line in child.stdout:
            if line.startswith('{"figure"'):
                row = json.loads(line)
                figures.add("Ray", row.pop("figure"), **row)
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # of its own session: what it left behind
        except ProcessLookupError:
            pass
    if child.wait() not in (0, -signal.SIGKILL):
        raise RuntimeError(f"Ray ended with {child.returncode}")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of components: hello, bank, sessions, fanout")
    p.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between them [default: {','.join(PARTS)}]")
    p.add_argument("--ray", action="store_true", help="Ray as well, which this Python must have")
    p.add_argument("--slots", type=int, help="of the server [default: one for each core]")
    p.add_argument("--calls", type=int, default=2_000, help="of one connection; ten times as many of 64 [default: 2000]")
    p.add_argument("--wakes", type=int, default=500, help="keys whose first invocation is timed [default: 500]")
    p.add_argument("--actors", type=int, default=10_000, help="of `wake` and `memory` [default: 10000]")
    p.add_argument("--alarms", type=int, default=10_000, help="[default: 10000]")
    p.add_argument("--tasks", type=int, default=10_000, help="of `fanout` [default: 10000]")
    p.add_argument("--runs", type=int, default=3, help="of `fanout` [default: 3]")
    p.add_argument("--idle", type=float, default=IDLE_S, help=f"seconds after which nothing of an idle actor is in memory [default: {IDLE_S}]")
    p.add_argument("--set-seconds", type=float, default=120, help="from the first alarm's setting until all are due [default: 120]")
    p.add_argument("--ledger", help="file to which the lines are added")
    p.add_argument("--commit", help="of the binary [default: that of this checkout]")
    a = p.parse_args()
    a.only = a.only.split(",")
    if unknown := set(a.only) - set(PARTS):
        p.error(f"no part {unknown}")
    return a


def main():
    a, failed = arguments(), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    head = {"commit": a.commit or measure.commit(ROOT), "machine": measure.machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    print(f"commit {head['commit']}, {head['machine']}, load {os.getloadavg()[0]:.1f}", flush=True)
    figures = Figures(head, a.ledger)
    for part in a.only + (["ray"] if a.ray else []):
        try:
            beside_ray(a, figures) if part == "ray" else measured(part, a, figures)
        except (RuntimeError, OSError, ValueError) as error:
            print(f"{part} fails: {error}", flush=True)
            failed.append(part)
    print(figures.table())
    print(f"{len(failed)} parts fail{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
