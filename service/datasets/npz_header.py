"""The headers of an npz file: a zip of npy files. Object arrays, which are pickles, are refused."""

from __future__ import annotations

import re
import zipfile
from math import prod
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.lib import format as npy
from secateur.resources import TensorInfo

from service.datasets.problems import DatasetRefused
from service.uploads.zip_check import ZipLimits, ZipRefused, check_content, checked_zip

_WRITE = "Write the file with `numpy.savez(path, **{'train/inputs/0': array, ...})`."
_OF_A_SAMPLE = re.compile(r"\.(inputs|targets)\.[^/]*\.npy$")
"""WebDataset: `train/0001.inputs.0.npy`."""
DTYPES = frozenset(
    {
        "bool",
        "uint8",
        "uint16",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
    }
)


def read_headers(path: Path, limits: ZipLimits) -> list[TensorInfo]:
    """The arrays, each checked against the size of its entry; every entry is read once to compare
    its checksum."""
    try:
        with checked_zip(path, limits) as archive:
            tensors = [_array(archive, entry) for entry in archive.infolist()]
            check_content(archive)
            return tensors
    except ZipRefused as error:
        raise DatasetRefused(error.reason, hint=error.hint or _WRITE) from error


def read_array_header(file: IO[bytes], name: str) -> TensorInfo:
    """Dtype and shape of an npy file.

    Raises:
        DatasetRefused: it is none, or holds something other than numbers.
    """
    try:
        shape, dtype = _header(file)
    except (ValueError, EOFError) as error:
        raise DatasetRefused(
            f"The header of `{name}` cannot be read: {error}.", tensor=name, hint=_WRITE
        ) from error
    _check_dtype(dtype, name)
    return TensorInfo(name=name, dtype=dtype.name, shape=list(shape))


def _check_dtype(dtype: np.dtype[np.generic], name: str) -> None:
    if dtype.hasobject:
        raise DatasetRefused(
            f"`{name}` holds Python objects, which are pickles and never loaded.",
            tensor=name,
            hint="Convert it to numbers: `array.astype('float32')`.",
        )
    if dtype.name not in DTYPES or not dtype.isnative:
        raise DatasetRefused(
            f"`{name}` has dtype {dtype.str}; valid are {', '.join(sorted(DTYPES))}, "
            "little-endian.",
            tensor=name,
            hint=f"Convert `{name}` with `array.astype(...)`.",
        )


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> TensorInfo:
    name = entry.filename.removesuffix(".npy")
    if name == entry.filename:
        raise DatasetRefused(
            f"The entry `{entry.filename}` is not an .npy file.", tensor=name, hint=_WRITE
        )
    try:
        with archive.open(entry) as file:
            shape, dtype = _header(file)
            header_bytes = file.tell()
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DatasetRefused(
            f"The header of `{name}` cannot be read: {error}.", tensor=name, hint=_WRITE
        ) from error
    _check_dtype(dtype, name)
    needed = prod(shape) * dtype.itemsize
    if entry.file_size - header_bytes != needed:
        raise DatasetRefused(
            f"`{name}` of shape {list(shape)} and dtype {dtype.name} needs {needed} bytes; "
            f"{entry.file_size - header_bytes} are there.",
            tensor=name,
            hint="The file is damaged; save and send it again.",
        )
    return TensorInfo(name=name, dtype=dtype.name, shape=list(shape))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"npy version {version[0]}.{version[1]} is not supported")
    return shape, dtype


def holds_arrays(path: Path) -> bool:
    """Whether a zip is an npz file: no file in it has another suffix than `.npy`, or it is
    damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return True  # `read_headers` says what is wrong
    return not any(
        PurePosixPath(name).suffix not in ("", ".npy") or _OF_A_SAMPLE.search(name)
        for name in names
    )
