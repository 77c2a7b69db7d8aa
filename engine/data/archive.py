"""Files inside a zip or tar, read one at a time from any thread.

The directory is read once; a file is then one read at its place. Shards (tars inside of an archive)
are looked into as they lie there. Archives were checked when they were uploaded; what is held here
again are the bounds that protect this process.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from secateur.data_files.tar_entries import tar_entries

from engine.data.faults import data_faults
from engine.errors import DatasetInvalid

_LOCAL_HEADER_BYTES = 30
MAX_FILE_BYTES = 1 << 30
"""Largest file that is read whole."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: with its folders.
        offset: of its bytes in the archive; of its own header where it is an entry of a zip.
        size: unpacked.
        packed: bytes in the archive.
        deflated: whether they are compressed.
        headed: whether a header of a zip stands before them.
    """

    name: str
    offset: int
    size: int
    packed: int
    deflated: bool = False
    headed: bool = False


class Archive:
    """Files that lie in another file, which must not change."""

    def __init__(self, path: Path, members: list[Member]) -> None:
        self.path = path
        self.members = members

    @classmethod
    def opened(cls, path: Path) -> Archive:
        """The files of a zip, or of an uncompressed tar, by the suffix.

        Raises:
            DatasetInvalid: it is damaged, or holds what no dataset needs.
        """
        try:
            return cls(path, list(_of_tar(path) if path.suffix == ".tar" else _of_zip(path)))
        except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
            raise DatasetInvalid(
                f"the dataset is not a readable zip or tar file: {error}",
                hint="pack it again, a tar without compression",
                where=path.name,
            ) from error

    @cached_property
    def _descriptor(self) -> int:
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        descriptor = self.__dict__.get("_descriptor")
        if descriptor is not None:
            os.close(descriptor)

    def read(self, member: Member) -> bytes:
        """The bytes of a file.

        Raises:
            DatasetInvalid: they are not there; names the file.
        """
        if member.size > MAX_FILE_BYTES:
            raise DatasetInvalid(
                f"`{member.name}` has {member.size} bytes; a file of an archive has at most "
                f"{MAX_FILE_BYTES}",
                hint="store large arrays as safetensors, npz or Parquet",
                where=member.name,
            )
        start = self._start(member)
        packed = os.pread(self._descriptor, member.packed, start)
        try:
            if member.deflated:
                # One byte more than announced would be a bomb, and is asked for to see it.
                packed = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
        except zlib.error:
            packed = b""
        if len(packed) != member.size:
            raise DatasetInvalid(
                f"`{member.name}` is damaged: it does not hold the {member.size} bytes it should",
                hint="pack the archive again and upload it",
                where=member.name,
            )
        return packed

    def shard(self, member: Member) -> list[Member]:
        """The files of a tar inside this archive, which must lie there uncompressed.

        Raises:
            DatasetInvalid: it is compressed or damaged; names it.
        """
        if member.deflated:
            raise DatasetInvalid(
                f"the shard `{member.name}` is compressed by the archive around it",
                hint="put shards into a tar, or into a zip with `zip -0`",
                where=member.name,
            )
        start = self._start(member)
        with self.path.open("rb") as file, data_faults():
            found = tar_entries(file, start=start, end=start + member.size, name=member.name)
            folder = f"{member.name}/"
            return [Member(folder + one.name, one.offset, one.size, one.size) for one in found]

    def _start(self, member: Member) -> int:
        """Where the bytes of a file begin: in a zip after its header, which tells its length."""
        if not member.headed:
            return member.offset
        header = os.pread(self._descriptor, _LOCAL_HEADER_BYTES, member.offset)
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return member.offset + _LOCAL_HEADER_BYTES + name + extra


def _of_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"`{entry.filename}` is compressed in a way that is not read")
            yield Member(
                name=entry.filename,
                offset=entry.header_offset,
                size=entry.file_size,
                packed=entry.compress_size,
                deflated=entry.compress_type == zipfile.ZIP_DEFLATED,
                headed=True,
            )


def _of_tar(path: Path) -> Iterator[Member]:
    with path.open("rb") as file, data_faults():
        for one in tar_entries(file, start=0, end=path.stat().st_size, name=path.name):
            yield Member(one.name, one.offset, one.size, one.size)
