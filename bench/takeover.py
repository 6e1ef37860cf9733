#!/usr/bin/env python3
"""How long a job of 100,000 tasks stands still when its server is killed: from the ready line of the next process to the next committed task.

    python3 bench/takeover.py --weft target/release/weft [--weft OTHER] --guests target/guests --runs 5

Each run submits no-op tasks to a server of its own, kills it with SIGKILL once some are committed, and starts it again on the same folder.
Of two binaries, runs take turns. The job is then left to end, so that every task is counted once: what it takes says whether a step of the
scheduler grows with the tasks that are left.
"""
import argparse, json, os, statistics, sys, tempfile, time

import measure
from serving import Line, Server, told

PAUSE_S = 0.005


class Job:
    def __init__(self, server, tasks):
        body = json.dumps({"name": "takeover", "stage": [{"name": "noop", "task": "hello/noop", "count": tasks}]}).encode()
        self.id = ask(server, server.request("POST", "/v1/jobs", body, "content-type: application/json"), 201)["id"]

    def look(self, server):
        """Status, and tasks that are committed."""
        job = ask(server, server.request("GET", f"/v1/jobs/{self.id}"), 200)
        return job["status"], sum(stage["tasks_done"] for stage in job["stages"])

    def wait(self, server, done, seconds):
        """Waits for committed tasks, or the end; gives how many there were."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status, now = self.look(server)
            if now >= done or status in ("failed", "cancelled"):
                return status, now
            time.sleep(PAUSE_S)
        raise SystemExit(f"the job has {now} tasks after {seconds} s, not {done}")


def ask(server, request, expected):
    line = Line(server.address)
    status, body = line.ask(request)
    line.close()
    if status != expected:
        raise SystemExit(f"the server answers {told(status, body)}")
    return json.loads(body)


def run(weft, hello, a):
    """Tasks at the kill; seconds to ready, to the next committed task, and to the last."""
    with tempfile.TemporaryDirectory(prefix="weft-takeover-") as work:
        server = Server(weft, work)
        try:
            ask(server, server.upload(hello), 201)
            job = Job(server, a.tasks)
            job.wait(server, a.kill_after, 60)
            server.process.kill()
            server.process.wait()
            began = time.monotonic()
            server = Server(weft, work)
            ready = time.monotonic()
            _, before = job.look(server)
            job.wait(server, before + 1, 60)
            next_task = time.monotonic()
            status, done = job.wait(server, a.tasks, 600)
            last = time.monotonic()
            # Publishing and archiving follow the last task.
            while status not in ("succeeded", "failed", "cancelled"):
                time.sleep(PAUSE_S)
                status, done = job.look(server)
            if (status, done) != ("succeeded", a.tasks):
                raise SystemExit(f"the job ended as {status} with {done} tasks")
            return before, ready - began, next_task - ready, last - next_task
        finally:
            server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weft", required=True, action="append", help="a binary; several take turns")
    parser.add_argument("--guests", required=True, help="the folder with hello.wasm")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--kill-after", type=int, default=500, help="committed tasks")
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    with open(f"{a.guests}/hello.wasm", "rb") as file:
        hello = file.read()
    machine = measure.machine()
    commit = measure.commit(os.path.dirname(os.path.abspath(__file__)))
    print(f"Commit {commit}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; load {os.getloadavg()[0]:.2f}.\n")
    print("| binary | tasks at the kill | to ready, s | to the next task, s | to the last task, s |\n|---|--:|--:|--:|--:|")
    results = {weft: [] for weft in a.weft}
    for _ in range(a.runs):
        for weft in a.weft:
            result = run(os.path.abspath(weft), hello, a)
            results[weft].append(result)
            print(f"| {weft} | {result[0]:,} | " + " | ".join(f"{s:.2f}" for s in result[1:]) + " |", flush=True)
    for weft, of in results.items():
        ready, next_task, last = (statistics.median(column) for column in list(zip(*of))[1:])
        print(f"\n{weft}, median of {a.runs}: ready after {ready:.2f} s, next task after {next_task:.2f} s, all {a.tasks:,} after {last:.2f} s; load {os.getloadavg()[0]:.2f}.")


if __name__ == "__main__":
    sys.exit(main())
