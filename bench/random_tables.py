#!/usr/bin/env python3
"""Whether Weft keeps random tables as they are, written by other systems in all the ways that they have.

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-copies.txt
    VENV/bin/python bench/random_tables.py --weft target/release/weft --guests target/guests --tables 1000
    VENV/bin/python bench/random_tables.py --weft target/release/weft --guests target/guests --seed 7 --only 123

Each table is written as Parquet, Arrow, CSV or JSON by pyarrow, Polars, DuckDB or Python, in one file or several whose schemas are the same to a
reader: other nullability, another order of struct members, a column of nothing but nulls. A job copies it to Parquet, which pyarrow, DuckDB and Polars
must read as the table that there was; another job copies it to JSON, CSV or Arrow. bench/random_columns.py makes the values, bench/conformance.py
says what the verdicts mean. The exit code is 1 where a table differs, or something crashed; a line says how to see it again.
"""
import argparse, collections, dataclasses, os, random, shutil, signal, subprocess, sys, tempfile, time

import pyarrow as pa

import random_columns
from conformance import RANK, VERDICTS, Verdict, kind_of, worst
from copies import Copier
from random_files import CannotWrite, write
from readers import table_of
from sameness import Differs, check_tables
from text_sameness import check_csv, check_json, check_written_csv, check_written_json, parse_csv, parse_json

FORMATS = ("parquet", "arrow", "csv", "json")


@dataclasses.dataclass
class Written:
    """A table in files: where they are, who wrote them and how, and what a reader of Arrow should find."""
    format: str
    paths: list
    how: str
    source: dict
    table: pa.Table


def make(seed, number, formats, folder):
    """The table of this number, and its files."""
    draw = random.Random(f"{seed} {number}")
    format = draw.choice(formats)
    for _ in range(20):
        table = random_columns.table(draw, format)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        try:
            paths, how, source, table = write(draw, format, table, folder)
        except CannotWrite:
            continue  # no writer takes everything
        return draw, Written(format, paths, how, {"format": format, "uri": paths, **source}, table)
    raise RuntimeError(f"nobody writes table {number}")


class Trial:
    """Copies a table, and compares."""

    def __init__(self, copier, draw, written):
        self.copier, self.draw, self.written, self.notes, self.copied = copier, draw, written, set(), None

    def verdict(self):
        first = self.copy("parquet")
        if first.verdict != "equal":
            return first
        is_flat = not any(pa.types.is_nested(field.type) for field in self.written.table.schema)
        return worst(first, self.copy(self.draw.choice(["json", "arrow", "csv"] if is_flat else ["json", "arrow"])))

    def copy(self, to):
        copied = self.copier.copy(self.written.source, format=to)
        if copied.outcome == "crashed":
            return Verdict("crashed", f"to {to}: {copied.reason}")
        if not copied.is_done:
            return Verdict("refused", copied.reason if to == "parquet" else f"to {to}: {copied.reason}")
        try:
            self.check(to, copied.files)
        except Differs as error:
            return Verdict("differs", f"to {to}: {error}")
        return Verdict("equal", notes=tuple(sorted(self.notes)))

    def check(self, to, files):
        if not files:
            if self.written.table.num_rows:
                raise Differs(f"no rows instead of {self.written.table.num_rows}")
            return
        if to in ("parquet", "arrow"):
            found = self.read("pyarrow", to, files)
            self.check_values(found)
            self.copied = found if to == "parquet" else self.copied
            for peer in ("polars", "duckdb") if to == "parquet" else ("polars",):
                self.check_peer(peer, to, files, found)
        elif to == "json":
            check_written_json(self.source_values(), [parse_json(line) for line in lines_of(files)])
        else:
            rows = [parse_csv("".join(text_of(file)), ",") for file in files]
            check_written_csv(self.source_values(), [*rows[0], *(row for part in rows[1:] for row in part[1:])])

    def read(self, peer, to, files):
        try:
            return table_of(peer, to, files)
        except (pa.ArrowException, OSError) as error:
            raise Differs(f"{peer} cannot read what Weft wrote: {error}") from error

    def check_peer(self, peer, to, files, found):
        try:
            table = table_of(peer, to, files)
        except BaseException as error:  # a panic of Polars is no `Exception`
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            self.notes.add(f"{peer} does not read it: {type(error).__name__}: {error}"[:150])
            return
        try:
            check_tables(found, table, set())
        except Differs as error:
            raise Differs(f"{peer} reads what Weft wrote otherwise than pyarrow: {error}") from error

    def check_values(self, found):
        """Of text the files say what there should be: not every writer keeps what it is given."""
        written = self.written
        if written.format == "json":
            check_json([parse_json(line) for line in lines_of(written.paths)], found, self.notes)
        elif written.format == "csv":
            rows = [parse_csv(text_of(path), written.source["delimiter"])[1:] for path in written.paths]
            check_csv([row for part in rows for row in part], found, self.notes)
        else:
            check_tables(written.table, found, self.notes)

    def source_values(self):
        """What an output of text is held against: the table, or what Weft made of it in Parquet where the table came as text."""
        return self.written.table if self.written.format in ("parquet", "arrow") else self.copied


