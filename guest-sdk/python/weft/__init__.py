"""Functions for Weft, in Python.

    import weft

    weft.component("hits", "0.1.0-dev")


    @weft.map(reads="line utf8", adds="words int64")
    def words(lines):
        \"\"\"Adds a column `words`: how many words the line has.\"\"\"
        return [len(line.split()) for line in lines]

A scalar function is a function of values, which SQL statements call. A map is a function of columns or a class with `push`; so are a reduce and a combine, of groups of rows; a task is a function
of bytes, which may spawn others; an actor is a class with state for each key. Nothing here needs WebAssembly: outside of it `weft.testing` runs functions, and `log` writes to standard error.
"""

from weft import log, meter
from weft.actors import Context, State
from weft.batch import Batch, Column
from weft.error import Error
from weft.functions import Groups, Output, Params, actor, combine, component, map, reduce, scalar, task
from weft.futures import Future, select, spawn
from weft.schema import Field, Schema

__all__ = [
    "Batch",
    "Column",
    "Context",
    "Error",
    "Field",
    "Future",
    "Groups",
    "Output",
    "Params",
    "Schema",
    "State",
    "actor",
    "combine",
    "component",
    "log",
    "map",
    "meter",
    "reduce",
    "scalar",
    "select",
    "spawn",
    "task",
]
