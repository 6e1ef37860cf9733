"""Whether an Arrow table holds what a text says, JSON lines or CSV, and whether a text says what a table holds. Errors are `Differs`."""
import csv, io, json, math, re, struct
from decimal import Decimal, InvalidOperation

import pyarrow as pa

from sameness import Differs, clock_ns, is_list, items, leaves, plain, time_ns, whole

# Columns that come later are passed over.
INFERRED_RECORDS = 1000
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.A)


# ---- JSON

class Number(str):
    """A number of a JSON text, as it stands there."""


class Doubled(dict):
    """An object with a name that is there twice: the last one counts, `first` has the first."""


def parse_json(text):
    """A JSON text, strictly. Errors: `ValueError`."""
    def none(name):
        raise ValueError(f"{name} is no JSON")

    def members(pairs):
        if len(dict(pairs)) == len(pairs):
            return dict(pairs)
        doubled = Doubled(pairs)
        doubled.first = dict(reversed(pairs))
        return doubled
    try:
        return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=none, object_pairs_hook=members)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def values(array):
    """Python's values of an array. Times are `Ns`."""
    array = plain(array)
    if is_list(array.type):
        lengths, inner = items(array)
        inner, at, found, lengths = values(inner), 0, [], iter(lengths)
        for valid in array.is_valid().to_pylist():
            n = next(lengths) if valid else 0
            found.append(inner[at:at + n] if valid else None)
            at += n
        return found
    if pa.types.is_struct(array.type):
        names = [array.type.field(i).name for i in range(array.type.num_fields)]
        columns = [values(array.field(i)) for i in range(len(names))]
        return [{name: column[row] for name, column in zip(names, columns)} if valid else None for row, valid in enumerate(array.is_valid().to_pylist())]
    kind, found = leaves(array)
    if pa.types.is_float32(array.type):
        return [Single(value) if isinstance(value, float) else value for value in found]
    return [value if value is None else Ns(value) for value in found] if kind in ("time", "clock") else found


class Ns(int):
    """A time."""


class Single(float):
    """A number of 32 bits, or fewer."""

    def is_nearest(self, value):
        """Whether no other one is nearer to a number of 64 bits."""
        try:
            return struct.unpack("f", struct.pack("f", value))[0] == self
        except OverflowError:
            return False


def check_json(records, table, notes):
    """Whether a table holds the records of a text. Numbers may be quoted where a column was declared as such. Errors: `Differs`."""
    if len(records) != table.num_rows:
        raise Differs(f"{table.num_rows} rows instead of {len(records)}")
    columns = {name: values(whole(table.column(at))) for at, name in enumerate(table.column_names)}
    for row, record in enumerate(records):
        found = {name: column[row] for name, column in columns.items()}
        match_json(f"row {row}", record, found, notes, row >= INFERRED_RECORDS)


def match_json(path, text, found, notes, may_lack=False):
    if isinstance(text, Doubled):
        try:
            return match_json(path, dict(text), found, notes, may_lack)
        except Differs:
            match_json(path, text.first, found, notes, may_lack)
            notes.add("the first of two members of one name counts")
            return
    if found is None and (text is None or text == {}):
        return
    if isinstance(found, dict) and isinstance(text, dict):
        for name, value in found.items():
            match_json(f"{path}.{name}", text.get(name), value, notes, may_lack)
        for name in text.keys() - found.keys():
            if not (may_lack or holds_nothing(text[name])):
                raise Differs(f"{path}.{name} is missing, and should be {text[name]!r}"[:300])
            if text[name] is not None:
                notes.add("a member is passed over")
    elif isinstance(found, list) and isinstance(text, list) and len(found) == len(text):
        for at, (one, other) in enumerate(zip(text, found)):
            match_json(f"{path}[{at}]", one, other, notes, may_lack)
    elif not leaf_matches(text, found, notes):
        raise Differs(f"{path}: {found!r} instead of {text!r}"[:400])


def holds_nothing(value):
    if isinstance(value, dict):
        return all(holds_nothing(inner) for inner in value.values())
    return value is None or isinstance(value, list) and all(holds_nothing(inner) for inner in value)


