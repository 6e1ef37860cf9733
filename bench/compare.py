#!/usr/bin/env python3
"""A job on Weft and on its peers: interleaved runs, wall time, peak memory and a digest on which all must agree.

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements.txt        # Spark needs Java 17
    cargo xtask logs --bytes 1170MB --out DATA
    VENV/bin/python bench/compare.py --workload weblog --data DATA --weft target/release/weft --guests target/guests --out runs.jsonl

Each run is a process of its own, one after the other, the order rotated from round to round. What a system needs to start (a JVM, a
cluster, for Weft `weft up` and the deployment) is up before the clock runs, and told apart. Weft's clock runs from the start of `weft run`
to its end. Peak memory is RssAnon + RssShmem over the process tree, sampled every 40 ms: of peers with their start, of
Weft's server, executor and client without the deployment. All systems have the same cores.
bench/generate.py makes the data of the other workloads; any folder will do whose files have the names and columns of the example's job file.
The exit code is 1 where results differ or Weft failed.
"""
import argparse, importlib.util, json, os, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

import measure, report, workloads

# Module of this folder, class in it, package to import.
SYSTEMS = {
    "polars": ("peers", "Polars", "polars"),
    "duckdb": ("peers", "DuckDb", "duckdb"),
    "datafusion": ("peers", "DataFusion", "datafusion"),
    "dask": ("peers_tasks", "Dask", "distributed"),
    "spark": ("peers", "Spark", "pyspark"),
    "ray": ("peers_tasks", "Ray", "ray"),
    "ray_data": ("peers_ray_data", "RayData", "ray"),
}
NATIVE = ("polars", "duckdb", "datafusion", "spark")
TIMEOUT_S = 900


def members(workload, wanted):
    """Who takes part: peers that can be imported and have the job; for `scoring` also those that say the function in their own expressions."""
    found = ["weft"]
    for name in wanted or SYSTEMS:
        if importlib.util.find_spec(SYSTEMS[name][2]) is None or name == "spark" and not has_java():
            print(f"{name} is not installed and left out", file=sys.stderr)
            continue
        if workload not in system(name).JOBS:
            print(f"{name} has no job {workload} and is left out", file=sys.stderr)
            continue
        found.append(name)
        if workload == "scoring" and name in NATIVE:
            found.append(f"{name}-native")
    return found


def system(name):
    module, class_, _ = SYSTEMS[name]
    return getattr(importlib.import_module(module), class_)


def has_java():
    return "JAVA_HOME" in os.environ or shutil.which("java") is not None


# ---- one run, as a process of its own

def as_peer(member, a):
    """The child's side: starts the system, runs the job, and tells how long each took."""
    name, _, native = member.partition("-")
    peer = system(name)
    engine = peer.start(a.work, len(os.sched_getaffinity(0)))
    told = {"startup_s": time.monotonic() - a.began}
    check_loopback()
    began = time.perf_counter()
    peer.JOBS[a.workload + (native and "-native")](engine, a.data, a.out)
    told["wall_s"] = time.perf_counter() - began
    print(json.dumps(told), flush=True)
    check_loopback()
    peer.stop(engine)
    sys.stdout.flush()
    os._exit(0)


def check_loopback():
    beyond = measure.listens_beyond_loopback(os.getpid())
    if beyond:
        print(f"it listens beyond this machine: {beyond}", file=sys.stderr, flush=True)
        os._exit(3)


