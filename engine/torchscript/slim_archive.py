"""TorchScript archives without the records that runtimes do not need.

Beside each piece of code torch stores where its lines came from, for error messages: tables that
take more bytes than the code, and that tell how a graph came about. Two programs that are the same,
one of which was written and read on its way, have different tables; without them their files are
the same as well, to the byte.

Tensors come first in what torch writes, so they stay where they are, at multiples of 64 bytes,
which runtimes map into memory. What follows them is small, and is written anew.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import BinaryIO

_ALIGNMENT = 64
_HEADER = 30
_PADDING_FIELD = 0x4246
"""The number of an extra field ("FB") that torch's own archives pad with."""
_SHORT = 64
_TABLES = ".debug_pkl"
_IDENTITY = "/.data/serialization_id"


def slim(path: Path) -> None:
    """Take the source tables out of an archive.

    Args:
        path: what `torch.jit.save` wrote; changed in place.
    """
    with path.open("r+b") as file:
        _slim(file)


def slimmed(archive: bytes) -> bytes:
    """The archive without source tables.

    Args:
        archive: what `torch.jit.save` wrote.
    """
    made = io.BytesIO(archive)
    _slim(made)
    return made.getvalue()


def _slim(file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as source:
        entries = sorted(source.infolist(), key=lambda entry: entry.header_offset)
        count = next((i for i, one in enumerate(entries) if not _tensor(one)), len(entries))
        kept, rest = entries[:count], entries[count:]
        tail = [(one, source.read(one)) for one in rest if not one.filename.endswith(_TABLES)]
    if not rest:
        return
    file.truncate(rest[0].header_offset)
    # without its directory it is no archive yet: what is written now begins one
    with zipfile.ZipFile(file, "a") as target:
        target.filelist.extend(kept)
        target.NameToInfo.update({one.filename: one for one in kept})
        for entry, data in tail:
            identity = entry.filename.endswith(_IDENTITY)
            content = _identity(kept, tail) if identity else data
            start = file.tell() + _HEADER + len(entry.filename.encode())
            target.writestr(_like(entry, start, len(content)), content)


def _tensor(entry: zipfile.ZipInfo) -> bool:
    return "/data/" in entry.filename and entry.compress_type == zipfile.ZIP_STORED


def _like(entry: zipfile.ZipInfo, start: int, size: int) -> zipfile.ZipInfo:
    """The same entry for so many bytes that begin at `start`, but for padding."""
    made = zipfile.ZipInfo(entry.filename, date_time=(1980, 1, 1, 0, 0, 0))
    constant = "/constants/" in entry.filename  # a tensor as well
    # others are texts; of the shortest, deflating would make the size follow from the digits
    stored = constant or size <= _SHORT
    made.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    if constant:
        made.extra = _padding(-start % _ALIGNMENT)
    return made


def _identity(kept: list[zipfile.ZipInfo], tail: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """Forty digits that follow from the records, in place of those that followed from the tables
    as well."""
    names = [*kept, *(entry for entry, _ in tail if not entry.filename.endswith(_IDENTITY))]
    content = "\n".join(f"{one.filename} {one.CRC:08x} {one.file_size}" for one in names)
    number = int.from_bytes(hashlib.sha256(content.encode()).digest(), "big")
    return f"{number % 10**40:040d}".encode()


def _padding(length: int) -> bytes:
    """An extra field that makes the next byte one at a multiple of the alignment."""
    if length == 0:
        return b""
    length += _ALIGNMENT * (length < 4)
    content = length - 4
    return _PADDING_FIELD.to_bytes(2, "little") + content.to_bytes(2, "little") + bytes(content)
