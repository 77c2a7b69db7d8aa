"""The regular files of an uncompressed tar, in constant memory.

POSIX.1-2017, `pax`, "ustar interchange format": blocks of 512 bytes, a header before each file.
Long names come in a header of their own before it, of type `x` (pax) or `L` (GNU). Links, devices
and sparse files have no place in a dataset and are refused, and so is what is damaged: readers that
forgive would see other files than the one that checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from secateur.data_files.faults import DataFault

_BLOCK = 512
_MAX_EXTENSION_BYTES = 1 << 16
_AGAIN = "Write the tar again, without compression and with regular files only."


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A regular file in a tar: its name, and where its bytes are in the file that holds the tar."""

    name: str
    offset: int
    size: int


def looks_like_tar(file: IO[bytes]) -> bool:
    """Whether a file begins with the header of a tar."""
    file.seek(0)
    block = file.read(_BLOCK)
    return len(block) == _BLOCK and block[257:262] == b"ustar" and _sums_up(block)


def tar_entries(
    file: IO[bytes], *, start: int, end: int, name: str, folders: list[str] | None = None
) -> Iterator[TarEntry]:
    """The files of the tar that lies from `start` to `end`.

    Args:
        file: to read from; its position moves.
        start: first byte of the tar.
        end: the byte after its last.
        name: of the tar, for errors.
        folders: is given the names of the directories.

    Raises:
        DataFault: it is damaged, or holds something other than regular files and directories.
    """
    position = start
    extended: dict[str, str] = {}
    while position < end:
        file.seek(position)
        block = file.read(min(_BLOCK, end - position))
        if not block.strip(b"\0"):
            return  # the end mark, which some writers leave out
        if len(block) < _BLOCK or not _sums_up(block):
            raise DataFault(
                f"`{name}` is damaged: byte {position - start} begins no file.",
                hint=_AGAIN,
                where=name,
            )
        kind = block[156:157]
        size = int(extended.get("size", -1))
        size = _number(block[124:136], name) if size < 0 else size
        data = position + _BLOCK
        position = data + -(-size // _BLOCK) * _BLOCK
        if position > end:
            raise DataFault(f"`{name}` was cut off.", hint=_AGAIN, where=name)
        if kind in (b"x", b"L", b"g"):
            if size > _MAX_EXTENSION_BYTES:
                raise DataFault(
                    f"`{name}` holds a header of {size} bytes.", hint=_AGAIN, where=name
                )
            file.seek(data)
            found = file.read(size)
            extended |= _pax(found, name) if kind == b"x" else {}
            if kind == b"L":
                extended["path"] = _text(found.rstrip(b"\0"), name)
            continue
        entry = extended.get("path") or _name(block, name)
        sparse = any(key.startswith("GNU.sparse") for key in extended)
        extended = {}
        _check_name(entry)
        if kind == b"5":
            if folders is not None:
                folders.append(entry.removeprefix("./"))
            continue
        if kind not in (b"0", b"\0", b"7") or sparse:
            raise DataFault(
                f"`{entry}` is no regular file (a link, a device or the like).",
                hint=_AGAIN,
                where=entry,
            )
        yield TarEntry(entry.removeprefix("./"), data, size)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise DataFault(
            f"The file name {name!r} points outside of the archive or has characters it may not "
            "have.",
            hint="Pack the folder from inside of it: `tar -cf data.tar train validation`.",
            where=name,
        )


def _sums_up(block: bytes) -> bool:
    """Whether the checksum of a header, its own field counted as blanks, is what it says."""
    try:
        announced = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return announced == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _number(field: bytes, name: str) -> int:
    if field[0] & 0x80:  # GNU: large sizes in base 256
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise DataFault(f"`{name}` has a damaged header.", hint=_AGAIN, where=name) from error


def _name(block: bytes, name: str) -> str:
    own = _text(block[:100].partition(b"\0")[0], name)
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return f"{_text(prefix, name)}/{own}" if prefix else own


def _pax(data: bytes, name: str) -> dict[str, str]:
    """Records `length key=value\\n`."""
    found = {}
    while data:
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or not len(length) + 2 < int(length) <= len(data):
            raise DataFault(f"`{name}` has a damaged header.", hint=_AGAIN, where=name)
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        found[_text(key, name)] = _text(value, name)
        data = data[int(length) :]
    if not found.get("size", "0").isdigit():
        raise DataFault(f"`{name}` has a damaged header.", hint=_AGAIN, where=name)
    return found


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataFault(
            f"`{name}` holds a file name that is not UTF-8.", hint=_AGAIN, where=name
        ) from error
