#!/usr/bin/env python3
"""How much slower a cluster of three controllers and two nodes is than one server, on one machine.

    python3 bench/cluster_latency.py --weft target/release/weft --guests target/guests [--rounds 5]

Rounds are interleaved: invocations one after the other on one connection (through a follower, of the cluster), and a job of 10,000 tasks that do
nothing. Medians over the rounds are given, and the ratio. `weft up` has two slots, each node of the cluster one. The cluster's time to ready is
that of `weft cluster up` on a new folder.
"""
import argparse, http.client, json, os, random, shutil, statistics, subprocess, tempfile, time

import measure
from chaos import Cluster

INVOCATIONS = 1000
TASKS = 10_000


class Up:
    def __init__(self, weft, folder):
        self.data = os.path.join(folder, "up")
        self.log = open(os.path.join(folder, "up.log"), "w+")
        self.process = subprocess.Popen([weft, "--data", self.data, "up", "--listen", "127.0.0.1:0", "--slots", "2"], stderr=self.log)
        until = time.monotonic() + 30
        while "weft is ready on http://" not in open(self.log.name).read():
            if time.monotonic() > until:
                raise SystemExit("weft up is not ready")
            time.sleep(0.01)
        self.address = open(self.log.name).read().split("weft is ready on http://")[1].split()[0]
        self.token = open(os.path.join(self.data, "token")).read().strip()


def ask(connection, token, method, path, body=None, headers={}):
    connection.request(method, path, body, {"authorization": f"Bearer {token}", **headers})
    answer = connection.getresponse()
    return answer.status, answer.read()


def insist(connection, token, *request):
    for _ in range(200):
        status, body = ask(connection, token, *request)
        if status != 429:
            return status, body
        time.sleep(0.05)
    raise SystemExit(f"busy: {request[:2]}")


def invocations(address, token):
    connection = http.client.HTTPConnection(address)
    took = []
    for _ in range(INVOCATIONS):
        began = time.perf_counter()
        status, body = ask(connection, token, "POST", "/v1/invoke/mirror/echo", b"ada", {"content-type": "text/plain"})
        took.append(time.perf_counter() - began)
        if (status, body) != (200, b"ada"):
            raise SystemExit(f"an invocation is answered with {status} {body[:200]}")
    return statistics.median(took)


def tasks(address, token):
    connection = http.client.HTTPConnection(address)
    body = json.dumps({"name": "noop", "stage": [{"name": "noop", "task": "hello/noop", "count": TASKS}]})
    began = time.perf_counter()
    status, told = ask(connection, token, "POST", "/v1/jobs", body, {"content-type": "application/json"})
    id = json.loads(told)["id"]
    while True:
        job = json.loads(ask(connection, token, "GET", f"/v1/jobs/{id}")[1])
        if job["status"] not in ("planning", "running", "publishing"):
            break
        time.sleep(0.01)
    if job["status"] != "succeeded":
        raise SystemExit(f"the job is {job}")
    return time.perf_counter() - began


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    weft, ready = os.path.abspath(a.weft), []
    with tempfile.TemporaryDirectory(prefix="weft-latency-") as folder:
        for n in range(3):
            began = time.perf_counter()
            cluster = Cluster(weft, os.path.join(folder, str(n)), 3, 2)
            ready.append(time.perf_counter() - began)
            if n < 2:
                cluster.verb("down")
        up = Up(weft, folder)
        try:
            leader = int(cluster.leader().split("-")[1]) - 1
            follower = cluster.addresses[(leader + 1) % 3]
            for address, token in ((up.address, up.token), (follower, cluster.token)):
                for guest in ("hello", "mirror"):
                    wasm = open(os.path.join(a.guests, guest + ".wasm"), "rb").read()
                    status, told = insist(http.client.HTTPConnection(address), token, "POST", "/v1/components", wasm,
                                          {"content-type": "application/wasm"})
                    if status not in (200, 201):
                        raise SystemExit(f"{guest} is not deployed: {told[:300]}")
                invocations(address, token)
            rows = {"invocation": ([], []), "10,000 tasks": ([], [])}
            for _ in range(a.rounds):
                for name, of in (("invocation", invocations), ("10,000 tasks", tasks)):
                    rows[name][0].append(of(up.address, up.token))
                    rows[name][1].append(of(follower, cluster.token))
            print(f"commit {measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))}, {measure.machine()}, load {os.getloadavg()[0]:.1f}")
            print(f"weft cluster up, to ready: {statistics.median(ready):.2f} s, longest {max(ready):.2f} s, of {len(ready)}")
            for name, (one, group) in rows.items():
                one, group = statistics.median(one), statistics.median(group)
                print(f"{name}: {one * 1000:.2f} ms with weft up, {group * 1000:.2f} ms through a follower, {group / one:.2f}x, of {a.rounds} rounds")
        finally:
            up.process.terminate()
            up.process.wait()
            cluster.verb("down")


if __name__ == "__main__":
    main()
