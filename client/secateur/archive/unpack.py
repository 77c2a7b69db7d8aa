"""Reading an archive: the TorchScript file byte for byte, or an error and no file.

Nothing in an archive is believed before it is checked: how much it unpacks to is bounded before
anything is unpacked, each part may only give what it says, and the SHA-256 of the whole decides.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from secateur.archive.coders import Coded, decode, decompress
from secateur.archive.container import IN_INDEX, START_BYTES, Damaged, Entry, Start, entries_of
from secateur.archive.torchscript_zip import Sink, TorchScriptZip
from secateur.errors import SecateurError
from secateur.files import new_file

LIMIT_BYTES = 4_000_000_000
"""How large a file may become unless told otherwise."""
_INDEX_BYTES = 1 << 28


class ArchiveDamaged(SecateurError):
    """The file is no archive, was cut off, or has changed since it was written."""


class ArchiveTooLarge(SecateurError):
    """The archive unpacks to more bytes than are allowed."""


class Hashing:
    """A sink that keeps the SHA-256 of what was written to it, and passes it on.

    Args:
        sink: where to; None for nowhere.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._hash = hashlib.sha256()
        self._sink = sink

    def write(self, data: bytes, /) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        if self._sink is not None:
            self._sink.write(data)

    def digest(self) -> bytes:
        """Of all bytes so far."""
        return self._hash.digest()


def unpack(archive: Path, model: Path, *, limit: int = LIMIT_BYTES, overwrite: bool = False) -> int:
    """Write the TorchScript file that an archive holds.

    Args:
        archive: what `pack` wrote.
        model: to write; whole and with the right SHA-256, or not at all.
        limit: bytes that the file may have.
        overwrite: whether `model` may take the place of a file.

    Returns:
        Bytes written.

    Raises:
        ArchiveDamaged: it is not what `pack` wrote.
        ArchiveTooLarge: it unpacks to more than `limit`.
        SecateurError: a file cannot be read or written.
    """
    with new_file(model, overwrite=overwrite) as file:
        return _unpack(archive, file, limit)


def check(archive: Path, *, limit: int = LIMIT_BYTES) -> int:
    """Unpack to nowhere; errors as `unpack`'s."""
    return _unpack(archive, None, limit)


def _unpack(archive: Path, sink: Sink | None, limit: int) -> int:
    try:
        with archive.open("rb") as file:
            return _read(file, archive.stat().st_size, archive, sink, limit)
    except Damaged as error:
        raise ArchiveDamaged(
            f"{archive} is no whole archive: {error}", hint="download it again"
        ) from error
    except OSError as error:
        raise SecateurError(
            f"cannot unpack {archive}: {error.strerror}", hint="check the path and the disk's room"
        ) from error


def _read(file: BinaryIO, size: int, archive: Path, sink: Sink | None, limit: int) -> int:
    start = Start.from_bytes(file.read(START_BYTES))
    if max(start.index[1], start.heads[1]) > _INDEX_BYTES:
        raise Damaged("its index is larger than an index can be")
    if start.size > limit:
        raise ArchiveTooLarge(
            f"{archive} unpacks to {start.size} bytes, and {limit} are allowed",
            hint="allow more with --limit if you trust its source",
        )
    index = _frame(file, start.index, "index")
    heads = _frame(file, start.heads, "heads")
    entries = entries_of(index)
    _check_lengths(start, entries, size)
    hashing = Hashing(sink)
    zipped = TorchScriptZip(hashing)
    place = 0
    for entry in entries:
        head = heads[place : place + entry.head]
        place += entry.head
        bodies = tuple(file.read(length) for length in entry.bodies)
        zipped.add(entry.name, _content(entry, head, bodies))
    zipped.close()
    if zipped.size != start.size or hashing.digest() != start.sha256:
        raise Damaged("its content does not have the SHA-256 that it was written with")
    return zipped.size


def _frame(file: BinaryIO, lengths: tuple[int, int], what: str) -> bytes:
    stored, unpacked = lengths
    data = file.read(stored)
    if len(data) < stored:
        raise Damaged(f"it is cut off in its {what}")
    try:
        return decompress(data, unpacked, text=what == "index")
    except ValueError as error:
        raise Damaged(f"its {what} cannot be read: {error}") from error


def _check_lengths(start: Start, entries: list[Entry], size: int) -> None:
    if sum(entry.size for entry in entries) > start.size:
        raise Damaged("its records are larger than the file they make")
    if sum(entry.head for entry in entries) != start.heads[1]:
        raise Damaged("its heads do not belong to its records")
    stored = START_BYTES + start.index[0] + start.heads[0]
    stored += sum(sum(entry.bodies) for entry in entries)
    if stored != size:
        raise Damaged(f"it has {size} bytes, and {stored} belong to it")


def _content(entry: Entry, head: bytes, bodies: tuple[bytes, ...]) -> bytes:
    if entry.coder == IN_INDEX:
        return entry.content
    try:
        return decode(Coded(entry.coder, entry.parameters, head, bodies), entry.size)
    except ValueError as error:
        raise Damaged(f"the record `{entry.name}` cannot be read: {error}") from error
