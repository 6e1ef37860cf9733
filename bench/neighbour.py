"""Somebody who goes on calling a function while its executor is killed."""
import concurrent.futures, http.client, os, signal, threading, time

CALLS_A_SECOND, TRIES_MAX = 100, 30


class Neighbour(threading.Thread):
    """Calls `hello/echo` at a steady rate, and again after 429 when `Retry-After` says so. Each try is kept: when it began and ended, and what came of it."""

    def __init__(self, port, token):
        super().__init__(daemon=True)
        self.port, self.headers = port, {"Authorization": f"Bearer {token}"}
        self.tries, self.calls, self.stopped, self.news = [], [], threading.Event(), threading.Condition()

    def run(self):
        with concurrent.futures.ThreadPoolExecutor(max_workers=512) as pool:
            due = time.monotonic()
            while not self.stopped.wait(max(0, due - time.monotonic())):
                pool.submit(self.call)
                due += 1 / CALLS_A_SECOND

    def call(self):
        began = time.monotonic()
        for _ in range(TRIES_MAX):
            result, wait_s = self.once()
            if result != 429:
                break
            time.sleep(wait_s)
        self.calls.append((time.monotonic() - began, result))

    def once(self):
        began, wait_s = time.monotonic(), 1.0
        try:
            # A connection a call, so that none is old.
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("POST", "/v1/invoke/hello/echo", b"hi", self.headers)
            answer = connection.getresponse()
            body, result, wait_s = answer.read(), answer.status, float(answer.headers.get("Retry-After", 1))
            if result == 200 and body != b"hi":
                result = f"200 with {body[:20]}"
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            result = repr(error)
        with self.news:
            self.tries.append((began, time.monotonic(), result))
            self.news.notify_all()
        return result, wait_s

    def first_success(self, since, within_s):
        """When the first call of those that began since then succeeded."""
        def found():
            return min((end for begin, end, result in self.tries if begin >= since and result == 200), default=None)
        with self.news:
            self.news.wait_for(found, within_s)
            return found()


def kill(pid):
    """Ends a process; gives when, and when it was gone."""
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] in "ZX":
                    break
        except OSError:
            break
    return at, time.monotonic()
