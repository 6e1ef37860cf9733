"""python3 -m unittest discover -s tests -t ."""

from unittest import TestCase

from weft import Batch, Error, testing
from weft.native import Err


def rides() -> Batch:
    return Batch({"zone utf8": ["soho", "east side"], "fare float64": [10.0, 5.0]})


def stand_in(batch: Batch, expressions: list[str]):
    assert expressions == ["zone", "fare * 2 AS total"]
    return {"zone utf8": batch["zone"], "total float64": [fare * 2 for fare in batch["fare"]]}


class EvalTest(TestCase):
    def tearDown(self):
        testing.on_eval(None)

    def test_nothing_evaluates_unless_a_test_says_what(self):
        with self.assertRaisesRegex(Err, "on_eval"):
            rides().eval("zone")

    def test_a_test_stands_in_for_the_host(self):
        testing.on_eval(stand_in)
        priced = rides().eval("zone", "fare * 2 AS total")
        self.assertEqual(priced.rows(), [("soho", 20.0), ("east side", 10.0)])
        self.assertEqual(list(priced.schema.names), ["zone", "total"])

    def test_rows_stay_what_they_are(self):
        testing.on_eval(lambda batch, _: batch.take([0]))
        with self.assertRaisesRegex(Error, "over 2 rows gave 1"):
            rides().eval("zone")
