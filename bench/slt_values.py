"""Values of Arrow columns as the sqllogictest runner of DataFusion writes them, and columns as it names their types."""
import datetime, struct, zoneinfo
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pyarrow as pa

from sameness import LISTS, items, plain, whole

NULL = "NULL"
# Digits behind the point that a number keeps.
DIGITS = 12
WIDE = Context(prec=400)
DAY_S = 86_400
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


# ---- types

def letter(type_):
    """The letter of a column, as `query` lines have it."""
    t = pa.types
    if t.is_dictionary(type_):
        return "T" if letter(type_.value_type) == "T" else "?"
    if t.is_boolean(type_):
        return "B"
    if t.is_integer(type_):
        return "I"
    if t.is_floating(type_) or t.is_decimal128(type_) or t.is_decimal256(type_):
        return "R"
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_):
        return "T"
    if t.is_date(type_) or t.is_time(type_):
        return "D"
    return "P" if t.is_timestamp(type_) else "?"


# ---- cells

def rows(columns):
    """Rows of texts. One whose last cell has several lines is one row and another for each line."""
    cells = [column_cells(column) for column in columns]
    found = []
    for row in zip(*cells):
        *first, last = row
        lines = last.split("\n")
        if len(lines) < 2:
            found.append(list(row))
            continue
        found.append(first)
        for number, line in enumerate(lines, 1):
            content = line.lstrip()
            found.append([f"{number:02})" + "-" * (len(line) - len(content)) + content])
    return found


def column_cells(column):
    array = plain(whole(column))
    t, type_ = pa.types, array.type
    if t.is_floating(type_):
        return each(narrow(array), rounded_float)
    if t.is_decimal(type_):
        return each(array, rounded)
    if letter(type_) == "T":
        return each(array, lambda text: text.rstrip("\n").replace("\0", "\\0") if text else "(empty)")
    return shown(array)


def each(array, text):
    return [NULL if value is None else text(value) for value in array.to_pylist()]


def rounded(value):
    """A decimal without trailing zeros and exponent, rounded to DIGITS."""
    value = value.quantize(Decimal(1).scaleb(-DIGITS), ROUND_HALF_EVEN, WIDE) if value.as_tuple().exponent < -DIGITS else value
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def rounded_float(value):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return rounded(Decimal(repr(value)))


def narrow(array):
    """Floats of 32 and 16 bits as those of 64 with the shortest digits that are the same number."""
    code = {"float": "f", "halffloat": "e"}.get(str(array.type))
    if code is None:
        return array
    def shortest(value):
        if value is None or value != value or value in (float("inf"), float("-inf")):
            return value
        packed = struct.pack(code, value)
        return next(found for digits in range(1, 18) if struct.pack(code, found := float(f"{value:.{digits}g}")) == packed)
    return pa.array([shortest(value) for value in array.cast(pa.float64()).to_pylist()], pa.float64())


# ---- values as Arrow displays them

def shown(array):
    """Texts of an array's values. Nulls are NULL, also within lists and structs."""
    array = plain(array)
    t, type_ = pa.types, array.type
    if t.is_null(type_):
        return [NULL] * len(array)
    if t.is_boolean(type_):
        return each(array, lambda value: str(value).lower())
    if t.is_floating(type_):
        return each(narrow(array), shortest_float)
    if t.is_decimal(type_):
        return each(array, lambda value: f"{value:f}")
    if t.is_date(type_) or t.is_time(type_) or t.is_timestamp(type_) or t.is_duration(type_):
        return times(array)
    if str(type_) == "month_day_nano_interval":
        return each(array, interval)
    if t.is_struct(type_):
        names = [type_.field(at).name for at in range(type_.num_fields)]
        members = [shown(array.field(at)) for at in range(type_.num_fields)]
        joined = ["{" + ", ".join(f"{name}: {text}" for name, text in zip(names, row)) + "}" for row in zip(*members)]
        return masked(array, joined or ["{}"] * len(array))
    if any(is_one(type_) for is_one in LISTS):
        return listed(array, "{}" if t.is_map(type_) else "[]")
    if t.is_binary(type_) or t.is_large_binary(type_) or t.is_binary_view(type_) or t.is_fixed_size_binary(type_):
        return each(array, lambda value: value.hex())
    return each(array, str)


def masked(array, texts):
    return [text if valid else NULL for text, valid in zip(texts, array.is_valid().to_pylist())]


