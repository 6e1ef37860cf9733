"""Writes the data folder that later versions must open: `python3 make.py WEFT HELLO_WASM OUT`.

It holds a component, ended jobs, one job under way whose wall limit is years away, a job and an invocation with idempotency keys, usage, a
snapshot and a tail of the log. Artefacts are left out, as after an upgrade, and so is the token. Run it once for each format, and keep what it
wrote under `format-N`: a folder that was written by an old version is worth more than one that a new version writes anew.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

ADDRESS = "127.0.0.1:7399"
TASKS = 200


def job(name, count, wall):
    stage = {"name": "noop", "task": "hello/noop", "count": count}
    return {"name": name, "tags": {"team": "web"}, "limits": {"wall": wall}, "stage": [stage]}


class Server:
    def __init__(self, weft, data, **environment):
        self.data = data
        environment = {"PATH": os.environ["PATH"], "WEFT_LOG": "warn", "WEFT__RAFT__SNAPSHOT_EVERY": "8", **environment}
        command = [weft, "up", "--data", str(data), "--listen", ADDRESS, "--slots", "2"]
        self.process = subprocess.Popen(command, env=environment)
        for _ in range(200):
            time.sleep(0.05)
            try:
                self.ask("/v1/jobs")
                return
            except (OSError, FileNotFoundError):
                continue
        raise SystemExit("the server does not answer")

    def ask(self, path, body=None, kind="application/json", **headers):
        token = (self.data / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, **headers}
        request = urllib.request.Request(f"http://{ADDRESS}{path}", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def submit(self, document, **headers):
        body = json.dumps(document).encode()
        return json.loads(self.ask("/v1/jobs", body, **headers))["id"]

    def wait(self, job_id):
        while True:
            found = json.loads(self.ask(f"/v1/jobs/{job_id}"))
            if found["status"] in ("succeeded", "failed", "cancelled"):
                return found
            time.sleep(0.05)


def main():
    weft, hello, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    server = Server(weft, out)
    server.ask("/v1/components", hello.read_bytes(), "application/wasm")
    for name in ("first", "second"):
        assert server.wait(server.submit(job(name, 3, "1h")))["status"] == "succeeded"
    keyed = {"Idempotency-Key": "a job"}
    server.wait(server.submit(job("keyed", 1, "1h"), **keyed))
    server.ask("/v1/invoke/hello/echo", b"hello", "application/octet-stream", **{"Idempotency-Key": "a call"})
    time.sleep(2.5)  # usage of invocations is committed once a second
    server.process.send_signal(signal.SIGTERM)
    server.process.wait()

    # The server dies when it is about to commit tasks for the second time.
    server = Server(weft, out, WEFT_FAILPOINTS="commit=kill@2")
    try:
        server.submit(job("under-way", TASKS, "100000h"))
    except ConnectionError:
        pass
    assert server.process.wait() == -signal.SIGKILL
    for left_out in ("store/artefacts", "spill", "uploads"):
        shutil.rmtree(out / left_out, ignore_errors=True)
    for log in (out / "raft/log").glob("*.raftlog"):
        # Space that the log had reserved, but for a page of it.
        log.write_bytes(log.read_bytes().rstrip(b"\0") + bytes(4096))
    for left_out in ("token", "lock", "raft/log/LOCK"):
        (out / left_out).unlink(missing_ok=True)


main()
