"""A counter for each key that forgets when it was idle, and squares that are computed side by side."""

import weft

weft.component("counter-py", "0.1.0")

IDLE_MS = 60 * 60 * 1000


@weft.actor("counter")
class Counter:
    """Counts, one number for each key. After an hour without a change it starts anew."""

    def __init__(self, key, state):
        # What a turn needs is read once, when the counter wakes. The field is a cache of the state.
        self.n = int(state.get("n") or 0)

    def add(self, input, cx):
        """Adds a number, 1 if there is none, and answers with the sum."""
        self.n += number(input or b"1")
        cx.state.put("n", str(self.n))
        cx.set_alarm(cx.now_ms + IDLE_MS)
        return str(self.n)

    def get(self):
        """The sum."""
        return str(self.n)

    def give(self, input, cx):
        """Moves all that was counted to the counter whose key is the input."""
        if input.decode() == cx.key:
            raise weft.Error("a counter cannot give to itself")
        cx.tell("counter", input.decode(), "add", str(self.n))
        self._forget(cx)

    def alarm(self, cx):
        self._forget(cx)

    def _forget(self, cx):
        self.n = 0
        cx.state.delete("n")
        cx.clear_alarm()


@weft.task
def square(input):
    """The square of a number."""
    return str(number(input) ** 2)


@weft.task
def squares(input):
    """The sum of the squares of 1 to a number, each computed by an invocation of its own."""
    futures = [weft.spawn(square, str(n + 1)) for n in range(number(input))]
    return str(sum(int(future.join()) for future in futures))


def number(input):
    try:
        return int(input)
    except ValueError:
        raise weft.Error(f"`{input.decode(errors='replace')}` is no number") from None