def leaf_matches(text, found, notes):
    if isinstance(text, bool) or isinstance(found, bool):
        return text is found or isinstance(found, str) and found == json.dumps(text)
    if isinstance(text, Number):
        return number_matches(text, found, notes)
    if isinstance(found, str) and isinstance(text, (list, dict)):
        notes.add("a list or object as text")
        return parse_json(found) == text
    if isinstance(found, Ns):
        return isinstance(text, str) and time_ns(text) == found
    if isinstance(found, Decimal) and isinstance(text, str):
        # Nothing but what a job declares is a decimal, and a whole number among those may be too large for a float.
        return bool(re.fullmatch(NUMBER, text)) and Decimal(text) == found
    return isinstance(found, str) and isinstance(text, str) and text == found


def number_matches(text, found, notes):
    if isinstance(found, Ns):
        return False
    if isinstance(found, str) and found not in ("NaN", "-0.0"):
        notes.add("a number as text")
        return found == str(text)
    if found in ("NaN", None):
        return False
    if found == "-0.0":
        return text.startswith("-") and Decimal(text) == 0
    exact = Decimal(text)
    if isinstance(found, float):
        return float_matches(text, exact, found)
    return exact == found


# ---- CSV

def parse_csv(text, delimiter):
    """The rows of a CSV text, strictly, without blank ones. Errors: `ValueError`."""
    csv.field_size_limit(1 << 30)
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def check_csv(rows, table, notes):
    """Whether a table holds the rows of a text. Errors: `Differs`."""
    if len(rows) != table.num_rows:
        raise Differs(f"{table.num_rows} rows instead of {len(rows)}")
    for at, name in enumerate(table.column_names):
        for row, found in enumerate(values(whole(table.column(at)))):
            text = rows[row][at] if at < len(rows[row]) else ""
            if not cell_matches(text, found, notes):
                raise Differs(f"{name}, row {row}: {found!r} instead of {text!r}"[:400])


def cell_matches(text, found, notes):
    if found is None:
        return text == ""
    if isinstance(found, Ns):
        return time_ns(text) == found
    if isinstance(found, bool):
        return text.lower() == json.dumps(found)
    if isinstance(found, str):
        if found in ("NaN", "-0.0") and text != found:
            return text.lower() in ("nan", "-nan", "+nan") if found == "NaN" else is_minus_zero(text)
        return text == found
    if text.strip("+-").lower() in ("inf", "infinity"):
        return isinstance(found, float) and found == float(text)
    if not re.fullmatch(NUMBER, text):
        return False
    exact = Decimal(text)
    if re.match(r"[+-]?0\d", text):
        notes.add("zeros in front of a number are dropped")
    if isinstance(found, float):
        return float_matches(text, exact, found)
    return exact == found


def float_matches(text, exact, found):
    """Whole numbers must be exact, others the nearest that there is."""
    if not math.isfinite(found):
        return False
    if isinstance(found, Single):
        return found.is_nearest(float(text))
    return exact == Decimal(found) if re.fullmatch(r"[+-]?\d+", text) else float(text) == found


def is_minus_zero(text):
    try:
        return text.strip().startswith("-") and Decimal(text) == 0
    except InvalidOperation:
        return False


# ---- what was written as text

def expected_text(array):
    """The values of a column as `match_written` takes them: kind and value each."""
    array = plain(array)
    if is_list(array.type):
        lengths, inner = items(array)
        inner, at, found, lengths = expected_text(inner), 0, [], iter(lengths)
        for valid in array.is_valid().to_pylist():
            n = next(lengths) if valid else 0
            found.append(("list", inner[at:at + n]) if valid else None)
            at += n
        return found
    if pa.types.is_struct(array.type):
        names = [array.type.field(i).name for i in range(array.type.num_fields)]
        columns = [expected_text(array.field(i)) for i in range(len(names))]
        return [("struct", {name: column[row] for name, column in zip(names, columns)}) if valid else None
                for row, valid in enumerate(array.is_valid().to_pylist())]
    kind, found = leaves(array)
    kind = {"float": "float32", "double": "float", "halffloat": "float32"}.get(str(array.type), kind)
    return [None if value is None else (kind, value) for value in found]


