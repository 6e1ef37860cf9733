"""Tables of random columns for bench/random_tables.py: the types that there are, and the values that are easily got wrong."""
import decimal, math, struct

import pyarrow as pa

ROWS = (0, 1, 2, 7, 40, 40, 300, 300, 2000)
TEXT_ROWS_MAX = 900  # columns are inferred from 1,000 records
INTEGERS = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
UNITS = ("s", "ms", "us", "ns")
# A table in five has a column of a type that functions do not have.
EXOTIC = 0.2

PIECES = ("", "a", "x y", " front", "back ", ",", ";", "\t", '"', '""', "'", "\\", "\n", "\r\n", "\r", "null", "NaN", "true", "007", "1e5", "-0", "+7", " 7",
          "2020-02-30", "2013-10-31 10:20:30", "20240105", "ß", "é", "e\u0301", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\U0001f600", "\U00020bb7",
          "\U0002f81a", "\U000e0001", "\U0010ffff", "\u0001", "\u007f", "</script>", "{}", "[1]", "#", "long " * 50)
FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 2**53 + 2.0, 1e22, 1e23, 0.1, 1 / 3, 1e-7, 123456789.125, -1.0)
# Among others the first second that four digits write, and the last one.
SECONDS = (0, -1, 86_400, -62_135_596_800, 253_402_300_799, -2_208_988_800, 4_102_444_800, 951_782_400)
NAMES = ("a b", "A", "ümlaut", "\U00020bb7", "x.y", "x`y", "'", "select", "Δ", "a,b", 'q"q', "-", "9", "list", "element", "key", "\u00a0")


def text(draw, control=True):
    if draw.random() < 0.5:
        return "".join(draw.choice("abcdefgh") for _ in range(draw.randrange(1, 9)))
    found = "".join(draw.choice(PIECES) for _ in range(draw.randrange(4)))
    return found if control else "".join(c for c in found if c >= " ")


