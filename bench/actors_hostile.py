#!/usr/bin/env python3
"""Actors beside actors and tasks that mean harm: latency of a neighbour alone, and beside each deed.

    python3 bench/actors_hostile.py --weft target/release/weft --guests target/guests [--only spin,memory,..] [--ledger bench/actors_hostile.jsonl]

One server, `weft up` on a folder of its own. The neighbour has accounts of `examples/bank` in all shards; one client reads them (`balance`) and then
writes to them (`deposit`, durable), one request after the other, over HTTP on a connection that stays open. It does so alone, and then while
four clients, which are processes of their own, do a deed of `fabric/weft/tests/guests/brute` again and again, each with a key of its own:

    spin      A turn that computes without end, until its deadline of 2 s.
    memory    A turn that takes memory without end.
    state     A turn that writes values without end, and is stopped.
    store     A turn that writes 3 MiB, which is less than it may.
    tell      A turn that sends messages without end, and is stopped.
    flood     A turn that tells itself 100 times to do the same. Once; the rest is done by its messages.
    storm     An alarm that sets itself anew, for at once.
    ring      Four actors that ask each other in a circle.
    bomb      A task that spawns itself without end.

A line of JSON for each figure: percentiles, how often as long as alone they are, and what the hostile clients were answered with.
The exit code is 1 if a p99 is above `--most` times that of the neighbour alone, if it is refused anything or holds a wrong balance, or if a deed
was never stopped by its limit.
"""
import argparse, collections, json, multiprocessing, os, signal, sys, tempfile, time, urllib.error, urllib.request

import actors, bank, measure
from serving import Line, told

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENTS = 4
ACCOUNTS = 16
HOSTILE = "/v1/actors/brute/brute"
DEADLINE_MS = 2_000
# Until nothing of a deed goes on: a bomb ends with the deadline of its first task.
CALM_S = 4
PAUSE_S = 0.01
DELETE_TRIES = 10
FORK = multiprocessing.get_context("fork")


def key(client):
    return f"hostile-{client}"


def turn(method, body="", query=""):
    """A deed in a turn of the client's own actor."""
    return lambda server, client: server.request("POST", f"{HOSTILE}/{key(client)}/{method}{query}", body.encode(), "content-type: text/plain")


def ring(server, client):
    return server.request("POST", f"{HOSTILE}/ring-{client}/ring", str(CLIENTS).encode(), "content-type: text/plain")


def bomb(server, client):
    return server.request("POST", f"/v1/invoke/brute/bomb?deadline_ms={DEADLINE_MS}", b"", "content-type: text/plain")


# The request of a client, whether it is sent again and again, and what stops it: none if nothing has to.
DEEDS = {
    "spin": (turn("spin", query=f"?deadline_ms={DEADLINE_MS}"), True, "wall"),
    "memory": (turn("eat"), True, "memory"),
    "state": (turn("put"), True, "state"),
    "store": (turn("store"), True, None),
    "tell": (turn("tell"), True, "outbox"),
    "flood": (turn("flood"), False, None),
    "storm": (turn("storm"), False, None),
    "ring": (ring, True, "guest_error"),
    "bomb": (bomb, True, "futures"),
}


# ---- hostile clients

