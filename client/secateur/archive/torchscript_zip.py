"""The one form of a TorchScript file that an archive unpacks to.

A TorchScript file is a zip of records: tensors, pickles that name them, code. The same records can
be written in many ways, so that a file can come back byte for byte there is one way here, which
depends on no version of Python or of a zip library: records in order, stored as they are, their
content at multiples of 64 bytes as torch reads it fastest, and no times.

    local header, padding, content     for every record
    directory entry                    for every record
    end of the directory               with the 64-bit records where something has 4 GiB or more
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

ROOT = "archive"
_ALIGNMENT = 64
_IN_64_BITS = 0xFFFF_FFFF
_IN_32_BITS = 0xFFFF
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_PADDING = struct.Struct("<2sH")
_SIZES_64 = struct.Struct("<HHQQ")
_FIRST_OF_JANUARY_1980 = 0x21
_UTF_8 = 0x800
_VERSION, _VERSION_64 = 10, 45


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True)
class _Record:
    name: bytes
    size: int
    check: int
    place: int


class TorchScriptZip:
    """Writes records one after another.

    Args:
        sink: what the file's bytes go to.
        large: sizes and places from here on are written in 64 bits.
    """

    def __init__(self, sink: Sink, *, large: int = _IN_64_BITS) -> None:
        self._sink = sink
        self._large = large
        self._written = 0
        self._records: list[_Record] = []

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._written

    def add(self, name: str, content: bytes) -> None:
        """Write a record.

        Args:
            name: without the root folder.
            content: of it.
        """
        record = _Record(
            f"{ROOT}/{name}".encode(), len(content), zlib.crc32(content), self._written
        )
        self._records.append(record)
        extra = b""
        size, version = record.size, _VERSION
        if record.size >= self._large:
            extra = _SIZES_64.pack(1, 16, record.size, record.size)
            size, version = _IN_64_BITS, _VERSION_64
        start = self._written + _LOCAL.size + len(record.name) + len(extra) + _PADDING.size
        padding = -start % _ALIGNMENT
        extra += _PADDING.pack(b"FB", padding) + b"Z" * padding
        self._write(
            _LOCAL.pack(
                b"PK\x03\x04", version, _UTF_8, 0, 0, _FIRST_OF_JANUARY_1980,
                record.check, size, size, len(record.name), len(extra),
            )
        )  # fmt: skip
        self._write(record.name + extra)
        self._write(content)

    def close(self) -> None:
        """Write the directory."""
        start = self._written
        for record in self._records:
            self._write_entry(record)
        size, count = self._written - start, len(self._records)
        if max(start, size) >= self._large or count >= _IN_32_BITS:
            end = self._written
            self._write(
                _END_64.pack(
                    b"PK\x06\x06", _END_64.size - 12, _VERSION_64, _VERSION_64, 0, 0,
                    count, count, size, start,
                )
            )  # fmt: skip
            self._write(_LOCATOR.pack(b"PK\x06\x07", 0, end, 1))
            start = size = _IN_64_BITS
            count = _IN_32_BITS
        self._write(_END.pack(b"PK\x05\x06", 0, 0, count, count, size, start, 0))

    def _write_entry(self, record: _Record) -> None:
        size, place, extra, version = record.size, record.place, b"", _VERSION
        if size >= self._large:
            extra += struct.pack("<QQ", size, size)
            size = _IN_64_BITS
        if place >= self._large:
            extra += struct.pack("<Q", place)
            place = _IN_64_BITS
        if extra:
            extra = struct.pack("<HH", 1, len(extra)) + extra
            version = _VERSION_64
        self._write(
            _ENTRY.pack(
                b"PK\x01\x02", version, version, _UTF_8, 0, 0, _FIRST_OF_JANUARY_1980,
                record.check, size, size, len(record.name), len(extra), 0, 0, 0, 0, place,
            )
        )  # fmt: skip
        self._write(record.name + extra)

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._written += len(data)
