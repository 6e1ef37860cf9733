"""Weft on folders and on a bucket, its jobs, and what a reader of manifests sees of their outputs."""
import collections, glob, hashlib, http.client, json, os, random, time

import workloads
from chaos import Cluster
from s3_server import KEY, REGION, SECRET
from serving import Server

# Buckets: of the clusters' own stores, and of the inputs and outputs of jobs.
OWN, LAKE = "cluster", "lake"
MANIFEST = "_weft.manifest"
OUTPUTS = tuple(workloads.OUTPUTS["weblog"])
# Requests, as receipts count them.
KINDS = "get", "put", "list", "head", "delete"
ENDED = "succeeded", "failed", "cancelled"
LOOK_S = 0.01
ANSWER_S = 60
TIDY_S = 60


def environment(address=None):
    """The environment of processes. `address`: of the S3 server where the cluster's objects and those of jobs are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("WEFT", "OTEL_", "RUST_LOG", "AWS_"))}
    if address:
        options = {"ENDPOINT": f"http://{address}", "REGION": REGION, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET}
        env.update({f"WEFT__STORE__{name}": value for name, value in options.items()})
        env.update({f"WEFT__STORE__LAKE__{name}": value for name, value in options.items()}, WEFT__STORE__LAKE__URL=f"s3://{LAKE}/")
    return env


class Up(Server):
    """`weft up`, on a folder of its own or with objects in a bucket below `prefix`."""

    ask, insist = Cluster.ask, Cluster.insist

    def __init__(self, weft, folder, prefix=None, address=None, env={}):
        os.makedirs(folder, exist_ok=True)
        flags = ("--store", f"s3://{OWN}/{prefix}") if prefix else ()
        super().__init__(weft, folder, *flags, env=environment(address) | env)
        self.addresses = ["{}:{}".format(*self.address)]

    def close(self):
        self.stop()

    def kill(self):
        """What a crash does. Its children end by themselves."""
        self.process.kill()
        self.process.wait()


class Nodes(Cluster):
    """Three controllers and three nodes of one slot each."""

    def __init__(self, weft, folder, prefix=None, address=None):
        os.makedirs(folder, exist_ok=True)
        flags = ("--store", f"s3://{OWN}/{prefix}") if prefix else ()
        super().__init__(weft, folder, 3, 3, *flags, env=environment(address))


class Client:
    """Asks a system until there is an answer, whichever of its processes dies."""

    def __init__(self, system, seed=0):
        self.system, self.draw = system, random.Random(seed)

    def ask(self, method, path, body=None, headers={}, within_s=ANSWER_S):
        """Status and body."""
        answer = self.system.insist(self.draw, time.monotonic() + within_s, method, path, body, headers)
        if answer is None:
            raise RuntimeError(f"{method} {path} has no answer within {within_s} s")
        return answer

    def read(self, path):
        status, body = self.ask("GET", path)
        if status != 200:
            raise RuntimeError(f"{path} is answered by {status} {body[:300]}")
        return json.loads(body)

    def read_once(self, path):
        """The same of a system that may be dead. Errors: OSError and RuntimeError."""
        try:
            status, body = self.system.ask(self.system.addresses[0], "GET", path, timeout=5)
        except http.client.HTTPException as error:
            raise RuntimeError(f"{path}: {error!r}")
        if status != 200:
            raise RuntimeError(f"{path} is answered by {status} {body[:300]}")
        return json.loads(body)

    def deploy(self, wasm):
        with open(wasm, "rb") as file:
            status, body = self.ask("POST", "/v1/components", file.read(), {"content-type": "application/wasm"})
        if status not in (200, 201):
            raise RuntimeError(f"{wasm} is not deployed: {status} {body[:300]}")

    def submit(self, spec, key):
        status, body = self.ask("POST", "/v1/jobs", spec, {"content-type": "application/json", "idempotency-key": key})
        if status not in (200, 201):
            raise RuntimeError(f"the job is answered by {status} {body[:500]}")
        return json.loads(body)["id"]

    def wait(self, id, within_s=900, seen=lambda status: None):
        """The job as it stands when it has ended, or None. `seen` hears of every look."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            job = self.read(f"/v1/jobs/{id}")
            seen(job["status"])
            if job["status"] in ENDED:
                return job
            time.sleep(LOOK_S)
        return None

    def run(self, spec, key):
        """A job that must succeed, and its seconds."""
        began = time.perf_counter()
        id = self.submit(spec, key)
        job = self.wait(id)
        took = time.perf_counter() - began
        if job is None or job["status"] != "succeeded":
            raise RuntimeError(f"job {id}: {job and job.get('problem')}")
        return job, took

    def requests(self, id):
        """Requests to buckets on the job's receipt, by kind. The receipt stands when nothing of the job runs any more."""
        until = time.monotonic() + TIDY_S
        while (receipt := self.read(f"/v1/jobs/{id}/receipt"))["provisional"] and time.monotonic() < until:
            time.sleep(LOOK_S)
        return {kind: receipt["billed"][f"{kind}_requests"] + receipt["platform"][f"{kind}_requests"] for kind in KINDS}


