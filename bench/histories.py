#!/usr/bin/env python3
"""Whether what clients of a cluster were told can have come from one place.

    python3 bench/histories.py        (tests itself)

A history is a list of events, one for each request. What is checked are registers that are written once: a job under its idempotency key, whose value
is its id, the answer of an invocation under its key, a version of a component. For these the check is exact, and needs no search:

    two values       a key has two values, or two keys have one job
    lost             a read finds nothing, and began after the write was acknowledged, or after another read that saw it had ended; told once a key
    too early        a read sees a value, and had ended before the first request to write it began
    two endings      a job has ended in two ways
    went back        a read shows an earlier status of a job than one that had ended before it began: through the same life of the same controller,
                     or, if `across`, through any

Only answers count. A request that broke, or was answered by 429 or 5xx, says nothing: a write may have taken effect at any time after it began.
"""
import collections, random, sys, typing

MISSING = "missing"
# Where a job stands, in order. Nothing comes after the last three.
STATUSES = {"planning": 0, "running": 1, "publishing": 2, "succeeded": 3, "failed": 3, "cancelled": 3}


class Event(typing.NamedTuple):
    # "job" (a submission), "invocation", "component" (an upload), or "read".
    kind: str
    # Idempotency key of a job or an invocation, name of a component's version; of a read, what is read: a job's id, or that name.
    key: str
    # Seconds on one clock: before the request was sent, and after its answer had arrived.
    began: float
    ended: typing.Optional[float]
    # Controller that was asked.
    asked: str
    # Which life of it answered: another after each kill. None if it was killed meanwhile.
    life: typing.Optional[int]
    # Value of a write: the job's id, the answer, the component's digest; of a read MISSING, the job's status, or the digest. None if it says nothing.
    result: typing.Optional[str]
    # For whoever looks for the reason.
    note: str = ""


class Violation(typing.NamedTuple):
    kind: str
    text: str


def check(events, across=False):
    """All violations of a history, in any order of events."""
    return two_values(events) + lost(events) + too_early(events) + two_endings(events) + went_back(events, across)


def two_values(events):
    values, keys = collections.defaultdict(dict), collections.defaultdict(dict)
    for event in writes(events):
        if event.result is not None:
            values[event.kind, event.key].setdefault(event.result, event)
            if event.kind == "job":
                keys[event.result].setdefault(event.key, event)
    components = {event.key for event in events if event.kind == "component"}
    for read in reads(events):
        # Reads of jobs tell a status.
        if read.result != MISSING and read.key in components:
            values["component", read.key].setdefault(read.result, read)
    found = [Violation("two values", f"{kind} {key} has several values: {all_of(given)}") for (kind, key), given in values.items() if len(given) > 1]
    return found + [Violation("two values", f"job {id} has several keys: {all_of(given)}") for id, given in keys.items() if len(given) > 1]


def lost(events):
    known = {}
    for event in events:
        name = written(event) if event.kind != "read" else event.key if event.result != MISSING else None
        if name is not None and event.result is not None and (name not in known or event.ended < known[name].ended):
            known[name] = event
    missing = collections.defaultdict(list)
    for read in reads(events):
        if read.result == MISSING and read.key in known and known[read.key].ended < read.began:
            missing[read.key].append(read)
    found = []
    for key, late in missing.items():
        first = min(late, key=lambda read: read.began)
        more = f"; so did {len(late) - 1} more" if len(late) > 1 else ""
        found.append(Violation("lost", f"{told(first)}, after {told(known[key])}{more}"))
    return found


def too_early(events):
    # A request without an answer may be the one that wrote: the first with that key counts.
    first, names = {}, collections.defaultdict(set)
    for event in writes(events):
        first[event.kind, event.key] = min(first.get((event.kind, event.key), event.began), event.began)
        if event.result is not None:
            names[written(event)].add((event.kind, event.key))
    return [Violation("too early", f"{told(read)}, before anybody asked for it") for read in reads(events)
            if read.result != MISSING and names[read.key] and read.ended < min(first[name] for name in names[read.key])]


def two_endings(events):
    endings = collections.defaultdict(dict)
    for read in reads(events):
        if STATUSES.get(read.result) == STATUSES["succeeded"]:
            endings[read.key].setdefault(read.result, read)
    return [Violation("two endings", f"job {id} has ended in several ways: {all_of(given)}") for id, given in endings.items() if len(given) > 1]


