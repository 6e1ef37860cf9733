"""Actors: one instance of a class for each key, one turn at a time, and state that outlives the instance.

    @weft.actor("account")
    class Account:
        def __init__(self, key, state): ...        # wakes the instance: reads what it needs; may be left out
        def deposit(self, input, cx): ...          # the method `deposit`; answers with bytes, text or nothing
        def invoke(self, method, input, cx): ...   # methods without a function of their own; may be left out
        def alarm(self, cx): ...                   # runs when the alarm is due; may be left out

Each may leave out any of its arguments. Fields of an instance are a cache of its state: they are gone when the actor was
idle, after an error, and with a new version of the component.
"""

import inspect
from collections.abc import Callable

from weft import host, log
from weft.arguments import answer, extra
from weft.error import Error

Data = bytes | bytearray | memoryview | str

MAX_SCAN_ENTRIES = 1_000
MAX_ALARM_MS = 2**64 - 1

# Functions with a meaning of their own, and their arguments. All others without a `_` in front are methods.
SPECIAL = {"invoke": ("method", "input", "cx"), "alarm": ("cx",)}
METHOD = ("input", "cx")
WAKE = ("key", "state")


def asked(call: Callable, *arguments):
    """What the host answers. Errors: its refusal, as `Error`."""
    try:
        return call(*arguments)
    except host.Err as refused:
        raise Error(refused.value) from None


def data(value: Data) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(memoryview(value))


class State:
    """Values by key, in the order of the keys' bytes. A text stands for its bytes in UTF-8.

    Writes of a turn become durable together with its alarm and its messages, before its answer goes out. After an error
    none of them is kept.
    """

    def get(self, key: Data) -> bytes | None:
        """The value, or `None` if there is none."""
        return asked(host.state.get, data(key))

    def put(self, key: Data, value: Data) -> None:
        """Writes a value."""
        asked(host.state.put, data(key), data(value))

    def delete(self, key: Data) -> None:
        """Removes a key, if it is there."""
        asked(host.state.delete, data(key))

    def scan(self, start: Data = b"", end: Data | None = None, limit: int = MAX_SCAN_ENTRIES) -> list[tuple[bytes, bytes]]:
        """Up to `limit` entries from `start` on and before `end`, in the order of their keys."""
        return asked(host.state.scan, data(start), None if end is None else data(end), limit)

    def answer_early(self) -> None:
        """From now on answers of this actor need not wait until its writes are durable: a crash may lose the last ones."""
        asked(host.state.answer_early)


class Context:
    """One turn: the actor's key and state, its alarm, and other actors.

    `actor` names one of the same component, or `component/actor`.
    """

    def __init__(self, key: str):
        self.key, self.state = key, State()

    @property
    def now_ms(self) -> int:
        """When the turn began, in Unix milliseconds. Time stands still in a turn."""
        return host.actors.now_ms()

    def set_alarm(self, at_ms: int) -> None:
        """Has `alarm` run at that time, in Unix milliseconds, or soon after; at least once. It replaces an earlier alarm."""
        asked(host.actors.set_alarm, min(max(int(at_ms), 0), MAX_ALARM_MS))

    def clear_alarm(self) -> None:
        """Removes the alarm, if there is one."""
        asked(host.actors.clear_alarm)

    def tell(self, actor: str, key: str, method: str, input: Data = b"") -> None:
        """Sends a message, which commits with the turn and becomes one invocation. Nobody gets its answer."""
        asked(host.actors.tell, actor, key, method, data(input))

    def invoke(self, actor: str, key: str, method: str, input: Data = b"") -> bytes:
        """Invokes an actor, and waits for its answer. Errors: what it failed with, or that it waits for this turn."""
        return asked(host.actors.invoke, actor, key, method, data(input))


class Actor:
    """What a decorated class offers. What is misspelt is told when the component is built."""

    def __init__(self, name: str, target: type):
        if not isinstance(target, type):
            raise Error(f"`{name}` is a function: an actor is a class")
        self.name, self.target, self.methods = name, target, {}
        for of in dir(target):
            function = inspect.getattr_static(target, of)
            if of.startswith("_") or not inspect.isfunction(function):
                continue
            self.check(function, SPECIAL.get(of, METHOD))
            self.methods[of] = function
        if inspect.isfunction(target.__init__):
            self.check(target.__init__, WAKE)
        self.on_alarm = self.methods.pop("alarm", None)
        self.fallback = self.methods.pop("invoke", None)
        if not self.methods and self.fallback is None:
            raise Error(f"actor `{name}` has no method: write a function such as `def deposit(self, input, cx)`")

    def check(self, function: Callable, offered: tuple[str, ...]) -> None:
        for each in list(inspect.signature(function).parameters.values())[1:]:
            is_left_out = each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            if each.name not in offered and not is_left_out:
                names = "`, `".join(offered)
                raise Error(f"`{function.__name__}` of actor `{self.name}` has the argument `{each.name}`: there are `{names}`")

    def wake(self, key: str) -> "Awake":
        """The instance of a key."""
        arguments = extra(self.target.__init__, key=key, state=State()) if inspect.isfunction(self.target.__init__) else {}
        return Awake(self, key, self.target(**arguments))


class Awake:
    """An instance, whose turns it runs."""

    def __init__(self, actor: Actor, key: str, instance):
        self.actor, self.key, self.instance = actor, key, instance

    def invoke(self, method: str, input: bytes) -> bytes:
        """A turn of a method."""
        function = self.actor.methods.get(method, self.actor.fallback)
        if function is None:
            among = "`, `".join(self.actor.methods)
            raise Error(f"actor `{self.actor.name}` has no method `{method}` among `{among}`")
        offered = extra(function, method=method, input=input, cx=Context(self.key))
        return answer(function(self.instance, **offered))

    def alarm(self) -> None:
        """The turn of an alarm that is due."""
        function = self.actor.on_alarm
        if function is None:
            log.warn(f"actor `{self.actor.name}` has an alarm, and no `def alarm(self, cx)`")
            return
        function(self.instance, **extra(function, cx=Context(self.key)))
