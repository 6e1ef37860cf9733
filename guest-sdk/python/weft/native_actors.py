"""Stand-ins for the host's interfaces `state`, `actors` and `tasks`, so that actors and futures run in tests."""

from itertools import count

from weft.native import Err

# Turns under way, the innermost last: `weft.testing.Actors` runs them.
turns: list = []

# Runs the tasks that are spawned instead of the component's own functions: a name and an input to bytes.
run_spawned = None


class OfTurn:
    """Both interfaces of a turn, as the innermost one has them."""

    def __getattr__(self, name: str):
        return lambda *arguments: getattr(innermost(), name)(*arguments)


def innermost():
    if not turns:
        raise Err("no turn of an actor is under way; in tests, `weft.testing.Actors` runs them")
    return turns[-1]


class Tasks:
    """Futures that have ended when they were spawned."""

    def __init__(self):
        self.numbers, self.ended = count(1), {}

    def spawn(self, function: str, input: bytes) -> int:
        number = next(self.numbers)
        try:
            self.ended[number] = (run_spawned or run_own)(function, input)
        except Exception as error:
            self.ended[number] = Err(error.value if isinstance(error, Err) else str(error))
        return number

    def join(self, future: int) -> bytes:
        self.known(future)
        result = self.ended.pop(future)
        if isinstance(result, Err):
            raise result
        return result

    def select(self, futures: list[int]) -> int:
        for future in futures:
            self.known(future)
        if not futures:
            raise Err("no futures to select from")
        return 0

    def cancel(self, future: int) -> None:
        if future in self.ended:
            self.ended[future] = Err("the future was cancelled")

    def known(self, future: int) -> None:
        if future not in self.ended:
            raise Err(f"no future `{future}`: it was joined")


def run_own(function: str, input: bytes) -> bytes:
    from weft.functions import Params, find, local_name, run_task

    name = local_name(function)
    if name is None:
        raise Err(f"`{function}` is of another component; in tests, `weft.testing.on_spawn` stands in for it")
    return run_task(find(name, "task"), Params(), 0, input)


state = actors = OfTurn()
tasks = Tasks()