def went_back(events, across=False):
    groups, found = collections.defaultdict(list), []
    for read in reads(events):
        if read.result in STATUSES and (across or read.life is not None):
            groups[read.key if across else (read.key, read.asked, read.life)].append(read)
    for group in groups.values():
        by_end, ended, furthest = sorted(group, key=lambda read: read.ended), 0, None
        for read in sorted(group, key=lambda read: read.began):
            while ended < len(by_end) and by_end[ended].ended < read.began:
                if furthest is None or STATUSES[by_end[ended].result] > STATUSES[furthest.result]:
                    furthest = by_end[ended]
                ended += 1
            if furthest and STATUSES[read.result] < STATUSES[furthest.result]:
                found.append(Violation("went back", f"{told(read)}, after {told(furthest)}"))
    return found


def writes(events):
    return [event for event in events if event.kind != "read"]


def reads(events):
    """Those that say something."""
    return [event for event in events if event.kind == "read" and event.result is not None]


def written(event):
    """What a read has to name to find what this has written. Answers of invocations are not read, but asked for again."""
    return {"job": event.result, "component": event.key}.get(event.kind)


def told(event):
    life = "" if event.life is None else f" (life {event.life})"
    note = f" ({event.note})" if event.note else ""
    return f"{event.kind} of {event.key} at {event.asked}{life} told `{event.result}`, {event.began:.3f} to {event.ended:.3f} s{note}"


def all_of(events):
    return "; ".join(map(told, events.values()))


