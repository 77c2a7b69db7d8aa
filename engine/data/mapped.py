"""Arrays in a mapped file.

A mapping that can be written to (privately: the file stays as it is) becomes a tensor without a
copy, and a model that changes its inputs in place does no harm. But the system counts such a
mapping as memory of the process, whose size may be limited. Where it does not fit, the file is
mapped for reading alone, which counts for nothing, and rows are copied as they are asked for.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.columns import Column, Leaf
from engine.data.draws import Draw


@dataclass(frozen=True)
class MappedRows(Column):
    """Rows of an array in a mapped file, wherever its bytes begin; gathered by numpy.

    Attributes:
        array: over the file.
        seen_as: the dtype of its bits, where numpy has none for it.
    """

    array: np.memmap[Any, Any]
    seen_as: torch.dtype | None = None

    @property
    def samples(self) -> int:
        """Its first dimension."""
        return int(self.array.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """As torch names it."""
        return self.seen_as or torch.from_numpy(np.empty(0, self.array.dtype)).dtype

    def take(self, rows: Tensor, draw: Draw | None = None) -> Tensor:  # noqa: ARG002
        """See `Column`."""
        found = torch.from_numpy(np.array(self.array[rows.numpy()]))
        return found if self.seen_as is None else found.view(self.seen_as)


def mapped(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, offset: int = 0, order: str = "C"
) -> Leaf:
    """An array of a file: a tensor where it can be one, or rows that are copied.

    Args:
        path: of the file.
        dtype: of the array.
        shape: of the array; no dimension is zero.
        offset: of its first byte.
        order: `C` or `F`.
    """
    kind: Any = order
    try:
        array: np.memmap[Any, Any] = np.memmap(path, dtype, "c", offset, shape, kind)
    except OSError as error:
        if error.errno != errno.ENOMEM or not shape:
            raise
        return MappedRows(np.memmap(path, dtype, "r", offset, shape, kind))
    if array.flags.aligned:
        return torch.from_numpy(array)
    return MappedRows(array) if shape else torch.from_numpy(np.array(array))
