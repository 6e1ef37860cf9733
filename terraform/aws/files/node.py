#!/usr/bin/env python3
"""What a node does on AWS beside Weft: it fetches its certificate, and drains before its machine goes.

    node.py certificate   waits until a controller has handed out a name and a certificate
    node.py watch         drains on an interruption notice of a spot instance, and when its group gives it back;
                          powers off once a client has drained the node

Runs as root. To drain is to stop the unit: SIGTERM has `weft node` take no new work and end once what it has is done.
So a node needs no token of the API, which would let it do all that a client may.
"""

import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

ETC = pathlib.Path(os.environ.get("WEFT_ETC", "/etc/weft"))
USER = os.environ.get("WEFT_USER", "weft")
METADATA = os.environ.get("WEFT_METADATA", "http://169.254.169.254")
UNIT = "weft-node.service"
POLL_SECONDS = float(os.environ.get("WEFT_POLL_SECONDS", "5"))
# A node that is still at work so long before its machine goes is told to end, so that it says what it gives up.
LAST_SECONDS = 10


class Metadata:
    """The instance metadata service, version 2."""

    def __init__(self):
        self.token = None

    def get(self, path):
        """The text at the path; nothing if it is not there."""
        if self.token is None:
            self.token = self.ask("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
        try:
            return self.ask(path, "GET", {"X-aws-ec2-metadata-token": self.token})
        except urllib.error.HTTPError as error:
            if error.code == 401:
                self.token = None
            elif error.code != 404:
                raise
            return None

    @staticmethod
    def ask(path, method, headers):
        request = urllib.request.Request(f"{METADATA}/latest/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def write(path, text, mode, is_for_weft=False):
    """Writes a file that is never seen with another mode or half of its text. It is root's, or the user's of Weft."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    if is_for_weft:
        shutil.chown(part, USER)
    part.rename(path)


def certificate(settings, metadata):
    """Waits for the parameter of this instance, and lays out what it holds."""
    name = f"{settings['parameters']}/nodes/{metadata.get('meta-data/instance-id')}"
    command = ["aws", "ssm", "get-parameter", "--name", name, "--with-decryption", "--output", "json"]
    # Until it is there, AWS says that this node may not read it. The unit's TimeoutStartSec bounds the wait.
    while (answer := run(*command)).returncode != 0:
        time.sleep(POLL_SECONDS)
    value = json.loads(json.loads(answer.stdout)["Parameter"]["Value"])
    certs = ETC / "certs"
    certs.mkdir(mode=0o755, exist_ok=True)
    write(certs / "ca.pem", value["ca"], 0o644)
    write(certs / "node.pem", value["certificate"], 0o644)
    write(certs / "node.key", value["key"], 0o600, is_for_weft=True)
    write(ETC / "node.env", f"WEFT__NODE={value['node']}\n", 0o644)
    print(f"this is {value['node']}")


class Watch:
    """What is known of the end of this machine."""

    def __init__(self, settings, metadata):
        self.settings, self.metadata = settings, metadata
        self.deadline = None
        self.told_last = False
        self.is_draining = False
        self.was_active = False

    def look(self, now):
        """Looks once. Gives whether this is over: the group knows that the node is done, or the machine goes."""
        if self.deadline is None and (notice := self.metadata.get("meta-data/spot/instance-action")):
            at = datetime.datetime.fromisoformat(json.loads(notice)["time"].replace("Z", "+00:00"))
            self.deadline = at.timestamp()
            print(f"spot interruption at {at}: draining", flush=True)
            self.drain()
        if self.deadline is not None and not self.told_last and now >= self.deadline - LAST_SECONDS:
            self.told_last = True
            # To a node that drains, a second SIGTERM says to end at once.
            run("systemctl", "kill", "--kill-who=main", "--signal=SIGTERM", UNIT)
        unit = run("systemctl", "is-active", UNIT).stdout.strip()
        if self.metadata.get("meta-data/autoscaling/target-lifecycle-state") == "Terminated":
            self.drain()
            return unit not in ("active", "activating", "deactivating") and self.complete()
        if unit == "inactive" and self.was_active and not self.is_draining:
            # A client has drained the node. The group replaces a machine that is off.
            print("the node has ended: powering off", flush=True)
            run("systemctl", "poweroff")
            return True
        self.was_active |= unit == "active"
        return False

    def drain(self):
        if not self.is_draining:
            self.is_draining = True
            run("systemctl", "stop", "--no-block", UNIT)

    def complete(self):
        """Tells the group that it need not wait for this machine any longer."""
        done = run(
            "aws",
            "autoscaling",
            "complete-lifecycle-action",
            *("--lifecycle-hook-name", self.settings["hook"]),
            *("--auto-scaling-group-name", self.settings["group"]),
            *("--instance-id", self.metadata.get("meta-data/instance-id")),
            *("--lifecycle-action-result", "CONTINUE"),
        )
        return done.returncode == 0


def watch(settings, metadata):
    state = Watch(settings, metadata)
    is_over = False
    while not is_over:
        try:
            is_over = state.look(time.time())
        except OSError as error:
            print(f"the metadata service is not reached: {error}", flush=True)
        time.sleep(POLL_SECONDS)


def main(arguments):
    settings = json.loads((ETC / "machine.json").read_text())
    os.environ["AWS_DEFAULT_REGION"] = settings["region"]
    verb = {("certificate",): certificate, ("watch",): watch}.get(tuple(arguments))
    if verb is None:
        sys.exit(__doc__)
    verb(settings, Metadata())


if __name__ == "__main__":
    main(sys.argv[1:])
