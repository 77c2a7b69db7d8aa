"""The format of an archive, version 1. Whole numbers are little-endian.

    8  bytes   SECATEUR
    2          version
   32          SHA-256 of the TorchScript file
    8          its size
    4 x 4      bytes of the index and of the heads: stored, unpacked; stored, unpacked
    ...        index, by zstd with the dictionary `common.bin`: the length of a JSON text in 4
               bytes, the text, and then the content of small records, one after another
    ...        heads, by zstd: what describes symbols, one after another
    ...        bodies, one after another

The JSON text is a list of records in the order of the file:

    [name, size, coder, [parameters ...], bytes of its head, [bytes of each body ...]]

The coder of a small record is `index`: its content lies in the index. `secateur.archive.coders` has
the other coders, `secateur.archive.torchscript_zip` says how records make a file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

MAGIC = b"SECATEUR"
VERSION = 1
IN_INDEX = "index"
_START = struct.Struct("<8sH32sQ4L")
_LENGTH = struct.Struct("<L")
START_BYTES = _START.size


class Damaged(Exception):
    """The bytes are no archive, or not a whole one."""


@dataclass(frozen=True)
class Start:
    """What stands at the start of the file."""

    sha256: bytes
    size: int
    index: tuple[int, int]
    heads: tuple[int, int]

    def to_bytes(self) -> bytes:
        """As stored."""
        return _START.pack(MAGIC, VERSION, self.sha256, self.size, *self.index, *self.heads)

    @classmethod
    def from_bytes(cls, data: bytes) -> Start:
        """The inverse.

        Raises:
            Damaged: it is not the start of an archive of this version.
        """
        if not data.startswith(MAGIC):
            raise Damaged("it does not start like one")
        if len(data) < _START.size:
            raise Damaged("it is cut off in its header")
        _, version, sha256, size, *lengths = _START.unpack(data[: _START.size])
        if version != VERSION:
            raise Damaged(f"it has version {version} of the format, and this is version {VERSION}")
        return cls(sha256, size, (lengths[0], lengths[1]), (lengths[2], lengths[3]))


@dataclass(frozen=True)
class Entry:
    """A record as the index has it; `content` of small ones alone."""

    name: str
    size: int
    coder: str
    parameters: tuple[int, ...]
    head: int
    bodies: tuple[int, ...]
    content: bytes = b""


def index_of(entries: Sequence[Entry]) -> bytes:
    """The index of records in their order."""
    listed = [
        [entry.name, entry.size, entry.coder, entry.parameters, entry.head, entry.bodies]
        for entry in entries
    ]
    text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    return _LENGTH.pack(len(text)) + text + b"".join(entry.content for entry in entries)


def entries_of(index: bytes) -> list[Entry]:
    """The inverse.

    Raises:
        Damaged: the index is not one.
    """
    if len(index) < _LENGTH.size:
        raise Damaged("its index is cut off")
    end = _LENGTH.size + _LENGTH.unpack(index[: _LENGTH.size])[0]
    try:
        listed = json.loads(index[_LENGTH.size : end])
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its index cannot be read: {error}") from error
    found: list[Entry] = []
    if not isinstance(listed, list):
        raise Damaged("its index is no list")
    for item in listed:
        entry = _entry(item)
        if entry.coder == IN_INDEX:
            content = index[end : end + entry.size]
            if len(content) != entry.size or entry.head or entry.bodies:
                raise Damaged(f"the record `{entry.name}` is cut off")
            entry = replace(entry, content=content)
            end += entry.size
        found.append(entry)
    if end != len(index):
        raise Damaged("its index has bytes that belong to no record")
    if len({entry.name for entry in found}) < len(found):
        raise Damaged("a record comes twice")
    return found


def _entry(item: Any) -> Entry:
    if not isinstance(item, list) or len(item) != 6:
        raise Damaged("its index has an entry of another form")
    name, size, coder, parameters, head, bodies = item
    numbers = [size, head]
    if not isinstance(name, str) or not isinstance(coder, str):
        raise Damaged("its index has an entry without a name")
    if not isinstance(parameters, list) or not isinstance(bodies, list):
        raise Damaged(f"the record `{name}` has no lengths")
    numbers += [*parameters, *bodies]
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise Damaged(f"the record `{name}` has lengths that are none")
    path = PurePosixPath(name)
    if not name.isprintable() or path.is_absolute() or {"..", "."} & set(name.split("/")):
        raise Damaged(f"the record name {name!r} points outside its file")
    return Entry(name, size, coder, tuple(parameters), head, tuple(bodies))
