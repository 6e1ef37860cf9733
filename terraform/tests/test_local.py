"""The module `local`: a cluster of processes that Terraform starts and ends."""

import json
import os
import pathlib
import subprocess
import unittest

from terraform import Terraform

WEFT = os.environ["WEFT_BIN"]
SMALL = {"weft": WEFT, "controllers": 1, "nodes": 1}


def shell(line):
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)


def processes(folder):
    """Processes whose command line names the folder."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line and " --config " in line:
            found.append(line)
    return found


class Local(unittest.TestCase):
    def module(self, **variables):
        terraform = Terraform("local", {**SMALL, **variables})
        self.addCleanup(terraform.close)
        return terraform

    def applied(self, **variables):
        terraform = self.module(**variables)
        # Ends the processes whatever a test finds; a second destroy does nothing.
        self.addCleanup(terraform.destroy)
        terraform.apply()
        return terraform

    def test_format_and_validity(self):
        terraform = self.module()
        terraform.run("fmt", "-check", "-diff", "-recursive", "-no-color")
        terraform.run("validate", "-no-color")

    def test_terraform_test(self):
        terraform = Terraform("local")
        self.addCleanup(terraform.close)
        text = terraform.run("test", "-no-color")
        self.assertIn("Success!", text)

    def test_an_applied_cluster_answers_and_a_destroyed_one_leaves_nothing(self):
        terraform = self.applied(controllers=3, nodes=2)
        outputs = terraform.outputs()
        self.assertEqual(len(outputs["endpoints"]), 3)
        cluster = json.loads(shell(outputs["curl"]).stdout)
        self.assertEqual(cluster["members"], [1, 2, 3])
        self.assertEqual([node["status"] for node in cluster["nodes"]], ["ready", "ready"])
        nodes = shell(f"{outputs['environment']}; '{WEFT}' nodes --json")
        self.assertEqual(len(json.loads(nodes.stdout)["items"]), 2)
        self.assertEqual(len(processes(terraform.module)), 5)
        # Nothing is left to do.
        terraform.run("plan", "-no-color", "-detailed-exitcode")
        terraform.destroy()
        self.assertEqual(processes(terraform.module), [])
        self.assertFalse(pathlib.Path(outputs["dir"]).exists())

    def test_no_secret_is_in_the_state(self):
        terraform = self.applied()
        folder = pathlib.Path(terraform.outputs()["dir"])
        secrets = [folder / "token", *folder.glob("certs/*.key")]
        self.assertGreaterEqual(len(secrets), 4)
        state = (terraform.module / "terraform.tfstate").read_text()
        for file in secrets:
            for line in file.read_text().splitlines():
                if not line.startswith("-----"):
                    self.assertNotIn(line, state, file)

    def test_other_sizes_make_another_cluster(self):
        terraform = self.applied()
        before = terraform.outputs()
        terraform.apply("-var=nodes=2")
        after = terraform.outputs()
        self.assertNotEqual(before["cluster"], after["cluster"])
        self.assertEqual(sorted(after["logs"]), ["controller-1", "node-1", "node-2"])
        self.assertEqual(len(processes(terraform.module)), 3)

    def test_a_tainted_cluster_is_made_anew(self):
        terraform = self.applied()
        before = terraform.outputs()["cluster"]
        terraform.run("taint", "terraform_data.cluster")
        terraform.apply()
        self.assertNotEqual(before, terraform.outputs()["cluster"])
        self.assertEqual(len(processes(terraform.module)), 2)

    def test_a_folder_of_others_is_left_alone(self):
        terraform = self.module()
        folder = terraform.module / "cluster"
        folder.mkdir()
        (folder / "precious").write_text("data")
        # As `terraform show -json` is often kept.
        (folder / "terraform.json").write_text('{"format_version": "1.0"}')
        text = terraform.apply(succeeds=False)
        self.assertIn("was not made by this module", " ".join(text.split()))
        terraform.destroy()
        self.assertEqual((folder / "precious").read_text(), "data")

    def test_a_cluster_that_does_not_start_leaves_nothing(self):
        terraform = self.module()
        broken = terraform.folder / "weft"
        # Starts all processes, and fails then.
        broken.write_text(f"#!/bin/sh\n'{WEFT}' \"$@\" && [ \"$2\" != up ]\n")
        broken.chmod(0o755)
        terraform.apply(f"-var=weft={broken}", succeeds=False)
        self.assertEqual(processes(terraform.module), [])
        self.assertFalse((terraform.module / "cluster").exists())
        self.addCleanup(terraform.destroy)
        terraform.apply()
        self.assertEqual(len(processes(terraform.module)), 2)
