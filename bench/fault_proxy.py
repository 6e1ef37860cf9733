#!/usr/bin/env python3
"""A proxy in front of an S3 server that does to requests what networks and overloaded stores do.

    python3 bench/fault_proxy.py        (tests itself)

Of the requests to the buckets that are named, so many in a hundred meet one of these, drawn from a seed:

    refused   500, 503 or 429, and the server never hears of the request
    lost      the server does it, and the answer is 503, a closed connection, or a reset one
    cut       half of the answer comes, then the connection is reset
    late      the answer comes after 0.1 to 1 s

At 100 % nothing is merely late. The port is served by a process of its own, as that of `partition.py` is. Which request draws which fault depends on
the order in which requests come, so a seed gives the same faults, and not the same run.
"""
import asyncio, collections, multiprocessing, random, socket, struct, sys, threading, time, urllib.parse

STOP_TIMEOUT_S = 5
LATE_S = 0.1, 1.0
PIECE_BYTES = 256 << 10
HEAD_BYTES_MAX = 64 << 10
FAULTS = ("refused 500", "refused 503", "refused 429", "lost 503", "lost closed", "lost reset", "cut", "late")
# Requests that are remembered; those that come later are only counted.
REMEMBERED_MAX = 2_000_000


class Proxy:
    """The measurement's handle. Several threads may use it."""

    def __init__(self, upstream, seed):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._lock = threading.Lock()
        self._process = context.Process(target=_serve, args=(theirs, upstream, seed), daemon=True)
        self._process.start()
        theirs.close()
        self.port = self._pipe.recv()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def fail(self, rate, buckets=None):
        """From now on, `rate` of the requests fail: to all buckets, or to those that are named."""
        self._do("fail", rate, buckets)

    def take_counts(self):
        """How many requests there were since the last time, and how many met which fault."""
        return self._do("take_counts")

    def take_requests(self):
        """Requests since the last time: Unix time, bucket, key or listed prefix, name of the operation, status or fault."""
        return self._do("take_requests")

    def close(self):
        with self._lock:
            self._pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _do(self, *what):
        with self._lock:
            self._pipe.send(what)
            return self._pipe.recv()


def operation(method, target):
    """Bucket, key or listed prefix, and what is done to it."""
    path, _, query = target.partition("?")
    bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
    query = urllib.parse.parse_qs(query, keep_blank_values=True)
    if not key and method in ("GET", "HEAD"):
        return bucket, query.get("prefix", [""])[0], "list uploads" if "uploads" in query else "list"
    if "uploads" in query:
        return bucket, key, "create upload"
    if "uploadId" in query:
        return bucket, key, {"PUT": "put part", "POST": "complete upload", "DELETE": "abort upload"}.get(method, method.lower())
    return bucket, key, {"POST": "delete many"}.get(method, method.lower())


class Reset(Exception):
    """The client's connection is to be reset."""


