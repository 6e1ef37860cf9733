#!/usr/bin/env python3
"""Ray's side of `actors.py`: prints a line of JSON for each figure, under the names that it has there.

A call is `ray.get` of a method in the driver. 64 at a time are 64 threads that call one actor. An actor is a process, so few of them are started for
what one costs; their state is in memory, and gone with them.
"""
import argparse, json, os, sys, tempfile, threading, time

import measure
from actors import CONNECTIONS, latency_of, memory_mib
from peers_tasks import start_ray

MEMORY_ACTORS = 20
WARM_CALLS = 100
# Each is the start of a process.
MAX_WAKES = 20


def told(figure, **values):
    print(json.dumps({"figure": figure, **values}), flush=True)


def timed(call, n):
    took, began = [], time.perf_counter()
    for _ in range(n):
        sent = time.perf_counter()
        call()
        took.append(time.perf_counter() - sent)
    return took, time.perf_counter() - began


def at_a_time(call, n, threads):
    took, began = [], time.perf_counter()
    all_ = [threading.Thread(target=lambda: took.extend(timed(call, n // threads)[0])) for _ in range(threads)]
    for thread in all_:
        thread.start()
    for thread in all_:
        thread.join()
    return took, time.perf_counter() - began


def check_loopback():
    beyond = measure.listens_beyond_loopback(os.getpid())
    if beyond:
        print(f"it listens beyond this machine: {beyond}", file=sys.stderr, flush=True)
        os._exit(3)


def calls(ray, a, Account):
    for name, of in (("read", "balance"), ("write in memory", "deposit")):
        method = getattr(Account.remote(), of)
        call = lambda: ray.get(method.remote())
        timed(call, WARM_CALLS)
        told(f"{name}, 1 at a time", **latency_of(*timed(call, a.calls)))
        told(f"{name}, {CONNECTIONS} at a time, one actor", **latency_of(*at_a_time(call, 10 * a.calls, CONNECTIONS)))


def wakes(ray, a, Account):
    kept, before = [], memory_mib(os.getpid(), shares=True)

    def first():
        kept.append(Account.remote())
        ray.get(kept[-1].balance.remote())
    n = min(a.wakes, MAX_WAKES)
    told("first invocation of a new key", **latency_of(*timed(first, n)))
    while len(kept) < MEMORY_ACTORS:
        first()
    after = memory_mib(os.getpid(), shares=True)
    told(f"memory of {len(kept)} idle actors", before_mib=before, idle_mib=after, kib_an_actor=round((after - before) * 1024 / len(kept), 1))


def tasks(ray, a):
    @ray.remote
    def square(n):
        return n * n

    # The driver spawns and joins: a task that did would hold one of the cores' workers.
    call = lambda: sum(ray.get([square.remote(n) for n in range(1, a.tasks + 1)]))
    call()
    took, _ = timed(call, 3)
    median = sorted(took)[1]
    told(f"{a.tasks:,} tasks spawned and joined", seconds=round(median, 2), longest_s=round(max(took), 2), per_second=round(a.tasks / median, 1))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--calls", type=int, default=2_000)
    p.add_argument("--wakes", type=int, default=20)
    p.add_argument("--tasks", type=int, default=10_000)
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as work:
        ray = start_ray(work, len(os.sched_getaffinity(0)))
        check_loopback()

        @ray.remote
        class Account:
            def __init__(self):
                self.money = 0

            def deposit(self):
                self.money += 1
                return self.money

            def balance(self):
                return self.money
        calls(ray, a, Account)
        tasks(ray, a)
        wakes(ray, a, Account)
        check_loopback()
        ray.shutdown()


if __name__ == "__main__":
    main()
