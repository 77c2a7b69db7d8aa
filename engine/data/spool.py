"""Rows written one after the other into the job's scratch folder, and mapped from there.

Formats that have no place for a single row (compressed pages, columns of a table) are read through
once, in constant memory; afterwards every row is at hand in any order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.data.archive import Archive, Member
from engine.data.columns import Leaf
from engine.data.mapped import mapped
from engine.errors import DatasetInvalid

MAX_RATIO = 200
"""Bytes unpacked for each byte of the file, at most ..."""
ALWAYS_ALLOWED = 1 << 26
"""... beyond so many."""
_WIDER = {"uint16": "int32", "uint32": "int64"}


class Budget:
    """How much a file may unpack to; shared by all that is unpacked from it."""

    def __init__(self, path: Path) -> None:
        self._left = ALWAYS_ALLOWED + MAX_RATIO * path.stat().st_size
        self._name = path.name

    def spend(self, size: int) -> None:
        """Count bytes.

        Raises:
            DatasetInvalid: it is used up.
        """
        self._left -= size
        if self._left < 0:
            raise DatasetInvalid(
                f"`{self._name}` unpacks to more than {MAX_RATIO} times its size",
                hint="store the data in a way that compresses less, such as safetensors",
                where=self._name,
            )


class Spool:
    """One column on its way to the disk."""

    def __init__(self, folder: Path, name: str, budget: Budget) -> None:
        """Args:
        folder: where its file lies, made when needed.
        name: of the column, for errors; its file is named for it.
        budget: of the file it is read from.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._budget = budget
        self._path = folder / f"{name.replace('/', '.')}.bin"
        self._file = self._path.open("wb")
        self._dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self.rows = 0
        self.members: list[Member] = []

    def add(self, rows: NDArray[Any], where: str) -> None:
        """Rows [n, ...] of one shape and dtype throughout.

        Raises:
            DatasetInvalid: they are of another shape or dtype than those before; names `where`.
        """
        dtype = rows.dtype
        if self._dtype is None:
            self._dtype, self._shape = dtype, rows.shape[1:]
        elif (dtype, rows.shape[1:]) != (self._dtype, self._shape):
            raise DatasetInvalid(
                f"{where} has {dtype} of shape {list(rows.shape[1:])}; those before it have "
                f"{self._dtype} of shape {list(self._shape)}",
                hint="every sample of a dataset has the same shape and dtype",
                where=self.name,
            )
        wide = np.dtype(_WIDER.get(dtype.name, dtype.name))
        self._write(np.ascontiguousarray(rows, wide).tobytes())
        self.rows += len(rows)

    def add_file(self, data: bytes, name: str) -> None:
        """One file, as a row."""
        self.members.append(Member(name, self._file.tell(), len(data), len(data)))
        self._write(data)
        self.rows += 1

    def _write(self, data: bytes) -> None:
        self._budget.spend(len(data))
        try:
            self._file.write(data)
        except OSError as error:
            raise DatasetInvalid(
                f"there is no room to unpack `{self.name}`: {error.strerror}",
                hint="write the dataset as safetensors, which is read in place",
                where=self.name,
            ) from error

    def tensor(self) -> Leaf:
        """All rows, mapped; nothing more can be added."""
        self._file.close()
        if self._dtype is None:
            return torch.empty(0)
        wide = np.dtype(_WIDER.get(self._dtype.name, self._dtype.name))
        shape = (self.rows, *self._shape)
        if 0 in shape:
            return torch.from_numpy(np.empty(shape, wide))
        return mapped(self._path, wide, shape)

    def archive(self) -> Archive:
        """All files; nothing more can be added."""
        self._file.close()
        return Archive(self._path, self.members)
