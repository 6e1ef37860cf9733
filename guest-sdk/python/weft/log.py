"""Lines for the job's log. What is above the limit is dropped and counted."""

from weft.host import Level, write


def error(message: str) -> None:
    write(Level.ERROR, message)


def warn(message: str) -> None:
    write(Level.WARN, message)


def info(message: str) -> None:
    write(Level.INFO, message)


def debug(message: str) -> None:
    write(Level.DEBUG, message)
