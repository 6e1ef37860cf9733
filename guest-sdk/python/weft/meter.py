"""What this task has used, and what its limits leave, each with `cpu_ns`, `memory_bytes` and `output_bytes`.

Outside of a component nothing is used, and there is no limit.
"""

from weft.host import remaining, spent

__all__ = ["remaining", "spent"]
