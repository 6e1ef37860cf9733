#!/usr/bin/env python3
"""An hour of mixed load on one server: does it keep its memory, its files and its answers?

    python3 bench/soak.py --weft target/release/weft --guests target/guests --minutes 60 --out soak.jsonl

At the same time, each after random pauses that `--seed` decides: jobs over a few megabytes, whose outputs must be the same bytes every time;
calls on four connections; rows that stream through map functions, of which some clients leave half way; deployments of bytes that are new, and
of some that are known or no component; jobs that are cancelled half way; functions that loop, eat memory, trap and flood; somebody who looks at
jobs, receipts, logs and metrics. Of calls, one of 500 has an idempotency key.

Every 10 s a line of JSON: of each process of the server memory (RssAnon + RssShmem), open files, threads; what lies on disk; counts so far;
latencies of calls since the line before; and the longest time by which a thread that sleeps 50 ms woke up late, which tells whether the
machine stood still. What nobody should be told is an error: other answers than 2xx, 429 and what a hostile function is due.

By design the server remembers jobs that have ended (10,000) and keys (24 hours), so that memory grows a little with them, and replaced `-dev`
versions stay on disk for 11 minutes: `--settle 720` waits that long after the load has stopped. The executor keeps 256 components loaded; so
many are deployed before the load starts, lest the memory of the first quarter of an hour tell of that alone. SIGINT and SIGTERM stop early.
"""
import argparse, datetime, glob, json, os, random, shutil, signal, sys, tempfile, threading, time

import measure, variants, workloads
from serving import Server, told
from soak_load import DEPLOYED, JOB_SECONDS_MAX, Calls, Load, Tally, make_data

PERIOD_S = 10
TABLE_MINUTES = (5, 15, 30, 45, 60)
SLOPE_FROM_MINUTE = 10


class Stalls(threading.Thread):
    """Sleeps 50 ms again and again, and remembers by how much it woke up late."""

    def __init__(self, tally):
        super().__init__(daemon=True)
        self.tally, self.longest_s, self.longest = tally, 0.0, []

    def run(self):
        while True:
            began = time.monotonic()
            time.sleep(0.05)
            late = time.monotonic() - began - 0.05
            self.longest_s = max(self.longest_s, late)
            self.longest = sorted([*self.longest, (late, self.tally.at_s())], reverse=True)[:5]

    def window_ms(self):
        longest, self.longest_s = self.longest_s, 0.0
        return round(longest * 1e3, 1)


# ---- what is looked at

