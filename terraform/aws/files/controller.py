#!/usr/bin/env python3
"""What a controller does on AWS beside Weft: secrets, certificates of nodes, the metric for scaling.

    controller.py secrets MEMBER   makes or reads authority and token, issues this controller's certificate
    controller.py tend             if this controller leads: publishes the metric, hands out certificates

Runs as root. Secrets go to `aws` by its standard input, so no list of processes shows them.
"""

import json
import math
import os
import pathlib
import re
import secrets as random
import shutil
import subprocess
import sys
import tempfile
import urllib.request

ETC = pathlib.Path(os.environ.get("WEFT_ETC", "/etc/weft"))
USER = os.environ.get("WEFT_USER", "weft")
WEFT = os.environ.get("WEFT_BIN", "/usr/local/bin/weft")
ANSWER_SECONDS = 10
UNFINISHED = ("planning", "running", "publishing")


class Refused(Exception):
    """An answer of AWS other than success."""


def aws(*arguments, document=None):
    """Calls the AWS CLI, with the document as its input. Gives its answer."""
    command = ["aws", *arguments, "--output", "json"]
    if document is not None:
        command += ["--cli-input-json", "file:///dev/stdin"]
    text = None if document is None else json.dumps(document)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return json.loads(done.stdout or "null")


# Secrets.


def secret(name, make):
    """The parameter's value; the first of all controllers makes it, and none overwrites it."""
    try:
        return read_secret(name)
    except Refused as refused:
        if "ParameterNotFound" not in str(refused):
            raise
    value = make()
    try:
        aws("ssm", "put-parameter", document={"Name": name, "Type": "SecureString", "Value": value})
        return value
    except Refused as refused:
        if "ParameterAlreadyExists" not in str(refused):
            raise
    return read_secret(name)


def read_secret(name):
    return aws("ssm", "get-parameter", "--name", name, "--with-decryption")["Parameter"]["Value"]


def make_authority():
    with tempfile.TemporaryDirectory() as folder:
        weft("certs", "ca", "--dir", folder)
        ca, key = (pathlib.Path(folder, name).read_text() for name in ("ca.pem", "ca.key"))
    return json.dumps({"certificate": ca, "key": key})


