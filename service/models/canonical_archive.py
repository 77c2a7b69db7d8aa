"""The copy of a model that is kept: a zip written anew from checked records.

The same records give the same bytes: a fixed root, order and date, nothing compressed, no comments,
and no extra field but the one that torch's own writer pads with, so that every record starts at a
multiple of 64 bytes and can be mapped into memory. The copy of a copy is the copy itself.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from service.models.program import Record
from service.uploads.zip_check import chunks

ROOT = "model"
ALIGNMENT = 64
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_PADDING = 0x4246
"""The number of torch's padding field, "FB"."""
_ZIP64 = 1
_PLAIN, _LARGE = 20, 45
"""Versions of the format: 2.0, and 4.5 which brought 64-bit sizes."""
_DATE = (1 << 5) | 1
"""1 January 1980, as MS-DOS counts."""
_MAX16, _MAX32 = 0xFFFF, 0xFFFF_FFFF


@dataclass(frozen=True)
class _Written:
    name: bytes
    size: int
    crc: int
    offset: int


def write_archive(
    archive: zipfile.ZipFile,
    records: Iterable[Record],
    write: Callable[[bytes], object],
    *,
    max32: int = _MAX32,
) -> None:
    """Write the copy, in constant memory.

    Args:
        archive: where records that are not in memory are read.
        records: in the order they are to have.
        write: takes the bytes.
        max32: the number from which on sizes and offsets take 64 bits; smaller in tests.

    Raises:
        ZipRefused: a record's bytes do not have their checksum; what was written is worth nothing.
    """
    position = 0
    written: list[_Written] = []
    for record in records:
        name = f"{ROOT}/{record.name}".encode("ascii")
        if isinstance(record.source, bytes):
            size, crc = len(record.source), zlib.crc32(record.source)
        else:
            size, crc = record.source.file_size, record.source.CRC
        header = _local(name, size, crc, position, large=size >= max32)
        written.append(_Written(name, size, crc, position))
        write(header)
        if isinstance(record.source, bytes):
            write(record.source)
        else:
            for chunk in chunks(archive, record.source):
                write(chunk)
        position += len(header) + size
    start = position
    for one in written:
        header = _central(one, max32)
        write(header)
        position += len(header)
    write(_end(len(written), start, position - start, max32))


def _local(name: bytes, size: int, crc: int, position: int, *, large: bool) -> bytes:
    extra = struct.pack("<HHQQ", _ZIP64, 16, size, size) if large else b""
    padding = -(position + _LOCAL.size + len(name) + len(extra)) % ALIGNMENT
    if padding:
        padding += ALIGNMENT * (padding < 4)  # its own header takes four
        extra += struct.pack("<HH", _PADDING, padding - 4) + bytes(padding - 4)
    said = _MAX32 if large else size
    version = _LARGE if large else _PLAIN
    header = _LOCAL.pack(
        b"PK\x03\x04", version, 0, 0, 0, _DATE, crc, said, said, len(name), len(extra)
    )
    return header + name + extra


def _central(one: _Written, max32: int) -> bytes:
    large: list[int] = []
    size = offset = _MAX32
    if one.size >= max32:
        large += [one.size, one.size]
    else:
        size = one.size
    if one.offset >= max32:
        large.append(one.offset)
    else:
        offset = one.offset
    extra = struct.pack(f"<HH{len(large)}Q", _ZIP64, 8 * len(large), *large) if large else b""
    version = _LARGE if large else _PLAIN
    return (
        _CENTRAL.pack(
            *(b"PK\x01\x02", version, version, 0, 0, 0, _DATE, one.crc, size, size),
            *(len(one.name), len(extra), 0, 0, 0, 0, offset),
        )
        + one.name
        + extra
    )


def _end(count: int, start: int, length: int, max32: int) -> bytes:
    large = b""
    if count >= _MAX16 or start >= max32 or length >= max32:
        large = _END64.pack(
            *(b"PK\x06\x06", _END64.size - 12, _LARGE, _LARGE, 0, 0),
            *(count, count, length, start),
        ) + _LOCATOR.pack(b"PK\x06\x07", 0, start + length, 1)
        count, start, length = _MAX16, _MAX32, _MAX32
    return large + _END.pack(b"PK\x05\x06", 0, 0, count, count, length, start, 0)
