"""Scaling by the queue: the alarms and policies of the plan, played against queues.

The group below does what CloudWatch and EC2 Auto Scaling document of alarms, step policies and warm-up.
"""

import json
import unittest

import fake_aws
from scripts import load
from terraform import planned
from test_aws import Provided, files_of, user_data_of

controller = load("controller")

SAMPLE_SECONDS, MINUTE, BOOT_SECONDS = 15, 60, 150
MAX_NODES, SLOTS = 10, 4
GROUP = {"group": "general", "name": "weft-blue-general", "slots": SLOTS, "min": 0, "max": MAX_NODES}


class Group:
    """An Auto Scaling group with its two alarms and policies, as the plan has them."""

    def __init__(self, plan):
        def of(kind, name):
            return planned(plan, kind)[f'{kind}.{name}["general"]']

        group = of("aws_autoscaling_group", "nodes")
        self.least, self.most = group["min_size"], group["max_size"]
        self.alarms = {name: of("aws_cloudwatch_metric_alarm", name) for name in ("grow", "shrink")}
        self.policies = {name: of("aws_autoscaling_policy", name) for name in ("grow", "shrink")}
        self.born = []
        self.minutes = []
        # Every change of the capacity: the minute and the number of nodes.
        self.changes = []

    def working(self, now):
        return sum(1 for born in self.born if now - born >= BOOT_SECONDS)

    def end_minute(self, now, samples):
        """Takes a minute's samples of the metric, and acts on the alarms."""
        self.minutes.append(samples)
        for name in ("grow", "shrink"):
            value = self.breach(self.alarms[name])
            if value is not None:
                self.act(now, self.policies[name], value - self.alarms[name]["threshold"])

    def breach(self, alarm):
        """The newest value, if the alarm is in alarm."""
        statistic = {"Minimum": min, "Maximum": max}[alarm["statistic"]]
        recent = self.minutes[-int(alarm["evaluation_periods"]) :]
        values = [statistic(minute) if minute else None for minute in recent]
        holds = {
            "GreaterThanOrEqualToThreshold": lambda value: value >= alarm["threshold"],
            "LessThanOrEqualToThreshold": lambda value: value <= alarm["threshold"],
        }[alarm["comparison_operator"]]
        # A missing minute does not breach.
        is_alarm = len(values) == alarm["evaluation_periods"] and all(value is not None and holds(value) for value in values)
        return values[-1] if is_alarm else None

    def act(self, now, policy, above):
        change = next(step["scaling_adjustment"] for step in policy["step_adjustment"] if is_in(step, above))
        if change > 0:
            # What still warms up counts as the answer to the same breach.
            warming = sum(1 for born in self.born if now - born < policy["estimated_instance_warmup"])
            change = max(0, change - warming)
        size = max(self.least, min(self.most, len(self.born) + int(change)))
        if size != len(self.born):
            self.changes.append((now // MINUTE, size))
        self.born = (self.born + [now] * MAX_NODES)[:size]


def is_in(step, above):
    """Whether a step is for so much above the threshold: growing steps have their lower bound, shrinking ones their upper."""
    low = float(step["metric_interval_lower_bound"] or "-inf")
    high = float(step["metric_interval_upper_bound"] or "inf")
    return low <= above < high if step["scaling_adjustment"] > 0 else low < above <= high


def play(plan, minutes, arrivals, task_seconds):
    """Plays a queue. `arrivals(minute)`: tasks that come in it. Gives the group and the length of the queue at the end."""
    group, waiting, running = Group(plan), 0, []
    samples = []
    for now in range(0, minutes * MINUTE, SAMPLE_SECONDS):
        if now % MINUTE == 0:
            if now:
                group.end_minute(now, samples)
                samples = []
            waiting += arrivals(now // MINUTE)
        running = [end for end in running if end > now]
        started = max(0, min(waiting, group.working(now) * SLOTS - len(running)))
        waiting -= started
        running += [now + task_seconds] * started
        metrics = {"weft_tasks_waiting": waiting, "weft_tasks_running": len(running)}
        missing = controller.wanted(controller.demand(metrics), [GROUP])[GROUP["name"]] - len(group.born)
        samples.append(missing)
    return group, waiting


def turns(changes):
    """How often the size turned from growing to shrinking or back."""
    sizes = [0, *[size for _, size in changes]]
    ups = [after > before for before, after in zip(sizes, sizes[1:])]
    return sum(1 for before, after in zip(ups, ups[1:]) if before != after)


class Scaling(Provided):
    decide = staticmethod(fake_aws.foretold)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plan = None

    def setUp(self):
        if Scaling.plan is None:
            groups = {"general": {"instance_types": ["m7i.xlarge"], "slots": SLOTS, "max_nodes": MAX_NODES}}
            Scaling.plan = self.module(node_groups=groups).plan()

    def test_a_burst_grows_to_the_cap_and_goes_back_to_zero(self):
        group, waiting = play(self.plan, 180, lambda minute: 2000 if minute == 5 else 0, task_seconds=60)
        self.assertEqual(waiting, 0)
        self.assertEqual(max(size for _, size in group.changes), MAX_NODES)
        self.assertEqual((len(group.born), turns(group.changes)), (0, 1), group.changes)

    def test_one_task_starts_one_node_within_two_minutes(self):
        group, waiting = play(self.plan, 60, lambda minute: minute == 5, task_seconds=30)
        self.assertEqual((waiting, [size for _, size in group.changes]), (0, [1, 0]))
        self.assertLessEqual(group.changes[0][0], 7)

    def test_pauses_shorter_than_the_patience_end_no_node(self):
        group, _ = play(self.plan, 240, lambda minute: 24 if minute % 8 == 0 else 0, task_seconds=100)
        sizes = [size for _, size in group.changes]
        self.assertEqual((sizes[-1], turns(group.changes)), (6, 0), group.changes)

    def test_a_steady_load_between_two_sizes_does_not_flap(self):
        # 2.5 nodes' worth of work, one minute a little more, one a little less.
        group, _ = play(self.plan, 480, lambda minute: 9 + 2 * (minute % 2), task_seconds=60)
        # What queued up while the first nodes booted is worked off; then nothing changes for seven hours.
        self.assertLessEqual(turns(group.changes), 1, group.changes)
        self.assertLess(group.changes[-1][0], 60, group.changes)
        self.assertEqual(len(group.born), 3)

    def test_without_a_leader_nothing_changes(self):
        group = Group(self.plan)
        group.end_minute(60, [5, 5, 5, 5])
        size = len(group.born)
        for minute in range(2, 60):
            group.end_minute(60 * minute, [])
        self.assertEqual((len(group.born), size), (4, 4))

    def test_a_sample_without_surplus_in_a_minute_keeps_all_nodes(self):
        group = Group(self.plan)
        group.end_minute(60, [8, 8, 8, 8])
        for minute in range(2, 120):
            group.end_minute(60 * minute, [-8, -8, 0 if minute % 9 == 0 else -8, -8])
        self.assertEqual(len(group.born), 8)
        # Nor does a sample in which nodes are missing, among others in which none are, add any.
        for minute in range(120, 240):
            group.end_minute(60 * minute, [0, 2, 0, 2])
        self.assertEqual(len(group.born), 8)

    def test_steps_never_add_more_than_are_missing_nor_take_more_than_are_idle(self):
        group = Group(self.plan)
        for missing in range(1, 1000):
            above = missing - group.alarms["grow"]["threshold"]
            (step,) = [step for step in group.policies["grow"]["step_adjustment"] if is_in(step, above)]
            self.assertTrue(1 <= step["scaling_adjustment"] <= missing, missing)
            above = -missing - group.alarms["shrink"]["threshold"]
            (step,) = [step for step in group.policies["shrink"]["step_adjustment"] if is_in(step, above)]
            self.assertTrue(1 <= -step["scaling_adjustment"] <= missing, missing)

    def test_alarms_look_at_what_the_leader_publishes(self):
        sent = []
        self.addCleanup(setattr, controller, "aws", controller.aws)
        controller.aws = lambda *arguments, document: sent.append((arguments, document))
        settings = json.loads(self.tend_settings())
        found = {"weft-blue-general": {"DesiredCapacity": 1}}
        controller.publish(settings, {"weft_tasks_waiting": 9.0}, found)
        ((arguments, document),) = sent
        self.assertEqual(arguments, ("cloudwatch", "put-metric-data"))
        (datum,) = document["MetricData"]
        self.assertEqual(datum["Value"], 2)
        for alarm in planned(self.plan, "aws_cloudwatch_metric_alarm").values():
            self.assertEqual((alarm["namespace"], alarm["metric_name"]), (document["Namespace"], datum["MetricName"]))
            self.assertEqual(alarm["dimensions"], {each["Name"]: each["Value"] for each in datum["Dimensions"]})

    def tend_settings(self):
        return files_of(user_data_of(self.plan)['aws_instance.controller["1"]'])["/etc/weft/tend.json"]


class Reckoning(unittest.TestCase):
    """What the leader makes of its metrics."""

    def test_metrics_are_read(self):
        text = '# TYPE weft_jobs gauge\nweft_jobs{status="running"} 2\nweft_tasks_waiting 7\nweft_slots 0\n# EOF\n'
        metrics = controller.read_metrics(text)
        self.assertEqual(metrics, {'weft_jobs{status="running"}': 2, "weft_tasks_waiting": 7, "weft_slots": 0})
        self.assertEqual(controller.demand(metrics), 7)

    def test_a_job_without_tasks_needs_a_slot_and_ended_jobs_need_none(self):
        self.assertEqual(controller.demand({'weft_jobs{status="planning"}': 1}), 1)
        self.assertEqual(controller.demand({'weft_jobs{status="succeeded"}': 3}), 0)
        self.assertEqual(controller.demand({"weft_steps_waiting": 2}), 2)

    def test_groups_are_filled_in_their_order(self):
        groups = [
            {"name": "base", "slots": 2, "min": 0, "max": 4},
            {"name": "spot", "slots": 4, "min": 1, "max": 10},
        ]
        cases = {0: (0, 1), 1: (1, 1), 8: (4, 1), 9: (4, 1), 13: (4, 2), 48: (4, 10), 10_000: (4, 10)}
        for slots, (base, spot) in cases.items():
            self.assertEqual(controller.wanted(slots, groups), {"base": base, "spot": spot}, slots)
