"""python3 -m unittest discover -s tests -t ."""

from array import array
from decimal import Decimal
from unittest import TestCase

from weft import Batch, Error, Field
from weft.columns import bits, decode, encode, flags


def there_and_back(field: str | Field, values) -> list:
    field = Field.parse(field)
    return list(decode(field, encode(field, values)))


class ColumnsTest(TestCase):
    def check(self, field: str | Field, values: list):
        self.assertEqual(there_and_back(field, values), values)
        self.assertEqual(there_and_back(field, []), [])
        field = Field.parse(field)
        nullable = Field(field.name, field.type, True, field.children)
        self.assertEqual(there_and_back(nullable, [None, *values, None]), [None, *values, None])
        with self.assertRaisesRegex(Error, "has a null"):
            encode(field, [None])

    def test_all_types_come_back(self):
        for width in (8, 16, 32, 64):
            self.check(f"n int{width}", [-(2 ** (width - 1)), 0, 2 ** (width - 1) - 1])
            self.check(f"n uint{width}", [0, 2**width - 1])
        self.check("n float32", [0.5, -1.0])
        self.check("n float64", [0.1, float("inf")])
        self.check("day date32", [-1, 20000])
        self.check("at timestamp-us", [1_700_000_000_000_000])
        self.check("is boolean", [True, False, False, True, True, False, True, True, True])
        self.check("word utf8", ["", "a", "bc"])
        self.check("word utf8", ["", "Zoë", "日本", "x"])
        self.check("data binary", [b"", b"\xff\0"])
        self.check("price decimal128(38, 2)", [Decimal("0.01"), Decimal("-5.00"), Decimal(10**35)])

    def test_nested_types_come_back(self):
        tags = Field("tags", "array-of", children=(Field("item", "utf8"),))
        self.check(tags, [["a", "b"], [], ["c"]])
        point = Field("point", "struct-of", children=(Field("x", "int64"), Field("name", "utf8", nullable=True)))
        self.check(point, [{"x": 1, "name": "a"}, {"x": 2, "name": None}])
        self.check(Field("path", "array-of", children=(point,)), [[{"x": 1, "name": None}], []])

    def test_numbers_are_cast_and_arrays_are_copied_as_they_are(self):
        values = decode(Field.parse("n int64"), encode(Field.parse("n int64"), array("q", [1, 2])))
        self.assertEqual((type(values), values.tolist()), (memoryview, [1, 2]))
        self.assertEqual(there_and_back("n float64", array("q", [1, 2])), [1.0, 2.0])
        self.assertEqual(there_and_back("n int32", values), [1, 2])
        self.assertEqual(there_and_back("n int64", (n for n in (1, 2))), [1, 2])

    def test_text_may_be_bytes(self):
        self.assertEqual(there_and_back("word utf8", ["Zoë".encode(), b"x"]), ["Zoë", "x"])
        self.assertEqual(there_and_back("word utf8?", [None, "Zoë".encode()]), [None, "Zoë"])

    def test_what_does_not_fit_names_the_column(self):
        for field, values in [
            ("n int8", [128]),
            ("n int64", [0.5]),
            ("n int64", ["1"]),
            ("n uint8", [-1]),
            ("word utf8", ["a", b"b"]),
            ("word utf8", [1]),
            ("price decimal128(3, 2)", [Decimal("0.001")]),
            ("price decimal128(3, 2)", [Decimal(10)]),
        ]:
            name = field.split()[0]
            with self.assertRaisesRegex(Error, f"column `{name}` of type", msg=field):
                encode(Field.parse(field), values)

    def test_bits_are_counted_from_the_least(self):
        self.assertEqual(bits([1, 0, 0, 0, 0, 0, 0, 0, 1]), b"\x01\x01")
        self.assertEqual((bits([]), list(flags(b"", 0))), (b"", []))
        self.assertEqual(list(flags(b"\x05\xff", 9)), [True, False, True, *[False] * 5, True])


class BatchTest(TestCase):
    def test_columns_are_read_by_name_and_added(self):
        batch = Batch({"word utf8": ["a", "b", "c"], "n int64": [1, 2, 3]})
        self.assertEqual((len(batch), batch["word"], batch["n"].tolist()), (3, ["a", "b", "c"], [1, 2, 3]))
        self.assertEqual(batch.with_column("m int32", [4, 5, 6]).select(["m", "word"]).rows(), [(4, "a"), (5, "b"), (6, "c")])
        self.assertEqual(batch.filter([True, False, True]).rows(), [("a", 1), ("c", 3)])
        self.assertEqual(batch.take([2, 0, 2]).rows(), [("c", 3), ("a", 1), ("c", 3)])
        word = batch.column("word")
        self.assertEqual((word.offsets.tolist(), word.data, word.nulls, len(word)), ([0, 1, 2, 3], b"abc", 0, 3))
        self.assertEqual(Batch({"again utf8": word}).rows(), [("a",), ("b",), ("c",)])
        with self.assertRaisesRegex(Error, "no column `x` among `word`, `n`"):
            batch["x"]