def harm(server, client, request, again, stop, counts):
    """A hostile client, in a process of its own, until it is told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request, line, answers = request(server, client), Line(server.address), collections.Counter()
    while not stop.is_set():
        try:
            status, body = line.ask(request)
            answers[answer_of(status, body)] += 1
        except OSError as error:
            answers[type(error).__name__] += 1
            time.sleep(PAUSE_S)
        if not again:
            stop.wait()
    line.close()
    counts.put(answers)


def answer_of(status, body):
    """The limit that was reached, or else the code."""
    if status == 200:
        return "ok"
    try:
        problem = json.loads(body)
        return problem.get("limit") or problem["code"]
    except (ValueError, KeyError):
        return str(status)


def delete(server, name):
    """Ends a hostile actor, with its alarm and its messages."""
    host, port = server.address
    request = urllib.request.Request(f"http://{host}:{port}{HOSTILE}/{name}", method="DELETE", headers={"authorization": f"Bearer {server.token}"})
    for left in reversed(range(DELETE_TRIES)):
        try:
            return urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            if error.code != 429 or not left:
                raise
            time.sleep(1)


class Hostile:
    """Clients that do a deed for as long as this is entered. Then `answers` has what they were answered with."""

    def __init__(self, server, deed):
        self.server, (request, again, _) = server, DEEDS[deed]
        self.stop, self.counts, self.answers = FORK.Event(), FORK.Queue(), collections.Counter()
        self.clients = [FORK.Process(target=harm, args=(server, client, request, again, self.stop, self.counts), daemon=True)
                        for client in range(CLIENTS)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for _ in self.clients:
            self.answers.update(self.counts.get(timeout=120))
        for client in self.clients:
            client.join()
        for client in range(CLIENTS):
            for name in (key(client), f"ring-{client}"):
                delete(self.server, name)


# ---- the neighbour

OPERATIONS = {"read": actors.read, "deposit": actors.deposit}


class Neighbour:
    """One client with accounts in all shards."""

    def __init__(self, server):
        self.server, self.deposited = server, 0
        for number in range(ACCOUNTS):
            actors.insist(server, actors.deposit(server, self.account(number)))
            self.deposited += 1

    @staticmethod
    def account(number):
        return f"neighbour-{number % ACCOUNTS}"

    def latency(self, operation, seconds):
        """Percentiles of what is asked for in as many seconds, and what was refused."""
        line, took, refused = Line(self.server.address), [], []
        began = time.perf_counter()
        while (sent := time.perf_counter()) < began + seconds:
            status, body = line.ask(OPERATIONS[operation](self.server, self.account(len(took))))
            took.append(time.perf_counter() - sent)
            if status != 200:
                refused.append(told(status, body))
        line.close()
        if operation == "deposit":
            self.deposited += len(took) - len(refused)
        return actors.latency_of(took, time.perf_counter() - began), refused

    def both(self, seconds):
        return {operation: self.latency(operation, seconds) for operation in OPERATIONS}

    def balance(self):
        """Of all accounts together."""
        return sum(bank.balance(actors.insist(self.server, actors.read(self.server, self.account(number)))) for number in range(ACCOUNTS))


def compare(a, neighbour, deed, figures):
    """Has the neighbour work alone and beside a deed. Gives what is wrong."""
    alone = neighbour.both(a.seconds)
    with Hostile(neighbour.server, deed) as hostile:
        time.sleep(a.warm)
        beside = neighbour.both(a.seconds)
    wrong = []
    for name in OPERATIONS:
        (was, _), (now, refused) = alone[name], beside[name]
        ratios = {f"{p}_ratio": round(now[f"{p}_ms"] / max(was[f"{p}_ms"], 0.001), 2) for p in ("p50", "p99")}
        figures.add("Weft", f"{name} beside {deed}", **now, **ratios, alone_p50_ms=was["p50_ms"], alone_p99_ms=was["p99_ms"], refused=len(refused),
                    hostile=dict(hostile.answers), clients=CLIENTS)
        if refused:
            wrong.append(f"{name} beside {deed}: {len(refused)} are refused, as {refused[0]}")
        if ratios["p99_ratio"] > a.most:
            wrong.append(f"{name} beside {deed}: p99 is {ratios['p99_ratio']} times that alone")
    limit = DEEDS[deed][2]
    if limit and not hostile.answers[limit]:
        wrong.append(f"{deed} is never stopped by `{limit}`: {dict(hostile.answers)}")
    if neighbour.balance() != neighbour.deposited:
        wrong.append(f"after {deed} the accounts hold {neighbour.balance()}, and {neighbour.deposited} was deposited")
    time.sleep(CALM_S)
    return wrong


# ---- all of them

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of components: brute, bank")
    p.add_argument("--only", default=",".join(DEEDS), help=f"deeds, with commas between them [default: {','.join(DEEDS)}]")
    p.add_argument("--slots", type=int, help="of the server [default: one for each core]")
    p.add_argument("--seconds", type=float, default=10, help="of each operation, alone and beside each deed [default: 10]")
    p.add_argument("--warm", type=float, default=2, help="seconds from the deed's begin until the neighbour is measured [default: 2]")
    p.add_argument("--most", type=float, default=2, help="p99 beside a deed to that alone [default: 2]")
    p.add_argument("--ledger", help="file to which the lines are added")
    p.add_argument("--commit", help="of the binary [default: that of this checkout]")
    a = p.parse_args()
    a.only = a.only.split(",")
    if unknown := set(a.only) - set(DEEDS):
        p.error(f"no deed {unknown}")
    return a


def run(a, figures):
    wrong = []
    with tempfile.TemporaryDirectory(prefix="weft-hostile-") as folder:
        server = actors.start(a, folder)
        try:
            for guest in ("brute", "bank"):
                with open(os.path.join(a.guests, f"{guest}.wasm"), "rb") as file:
                    actors.insist(server, server.upload(file.read()), (200, 201))
            neighbour = Neighbour(server)
            for deed in a.only:
                wrong += compare(a, neighbour, deed, figures)
        finally:
            server.stop()
    return wrong


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    head = {"commit": a.commit or measure.commit(ROOT), "machine": measure.machine(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    print(f"commit {head['commit']}, {head['machine']}, load {os.getloadavg()[0]:.1f}", flush=True)
    figures = actors.Figures(head, a.ledger)
    wrong = run(a, figures)
    print(figures.table())
    print("\n".join(wrong) or f"every p99 is at most {a.most:g} times that of the neighbour alone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