def weft(*arguments):
    subprocess.run([WEFT, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=60)


def write(path, text, mode, is_for_weft=False):
    """Writes a file that is never seen with another mode or half of its text. It is root's, or the user's of Weft."""
    part = path.with_name(path.name + ".new")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    if is_for_weft:
        shutil.chown(part, USER)
    part.rename(path)


def prepare(settings, member):
    """Lays secrets and this controller's certificate where its settings look for them."""
    authority = json.loads(secret(f"{settings['parameters']}/authority", make_authority))
    token = secret(f"{settings['parameters']}/token", lambda: random.token_hex(32))
    certs = ETC / "certs"
    certs.mkdir(mode=0o755, exist_ok=True)
    write(certs / "ca.pem", authority["certificate"], 0o644)
    write(certs / "ca.key", authority["key"], 0o600)
    write(ETC / "token", token, 0o600, is_for_weft=True)
    certificate, key = issue("controller", member)
    write(certs / f"controller-{member}.pem", certificate, 0o644)
    write(certs / f"controller-{member}.key", key, 0o600, is_for_weft=True)


def issue(role, name):
    """Certificate and key for a process, signed by the authority of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        for file in ("ca.pem", "ca.key"):
            shutil.copy(ETC / "certs" / file, folder)
        weft("certs", "issue", role, name, "--dir", folder)
        stem = f"controller-{name}" if role == "controller" else name
        return tuple(pathlib.Path(folder, stem + end).read_text() for end in (".pem", ".key"))


# Scaling.


def read_metrics(text):
    """Gauges of the OpenMetrics text, by name; with labels, by name and labels."""
    found = re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def demand(metrics):
    """Slots that the work needs: tasks that run or wait, steps that wait. A job that is not at its end needs one."""
    names = ("weft_tasks_waiting", "weft_tasks_running", "weft_steps_waiting")
    slots = sum(metrics.get(name, 0) for name in names)
    jobs = sum(metrics.get(f'weft_jobs{{status="{status}"}}', 0) for status in UNFINISHED)
    return max(int(slots), 1 if jobs else 0)


def wanted(slots, groups):
    """Nodes that each group should have. Groups are filled in their order, each up to its maximum."""
    nodes = {}
    for group in groups:
        need = math.ceil(slots / group["slots"])
        nodes[group["name"]] = max(group["min"], min(group["max"], need))
        slots = max(0, slots - nodes[group["name"]] * group["slots"])
    return nodes


def publish(settings, metrics, found):
    """Publishes how many nodes each group lacks. `found`: the groups, as AWS has them."""
    nodes = wanted(demand(metrics), settings["groups"])
    data = []
    for group in settings["groups"]:
        if group["name"] not in found:
            continue
        dimensions = [
            {"Name": "Cluster", "Value": settings["cluster"]},
            {"Name": "Group", "Value": group["group"]},
        ]
        missing = nodes[group["name"]] - found[group["name"]]["DesiredCapacity"]
        data.append({"MetricName": settings["metric"], "Dimensions": dimensions, "Value": missing, "Unit": "Count"})
    if data:
        document = {"Namespace": settings["namespace"], "MetricData": data}
        aws("cloudwatch", "put-metric-data", document=document)


# Certificates of nodes.


def free_name(group, taken):
    """The lowest free name of a group. Names are used again: a cluster remembers every node that ever joined."""
    number = 1
    while f"{group}-{number}" in taken:
        number += 1
    return f"{group}-{number}"


def hand_out(settings, found):
    """Gives each new instance a name and a certificate, and takes back those of instances that are gone."""
    prefix = f"{settings['parameters']}/nodes/"
    filters = f"Key=Name,Option=BeginsWith,Values={prefix}"
    listed = aws("ssm", "describe-parameters", "--parameter-filters", filters)["Parameters"]
    # The description of a parameter is the name of the node.
    names = {entry["Name"].removeprefix(prefix): entry.get("Description", "") for entry in listed}
    here = {
        instance["InstanceId"]: (group, instance["LifecycleState"])
        for group in settings["groups"]
        for instance in found.get(group["name"], {}).get("Instances", [])
    }
    for instance in sorted(set(names) - set(here)):
        aws("ssm", "delete-parameter", "--name", prefix + instance)
        del names[instance]
    for instance, (group, state) in sorted(here.items()):
        if instance in names or state.startswith("Terminat"):
            continue
        name = free_name(group["group"], set(names.values()))
        certificate, key = issue("node", name)
        authority = (ETC / "certs" / "ca.pem").read_text()
        value = {"node": name, "ca": authority, "certificate": certificate, "key": key}
        # The roles of nodes may read what has this tag, and `aws:userid` of an instance is the role's id and its own.
        reader = {"Key": "weft-reader", "Value": f"{settings['node_role_id']}:{instance}"}
        document = {"Name": prefix + instance, "Description": name, "Type": "SecureString"}
        aws("ssm", "put-parameter", document={**document, "Value": json.dumps(value), "Tags": [reader]})
        names[instance] = name
        print(f"{instance} is {name}")


def ask(settings, path):
    token = (ETC / "token").read_text().strip()
    request = urllib.request.Request(settings["api"] + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return answer.read().decode()


def tend(settings):
    """Only the leader knows what waits, and only one controller may hand out names."""
    if not json.loads(ask(settings, "/v1/cluster"))["leads"]:
        return
    names = [group["name"] for group in settings["groups"]]
    if not names:
        return
    described = aws("autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", *names)
    found = {group["AutoScalingGroupName"]: group for group in described["AutoScalingGroups"]}
    publish(settings, read_metrics(ask(settings, "/metrics")), found)
    hand_out(settings, found)


def main(arguments):
    settings = json.loads((ETC / "tend.json").read_text())
    os.environ["AWS_DEFAULT_REGION"] = settings["region"]
    if arguments[:1] == ["secrets"] and len(arguments) == 2:
        prepare(settings, arguments[1])
    elif arguments == ["tend"]:
        tend(settings)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