def planted(draw):
    """A correct history: each job is written and goes on at moments of its own, and each read looks at a moment between its beginning and its end."""
    events = []
    for number in range(draw.randint(1, 6)):
        key, id, at = f"key-{number}", f"id-{number}", draw.uniform(0, 10)
        steps = [at]
        for _ in range(3):
            steps.append(steps[-1] + draw.expovariate(1))
        lives = lambda moment: int(moment // 8)

        def event(kind, name, moment, result):
            began, ended, asked = moment - draw.expovariate(3), moment + draw.expovariate(3), draw.choice("xyz")
            answered = draw.random() < 0.8
            life = lives(began) if lives(began) == lives(ended) else None
            events.append(Event(kind, name, began, ended if answered else None, asked, life, result if answered else None))

        # The one that takes effect, and repeats. Some have no answer.
        for _ in range(draw.randint(1, 3)):
            event("job", key, at, id)
            event("invocation", key, at, f"answer-{number}")
        for _ in range(draw.randint(0, 20)):
            moment = draw.uniform(at - 2, at + 8)
            passed = sum(step <= moment for step in steps)
            event("read", id, moment, [MISSING, "planning", "running", "publishing", "succeeded"][passed])
        event("component", f"c@{number}", at, f"digest-{number}")
        for _ in range(draw.randint(0, 5)):
            moment = draw.uniform(at - 2, at + 8)
            event("read", f"c@{number}", moment, f"digest-{number}" if moment >= at else MISSING)
    draw.shuffle(events)
    return events


def _test():
    of = lambda kind, key, began, ended, result, asked="x", life=0: Event(kind, key, began, ended, asked, life, result)
    acknowledged = [of("job", "k", 1, 2, "id")]
    seen = [of("read", "id", 3, 4, "running"), of("read", "id", 5, 6, "succeeded")]
    unanswered = of("job", "k", 0, None, None)
    cases = [
        ([], acknowledged + seen),
        ([], [of("read", "id", 0, 0.5, MISSING)] + acknowledged + seen),
        # It overlaps the write, so either may come first.
        ([], acknowledged + [of("read", "id", 1.5, 3, MISSING)]),
        ([], acknowledged + [of("read", "id", 0, 1.5, "planning"), of("read", "id", 1.2, 1.9, MISSING)]),
        ([], acknowledged + [of("read", "id", 3, None, None)]),
        ([], acknowledged + [of("job", "k", 3, 4, "id"), of("job", "l", 3, 4, "other"), unanswered]),
        ([], [unanswered, of("job", "k", 5, 6, "id"), of("read", "id", 1, 2, "planning")]),
        # Reads that overlap may show a status in any order.
        ([], acknowledged + [of("read", "id", 3, 6, "succeeded"), of("read", "id", 5, 7, "running")]),
        # Of another controller, of another life of it, or of nobody knows which.
        ([], acknowledged + [of("read", "id", 3, 4, "succeeded"), of("read", "id", 5, 6, "running", "y")]),
        ([], acknowledged + [of("read", "id", 3, 4, "succeeded"), of("read", "id", 5, 6, "running", "x", 1)]),
        ([], acknowledged + [of("read", "id", 3, 4, "succeeded"), of("read", "id", 5, 6, "running", "x", None)]),
        (["lost"], acknowledged + [of("read", "id", 3, 4, MISSING)]),
        (["lost"], acknowledged + [of("read", "id", 3, 4, MISSING, "y", None)]),
        # Nobody was told that it is written, but it was seen.
        (["lost"], [unanswered, of("job", "k", 9, 10, "id"), of("read", "id", 3, 4, "planning"), of("read", "id", 5, 6, MISSING)]),
        (["lost"], [of("component", "c@1", 1, 2, "digest"), of("read", "c@1", 3, 4, MISSING)]),
        (["two values"], acknowledged + [of("job", "k", 3, 4, "other")]),
        (["two values"], acknowledged + [of("job", "l", 3, 4, "id")]),
        (["two values"], [of("component", "c@1", 1, 2, "digest"), of("read", "c@1", 1, 2, "another")]),
        (["two values"], [of("invocation", "k", 1, 2, "one"), of("invocation", "k", 1, 2, "two")]),
        (["too early"], acknowledged + [of("read", "id", 0, 0.5, "planning")]),
        (["two endings"], acknowledged + [of("read", "id", 3, 6, "succeeded"), of("read", "id", 3, 6, "failed", "y")]),
        (["went back"], acknowledged + [of("read", "id", 3, 4, "succeeded"), of("read", "id", 5, 6, "running")]),
        (["went back"], acknowledged + [of("read", "id", 3, 4, "publishing"), of("read", "id", 3, 8, "running"), of("read", "id", 5, 6, "planning")]),
    ]
    for expected, events in cases:
        for order in (events, events[::-1]):
            assert [violation.kind for violation in check(order)] == expected, (expected, order, check(order))
    assert [violation.kind for violation in check(cases[8][1], across=True)] == ["went back"]
    n_events = 0
    planters = {"two values": _another_value, "lost": _lose, "too early": _see_early, "two endings": _end_twice, "went back": _go_back}
    times = dict.fromkeys(planters, 0)
    for seed in range(2000):
        draw = random.Random(seed)
        events = planted(draw)
        n_events += len(events)
        for across in (False, True):
            assert check(events, across) == [], (seed, check(events, across))
        for kind, plant in planters.items():
            wrong = plant(draw, events)
            if wrong is not None:
                times[kind] += 1
                assert kind in {violation.kind for violation in check(events + [wrong])}, (seed, wrong)
    assert min(times.values()) > 1000, times
    print(f"histories.py: {len(cases)} cases; 2000 correct histories of {n_events} events pass; found all that were planted in them: {times}")


def _some(draw, events, is_wanted):
    wanted = [event for event in events if event.result is not None and is_wanted(event)]
    return draw.choice(wanted) if wanted else None


def _another_value(draw, events):
    write = _some(draw, events, lambda event: event.kind != "read" or event.key.startswith("c@") and event.result != MISSING)
    return write and write._replace(result="another")


def _lose(draw, events):
    known = _some(draw, events, lambda event: event.kind in ("job", "component") or event.kind == "read" and event.result != MISSING)
    return known and Event("read", known.key if known.kind == "read" else written(known), known.ended + 0.01, known.ended + 5, "y", None, MISSING)


def _see_early(draw, events):
    write = _some(draw, events, lambda event: event.kind in ("job", "component"))
    result = write and ("planning" if write.kind == "job" else write.result)
    return write and Event("read", written(write), -10, min(event.began for event in events) - 0.01, "y", None, result)


def _end_twice(draw, events):
    read = _some(draw, events, lambda event: event.kind == "read" and event.result == "succeeded")
    return read and read._replace(result="cancelled")


def _go_back(draw, events):
    read = _some(draw, events, lambda event: event.kind == "read" and STATUSES.get(event.result, 0) > 0 and event.life is not None)
    return read and read._replace(began=read.ended + 0.01, ended=read.ended + 1, result="planning")


if __name__ == "__main__":
    sys.exit(_test())
