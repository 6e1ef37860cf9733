"""Describes the component in the folder, as JSON: `python3 -m weft`. This is how `weft build` asks for its name."""

import json

import app  # noqa: F401
from weft.functions import FUNCTIONS, described

functions = [{"name": each.name, "kind": each.kind, "summary": each.summary} for each in FUNCTIONS.values()]
print(json.dumps({"name": described().name, "version": described().version, "functions": functions}))
