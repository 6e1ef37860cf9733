#!/usr/bin/env python3
"""Whether Weft reads other people's files as others do: every file in a folder is copied by a job, and compared with what its peers read.

    python3 -m venv VENV && VENV/bin/pip install -r bench/requirements-copies.txt
    VENV/bin/python bench/conformance.py --weft target/release/weft --guests target/guests --files FOLDER

FOLDER has a folder for each suite: clones of apache/parquet-testing, apache/arrow-testing, nst/JSONTestSuite, maxogden/csv-spectrum, say, or the
data of duckdb/duckdb. `--guests` has `mirror.wasm`, of fabric/sandbox/tests/guests. One server runs a job or a few for each file, one after the other.
What a file is its first bytes say, or its extension. The verdicts:

    equal        Weft reads what a peer reads. Parquet and Arrow are held against pyarrow, or else DuckDB or Polars; CSV and JSON against Python's
                 own strict readers. Where a file has records that are none, exactly these were put aside
    refused      Weft does not read it, or not all of its columns, and a peer does
    both refuse  neither Weft nor any peer reads it, or Weft refuses text that is no JSON or CSV
    alone        Weft reads it, and nobody else does: nothing to compare with
    differs      Weft says that it has read it, and has other values, or takes what is none
    crashed      the server or an executor died, a job did not end, or the error is a fault of Weft's own

JSON that is one document rather than one record a line is wrapped: as the only member of a record, and of one behind 1,000 others without it, which
is a column that nobody reads. The exit code is 1 where a file differs, or something crashed.
"""
import argparse, collections, dataclasses, gzip, json, os, re, signal, subprocess, sys, tempfile, time

import pyarrow as pa
import pyarrow.parquet as pq

from copies import Copier
from readers import PEERS, Readers, Unreadable
from sameness import Differs, check_tables
from text_sameness import check_csv, check_json, check_written_json, parse_csv, parse_json

VERDICTS = ("equal", "refused", "both refuse", "alone", "differs", "crashed")
# The worst of what came of the runs of one file is its verdict.
RANK = {"equal": 0, "both refuse": 1, "alone": 2, "refused": 3, "differs": 4, "crashed": 5}
FORMATS = {"parquet": "parquet", "parq": "parquet", "arrow": "arrow", "arrow_file": "arrow", "arrows": "arrow", "stream": "arrow", "ipc": "arrow",
           "feather": "arrow", "json": "json", "jsonl": "json", "ndjson": "json", "csv": "csv", "tsv": "csv"}
COMPRESSED = ("gz", "zst")
FILE_BYTES_MAX = 64 << 20
RECORDS_BEFORE = 1000
sys.setrecursionlimit(20_000)  # for documents that nest deep
COLUMN_REFUSED = re.compile(r"column `(.*?)` has type .*, which functions cannot take")


@dataclasses.dataclass
class Verdict:
    verdict: str
    why: str = ""
    # The peers that read what Weft refuses.
    peers: tuple = ()
    notes: tuple = ()


