"""Random changes of good archives: of bytes, of the zip's structure, of the grammar of the code."""

from __future__ import annotations

import random
import re
import struct
import zipfile
from collections.abc import Callable

from service.models.operators import operator_list
from tests.attacks.archives import entries_of, zipped

Change = Callable[[random.Random, bytes], bytes]
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1)
_SPICE = (
    *(b"torch", b"ops", b"__torch__", b"save", b"getattr", b"fork", b"(", b")", b"[", b"]", b'"'),
    *(
        b"'",
        b'"""',
        b"\\",
        b"#",
        b"\n",
        b"\n  ",
        b"lambda",
        b"def f(x):",
        b"class A(Module):",
        b"=",
    ),
    *(b".", b",", b":", b"->", b"-", b"1e999", b"inf", b"\x00", b"\xff", b"\xc3\xa9", b"import os"),
    *(b"for", b"while", b"if", b"return", b"annotate", b"@", b"*", b"**", b"{", b"}", b"print"),
)
_PICKLE = tuple(
    bytes([code]) for code in b"()]}NKMJGXqrhjtaeusc\x81\x85\x86\x87\x88\x89\x8aRbQ.\x8c"
)


def _bytes(random: random.Random, archive: bytes) -> bytes:
    """A few bytes of the file, anywhere."""
    data = bytearray(archive)
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] = random.choice((random.randrange(256), *_INTERESTING))
    return bytes(data)


def _ends(random: random.Random, archive: bytes) -> bytes:
    """Bytes of the directory and the end record, where few decide much."""
    data = bytearray(archive)
    start = data.rfind(b"PK\x05\x06")
    start = (
        int.from_bytes(data[start + 16 : start + 20], "little") if random.random() < 0.7 else start
    )
    for _ in range(random.randint(1, 4)):
        position = random.randrange(min(start, len(data) - 4), len(data) - 3)
        data[position : position + 4] = struct.pack("<I", random.choice(_NUMBERS))
    return bytes(data)


def _headers(random: random.Random, archive: bytes) -> bytes:
    """A field of a local header or a directory entry."""
    data = bytearray(archive)
    mark = random.choice((b"PK\x03\x04", b"PK\x01\x02"))
    starts = [match.start() for match in re.finditer(re.escape(mark), archive)]
    if starts:
        position = random.choice(starts) + random.randrange(4, 46)
        width = random.choice((1, 2, 4))
        value = random.choice((random.randrange(2**32), *_NUMBERS)) % 256**width
        data[position : position + width] = value.to_bytes(width, "little")
    return bytes(data)


def _pieces(random: random.Random, archive: bytes) -> bytes:
    """A piece cut out, doubled, or moved."""
    start, stop = sorted(random.randrange(len(archive) + 1) for _ in range(2))
    stop = min(stop, start + 4096)
    piece = archive[start:stop]
    rest = archive[:start] + archive[stop:]
    place = random.randrange(len(rest) + 1)
    return random.choice(
        (rest, archive[:stop] + piece + archive[stop:], rest[:place] + piece + rest[place:])
    )


def _entries(random: random.Random, archive: bytes) -> bytes:
    """Entries left out, doubled, renamed, swapped or compressed, the zip itself sound."""
    entries = entries_of(archive)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(entries))
        name, data = entries[place]
        other = random.choice(entries)
        entries[place : place + 1] = random.choice(
            (
                [],
                [(name, data), (name, data)],
                [(name.upper(), data), (name, data)],
                [(name, other[1])],
                [(name.replace("/", random.choice(("//", "/../", "\\", "/\u00e9"))), data)],
                [(name, b"")],
                [(name, data * 3)],
            )
        ) or [("a/b", b"")]
    return zipped(entries, random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))


def _in_record(kind: str, change: Change) -> Change:
    def act(random: random.Random, archive: bytes) -> bytes:
        entries = entries_of(archive)
        places = [i for i, (name, data) in enumerate(entries) if name.endswith(kind) and data]
        place = random.choice(places)
        name, data = entries[place]
        entries[place] = (name, change(random, data))
        return zipped(entries)

    return act


def _words(random: random.Random, code: bytes) -> bytes:
    """Words of the code dropped, doubled, swapped, or replaced by what has a meaning."""
    words = re.split(rb"(\W)", code)
    for _ in range(random.randint(1, 6)):
        place = random.randrange(len(words))
        words[place] = random.choice(
            (b"", words[place] * 2, random.choice(words), *random.sample(_SPICE, 4))
        )
    return b"".join(words)


def _deep(random: random.Random, code: bytes) -> bytes:
    """Something many times over."""
    times = random.choice((10, 100, 1000, 5000))
    piece = random.choice((b"(", b"[", b"-", b"not ", b"x.", b"x + ", b"if x:\n ", b"(x)", b"'a' "))
    lines = code.split(b"\n")
    lines.insert(random.randrange(len(lines) + 1), b"    y = " + piece * times + b"x")
    return b"\n".join(lines)


def _calls(random: random.Random, code: bytes) -> bytes:
    """A line that calls, in one way or another, an operator that is allowed or is not."""
    listed = operator_list()
    name = random.choice(random.choice((sorted(listed.allowed), sorted(listed.refused))))
    namespace, _, plain = name.partition("::")
    call = random.choice(
        (f"ops.{namespace}.{plain}(x)", f"torch.{plain}(x)", f"(x).{plain}()", f"{plain}(x)")
    )
    lines = code.split(b"\n")
    places = [i for i, line in enumerate(lines) if line.startswith(b"    return")]
    lines.insert(random.choice(places or [0]), f"    y = {call}".encode())
    return b"\n".join(lines)


def _opcodes(random: random.Random, data: bytes) -> bytes:
    """Opcodes and numbers of a pickle."""
    out = bytearray(data)
    for _ in range(random.randint(1, 5)):
        place = random.randrange(len(out))
        piece = random.choice((random.choice(_PICKLE), bytes([random.randrange(256)]), out[:40]))
        if random.random() < 0.5:
            out[place : place + 1] = piece
        else:
            out[place:place] = piece
    return bytes(out)


CHANGES: tuple[Change, ...] = (
    _bytes,
    _ends,
    _headers,
    _pieces,
    _entries,
    _in_record(".py", _words),
    _in_record(".py", _deep),
    _in_record(".py", _calls),
    _in_record(".py", _bytes),
    _in_record(".pkl", _opcodes),
    _in_record(".pkl", _bytes),
    _in_record("data.pkl", _opcodes),
)


def mutated(number: int, archives: tuple[bytes, ...]) -> bytes:
    """The archive of this number: always the same."""
    chance = random.Random(number)  # noqa: S311 - for tests, and to be repeated
    archive = chance.choice(archives)
    for _ in range(chance.choice((1, 1, 1, 2))):
        try:
            archive = chance.choice(CHANGES)(chance, archive)
        except Exception:  # the first change left nothing that the second could read
            break
    return archive