def text_of(path):
    with pa.input_stream(path, compression="detect") as file:
        return file.read().decode().removeprefix("\ufeff")


def lines_of(paths):
    return [line for path in paths for line in text_of(path).split("\n") if line.strip(" \t\r")]


def report(found, seconds, again):
    by_format = collections.defaultdict(collections.Counter)
    for _, written, verdict in found:
        by_format[f"{written.format} of {written.how.split(' ')[0]}"][verdict.verdict] += 1
        by_format["all"][verdict.verdict] += 1
    print("| tables | " + " | ".join(VERDICTS) + " |\n|---|" + "--:|" * len(VERDICTS))
    for name in sorted(by_format, key=lambda name: (name == "all", name)):
        print(f"| {name} | " + " | ".join(str(by_format[name][verdict]) for verdict in VERDICTS) + " |")
    print(f"\n{len(found)} tables in {seconds:.0f} s, {len(found) / seconds:.1f} a second.")
    for verdict in ("crashed", "differs", "refused"):
        kinds = collections.defaultdict(list)
        for number, written, one in found:
            if one.verdict == verdict:
                kinds[kind_of(one.why)].append(number)
        if kinds:
            print(f"\n## {verdict}\n")
        for kind, numbers in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
            print(f"- {len(numbers)} × {kind}: `{again} --only {numbers[0]}`{', ' + ', '.join(map(str, numbers[1:6])) if numbers[1:] else ''}")
    notes = collections.Counter(kind_of(note) for _, _, one in found for note in one.notes)
    if notes:
        print("\n## Notes\n")
    for note, n in notes.most_common():
        print(f"- {n} × {note}")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components, which has mirror.wasm")
    p.add_argument("--seed", type=int, help="drawn without it")
    p.add_argument("--tables", type=int, default=1000)
    p.add_argument("--only", type=int, help="the table of this number; it and its files are shown")
    p.add_argument("--formats", default=",".join(FORMATS), help="those that tables are written in")
    p.add_argument("--keep", help="where the files of a single table are left")
    a = p.parse_args()
    a.weft, a.formats = os.path.abspath(a.weft), a.formats.split(",")
    a.seed = random.SystemRandom().randrange(1 << 32) if a.seed is None else a.seed
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended, and the folder removed
    formats = "" if a.formats == list(FORMATS) else f" --formats {','.join(a.formats)}"
    again = f"--seed {a.seed}{formats}"
    version = subprocess.run([a.weft, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"--seed {a.seed}; {version}; {time.strftime('%Y-%m-%d')}.\n", flush=True)
    found, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weft-tables-") as folder, Copier(a.weft, a.guests, folder) as copier:
        for number in range(a.tables) if a.only is None else [a.only]:
            draw, written = make(a.seed, number, a.formats, f"{folder}/in")
            verdict = Trial(copier, draw, written).verdict()
            found.append((number, written, verdict))
            if RANK[verdict.verdict] >= RANK["differs"]:
                print(f"{again} --only {number}: {verdict.verdict}: {written.how}: {verdict.why[:400]}", flush=True)
            if a.only is not None:
                print(f"{written.how}; {written.source}\n{written.table.schema}\n{verdict}\n")
                if a.keep:
                    shutil.copytree(f"{folder}/in", a.keep)
    report(found, time.monotonic() - began, again)
    return 1 if any(RANK[verdict.verdict] >= RANK["differs"] for *_, verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