class Checker:
    """Copies files, and compares."""

    def __init__(self, copier, readers, folder):
        self.copier, self.readers, self.folder = copier, readers, folder

    def check(self, path, format):
        return getattr(self, format)(path)

    def copied_table(self, copied):
        """What the job has written. Errors: `Differs`."""
        try:
            parts = [pq.ParquetFile(file).read() for file in copied.files]
        except (pa.ArrowException, OSError) as error:
            raise Differs(f"what Weft wrote cannot be read: {error}") from error
        return pa.concat_tables(parts) if parts else None

    # ---- Parquet and Arrow

    def parquet(self, path):
        return self.columnar(path, "parquet")

    def arrow(self, path):
        return self.columnar(path, "arrow")

    def columnar(self, path, format):
        copied = self.copier.copy({"format": format, "uri": literal(path)})
        if copied.is_done:
            return self.held_against_peers(copied, format, path, None)
        if copied.outcome == "crashed":
            return Verdict("crashed", copied.reason)
        able, why = self.readers.who_reads(format, [path])
        if able and "writing to" in copied.detail:
            return self.as_json(copied, format, path, able)
        if not able:
            return Verdict("both refuse", f"{copied.reason} ({why})")
        verdict = Verdict("refused", copied.reason, tuple(able))
        return worst(verdict, self.without_refused_columns(copied, format, path))

    def as_json(self, refused, format, path, able):
        """What comes of what Parquet cannot hold."""
        copied = self.copier.copy({"format": format, "uri": literal(path)}, format="json")
        if not copied.is_done:
            return Verdict("crashed" if copied.outcome == "crashed" else "refused", f"{refused.reason}; as JSON: {copied.reason}", tuple(able))
        try:
            records = []
            for file in copied.files:
                with open(file, encoding="utf-8") as lines:
                    records += map(parse_json, lines)
            check_written_json(self.readers.read(able[0], format, [path]), records)
        except (Differs, ValueError) as error:
            return Verdict("differs", f"as JSON: {able[0]}: {error}")
        return Verdict("equal", notes=("it is JSON, since Parquet cannot hold it",))

    def without_refused_columns(self, copied, format, path):
        """What comes of the columns that functions can take, where only some are refused."""
        try:
            columns = self.readers.read("pyarrow", format, [path]).column_names
        except Unreadable:
            return Verdict("equal")
        while len(columns) > 1 and (found := COLUMN_REFUSED.search(copied.detail)) and found[1] in columns:
            columns = [name for name in columns if name != found[1]]
            copied = self.copier.copy({"format": format, "uri": literal(path), "columns": columns})
            if copied.outcome == "crashed":
                return Verdict("crashed", copied.reason)
            if copied.is_done:
                return self.held_against_peers(copied, format, path, columns)
        return Verdict("equal")

    def held_against_peers(self, copied, format, path, columns):
        """Equal where pyarrow reads the same, or at least as many of the others as read something else."""
        equal, differs, noted = [], [], set()
        for peer in PEERS[format]:
            try:
                expected = self.readers.read(peer, format, [path])
            except Unreadable:
                continue
            notes = set()
            try:
                found = self.copied_table(copied)
                check_tables(expected if columns is None else expected.select(columns), empty(expected) if found is None else found, notes)
            except Differs as error:
                differs.append(f"{peer}: {error}")
                continue
            equal.append(peer)
            noted |= notes
            if peer == "pyarrow":
                break
        if len(differs) > len(equal):
            return Verdict("differs", "; ".join(differs), tuple(equal))
        noted.update(f"another than {other}" for other in differs)
        return Verdict("equal", notes=tuple(sorted(noted))) if equal else Verdict("alone")

    # ---- JSON

    def json(self, path):
        content = unpacked(path)
        if content is None:
            return self.unpackable(path, "json")
        lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r")]
        records = [record_of(line) for line in lines]
        if lines and all(isinstance(record, dict) for record in records):
            return self.json_lines(path, records)
        if (document := record_of(content.removeprefix(b"\xef\xbb\xbf"))) is not INVALID:
            if content.startswith(b"\xef\xbb\xbf"):
                return self.json_lines(path, records)
            # A line end in a document is nothing but space.
            return self.wrapped(content.replace(b"\n", b" ").replace(b"\r", b" "), document)
        if len(lines) > 1 or not lines:
            return self.json_lines(path, records)
        return self.wrapped(content.strip(b"\r\n"), INVALID)

    def wrapped(self, content, document):
        alone = b'{"v": ' + content + b"}\n"
        behind = b'{"b": 1}\n' * RECORDS_BEFORE + b'{"b": 1, "v": ' + content + b"}\n"
        second = b'{"b": 1, "v": null}\n{"b": 1, "v": ' + content + b"}\n"
        return worst(self.json_text(second if document is INVALID else alone), self.json_text(behind))

    def json_text(self, text):
        path = f"{self.folder}/wrapped.json"
        with open(path, "wb") as file:
            file.write(text)
        return self.json_lines(path, [record_of(line) for line in text.split(b"\n") if line.strip(b" \t\r")])

    def json_lines(self, path, records):
        """Records that are none must fail the job, and be put aside where the job wants that."""
        source = {"format": "json", "uri": literal(path)}
        good = [record for record in records if isinstance(record, dict)]

        def check(found, notes):
            check_json(good, found, notes)
        copied = self.copier.copy(source)
        if len(good) == len(records):
            return self.text_verdict(copied, check, "json", path, len(good))
        if copied.outcome == "crashed":
            return Verdict("crashed", copied.reason)
        if copied.is_done:
            return Verdict("differs", f"it takes what is no JSON: {bad_of(path, records)!r}")
        if not good:
            return Verdict("both refuse", copied.reason)
        return self.put_aside(source, check, len(good), len(records) - len(good), "json")

    def put_aside(self, source, check, n_good, n_bad, format):
        copied = self.copier.copy(source, put_aside=True)
        if copied.outcome == "crashed":
            return Verdict("crashed", copied.reason)
        if not copied.is_done:
            # Where most are bad it is the header that is wrong, or the first record.
            return Verdict("refused" if n_good > n_bad else "both refuse", copied.reason)
        if copied.bad < n_bad:
            return Verdict("differs", f"{copied.bad} records are put aside, and {n_bad} are no {format}")
        if copied.bad > n_bad:
            return Verdict("refused", f"bad_record: {copied.letters[-1]['reason'] if copied.letters else '?'}")
        if len(copied.letters) != copied.bad:
            return Verdict("differs", f"{len(copied.letters)} dead letters of {copied.bad} records")
        return self.compared(copied, check, n_good)

    def text_verdict(self, copied, check, format, path, n_rows, **options):
        if copied.outcome == "crashed":
            return Verdict("crashed", copied.reason)
        if copied.is_done:
            return self.compared(copied, check, n_rows)
        if n_rows == 0:
            return Verdict("both refuse", copied.reason)  # there is nothing to read
        able, _ = self.readers.who_reads(format, [path], **options)
        return Verdict("refused", copied.reason, ("Python", *able))

    def compared(self, copied, check, n_rows):
        notes = set()
        try:
            found = self.copied_table(copied)
            if found is not None:
                check(found, notes)
            elif n_rows:
                raise Differs(f"no rows instead of {n_rows}")
        except Differs as error:
            if copied.unknown:
                return Verdict("refused", f"values were passed over, and told, because no column can have their key: {copied.unknown}", ("Python",))
            return Verdict("differs", str(error))
        return Verdict("equal", notes=tuple(sorted(notes)))

    def unpackable(self, path, format):
        copied = self.copier.copy({"format": format, "uri": literal(path)})
        return Verdict({"done": "alone", "refused": "both refuse"}.get(copied.outcome, "crashed"), copied.reason)

    # ---- CSV

    def csv(self, path):
        content = unpacked(path)
        if content is None:
            return self.unpackable(path, "csv")
        try:
            delimiter = delimiter_of(content.decode(errors="replace"))
            rows = parse_csv(content.removeprefix(b"\xef\xbb\xbf").decode(), delimiter)
        except ValueError as error:
            copied = self.copier.copy({"format": "csv", "uri": literal(path), "delimiter": delimiter})
            if copied.is_done:
                able, _ = self.readers.who_reads("csv", [path], delimiter=delimiter)
                return Verdict("alone", f"Python: {error}", tuple(able))
            return Verdict("crashed" if copied.outcome == "crashed" else "both refuse", copied.reason)
        header = bool(rows) and has_header(rows[0])
        source = {"format": "csv", "uri": literal(path), "delimiter": delimiter, "header": header}
        wanted = rows[1:] if header else rows
        width = len(rows[0]) if rows else 0
        good = [row for row in wanted if len(row) == width]

        def check(found, notes):
            check_csv(good, found, notes)
            if header and [name for name in rows[0] if name] != [name for text, name in zip(rows[0], found.column_names) if text]:
                raise Differs(f"columns {found.column_names} instead of {rows[0]}")
        copied = self.copier.copy(source)
        if len(good) == len(wanted):
            return self.text_verdict(copied, check, "csv", path, len(good), delimiter=delimiter)
        if copied.outcome == "crashed":
            return Verdict("crashed", copied.reason)
        if copied.is_done:
            return Verdict("differs", "it takes rows with too few values, or too many")
        return self.put_aside(source, check, len(good), len(wanted) - len(good), "CSV of one width")


