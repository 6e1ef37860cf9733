"""Records of sqllogictest files: what they hold, and whether rows are those that a record expects."""
import dataclasses, glob, hashlib, os, re

CONDITION = re.compile(r"(skipif|onlyif)\s+(\S+)")
ENGINE = "datafusion"
IGNORED = "<slt:ignore>"
SORTS = ("nosort", "rowsort", "valuesort")
# A line that opens another record, or says something of those that follow.
OPENING = re.compile(r"(statement|query|include|halt|control|hash-threshold|skipif|onlyif|subtest|sleep|connection)\b")
# Kinds of errors, which each system words in its own way.
KINDS = re.compile(r"^(\^|\(\?s\)|DataFusion error: |External error: |Optimizer rule '\S+' failed\S*|Error during planning: |SQL error: "
                   r"|Execution error: |Schema error: |Arrow error: |This feature is not implemented: )+")
LOCATION = re.compile(r" at Line: \d+, Column: \d+")


@dataclasses.dataclass
class Record:
    """A statement, and what is expected of it."""
    file: str
    line: int
    sql: str
    # `rows`, `ok`, `count` or `error`.
    expects: str
    types: str = ""
    sort: str = "nosort"
    lines: tuple = ()
    count: int = 0
    # A regular expression of the error, or its text.
    error: str = ""
    hash_threshold: int = 0

    @property
    def place(self):
        return f"{self.file}:{self.line}"


def read(path, root):
    """Records of a file and of those that it includes, in order."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    at, skipped, threshold, name = 0, False, 0, os.path.relpath(path, root)
    while at < len(lines):
        line = lines[at].rstrip()
        words = line.split()
        if not words or line.startswith("#"):
            at += 1
        elif condition := CONDITION.match(line):
            skipped |= (condition[1] == "skipif") == (condition[2].lower() == ENGINE)
            at += 1
        elif words[0] == "halt":
            return
        elif words[0] == "include":
            for included in sorted(glob.glob(os.path.join(os.path.dirname(path), words[1]))):
                yield from read(included, root)
            at += 1
        elif words[0] == "hash-threshold":
            threshold, at = int(words[1]), at + 1
        elif words[0] in ("statement", "query"):
            record, at = record_at(lines, at, name)
            record.hash_threshold = threshold
            if not skipped:
                yield record
            skipped = False
        elif words[0] in ("control", "subtest", "sleep", "connection"):
            at += 1
        else:
            raise ValueError(f"{name}:{at + 1}: `{line[:80]}` is no record")


def record_at(lines, at, name):
    """The record that begins at a line, and where it ends."""
    begin, words = at, lines[at].split()
    while at + 1 < len(lines) and not lines[at + 1].strip():
        at += 1
    sql, at = until(lines, at + 1, lambda line: line == "" or line.strip() == "----")
    record = Record(name, begin + 1, "\n".join(sql), "ok")
    has_answer = at < len(lines) and lines[at].strip() == "----"
    if words[1] == "error":
        record.expects, record.error = "error", " ".join(lines[begin].split(" ", 2)[2:])
        if has_answer:
            text, at = until_two_blanks(lines, at + 1)
            record.error = re.escape("\n".join(text).strip())
    elif words[0] == "statement":
        record.expects = words[1]
        record.count = int(words[2]) if words[1] == "count" else 0
    else:
        record.expects, record.types = "rows", words[1]
        record.sort = next((word for word in words[2:3] if word in SORTS), "nosort")
        if has_answer:
            answer, at = until(lines, at + 1, lambda line: line == "")
            record.lines = tuple(line.rstrip() for line in answer)
    return record, at


def until(lines, at, is_end):
    found = []
    while at < len(lines) and not is_end(lines[at].rstrip("\r")):
        found.append(lines[at])
        at += 1
    return found, at


def until_two_blanks(lines, at):
    found = []
    while at < len(lines) and not (lines[at].strip() == "" and (at + 1 == len(lines) or lines[at + 1].strip() == "")):
        found.append(lines[at])
        at += 1
    return found, at


# ---- is it what is expected?

def difference(record, types, rows, has_order):
    """How the answer of a query differs from the record; nothing where it does not. Rows that a query does not order are a multiset."""
    if not same_types(record.types, types, rows):
        return f"types {types} instead of {record.types}"
    found = [" ".join(row).rstrip() for row in rows]
    if record.sort == "valuesort":
        found = sorted(cell.rstrip() for row in rows for cell in row)
    elif record.sort == "rowsort":
        found = [" ".join(row).rstrip() for row in sorted(rows)]
    expected = list(record.lines)
    if record.hash_threshold and sum(map(len, rows)) > record.hash_threshold:
        cells = found if record.sort == "valuesort" else [cell for row in (sorted(rows) if record.sort == "rowsort" else rows) for cell in row]
        digest = hashlib.md5("".join(cell + "\n" for cell in cells).encode()).hexdigest()
        found = [f"{len(cells)} values hashing to {digest}"]
    if any(IGNORED in line for line in expected):
        return None if fits("\n".join(found), "\n".join(expected)) else "rows differ"
    if found == expected:
        return None
    if sorted(found) == sorted(expected):
        return None if record.sort != "nosort" or not has_order else "order of rows differs"
    return "rows differ" if len(found) == len(expected) else f"{len(found)} rows instead of {len(expected)}"


def same_types(expected, found, rows):
    """A column of nulls has no type of its own."""
    if len(expected) != len(found):
        # sqllogictest tells no rows from no columns.
        return not rows and not found
    nulls = lambda at: all(len(row) <= at or row[at] == "NULL" for row in rows)
    return all(a == b or a == "?" and b == "T" and nulls(at) for at, (a, b) in enumerate(zip(expected, found)))


def fits(text, expected):
    at = 0
    for number, part in enumerate(expected.split(IGNORED)):
        found = text.find(part, at)
        if found < 0 or number == 0 and found != 0:
            return False
        at = found + len(part)
    return True


def same_words(record, detail):
    """Whether an error has the words that a record expects, after those that name its kind."""
    wanted = LOCATION.sub("", KINDS.sub("", record.error))
    wanted = re.sub(r'^ParserError\\?\("(.*)"\\?\)$', r"\1", wanted)
    try:
        return re.search(wanted, detail) is not None
    except re.error:
        return wanted in detail
