from unittest import TestCase

from weft import Error, Field, Schema


class SchemaTest(TestCase):
    def test_fields_are_written_as_in_job_files(self):
        self.assertEqual(Field.parse("n int64"), Field("n", "int64"))
        self.assertEqual(Field.parse("page views int64?"), Field("page views", "int64", nullable=True))
        self.assertEqual(Field.parse("price decimal128(10, 2)?"), Field("price", "decimal128(10, 2)", nullable=True))
        for bad in ("n", "n int65", "price decimal128", ""):
            with self.assertRaises(Error, msg=bad):
                Field.parse(bad)

    def test_the_contract_has_fields_in_pre_order(self):
        point = Field("point", "struct-of", children=(Field("x", "int64"), Field("tags", "array-of", children=(Field("item", "utf8"),))))
        schema = Schema("n decimal128(10, -2)", point, "m boolean?")
        wire = schema.wire
        self.assertEqual([field.name for field in wire], ["n", "point", "x", "tags", "item", "m"])
        self.assertEqual(([field.children for field in wire], wire[0].scale), ([0, 2, 0, 1, 0, 0], -2))
        self.assertEqual(Schema.of_wire(wire), schema)

    def test_columns_are_required_by_name_and_type(self):
        schema = Schema("line utf8", "price decimal128(10, 2)")
        schema.require("line", "binary", "utf8")
        schema.require("price", "decimal128")
        with self.assertRaisesRegex(Error, "column `line` is utf8, and must be int64 or binary"):
            schema.require("line", "int64", "binary")
        with self.assertRaisesRegex(Error, "no column `word` among `line`, `price`"):
            schema.require("word", "utf8")
        self.assertEqual(schema.add("n int64").select(["n", "line"]), Schema("n int64", "line utf8"))
