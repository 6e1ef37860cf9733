"""Part `kills` of stores.py: `weft up` and its executors are killed while jobs publish to a bucket."""
import collections, json, os, random, signal, statistics, threading, time

import nemesis
from s3_server import SeaweedFs
from store_systems import (ENDED, LAKE, LOOK_S, MANIFEST, OUTPUTS, OWN, TIDY_S, Client, Torn, Up, copy, cut, files_in_bucket, in_folder, left_behind, times,
                           until_tidy, weblog)

PREFIX = "kills"
PARTITIONS = 3
# Points of publishing at which a process dies, and the mode that reaches them; `refused`: another job's files appear in one of two outputs, so that
# the job fails, and what it has published is taken back.
NAMED = [
    ("uploads-listed=kill-parent@1", None), ("uploads-listed=kill@2", None), ("uploads-listed=kill-parent@5", None),
    ("commit=kill@1", None), ("commit=kill@4", None),
    ("publish=kill-parent@1", None), ("publish=kill-parent@2", None), ("publish=kill-parent@4", None), ("publish=kill@1", None), ("publish=kill@5", None),
    ("publish-completed=kill-parent@1", None), ("publish-completed=kill-parent@2", None), ("publish-completed=kill@1", None),
    ("publish-manifest=kill-parent@1", None), ("publish-manifest=kill-parent@2", None), ("publish-manifest=kill@2", None),
    ("published=kill@1", None), ("archived=kill@1", None),
    ("replaced-removed=kill@1", "overwrite"), ("replaced-removed=kill@2", "overwrite"),
    ("withdraw-manifest=kill@1", "refused"), ("withdraw=kill@1", "refused"), ("withdraw=kill@3", "refused"), ("publish-manifest=kill-parent@1", "refused"),
]
# Before and after the time that publishing takes, in a random round.
AROUND_S = 0.1
READ_PAUSE_S = 0.005
MODES = "error", "append", "overwrite"
JOB_S = 120


class Reader(threading.Thread):
    """Reads the manifests of the outputs of a round over and over, and notes what is neither as before the job nor as after it."""

    def __init__(self, bucket, prefix, allowed, expected, outputs):
        super().__init__(daemon=True)
        self.bucket, self.prefix, self.allowed, self.expected, self.outputs = bucket, prefix, allowed, expected, outputs
        self.looks, self.seen, self.wrong, self.stopped = 0, set(), [], threading.Event()

    def run(self):
        while not self.stopped.is_set():
            for output in self.outputs:
                self.look(output)
            # Others need the cores as well.
            time.sleep(READ_PAUSE_S)

    def look(self, output):
        try:
            files, _ = files_in_bucket(self.bucket, f"{self.prefix}/{output}")
        except Torn as torn:
            return self.wrong.append(f"a reader finds that {torn}")
        except (OSError, RuntimeError) as error:
            return self.wrong.append(f"a reader fails: {error!r}")
        n = times(files, of(self.expected, output))
        self.looks += 1
        self.seen.add(n)
        if n not in self.allowed:
            self.wrong.append(f"a reader finds {len(files)} files of {output}: {n} times a job, instead of {sorted(self.allowed)}")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def of(files, output):
    return {name: found for name, found in files.items() if name.startswith(f"{output}/")}


