"""Whether what Weft made is what there was, of two Arrow tables. bench/text_sameness.py does the same for text.

Types may become those that functions see (views and dictionaries their values, times microseconds, ...), values may not change: whatever
differs is told by the path of its column and its row, and what is not wrong but worth knowing is noted.
"""
import datetime, math, re
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute

NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DAY_NS = 86_400 * 10**9
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view, pa.types.is_large_list_view, pa.types.is_map)


class Differs(Exception):
    """Where, and how."""


def whole(column):
    """A column as one array."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    return column


def plain(array):
    """Its values, without what makes them smaller or names them."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = unviewed(array.dictionary).take(array.indices)
        elif pa.types.is_run_end_encoded(array.type):
            array = pa.compute.run_end_decode(array)
        else:
            return array


def unviewed(array):
    """The same without views, which pyarrow neither takes nor filters."""
    def other(t):
        if pa.types.is_string_view(t) or pa.types.is_binary_view(t):
            return pa.large_string() if pa.types.is_string_view(t) else pa.large_binary()
        if pa.types.is_struct(t):
            return pa.struct([t.field(i).with_type(other(t.field(i).type)) for i in range(t.num_fields)])
        if pa.types.is_list(t) or pa.types.is_large_list(t):
            return (pa.list_ if pa.types.is_list(t) else pa.large_list)(t.value_field.with_type(other(t.value_type)))
        if pa.types.is_fixed_size_list(t):
            return pa.list_(t.value_field.with_type(other(t.value_type)), t.list_size)
        return t
    wanted = other(array.type)
    return array if wanted == array.type else array.cast(wanted)


def is_list(type_):
    return any(is_one(type_) for is_one in LISTS)


def items(array):
    """How many items each list has, and all of them, those of null lists left out."""
    array = unviewed(array)
    type_ = array.type
    if pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_):
        array = pa.array(array.to_pylist(), pa.list_(type_.value_type))
    try:
        array = array.filter(array.is_valid())
    except pa.ArrowNotImplementedError:  # of views
        array = pa.array([item for item in array.to_pylist() if item is not None], array.type)
    if pa.types.is_fixed_size_list(type_):
        return [type_.list_size] * len(array), array.flatten()
    offsets = array.offsets.to_pylist()
    first, last = (offsets[0], offsets[-1]) if offsets else (0, 0)
    inner = pa.StructArray.from_arrays([array.keys, array.items], ["key", "value"]) if pa.types.is_map(type_) else array.values
    return [end - start for start, end in zip(offsets, offsets[1:])], inner.slice(first, last - first)


def number(value):
    """A float so that equal ones are the same: NaN is NaN, and zeros have a sign."""
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value == 0 and math.copysign(1, value) < 0:
            return "-0.0"
    return value


def leaves(array):
    """Kind and values of an array that is not nested. Times are nanoseconds."""
    t = array.type
    if pa.types.is_null(t):
        return "null", [None] * len(array)
    if pa.types.is_boolean(t):
        return "boolean", array.to_pylist()
    if pa.types.is_floating(t):
        return "number", [number(value) for value in array.to_pylist()]
    if pa.types.is_integer(t) or pa.types.is_decimal(t):
        return "number", array.to_pylist()
    if pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t):
        try:
            return "text", array.to_pylist()
        except UnicodeDecodeError:
            return "bytes", unviewed(array).cast(pa.large_binary()).to_pylist()
    if pa.types.is_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t) or pa.types.is_fixed_size_binary(t):
        return "bytes", array.to_pylist()
    if pa.types.is_date32(t):
        return "time", scaled(array.view(pa.int32()), DAY_NS)
    if pa.types.is_date64(t):
        return "time", scaled(array.view(pa.int64()), NS["ms"])
    if pa.types.is_timestamp(t):
        return "time", scaled(array.view(pa.int64()), NS[t.unit])
    if pa.types.is_time32(t):
        return "clock", scaled(array.view(pa.int32()), NS[t.unit])
    if pa.types.is_time64(t):
        return "clock", scaled(array.view(pa.int64()), NS[t.unit])
    if pa.types.is_duration(t):
        return "span", scaled(array.view(pa.int64()), NS[t.unit])
    return "other", [told(array, at) if valid else None for at, valid in enumerate(array.is_valid().to_pylist())]


def told(array, at):
    """A value for people; of some types Python has none."""
    try:
        return repr(array[at].as_py())
    except (KeyError, OverflowError, ValueError, pa.ArrowException):
        return repr(" ".join(array.slice(at, 1).to_string().split()).strip("[] "))


def scaled(array, unit):
    return [None if value is None else value * unit for value in array.to_pylist()]


# ---- times as text

TIME = re.compile(r"([+-]?\d{4,6})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,12}))?)? ?(Z|[A-Z]{3}|[+-]\d\d(?::?\d\d)?)?")
ZONES = {"UTC": "+00", "GMT": "+00", "EST": "-05", "EDT": "-04", "CST": "-06", "CDT": "-05", "MST": "-07", "MDT": "-06", "PST": "-08", "PDT": "-07"}


def days(year, month, day):
    """Since 1970, in the calendar as it would have been always. Errors: `ValueError`."""
    cycles = (year - 2000) // 400
    return datetime.date(year - 400 * cycles, month, day).toordinal() - 719_163 + cycles * 146_097