def run_peer(member, a, work):
    os.makedirs(f"{work}/out")
    command = [sys.executable, __file__, "--peer", member, "--workload", a.workload, "--data", a.data, "--out", f"{work}/out",
               "--work", work, "--began", str(time.monotonic())]
    folder = os.path.dirname(os.path.abspath(__file__))
    env = dict(os.environ, PYTHONPATH=folder, PYTHONWARNINGS="ignore", PYTHONDONTWRITEBYTECODE="1", RUST_LOG="error")
    with open(f"{work}/stderr", "w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env, start_new_session=True)
        try:
            with measure.Sampler(child.pid, shares=member.startswith("ray")) as sampler:
                text, _ = child.communicate(timeout=TIMEOUT_S)
        finally:
            kill_session(child)
        if child.returncode:
            errors.seek(0)
            raise RuntimeError(f"{member} ended with {child.returncode}: " + " / ".join(errors.read().splitlines()[-3:]))
    told = [line for line in text.splitlines() if line.startswith('{"startup_s"')]
    return dict(json.loads(told[-1]), peak_mib=sampler.peak_mib)


def kill_session(child):
    """Ends what a run left behind: only its own session, of which it is the leader."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


# ---- Weft

def run_weft(a, work):
    port = a.port or free_port()
    env = dict(os.environ, WEFT_DATA=f"{work}/server", WEFT_ENDPOINT=f"http://127.0.0.1:{port}", WEFT_LOG="error")
    env.pop("WEFT_TOKEN", None)
    with open(f"{work}/job.json", "w") as file:
        file.write(workloads.job(a.workload, a.data, f"{work}/out"))
    began = time.perf_counter()
    server = subprocess.Popen([a.weft, "up", "--listen", f"127.0.0.1:{port}"], env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_healthy(server, port)
        told = {"up_s": time.perf_counter() - began}
        if component := workloads.component(a.workload):
            weft(a, env, "deploy", f"{a.guests}/{component}.wasm")
        told["startup_s"] = time.perf_counter() - began
        with measure.Sampler(server.pid) as sampler:
            began = time.perf_counter()
            weft(a, env, "run", f"{work}/job.json", watch=sampler)
            told["wall_s"] = time.perf_counter() - began
        return dict(told, peak_mib=sampler.peak_mib)
    finally:
        server.terminate()
        server.wait()


def weft(a, env, *arguments, watch=None):
    """Runs a command of `weft` to its end; `watch` counts its memory, too."""
    child = subprocess.Popen([a.weft, *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if watch:
        watch.roots.append(child.pid)
    try:
        said, _ = child.communicate(timeout=TIMEOUT_S)
    finally:
        child.kill()  # where it has not ended by then
    if child.wait():
        raise RuntimeError(f"weft {arguments[0]} ended with {child.returncode}: " + " / ".join(said.splitlines()[-3:]))


def wait_until_healthy(server, port):
    for _ in range(6000):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.005)
    raise RuntimeError("the server does not answer")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- all runs

def one(member, round_, a, common):
    """A line for the results; one with `error` where it failed."""
    row = dict(common, system=member, round=round_, at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), load=round(os.getloadavg()[0], 2))
    work = tempfile.mkdtemp(prefix="weft-bench-")
    try:
        told = run_weft(a, work) if member == "weft" else run_peer(member, a, work)
        row.update({name: round(value, 4) for name, value in told.items()}, digest=workloads.digest(a.workload, f"{work}/out"))
    except (RuntimeError, subprocess.TimeoutExpired, OSError) as error:
        row["error"] = str(error)[:500]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    said = row.get("error") or f"{row['wall_s']:7.2f} s {row['peak_mib']:7.0f} MiB  start {row['startup_s']:5.2f} s  {row['digest']}"
    print(f"round {round_} {member:<17} {said}  load {row['load']}", file=sys.stderr, flush=True)
    return row


def all_runs(a):
    sizes = [entry.stat().st_size for entry in os.scandir(a.data)]
    data = {"path": a.data, "bytes": sum(sizes), "files": len(sizes)}
    common = {"workload": a.workload, "commit": a.commit or measure.commit(workloads.ROOT), "machine": measure.machine(), "data": data}
    names = members(a.workload, a.peers.split(",") if a.peers else [])
    rows, failed = [], set()
    for round_ in range(a.runs):
        at = round_ % len(names)
        for member in names[at:] + names[:at]:
            if member in failed:
                continue
            row = one(member, round_, a, common)
            rows.append(row)
            if "error" in row:
                failed.add(member)  # it would only fail again
            if a.out:
                with open(a.out, "a") as file:
                    file.write(json.dumps(row) + "\n")
    return rows


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workload", choices=workloads.OUTPUTS, default="weblog")
    p.add_argument("--data", required=True, help="a folder that holds the workload's files and nothing else")
    p.add_argument("--weft", help="the binary")
    p.add_argument("--guests", help="the folder of the examples' components, NAME.wasm")
    p.add_argument("--peers", type=str.lower, help=f"some of {','.join(SYSTEMS)}; all that are installed without it")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--out", help="a file to which a JSON line is added for each run")
    p.add_argument("--cores", type=int, help="how many all systems may use; all of the machine's without it")
    p.add_argument("--port", type=int, help="where Weft's server listens; a free port without it")
    p.add_argument("--commit", help="what the results say was measured; this checkout's commit without it")
    p.add_argument("--peer", help=argparse.SUPPRESS)
    p.add_argument("--work", help=argparse.SUPPRESS)
    p.add_argument("--began", type=float, help=argparse.SUPPRESS)
    a = p.parse_args()
    a.data = os.path.abspath(a.data)
    if unknown := set((a.peers or "polars").split(",")) - set(SYSTEMS):
        p.error(f"no peer {', '.join(sorted(unknown))}")
    if not a.peer and not (a.weft and (a.guests or not workloads.component(a.workload))):
        p.error("--weft and --guests say what to run; sort and join need no guests")
    return a


def main():
    a = arguments()
    if a.peer:
        return as_peer(a.peer, a)
    a.weft, a.guests = os.path.abspath(a.weft), a.guests and os.path.abspath(a.guests)
    if a.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:a.cores])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    rows = all_runs(a)
    print(report.section(rows))
    return 0 if report.agree(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
