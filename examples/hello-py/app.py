"""The functions of `hello` in Python, a map that adds the greatest common divisor of two columns, and a function for SQL."""

from math import gcd as gcd_of

import weft

weft.component("hello-py", "0.1.0")


@weft.map(reads="name utf8", adds="greeting utf8?")
def greet(names, params):
    """Adds a column `greeting`: hello to each name."""
    hello = params.get("hello", "hello")
    return [None if name is None else f"{hello}, {name}" for name in names]


@weft.map(reads=["a int64", "b int64"], adds="gcd int64")
def gcd(a, b):
    """Adds a column `gcd`: the greatest common divisor of `a` and `b`, which must not be null."""
    return map(gcd_of, a, b)


@weft.scalar
def initials(name: str, most: int = 3) -> str:
    """The first letters of the words of a name."""
    if most < 1:
        raise weft.Error(f"`{most}` letters are none")
    return "".join(word[0] for word in name.split()[:most])


@weft.task
def echo(input):
    """Answers with its input."""
    return input


@weft.task
def noop():
    """Does nothing."""