def check_written_json(expected, records):
    """Whether lines of JSON say what a table holds. Errors: `Differs`."""
    if expected.num_rows != len(records):
        raise Differs(f"{len(records)} records instead of {expected.num_rows}")
    for at, name in enumerate(expected.column_names):
        for row, value in enumerate(expected_text(whole(expected.column(at)))):
            match_written(f"{name}, row {row}", value, records[row].get(name))
    for row, record in enumerate(records):
        if extra := record.keys() - set(expected.column_names):
            raise Differs(f"row {row}: members {sorted(extra)} from nowhere")


def match_written(path, expected, text):
    if not is_written(path, expected, text):
        raise Differs(f"{path}: {text!r} for {expected!r}"[:400])


def is_written(path, expected, text):
    if text is None:
        # JSON has no such numbers.
        return expected is None or expected[0].startswith("float") and not math.isfinite(float(expected[1]))
    if expected is None:
        return False
    kind, value = expected
    if kind == "list":
        if not isinstance(text, list) or len(text) != len(value):
            return False
        for at, (one, other) in enumerate(zip(value, text)):
            match_written(f"{path}[{at}]", one, other)
        return True
    if kind == "struct":
        if not isinstance(text, dict) or text.keys() - value.keys():
            return False
        for name, member in value.items():
            match_written(f"{path}.{name}", member, text.get(name))
        return True
    if kind == "boolean":
        return text is value
    if isinstance(text, (bool, list, dict)):
        return False
    if kind in ("number", "float", "float32", "float16"):
        return number_is_written(kind, value, str(text))
    if isinstance(text, Number):
        return kind in ("clock", "span") and int(text) in (value, value // 1000)
    return text_is_written(kind, value, text)


def number_is_written(kind, value, text):
    if value in ("NaN", "-0.0"):
        return text.lower() == "nan" if value == "NaN" else is_minus_zero(text)
    try:
        if kind == "number":
            return Decimal(text) == value
        read = float(text)
        if kind == "float32":
            try:
                read = struct.unpack("f", struct.pack("f", read))[0]
            except OverflowError:
                return False
        return read == value
    except (InvalidOperation, ValueError):
        return False


def span_ns(text):
    """A duration as ISO 8601 writes it in seconds, such as `PT1.5S`."""
    found = re.fullmatch(r"(-?)P(?:(\d+)D)?(?:T(\d+)(?:\.(\d{1,9}))?S)?", text)
    if not found:
        return None
    sign, days, seconds, fraction = found.groups()
    ns = (int(days or 0) * 86400 + int(seconds or 0)) * 10**9 + int((fraction or "").ljust(9, "0"))
    return -ns if sign else ns


def text_is_written(kind, value, text):
    if kind == "text":
        return text == value
    if kind == "bytes":
        return text.lower() == value.hex()
    if kind == "time":
        return time_ns(text) == value
    if kind == "clock":
        return clock_ns(text) == value
    if kind == "span":
        return span_ns(text) == value
    return kind == "null" and text == ""


def check_written_csv(expected, rows):
    """Whether CSV, its header first, says what a table holds. An empty text and null are written alike. Errors: `Differs`."""
    header, rows = rows[0], rows[1:]
    if sorted(header) != sorted(expected.column_names):
        raise Differs(f"the header {header} instead of {expected.column_names}")
    if expected.num_rows != len(rows):
        raise Differs(f"{len(rows)} rows instead of {expected.num_rows}")
    for at, name in enumerate(header):
        # Files of one input may have their columns in another order.
        column = expected.column(name if header.count(name) == 1 else at)
        for row, value in enumerate(expected_text(whole(column))):
            text = rows[row][at]
            if value in (None, ("text", ""), ("bytes", b"")):
                good = text == ""
            elif value[0] == "boolean":
                good = text == json.dumps(value[1])
            else:
                good = is_written(name, value, text)
            if not good:
                raise Differs(f"{name}, row {row}: {text!r} for {value!r}"[:400])
