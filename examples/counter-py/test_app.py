"""PYTHONPATH=../../guest-sdk/python python3 -m unittest"""

from unittest import TestCase

import app
from weft import Error, testing


class CounterTest(TestCase):
    def setUp(self):
        self.actors = testing.Actors()

    def invoke(self, key, method, input=b""):
        return self.actors.invoke("counter", key, method, input)

    def test_each_key_has_a_sum_that_outlives_the_instance(self):
        self.assertEqual((self.invoke("ann", "add"), self.invoke("ann", "add", b"4")), (b"1", b"5"))
        self.actors.hibernate()
        self.assertEqual((self.invoke("ann", "get"), self.invoke("bob", "get")), (b"5", b"0"))
        with self.assertRaisesRegex(Error, "`four` is no number"):
            self.invoke("ann", "add", b"four")
        self.assertEqual(self.invoke("ann", "get"), b"5")

    def test_an_idle_counter_starts_anew(self):
        self.invoke("ann", "add")
        self.assertEqual(self.actors.advance(app.IDLE_MS - 1), 0)
        self.invoke("ann", "add")
        self.assertEqual((self.actors.advance(app.IDLE_MS - 1), self.invoke("ann", "get")), (0, b"2"))
        self.assertEqual(self.actors.advance(1), 1)
        self.assertEqual((self.invoke("ann", "get"), self.actors.state("counter", "ann")), (b"0", {}))

    def test_what_is_given_arrives_as_a_message(self):
        self.invoke("ann", "add", b"3")
        self.invoke("bob", "add", b"4")
        self.invoke("ann", "give", b"bob")
        self.assertEqual((self.invoke("ann", "get"), self.invoke("bob", "get")), (b"0", b"4"))
        self.actors.deliver()
        self.assertEqual(self.invoke("bob", "get"), b"7")
        with self.assertRaisesRegex(Error, "cannot give to itself"):
            self.invoke("bob", "give", b"bob")

    def test_squares_add_up(self):
        self.assertEqual(testing.run_task(app.squares, b"10"), b"385")
        self.assertEqual(testing.run_task(app.squares, b"0"), b"0")
