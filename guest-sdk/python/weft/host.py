"""The contract's imports: the host's in a component, and stand-ins for tests everywhere else."""

try:
    import wit_world  # noqa: F401
except ModuleNotFoundError:
    from weft.native import Batch, Column, DataType, Err, Field, Level, Node, emit, remaining, spent, write
    from weft.native_actors import actors, state, tasks
else:
    from componentize_py_types import Err
    from wit_world.imports import actors, state, tasks
    from wit_world.imports.data import Batch, Column, DataType, Field, Node
    from wit_world.imports.log import Level, write
    from wit_world.imports.meter import remaining, spent
    from wit_world.imports.output import emit

__all__ = [
    "Batch",
    "Column",
    "DataType",
    "Err",
    "Field",
    "Level",
    "Node",
    "actors",
    "emit",
    "remaining",
    "spent",
    "state",
    "tasks",
    "write",
]
