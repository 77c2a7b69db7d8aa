"""Zips and tars of images or of WebDataset samples: names, sizes and headers of files, no more.

A zip has passed `service.uploads.zip_check`; what a tar may hold is said in
`secateur.data_files.tar_entries`. Every image announces its size, which is read here.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from secateur.data_files.faults import DataFault
from secateur.data_files.shards import is_shard, is_sharded
from secateur.data_files.tar_entries import looks_like_tar, tar_entries

from service.datasets.image_content import folder_content
from service.datasets.problems import DatasetRefused
from service.datasets.samples import Content, File
from service.datasets.shard_content import shards_content
from service.uploads.zip_check import ZipLimits, ZipRefused, check_content, checked_zip

_HEAD_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_LIMITS = "`GET /v1/limits` shows the limits of this server; shards hold as many files each."


def zip_content(path: Path, limits: ZipLimits) -> Content:
    """What a zip holds.

    Raises:
        DatasetRefused: it breaks a rule; names the file.
    """
    try:
        with checked_zip(path, limits) as archive, path.open("rb") as raw:
            entries = archive.infolist()
            files = [
                File(
                    entry.filename,
                    entry.file_size,
                    partial(_head_of_entry, archive, entry),
                    _stored_at(raw, entry) if is_shard(entry.filename) else None,
                )
                for entry in entries
                if not entry.is_dir()
            ]
            folders = [entry.filename for entry in entries if entry.is_dir()]
            content = _content(raw, files, folders, limits)
            check_content(archive)
            return content
    except ZipRefused as error:
        raise DatasetRefused(error.reason, hint=error.hint or "Pack the folder again.") from error
    except DataFault as fault:
        raise refusal(fault) from fault


def tar_content(path: Path, limits: ZipLimits) -> Content:
    """What a tar holds.

    Raises:
        DatasetRefused: it breaks a rule; names the file.
    """
    try:
        with path.open("rb") as raw:
            folders: list[str] = []
            size = path.stat().st_size
            files = list(_of_tar(raw, range(size), "The archive", limits, folders))
            return _content(raw, files, folders, limits)
    except DataFault as fault:
        raise refusal(fault) from fault


def refusal(fault: DataFault) -> DatasetRefused:
    """A fault of the files as the answer to their upload."""
    return DatasetRefused(fault.message, tensor=fault.where, hint=fault.hint)


def _content(raw: IO[bytes], files: list[File], folders: list[str], limits: ZipLimits) -> Content:
    seen: set[str] = set()
    for file in files:
        if file.name in seen:
            raise DataFault(
                f"The archive has the file `{file.name}` twice.",
                hint="Write the archive again: appending to a tar keeps what was there.",
                where=file.name,
            )
        seen.add(file.name)
    if not is_sharded(seen):
        return folder_content(files, folders)
    return shards_content(_of_shards(raw, files, limits))


def _of_shards(raw: IO[bytes], files: list[File], limits: ZipLimits) -> Iterator[File]:
    """The files of all shards, in order, and then those beside the shards."""
    for file in files:
        if is_shard(file.name):
            if file.start is None:
                raise DataFault(
                    f"The shard `{file.name}` is compressed by the zip around it.",
                    hint="Put shards into a tar, or into a zip with `zip -0`.",
                    where=file.name,
                )
            folder = f"{file.name}/"
            where = range(file.start, file.start + file.size)
            for one in _of_tar(raw, where, file.name, limits, []):
                yield File(folder + one.name, one.size, one.head, one.start)
    yield from (file for file in files if not is_shard(file.name))


def _of_tar(
    raw: IO[bytes], where: range, name: str, limits: ZipLimits, folders: list[str]
) -> Iterator[File]:
    found = tar_entries(raw, start=where.start, end=where.stop, name=name, folders=folders)
    for number, entry in enumerate(found):
        if number + len(folders) >= limits.entries:
            raise DataFault(
                f"`{name}` has more than {limits.entries} files and folders.",
                hint=_LIMITS,
                where=name,
            )
        head = partial(_head_at, raw, entry.offset, entry.size)
        yield File(entry.name, entry.size, head, entry.offset)


def _head_of_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        with archive.open(entry) as file:
            return io.BytesIO(file.read(_HEAD_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ZipRefused(
            f"The entry `{entry.filename}` is damaged: {error}.",
            "The file changed after it was saved; save and send it again.",
        ) from error


def _head_at(raw: IO[bytes], start: int, size: int) -> IO[bytes]:
    raw.seek(start)
    return io.BytesIO(raw.read(min(size, _HEAD_BYTES)))


def _stored_at(raw: IO[bytes], entry: zipfile.ZipInfo) -> int | None:
    """Where the bytes of an entry begin, after its own header; None where it is compressed."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return None
    raw.seek(entry.header_offset)
    header = raw.read(_LOCAL_HEADER_BYTES)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return entry.header_offset + _LOCAL_HEADER_BYTES + name + extra


def is_tar(path: Path) -> bool:
    """Whether a file begins as an uncompressed tar does."""
    with path.open("rb") as file:
        return looks_like_tar(file)
