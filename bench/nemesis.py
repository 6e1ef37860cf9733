"""Faults of a cluster on this machine: its processes are killed, paused, and cut from each other.

    kill      leader, follower, node or executor: it is started again after 0.2 to 3 s
    pause     leader, follower, node, executor, or a node with its children ("machine"), for 1 to 8 s
    cut       leader or follower from the other controllers, or a node from all of them, for 1 to 8 s: bytes wait, or connections are reset
    one way   the leader does not reach the other controllers, or they do not reach it, for 1 to 8 s
    isolate   the leader from controllers and nodes, for 1 to 8 s
"""
import os, signal, time

import measure

FAULT_PAUSE_S = (3, 6)
# Of a pause or a cut: from what nobody notices to well beyond all time-outs between processes, the longest of which is 2.5 s.
FAULT_S = (1, 8)
KILLED_S = (0.2, 3)
# One cut of so many resets connections.
RESETS_ONE_IN = 4
FAULTS = ["kill leader", "kill follower", "kill node", "kill executor", "pause leader", "pause follower", "pause node",
          "cut leader", "cut follower", "cut node", "cut leader one way", "isolate leader"]
# How long a fault still shows once its process runs again: a node is lost and found, an election ends.
AFTER_FAULT_S = 2


def children(pid, role):
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit():
                parent = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[1]
                line = open(f"/proc/{name}/cmdline", "rb").read().split(b"\0")
                if int(parent) == pid and len(line) > 1 and line[1] == role:
                    found.append(int(name))
        except OSError:
            pass
    return found


class Deck:
    """Faults in random order, all of them before any comes again."""
    def __init__(self, draw, faults=FAULTS):
        self.draw, self.faults, self.cards = draw, faults, []

    def next(self):
        if not self.cards:
            self.cards = self.faults[:]
            self.draw.shuffle(self.cards)
        return self.cards.pop()


class Nemesis:
    """Kills, pauses and cuts processes until a moment, and records when."""
    def __init__(self, cluster, history, draw, deck):
        self.cluster, self.history, self.draw, self.deck = cluster, history, draw, deck
        self.faults, self.windows, self.log = [], [], []

    def run(self, until):
        while True:
            time.sleep(self.draw.uniform(*FAULT_PAUSE_S))
            began = time.monotonic()
            if began + 1 > until:
                return
            kind, killed = self.deck.next(), set()
            try:
                what = self.do(kind, killed)
                self.faults.append(kind)
            except (ProcessLookupError, IndexError) as error:
                what = f"did not come about: {error!r}"
            self.log.append((kind, what, began, time.monotonic()))
            self.heal(killed)
            self.windows.append((began, time.monotonic() + AFTER_FAULT_S))

    def heal(self, killed=()):
        pids = {name: process["pid"] for name, process in self.cluster.processes.items()}
        try:
            self.cluster.up()
        except SystemExit as error:
            return self.history.fault(str(error))
        for name, process in self.cluster.processes.items():
            if process["pid"] != pids[name] and name not in killed:
                self.history.fault(f"{name} has ended by itself")

    def do(self, kind, killed):
        """Returns what was done to whom."""
        what, who, *one_way = kind.split()
        leader = self.cluster.leader()
        controllers = [name for name in self.cluster.processes if name.startswith("controller")]
        nodes = [name for name in self.cluster.processes if name.startswith("node")]
        names = {"leader": [leader] if leader else [], "follower": [name for name in controllers if name != leader], "node": nodes}
        if who == "executor":
            pid = self.draw.choice([pid for name in nodes for pid in children(self.cluster.processes[name]["pid"], b"executor")])
            if what == "pause":
                self.pause([pid])
            else:
                os.kill(pid, signal.SIGKILL)
            return f"process {pid}"
        if who == "machine":
            name = self.draw.choice(nodes)
            self.pause(measure.tree(self.cluster.processes[name]["pid"]))
            return name
        name = self.draw.choice(names[who])
        if what == "kill":
            self.kill(name)
            killed.add(name)
            time.sleep(self.draw.uniform(*KILLED_S))
            return name
        if what == "pause":
            self.pause([self.cluster.processes[name]["pid"]])
            return name
        others = [other for other in controllers + (nodes if what == "isolate" else []) if other != name]
        return self.cut(name, others, one_way)

    def pause(self, pids):
        stopped = [pid for pid in pids if signalled(pid, signal.SIGSTOP)]
        if not stopped:
            raise ProcessLookupError(f"none of {pids} runs")
        time.sleep(self.draw.uniform(*FAULT_S))
        for pid in stopped:
            signalled(pid, signal.SIGCONT)

    def cut(self, name, others, one_way):
        mesh, how = self.cluster.mesh, self.draw.choice(["from", "to"]) if one_way else "both ways"
        reset = not one_way and self.draw.randrange(RESETS_ONE_IN) == 0
        for other in others:
            if how == "both ways":
                mesh.cut(name, other, reset)
            else:
                mesh.one_way(*((name, other) if how == "from" else (other, name)))
        time.sleep(self.draw.uniform(*FAULT_S))
        mesh.heal()
        return f"{name}, {how}{', connections reset' if reset else ''}: {', '.join(others)}"

    def kill(self, name):
        process = self.cluster.processes[name]
        address = (process["endpoint"] or "").removeprefix("http://")
        if address:
            self.cluster.lives[address] += 1
        os.kill(process["pid"], signal.SIGKILL)
        while is_alive(process["pid"]):
            time.sleep(0.001)
        if address:
            self.cluster.lives[address] += 1


def signalled(pid, with_):
    try:
        os.kill(pid, with_)
        return True
    except ProcessLookupError:
        return False


def is_alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