class Kills:
    def __init__(self, a, work):
        self.a, self.work, self.weft = a, work, os.path.abspath(a.weft)
        self.store = SeaweedFs(f"{work}/weed", OWN, LAKE)
        self.lake, self.own, self.up = self.store.bucket(LAKE), self.store.bucket(OWN), None
        # How often a shared folder holds what a job publishes.
        self.held = {"append": 0, "overwrite": 0}

    def start(self, env={}):
        self.up = Up(self.weft, f"{self.work}/kills", PREFIX, self.store.address, env)
        return Client(self.up)

    def restart(self, env={}):
        self.up.stop()
        return self.start(env)

    def prepare(self):
        """What a job publishes, and at which moments it begins to, and ends, when nothing is killed."""
        logs = cut(self.a.logs, f"{self.work}/logs", self.a.kill_bytes)
        copy(logs, self.lake, "logs")
        wasm = os.path.join(self.a.guests, "weblog.wasm")
        beside = Up(self.weft, f"{self.work}/folder")
        try:
            client = Client(beside)
            client.deploy(wasm)
            client.run(weblog(logs, f"{self.work}/out", partitions=PARTITIONS), "folder")
            self.expected = in_folder(f"{self.work}/out")
        finally:
            beside.stop()
        client = self.start()
        client.deploy(wasm)
        moments = []
        for n in range(4):
            began, publishing = time.monotonic(), []
            id = client.submit(self.job(f"calm/{n}", "error"), f"calm-{n}")
            client.wait(id, JOB_S, lambda status: publishing.append(time.monotonic() - began) if status == "publishing" else None)
            moments.append((publishing[0] if publishing else time.monotonic() - began, time.monotonic() - began))
        # The first one warms up.
        self.publishing, self.ended = (statistics.median(moment) for moment in zip(*moments[1:]))
        for output in OUTPUTS:
            files, _ = files_in_bucket(self.lake, f"out/calm/0/{output}")
            if times(files, of(self.expected, output)) != 1:
                raise RuntimeError(f"{output} has other bytes than in a folder, without any kill")
        print(f"without kills, publishing begins after {self.publishing:.2f} s, and the job ends after {self.ended:.2f} s", flush=True)

    def job(self, folder, mode):
        return weblog(f"s3://{LAKE}/logs", f"s3://{LAKE}/out/{folder}", mode, PARTITIONS)

    # ---- one round

    def round(self, number, named, seed):
        draw = random.Random(f"{seed} {number}")
        point, want = named or (None, None)
        mode = want if want in MODES else "error" if want else draw.choice(MODES)
        shared = mode if mode != "error" else None
        prefix = f"out/{shared or f'round-{number}'}"
        before = self.held[mode] if shared else 0
        after = 1 if mode != "append" else before + 1
        told = {"part": "kills", "seed": seed, "round": number, "kill": point, "mode": want or mode, "killed": False, "wrong": []}
        once = f"{self.work}/once-{number}"
        client = self.restart({"WEFT_FAILPOINTS": point, "WEFT_FAILPOINT_ONCE": once} if point else {})
        key = f"{seed}-{number}"
        outputs = OUTPUTS[:1] if want == "refused" else OUTPUTS
        with Reader(self.lake, prefix, {before, after}, self.expected, outputs) as reader:
            id = client.submit(self.job(prefix.removeprefix("out/"), mode), key)
            killer = None if point else self.killer(draw, told)
            job = self.follow(id, told, once, killer, want == "refused" and prefix)
            again = Client(self.up).submit(self.job(prefix.removeprefix("out/"), mode), key)
            if again != id:
                told["wrong"].append(f"the key that had {id} has {again}")
            self.check(told, job, prefix, want, after, reader)
        told.update(looks=reader.looks, seen=sorted(map(str, reader.seen)))
        told["wrong"] += reader.wrong[:5]
        if shared and not told["wrong"]:
            self.held[mode] = after
        return told

    def killer(self, draw, told):
        """Gives what kills at a random moment; half of them near the time of publishing."""
        near = draw.random() < 0.5
        low, high = (self.publishing - AROUND_S, self.ended + AROUND_S) if near else (0, self.ended + AROUND_S)
        moment, victim = draw.uniform(max(0, low), high), draw.choice(["server", "server", "server", "executor"])
        until = time.monotonic() + moment

        def kill(status):
            if told["killed"] or time.monotonic() < until:
                return
            told.update(kill=f"{victim} after {moment:.2f} s: {status}", killed=True)
            if victim == "server":
                return self.up.kill()
            for pid in nemesis.children(self.up.pid, b"executor"):
                os.kill(pid, signal.SIGKILL)
        return kill

    def follow(self, id, told, once, killer, refused):
        """Waits for the job's end and the kill, starts the server again when it has died, and gives the job."""
        until, status, job, planted = time.monotonic() + JOB_S, "submitted", None, False
        while time.monotonic() < until:
            told["killed"] = told["killed"] or os.path.exists(once)
            if self.up.process.poll() is not None:
                # A point may be passed while the server starts.
                self.revive(told)
            if killer:
                killer(status)
            try:
                job = Client(self.up).read_once(f"/v1/jobs/{id}")
                status = job["status"]
            except (OSError, RuntimeError):
                continue
            if refused and not planted and status == "running":
                planted = True
                self.plant(f"{refused}/top", told)
            # What follows a job's end may be what kills.
            if status in ENDED and (told["killed"] or killer is None and self.is_idle(id)):
                if self.up.process.poll() is None:
                    return job
            time.sleep(LOOK_S / 2)
        told["wrong"].append(f"the job is {status} after {JOB_S} s")
        return job

    def is_idle(self, id):
        """Returns whether nothing of a job is left to be cleaned up, so that no point is reached any more."""
        return not self.own.keys(f"{PREFIX}/jobs/{id}/")

    def revive(self, told):
        for _ in range(3):
            try:
                self.start()
                return
            except RuntimeError as error:
                told.setdefault("starts", []).append(str(error)[-300:])
        raise RuntimeError(f"the server does not start again: {told}")

    def plant(self, folder, told):
        """Puts another job's output where one of this job goes."""
        files, keys = files_in_bucket(self.lake, "out/calm/0/top")
        manifest = self.lake.get(f"out/calm/0/top/{MANIFEST}")
        for key in keys - {f"out/calm/0/top/{MANIFEST}"}:
            self.lake.put(f"{folder}/{key.removeprefix('out/calm/0/top/')}", self.lake.get(key))
        if not self.lake.create(f"{folder}/{MANIFEST}", manifest):
            told["late"] = True

    def check(self, told, job, prefix, want, after, reader):
        """All that must hold when the job has ended."""
        job = job or {"status": "unknown"}
        told["status"] = job["status"]
        refused = want == "refused" and not told.get("late")
        wanted = "failed" if refused else "succeeded"
        if job["status"] != wanted:
            told["wrong"].append(f"the job is {job['status']}, not {wanted}: {job.get('problem')}")
        if refused and (job.get("problem") or {}).get("code") != "output_exists":
            told["wrong"].append(f"the job's problem is {job.get('problem')}")
        look = lambda: left_behind(self.lake, prefix, self.own, PREFIX)
        left = until_tidy(look, TIDY_S / 2)
        if left:
            told["left_before_restart"] = left[:5]
            self.restart()
            left = until_tidy(look, TIDY_S / 2)
        if left:
            told["wrong"].append(f"{len(left)} things are left behind: {left[:5]}")
        for output in OUTPUTS:
            files, _ = files_in_bucket(self.lake, f"{prefix}/{output}")
            n, must = times(files, of(self.expected, output)), (after if not refused else 0 if output == "daily" else 1)
            if n != must:
                told["wrong"].append(f"{output} holds {n} times what a job publishes, not {must}")


