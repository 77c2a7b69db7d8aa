"""What any zip must satisfy before its content is looked at.

Python and torch read zips with different code; where a file could mean two things (duplicate
names, bytes before the archive, a comment that looks like a directory, headers that contradict the
directory, entries that overlap) it is refused.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from service.uploads.zip_structure import (
    StructureBroken,
    check_local_headers,
    count_entries,
    read_end,
)

_DAMAGED = "The file changed after it was saved; save and send it again."
_LOCAL_HEADER = b"PK\x03\x04"
_CHUNK = 1 << 20
_ENCRYPTED = 0x1
# how hard deflate tried (two bits), sizes behind the data, names in UTF-8
_KNOWN_FLAGS = 0x6 | 0x8 | 0x800
_UNIX = 3
_MAX_NAME = 1024
_MAX_DEPTH = 64


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
    with path.open("rb") as file:
        try:
            directory = read_end(file)
            if directory.entries > limits.entries:
                raise _too_many(directory.entries, limits)
            count_entries(file, directory)
            archive = zipfile.ZipFile(file)
        except (
            StructureBroken,
            zipfile.BadZipFile,
            NotImplementedError,
            ValueError,
            OSError,
        ) as error:
            raise ZipRefused(
                f"The zip directory cannot be read: {error}.",
                "The file is damaged or was cut off; save and send it again.",
            ) from error
        with archive:
            _check_directory(archive, path.stat().st_size, limits)
            try:
                check_local_headers(file, directory, archive.infolist())
            except (StructureBroken, UnicodeEncodeError) as error:
                raise ZipRefused(f"The archive is ambiguous: {error}.") from error
            yield archive


def check_content(archive: zipfile.ZipFile) -> None:
    """Read every entry once, in constant memory, and compare its checksum."""
    for entry in archive.infolist():
        for _ in chunks(archive, entry):
            pass


def chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of one entry, a mebibyte at a time at most.

    Raises:
        ZipRefused: they are damaged, too few, or do not have their checksum; at the last chunk.
    """
    left = entry.file_size
    try:
        with archive.open(entry) as file:
            while chunk := file.read(_CHUNK):
                left -= len(chunk)
                yield chunk
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        UnicodeDecodeError,
    ) as error:
        raise ZipRefused(f"The entry `{entry.filename}` is damaged: {error}.", _DAMAGED) from error
    if left:
        raise ZipRefused(
            f"The entry `{entry.filename}` is damaged: {left} bytes are missing.", _DAMAGED
        )


def _too_many(entries: int, limits: ZipLimits) -> ZipRefused:
    return ZipRefused(
        f"The archive has {entries} entries; {limits.entries} are allowed.",
        "`GET /v1/limits` shows the limits of this server.",
    )


def _check_directory(archive: zipfile.ZipFile, packed: int, limits: ZipLimits) -> None:
    entries = archive.infolist()
    if not entries:
        raise ZipRefused("The archive is empty.")
    if len(entries) > limits.entries:
        raise _too_many(len(entries), limits)
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
    if len(name) > _MAX_NAME or len(path.parts) > _MAX_DEPTH:
        raise ZipRefused(f"The entry name `{name[:80]}...` is too long or too deep.")
    if entry.flag_bits & _ENCRYPTED:
        raise ZipRefused(f"The entry `{name}` is encrypted.")
    if entry.flag_bits & ~_KNOWN_FLAGS:
        raise ZipRefused(f"The entry `{name}` has flags {entry.flag_bits:#x}.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.create_system == _UNIX and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ZipRefused(f"The entry `{name}` is a link or a device, not a file.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ZipRefused(f"The entry `{name}` uses compression method {entry.compress_type}.")