def integer(draw, bits, is_signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    near = [low, low + 1, high, high - 1, 0, 1, -1, 7, 1 << 53, (1 << 53) + 1, 1 << 31, (1 << 63) - 1]
    value = draw.choice(near) if draw.random() < 0.3 else draw.randint(low, high) if draw.random() < 0.3 else draw.randrange(-100, 100)
    return value if low <= value <= high else 3


def floating(draw, type_):
    value = draw.choice(FLOATS) if draw.random() < 0.4 else draw.uniform(-1e6, 1e6) if draw.random() < 0.5 else float(draw.randrange(-1000, 1000))
    if type_ == pa.float64():
        return value
    try:
        return struct.unpack("f" if type_ == pa.float32() else "e", struct.pack("f" if type_ == pa.float32() else "e", value))[0]
    except OverflowError:
        return 1.5


def when(draw, unit_per_s, is_micro, far):
    """A time since 1970 in its unit. `far`: beyond the years that four digits write."""
    seconds = draw.choice(SECONDS) if draw.random() < 0.3 else draw.randrange(-10**9, 4 * 10**9)
    if far and draw.random() < 0.2:
        seconds = draw.choice([-200_000_000_000, 3_093_527_980_800])
    value = seconds * unit_per_s + draw.choice([0, 0, draw.randrange(unit_per_s)])
    if unit_per_s == 10**9:
        value = max(-2**63 + 1000, min(2**63 - 1, value))
        return value // 1000 * 1000 if is_micro else value
    return value


def values(draw, type_, n, nulls, text_format):
    """`n` of the type, as an array."""
    def none():
        return draw.random() < nulls
    if pa.types.is_dictionary(type_):
        return values(draw, type_.value_type, n, nulls, text_format).dictionary_encode()
    if pa.types.is_null(type_):
        return pa.nulls(n)
    if pa.types.is_map(type_):
        rows = [None if none() else draw.randrange(4) for _ in range(n)]
        total = sum(row or 0 for row in rows)
        keys = pa.array([f"k{at}" for at in range(total)], pa.string())
        return pa.MapArray.from_arrays(pa.array(offsets(rows), pa.int32()), keys, values(draw, type_.item_type, total, nulls, text_format), type_)
    if pa.types.is_fixed_size_list(type_):
        items = values(draw, type_.value_type, n * type_.list_size, nulls, text_format)
        return pa.FixedSizeListArray.from_arrays(items, type=type_, mask=pa.array([none() for _ in range(n)], pa.bool_()))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        rows = [None if none() else draw.choice([0, 1, 2, 5]) for _ in range(n)]
        items = values(draw, type_.value_type, sum(row or 0 for row in rows), nulls, text_format)
        kind = pa.ListArray if pa.types.is_list(type_) else pa.LargeListArray
        return kind.from_arrays(pa.array(offsets(rows), pa.int32() if kind is pa.ListArray else pa.int64()), items, type=type_)
    if pa.types.is_struct(type_):
        fields = [type_.field(i) for i in range(type_.num_fields)]
        return pa.StructArray.from_arrays([values(draw, field.type, n, nulls, text_format) for field in fields], fields=fields,
                                          mask=pa.array([none() for _ in range(n)], pa.bool_()))
    return scalars(draw, type_, n, none, text_format)


def offsets(rows):
    """Where the lists of these lengths begin, and the last one ends. A list that is null begins nowhere."""
    found, at = [], 0
    for row in rows:
        found.append(None if row is None else at)
        at += row or 0
    return [*found, at]


def scalars(draw, type_, n, none, text_format):
    def array(one, physical=type_):
        found = pa.array([None if none() else one() for _ in range(n)], physical)
        return found if physical == type_ else found.cast(pa.int64()).cast(type_) if pa.types.is_timestamp(type_) else found.cast(type_)
    if pa.types.is_boolean(type_):
        return array(lambda: draw.random() < 0.5)
    if pa.types.is_integer(type_):
        return array(lambda: integer(draw, type_.bit_width, pa.types.is_signed_integer(type_)))
    if pa.types.is_floating(type_):
        return array(lambda: floating(draw, type_))
    if pa.types.is_decimal(type_):
        end = 10**type_.precision
        with decimal.localcontext(prec=100):
            return array(lambda: decimal.Decimal(draw.choice([0, 1, -1, end - 1, 1 - end, draw.randrange(end)])).scaleb(-type_.scale))
    if pa.types.is_date32(type_):
        return array(lambda: when(draw, 1, True, not text_format) // 86_400, pa.int32())
    if pa.types.is_timestamp(type_):
        is_micro, per_s = draw.random() < 0.8, {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type_.unit]
        return array(lambda: when(draw, per_s, is_micro, not text_format), pa.int64())
    if pa.types.is_time(type_):
        per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type_.unit]
        per_us = max(1, per_s // 10**6)
        return array(lambda: draw.randrange(86_400 * per_s) // per_us * per_us, pa.int32() if pa.types.is_time32(type_) else pa.int64())
    if pa.types.is_date64(type_):
        return array(lambda: draw.randrange(-1000, 30_000) * 86_400_000, pa.int64())
    if pa.types.is_duration(type_):
        return array(lambda: draw.randrange(-10**12, 10**12), pa.int64())
    if pa.types.is_fixed_size_binary(type_):
        return array(lambda: draw.randbytes(type_.byte_width))
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_):
        return array(lambda: draw.randbytes(draw.choice([0, 1, 5, 13, 40])))
    return array(lambda: text(draw))


def flat(draw, text_format):
    timestamp = pa.timestamp(draw.choice(UNITS) if not text_format else "us", None if text_format else draw.choice([None, None, "UTC", "Europe/Berlin"]))
    precision = draw.randrange(1, 39)
    kinds = [pa.bool_(), draw.choice(INTEGERS), pa.int64(), pa.float32(), pa.float64(), pa.float64(), pa.string(), pa.string(), pa.date32(), timestamp,
             pa.decimal128(precision, draw.randrange(precision + 1))]
    if not text_format:
        kinds += [pa.binary(), pa.large_string(), pa.large_binary(), pa.binary(5), pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.int64())]
    return draw.choice(kinds)


def exotic(draw):
    return draw.choice([pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.float16(), pa.null(), pa.date64(), pa.duration("us"), pa.list_(pa.float32(), 3),
                        pa.list_(pa.int16(), 2), pa.decimal256(50, 5), pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.list_(pa.string()))])


def nested(draw, text_format, depth=0):
    if depth == 2 or draw.random() < 0.4:
        return flat(draw, text_format)
    if draw.random() < 0.5:
        item = nested(draw, text_format, depth + 1)
        # A list of lists of dictionaries is more than most writers take.
        item = item.value_type if pa.types.is_dictionary(item) else item
        name = draw.choice(["item", "element", "array", "x"]) if not text_format else "item"
        field = pa.field(name, item, nullable=True)
        return pa.large_list(field) if draw.random() < 0.2 and not text_format else pa.list_(field)
    members = [nested(draw, text_format, depth + 1) for _ in range(draw.randrange(1, 4))]
    return pa.struct([pa.field(f"m{at}", member.value_type if pa.types.is_dictionary(member) else member) for at, member in enumerate(members)])


def table(draw, format):
    """A table that this format can hold, more or less."""
    text_format = format in ("csv", "json")
    n = draw.choice(ROWS)
    n = min(max(n, 1), TEXT_ROWS_MAX) if text_format else n
    columns, names = [], []
    for at in range(draw.randrange(1, 7)):
        type_ = flat(draw, text_format) if format == "csv" or draw.random() < 0.6 else nested(draw, text_format)
        name = draw.choice(NAMES) if draw.random() < 0.15 else f"c{at}"
        # DuckDB does not tell `a` from `A`.
        if name.lower() in [other.lower() for other in names]:
            name = f"c{at}"
        names.append(name)
        columns.append(values(draw, type_, n, draw.choice([0, 0, 0.1, 0.5, 1]), text_format))
    if not text_format and draw.random() < EXOTIC:
        names.append("exotic")
        columns.append(values(draw, exotic(draw), n, draw.choice([0, 0.2]), False))
    return pa.table(columns, names)