class Service:
    """What happens in the proxy's process."""

    def __init__(self, upstream, seed):
        self.upstream, self.draw, self.rate, self.buckets = upstream, random.Random(seed), 0.0, None
        self.counts, self.remembered = collections.Counter(), []

    async def fail(self, rate, buckets):
        self.rate, self.buckets = rate, buckets

    async def take_counts(self):
        counts, self.counts = dict(self.counts), collections.Counter()
        return counts

    async def take_requests(self):
        requests, self.remembered = self.remembered, []
        return requests

    def fault(self, bucket):
        if (self.buckets is not None and bucket not in self.buckets) or self.draw.random() >= self.rate:
            return None
        return self.draw.choice(FAULTS if self.rate < 1 else FAULTS[:-1])

    async def serve(self, reader, writer):
        """One connection of a client, with one of its own to the server."""
        upstream = None
        try:
            while True:
                head = await _head(reader)
                if head is None:
                    return
                method, target = head.split(b" ", 2)[:2]
                method, target = method.decode(), target.decode()
                body = await reader.readexactly(_length(head) or 0)
                bucket, key, what = operation(method, target)
                fault = self.fault(bucket)
                self.counts["requests"] += 1
                if fault:
                    self.counts[fault] += 1
                if fault and fault.startswith("refused"):
                    self.remember(bucket, key, what, fault)
                    writer.write(_refusal(int(fault.split()[1])))
                    await writer.drain()
                    continue
                if fault == "late":
                    await asyncio.sleep(self.draw.uniform(*LATE_S))
                upstream = upstream or await asyncio.open_connection(*self.upstream, limit=HEAD_BYTES_MAX)
                upstream[1].write(head + body)
                answer = await _head(upstream[0])
                if answer is None:
                    raise ConnectionError("the server has closed the connection")
                self.remember(bucket, key, what, fault or int(answer.split(b" ", 2)[1]))
                await self.pass_on(method, answer, upstream[0], writer, fault)
                if fault == "lost closed" or b"\r\nconnection: close" in answer.lower():
                    return
        except Reset:
            _reset_on_close(writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            for one in (writer, upstream and upstream[1]):
                if one:
                    one.close()

    def remember(self, *request):
        if len(self.remembered) < REMEMBERED_MAX:
            self.remembered.append((time.time(), *request))

    async def pass_on(self, method, head, upstream, writer, fault):
        """Sends an answer to the client, or what the fault makes of it."""
        pieces = [piece async for piece in _body(method, head, upstream)] if fault else _body(method, head, upstream)
        if fault == "lost 503":
            writer.write(_refusal(503))
        elif fault == "lost reset":
            raise Reset
        elif fault == "cut":
            whole = head + b"".join(pieces)
            writer.write(whole[:(len(head) + len(whole)) // 2 if len(whole) > len(head) else len(head) // 2])
            await writer.drain()
            # So that what was sent arrives before the reset does.
            await asyncio.sleep(0.005)
            raise Reset
        elif fault == "late":
            writer.write(head + b"".join(pieces))
        elif fault is None:
            writer.write(head)
            async for piece in pieces:
                writer.write(piece)
                await writer.drain()
        await writer.drain()


async def _head(reader):
    """The bytes of the head of a request or an answer. None where the other side has closed the connection."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None


def _header(head, name):
    at = head.lower().find(b"\r\n" + name + b":")
    return None if at < 0 else head[at + len(name) + 3:head.index(b"\r\n", at + 2)].strip()


def _length(head):
    found = _header(head, b"content-length")
    return None if found is None else int(found)


async def _body(method, head, reader):
    """The bytes that follow the head of an answer, in pieces, as they came."""
    status = int(head.split(b" ", 2)[1])
    if method == "HEAD" or status in (204, 304):
        return
    if (_header(head, b"transfer-encoding") or b"").lower() == b"chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            n = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(n + 2)
            if n == 0:
                return
    rest = _length(head) or 0
    while rest:
        piece = await reader.readexactly(min(rest, PIECE_BYTES))
        rest -= len(piece)
        yield piece


def _refusal(status):
    code = {429: "TooManyRequests", 503: "SlowDown"}.get(status, "InternalError")
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>The proxy refuses.</Message></Error>'
    return f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _reset_on_close(writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _serve(pipe, upstream, seed):
    asyncio.run(_obey(pipe, Service(upstream, seed)))


async def _obey(pipe, service):
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    pipe.send(server.sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    while True:
        await ready.wait()
        ready.clear()
        try:
            while pipe.poll():
                name, *arguments = pipe.recv()
                pipe.send(await getattr(service, name)(*arguments))
        except (EOFError, OSError):
            # The measurement has closed the proxy, or is gone.
            return


def _test():
    """Each fault, before a server that answers with 1,000 bytes, and counts what it hears."""
    import http.client, http.server

    heard = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((self.path, len(body)))
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.wfile.write(bytes(1000))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = Proxy(server.server_address, 1)

    def ask(path="/lake/a"):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
        try:
            connection.request("PUT", path, bytes(100_000))
            answer = connection.getresponse()
            return answer.status, len(answer.read())
        except (http.client.HTTPException, OSError) as error:
            return type(error).__name__, 0
        finally:
            connection.close()

    try:
        assert ask() == (200, 1000) and heard == [("/lake/a", 100_000)], "it carries requests"
        proxy.fail(1.0, ["lake"])
        answers = collections.Counter(ask()[0] for _ in range(200))
        assert 200 not in answers and {500, 503, 429, "RemoteDisconnected", "ConnectionResetError"} <= set(answers), answers
        assert ask("/own/a?partNumber=1&uploadId=b") == (200, 1000), "other buckets work"
        counts = proxy.take_counts()
        refused = sum(n for fault, n in counts.items() if fault.startswith("refused"))
        assert counts["requests"] == 202 and len(heard) == 202 - refused, (counts, len(heard))
        assert proxy.take_requests()[-1][1:] == ("own", "a", "put part", 200)
        proxy.fail(0.5)
        assert 40 < sum(ask() == (200, 1000) for _ in range(100)) < 75, "half of them, and those that are late"
        proxy.fail(0.0)
        assert ask() == (200, 1000)
    finally:
        proxy.close()
        server.shutdown()
    print("fault_proxy.py: all kinds of faults do what they should")


if __name__ == "__main__":
    sys.exit(_test())
