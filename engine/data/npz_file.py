"""Npz files: a zip of npy arrays, mapped and not read.

`numpy.savez` stores arrays as they are, so one lies in the file as a run of bytes, and the file is
mapped from there. In a zip that run may begin at any byte, where torch must not be given a view:
its kernels are compiled for aligned numbers. Rows of such an array are gathered by numpy, which
handles both, into tensors of their own. `numpy.savez_compressed` leaves nothing to map: its arrays
are unpacked into the job's scratch folder first, in pieces, and mapped there.
"""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy

from engine.data.columns import Leaf
from engine.data.mapped import mapped
from engine.errors import DatasetInvalid

_PIECE = 1 << 20
_LOCAL_HEADER_BYTES = 30


def read_npz(path: Path, scratch: Path | None) -> dict[str, Leaf]:
    """The arrays by name.

    Args:
        path: of the file.
        scratch: folder that compressed arrays are unpacked into; None refuses them.

    Raises:
        DatasetInvalid: the file is damaged, an array holds no numbers, or there is no room.
    """
    name = path.name
    try:
        with zipfile.ZipFile(path) as archive:
            columns: dict[str, Leaf] = {}
            for number, entry in enumerate(archive.infolist()):
                name = entry.filename.removesuffix(".npy")
                columns[name] = _column(path, archive, entry, scratch, number)
            return columns
    except TypeError as error:
        raise DatasetInvalid(
            f"array `{name}` has a dtype that torch lacks: {error}",
            hint="store numbers (float32, int64, uint8, ...)",
            where=name,
        ) from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetInvalid(
            f"the dataset is not a readable npz file: {error}",
            hint="write it with `numpy.savez`, without Python objects",
            where=path.name,
        ) from error


def _column(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, scratch: Path | None, number: int
) -> Leaf:
    with archive.open(entry) as file:
        shape, fortran, dtype = _header(file)
        if dtype.hasobject:
            raise ValueError(f"`{entry.filename}` holds Python objects")
        torch.from_numpy(np.empty(0, dtype))  # a TypeError where torch lacks it
        header = file.tell()
        if entry.file_size - header != prod(shape) * dtype.itemsize:
            raise ValueError(f"`{entry.filename}` is cut short")
        if not prod(shape):
            return torch.from_numpy(np.empty(shape, dtype))
        if entry.compress_type == zipfile.ZIP_STORED:
            source, offset = path, _start_of(path, entry) + header
        else:
            source, offset = _unpacked(file, entry, scratch, number), 0
    return mapped(source, dtype, shape, offset=offset, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"npy version {version[0]}.{version[1]} is not supported")


def _start_of(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored entry begin: after its own header, whose lengths stand in it."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"`{entry.filename}` does not begin where the directory says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = entry.header_offset + _LOCAL_HEADER_BYTES + name + extra
    if start + entry.file_size > path.stat().st_size:
        raise zipfile.BadZipFile(f"`{entry.filename}` is cut short")
    return start


def _unpacked(file: IO[bytes], entry: zipfile.ZipInfo, scratch: Path | None, number: int) -> Path:
    if scratch is None:
        raise ValueError(f"`{entry.filename}` is compressed, and there is no folder to unpack it")
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{number}.bin"
    try:
        with target.open("wb") as out:
            while piece := file.read(_PIECE):
                out.write(piece)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise DatasetInvalid(
            f"there is no room to unpack `{entry.filename}`: {error.strerror}",
            hint="write the file with `numpy.savez` or as safetensors: those are read in place",
            where=entry.filename.removesuffix(".npy"),
        ) from error
    return target
