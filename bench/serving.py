"""A server of Weft's that a measurement starts, asks and stops, and connections to it that stay open."""
import ctypes, json, os, re, signal, socket, subprocess, time

# The server closes connections on which nothing has come for 10 s.
IDLE_S = 5
READY = re.compile(r"weft is ready on http://([0-9.]+):(\d+)")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def _end_with_parent():
    """Has the kernel stop this process when the thread that started it is gone, however that came."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """`weft up` on a free port of the loopback interface, with a data folder of its own in `folder`."""

    def __init__(self, weft, folder, *flags, env={}):
        self.data, self.log = f"{folder}/data", f"{folder}/server.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WEFT", "OTEL_", "RUST_LOG"))} | env
        command = [weft, "--data", self.data, "up", "--listen", "127.0.0.1:0", *flags]
        with open(self.log, "w") as log:
            # A session of its own: Ctrl-C is for the measurement, which stops the server when it has looked at it.
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                            start_new_session=True, preexec_fn=_end_with_parent)
        try:
            self.address = self._ready()
            with open(f"{self.data}/token") as token:
                self.token = token.read().strip()
        except BaseException:
            self.stop()
            raise

    def _ready(self):
        for _ in range(1000):
            with open(self.log) as log:
                if found := READY.search(log.read()):
                    return found[1], int(found[2])
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        with open(self.log) as log:
            raise RuntimeError(f"the server is not ready: {log.read()[-2000:]}")

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        """Ends it. Gives how long that took, and the exit code."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return time.monotonic() - began, self.process.wait()

    def request(self, method, path, body=b"", *headers):
        """The bytes of a request."""
        host, port = self.address
        lines = [f"{method} {path} HTTP/1.1", f"host: {host}:{port}", f"authorization: Bearer {self.token}", f"content-length: {len(body)}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def upload(self, component):
        return self.request("POST", "/v1/components", component, "content-type: application/wasm")


class Line:
    """A connection that stays open. No more of HTTP is read than the status and the body, so that asking costs little."""

    def __init__(self, address, timeout_s=60):
        self.address, self.timeout_s, self.socket, self.used = address, timeout_s, None, 0.0

    def ask(self, request):
        """Status and body. After an error the next request has a new connection."""
        now = time.monotonic()
        if now - self.used > IDLE_S:
            self.close()
        self.used = now
        try:
            if self.socket is None:
                self.socket = socket.create_connection(self.address, self.timeout_s)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(request)
            return self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self):
        data = self._more()
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        at = data.find(b"\r\ncontent-length: ", 0, end + 2)
        if at < 0:
            raise ConnectionError(f"an answer without a length: {data[:end]}")
        rest = end + 4 + int(data[at + 18:data.find(b"\r", at + 18)]) - len(data)
        while rest > 0:
            more = self._more()
            data, rest = data + more, rest - len(more)
        return int(data[9:12]), data[end + 4:]

    def _more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        return data

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def told(status, body):
    """An answer, for people."""
    try:
        problem = json.loads(body)
        return f"{status} {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{status} {body[:200]!r}"


def at(ordered, fraction):
    """A quantile of what is in order."""
    return ordered[int((len(ordered) - 1) * fraction)]
