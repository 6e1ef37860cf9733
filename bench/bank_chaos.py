#!/usr/bin/env python3
"""Whether money stays in a bank of actors while the processes of its cluster are killed and paused.

    python3 bench/bank_chaos.py --weft target/release/weft --guests target/guests [--rounds 10] [--seconds 20] [--seed 7] [--cuts]
                                [--ledger bench/bank_chaos.jsonl]

Three controllers and three nodes run on this machine (`weft cluster`). Rounds follow each other. In each one, clients transfer money between 100
accounts (`examples/bank`), through any controller, under idempotency keys, and repeat what has no answer; one transfer of so many asks for more than
there is. Auditors add to accounts of their own, which others read through one controller each. Every few seconds there is a fault of `nemesis.py`:
kills, and pauses of controllers, nodes, executors, and nodes with their executors; with --cuts, processes are cut from each other as well. After a
round the cluster heals, transfers without an answer are asked for until there is one, and must show:

    every account holds what its acknowledged transfers left, once all messages have arrived, and so does the sum
    at no time is there more money than was paid in
    a key that is asked for again has the same answer
    what the bank does not have is not transferred
    a read shows every deposit that was acknowledged before it began, and none that was asked for after it had ended
    no message was given up
    no controller and no node has ended by itself

A round without faults comes first, and is no part of --rounds. The exit code is 1 where something above does not hold; the seed is printed, and so are
the faults. With --ledger, a line for each round goes to the end of that file. After a round with something wrong, settings and logs of all
processes, events and faults are kept in a folder that is printed.
"""
import argparse, collections, concurrent.futures, http.client, json, os, random, signal, sys, tempfile, threading, time

import bank, measure
from chaos import KEPT_WITH_DATA, Cluster, keep
from histories import Event
from nemesis import FAULTS, Deck, Nemesis

ACCOUNTS, INITIAL, MAX_AMOUNT = 100, 1_000_000, 100
CLIENTS, AUDITORS, READERS = 8, 2, 8
TOO_MUCH_ONE_IN = 20
# Transfers of a round whose keys are asked for again.
REPEATED = 100
HEAL_S = 90
# Messages wait for a lane that backs off for up to 5 s, behind others of their shard.
DRAIN_S = 120
# Sums stay as they are for so long after messages have arrived: none of them arrives again.
SETTLE_S = 2
READ_TIMEOUT_S = 4
READ_PAUSE_S = 0.02
RETRY_PAUSE_S = 0.05
OF_PROCESSES = [fault for fault in FAULTS if fault.startswith(("kill", "pause"))] + ["pause executor", "pause machine"]
OF_LINKS = [fault for fault in FAULTS if fault not in OF_PROCESSES]


class Transfer:
    def __init__(self, key, giver, taker, amount):
        self.key, self.giver, self.taker, self.amount, self.answer = key, giver, taker, amount, None

    def request(self):
        return "POST", bank.path(self.giver, "transfer"), bank.transfer(self.taker, self.amount), {"idempotency-key": self.key}


