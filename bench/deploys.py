#!/usr/bin/env python3
"""How long calls take while somebody deploys: `hello/echo` on four connections, alone and beside 100 deployments, in turn.

    python3 bench/deploys.py --weft target/release/weft --guests target/guests --rounds 4

Each connection is a process that calls, sleeps a millisecond, and calls again; all four are one client, with a session of its own. Another
client with a session of its own uploads `weblog`, one component after the other, each with a custom section that makes it new to the
server and under a version that ends in `-dev`, so that each is stored, compiled, described and registered. A session of its own matters:
the kernel may share cores among sessions rather than processes.
"""
import argparse, gc, mmap, multiprocessing, os, signal, statistics, sys, tempfile, time
from array import array

import measure, variants
from serving import Line, Server, at, told

CONNECTIONS = 4
PAUSE_S = 0.001
BODY = b"hello"
# Copies of this process: they have the modules and the requests already, and nothing but the work to do.
fork = multiprocessing.get_context("fork")


def calls(address, request, until_stopped, results):
    """Calls until the byte is set. Sends the nanoseconds of each, and the CPU time of this process."""
    gc.disable()
    line, times, clock = Line(address), array("q"), time.perf_counter_ns
    while not until_stopped[0]:
        began = clock()
        status, body = line.ask(request)
        times.append(clock() - began)
        if status != 200 or body != BODY:
            raise SystemExit(f"a call was answered with {told(status, body)}")
        time.sleep(PAUSE_S)
    results.send((times.tobytes(), time.process_time()))


def client(address, request, until_stopped, results):
    """The client: a session, and a process for each connection."""
    os.setsid()
    pipes = [fork.Pipe(duplex=False) for _ in range(CONNECTIONS)]
    workers = [fork.Process(target=calls, args=(address, request, until_stopped, pipe[1])) for pipe in pipes]
    for worker, (_, theirs) in zip(workers, pipes):
        worker.start()
        theirs.close()
    try:
        results.send([ours.recv() for ours, _ in pipes])
    except EOFError:
        until_stopped[0] = 1  # one of them failed, and has said why
    for worker in workers:
        worker.join()


def deploy(address, uploads, results):
    """Sends one after the other, and the nanoseconds of each."""
    os.setsid()
    line, times = Line(address, timeout_s=300), []
    for upload in uploads:
        began = time.perf_counter_ns()
        status, body = line.ask(upload)
        times.append(time.perf_counter_ns() - began)
        if status != 201:
            raise SystemExit(f"a deployment was answered with {told(status, body)}")
    results.send(times)


def start(what, *arguments):
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=what, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


def result(process, pipe):
    try:
        return pipe.recv()
    except EOFError:
        raise SystemExit("a client failed, see above") from None


def end(process):
    """Has a client gone, with all processes of its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()  # it has not made its session yet, or has ended
    process.join()


def phase(server, request, seconds, uploads=()):
    """Measures calls, beside deployments where there are any, for as long as these take."""
    load = os.getloadavg()[0]
    stopped = mmap.mmap(-1, 1)  # shared with the copies
    began = time.perf_counter()
    clients, deployed = [start(client, server.address, request, stopped)], []
    try:
        if uploads:
            time.sleep(0.2)  # until all connections are there
            clients.append(start(deploy, server.address, uploads))
            deployed = result(*clients[1])
        else:
            time.sleep(seconds)
        stopped[0] = 1
        answers = result(*clients[0])
        wall = time.perf_counter() - began
    finally:
        for process, _ in clients:
            end(process)
    times = sorted(ns for data, _ in answers for ns in array("q", data))
    return {"times": times, "deployed": deployed, "wall_s": wall, "load": load, "cpu": sum(cpu for _, cpu in answers) / wall}


FRACTIONS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def row(what, times, told=""):
    return f"| {what} | {len(times):,} | " + " | ".join(f"{at(times, fraction) / 1e6:.2f}" for fraction in FRACTIONS.values()) + f" | {told} |"


def summary(alone, beside):
    """All rounds as one, and the quantiles of beside over those of alone: of the median round, because one stall of the machine makes a maximum."""
    pooled = [sorted(ns for phase in phases for ns in phase["times"]) for phases in (alone, beside)]
    print(row("all alone", pooled[0]))
    print(row("all beside", pooled[1]))
    print("\nBeside over alone, the median of rounds:", end=" ")
    for name, fraction in FRACTIONS.items():
        of = [statistics.median(at(phase["times"], fraction) for phase in phases) / 1e6 for phases in (alone, beside)]
        print(f"{name} {of[1]:.2f} over {of[0]:.2f} ms = {of[1] / of[0]:.1f}", end=", " if fraction < 1 else ".\n")
    deployed = sorted(ns / 1e6 for phase in beside for ns in phase["deployed"])
    print(f"{len(deployed)} deployments: median {at(deployed, 0.5):.0f} ms, p99 {at(deployed, 0.99):.0f} ms, longest {deployed[-1]:.0f} ms.")


def measured(server, a, weblog):
    echo = server.request("POST", "/v1/invoke/hello/echo", BODY)
    phase(server, echo, 2)  # warms up
    print("| | calls | p50, ms | p99 | p99.9 | max | |\n|---|--:|--:|--:|--:|--:|---|", flush=True)
    alone, beside = [], []
    for number in range(a.rounds):
        notes = (b"%d of %d in round %d" % (deployment, a.deployments, number) for deployment in range(a.deployments))
        uploads = [server.upload(variants.with_note(weblog, note)) for note in notes]
        for phases, uploads in (alone, ()), (beside, uploads):
            one = phase(server, echo, a.seconds, uploads)
            phases.append(one)
            what = f"{one['wall_s']:.1f} s, load {one['load']:.2f} before, client's CPU {one['cpu']:.2f} cores"
            if uploads:
                what += f", deployments {statistics.median(one['deployed']) / 1e6:.0f} ms"
            print(row(f"{number + 1} {'beside' if uploads else 'alone'}", one["times"], what), flush=True)
            time.sleep(1)
    summary(alone, beside)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weft", required=True, help="the binary")
    parser.add_argument("--guests", required=True, help="the folder with hello.wasm and weblog.wasm")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement alone")
    parser.add_argument("--deployments", type=int, default=100, help="of each round")
    a = parser.parse_args()
    # So that the server is stopped and its folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hello, weblog = (open(f"{a.guests}/{name}.wasm", "rb").read() for name in ("hello", "weblog"))
    with tempfile.TemporaryDirectory(prefix="weft-deploys-") as work:
        server = Server(os.path.abspath(a.weft), work)
        try:
            status, body = Line(server.address).ask(server.upload(hello))
            if status != 201:
                raise SystemExit(f"hello cannot be deployed: {told(status, body)}")
            machine = measure.machine()
            commit = measure.commit(os.path.dirname(os.path.abspath(__file__)))
            print(f"Commit {commit}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB.\n")
            measured(server, a, variants.with_suffix(weblog, "-dev"))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
