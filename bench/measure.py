"""What a run takes: memory of a process tree, the machine, the commit; and that nothing listens beyond this machine."""
import os, platform, subprocess, threading


def tree(root):
    """The process and all that it started, and that these did."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                children.setdefault(int(stat.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
        except OSError:
            pass  # it ended meanwhile
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory_kib(pid):
    """Anonymous and shared memory of a process."""
    kib = {"RssAnon": 0, "RssShmem": 0}
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name in kib:
                    kib[name] = int(value.split()[0])
    except OSError:
        pass
    return kib["RssAnon"], kib["RssShmem"]


class Sampler(threading.Thread):
    """The peak memory of process trees, looked at every 40 ms. `shares`: the processes map the same memory, which counts once."""

    def __init__(self, *roots, shares=False):
        super().__init__(daemon=True)
        self.roots, self.shares, self.peak_kib, self.stopped = list(roots), shares, 0, threading.Event()

    def sample(self):
        both = [memory_kib(pid) for root in list(self.roots) for pid in tree(root)]
        anonymous, shared = zip(*both)
        self.peak_kib = max(self.peak_kib, sum(anonymous) + (max if self.shares else sum)(shared))

    def run(self):
        while not self.stopped.wait(0.04):
            self.sample()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()

    @property
    def peak_mib(self):
        return round(self.peak_kib / 1024, 1)


def listens_beyond_loopback(root):
    """Addresses, in hexadecimal as the kernel shows them, that the tree of processes listens on and others may reach."""
    sockets = set()
    for pid in tree(root):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    sockets.add(target[8:-1])
        except OSError:
            pass
    found = []
    for table, loopback in (("tcp", ("0100007F",)), ("tcp6", ("00000000000000000000000001000000", "0000000000000000FFFF00000100007F"))):
        with open(f"/proc/net/{table}") as lines:
            for fields in map(str.split, lines):
                if fields[3] == "0A" and fields[9] in sockets and fields[1].split(":")[0] not in loopback:
                    found.append(fields[1])
    return found


def _first(path, name):
    with open(path) as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def machine():
    memory_kib = int(_first("/proc/meminfo", "MemTotal").split()[0])
    return {"cpu": _first("/proc/cpuinfo", "model name") or platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory_kib / 2**20, 1)}


def commit(folder):
    """The commit of the checkout, `-dirty` where files differ from it."""
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