class History:
    """What clients were told in a round, and what the accounts must hold for it."""

    def __init__(self, cluster, expected):
        self.cluster, self.lock, self.expected = cluster, threading.Lock(), expected
        self.wrong, self.events, self.done_at, self.codes = [], [], [], collections.Counter()
        self.done, self.open, self.refused, self.n_reads = [], [], 0, 0

    def fault(self, what):
        with self.lock:
            self.wrong.append(what)

    def insist(self, draw, until, kind, key, method, path, body=None, headers={}):
        """Asks until there is an answer that will not change: `done` or `refused`, and the body. None where there is none before `until`."""
        def told(address, began, answer):
            code = None if answer is None else "200" if answer[0] == 200 else bank.code(answer[1])
            with self.lock:
                self.codes[code or "no answer"] += 1
                self.events.append(Event(kind, key, began, time.monotonic(), self.name(address), None, code))
        while (answer := self.cluster.insist(draw, until, method, path, body, {**bank.HEADERS, **headers}, told=told)) is not None:
            status, body_ = answer
            code = None if status == 200 else bank.code(body_)
            if code in (None, "guest_error"):
                return "refused" if code else "done", body_
            # Deadlines are `limit_exceeded`, and say nothing about the outcome.
            if status < 500 and code != "limit_exceeded":
                self.fault(f"{kind} {key}: {status} {body_[:300]}")
                return None
            time.sleep(RETRY_PAUSE_S)
        return None

    def name(self, address):
        return f"controller-{self.cluster.addresses.index(address) + 1}"

    def settle(self, transfer, answer):
        """Notes what came of a transfer."""
        outcome, body = answer
        with self.lock:
            self.done_at.append(time.monotonic())
            if outcome == "refused":
                self.refused += 1
                if transfer.amount <= MAX_AMOUNT:
                    self.wrong.append(f"transfer {transfer.key} is refused: {body[:300]}")
                return
            if transfer.amount > MAX_AMOUNT:
                self.wrong.append(f"transfer {transfer.key} of {transfer.amount} from {transfer.giver} went through: {body[:300]}")
            transfer.answer = body
            self.done.append(transfer)
            self.expected[transfer.giver] -= transfer.amount
            self.expected[transfer.taker] += transfer.amount


def transfer_money(history, draw, until, name):
    number = 0
    while time.monotonic() < until:
        number += 1
        giver, taker = draw.sample(sorted(history.expected), 2)
        amount = draw.randint(1, MAX_AMOUNT)
        if draw.randrange(TOO_MUCH_ONE_IN) == 0:
            amount = 2 * ACCOUNTS * INITIAL
        transfer = Transfer(f"{name}-{number}", giver, taker, amount)
        answer = history.insist(draw, until + HEAL_S / 3, "transfer", transfer.key, *transfer.request())
        if answer is None:
            with history.lock:
                history.open.append(transfer)
        else:
            history.settle(transfer, answer)


class Auditor:
    """Adds 1 to an account of its own again and again, while others read it."""

    def __init__(self, history, account):
        self.history, self.account, self.asked, self.acknowledged = history, account, 0, 0

    def write(self, draw, until):
        while time.monotonic() < until:
            self.asked += 1
            headers = {"idempotency-key": f"{self.account}-{self.asked}"}
            request = "POST", bank.path(self.account, "deposit"), bank.deposit(1), headers
            answer = self.history.insist(draw, until + HEAL_S, "deposit", headers["idempotency-key"], *request)
            if answer is None:
                return self.history.fault(f"deposit {self.asked} to {self.account} has no answer")
            if answer[0] != "done" or bank.balance(answer[1]) != self.asked:
                self.history.fault(f"deposit {self.asked} to {self.account} is answered by {answer[1][:300]}")
            self.acknowledged = self.asked

    def read(self, draw, until, address):
        while time.monotonic() < until:
            least, began, status = self.acknowledged, time.monotonic(), None
            try:
                status, body = self.history.cluster.ask(address, "POST", bank.path(self.account, "balance"), b"", bank.HEADERS, READ_TIMEOUT_S)
            except (OSError, http.client.HTTPException):
                pass
            if status == 200:
                self.check(bank.balance(body), least, self.asked, began, address)
            time.sleep(draw.uniform(0, 2 * READ_PAUSE_S))

    def check(self, found, least, most, began, address):
        asked = self.history.name(address)
        with self.history.lock:
            self.history.n_reads += 1
            self.history.events.append(Event("read", self.account, began, time.monotonic(), asked, None, str(found)))
        if not least <= found <= most:
            self.history.fault(f"{self.account} holds {found} at {asked}, {began:.3f} to {time.monotonic():.3f} s: "
                               f"{least} deposits were acknowledged before, and {most} asked for")