def weblog(data, out, mode="error", partitions=None):
    """The job of the weblog example. `data`, `out`: folders, or `s3://` locations."""
    spec = json.loads(workloads.job("weblog", data, out))
    for stage in spec["stage"]:
        if "shuffle" in stage and partitions:
            stage["shuffle"]["partitions"] = partitions
    for output in spec["output"].values():
        output["mode"] = mode
    return json.dumps(spec)


# ---- data

def cut(logs, folder, size):
    """Files with the first lines of those in `logs`: about `size` bytes in all."""
    os.makedirs(folder)
    files = sorted(glob.glob(f"{logs}/access-*.log"))
    if not files:
        raise SystemExit(f"{logs} has no access-*.log: `cargo xtask logs --out {logs}` makes some")
    for path in files:
        with open(path, "rb") as file, open(f"{folder}/{os.path.basename(path)}", "wb") as to:
            text = file.read(size // len(files))
            to.write(text[:text.rfind(b"\n") + 1])
    return folder


def copy(folder, bucket, prefix):
    """Puts the files of a folder into a bucket. Gives their size."""
    total = 0
    for path in sorted(glob.glob(f"{folder}/*")):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            bucket.put(f"{prefix}/{os.path.basename(path)}", file, size)
        total += size
    return total


# ---- outputs

class Torn(Exception):
    """A manifest lists what is not there, or not as it says."""


def files_in_folder(folder):
    """Digests of the files that the manifest of a folder lists, by name."""
    with open(f"{folder}/{MANIFEST}") as file:
        listed = json.load(file)["files"]
    return {one["name"]: _sha256(open(f"{folder}/{one['name']}", "rb").read()) for one in listed}


def files_in_bucket(bucket, prefix):
    """The same of a folder in a bucket, and their keys; nothing of a folder without a manifest."""
    manifest = bucket.get(f"{prefix}/{MANIFEST}")
    while manifest is not None:
        found, keys, torn = {}, {f"{prefix}/{MANIFEST}"}, None
        for one in json.loads(manifest)["files"]:
            key = f"{prefix}/{one['key']}"
            body = bucket.get(key)
            if body is None or len(body) != one["bytes"]:
                torn = f"{key} has {body and len(body)} bytes, and the manifest says {one['bytes']}"
                break
            found[one["name"]] = _sha256(body)
            keys.add(key)
        # Files that were replaced since the manifest was read are gone.
        again = bucket.get(f"{prefix}/{MANIFEST}")
        if again == manifest or not torn:
            if torn:
                raise Torn(torn)
            return found, keys
        manifest = again
    return {}, set()


def _sha256(bytes_):
    return hashlib.sha256(bytes_).hexdigest()


def in_folder(out):
    return {f"{output}/{name}": found for output in OUTPUTS for name, found in files_in_folder(f"{out}/{output}").items()}


def in_bucket(bucket, prefix):
    return {f"{output}/{name}": found for output in OUTPUTS for name, found in files_in_bucket(bucket, f"{prefix}/{output}")[0].items()}


def times(files, expected):
    """How often files hold what one job publishes; None where that is not a whole number of times."""
    files, expected = collections.Counter(files.values()), collections.Counter(expected.values())
    first = next(iter(expected))
    n, rest = divmod(files[first], expected[first])
    return n if rest == 0 and files == collections.Counter({name: n * of for name, of in expected.items()}) else None


def left_behind(bucket, prefix, own=None, own_prefix=None):
    """What lies below a prefix that no manifest lists, uploads that nobody has completed, and objects of jobs that have ended."""
    listed = set()
    for output in OUTPUTS:
        listed |= files_in_bucket(bucket, f"{prefix}/{output}")[1]
    found = [f"object {key}" for key in bucket.keys(f"{prefix}/") if key not in listed]
    found += [f"upload {key}" for key in bucket.uploads(f"{prefix}/")]
    if own:
        found += [f"own object {key}" for key in own.keys(f"{own_prefix}/jobs/")]
    return found


def until_tidy(look, within_s=TIDY_S):
    """What is still left behind after a while."""
    until = time.monotonic() + within_s
    while (left := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return left
