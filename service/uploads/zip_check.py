"""What any zip must satisfy before its content is looked at.

Python and torch read zips with different code; where a file could mean two things (duplicate
names, bytes before the archive, a comment that looks like a directory) it is refused.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_IN_ZIP64 = 0xFFFF_FFFF
_LOCAL_HEADER = b"PK\x03\x04"
_CHUNK = 1 << 20
_ENCRYPTED = 0x1


class ZipRefused(Exception):
    """The zip breaks a rule.

    Args:
        reason: what is wrong, naming the entry.
        hint: what to do.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class ZipLimits:
    """How large a zip may be, packed and unpacked."""

    entries: int
    ratio: float
    unpacked_bytes: int


def starts_like_zip(path: Path) -> bool:
    """Whether the first entry of a zip stands at the very start of the file."""
    with path.open("rb") as file:
        return file.read(4) == _LOCAL_HEADER


@contextmanager
def checked_zip(path: Path, limits: ZipLimits) -> Iterator[zipfile.ZipFile]:
    """The zip, opened, its directory checked; content is checked by `check_content`.

    Raises:
        ZipRefused: it is damaged or breaks a rule.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ZipRefused(
            f"The zip directory cannot be read: {error}.",
            "The file is damaged or was cut off; save and send it again.",
        ) from error
    with archive:
        _check_end(path, archive)
        _check_directory(archive, path.stat().st_size, limits)
        yield archive


def check_content(archive: zipfile.ZipFile) -> None:
    """Read every entry once, in constant memory, and compare its checksum."""
    for entry in archive.infolist():
        try:
            with archive.open(entry) as file:
                while file.read(_CHUNK):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise ZipRefused(
                f"The entry `{entry.filename}` is damaged: {error}.",
                "The file changed after it was saved; save and send it again.",
            ) from error


def _check_end(path: Path, archive: zipfile.ZipFile) -> None:
    """The file must end with its directory, and the directory lie where its end record says.

    Python forgives bytes before the archive by shifting every offset and looks for the record
    behind comments; torch takes offsets as written. Where the two would look at different
    places, an attacker could show each another archive.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _LOCATOR.size - _END.size, 0))
        tail = file.read()
        if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\x05\x06"):
            raise ZipRefused("The archive has a comment or other bytes behind its end.")
        *_, length, offset, comment = _END.unpack(tail[-_END.size :])
        expected_end = size - _END.size
        if _IN_ZIP64 in (offset, length):
            file.seek(max(expected_end - _LOCATOR.size - _END64.size, 0))
            record = file.read(_END64.size)
            if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
                raise ZipRefused("The archive's large end record is not where it belongs.")
            *_, length, offset = _END64.unpack(record)
            expected_end -= _LOCATOR.size + _END64.size
    if comment or offset != archive.start_dir or offset + length > expected_end:
        raise ZipRefused("The archive's directory is not where its end record says.")


def _check_directory(archive: zipfile.ZipFile, packed: int, limits: ZipLimits) -> None:
    entries = archive.infolist()
    if not entries:
        raise ZipRefused("The archive is empty.")
    if len(entries) > limits.entries:
        raise ZipRefused(
            f"The archive has {len(entries)} entries; {limits.entries} are allowed.",
            "`GET /v1/limits` shows the limits of this server.",
        )
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > limits.unpacked_bytes:
        raise ZipRefused(
            f"The archive unpacks to {unpacked} bytes; {limits.unpacked_bytes} are allowed.",
            "`GET /v1/limits` shows the limits of this server.",
        )
    if unpacked > limits.ratio * packed:
        raise ZipRefused(
            f"The archive of {packed} bytes unpacks to {unpacked}, more than "
            f"{limits.ratio:g} times as much.",
        )
    seen: set[str] = set()
    for entry in entries:
        _check_entry(entry)
        if entry.filename in seen:
            raise ZipRefused(f"The archive has the entry `{entry.filename}` twice.")
        seen.add(entry.filename)


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    # orig_filename still has what the zip says, where filename was cut at a NUL byte
    if name != entry.orig_filename or "\\" in name or not name.isprintable():
        raise ZipRefused(f"The entry name {entry.orig_filename!r} has characters it may not have.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":"):
        raise ZipRefused(f"The entry name `{name}` points outside the archive.")
    if entry.flag_bits & _ENCRYPTED:
        raise ZipRefused(f"The entry `{name}` is encrypted.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ZipRefused(f"The entry `{name}` uses compression method {entry.compress_type}.")