def balances(history, draw, pool, until):
    """What the accounts hold; None of those that do not answer."""
    seeds = {account: random.Random(draw.random()) for account in history.expected}

    def read(account):
        answer = history.insist(seeds[account], until, "balance", account, "POST", bank.path(account, "balance"), b"")
        return bank.balance(answer[1]) if answer and answer[0] == "done" else None
    return dict(zip(history.expected, pool.map(read, history.expected)))


def drain(history, draw, pool):
    """Reads accounts until they hold what they must. Gives how long that took."""
    began, total = time.monotonic(), sum(history.expected.values())
    while True:
        found = balances(history, draw, pool, time.monotonic() + HEAL_S)
        # Transfers have their answers: what is missing is in messages, and nothing is ever too much.
        have = sum(amount or 0 for amount in found.values())
        if have > total:
            history.fault(f"there are {have} in the bank, and {total} were paid in")
        if found == history.expected or have > total:
            return found, time.monotonic() - began
        if time.monotonic() - began > DRAIN_S:
            return found, None
        time.sleep(0.2)


def check_balances(history, draw, pool):
    found, drained_s = drain(history, draw, pool)
    if found == history.expected:
        time.sleep(SETTLE_S)
        found = balances(history, draw, pool, time.monotonic() + HEAL_S)
    differ = {account: (found[account], must) for account, must in history.expected.items() if found[account] != must}
    if differ:
        missing = sum(must for _, must in differ.values()) - sum(have or 0 for have, _ in differ.values())
        some = ", ".join(f"{account} holds {have} instead of {must}" for account, (have, must) in list(differ.items())[:5])
        history.fault(f"{len(differ)} accounts hold something else, {missing} are missing in all: {some}")
    return found, drained_s


def check_repeats(history, draw):
    for transfer in draw.sample(history.done, min(REPEATED, len(history.done))):
        answer = history.insist(draw, time.monotonic() + HEAL_S, "repeat", transfer.key, *transfer.request())
        if answer != ("done", transfer.answer):
            history.fault(f"transfer {transfer.key} was answered by {transfer.answer[:200]}, and is by {answer}")


def check_letters(history, draw):
    for account in history.expected:
        answer = history.insist(draw, time.monotonic() + HEAL_S, "show", account, "GET", bank.path(account))
        if answer is None:
            history.fault(f"{account} is not shown")
        elif letters := json.loads(answer[1]).get("dead_letters"):
            history.fault(f"{account} has messages that were given up: {letters[:3]}")


def round_of(cluster, seed, number, expected, seconds, deck):
    draw = random.Random(f"{seed} {number}")
    own = lambda: random.Random(draw.random())
    history, began = History(cluster, expected), time.monotonic()
    until, name = began + seconds, f"bank-{seed}-{number}"
    auditors = [Auditor(history, f"audit-{seed}-{number}-{n}") for n in range(AUDITORS)]
    work = [(transfer_money, (history, own(), until, f"{name}-{n}")) for n in range(CLIENTS)]
    work += [(auditor.write, (own(), until)) for auditor in auditors]
    work += [(auditor.read, (own(), until, address)) for auditor in auditors for address in cluster.addresses]
    threads = [threading.Thread(target=of, args=arguments) for of, arguments in work]
    for thread in threads:
        thread.start()
    nemesis = Nemesis(cluster, history, own(), deck)
    if deck:
        nemesis.run(until)
    for thread in threads:
        thread.join()
    nemesis.heal()
    n_open = len(history.open)
    for transfer in history.open:
        answer = history.insist(draw, time.monotonic() + HEAL_S, "transfer", transfer.key, *transfer.request())
        if answer is None:
            history.fault(f"transfer {transfer.key} has no answer {HEAL_S} s after all faults")
        else:
            history.settle(transfer, answer)
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        found, drained_s = check_balances(history, draw, pool)
    check_repeats(history, draw)
    check_letters(history, draw)
    calm = [at for at in history.done_at if at < until and not any(a <= at <= b for a, b in nemesis.windows)]
    quiet_s = seconds - sum(min(b, until) - a for a, b in nemesis.windows if a < until)
    line = {"faults": nemesis.faults, "transfers": len(history.done), "refused": history.refused, "left_open": n_open, "reads": history.n_reads,
            "deposits": sum(auditor.acknowledged for auditor in auditors), "drained_s": drained_s and round(drained_s, 1),
            "per_second_outside_of_faults": round(len(calm) / quiet_s, 1) if quiet_s > 1 else None, "answers": dict(history.codes),
            "n_wrong": len(history.wrong), "wrong": history.wrong[:10], "seconds": round(time.monotonic() - began, 1)}
    # What follows is judged from what is there, so that one fault is told once.
    expected.update((account, have) for account, have in found.items() if have is not None)
    return history, nemesis, line


