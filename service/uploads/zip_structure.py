"""The records of a zip, read as they are written (APPNOTE 6.3): end, directory, local headers.

Python's reader believes the directory and looks at little else; torch's believes the counts of the
end record and the local headers. A zip in which these agree means one thing to both.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LARGE16, _LARGE32 = 0xFFFF, 0xFFFF_FFFF
_END64_FOLLOWING = _END64.size - 12
_DESCRIPTOR = 0x8


class StructureBroken(Exception):
    """The records of the zip contradict each other; the text says how."""


@dataclass(frozen=True)
class Directory:
    """Where the directory lies and what the end record says of it."""

    offset: int
    length: int
    entries: int


def read_end(file: BinaryIO) -> Directory:
    """The end record, which must be the last thing in the file, right behind the directory.

    Raises:
        StructureBroken: there is none, something stands behind or before it, or it is of an
            archive in several parts.
    """
    size = file.seek(0, 2)
    file.seek(max(size - _LOCATOR.size - _END.size, 0))
    tail = file.read()
    end = tail[-_END.size :]
    if b"PK\x05\x06" not in tail:
        raise StructureBroken("its end is missing")
    if len(end) < _END.size or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise StructureBroken("it has a comment or other bytes behind its end")
    _, disk, first_disk, here, entries, length, offset, _ = _END.unpack(end)
    stop = size - _END.size
    if tail.startswith(b"PK\x06\x07") and len(tail) == _LOCATOR.size + _END.size:
        stop -= _LOCATOR.size + _END64.size
        _, locator_disk, where, disks = _LOCATOR.unpack(tail[: _LOCATOR.size])
        if stop < 0 or where != stop or locator_disk or disks != 1:
            raise StructureBroken("its large end record is not where it belongs")
        file.seek(stop)
        small = (disk, first_disk, here, entries, length, offset)
        kind, following, _, _, disk, first_disk, here, entries, length, offset = _END64.unpack(
            file.read(_END64.size)
        )
        if kind != b"PK\x06\x06" or following != _END64_FOLLOWING:
            raise StructureBroken("its large end record is not where it belongs")
        large = (disk, first_disk, here, entries, length, offset)
        limits = (_LARGE16, _LARGE16, _LARGE16, _LARGE16, _LARGE32, _LARGE32)
        for old, new, limit in zip(small, large, limits, strict=True):
            if old not in (new, limit):
                raise StructureBroken("its two end records contradict each other")
    if disk or first_disk or here != entries:
        raise StructureBroken("it is one part of several")
    if offset + length != stop:
        raise StructureBroken("its directory is not where its end record says")
    return Directory(offset, length, entries)


def count_entries(file: BinaryIO, directory: Directory) -> None:
    """Walk the directory once, without keeping anything: it must hold as many entries as the end
    record says, and nothing else.

    Raises:
        StructureBroken: it does not.
    """
    position, stop = directory.offset, directory.offset + directory.length
    for _ in range(directory.entries):
        file.seek(position)
        header = file.read(_CENTRAL.size)
        if len(header) < _CENTRAL.size or not header.startswith(b"PK\x01\x02"):
            raise StructureBroken("its directory has fewer entries than its end record says")
        fields = _CENTRAL.unpack(header)
        name, extra, comment, disk = fields[12], fields[13], fields[14], fields[15]
        if disk:
            raise StructureBroken("it is one part of several")
        position += _CENTRAL.size + name + extra + comment
        if position > stop:
            raise StructureBroken("its directory is longer than its end record says")
    if position != stop:
        raise StructureBroken("its directory has more entries than its end record says")


def check_local_headers(
    file: BinaryIO, directory: Directory, entries: list[zipfile.ZipInfo]
) -> None:
    """Every entry must start with a header that says what the directory says, and lie in bytes
    that are no other entry's.

    Raises:
        StructureBroken: one does not.
    """
    end_of_last = 0
    for entry in sorted(entries, key=lambda one: one.header_offset):
        if entry.header_offset < end_of_last:
            raise StructureBroken(f"the entry `{entry.filename}` overlaps another")
        file.seek(entry.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise StructureBroken(f"the entry `{entry.filename}` has no header of its own")
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(
            header
        )
        name = file.read(name_length)
        extra = file.read(extra_length)
        if len(name) < name_length or len(extra) < extra_length:
            raise StructureBroken(f"the header of the entry `{entry.filename}` is cut off")
        encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        said = (packed, size, crc)
        in_directory = (entry.compress_size, entry.file_size, entry.CRC)
        if _LARGE32 in (packed, size):
            packed, size = _large_sizes(extra, packed, size)
            said = (packed, size, crc)
        if flags & _DESCRIPTOR and (packed, size) in ((0, 0), in_directory[:2]) and crc == 0:
            said = in_directory
        if (
            name != entry.orig_filename.encode(encoding, "replace")
            or method != entry.compress_type
            or flags != entry.flag_bits
            or said != in_directory
        ):
            raise StructureBroken(
                f"the header of the entry `{entry.filename}` contradicts the directory"
            )
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise StructureBroken(f"the entry `{entry.filename}` has two sizes")
        start = entry.header_offset + _LOCAL.size + name_length + extra_length
        end_of_last = start + entry.compress_size
        if end_of_last > directory.offset:
            raise StructureBroken(f"the entry `{entry.filename}` reaches into the directory")


def _large_sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """The sizes that the zip64 field of a local header gives where 32 bits are not enough."""
    for kind, data in _extra_fields(extra):
        if kind == 1:
            numbers = iter(struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8]))
            size = next(numbers, size) if size == _LARGE32 else size
            packed = next(numbers, packed) if packed == _LARGE32 else packed
            break
    return packed, size


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        yield kind, extra[position + 4 : position + 4 + length]
        position += 4 + length
