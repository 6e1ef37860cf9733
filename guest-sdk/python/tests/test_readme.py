import datetime
import re
from pathlib import Path
from unittest import TestCase, mock

from weft import functions, testing


class ReadmeTest(TestCase):
    def setUp(self):
        for changed in (mock.patch.dict(functions.FUNCTIONS, clear=True), mock.patch.object(functions, "THIS", functions.Component())):
            changed.start()
            self.addCleanup(changed.stop)
        text = (Path(__file__).parents[1] / "README.md").read_text()
        self.page = {}
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(block, self.page)

    def test_what_the_page_says_is_so(self):
        self.page["test"]()
        monday = (datetime.date(2026, 11, 16) - datetime.date(1970, 1, 1)).days
        trips = {"fare float64?": [10.0, None], "day date32": [monday, monday + 6]}
        tax = testing.run_map(self.page["tax"], trips, params={"rate": "10"})
        self.assertEqual([row[2:] for row in tax.rows()], [(1.0, 0), (None, 6)])
        fares = {"fare float64?": [3.0, None, 30.0]}
        total = testing.run_map(self.page["Fares"], fares)
        self.assertEqual((total.rows(), total.log), ([(2, 33.0)], [("info", "2 fares")]))
        self.assertEqual(testing.run_map(self.page["Cheap"], fares).rows(), [(3.0,)])

    def test_groups_may_come_in_any_pieces(self):
        counts = {"word utf8": list("abacabb"), "n int64": [1, 2, 3, 4, 5, 6, 7]}
        for batch_rows in range(1, 9):
            for function in ("total", "Sums"):
                run = testing.run_reduce(self.page[function], counts, keys=["word"], batch_rows=batch_rows)
                self.assertEqual(run.rows(), [("a", 9), ("b", 15), ("c", 4)], (function, batch_rows))
