"""Arguments that functions may leave out, and what they answer with."""

from collections.abc import Callable

from weft.error import Error


def extra(target: Callable, **offered) -> dict:
    """Those of the offered arguments that the function has."""
    code = target.__code__
    return {name: value for name, value in offered.items() if name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]}


def answer(value) -> bytes:
    """The bytes of an answer, which may be text or nothing as well."""
    if value is None:
        return b""
    if isinstance(value, int):
        raise Error(f"`{value}` is no answer: it must be bytes, text or nothing")
    return value.encode() if isinstance(value, str) else bytes(value)
