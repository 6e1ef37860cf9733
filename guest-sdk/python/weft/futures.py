"""Futures: invocations of tasks that run while their spawner goes on.

    futures = [weft.spawn(square, f"{n}") for n in range(100)]
    squares = [future.join() for future in futures]

What nobody joined is cancelled when its spawner ends.
"""

from collections.abc import Callable, Sequence

from weft import host
from weft.actors import Data, asked, data
from weft.functions import function_of


class Future:
    """An invocation that was spawned."""

    def __init__(self, number: int):
        self.number = number

    def join(self) -> bytes:
        """Waits until it has ended, and takes its result: once. Errors: what it failed with."""
        return asked(host.tasks.join, self.number)

    def cancel(self) -> None:
        """Cancels it, unless it has ended."""
        host.tasks.cancel(self.number)


def spawn(function: str | Callable, input: Data = b"") -> Future:
    """Starts a task. `function`: a decorated one, the name of one of the same component, or `component/function`."""
    name = function if isinstance(function, str) else function_of(function).name
    return Future(asked(host.tasks.spawn, name, data(input)))


def select(futures: Sequence[Future]) -> int:
    """Waits until one of these has ended, and returns its position: `futures.pop(weft.select(futures)).join()`."""
    return asked(host.tasks.select, [future.number for future in futures])