def listed(array, brackets):
    """Texts of lists and maps."""
    lengths, values = items(array)
    if pa.types.is_map(array.type):
        texts = [f"{key}: {value}" for key, value in zip(shown(values.field(0)), shown(values.field(1)))]
    else:
        texts = shown(values)
    found, at = [], 0
    lengths = iter(lengths)
    for is_valid in array.is_valid().to_pylist():
        length = next(lengths) if is_valid else 0
        found.append(brackets[0] + ", ".join(texts[at:at + length]) + brackets[1] if is_valid else NULL)
        at += length
    return found


def shortest_float(value):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    if not digits:
        return "-0.0" if sign else "0.0"
    stripped = digits.rstrip("0")
    exponent += len(digits) - len(stripped)
    point = len(stripped) + exponent
    if exponent >= 0 and point <= 16:
        text = stripped + "0" * exponent + ".0"
    elif 0 < point <= 16:
        text = stripped[:point] + "." + stripped[point:]
    elif -5 < point <= 0:
        text = "0." + "0" * -point + stripped
    else:
        text = stripped[0] + ("." + stripped[1:] if len(stripped) > 1 else "") + f"e{point - 1}"
    return "-" * sign + text


def times(array):
    t, type_ = pa.types, array.type
    unit = type_.unit if hasattr(type_, "unit") else None
    numbers = array.view(pa.int32() if type_.bit_width == 32 else pa.int64()).to_pylist()
    if t.is_date32(type_):
        text = date
    elif t.is_date64(type_):
        text = lambda value: moment(value, 1000)
    elif t.is_time(type_):
        text = lambda value: clock(value // PER_SECOND[unit], value % PER_SECOND[unit], PER_SECOND[unit])
    elif t.is_duration(type_):
        text = lambda value: duration(value, unit)
    else:
        text = lambda value: moment(value, PER_SECOND[unit], type_.tz)
    return [NULL if value is None else text(value) for value in numbers]


def date(days):
    """A day since 1970, also outside of Python's calendar."""
    cycles, rest = divmod(days + 719_468, 146_097)
    day_of_cycle = rest
    year = (day_of_cycle - day_of_cycle // 1460 + day_of_cycle // 36_524 - day_of_cycle // 146_096) // 365
    day_of_year = day_of_cycle - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month, year = (month + 3, year) if month < 10 else (month - 9, year + 1)
    year += 400 * cycles
    return (f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}") + f"-{month:02}-{day:02}"


def clock(seconds, fraction, per_second):
    nanoseconds = fraction * (10**9 // per_second)
    digits = next(digits for digits in (0, 3, 6, 9) if nanoseconds % 10**(9 - digits) == 0)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{nanoseconds:09}"[:digits + 1] if digits else "")


def moment(value, per_second, zone=None):
    seconds, fraction = divmod(value, per_second)
    offset, suffix = zone_offset(zone, seconds) if zone else (0, "")
    days, of_day = divmod(seconds + offset, DAY_S)
    return f"{date(days)}T{clock(of_day, fraction, per_second)}{suffix}"


def zone_offset(zone, seconds):
    if zone in ("UTC", "Z", "+00:00", "+00"):
        return 0, "Z"
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * (-60 if zone[0] == "-" else 60)
    else:
        at = datetime.datetime.fromtimestamp(seconds, zoneinfo.ZoneInfo(zone))
        offset = int(at.utcoffset().total_seconds())
    minutes = abs(offset) // 60
    return offset, "Z" if offset == 0 else f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"


def parted(value, per_second):
    """Hours, minutes, seconds and what is left; all have the sign of the value."""
    sign, value = (-1, -value) if value < 0 else (1, value)
    seconds, fraction = divmod(value, per_second)
    return sign, seconds // 3600, seconds // 60 % 60, seconds % 60, fraction


def duration(value, unit):
    sign, hours, minutes, seconds, fraction = parted(value, PER_SECOND[unit])
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    last = f"{seconds}.{fraction:0{digits}}" if digits else str(seconds)
    minus = lambda text, value: f"-{text}" if sign < 0 and value else text
    return (f"{minus(hours // 24, hours // 24)} days {minus(hours % 24, hours % 24)} hours {minus(minutes, minutes)} mins "
            f"{minus(last, seconds or fraction)} secs")


def interval(value):
    months, days, nanoseconds = value.months, value.days, value.nanoseconds
    sign, hours, minutes, seconds, fraction = parted(nanoseconds, 10**9)
    parts = [f"{months} mons"] * (months != 0) + [f"{days} days"] * (days != 0)
    parts += [f"{sign * hours} hours"] * (hours != 0) + [f"{sign * minutes} mins"] * (minutes != 0)
    if seconds or fraction:
        parts.append(f"{'-' if sign < 0 else ''}{seconds}.{fraction:09} secs")
    return " ".join(parts) or "0 secs"
