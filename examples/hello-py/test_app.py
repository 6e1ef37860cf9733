"""PYTHONPATH=../../guest-sdk/python python3 -m unittest"""

from unittest import TestCase

import app
from weft import Error, testing


class HelloTest(TestCase):
    def test_names_are_greeted_and_nulls_are_not(self):
        run = testing.run_map(app.greet, {"name utf8?": ["Ada", None, "Zoë"]}, params={"hello": "good day"})
        self.assertEqual(run.rows(), [("Ada", "good day, Ada"), (None, None), ("Zoë", "good day, Zoë")])

    def test_divisors_are_of_numbers(self):
        run = testing.run_map(app.gcd, {"a int64": [12, 7, 0], "b int64": [18, 5, 9]})
        self.assertEqual([row[2] for row in run.rows()], [6, 1, 9])
        with self.assertRaisesRegex(Error, "column `b` is utf8, and must be int64"):
            testing.run_map(app.gcd, {"a int64": [], "b utf8": []})

    def test_names_have_initials(self):
        self.assertEqual(app.initials("Ada King Lovelace Byron"), "AKL")
        self.assertEqual(testing.run_scalar(app.initials, ["Ada Lovelace", None, ""], [1, 2, 3]), ["A", None, ""])
        with self.assertRaisesRegex(Error, "`0` letters are none"):
            app.initials("Ada", 0)

    def test_tasks_answer(self):
        self.assertEqual(testing.run_task(app.echo, b"hi"), b"hi")
        self.assertEqual(testing.run_task(app.noop, b"hi"), b"")