def process(pid):
    """What a process holds; nothing where it has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/status") as status:
            words, fields = line.read().split(b"\0"), dict(field.split(":\t", 1) for field in status if ":\t" in field)
        role = next((word.decode() for word in words[1:2] if word in (b"executor", b"compiler")), "server")
        fds = len(os.listdir(f"/proc/{pid}/fd"))
        return {"role": role, "pid": pid, "kib": sum(measure.memory_kib(pid)), "fds": fds, "threads": int(fields["Threads"])}
    except (OSError, KeyError):
        return None


def disk(data):
    """KiB on disk and files, by folder: those at the top, and those in the store."""
    found = {}
    for folder, _, files in os.walk(data):
        parts = os.path.relpath(folder, data).split("/")
        name = "/".join(parts[:2 if parts[0] == "store" else 1])
        total = found.setdefault(name, [0, 0])
        for file in files:
            try:
                total[0] += os.lstat(f"{folder}/{file}").st_blocks // 2
                total[1] += 1
            except OSError:
                pass  # it was removed meanwhile
    return {name: {"kib": kib, "files": files} for name, (kib, files) in sorted(found.items()) if files}


def leftovers(data, out):
    """What should not be there when nothing is going on: as the tests say in `fabric/weft/tests/it/folder.rs`."""
    found = [path for folder in ("uploads", "spill", "store/jobs") for path in glob.glob(f"{data}/{folder}/*")]
    stored = glob.glob(f"{data}/store/**", recursive=True)
    found += [path for path in stored if "#" in os.path.basename(path) or path.endswith((".draft", ".part"))]
    return found + glob.glob(f"{out}/*/*/.*")


class Samples:
    def __init__(self, server, work, calls, stalls, tally, file):
        self.server, self.work, self.calls, self.stalls, self.tally, self.file, self.rows = server, work, calls, stalls, tally, file, []

    def take(self, phase):
        calls = self.calls.window(self.tally)
        found = [one for one in map(process, measure.tree(self.server.pid)) if one]
        counts, errors = self.tally.so_far()
        outputs = sum(one["kib"] for one in disk(f"{self.work}/out").values())
        row = {"at_s": self.tally.at_s(), "phase": phase, "processes": found, "disk": disk(self.server.data), "outputs_kib": outputs,
               "counts": counts, "errors": errors, "calls": calls, "stall_ms": self.stalls.window_ms(), "load": round(os.getloadavg()[0], 2)}
        self.rows.append(row)
        self.write(row)
        return row

    def write(self, row):
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()


# ---- the summary

def kib(row, *roles):
    return sum(one["kib"] for one in row["processes"] if one["role"] in roles)


def slope(rows, value):
    """Of the least squares, per hour."""
    xs, ys = [row["at_s"] / 3600 for row in rows], [value(row) for row in rows]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((each - x) ** 2 for each in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys)) / spread if spread else float("nan")


COLUMNS = {
    "server": lambda row: f"{kib(row, 'server') / 1024:.1f} MiB",
    "executor": lambda row: f"{kib(row, 'executor') / 1024:.1f} MiB",
    "files open": lambda row: " + ".join(str(one["fds"]) for one in row["processes"] if one["role"] != "compiler"),
    "threads": lambda row: " + ".join(str(one["threads"]) for one in row["processes"] if one["role"] != "compiler"),
    "data folder": lambda row: f"{sum(one['kib'] for one in row['disk'].values()) / 1024:.1f} MiB",
    "calls": lambda row: f"{row['counts'].get('call', 0):,}",
    "p50, p99": lambda row: f"{row['calls']['p50_ms']:.2f}, {row['calls']['p99_ms']:.2f} ms" if "p50_ms" in row["calls"] else "",
    "jobs": lambda row: f"{sum(n for what, n in row['counts'].items() if what.startswith(('job ', 'cancel ')) and what[-5:] != 'again'):,}",
    "deployments": lambda row: f"{row['counts'].get('deployment', 0):,}",
    "errors": lambda row: str(sum(row["errors"].values())),
}


def summary(samples, stalls, tally):
    under_load = [row for row in samples.rows if row["phase"] == "load"]
    last = under_load[-1]
    shown = [(f"minute {minute}", next((row for row in under_load if row["at_s"] >= minute * 60 - PERIOD_S / 2), None)) for minute in TABLE_MINUTES]
    shown = [(what, row) for what, row in shown if row]
    if not shown or shown[-1][1] is not last:
        shown.append((f"end of load, {last['at_s'] / 60:.1f} min", last))
    if samples.rows[-1] is not last:
        shown.append((f"{samples.rows[-1]['at_s'] - last['at_s']:.0f} s after it", samples.rows[-1]))
    yield "| | " + " | ".join(COLUMNS) + " |\n|---|" + "--:|" * len(COLUMNS)
    for what, row in shown:
        yield f"| {what} | " + " | ".join(column(row) for column in COLUMNS.values()) + " |"

    since_s = min(SLOPE_FROM_MINUTE * 60, last["at_s"] / 2)
    rows = [row for row in under_load if row["at_s"] >= since_s]
    slopes = {what: slope(rows, lambda row: kib(row, what) / 1024) for what in ("server", "executor")}
    told_of = ", ".join(f"{what} {each:+.2f} MiB" for what, each in slopes.items()) if len(rows) > 2 else "too few"
    yield f"\nMemory an hour, least squares over {len(rows)} samples from minute {since_s / 60:.1f} on: {told_of}."
    found = [one for row in samples.rows for one in row["processes"]]
    pids = {role: sorted({one["pid"] for one in found if one["role"] == role}) for role in ("server", "executor")}
    yield f"Process ids seen: server {pids['server']}, executor {pids['executor']}."
    worst = [row["calls"]["p99_ms"] for row in under_load if "p99_ms" in row["calls"]]
    if worst:
        yield f"p99 of calls by windows of {PERIOD_S} s: median {sorted(worst)[len(worst) // 2]:.2f} ms, worst {max(worst):.2f} ms."
    yield "A sleep of 50 ms was late by " + ", ".join(f"{late * 1e3:.0f} ms at {when:.0f} s" for late, when in stalls.longest) + " at the most."

    counts, errors = tally.so_far()
    yield "\nWhat was done: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()) + "."
    yield "\nErrors: " + (", ".join(f"{n:,} {what}" for what, n in errors.items()) or "none") + "."
    for error in tally.texts:
        yield f"- {error['at_s']} s, {error['kind']}: {error['text']}"


def summary_of_end(samples, server, left, stopped):
    yield "\nOn disk after that:\n\n| folder | KiB | files |\n|---|--:|--:|"
    for name, one in samples.rows[-1]["disk"].items():
        yield f"| {name} | {one['kib']:,} | {one['files']:,} |"
    yield "\nLeft behind: " + (", ".join(left[:20]) + f" ({len(left)})" if left else "nothing") + "."
    yield "The server stopped in {:.1f} s with exit code {}.".format(*stopped)
    with open(server.log) as log:
        lines = [line.strip() for line in log if " WARN " in line or " ERROR " in line or line.startswith("thread ")]
    yield f"Its log has {len(lines)} warnings and errors" + (", the first:" if lines else ".")
    for line in lines[:10]:
        yield "- " + line[:400]


# ---- from the start to the end

def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weft", required=True, help="the binary")
    parser.add_argument("--guests", required=True, help="the folder with components: " + ", ".join(DEPLOYED))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", required=True, help="where the lines of JSON go")
    parser.add_argument("--work", help="an empty or new folder for the server's data and jobs' files, which stays [default: a temporary one]")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("--rate", type=float, default=300, help="calls a second at the most, over all connections")
    parser.add_argument("--prime", type=int, default=256, help="components that are deployed before the load starts")
    parser.add_argument("--settle", type=float, default=30, help="seconds to look on after the load has stopped")
    a = parser.parse_args()
    work = os.path.abspath(a.work) if a.work else tempfile.mkdtemp(prefix="weft-soak-")
    os.makedirs(work, exist_ok=True)
    if os.listdir(work):
        parser.error(f"{work} is not empty")
    stop, hurry = threading.Event(), threading.Event()

    def interrupted(*_):
        """The first signal stops the load, the second the looking on after it, the third all."""
        if hurry.is_set():
            raise KeyboardInterrupt
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        with open(a.out, "w") as file:
            return 1 if soak(a, work, stop, hurry, file) else 0
    finally:
        if not a.work:
            shutil.rmtree(work, ignore_errors=True)


def soak(a, work, stop, hurry, file):
    guests = {}
    for name in DEPLOYED:
        with open(f"{a.guests}/{name}.wasm", "rb") as component:
            guests[name] = component.read()
    make_data(f"{work}/in", random.Random(f"{a.seed} data"))
    os.makedirs(f"{work}/out")
    about = {"seed": a.seed, "minutes": a.minutes, "rate": a.rate, "commit": measure.commit(workloads.ROOT), "machine": measure.machine(),
             "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
    machine = about["machine"]
    print(f"Seed {a.seed}; commit {about['commit']}; {machine['cpu']}, {machine['cores']} cores; {about['began']}; in {work}\n", flush=True)
    server = Server(os.path.abspath(a.weft), work)
    calls = None
    try:
        tally = Tally()
        load = Load(server, guests, work, a.seed, tally, stop)
        line = load.line()
        dev = {name: variants.with_suffix(component, "-dev") for name, component in guests.items()}
        many = [variants.with_note(dev[DEPLOYED[n % len(DEPLOYED)]], b"%d" % n) for n in range(a.prime)]
        for component in (*many, *guests.values(), *dev.values()):
            status, body = line.ask(server.upload(component))
            if status != 201:
                raise SystemExit(f"a component cannot be deployed: {told(status, body)}")
        calls = Calls(server, a.rate, a.seed)
        samples = Samples(server, work, calls, Stalls(tally), tally, file)
        samples.write(about)
        samples.stalls.start()
        threads = [threading.Thread(target=getattr(load, what), args=(f"{what}-{n}",), daemon=True)
                   for what, many in (("jobs", 2), ("deployments", 1), ("cancels", 1), ("hostile", 1), ("streams", 1), ("looks", 1)) for n in range(many)]
        tally.began = time.monotonic()
        for thread in threads:
            thread.start()
        look_on(a.minutes * 60, "load", samples, stop)
        stop.set()
        for thread in threads:
            thread.join(JOB_SECONDS_MAX + 10)
        calls.stop(tally)
        look_on(a.settle, "settle", samples, hurry)
        for text in summary(samples, samples.stalls, tally):
            print(text)
        for text in summary_of_end(samples, server, leftovers(server.data, f"{work}/out"), server.stop()):
            print(text)
        _, errors = tally.so_far()
        samples.write({"ended": True, "errors": errors, "texts": tally.texts, "longest_stalls": samples.stalls.longest})
        return sum(errors.values())
    finally:
        server.stop()
        if calls:
            calls.process.kill()


def look_on(seconds, phase, samples, stop):
    """Takes a sample now, every 10 s, and at the end, which comes early where the server has ended, or `stop` is set."""
    began, n = time.monotonic(), 0
    samples.take(phase)
    while not stop.is_set() and n * PERIOD_S < seconds:
        n += 1
        stop.wait(max(0, began + min(n * PERIOD_S, seconds) - time.monotonic()))
        samples.take(phase)
        if samples.server.process.poll() is not None:
            if phase == "load":
                samples.tally.error("server", f"it ended with exit code {samples.server.process.returncode}")
            return


if __name__ == "__main__":
    sys.exit(main())