def time_ns(text):
    """Nanoseconds since 1970 of a date or time in ISO form; nothing where it is none."""
    try:
        if found := re.fullmatch(r"([+-]?\d{4,6})-(\d\d)-(\d\d)", text):
            return days(*map(int, found.groups())) * DAY_NS
        if not (found := TIME.fullmatch(text)):
            return None
        year, month, day, hour, minute, second, fraction, zone = found.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            return None
        fraction = (fraction or "").ljust(12, "0")
        offset = 0
        zone = ZONES.get(zone, zone)
        if zone and zone != "Z":
            if zone[0] not in "+-":
                return None
            digits = zone[1:].replace(":", "").ljust(4, "0")
            offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (-1 if zone[0] == "-" else 1)
        seconds = int(hour) * 3600 + int(minute) * 60 + int(second or 0) - offset
        ns = days(int(year), int(month), int(day)) * DAY_NS + seconds * 10**9 + int(fraction[:9])
        return ns if fraction[9:] == "000" else None
    except ValueError:
        return None


def clock_ns(text):
    ns = time_ns(f"1970-01-01T{text}")
    return ns


# ---- two tables

def check_tables(expected, found, notes):
    """Errors: `Differs`. What is worth knowing is added to `notes`."""
    if expected.num_rows != found.num_rows:
        raise Differs(f"{found.num_rows} rows instead of {expected.num_rows}")
    names = found.column_names
    for at, name in enumerate(expected.column_names):
        if expected.column_names.count(name) > 1:
            if expected.column_names != names:
                raise Differs(f"columns {names} instead of {expected.column_names}")
            other = found.column(at)
        elif name not in names:
            if is_nothing(expected.column(at).type):
                notes.add(f"a column of type {expected.column(at).type} is passed over")
                continue
            raise Differs(f"the column {name!r} is missing")
        else:
            other = found.column(names.index(name))
        check_arrays(name, whole(expected.column(at)), whole(other), notes)
    if extra := set(names) - set(expected.column_names):
        raise Differs(f"columns {sorted(extra)} from nowhere")


def is_nothing(type_):
    return pa.types.is_null(type_) or pa.types.is_struct(type_) and type_.num_fields == 0


def check_arrays(path, expected, found, notes):
    expected, found = plain(expected), plain(found)
    e, f = expected.type, found.type
    if pa.types.is_struct(e) and pa.types.is_struct(f) or is_list(e) and is_list(f):
        valid, found_valid = expected.is_valid().to_pylist(), found.is_valid().to_pylist()
        if valid != found_valid:
            at = first_difference(valid, found_valid)
            raise Differs(f"{path}, row {at}: {'null' if valid[at] else 'not null'}, and should be {told(expected, at)}"[:300])
    if pa.types.is_struct(e) and pa.types.is_struct(f):
        expected, found = (array.filter(array.is_valid()) for array in (unviewed(expected), unviewed(found)))
        mine, theirs = [e.field(i).name for i in range(e.num_fields)], [f.field(i).name for i in range(f.num_fields)]
        for name in theirs:
            if name not in mine:
                raise Differs(f"{path}.{name} comes from nowhere")
        for i, name in enumerate(mine):
            if mine == theirs:
                check_arrays(f"{path}.{name}", expected.field(i), found.field(i), notes)
            elif name in theirs:
                check_arrays(f"{path}.{name}", expected.field(i), found.field(theirs.index(name)), notes)
            elif is_nothing(e.field(i).type):
                notes.add(f"a member of type {e.field(i).type} is passed over")
            else:
                raise Differs(f"{path}.{name} is missing")
    elif is_list(e) and is_list(f):
        (lengths, inner), (found_lengths, found_inner) = items(expected), items(found)
        if lengths != found_lengths:
            at = first_difference(lengths, found_lengths)
            raise Differs(f"{path}, list {at}: {found_lengths[at]} items instead of {lengths[at]}")
        check_arrays(f"{path}[]", inner, found_inner, notes)
    elif pa.types.is_nested(e) or pa.types.is_nested(f):
        if not (e == f and expected.equals(found)) and (expected.null_count != len(expected) or found.null_count != len(found)):
            raise Differs(f"{path}: {e} became {f}")
    else:
        check_leaves(path, expected, found, notes)


def check_leaves(path, expected, found, notes):
    (kind, values), (found_kind, found_values) = leaves(expected), leaves(found)
    e, f = expected.type, found.type
    note_types(e, f, notes)
    if kind == found_kind:
        same = values
    elif found_kind == "number" and kind in ("clock", "span"):
        units = [unit for unit in NS.values() if [v and v // unit for v in values] == found_values and all(v is None or v % unit == 0 for v in values)]
        same = found_values if units else values
    elif found_kind == "text" and kind == "clock":
        found_values, same = [v if v is None else clock_ns(v) for v in found_values], values
    elif found_kind == "text" and kind == "number":
        found_values, same = [v if v is None else Decimal(v) for v in found_values], values
    elif {kind, found_kind} == {"text", "bytes"}:
        same, found_values = [[v.encode() if isinstance(v, str) else v for v in all_] for all_ in (values, found_values)]
    elif "null" in (kind, found_kind) or all(v is None for v in (*values, *found_values)):
        same = values  # nothing but null has any type
    else:
        raise Differs(f"{path}: {e} became {f}")
    if same != found_values:
        at = first_difference(same, found_values)
        raise Differs(f"{path}, row {at}: {told(found, at)} instead of {told(expected, at)}"[:400])


def first_difference(one, other):
    for at, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return at
    return min(len(one), len(other))


def note_types(e, f, notes):
    def seen(t):
        """The type that README promises functions for this one."""
        if pa.types.is_timestamp(t):
            return "timestamp" + (" with zone" if t.tz else "")
        if pa.types.is_large_string(t) or pa.types.is_string_view(t):
            return "string"
        if pa.types.is_fixed_size_binary(t) or pa.types.is_large_binary(t) or pa.types.is_binary_view(t):
            return "binary"
        return str(t)
    if seen(e) != seen(f):
        notes.add(f"{seen(e)} becomes {seen(f)}")
