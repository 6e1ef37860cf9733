#!/usr/bin/env python3
"""How long clients of a cluster wait when its leader is killed or paused, and how soon a lost node is noticed.

    python3 bench/failover.py --weft target/release/weft --guests target/guests --kills 30 --pauses 15

Three controllers and two nodes run on this machine. Two clients submit jobs of one task that does nothing, each under a key, through any
controller, again until there is an answer. The leader is killed with SIGKILL, or stopped for 5 s, then started again. A figure is the time from
the fault to the first answer to a job that was begun after it, whichever client had it; the longest time that any single submission took is
given beside it. Nodes are killed as well: the figure is the time until the leader has given the node up, which its log says.
"""
import argparse, json, os, random, re, signal, statistics, tempfile, threading, time

import measure
from chaos import Cluster

PAUSE_S = 5
SETTLE_S = 3


class Client(threading.Thread):
    def __init__(self, cluster, name):
        super().__init__(daemon=True)
        self.cluster, self.name_, self.answers, self.stop = cluster, name, [], False

    def run(self):
        draw, number = random.Random(self.name_), 0
        body = json.dumps({"name": "failover", "stage": [{"name": "noop", "task": "hello/noop", "count": 1}]})
        while not self.stop:
            number += 1
            began = time.monotonic()
            headers = {"content-type": "application/json", "idempotency-key": f"{self.name_}-{number}"}
            answer = self.cluster.insist(draw, began + 60, "POST", "/v1/jobs", body, headers, timeout=1)
            if answer is None or answer[0] not in (200, 201):
                raise SystemExit(f"a job is answered with {answer}")
            self.answers.append((began, time.monotonic()))
            time.sleep(0.005)


def told(name, seconds):
    if seconds:
        print(f"{name}: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)}", flush=True)


def settle(cluster, draw):
    cluster.up()
    time.sleep(SETTLE_S + draw.random())


def of_leader(cluster, clients, draw, n, fault):
    first, longest = [], []
    for _ in range(n):
        pid = cluster.processes[cluster.leader()]["pid"]
        at = time.monotonic()
        fault(pid)
        while not any(began > at for client in clients for began, _ in client.answers[-1:]):
            time.sleep(0.002)
        answered = [ended for client in clients for began, ended in list(client.answers) if began > at]
        first.append(min(answered) - at)
        if fault is pause:
            time.sleep(PAUSE_S)
            os.kill(pid, signal.SIGCONT)
        settle(cluster, draw)
        longest.append(max(ended - began for client in clients for began, ended in list(client.answers) if ended > at))
    return first, longest


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def pause(pid):
    os.kill(pid, signal.SIGSTOP)


def of_nodes(cluster, draw, n):
    noticed = []
    for _ in range(n):
        logs = [process["log"] for name, process in cluster.processes.items() if name.startswith("controller")]
        count = lambda: sum(len(re.findall("node lost", open(log).read())) for log in logs)
        before, at = count(), time.monotonic()
        os.kill(cluster.processes["node-2"]["pid"], signal.SIGSTOP)
        while count() == before:
            time.sleep(0.01)
        noticed.append(time.monotonic() - at)
        os.kill(cluster.processes["node-2"]["pid"], signal.SIGCONT)
        settle(cluster, draw)
    return noticed


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components")
    p.add_argument("--kills", type=int, default=30)
    p.add_argument("--pauses", type=int, default=15)
    p.add_argument("--nodes", type=int, default=5, help="nodes that are paused until they are given up")
    a = p.parse_args()
    draw = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="weft-failover-") as folder:
        cluster = Cluster(os.path.abspath(a.weft), folder, 3, 2)
        try:
            wasm = open(os.path.join(a.guests, "hello.wasm"), "rb").read()
            cluster.insist(draw, time.monotonic() + 60, "POST", "/v1/components", wasm, {"content-type": "application/wasm"})
            clients = [Client(cluster, f"client-{n}") for n in range(2)]
            for client in clients:
                client.start()
            time.sleep(1)
            print(f"commit {measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}, {measure.machine()}, load {os.getloadavg()[0]:.1f}")
            for name, n, fault in (("kills", a.kills, kill), ("pauses", a.pauses, pause)):
                first, longest = of_leader(cluster, clients, draw, n, fault)
                told(f"{name} of the leader, first answer after", first)
                told(f"{name} of the leader, longest submission", longest)
            told("a silent node is given up after", of_nodes(cluster, draw, a.nodes))
            for client in clients:
                client.stop = True
        finally:
            cluster.verb("down")


if __name__ == "__main__":
    main()
