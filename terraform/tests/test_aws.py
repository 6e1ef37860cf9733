"""The module `aws`, validated and planned. It is never applied to a cloud here: see fake_aws.py."""

import ast
import base64
import gzip
import json
import os
import re
import subprocess
import tomllib
import unittest

import fake_aws
from terraform import MODULES, Terraform, planned

BLUE = {
    "name": "blue",
    "vpc_id": "vpc-1",
    "subnet_ids": ["subnet-a", "subnet-b", "subnet-c"],
    "weft": {"url": "s3://releases/1.0/weft", "sha256": "0" * 64},
    "client_cidr_blocks": ["10.1.0.0/16"],
    "client_security_group_ids": ["sg-clients"],
    "max_nodes": 14,
    "node_groups": {
        "base": {"instance_types": ["m7i.large"], "slots": 2, "max_nodes": 4, "on_demand_base": 1, "on_demand_percent": 100},
        "spot": {"instance_types": ["m7i.xlarge", "m7a.xlarge"], "slots": 4, "max_nodes": 10},
    },
    "data_stores": {
        "lake": {"bucket": "lake", "prefix": "events/raw", "region": "eu-west-1"},
        "results": {"bucket": "results", "write": True, "kms_key_arn": "arn:aws:kms:eu-central-1:1:key/results"},
    },
}


def user_data_of(plan):
    """Scripts that machines run when they boot, by the addresses of what starts them."""
    found = {}
    for address, each in planned(plan, "aws_instance").items():
        found[address] = each["user_data_base64"]
    for address, each in planned(plan, "aws_launch_template").items():
        found[address] = each["user_data"]
    return {address: gzip.decompress(base64.b64decode(data)).decode() for address, data in found.items()}


def files_of(script):
    """Files that a script writes, by path."""
    return dict(re.findall(r"^cat >(\S+) <<'END_OF_FILE'\n(.*?)^END_OF_FILE$", script, re.MULTILINE | re.DOTALL))


class Provided(unittest.TestCase):
    """Tests with the stand-in for the provider."""

    decide = staticmethod(fake_aws.unknown)

    @classmethod
    def setUpClass(cls):
        cls.server, attached = fake_aws.serve(cls.decide)
        cls.environment = {"TF_REATTACH_PROVIDERS": attached}

    @classmethod
    def tearDownClass(cls):
        cls.server.stop(None).wait()

    def module(self, **variables):
        terraform = Terraform("aws", {**BLUE, **variables}, self.environment)
        self.addCleanup(terraform.close)
        return terraform


class Unapplied(Provided):
    """As the first plan of a new cluster, in which the provider knows no ids."""

    def test_format_and_validity(self):
        terraform = self.module()
        terraform.run("fmt", "-check", "-diff", "-recursive", "-no-color")
        terraform.run("validate", "-no-color")

    def test_terraform_test(self):
        # The test file sets all variables.
        terraform = Terraform("aws", environment=self.environment)
        self.addCleanup(terraform.close)
        text = terraform.run("test", "-no-color")
        self.assertIn("Success!", text)

    def test_a_first_plan_needs_no_ids(self):
        plan = self.module().plan()
        actions = {tuple(change["change"]["actions"]) for change in plan["resource_changes"] if change["mode"] == "managed"}
        self.assertEqual(actions, {("create",)})
        self.assertEqual(len(planned(plan, "aws_instance")), 3)

    def test_subnets_of_two_zones_are_refused(self):
        terraform = self.module(vpc_id="vpc-1", subnet_ids=["subnet-a", "subnet-b", "subnet-d"])
        text = terraform.run("plan", "-no-color", succeeds=False)
        self.assertIn("is not in the VPC", text)
        fake_aws.ANSWERS["aws_subnet"], answer = (lambda config: {**answer(config), "vpc_id": "vpc-1"}), fake_aws.ANSWERS["aws_subnet"]
        try:
            text = terraform.run("plan", "-no-color", succeeds=False)
        finally:
            fake_aws.ANSWERS["aws_subnet"] = answer
        self.assertIn("must be in three zones or more", text)

    def test_nothing_can_be_applied(self):
        text = self.module().apply(succeeds=False)
        self.assertIn("ApplyResourceChange", text)