def open_bank(cluster, guests, seed):
    """Deploys the component, and pays in what the accounts begin with. Gives what they hold."""
    draw, until = random.Random(seed), time.monotonic() + HEAL_S
    with open(os.path.join(guests, f"{bank.COMPONENT}.wasm"), "rb") as file:
        answer = cluster.insist(draw, until, "POST", "/v1/components", file.read(), {"content-type": "application/wasm"})
    if answer is None or answer[0] not in (200, 201):
        raise SystemExit(f"the bank is not deployed: {answer}")
    expected = {f"account-{n:03}": INITIAL for n in range(ACCOUNTS)}
    history = History(cluster, {})
    for account in expected:
        answer = history.insist(draw, until, "deposit", account, "POST", bank.path(account, "deposit"), bank.deposit(INITIAL),
                                {"idempotency-key": f"open-{seed}-{account}"})
        if answer is None or answer[0] != "done":
            raise SystemExit(f"nothing is paid in to {account}: {answer} {history.wrong}")
    return expected


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components, with bank.wasm")
    p.add_argument("--rounds", type=int, default=10, help="rounds with faults [default: 10]")
    p.add_argument("--seconds", type=float, default=20, help="of a round [default: 20]")
    p.add_argument("--seed", type=int, help="drawn without it")
    p.add_argument("--cuts", action="store_true", help="processes are cut from each other as well")
    p.add_argument("--ledger", help="file to which a line for each round is added")
    p.add_argument("--commit", help="of the binary [default: that of this checkout]")
    return p.parse_args()


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended, and its folder removed
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    commit = a.commit or measure.commit(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(f"seed {seed}, commit {commit}, {measure.machine()}, load {os.getloadavg()[0]:.1f}", flush=True)
    failed, deck = 0, Deck(random.Random(f"{seed} faults"), OF_PROCESSES + (OF_LINKS if a.cuts else []))
    with tempfile.TemporaryDirectory(prefix="weft-bank-") as folder:
        cluster = Cluster(os.path.abspath(a.weft), folder, 3, 3, mesh=a.cuts)
        try:
            expected = open_bank(cluster, a.guests, seed)
            for number in range(a.rounds + 1):
                history, nemesis, line = round_of(cluster, seed, number, expected, a.seconds, deck if number else None)
                line = {"seed": seed, "round": number, **line, "commit": commit}
                print(json.dumps(line), flush=True)
                if a.ledger:
                    with open(a.ledger, "a") as ledger:
                        ledger.write(json.dumps(line) + "\n")
                if history.wrong:
                    failed += 1
                    kept = os.path.join(tempfile.gettempdir(), f"weft-bank-{seed}-{number}")
                    keep(cluster, history, nemesis, kept, failed <= KEPT_WITH_DATA)
                    print(f"kept {kept}", flush=True)
        finally:
            cluster.close()
    print(f"{a.rounds} rounds with faults, {failed} wrong; seed {seed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