def kills(a, work):
    told = Kills(a, work)
    try:
        told.prepare()
        draw = random.Random(a.seed)
        deck = [None] * (a.rounds // 2) + [NAMED[at % len(NAMED)] for at in range(a.rounds - a.rounds // 2)]
        draw.shuffle(deck)
        rounds, number = [], 0
        # A kill that came too late does not count.
        while deck and number < 2 * a.rounds:
            number += 1
            line = told.round(number, deck[-1], a.seed)
            print(json.dumps(line), flush=True)
            rounds.append(line)
            if line["killed"] or line["wrong"]:
                deck.pop()
            elif deck[-1]:
                # The other points are no less worth a kill.
                deck.insert(0, deck.pop())
        return {"rounds": len(rounds), "kills": sum(line["killed"] for line in rounds), "data_bytes": a.kill_bytes,
                "by_kill": dict(collections.Counter(kind(line) for line in rounds if line["killed"])),
                "not_reached": sorted({line["kill"] or "random" for line in rounds if not line["killed"]}),
                "reader_looks": sum(line["looks"] for line in rounds), "swept_at_restart": sum("left_before_restart" in line for line in rounds),
                "own_uploads_left": len(told.own.uploads(f"{PREFIX}/")), "wrong": [wrong for line in rounds for wrong in line["wrong"]]}
    finally:
        if told.up:
            told.up.stop()
        told.store.stop()


def kind(line):
    """`publish=kill@2` as it is, and random kills by what was killed and where the job stood."""
    victim, _, status = line["kill"].partition(" after ")
    return f"random: {victim}, {status.rpartition(': ')[2]}" if status else line["kill"]