class Invalid:
    """What is no JSON."""

    def __repr__(self):
        return "INVALID"


INVALID = Invalid()


def record_of(line):
    """What the line says; `INVALID` where it is no JSON."""
    try:
        return parse_json(line.decode())
    except ValueError:
        return INVALID


def bad_of(path, records):
    """The first line that is no record."""
    with open(path, "rb") as file:
        lines = [line for line in file.read().split(b"\n") if line.strip(b" \t\r")]
    return next(line[:200] for line, record in zip(lines, records) if not isinstance(record, dict))


def literal(path):
    """A pattern that nothing but this path fits."""
    return re.sub(r"([\[*?])", r"[\1]", os.path.abspath(path))


def empty(table):
    return table.schema.empty_table()


def worst(*verdicts):
    found = max(verdicts, key=lambda verdict: RANK[verdict.verdict])
    return dataclasses.replace(found, notes=tuple(sorted({note for verdict in verdicts for note in verdict.notes})))


def unpacked(path):
    """A text file's bytes; nothing where it is no such file."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        if path.endswith(".gz"):
            return gzip.decompress(content)
        if path.endswith(".zst"):
            return pa.input_stream(pa.BufferReader(content), compression="zstd").read()
    except (OSError, EOFError, ValueError, pa.ArrowException):
        return None
    return content


def delimiter_of(text):
    """The most frequent of the usual ones in the first line, behind quotes left out."""
    first = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").split("\n", 1)[0])
    return max(",\t;|", key=first.count)


def has_header(row):
    """Names are told from values by being no numbers and different ones."""
    def is_number(text):
        try:
            float(text)
        except ValueError:
            return False
        return True
    names = [name for name in row if name]
    return bool(names) and len(names) == len(set(names)) and not any(map(is_number, names))


def format_of(path):
    """`parquet`, `arrow`, `csv` or `json`; nothing where it is something else."""
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic[:4] in (b"PAR1", b"PARE"):
        return "parquet"
    if magic == b"ARROW1":
        return "arrow"
    parts = os.path.basename(path).lower().split(".")
    is_compressed = parts[-1] in COMPRESSED
    extension = parts[-2] if is_compressed and len(parts) > 1 else parts[-1]
    format = FORMATS.get(extension)
    if format is None and "arrow-ipc-" in path and magic[:4] != b"PK\x03\x04" and extension not in ("md", "json", "py"):
        return "arrow"
    return None if is_compressed and format in ("parquet", "arrow") else format


def files_of(folder):
    """Suite, path from there, path and format of every file."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            path = os.path.join(at, name)
            if os.path.isfile(path) and os.path.getsize(path) <= FILE_BYTES_MAX and (format := format_of(path)):
                inner = os.path.relpath(path, folder)
                yield inner.split(os.sep)[0] if os.sep in inner else ".", inner, path, format


