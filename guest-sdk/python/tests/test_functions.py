import random
import sys
from unittest import TestCase, mock

import weft
from weft import Error, functions, testing


class FunctionsTest(TestCase):
    def setUp(self):
        for changed in (mock.patch.dict(functions.FUNCTIONS, clear=True), mock.patch.object(functions, "THIS", functions.Component())):
            changed.start()
            self.addCleanup(changed.stop)

    def test_a_map_of_columns_adds_or_gives(self):
        @weft.map(reads=["a int64", "b int64"], adds=["sum int64", "product int64?"])
        def arithmetic(a, b, params):
            """Adds two columns,
            in one call.

            More of it.
            """
            by = int(params["by"])
            return [x + y for x, y in zip(a, b)], [x * y * by or None for x, y in zip(a, b)]

        input = {"a int64": [1, 2], "b int64": [0, 4]}
        self.assertEqual(testing.run_map(arithmetic, input, params={"by": "2"}).rows(), [(1, 0, 1, None), (2, 4, 6, 16)])
        with self.assertRaisesRegex(Error, "parameter `by` is missing"):
            testing.run_map(arithmetic, input)
        self.assertEqual(functions.FUNCTIONS["arithmetic"].summary, "Adds two columns, in one call.")

        @weft.map(reads="line utf8|binary", gives="word utf8", name="words")
        def split(lines):
            return [word for line in lines for word in line.split()]

        self.assertEqual(testing.run_map(split, {"line utf8": ["a b", "c"]}).rows(), [("a",), ("b",), ("c",)])
        self.assertEqual(testing.run_map(split, {"line binary": [b"a b"]}).rows(), [("a",)  , ("b",)])
        with self.assertRaisesRegex(Error, "column `line` is int64, and must be utf8 or binary"):
            testing.run_map(split, {"line int64": []})

    def test_a_map_may_be_a_class(self):
        @weft.map
        class EveryOther:
            @staticmethod
            def bind(input, params):
                return input

            def __init__(self, params):
                self.rest = int(params.get("rest", "0"))
                self.n = 0

            def push(self, input, out):
                self.n += len(input)
                out.emit(input.filter(n % 2 == self.rest for n in input["n"]))

            def finish(self, out):
                weft.log.info(f"{self.n} rows")
                out.emit({"n": [self.n]})

        run = testing.run_map(EveryOther, {"n int64": [1, 2, 3]}, {"n int64": [5]}, params={"rest": "1"})
        self.assertEqual((run.rows(), run.log), ([(1,), (3,), (5,), (4,)], [("info", "4 rows")]))
        self.assertEqual(list(functions.FUNCTIONS), ["every-other"])
        with self.assertRaisesRegex(Error, "emit a `Batch`"):
            testing.run_map(EveryOther)

    def test_what_is_emitted_must_be_what_is_bound(self):
        @weft.map(gives="n int64")
        class Liar:
            def push(self, input, out):
                out.emit(input)

        with self.assertRaisesRegex(Error, "`liar` emits .* and has bound"):
            testing.run_map(Liar, {"m int64": [1]})

        @weft.map(gives=["n int64", "m int64"])
        class Misnamer:
            def push(self, input, out):
                out.emit({"n": [1], "x": [2]})

        with self.assertRaisesRegex(Error, "the columns must be `n`, `m`, not `n`, `x`"):
            testing.run_map(Misnamer, {"m int64": [1]})

    def test_a_reduce_gets_groups_however_they_are_cut(self):
        @weft.reduce(reads=["word utf8", "n int64"], gives=["word utf8", "total int64"])
        def total(word, n):
            return word[0], sum(n)

        @weft.reduce(reads="word utf8", gives="n int64")
        def sizes(word):
            return len(word)

        @weft.combine(reads=["word utf8", "n int64"])
        def largest(word, n):
            for each in sorted(n)[-2:]:
                yield word[0], each

        words = "b a c b a b b".split()
        input = {"word utf8": words, "n int64": range(len(words))}
        for batch_rows in (1, 2, 3, 100):
            ran = lambda target: testing.run_reduce(target, input, keys=["word"], batch_rows=batch_rows).rows()
            self.assertEqual(ran(total), [("a", 5), ("b", 14), ("c", 2)])
            self.assertEqual(ran(sizes), [(2,), (4,), (1,)])
            self.assertEqual(ran(largest), [("a", 1), ("a", 4), ("b", 5), ("b", 6), ("c", 2)])

    def test_a_group_that_went_on_may_have_no_more_rows(self):
        @weft.reduce(reads="n int64", gives="n int64")
        def count(n):
            return len(n)

        def check(pushes, expected):
            pushes = [(weft.Batch({"n int64": [0] * rows}), (weft.Groups(ends, more),)) for rows, ends, more in pushes]
            self.assertEqual([n for n, in testing.run(count, {}, pushes).rows()], expected)

        check([(1, [1], True), (1, [0, 1], False)], [1, 1])
        check([(1, [1], True), (0, [0], True), (1, [1], False)], [2])
        check([(1, [1], True), (0, [], True)], [1])
        check([(2, [1, 2], True), (3, [2, 3], False)], [1, 3, 1])
        check([(0, [], False)], [])

    def test_a_task_takes_what_it_names(self):
        @weft.task
        def shout(input, params):
            return input.decode().upper() + params.get("end", "!")

        @weft.task(deterministic=False)
        def position(index):
            return bytes([index])

        @weft.task
        def noop():
            pass

        self.assertEqual(testing.run_task(shout, b"hey", {"end": "?"}), b"HEY?")
        self.assertEqual(testing.run_task(position, index=3), b"\x03")
        self.assertEqual(testing.run_task(noop), b"")

    def test_random_numbers_depend_on_the_hosts_bytes_alone(self):
        def numbers(seed):
            random.random()
            with mock.patch("os.urandom", return_value=seed) as urandom:
                functions.reseed()
            urandom.assert_called_once_with(16)
            return random.random(), random.getrandbits(64)

        self.addCleanup(random.setstate, random.getstate())
        self.assertEqual(numbers(bytes(16)), numbers(bytes(16)))
        self.assertNotEqual(numbers(bytes(16)), numbers(bytes(15) + b"x"))

    def test_random_is_left_alone_where_nobody_imported_it(self):
        with mock.patch.dict(sys.modules), mock.patch("os.urandom") as urandom:
            del sys.modules["random"]
            functions.reseed()
            urandom.assert_not_called()

    def test_mistakes_are_told_when_the_module_is_read(self):
        def check(message, wrong):
            with self.assertRaisesRegex(Error, message):
                wrong()

        def double(n):
            return [2 * each for each in n]

        check("no name for a component", lambda: weft.component("Hits", "1.0.0"))
        check("has no name: call", functions.described)
        check("has no `reads`", lambda: weft.map(adds="m int64")(double))
        check("neither `adds` nor `gives`", lambda: weft.map(reads="n int64")(double))
        check("`adds` and `gives`", lambda: weft.map(reads="n int64", adds="m int64", gives="m int64")(double))
        check("no type `int65`", lambda: weft.map(reads="n int64", adds="m int65")(double))
        check("no name for a function", lambda: weft.map(reads="n int64", adds="m int64", name="Double")(double))
        check("has no decorator", lambda: testing.run_map(double))
        weft.map(reads="n int64", adds="m int64")(double)
        check("two functions `double`", lambda: weft.map(reads="n int64", adds="m int64")(double))

    def test_a_scalar_function_is_a_function_of_values(self):
        @weft.scalar
        def initials(name: str, most: int = 2) -> str | None:
            """The first letters of a name."""
            return "".join(part[0] for part in name.split()[:most]) or None

        @weft.scalar(deterministic=False, name="days-of")
        def days(day: "date32", other: "date32?") -> "int32":
            return day - (other or 0)

        @weft.scalar
        def one() -> float:
            return 1.0

        self.assertEqual(testing.run_scalar(initials, ["Ada Lovelace King", None, ""]), ["AL", None, None])
        self.assertEqual(testing.run_scalar(initials, ["Ada Lovelace King"], [1]), ["A"])
        self.assertEqual(initials("Grace Hopper"), "GH")
        self.assertEqual(testing.run_scalar(days, [9, 8, None], [1, None, 2]), [8, 8, None])
        self.assertEqual(testing.run_scalar(one), [1.0])
        with self.assertRaisesRegex(Error, r"it takes 1 to 2 arguments \(utf8, int64\), and 0 are given"):
            functions.FUNCTIONS["initials"].scalar.bind(weft.Schema())
        described = functions.FUNCTIONS["days-of"]
        self.assertEqual((described.kind, described.deterministic), ("scalar", False))
        arguments, returns = described.scalar.bind(weft.Schema("arg0 int64", "arg1 int64?"))
        self.assertEqual(arguments, [weft.Field("arg0", "date32"), weft.Field("arg1", "date32", nullable=True)])
        self.assertEqual(returns, weft.Field("returns", "int32"))

    def test_a_null_that_a_scalar_function_must_not_return_is_told(self):
        @weft.scalar
        def lies(n: int) -> int:
            return None

        with self.assertRaisesRegex(Error, "column `returns` has a null"):
            testing.run_scalar(lies, [1])

    def test_mistakes_in_scalar_functions_are_told_when_the_module_is_read(self):
        def check(message, wrong):
            with self.assertRaisesRegex(Error, message):
                wrong()

        def untyped(n) -> int: ...
        def without_result(n: int): ...
        def two(n: int | str) -> int: ...
        def unknown(n: "int65") -> int: ...
        def many(*n: int) -> int: ...

        check("does not say the type of `n`", lambda: weft.scalar(untyped))
        check("does not say the type of the result", lambda: weft.scalar(without_result))
        check("one type, which may be", lambda: weft.scalar(two))
        check("no type `int65`", lambda: weft.scalar(unknown))
        check("plain arguments by position", lambda: weft.scalar(many))
        check("is a class", lambda: weft.scalar(int))
