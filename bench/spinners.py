#!/usr/bin/env python3
"""Whether calls of one function that spin keep calls of another one waiting.

    python3 bench/spinners.py --weft target/release/weft --guests target/guests [--rounds 5] [--spinning 8]

One server with two slots. Rounds are interleaved: calls of `mirror/echo`, one after the other, alone; and the same beside calls of
`vandal/spin-for-ever`, which end at their deadlines and begin anew. Percentiles are over the calls of all rounds.
"""
import argparse, http.client, os, shutil, tempfile, threading, time

import measure
from cluster_latency import Up

CALLS = 500
DEADLINE_MS = 5_000


def deploy(up, guests, names):
    for name in names:
        wasm = open(os.path.join(guests, name + ".wasm"), "rb").read()
        for _ in range(200):
            connection = http.client.HTTPConnection(up.address)
            connection.request("POST", "/v1/components", wasm, {"authorization": f"Bearer {up.token}", "content-type": "application/wasm"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 429:
                break
            time.sleep(0.05)
        if answer.status not in (200, 201):
            raise SystemExit(f"{name} is not deployed: {answer.status} {body[:200]}")


def echo(up, times):
    connection = http.client.HTTPConnection(up.address)
    headers = {"authorization": f"Bearer {up.token}", "content-type": "text/plain"}
    for _ in range(CALLS):
        began = time.perf_counter()
        connection.request("POST", "/v1/invoke/mirror/echo", b"ada", headers)
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - began)
        if (answer.status, body) != (200, b"ada"):
            raise SystemExit(f"a call is answered with {answer.status} {body[:200]}")


class Spinners:
    """Calls that spin, one after the other on each of several threads, until they are told to stop."""
    def __init__(self, up, n):
        self.up, self.stopped, self.ended = up, threading.Event(), []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(n)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopped.is_set():
            connection = http.client.HTTPConnection(self.up.address, timeout=60)
            headers = {"authorization": f"Bearer {self.up.token}", "content-type": "application/octet-stream"}
            connection.request("POST", f"/v1/invoke/vandal/spin-for-ever?deadline_ms={DEADLINE_MS}", b"", headers)
            answer = connection.getresponse()
            answer.read()
            self.ended.append(answer.status)
            connection.close()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def at(times, fraction):
    return sorted(times)[min(len(times) - 1, int(fraction * len(times)))] * 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--spinning", type=int, default=8)
    a = p.parse_args()
    folder = tempfile.mkdtemp(prefix="weft-spinners-")
    up = Up(os.path.abspath(a.weft), folder)
    try:
        deploy(up, a.guests, ["mirror", "vandal"])
        echo(up, [])
        rows, ended = {"alone": [], "beside": []}, 0
        for _ in range(a.rounds):
            echo(up, rows["alone"])
            spinners = Spinners(up, a.spinning)
            time.sleep(1)
            echo(up, rows["beside"])
            spinners.stop()
            wrong = [status for status in spinners.ended if status != 422]
            if wrong:
                raise SystemExit(f"calls that spin are answered with {wrong[:5]}, and not at their deadline")
            ended += len(spinners.ended)
    finally:
        up.process.kill()
        up.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    commit = measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(f"commit {commit}, load {os.getloadavg()[0]:.1f}, {a.rounds} rounds of {CALLS} calls, {a.spinning} spinning, {ended} of them ended at their deadline")
    for name, times in rows.items():
        print(f"{name:7} p50 {at(times, 0.5):.2f} ms, p90 {at(times, 0.9):.2f} ms, p99 {at(times, 0.99):.2f} ms")
    for fraction in (0.5, 0.99):
        print(f"p{fraction * 100:g}: {at(rows['beside'], fraction) / at(rows['alone'], fraction):.2f}x")


if __name__ == "__main__":
    main()
