"""Tries what a sandbox must deny, and tells what it finds: clocks, randomness, files, the network."""

import json
import os
import random
import socket
import sys
import time

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import actor, functions, scalars
from wit_world.imports import data, output


def refusal(attempt) -> str:
    """The name of the error that the attempt ends with."""
    try:
        return f"answered {attempt()!r}"
    except Exception as error:
        return type(error).__name__


def clock(input: bytes) -> bytes:
    """The wall clock, read twice with some work in between, in milliseconds."""
    first = time.time_ns() // 1_000_000
    sum(range(200_000))
    return json.dumps([first, time.time_ns() // 1_000_000]).encode()


def randomness(input: bytes) -> bytes:
    """Random bytes of the host, and numbers of a generator that they seed."""
    return os.urandom(64) + random.Random(os.urandom(8)).randbytes(64)


def outside(input: bytes) -> bytes:
    """What can be seen of the machine."""
    return json.dumps(
        {
            "environment": dict(os.environ),
            "arguments": sys.argv[1:],
            "root": refusal(lambda: os.listdir("/")),
            "file": refusal(lambda: open("/etc/passwd").read()),
            "new file": refusal(lambda: open("/tmp/probe", "w")),
            "socket": refusal(lambda: socket.create_connection(("127.0.0.1", 80), 1)),
            "name": refusal(lambda: socket.getaddrinfo("localhost", 80)),
        }
    ).encode()


def sleep(input: bytes) -> bytes:
    """Waits for an hour."""
    time.sleep(3600)
    return b""


def spin(input: bytes) -> bytes:
    """Never ends."""
    while True:
        pass


def echo(input: bytes) -> bytes:
    """Answers with its input."""
    return input


def say(input: bytes) -> bytes:
    """Prints its input, and that it did so on standard error."""
    print(input.decode(), end="")
    print("printed", file=sys.stderr)
    return b""


def hoard(input: bytes) -> bytes:
    """Allocates without end, and says so."""
    held = []
    try:
        while True:
            held.append(bytes(1 << 20))
    except MemoryError:
        raise Err("there is no memory") from None


def chatter(input: bytes) -> bytes:
    """Prints without end."""
    while True:
        print("again " * 100)


def evaluate(input: bytes) -> bytes:
    """Evaluates the expression that is its input over two rows of a number `n`, and gives the first byte of each value."""
    field = data.Field("n", data.DataType.INT64, False, 0, 0, 0)
    numbers = b"".join(n.to_bytes(8, "little") for n in (1, 2))
    batch = data.Batch.create([field], [data.Column([data.Node(2, 0)], [b"", numbers])])
    values = batch.eval([input.decode()]).column(0).buffers[1]
    return values[::8]


TASKS = {"clock": clock, "randomness": randomness, "outside": outside, "sleep": sleep, "spin": spin, "echo": echo, "say": say, "chatter": chatter, "hoard": hoard, "evaluate": evaluate}


class Functions(exports.Functions):
    def describe(self) -> functions.Description:
        task = lambda name, run: functions.Function(name, functions.Kind.TASK, run.__doc__, deterministic=False)
        naps = functions.Function("naps", functions.Kind.MAP_BATCHES, "Waits before it emits.", deterministic=False)
        return functions.Description("probe-py", "0.1.0", [task(*each) for each in TASKS.items()] + [naps])

    def bind(self, function: str, input: list[data.Field], params: list[tuple[str, str]]) -> list[data.Field]:
        return input


class Mapper(exports.Mapper):
    seconds = 0.0

    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        Mapper.seconds = float(dict(params)["seconds"])

    def push(self, input: data.Batch) -> None:
        kept = input.project([0])
        time.sleep(Mapper.seconds)
        output.emit(kept)

    def finish(self) -> None:
        pass


class Reducer(exports.Reducer):
    def open(self, function: str, params: list[tuple[str, str]]) -> None:
        raise Err(f"no function `{function}`")

    def push(self, input: data.Batch, ends: list[int], continues: bool) -> None:
        raise Err("not open")

    def finish(self) -> None:
        raise Err("not open")


class Scalars(exports.Scalars):
    def describe(self) -> list[scalars.Scalar]:
        return [scalars.Scalar(name, "Returns its argument.", deterministic=False) for name in ("same", "nap", "tell")]

    def bind(self, function: str, arguments: list[data.Field]) -> tuple[list[data.Field], list[data.Field]]:
        return arguments, arguments[:1]

    def evaluate(self, function: str, arguments: data.Batch) -> data.Column:
        if function == "nap":
            time.sleep(0.001)
        if function == "tell":
            print(arguments.rows())
        return arguments.column(0)


class Actor(exports.Actor):
    def describe(self) -> list[actor.Kind]:
        return []

    def wake(self, actor: str, key: str) -> None:
        raise Err(f"no actor `{actor}`")

    def invoke(self, method: str, input: bytes) -> bytes:
        raise Err("it sleeps")

    def alarm(self) -> None:
        raise Err("it sleeps")


class Task(exports.Task):
    def run(self, function: str, params: list[tuple[str, str]], index: int, input: bytes) -> bytes:
        if function not in TASKS:
            raise Err(f"no function `{function}`")
        return TASKS[function](input)


class Actor(exports.Actor):
    def describe(self) -> list[actor.Kind]:
        return []

    def wake(self, actor: str, key: str) -> None:
        raise Err(f"no actor `{actor}`")

    def invoke(self, method: str, input: bytes) -> bytes:
        raise Err("not awake")

    def alarm(self) -> None:
        raise Err("not awake")