class Foretold(Provided):
    """Plans in which the provider foretells all ids, so that policies and user data are seen in full."""

    decide = staticmethod(fake_aws.foretold)
    plans = {}

    def plan(self, **variables):
        key = json.dumps(variables, sort_keys=True)
        if key not in self.plans:
            self.plans[key] = self.module(**variables).plan()
        return self.plans[key]

    def one(self, address, **variables):
        return planned(self.plan(**variables), address.split(".")[0])[address]

    # Controllers and nodes.

    def test_controllers_are_on_demand_in_three_zones(self):
        for count in (3, 5):
            instances = planned(self.plan(controllers=count), "aws_instance").values()
            self.assertEqual(len(instances), count)
            zones = {volume["availability_zone"] for volume in planned(self.plan(controllers=count), "aws_ebs_volume").values()}
            self.assertEqual(zones, {"eu-central-1a", "eu-central-1b", "eu-central-1c"})
        self.assertNotIn("instance_market_options", json.dumps(self.plan()["planned_values"]))

    def test_disk_and_address_of_a_controller_are_in_its_zone(self):
        plan = self.plan()
        subnets = {"eu-central-1a": "subnet-a", "eu-central-1b": "subnet-b", "eu-central-1c": "subnet-c"}
        for number in "123":
            volume = planned(plan, "aws_ebs_volume")[f'aws_ebs_volume.controller["{number}"]']
            interface = planned(plan, "aws_network_interface")[f'aws_network_interface.controller["{number}"]']
            self.assertEqual(subnets[volume["availability_zone"]], interface["subnet_id"])

    def test_nodes_are_mixed_and_scale_from_zero_to_a_cap(self):
        base, spot = (self.one(f'aws_autoscaling_group.nodes["{name}"]') for name in ("base", "spot"))
        self.assertEqual([(group["min_size"], group["max_size"]) for group in (base, spot)], [(0, 4), (0, 10)])
        shares = [group["mixed_instances_policy"][0]["instances_distribution"][0] for group in (base, spot)]
        self.assertEqual([share["on_demand_base_capacity"] for share in shares], [1, 0])
        self.assertEqual([share["on_demand_percentage_above_base_capacity"] for share in shares], [100, 0])
        types = spot["mixed_instances_policy"][0]["launch_template"][0]["override"]
        self.assertEqual([each["instance_type"] for each in types], ["m7i.xlarge", "m7a.xlarge"])

    def test_nothing_lets_a_group_exceed_its_cap(self):
        for group in planned(self.plan(), "aws_autoscaling_group").values():
            self.assertFalse(group["capacity_rebalance"])
            self.assertIn("AZRebalance", group["suspended_processes"])
            self.assertEqual(group["instance_maintenance_policy"][0]["max_healthy_percentage"], 100)

    def test_a_group_waits_for_the_drain(self):
        for group in planned(self.plan(drain_seconds=900), "aws_autoscaling_group").values():
            (hook,) = group["initial_lifecycle_hook"]
            self.assertEqual(hook["lifecycle_transition"], "autoscaling:EC2_INSTANCE_TERMINATING")
            self.assertGreater(hook["heartbeat_timeout"], 900 + 30)

    # What is open, and what is encrypted.

    def test_only_named_clients_reach_the_api_and_nobody_reaches_a_node(self):
        plan = self.plan()
        rules = planned(plan, "aws_vpc_security_group_ingress_rule").values()
        controllers = "id-of-weft-blue-controllers"
        self.assertEqual({rule["security_group_id"] for rule in rules}, {controllers})
        sources = {(rule["from_port"], rule["to_port"], rule["cidr_ipv4"] or rule["referenced_security_group_id"]) for rule in rules}
        links = {(7071, 7071, controllers), (7071, 7071, "id-of-weft-blue-nodes")}
        self.assertEqual(sources, links | {(7070, 7070, "10.1.0.0/16"), (7070, 7070, "sg-clients")})

    def test_disks_and_bucket_are_encrypted(self):
        plan = self.plan()
        disks = [volume["encrypted"] for volume in planned(plan, "aws_ebs_volume").values()]
        disks += [instance["root_block_device"][0]["encrypted"] for instance in planned(plan, "aws_instance").values()]
        templates = planned(plan, "aws_launch_template").values()
        disks += [mapping["ebs"][0]["encrypted"] == "true" for each in templates for mapping in each["block_device_mappings"]]
        self.assertEqual(set(disks), {True})
        (rule,) = self.one("aws_s3_bucket_server_side_encryption_configuration.store")["rule"]
        by = rule["apply_server_side_encryption_by_default"][0]
        self.assertEqual((by["sse_algorithm"], by["kms_master_key_id"]), ("aws:kms", self.one("aws_kms_key.store")["arn"]))
        self.assertTrue(self.one("aws_kms_key.store")["enable_key_rotation"])
        access = self.one("aws_s3_bucket_public_access_block.store")
        self.assertTrue(all(access[name] for name in access if name.startswith(("block_", "ignore_", "restrict_"))))
        (deny,) = json.loads(self.one("aws_s3_bucket_policy.store")["policy"])["Statement"]
        self.assertEqual((deny["Effect"], deny["Condition"]), ("Deny", {"Bool": {"aws:SecureTransport": "false"}}))

    def test_machines_answer_only_to_the_second_version_of_the_metadata_service(self):
        plan = self.plan()
        machines = [*planned(plan, "aws_instance").values(), *planned(plan, "aws_launch_template").values()]
        options = [machine["metadata_options"][0] for machine in machines]
        self.assertEqual({(each["http_tokens"], each["http_put_response_hop_limit"]) for each in options}, {("required", 1)})

    # Roles.

    def statements(self, role):
        return json.loads(self.one(f"aws_iam_role_policy.{role}")["policy"])["Statement"]

    def test_roles_have_no_wildcards_but_where_aws_knows_no_resource(self):
        without_resources = {
            "ssm:DescribeParameters",
            "autoscaling:DescribeAutoScalingGroups",
            "cloudwatch:PutMetricData",
        }
        for role in ("controllers", "nodes"):
            for statement in self.statements(role):
                self.assertEqual(statement["Effect"], "Allow")
                self.assertFalse([action for action in statement["Action"] if "*" in action])
                if "*" in statement["Resource"]:
                    self.assertLessEqual(set(statement["Action"]), without_resources, role)
        (metrics,) = [each for each in self.statements("controllers") if each.get("Sid") == "Metrics"]
        self.assertEqual(metrics["Condition"], {"StringEquals": {"cloudwatch:namespace": "Weft"}})

    def test_a_node_reads_no_secret_but_its_own(self):
        parameters = "arn:aws:ssm:eu-central-1:123456789012:parameter/weft/blue"
        secret = [each for each in self.statements("nodes") if each["Action"][0].startswith("ssm:")]
        self.assertEqual(len(secret), 1)
        self.assertEqual((secret[0]["Action"], secret[0]["Resource"]), (["ssm:GetParameter"], [f"{parameters}/nodes/*"]))
        self.assertEqual(secret[0]["Condition"], {"StringEquals": {"aws:ResourceTag/weft-reader": "${aws:userid}"}})

    def test_jobs_reach_the_buckets_that_are_named(self):
        def allowed(role, action, resource):
            return any(action in each["Action"] and resource in each["Resource"] for each in self.statements(role))

        for role in ("controllers", "nodes"):
            self.assertTrue(allowed(role, "s3:GetObject", "arn:aws:s3:::lake/events/raw/*"))
            self.assertFalse(allowed(role, "s3:PutObject", "arn:aws:s3:::lake/events/raw/*"))
            self.assertTrue(allowed(role, "s3:PutObject", "arn:aws:s3:::results/*"))
            self.assertTrue(allowed(role, "kms:GenerateDataKey", "arn:aws:kms:eu-central-1:1:key/results"))
            self.assertTrue(allowed(role, "s3:GetObject", "arn:aws:s3:::releases/1.0/weft"))

    def test_controllers_alone_clean_up(self):
        def resources(role, action, **variables):
            statements = json.loads(self.one(f"aws_iam_role_policy.{role}", **variables)["policy"])["Statement"]
            return sorted(one for each in statements if action in each["Action"] for one in each["Resource"])

        bucket = self.one("aws_s3_bucket.store")["arn"]
        results = "arn:aws:s3:::results"
        self.assertEqual(resources("controllers", "s3:DeleteObject"), sorted([f"{bucket}/store/*", f"{results}/*"]))
        # Without it, uploads of attempts that were never committed stay.
        self.assertEqual(resources("controllers", "s3:ListBucketMultipartUploads"), sorted([bucket, results]))
        for role in ("nodes", "executors[0]"):
            self.assertEqual(resources(role, "s3:ListBucketMultipartUploads", scoped_executors=True), [], role)
            # Databases of actors' state collect themselves.
            shards = [f"{bucket}/store/shards/*"]
            self.assertEqual(resources(role, "s3:DeleteObject", scoped_executors=True), shards, role)

    def test_executors_have_a_role_that_nodes_alone_take(self):
        executors = "arn:aws:iam::123456789012:role/weft-blue-executors"
        nodes = json.loads(self.one("aws_iam_role_policy.nodes", scoped_executors=True)["policy"])["Statement"]
        self.assertIn((["sts:AssumeRole"], [executors]), [(each["Action"], each["Resource"]) for each in nodes])
        controllers = self.one("aws_iam_role_policy.controllers", scoped_executors=True)["policy"]
        self.assertNotIn("sts:AssumeRole", controllers)
        role = self.one("aws_iam_role.executors[0]", scoped_executors=True)
        self.assertEqual(role["name"], "weft-blue-executors")
        (trust,) = json.loads(role["assume_role_policy"])["Statement"]
        self.assertEqual(trust["Principal"], {"AWS": planned(self.plan(), "aws_iam_role")["aws_iam_role.nodes"]["arn"]})
        allowed = json.loads(self.one("aws_iam_role_policy.executors[0]", scoped_executors=True)["policy"])["Statement"]
        actions = {action for each in allowed for action in each["Action"]}
        self.assertEqual({action.split(":")[0] for action in actions}, {"s3", "kms"})
        user_data = user_data_of(self.plan(scoped_executors=True))
        settings = tomllib.loads(files_of(user_data['aws_launch_template.nodes["spot"]'])["/etc/weft/node.toml"])
        self.assertEqual(settings["store"]["executor_role"], executors)
        self.assertEqual({settings["store"][name]["executor_role"] for name in ("lake", "results")}, {executors})

    def test_without_scoped_executors_nobody_takes_a_role(self):
        self.assertNotIn("aws_iam_role.executors[0]", planned(self.plan(), "aws_iam_role"))
        self.assertNotIn("sts:AssumeRole", self.one("aws_iam_role_policy.nodes")["policy"])

    # User data.

    def user_data(self):
        return user_data_of(self.plan())

    def test_user_data_is_a_script_of_a_size_that_ec2_takes(self):
        texts = self.user_data()
        self.assertEqual(len(texts), 5)
        for address, text in texts.items():
            self.assertLess(len(gzip.compress(text.encode())), 16 * 1024, address)
            checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
            self.assertEqual((checked.returncode, checked.stderr), (0, ""), address)
            for path, content in files_of(text).items():
                if path.endswith(".py"):
                    # Amazon Linux 2023 has Python 3.9.
                    ast.parse(content, path, feature_version=(3, 9))
                elif path.endswith(".json"):
                    json.loads(content)

    def test_settings_name_all_controllers_and_the_stores(self):
        controller = files_of(self.user_data()['aws_instance.controller["2"]'])
        settings = tomllib.loads(controller["/etc/weft/controller.toml"])
        self.assertEqual((settings["member"], settings["listen"]), (2, "10.0.0.12:7070"))
        peers = {number: f"10.0.0.1{number}:7071" for number in "123"}
        self.assertEqual(settings["peers"], peers)
        node = files_of(self.user_data()['aws_launch_template.nodes["spot"]'])
        settings_of_node = tomllib.loads(node["/etc/weft/node.toml"])
        self.assertEqual((settings_of_node["controllers"], settings_of_node["slots"]), (peers, 4))
        stores = {
            "url": "s3://bucket-of-weft-blue-/store",
            "region": "eu-central-1",
            "lake": {"url": "s3://lake/events/raw", "region": "eu-west-1"},
            "results": {"url": "s3://results/", "region": "eu-central-1"},
        }
        self.assertEqual((settings["store"], settings_of_node["store"]), (stores, stores))

    def test_settings_are_those_that_weft_knows(self):
        texts = self.user_data()
        for role, address in (("controller", 'aws_instance.controller["1"]'), ("node", 'aws_launch_template.nodes["spot"]')):
            written = tomllib.loads(files_of(texts[address])[f"/etc/weft/{role}.toml"])
            known = subprocess.run([os.environ["WEFT_BIN"], "config", role], capture_output=True, text=True, check=True)
            self.assertLessEqual(set(written), set(tomllib.loads(known.stdout)), role)

    def test_user_data_and_plan_hold_no_secret(self):
        for address, text in self.user_data().items():
            self.assertNotRegex(text, r"-----BEGIN", address)
        plan = json.dumps(self.plan())
        self.assertNotIn("-----BEGIN", plan)
        secret_kinds = {"aws_ssm_parameter", "aws_secretsmanager_secret_version", "tls_private_key", "random_password"}
        made = {change["type"] for change in self.plan()["resource_changes"] if change["mode"] == "managed"}
        self.assertEqual(made & secret_kinds, set())
        # What is read lies in the state, so no secret is.
        read = [each for each in self.plan()["prior_state"]["values"]["root_module"]["resources"] if each["type"] == "aws_ssm_parameter"]
        self.assertEqual([each["values"]["name"].split("/")[1] for each in read], ["aws"])


class Documents(unittest.TestCase):
    def test_all_variables_and_outputs_are_in_the_documents(self):
        page = (MODULES.parent / "fabric/docs/terraform.md").read_text()
        local, aws = page.split("## A cluster on AWS")
        for module, text in (("local", local), ("aws", aws)):
            for file in ("variables.tf", "outputs.tf"):
                names = re.findall(r'^(?:variable|output) "(\w+)"', (MODULES / module / file).read_text(), re.MULTILINE)
                self.assertTrue(names)
                self.assertEqual([name for name in names if f"| `{name}`" not in text], [], f"{module}/{file}")
