"""Columns as Python's values, and back. Whole columns are converted by few calls, because that is what makes Python fast.

    numbers           memoryview of int or float; a list, with `None`, where something is null
    date32            as numbers: days since 1970-01-01; timestamp-us: microseconds since then
    boolean           list of bool        utf8: list of str        binary: list of bytes
    decimal128        list of Decimal     array-of: list of lists  struct-of: list of dicts

All but memoryviews hold `None` for nulls. What comes back may be any iterable of these; arrays and memoryviews of the
column's own type are copied as they are, and text may be `bytes` in UTF-8.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal
from itertools import accumulate, pairwise

from weft import host
from weft.error import Error
from weft.schema import DECIMAL, Field, kind

CODES = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "date32": "i",
    "timestamp-us": "q",
}

EXACT = Context(prec=80)
DECIMAL_BYTES = 16


def decode(field: Field, column: host.Column) -> Sequence:
    return decode_next(field, iter(column.nodes), iter(column.buffers))


def decode_next(field: Field, nodes: Iterator[host.Node], buffers: Iterator[bytes]) -> Sequence:
    node, valid = next(nodes), next(buffers)
    values = decode_valid(field, node.rows, nodes, buffers)
    if node.nulls == 0:
        return values
    return [value if is_valid else None for value, is_valid in zip(values, flags(valid, node.rows))]


def decode_valid(field: Field, rows: int, nodes: Iterator[host.Node], buffers: Iterator[bytes]) -> Sequence:
    """The values, with anything where they are null."""
    type = kind(field.type)
    if type in CODES:
        return memoryview(next(buffers)).cast(CODES[type])
    if type == "boolean":
        return list(flags(next(buffers), rows))
    if type == "utf8":
        return texts(offsets(next(buffers)), next(buffers))
    if type == "binary":
        ends, data = offsets(next(buffers)), next(buffers)
        return [data[start:end] for start, end in pairwise(ends)]
    if type == "decimal128":
        return decimals(field, next(buffers))
    if type == "array-of":
        ends = offsets(next(buffers))
        items = decode_next(field.children[0], nodes, buffers)
        items = items if isinstance(items, list) else items.tolist()
        return [items[start:end] for start, end in pairwise(ends)]
    names = [child.name for child in field.children]
    members = [decode_next(child, nodes, buffers) for child in field.children]
    return [dict(zip(names, row)) for row in zip(*members)] if members else [{} for _ in range(rows)]


def offsets(buffer: bytes) -> memoryview:
    # Without rows the offsets may be left out.
    return memoryview(buffer or bytes(4)).cast("i")


def texts(ends: memoryview, data: bytes) -> list[str]:
    if data.isascii():
        text = data.decode("ascii")
        return [text[start:end] for start, end in pairwise(ends)]
    # Below nulls anything may lie.
    return [data[start:end].decode(errors="replace") for start, end in pairwise(ends)]


def decimals(field: Field, data: bytes) -> list[Decimal]:
    _, scale = of_decimal(field)
    starts = range(0, len(data), DECIMAL_BYTES)
    numbers = (int.from_bytes(data[start : start + DECIMAL_BYTES], "little", signed=True) for start in starts)
    return [EXACT.scaleb(number, -scale) for number in numbers]


def of_decimal(field: Field) -> tuple[int, int]:
    """Precision and scale."""
    precision, scale = DECIMAL.fullmatch(field.type).groups()
    return int(precision), int(scale)


def flags(bits: bytes, rows: int) -> Iterable[bool]:
    """One bit a row, the least significant first."""
    digits = f"{int.from_bytes(bits, 'little'):0{rows}b}"[::-1][:rows]
    return map("1".__eq__, digits)


def bits(flags: Iterable) -> bytes:
    digits = "".join("1" if flag else "0" for flag in flags)
    return int(digits[::-1] or "0", 2).to_bytes((len(digits) + 7) // 8, "little")


def encode(field: Field, values: Iterable) -> host.Column:
    """Errors: a value that is not of the field's type, or null where it must not be."""
    nodes, buffers = [], []
    encode_into(field, values, nodes, buffers)
    return host.Column(nodes, buffers)


def encode_into(field: Field, values: Iterable, nodes: list[host.Node], buffers: list[bytes]) -> None:
    if not isinstance(values, (list, array, memoryview)):
        values = list(values)
    nulls = values.count(None) if isinstance(values, list) else 0
    if nulls and not field.nullable:
        raise Error(f"column `{field.name}` has a null, and is not `{field.name} {field.type}?`")
    nodes.append(host.Node(len(values), nulls))
    buffers.append(bits(value is not None for value in values) if nulls else b"")
    try:
        encode_valid(field, values, nulls > 0, nodes, buffers)
    except (TypeError, ValueError, ArithmeticError, AttributeError, KeyError) as error:
        raise Error(f"column `{field.name}` of type `{field.type}`: {error}") from error


def encode_valid(field: Field, values: Sequence, has_nulls: bool, nodes: list[host.Node], buffers: list[bytes]) -> None:
    type = kind(field.type)
    filled = lambda blank: [blank if value is None else value for value in values] if has_nulls else values
    if type in CODES:
        buffers.append(numbers(CODES[type], filled(0)))
    elif type == "boolean":
        buffers.append(bits(values))
    elif type == "utf8":
        some = next((value for value in values if value is not None), "")
        buffers.extend(joined(filled(b"" if isinstance(some, bytes) else "")))
    elif type == "binary":
        buffers.extend(joined_bytes(filled(b"")))
    elif type == "decimal128":
        buffers.append(decimal_bytes(field, filled(0)))
    elif type == "array-of":
        lists = filled(())
        buffers.append(lengths(lists))
        encode_into(field.children[0], [item for each in lists for item in each], nodes, buffers)
    else:
        for child in field.children:
            blank = None if child.nullable else blank_of(child)
            members = [blank if row is None else row[child.name] for row in values]
            encode_into(child, members, nodes, buffers)


def blank_of(field: Field):
    """What lies below a null of a struct whose members must not be null."""
    blanks = {"boolean": False, "utf8": "", "binary": b"", "array-of": (), "struct-of": {}}
    return blanks.get(kind(field.type), 0)


def numbers(code: str, values: Sequence) -> bytes:
    if isinstance(values, (array, memoryview)) and memoryview(values).format == code:
        return values.tobytes()
    return array(code, values).tobytes()


def joined(values: list) -> tuple[bytes, bytes]:
    """Offsets and bytes of texts, which are all `str` or all `bytes`."""
    if values and isinstance(values[0], bytes):
        return joined_bytes(values)
    text = "".join(values)
    if text.isascii():
        return lengths(values), text.encode("ascii")
    return joined_bytes([value.encode() for value in values])


def joined_bytes(values: list[bytes]) -> tuple[bytes, bytes]:
    return lengths(values), b"".join(values)


def lengths(values: Sequence) -> bytes:
    """The offsets of values that lie one after the other."""
    return array("i", accumulate(map(len, values), initial=0)).tobytes()


def decimal_bytes(field: Field, values: Sequence) -> bytes:
    precision, scale = of_decimal(field)
    most = 10**precision
    out = bytearray()
    for value in values:
        scaled = EXACT.scaleb(Decimal(value), scale)
        number = int(scaled)
        if number != scaled or not -most < number < most:
            raise ValueError(f"{value} does not fit")
        out += number.to_bytes(DECIMAL_BYTES, "little", signed=True)
    return bytes(out)
