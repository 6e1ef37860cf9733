"""Many components out of one: other bytes, another version, the same functions. Nothing is compiled.

A custom section at the end changes the digest. The version is what the component itself answers, so that one takes code: `describe` is
called by a function that makes the version longer before the host reads it. Components of the Rust SDK are understood, no others.
"""

NOTE = b"note"
DESCRIBE, REALLOC = b"weft:fabric/functions@0.1.0#describe", b"cabi_realloc"
MODULE = 1  # a section of a component
IMPORTS, FUNCTIONS, EXPORTS, CODE = 2, 3, 7, 10  # sections of a module


def with_note(component, note):
    """The same with `note` in a custom section: another digest, nothing else."""
    return component + section(0, leb(len(NOTE)) + NOTE + note)


def with_suffix(component, suffix):
    """The same, but its version ends in `suffix`, such as `-dev`, which may be replaced by other bytes again and again."""
    found, out = False, component[:8]
    for kind, body in sections(component):
        if kind == MODULE and DESCRIBE in body:
            found, body = True, _lengthened(body, suffix)
        out += section(kind, body)
    if not found:
        raise ValueError("no module of it exports `describe` as those of the Rust SDK do")
    return out


def _lengthened(module, suffix):
    parts = list(sections(module))
    of = dict(parts)
    n_imports = _imported_functions(of[IMPORTS]) if IMPORTS in of else 0
    n_types, types = _counted(of[FUNCTIONS])
    exports = _exports(of[EXPORTS])
    describe, realloc = exports[DESCRIBE][1], exports[REALLOC][1]
    at = 0
    for _ in range(describe - n_imports + 1):
        type_, at = read(types, at)
    exports[DESCRIBE] = 0, n_imports + n_types
    n_bodies, bodies = _counted(of[CODE])
    body = _body(describe, realloc, suffix.encode())
    new = {
        FUNCTIONS: leb(n_types + 1) + types + leb(type_),
        EXPORTS: leb(len(exports)) + b"".join(leb(len(name)) + name + bytes([kind]) + leb(index) for name, (kind, index) in exports.items()),
        CODE: leb(n_bodies + 1) + bodies + leb(len(body)) + body,
    }
    return module[:8] + b"".join(section(kind, new.get(kind, body)) for kind, body in parts)


def _body(describe, realloc, suffix):
    """Calls `describe`, and moves the version, whose address and length are at 8 and 12 of the answer, to where there is room behind it."""
    answer, version = b"\x20\x00", b"\x20\x01"
    length = answer + b"\x28\x02\x0c"
    longer = length + b"\x41" + signed(len(suffix)) + b"\x6a"
    code = b"\x01\x02\x7f" + b"\x10" + leb(describe) + b"\x22\x00"
    code += b"\x28\x02\x08" + length + b"\x41\x01" + longer + b"\x10" + leb(realloc) + b"\x21\x01"
    for at, letter in enumerate(suffix):
        code += version + length + b"\x6a\x41" + signed(letter) + b"\x3a\x00" + leb(at)
    return code + answer + version + b"\x36\x02\x08" + answer + longer + b"\x36\x02\x0c" + answer + b"\x0b"


# ---- the binary format, as far as it is needed

def leb(number):
    """An unsigned number."""
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def signed(number):
    """A small number that is not negative, where signed ones stand."""
    return bytes([number]) if number < 64 else bytes([number & 127 | 128, number >> 7])


def read(data, at):
    """A number, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at


def section(kind, body):
    return bytes([kind]) + leb(len(body)) + body


def sections(data):
    """Kind and body of each section, behind the eight bytes that every binary begins with."""
    at = 8
    while at < len(data):
        kind = data[at]
        size, at = read(data, at + 1)
        yield kind, data[at:at + size]
        at += size


def _counted(body):
    count, at = read(body, 0)
    return count, body[at:]


def _name(body, at):
    size, at = read(body, at)
    return body[at:at + size], at + size


def _exports(body):
    (count, at), found = read(body, 0), {}
    for _ in range(count):
        name, at = _name(body, at)
        index, end = read(body, at + 1)
        found[name], at = (body[at], index), end
    return found


def _imported_functions(body):
    (count, at), functions = read(body, 0), 0
    for _ in range(count):
        for _ in "module", "name":
            _, at = _name(body, at)
        kind, at = body[at], at + 1
        if kind == 0:  # a function: its type
            functions, (_, at) = functions + 1, read(body, at)
        elif kind == 3:  # a global: its type, and whether it changes
            at += 2
        elif kind in (1, 2):  # a table, which has a type of its elements, or a memory: one bound or two
            at += kind == 1
            flags, at = body[at], at + 1
            for _ in range(1 + (flags & 1)):
                _, at = read(body, at)
        else:
            raise ValueError(f"an import of the unknown kind {kind}")
    return functions
