"""The scripts of the machines, as modules."""

import importlib.util
import pathlib

FILES = pathlib.Path(__file__).resolve().parent.parent / "aws" / "files"


def load(name):
    spec = importlib.util.spec_from_file_location(f"weft_{name}", FILES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