def kind_of(reason):
    """A reason without what is of its file alone."""
    reason = re.sub(r"`/[^`]*`(, byte \d+)?", "FILE", re.split(r": b['\"]", reason)[0])
    reason = re.sub(r"(?<![a-z])('[^']*'|\"[^\"]*\")", "'..'", re.sub(r"datetime\.\w+\([^)]*\)", "TIME", reason))
    reason = re.sub(r"record \d+", "record N", re.sub(r"`[^`]*`", "`..`", reason))
    return re.sub(r"-?\d[\d.e+-]*", "N", reason)[:160].strip()


def report(found, seconds):
    suites = collections.defaultdict(collections.Counter)
    for suite, _, format, verdict in found:
        suites[f"{suite} | {format}"][verdict.verdict] += 1
        suites["all | "][verdict.verdict] += 1
    print("| suite | format | " + " | ".join(VERDICTS) + " |\n|---|---|" + "--:|" * len(VERDICTS))
    for suite in sorted(suites, key=lambda name: (name.startswith("all |"), name)):
        print(f"| {suite} | " + " | ".join(str(suites[suite][verdict]) for verdict in VERDICTS) + " |")
    print(f"\n{len(found)} files in {seconds:.0f} s.")
    for verdict in ("crashed", "differs", "alone", "refused", "both refuse"):
        kinds = collections.defaultdict(list)
        for _, path, format, one in found:
            if one.verdict == verdict:
                kinds[f"{format}: {kind_of(one.why)}"].append((path, one))
        if kinds:
            print(f"\n## {verdict}\n")
        for kind, files in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
            peers = collections.Counter(peer for _, one in files for peer in one.peers)
            able = f" ({', '.join(f'{peer} reads {n}' for peer, n in peers.items())})" if peers else ""
            print(f"- {len(files)} × {kind}{able}: {', '.join(path for path, _ in files[:4])}{', ..' if len(files) > 4 else ''}")
    notes = collections.defaultdict(list)
    for _, path, _, one in found:
        for note in one.notes:
            notes[note].append(path)
    if notes:
        print("\n## Notes\n")
    for note, paths in sorted(notes.items(), key=lambda pair: -len(pair[1])):
        print(f"- {len(paths)} × {note}: {', '.join(paths[:3])}{', ..' if len(paths) > 3 else ''}")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weft", required=True, help="the binary")
    p.add_argument("--guests", required=True, help="the folder of the tests' components, which has mirror.wasm")
    p.add_argument("--files", required=True, help="the folder of suites, a folder each")
    p.add_argument("--only", help="files whose path has this text")
    p.add_argument("--json", help="where each file's verdict is written to, as JSON lines")
    a = p.parse_args()
    a.weft = os.path.abspath(a.weft)
    return a


def main():
    a = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is ended, and the folder removed
    version = subprocess.run([a.weft, "--version"], capture_output=True, text=True).stdout.strip()
    print(f"{version}; {time.strftime('%Y-%m-%d')}.\n")
    found, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weft-conformance-") as folder, Copier(a.weft, a.guests, folder) as copier, Readers(folder) as readers:
        checker = Checker(copier, readers, folder)
        for suite, inner, path, format in files_of(a.files):
            if a.only and a.only not in inner:
                continue
            verdict = checker.check(path, format)
            found.append((suite, inner, format, verdict))
            if verdict.verdict in ("differs", "crashed"):
                print(f"{inner}: {verdict.verdict}: {verdict.why[:300]}", file=sys.stderr, flush=True)
    report(found, time.monotonic() - began)
    if a.json:
        with open(a.json, "w") as out:
            for suite, inner, format, verdict in found:
                out.write(json.dumps({"suite": suite, "file": inner, "format": format, **dataclasses.asdict(verdict)}) + "\n")
    return 1 if any(RANK[verdict.verdict] >= RANK["differs"] for *_, verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
