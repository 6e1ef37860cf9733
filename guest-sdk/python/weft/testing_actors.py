"""Actors in tests: their states lie in memory, and their messages wait until a test delivers them."""

from collections.abc import Callable
from typing import NamedTuple

from weft import native_actors
from weft.error import Error
from weft.functions import find, local_name
from weft.native import Err

# Messages of one `deliver`, and alarms of one `advance`: actors that go on without end are found out.
MAX_TURNS = 10_000
# The first of January 2026.
START_MS = 1_767_225_600_000


class Message(NamedTuple):
    """What one actor told another one. `actor` is what the sender called it."""

    actor: str
    key: str
    method: str
    input: bytes


class Kept:
    """What an actor has committed."""

    def __init__(self):
        self.entries: dict[bytes, bytes] = {}
        self.alarm_ms: int | None = None
        self.answers_early = False


class Turn:
    """The host's interfaces `state` and `actors` in one turn. Nothing is kept before it has ended well."""

    def __init__(self, actors: "Actors", of: tuple[str, str], kept: Kept):
        self.actors, self.of, self.told = actors, of, []
        self.entries, self.alarm_ms, self.answers_early = dict(kept.entries), kept.alarm_ms, kept.answers_early

    def commit(self, kept: Kept) -> None:
        kept.entries, kept.alarm_ms, kept.answers_early = self.entries, self.alarm_ms, self.answers_early
        self.actors.messages += self.told

    def get(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.entries[key] = value

    def delete(self, key: bytes) -> None:
        self.entries.pop(key, None)

    def scan(self, start: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        found = sorted(key for key in self.entries if start <= key and (end is None or key < end))
        return [(key, self.entries[key]) for key in found[:limit]]

    def answer_early(self) -> None:
        self.answers_early = True

    def now_ms(self) -> int:
        return self.actors.now_ms

    def set_alarm(self, at_ms: int) -> None:
        self.alarm_ms = at_ms

    def clear_alarm(self) -> None:
        self.alarm_ms = None

    def tell(self, actor: str, key: str, method: str, input: bytes) -> None:
        self.told.append(Message(actor, key, method, input))

    def invoke(self, actor: str, key: str, method: str, input: bytes) -> bytes:
        try:
            return self.actors.invoke(actor, key, method, input)
        except Error as error:
            raise Err(str(error)) from None


class Actors:
    """The component's actors, one turn at a time.

        actors = weft.testing.Actors()
        assert actors.invoke("account", "alice", "deposit", b"5") == b"5"
        assert actors.state("account", "alice") == {b"balance": b"5"}

    `outside`: stands in for actors of other components; it gets what `invoke` gets. A turn that fails raises what it
    failed with; then nothing of it is kept, and the instance is gone. `now_ms`: the clock, which stands still until
    `advance` moves it.
    """

    def __init__(self, outside: Callable[[str, str, str, bytes], bytes] | None = None):
        self.messages: list[Message] = []
        self.now_ms = START_MS
        self.outside, self._kept, self._awake = outside, {}, {}

    def invoke(self, actor: str, key: str, method: str, input: bytes = b"") -> bytes:
        """A turn of a method."""
        name = local_name(actor)
        if name is not None:
            return self._turn((name, key), lambda awake: awake.invoke(method, input))
        if self.outside is None:
            raise Error(f"`{actor}` is of another component: give `Actors` a function `outside` that stands in for it")
        return self.outside(actor, key, method, input)

    def advance(self, ms: int) -> int:
        """Moves the clock, and runs the alarms that are due by then, the earliest first. Returns how many there were.

        An alarm is gone after its turn, unless that sets another one. After an error it is still set.
        """
        until = self.now_ms + ms
        for n in range(MAX_TURNS):
            due = [(kept.alarm_ms, of) for of, kept in self._kept.items() if kept.alarm_ms is not None and kept.alarm_ms <= until]
            if not due:
                self.now_ms = until
                return n
            at_ms, of = min(due)
            self.now_ms = max(self.now_ms, at_ms)
            self._turn(of, lambda awake: awake.alarm(), is_alarm=True)
        raise Error(f"alarms do not end: {MAX_TURNS} were run")

    def deliver(self) -> int:
        """Delivers messages in their order, and those that come of it. Returns how many there were."""
        for n in range(MAX_TURNS):
            if not self.messages:
                return n
            self.invoke(*self.messages.pop(0))
        raise Error(f"messages do not end: {MAX_TURNS} were delivered")

    def hibernate(self) -> None:
        """Drops all instances, as the host does with actors that are idle: the next turn wakes a new one."""
        self._awake.clear()

    def state(self, actor: str, key: str) -> dict[bytes, bytes]:
        """The entries that an actor has committed."""
        return dict(self._of(actor, key).entries)

    def alarm_ms(self, actor: str, key: str) -> int | None:
        """When the alarm is due, in Unix milliseconds."""
        return self._of(actor, key).alarm_ms

    def answers_early(self, actor: str, key: str) -> bool:
        """Whether the actor has asked for answers that do not wait for its writes."""
        return self._of(actor, key).answers_early

    def _of(self, actor: str, key: str) -> Kept:
        return self._kept.get((local_name(actor), key), Kept())

    def _turn(self, of: tuple[str, str], run: Callable, is_alarm: bool = False):
        chain = [turn.of for turn in native_actors.turns]
        if of in chain:
            names = " → ".join("/".join(each) for each in [*chain, of])
            raise Error(f"`{'/'.join(of)}` would wait for itself: {names}")
        kept = self._kept.get(of) or Kept()
        turn = Turn(self, of, kept)
        if is_alarm:
            turn.alarm_ms = None
        # Gone, unless the turn ends well.
        awake = self._awake.pop(of, None)
        native_actors.turns.append(turn)
        try:
            awake = awake or find(of[0], "actor").actor.wake(of[1])
            result = run(awake)
        finally:
            native_actors.turns.pop()
        turn.commit(kept)
        self._kept[of], self._awake[of] = kept, awake
        return result
