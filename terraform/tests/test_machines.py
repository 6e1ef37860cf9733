"""The scripts of the machines, with a real controller and a real node, and stand-ins for AWS, systemd and metadata."""

import http.server
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import unittest
import urllib.request

from scripts import FILES

HERE = pathlib.Path(__file__).resolve().parent
WEFT = os.environ["WEFT_BIN"]
ROLE_ID = "AROANODES"
DEADLINE_SECONDS = 60

SYSTEMCTL = """#!/bin/sh
echo "$@" >>"$STUB_UNITS/systemctl.log"
pid="$(cat "$STUB_UNITS/node.pid" 2>/dev/null)"
case "$1" in
  stop | kill) [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null ;;
  is-active) [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && echo active || echo inactive ;;
esac
exit 0
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, what):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_SECONDS} s: {what}")
        time.sleep(0.02)
    return found


class Metadata(http.server.BaseHTTPRequestHandler):
    """The instance metadata service, version 2: `paths` of the server hold what it knows."""

    def do_PUT(self):
        self.answer(200, "metadata-token")

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "metadata-token":
            return self.answer(401, "")
        text = self.server.paths.get(self.path.removeprefix("/latest/meta-data/"))
        return self.answer(404, "") if text is None else self.answer(200, text)

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


class Machines(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weft-machines-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.bin, self.store = self.folder / "bin", self.folder / "store"
        for folder in (self.bin, self.store):
            folder.mkdir()
        self.program("aws", f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "stub_aws.py"}" "$@"\n')
        self.program("systemctl", SYSTEMCTL)
        self.aws = self.folder / "aws.json"
        self.change(parameters={}, groups=[], calls=[])
        self.metadata = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        self.metadata.paths = {}
        self.addCleanup(self.metadata.server_close)
        self.addCleanup(self.metadata.shutdown)
        threading.Thread(target=self.metadata.serve_forever, daemon=True).start()

    def program(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def state(self):
        return json.loads(self.aws.read_text())

    def change(self, **entries):
        state = json.loads(self.aws.read_text()) if self.aws.exists() else {}
        self.aws.write_text(json.dumps({**state, **entries}))

    def calls(self, verb):
        return [call for call in self.state()["calls"] if call["arguments"][1] == verb]

    def etc(self, name):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def environment(self, etc, **more):
        return {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STUB_AWS": str(self.aws),
            "STUB_UNITS": str(etc),
            "WEFT_ETC": str(etc),
            "WEFT_USER": pwd.getpwuid(os.getuid()).pw_name,
            "WEFT_METADATA": f"http://127.0.0.1:{self.metadata.server_port}",
            "WEFT_POLL_SECONDS": "0.05",
            "PYTHONDONTWRITEBYTECODE": "1",
            **more,
        }

    def script(self, name, etc, *arguments, **more):
        """Runs a script of a machine, whose /etc/weft is the folder `etc`."""
        command = [sys.executable, FILES / f"{name}.py", *arguments]
        done = subprocess.run(command, env=self.environment(etc, **more), capture_output=True, text=True, timeout=DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def start(self, role, etc, **more):
        """Starts a process of the cluster; it is killed in the end."""
        with open(etc / "weft.log", "w") as log:
            command = [WEFT, role, "--config", etc / f"{role}.toml"]
            process = subprocess.Popen(command, env=self.environment(etc, **more), stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def settings(self, role, etc, head, tables, key):
        """Settings as user data writes them, but on loopback and with a folder as the store."""
        known = subprocess.run([WEFT, "config", role], capture_output=True, text=True, check=True).stdout
        is_table = isinstance(tomllib.loads(known)["store"], dict)
        store = f'[store]\nurl = "{self.store}"\n' if is_table else ""
        head = head if is_table else f'{head}store = "{self.store}"\n'
        certs = etc / "certs"
        tls = f'[tls]\nca = "{certs}/ca.pem"\ncertificate = "{certs}/{key}.pem"\nkey = "{certs}/{key}.key"\n'
        (etc / f"{role}.toml").write_text(f'cluster = "blue"\ndata = "{etc}/data"\n{head}{tables}{tls}{store}')

    # A controller.

    def controller(self):
        """A controller on its own, with the secrets that its script has made."""
        etc = self.etc("controller")
        self.api, link = free_port(), free_port()
        group = {"group": "general", "name": "weft-blue-general", "slots": 1, "min": 0, "max": 3}
        tend = {
            "api": f"http://127.0.0.1:{self.api}",
            "cluster": "blue",
            "region": "eu-central-1",
            "parameters": "/weft/blue",
            "namespace": "Weft",
            "metric": "NodesMissing",
            "node_role_id": ROLE_ID,
            "groups": [group],
        }
        (etc / "tend.json").write_text(json.dumps(tend))
        self.script("controller", etc, "secrets", "1")
        head = f'member = 1\nlisten = "127.0.0.1:{self.api}"\ntoken_file = "{etc}/token"\n'
        self.peer = f'1 = "127.0.0.1:{link}"\n'
        self.settings("controller", etc, head, f"[peers]\n{self.peer}", "controller-1")
        self.start("controller", etc)
        until(lambda: (self.ask(etc, "/v1/cluster") or {}).get("leads"), "the controller leads")
        return etc

    def ask(self, etc, path, **how):
        headers = {"Authorization": f"Bearer {(etc / 'token').read_text()}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", headers=headers, **how)) as answer:
                return json.load(answer)
        except OSError:
            return None

    def instances(self, *ids, state="InService"):
        members = [{"InstanceId": each, "LifecycleState": state} for each in ids]
        self.change(groups=[{"AutoScalingGroupName": "weft-blue-general", "DesiredCapacity": len(ids), "Instances": members}])

    # A node.

    def node(self, instance):
        """What a node's machine has before it is called for."""
        etc = self.etc(instance)
        self.metadata.paths = {"instance-id": instance}
        machine = {"region": "eu-central-1", "parameters": "/weft/blue", "group": "weft-blue-general", "hook": "drain"}
        (etc / "machine.json").write_text(json.dumps(machine))
        return etc

    def started_node(self, instance):
        etc = self.node(instance)
        self.script("node", etc, "certificate", STUB_READER=f"{ROLE_ID}:{instance}")
        name, value = (etc / "node.env").read_text().strip().split("=")
        self.settings("node", etc, "slots = 1\ndrain_seconds = 60\n", f"[controllers]\n{self.peer}", "node")
        process = self.start("node", etc, **{name: value})
        (etc / "node.pid").write_text(str(process.pid))
        return etc, process, value

    def watch(self, etc):
        command = [sys.executable, FILES / "node.py", "watch"]
        process = subprocess.Popen(command, env=self.environment(etc), stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    # Tests.

    def test_secrets_are_made_once_and_shared(self):
        first, second = self.etc("first"), self.etc("second")
        for etc in (first, second):
            (etc / "tend.json").write_text(json.dumps({"parameters": "/weft/blue", "region": "eu-central-1"}))
        self.script("controller", first, "secrets", "1")
        self.script("controller", second, "secrets", "2")
        for file in ("token", "certs/ca.pem", "certs/ca.key"):
            self.assertEqual((first / file).read_text(), (second / file).read_text())
        self.assertGreaterEqual(len((first / "token").read_text()), 32)
        for file in ("token", "certs/ca.key", "certs/controller-1.key"):
            self.assertEqual(stat.S_IMODE((first / file).stat().st_mode), 0o600)
        self.assertEqual(sorted(self.state()["parameters"]), ["/weft/blue/authority", "/weft/blue/token"])
        self.assertNotIn((first / "token").read_text(), json.dumps([call["arguments"] for call in self.state()["calls"]]))

    def test_a_node_gets_its_own_certificate_joins_and_drains_when_its_group_gives_it_back(self):
        controller = self.controller()
        self.instances("i-1")
        self.script("controller", controller, "tend")
        etc, process, name = self.started_node("i-1")
        self.assertEqual(name, "general-1")
        until(lambda: [each["status"] for each in self.ask(controller, "/v1/cluster")["nodes"]] == ["ready"], "the node is ready")
        watch = self.watch(etc)
        self.metadata.paths["autoscaling/target-lifecycle-state"] = "Terminated"
        self.assertEqual(process.wait(DEADLINE_SECONDS), 0)
        self.assertEqual(watch.wait(DEADLINE_SECONDS), 0)
        (call,) = self.calls("complete-lifecycle-action")
        arguments = call["arguments"]
        for name, value in (("--lifecycle-hook-name", "drain"), ("--instance-id", "i-1"), ("--lifecycle-action-result", "CONTINUE")):
            self.assertEqual(arguments[arguments.index(name) + 1], value)

    def test_a_notice_of_interruption_drains_the_node(self):
        controller = self.controller()
        self.instances("i-1")
        self.script("controller", controller, "tend")
        etc, process, _ = self.started_node("i-1")
        until(lambda: [each["status"] for each in self.ask(controller, "/v1/cluster")["nodes"]] == ["ready"], "the node is ready")
        self.watch(etc)
        self.assertIsNone(process.poll())
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 120))
        self.metadata.paths["spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        self.assertEqual(process.wait(DEADLINE_SECONDS), 0)
        done = [line for line in (etc / "systemctl.log").read_text().splitlines() if not line.startswith("is-active")]
        self.assertEqual(done, ["stop --no-block weft-node.service"])

    def test_a_machine_whose_node_a_client_has_drained_powers_off(self):
        controller = self.controller()
        self.instances("i-1")
        self.script("controller", controller, "tend")
        etc, process, _ = self.started_node("i-1")
        log = etc / "systemctl.log"
        watch = self.watch(etc)
        until(lambda: log.exists() and log.read_text().count("is-active") > 1, "the watch has looked once")
        process.terminate()
        process.wait(DEADLINE_SECONDS)
        self.assertEqual(watch.wait(DEADLINE_SECONDS), 0)
        self.assertEqual(log.read_text().splitlines()[-1], "poweroff")
        self.assertEqual(self.calls("complete-lifecycle-action"), [])

    def test_a_node_that_still_works_shortly_before_the_interruption_is_told_to_end(self):
        etc = self.node("i-1")
        # A node that takes SIGTERM, and works on.
        (etc / "node.pid").write_text("")
        self.watch(etc)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
        self.metadata.paths["spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
        log = etc / "systemctl.log"
        last = "kill --kill-who=main --signal=SIGTERM weft-node.service"
        lines = until(lambda: log.exists() and last in log.read_text() and log.read_text().splitlines(), "a second signal")
        self.assertEqual(lines[:2], ["stop --no-block weft-node.service", last])

    def test_a_certificate_has_the_tag_of_its_own_instance(self):
        controller = self.controller()
        self.instances("i-1", "i-2")
        self.script("controller", controller, "tend")
        found = self.state()["parameters"]
        for instance in ("i-1", "i-2"):
            self.assertEqual(found[f"/weft/blue/nodes/{instance}"]["Tags"], [{"Key": "weft-reader", "Value": f"{ROLE_ID}:{instance}"}])
        self.assertFalse([name for name in ("authority", "token") if "Tags" in found[f"/weft/blue/{name}"]])

    def test_names_are_used_again_once_an_instance_is_gone(self):
        controller = self.controller()

        def names(*ids, **how):
            self.instances(*ids, **how)
            self.script("controller", controller, "tend")
            found = self.state()["parameters"]
            return {name.split("/")[-1]: found[name]["Description"] for name in found if "/nodes/" in name}

        self.assertEqual(names("i-1", "i-2"), {"i-1": "general-1", "i-2": "general-2"})
        self.assertEqual(names("i-2", "i-3"), {"i-2": "general-2", "i-3": "general-1"})
        # One that is on its way out gets none, and keeps the one that it has.
        self.assertEqual(names("i-2", "i-4", state="Terminating:Wait"), {"i-2": "general-2"})

    def test_what_waits_is_published_as_missing_nodes(self):
        controller = self.controller()
        self.instances()
        self.script("controller", controller, "tend")
        # Without a node, a job's planning waits.
        command = [WEFT, "sql", "SELECT 1", "--endpoint", f"http://127.0.0.1:{self.api}", "--token", (controller / "token").read_text()]
        waiting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(waiting.wait)
        self.addCleanup(waiting.send_signal, signal.SIGKILL)
        until(lambda: (self.ask(controller, "/v1/queue") or {}).get("steps_waiting"), "a step waits")
        self.script("controller", controller, "tend")
        values = [call["document"]["MetricData"][0]["Value"] for call in self.calls("put-metric-data")]
        self.assertEqual(values, [0, 1])
